"""A clock for Dask that never jumps, and certificates that are valid at any time.

Dask and tornado use the time of day: they sleep until a time, and count a worker as dead that has been silent
since a time. If a time server sets the clock back by a day, they sleep for that day and the run hangs. If it
sets the clock ahead, all workers can count as dead at once.
"""

from __future__ import annotations

import datetime
import importlib
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Security

#: The name of this module. Dask loads it into the workers that it starts.
PRELOAD = __name__

_OFFSET = time.time() - time.monotonic()

# From before any clock to after any clock (RFC 5280, 4.1.2.5, names this end for a certificate without one).
_ALWAYS = (datetime.datetime(1950, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59))


def now() -> float:
    """The time of day at import plus the seconds since then: it never jumps."""
    return time.monotonic() + _OFFSET


def use_steady_clock() -> None:
    """Make Dask and tornado use ``now`` in this process. They compare their times, so both must."""
    importlib.import_module("distributed")
    from tornado.ioloop import IOLoop

    IOLoop.time = lambda self: now()  # type: ignore[method-assign]
    for name, module in list(sys.modules.items()):
        # Each module has its own name for the function, from ``distributed.metrics`` or from ``time``.
        if name.startswith("distributed.") and getattr(module, "time", None) is time.time:
            module.time = now  # type: ignore[attr-defined]


def dask_setup(worker: Any) -> None:
    """Use the steady clock in a worker. Dask calls this when it loads the module into one."""
    use_steady_clock()


def temporary_certificates() -> Security:
    """TLS for both sides of one run, like ``Security.temporary``, but valid at any time.

    The certificates of ``Security.temporary`` are valid from the moment that they are made: when the clock is
    set back, they are not valid yet. A key for one run needs no dates.
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
