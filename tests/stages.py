"""The stages as tests call them: a run of one stage in a line, and a listener that remembers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from assay.core.progress import SILENT, Progress, Silent
from assay.export import EXPORT, Exported, ToExport
from assay.export.folder import OutputFolder
from assay.read.convert import CONVERT, ToConvert
from assay.read.formats import KNOWN_NAMES, Names
from assay.read.inventory import INGEST, SHARD_BYTES, Inputs, Inventory
from assay.read.sources import MAX_RECORD_BYTES
from assay.rewards.remote.endpoints import ReadBlock
from assay.rewards.spec import ModelSpec
from assay.score.scoring import SCORE, ScoringWork, ToScore
from assay.select.decide import DECIDE, ToDecide
from assay.select.rules import Rules
from assay.select.selection import Selection
from assay.storage.home import Home
from assay.storage.manifests import Converted, Filtered, Scored
from assay.storage.stage import RunContext
from assay.workers.cluster import ClusterOptions


class Heard(Silent):
    """Progress that remembers what was said and what was done."""

    def __init__(self, say: Callable[[str], object] | None = None) -> None:
        self.lines: list[str] = []
        self.works: list[object] = []
        self._say = say or self.lines.append

    def say(self, line: str) -> None:
        self._say(line)

    def did(self, work: object) -> None:
        self.works.append(work)


def context(home: Home | None = None, say: Callable[[str], object] | None = None) -> RunContext:
    """A context of that home; ``say`` hears the lines. Without a home nothing may look for one."""
    return RunContext(home or Home(Path("/nowhere")), Heard(say) if say else SILENT)


def take_inventory(
    names: Sequence[str],
    *,
    format: str = "auto",
    shard_bytes: int = SHARD_BYTES,
    within: tuple[str, ...] | None = None,
    output: Path | None = None,
    say: Callable[[str], object] | None = None,
    home: Home | None = None,
    mapped: Names = KNOWN_NAMES,
    verify: bool = False,
) -> Inventory:
    inputs = Inputs(tuple(names), format, within, output, shard_bytes, mapped, verify)
    with tempfile.TemporaryDirectory() as other:
        return INGEST.run(inputs, context(home or Home(Path(other)), say))


def convert(
    inventory: Inventory,
    *,
    home: Home,
    limit: int | None = None,
    strict: bool = False,
    max_record_bytes: int = MAX_RECORD_BYTES,
    progress: Progress = SILENT,
    hide_reasoning: bool = False,
) -> Converted:
    given = ToConvert(inventory, limit, strict, max_record_bytes, hide_reasoning)
    return CONVERT.run(given, RunContext(home, progress))


def score(
    converted: Converted,
    model: ModelSpec,
    *,
    home: Home,
    cluster: ClusterOptions | None = None,
    shard_tokens: int | None = None,
    read_block: ReadBlock | None = None,
    progress: Heard | None = None,
    leave_if_unwanted: Callable[[], None] = lambda: None,
) -> tuple[Scored, ScoringWork]:
    heard = progress or Heard()
    given = ToScore(converted, model, cluster or ClusterOptions(), shard_tokens, read_block)
    scored = SCORE.run(given, RunContext(home, heard, leave_if_unwanted))
    work = heard.works[-1]
    assert isinstance(work, ScoringWork)
    return scored, work


def scores_are_current(converted: Converted, model: ModelSpec, scored: Scored, home: Home) -> bool:
    return SCORE.is_current(ToScore(converted, model), scored, home)


def decide(
    converted: Converted,
    scored: Scored | None,
    *,
    rules: Rules,
    home: Home,
    selection: Selection | None = None,
) -> Filtered:
    return DECIDE.run(ToDecide(converted, scored, rules, selection or Selection()), RunContext(home))


def build(
    converted: Converted,
    scored: Scored | None,
    filtered: Filtered,
    *,
    home: Home,
    staging: Path,
    exports: Sequence[str],
    stop_after: Literal["convert", "score"] | None = None,
) -> Exported:
    folder = OutputFolder(staging.with_name("published"))
    given = ToExport(converted, scored, filtered, tuple(exports), folder, staging, stop_after)
    return EXPORT.run(given, RunContext(home))
