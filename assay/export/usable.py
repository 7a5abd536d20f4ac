"""Whether a run could use anything of what it read: what its counts say, and what is told of them.

A record was of use where it was kept, or where a rule judged it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_RULE = "rule: "


def nothing_usable(read: int, dropped: Mapping[str, int], quarantined: Mapping[str, int]) -> str | None:
    """What to tell where none of the records ``read`` came as far as being kept or judged by a rule."""
    unused = [*dropped.items(), *quarantined.items()]
    if sum(count for _, count in unused) < read or _judged(dropped):
        return None
    if not read:
        return "No record could be used: the inputs hold none. Are these chat files?"
    reason, count = min(unused, key=lambda item: (-item[1], item[0]))
    most = f"No record could be used: {reason} ({count:,} of {read:,})."
    return f"{most} Are these chat files? docs/formats.md says what is read."


def all_ruled_out(read: int, kept: int, dropped: Mapping[str, int]) -> str | None:
    """What to tell where records could be used, and the rules keep none."""
    judged = _judged(dropped)
    if kept or not judged:
        return None
    rule, count = min(judged.items(), key=lambda item: (-item[1], item[0]))
    return f"The rules keep no record: {rule.removeprefix(_RULE)} drops {count:,} of {read:,}."


def _judged(dropped: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in dropped.items() if reason.startswith(_RULE)}


def holds_records(manifest: Mapping[str, Any]) -> bool:
    """Whether results with this manifest are of records that could be used; true where it does not say."""
    try:
        read = int(manifest["rows"]["read"])
        return nothing_usable(read, manifest["dropped"], manifest["quarantined"]) is None
    except (KeyError, TypeError, ValueError, AttributeError):
        return True
