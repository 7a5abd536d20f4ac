"""Which addresses a service may have. Those where a cloud hands out credentials are refused.

Loopback and private networks are allowed: a reward model is often served on a machine nearby. The operator
writes the list of endpoints. So this guards against a host name that somebody made point elsewhere.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Metadata services that are not link-local: AWS over IPv6, Alibaba, Oracle, Azure.
_METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "instance-data"})


def why_refused(address: str) -> str | None:
    """Why no request may go to this IP address; None where requests may."""
    found: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found.sixtofour or found
    if found.is_link_local:
        return f"{address} is link-local, as a cloud's metadata services are"
    if found in _METADATA:
        return f"{address} is a cloud's metadata service"
    if found.is_unspecified or found.is_multicast:
        return f"{address} is not the address of a machine"
    return None


def is_same_place(one: str, other: str) -> bool:
    """Whether two URLs of endpoints name the same address in different spellings. Looks up no host name."""
    return _spelled_out(one) == _spelled_out(other)


def _spelled_out(url: str) -> tuple[str, str, int | None, str]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").rstrip("."), port, parts.path.rstrip("/")


def why_url_refused(url: str, *, has_key: bool) -> str | None:
    """What is wrong with an endpoint's URL; None where nothing is. Looks up no host name.

    The text never repeats the URL, because the part before an @ may be a password.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "it cannot be read as a URL"
    if parts.scheme not in ("http", "https") or not host:
        return "it has to begin with http:// or https:// and a host"
    if parts.username is not None or parts.password is not None:
        return "it holds a user name or password; name a key with key_variable or key_block instead"
    if parts.query or parts.fragment:
        return "it holds a ? or #; give the address alone, and a key with key_variable or key_block"
    if host.rstrip(".").lower() in _METADATA_NAMES:
        return f"{host} is a cloud's metadata service"
    try:
        literal = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)[0][4][0]
    except (OSError, UnicodeError):
        literal = None
    if literal is not None and (reason := why_refused(str(literal))):
        return reason
    local = host == "localhost" or (literal is not None and ipaddress.ip_address(literal).is_loopback)
    if has_key and parts.scheme == "http" and not local:
        return "a key would travel unencrypted; use https, or a proxy on this machine"
    return None
