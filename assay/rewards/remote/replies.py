"""Read the replies of any protocol: bytes that may be anything → numbers by name."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

#: The service answered, but not with scores.
UNREADABLE = "service_reply"
#: The service failed on this turn but answers others.
FAILED = "service_failed"
#: The service refuses this turn: the turn is too long, or a role is unknown to the service.
REFUSED = "service_refused"

#: Outcomes that may be different on another day; they are not stored.
PASSING = frozenset({UNREADABLE, FAILED})


class Reply(NamedTuple):
    """An HTTP response, read to its end."""

    status: int
    headers: Mapping[str, str]
    """With lower-case names."""
    body: bytes


class UnreadableReply(Exception):
    """A reply without the scores that were asked for. The text says what came instead, not what was asked."""


def parsed(reply: Reply) -> Any:
    """The reply's JSON. ``UnreadableReply`` for a web page, and for JSON that is cut short."""
    start = reply.body.lstrip()[:1]
    if "html" in reply.headers.get("content-type", "") or start == b"<":
        raise UnreadableReply("a web page (HTML) where JSON is due")
    if not start:
        raise UnreadableReply("an empty reply")
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError) as error:
        whole = len(reply.body)
        at = f" at byte {error.pos} of {whole}" if isinstance(error, json.JSONDecodeError) else ""
        raise UnreadableReply(f"no whole JSON: it breaks off{at}") from None


def item(value: Any, *path: str | int) -> Any:
    """The value at this path of keys and indices. ``UnreadableReply`` names the part that is missing."""
    walked = ""
    for step in path:
        walked += f"[{step}]" if isinstance(step, int) else f".{step}".lstrip("." if not walked else "")
        kind = list if isinstance(step, int) else dict
        if not isinstance(value, kind):
            raise UnreadableReply(f"no {walked} in it")
        try:
            value = value[step]  # type: ignore[index]
        except (KeyError, IndexError):
            raise UnreadableReply(f"no {walked} in it") from None
    return value


def by_name(pairs: Iterable[tuple[object, object]], attributes: Sequence[str]) -> tuple[float, ...]:
    """The values in the order of ``attributes``, matched by name. Each must be there once, and no other."""
    named = [(str(name), value) for name, value in pairs]
    counted = Counter(name for name, _ in named)
    twice = [name for name, count in counted.items() if count > 1]
    if twice:
        raise UnreadableReply(f"{_listed(twice)} given twice")
    missing = [name for name in attributes if name not in counted]
    if missing:
        raise UnreadableReply(f"{_listed(missing)} missing; it names {_listed(counted) or 'nothing'}")
    extra = [name for name in counted if name not in attributes]
    if extra:
        raise UnreadableReply(f"{_listed(extra)} not expected; expected {_listed(attributes)}")
    values = dict(named)
    return tuple(number(values[name], name) for name in attributes)


def in_order(values: object, outputs: Sequence[str], attributes: Sequence[str]) -> tuple[float, ...]:
    """The values of ``attributes``, from a list whose numbers are ``outputs`` in that order."""
    if not isinstance(values, list):
        raise UnreadableReply("no list of numbers in it")
    if len(values) != len(outputs):
        raise UnreadableReply(f"{len(values)} numbers where {len(outputs)} are due ({_listed(outputs)})")
    named = dict(zip(outputs, values, strict=True))
    return tuple(number(named[name], name) for name in attributes)


def number(value: object, name: str) -> float:
    """The value as a finite float; ``UnreadableReply`` where it is anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableReply(f"{name} is no number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    # Scores are stored as float32, which holds nothing larger.
    if not math.isfinite(found) or abs(found) > 3.4028234e38:
        raise UnreadableReply(f"{name} is {found}, not a finite number")
    return found


def _listed(names: Iterable[str]) -> str:
    shown = [name if len(name) <= 40 else f"{name[:40]}…" for name in names]
    return ", ".join(shown[:10]) + (" …" if len(shown) > 10 else "")
