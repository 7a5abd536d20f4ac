"""Runs whose pages tests look at: made by hand, decided, exported and reported, without a model."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import handmade
import polars as pl
import stages
from handmade import Record, Turn
from stages import Heard

from assay.export import EXPORT, ToExport
from assay.export.folder import OutputFolder
from assay.report.build import Before, Reported, ToReport, reported
from assay.report.summary import ScoredModel, run_manifest
from assay.rewards.named import NamedModel
from assay.rewards.spec import LocalSpec
from assay.select.rules import parse_rules
from assay.storage.home import Home
from assay.storage.manifests import Converted, Filtered, Scored
from assay.storage.run_manifest import RunManifest
from assay.storage.stage import RunContext

ATTRIBUTES = ("helpfulness", "verbosity")


def spec(attributes: Sequence[str] = ATTRIBUTES, fingerprint: str = "f" * 32) -> LocalSpec:
    return LocalSpec(
        name="judge",
        folder="/models/judge",
        family="linear",
        attributes=tuple(attributes),
        max_tokens=1024,
        over_length="quarantine",
        dtype="float32",
        fingerprint=fingerprint,
        notes=("The judge is a <b>stand-in</b>.",),
    )


@dataclass
class Made:
    """A run whose results lie in ``folder``."""

    home: Home
    converted: Converted
    scored: Scored
    filtered: Filtered
    manifest: RunManifest
    folder: Path
    reported: Reported
    said: list[str] = field(default_factory=list)

    @property
    def page(self) -> str:
        return self.reported.page.decode()

    def scores(self) -> pl.DataFrame:
        """The rows of ``scores.parquet``, each with what became of its record."""
        places = ["file", "line", "part"]
        decisions = pl.read_parquet(self.folder / "decisions.parquet").rename({"reason": "why"})
        return pl.read_parquet(self.folder / "scores.parquet").join(
            decisions,
            on=places,
            maintain_order="left",
        )

    def judged(self) -> pl.DataFrame:
        """The last turn of each record that rules looked at."""
        scores = self.scores()
        last = scores.unique(["file", "line", "part"], keep="last", maintain_order=True)
        return last.filter(pl.col("outcome") != "quarantined")


def run(
    tmp_path: Path,
    files: Mapping[str, Sequence[Sequence[Record]]],
    keep: Sequence[str] = (),
    *,
    attributes: Sequence[str] = ATTRIBUTES,
    exports: Sequence[str] = ("messages",),
    before: Before | None = None,
    name: str = "out",
    fingerprint: str = "f" * 32,
) -> Made:
    """A run of these records, in ``tmp_path``, where the inputs lie for those that are quarantined."""
    with contextlib.chdir(tmp_path):
        for file in files:
            Path(file).touch()
        return _run(tmp_path, files, keep, attributes, exports, before, name, fingerprint)


def _run(
    tmp_path: Path,
    files: Mapping[str, Sequence[Sequence[Record]]],
    keep: Sequence[str],
    attributes: Sequence[str],
    exports: Sequence[str],
    before: Before | None,
    name: str,
    fingerprint: str,
) -> Made:
    home = Home(tmp_path / f"home-{name}")
    made = handmade.make(home, files, attributes)
    model = spec(attributes, fingerprint)
    rules = parse_rules(keep, attributes=tuple(attributes), flags={}, allow_cross_prompt=True)
    filtered = stages.decide(made.converted, made.scored, rules=rules, home=home)
    output = OutputFolder(tmp_path / name)
    heard = Heard()
    with output.held():
        staging = output.staging()
        given = ToExport(made.converted, made.scored, filtered, tuple(exports), output, staging)
        exported = EXPORT.run(given, RunContext(home))
        manifest = run_manifest(
            options={"output": name, "keep": list(keep)},
            models=[ScoredModel(NamedModel(None, model), made.scored)],
            converted=made.converted,
            scored=made.scored,
            filtered=filtered,
            exported=exported,
            seconds={"score": 1.5},
        )
        to_report = ToReport(
            manifest,
            made.converted,
            made.scored,
            filtered,
            {"judge": model},
            staging,
            f"assay curate --output {name}",
            before=before,
        )
        page = reported(to_report, RunContext(home, heard))
        output.put_page(staging, page.page)
        output.publish(staging, manifest)
    return Made(home, made.converted, made.scored, filtered, manifest, output.path, page, heard.lines)


def chats(count: int, seed: int = 0, *, first: int = 1) -> list[Record]:
    """Conversations of one to four turns, some of which answer the same prompt, with scores of one digit."""
    drawn = random.Random(seed)
    records = []
    for line in range(first, first + count):
        said: list[tuple[str, str]] = [("user", f"Question {line // 3}?")]
        turns = []
        for turn in range(drawn.choice((1, 1, 1, 2, 4))):
            if turn:
                said.append(("user", f"And more of {line}?"))
            said.append(("assistant", "word " * drawn.randint(1, 40) + str(drawn.randint(0, 10**6))))
            turns.append(Turn((round(drawn.gauss(2, 1), 1), round(drawn.uniform(0, 4), 1))))
        records.append(Record(line, tuple(said), tuple(turns)))
    return records


def in_pieces(records: Sequence[Record], size: int = 40) -> list[list[Record]]:
    return [list(records[start : start + size]) for start in range(0, len(records), size)]
