"""Whether a run could use anything of what it read: what its counts say, and the sentence about them.

A record was of use where a file holds it, or where a rule judged it and nothing was kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from assay.storage.manifests import Counts
from assay.storage.run_manifest import RunManifest, Written

_RULE = "rule: "


def nothing_usable(counts: Counts, exports: Mapping[str, Written]) -> str | None:
    """Why no record was of use; None where one was. ``exports`` is what each export wrote.

    A run that writes no exports uses what it keeps.
    """
    if counts.ok:
        return _all_left_out(counts.ok, exports)
    if _judged(counts.dropped):
        return None
    if not counts.read:
        return "No record could be used: the inputs hold none. Are these chat files?"
    reason, count = _most({**counts.dropped, **counts.quarantined})
    most = f"No record could be used: {reason} ({count:,} of {counts.read:,})."
    return f"{most} Are these chat files? docs/formats.md says what is read."


def _all_left_out(kept: int, exports: Mapping[str, Written]) -> str | None:
    if not exports or any(written.rows for written in exports.values()):
        return None
    name, written = max(exports.items(), key=lambda item: bool(item[1].left_out))
    if not written.left_out:
        return (
            f"No record could be used: no prompt of those that were kept gives {name} a pair. The summary "
            "says why; docs/results.md says what makes a pair."
        )
    reason, count = _most(written.left_out)
    most = f"No record could be used: no export can hold one that was kept; {name}: {reason}"
    return f"{most} ({count:,} of {kept:,}). docs/results.md says what a file can hold."


def all_ruled_out(counts: Counts) -> str | None:
    """What to say where records could be used, and the rules keep none."""
    judged = _judged(counts.dropped)
    if counts.ok or not judged:
        return None
    rule, count = _most(judged)
    return f"The rules keep no record: {rule.removeprefix(_RULE)} drops {count:,} of {counts.read:,}."


def _most(reasons: Mapping[str, int]) -> tuple[str, int]:
    """The most frequent reason, of equally frequent ones the first by name."""
    return min(reasons.items(), key=lambda item: (-item[1], item[0]))


def _judged(dropped: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in dropped.items() if reason.startswith(_RULE)}


def holds_records(manifest: Mapping[str, Any]) -> bool:
    """Whether results with this manifest are of records that could be used; true where it does not say."""
    try:
        run = msgspec.convert(manifest, RunManifest)
    except msgspec.ValidationError:
        return True
    return nothing_usable(run.counts, run.exports) is None
