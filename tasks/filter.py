"""Filter: what becomes of every record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from assay.core.progress import Progress
from assay.select.decide import filter_key, filter_records, refuse_quarantine
from assay.select.rules import Rules
from assay.storage.home import Home
from assay.storage.manifests import Converted, Filtered, Scored
from tasks.stage import Finished, as_json, run_stage, stage_task


@stage_task(name="filter", retries=2, retry_delay_seconds=[1, 5])
def filter_task(
    key: str, converted: Converted, scored: Scored | None, rules: Rules, exports: Sequence[str], home: Home
) -> Any:
    """The filter stage's manifest as JSON."""
    filtered = filter_records(converted, scored, rules=rules, exports=exports, home=home)
    return as_json(filtered, key)


def is_current(filtered: Filtered, home: Home) -> bool:
    """Whether all decisions are still as they were written."""
    return all(piece.decisions.is_intact(home) for piece in filtered.pieces)


def decide(
    converted: Converted,
    scored: Scored | None,
    *,
    rules: Rules,
    exports: Sequence[str],
    home: Home,
    strict: bool,
    progress: Progress,
) -> Finished[Filtered]:
    """A decision a record. A ``strict`` run ends with InputFault at the first record in quarantine."""
    finished = run_stage(
        filter_task,
        Filtered,
        key=filter_key(converted, scored, rules=rules, exports=exports),
        home=home,
        is_current=lambda filtered: is_current(filtered, home),
        say=progress.say,
        arguments={
            "converted": converted,
            "scored": scored,
            "rules": rules,
            "exports": exports,
            "home": home,
        },
    )
    if strict:
        refuse_quarantine(converted, finished.manifest, home)
    return finished
