"""A run's manifest for tests that need one: whole, and of nothing but what they say."""

from __future__ import annotations

from typing import Any

from assay.storage.manifests import Counts
from assay.storage.run_manifest import Rows, RunManifest, Turns

_OF_NOTHING: dict[str, Any] = {
    "assay": "0.1.0",
    "versions": {"python": "3.11"},
    "complete": True,
    "rows": Rows(read=1, kept=1, dropped=0, quarantined=0),
    "dropped": {},
    "quarantined": {},
    "lines": 1,
    "turns": Turns(scored=1),
    "failed": {},
    "model": None,
    "inputs": (),
    "files": {},
    "options": {"output": "out"},
    "seconds": {"score": 1.5},
    "output": "out",
}


def made(**fields: Any) -> RunManifest:
    """The manifest of a run over one record that it kept, with these fields."""
    return RunManifest(**_OF_NOTHING | fields)


def of_counts(counts: Counts, **fields: Any) -> RunManifest:
    """The manifest of a run whose records came to these counts."""
    rows = Rows(counts.read, counts.ok, sum(counts.dropped.values()), sum(counts.quarantined.values()))
    return made(rows=rows, dropped=counts.dropped, quarantined=counts.quarantined, **fields)
