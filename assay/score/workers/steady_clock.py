"""Dask's clock, kept from jumping while a run works, and certificates for which no clock matters.

Dask and tornado reckon by the time of day: they sleep until a time, and take a worker for dead that was not
heard of since one. A clock that is set back by a day, as by a time server, has them sleep for that day, and a
run hangs; one that is set ahead can have all workers taken for dead at once.
"""

from __future__ import annotations

import datetime
import importlib
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Security

#: This module, as Dask is to load it into the workers that it starts.
PRELOAD = __name__

_AHEAD = time.time() - time.monotonic()

# Before and after any clock (RFC 5280, 4.1.2.5, for what has no end).
_ALWAYS = (datetime.datetime(1950, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59))


def now() -> float:
    """The time of day when this module was imported, and the seconds since then: it never jumps."""
    return time.monotonic() + _AHEAD


def keep_from_jumping() -> None:
    """Have Dask and tornado go by ``now`` in this process. They agree with each other: both or neither."""
    importlib.import_module("distributed")
    from tornado.ioloop import IOLoop

    IOLoop.time = lambda self: now()  # type: ignore[method-assign]
    for name, module in list(sys.modules.items()):
        # Each has the function by its own name, from ``distributed.metrics`` or from ``time``.
        if name.startswith("distributed.") and getattr(module, "time", None) is time.time:
            module.time = now  # type: ignore[attr-defined]


def dask_setup(worker: Any) -> None:
    """What Dask calls in a worker that it starts with this module."""
    keep_from_jumping()


def certificates_of_a_run() -> Security:
    """TLS for both sides of one run, as ``Security.temporary`` makes it, but valid whatever the clock says.

    Its certificates begin when they are made: a clock that is set back finds them not valid yet. A key that
    exists for one run alone needs no dates.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID
    from distributed import Security

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key_text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dask-internal")])
    first, last = _ALWAYS
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("dask-internal")]), critical=False)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
        .sign(key, hashes.SHA256())
    )
    text = certificate.public_bytes(serialization.Encoding.PEM).decode()
    sides = {
        f"tls_{side}_{part}": value
        for side in ("client", "scheduler", "worker")
        for part, value in (("key", key_text), ("cert", text))
    }
    return Security(require_encryption=True, tls_ca_file=text, **sides)
