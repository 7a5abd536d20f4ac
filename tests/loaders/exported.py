"""What a run exports of the demo's samples and of public data, with scores that no model gave."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
from loaders.calling_chats import TOOL_CHATS
from places import ROOT
from stages import convert, decide, take_inventory

from assay.export import EXPORT, EXPORTS, AboutModel, AboutRun, PairChoice, ToExport
from assay.export.contract import EveryRecord, Export, refusal
from assay.export.folder import OutputFolder
from assay.export.kept import NOTHING, Item
from assay.export.pairs import Pair
from assay.select.rules import Rules
from assay.storage.home import Artifact, Home
from assay.storage.manifests import Converted, Scored, ScoredPiece
from assay.storage.run_manifest import Written
from assay.storage.stage import RunContext

DATA = os.environ.get("ASSAY_TEST_DATA")
ATTRIBUTES = ("reward",)
#: With attributes of SteerLM's no pair could be made of one number, and the other way round.
NAMES = tuple(name for name in EXPORTS if not name.startswith(("steerlm", "dropped")))


@dataclass(frozen=True)
class Exports:
    """A folder of results."""

    folder: Path
    written: Mapping[str, Written]

    def path(self, name: str) -> Path:
        """The file of an export."""
        return self.folder / self.written[name].file

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of an export's files, as JSON's own types."""
        if self.path(name).suffix == ".parquet":
            return pl.read_parquet(self.path(name)).to_dicts()
        (files,) = self.written[name].by_side.values()
        return [json.loads(line) for file in files for line in (self.folder / file).read_bytes().splitlines()]


def of_samples(root: Path) -> Exports:
    """The exports of all there is: samples, and OASST and HH where ``ASSAY_TEST_DATA`` has them."""
    paths = sorted((ROOT / "samples").glob("*.json*"))
    if DATA:
        paths += [Path(DATA) / "oasst1/en-validation.messages.jsonl.gz"]
        paths += [Path(DATA) / "hh-rlhf/helpful-base-test.jsonl.gz"]
    home = Home(root / "home")
    converted = convert(take_inventory([str(path) for path in paths]), home=home, limit=1500)
    return exported(root, converted, scored_by_nobody(converted, home), home)


def of_tool_calls(root: Path) -> Exports:
    """The exports of conversations with tools, calls and reasoning, behind some without any."""
    return exported_rows(TOOL_CHATS, root)


def exported_rows(
    rows: Sequence[Mapping[str, Any]], root: Path, *, shard_bytes: int | None = None
) -> Exports:
    """The exports of these rows, each of which has to be read."""
    root.mkdir(exist_ok=True)
    path = root / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    home = Home(root / "home")
    converted = convert(take_inventory([str(path)]), home=home)
    assert converted.counts.ok == converted.counts.read, converted.counts
    return exported(root, converted, scored_by_nobody(converted, home), home, shard_bytes=shard_bytes)


def exported(
    root: Path, converted: Converted, scored: Scored, home: Home, *, shard_bytes: int | None = None
) -> Exports:
    """Every export of what was converted and scored."""
    staging = root / "out"
    staging.mkdir()
    filtered = decide(converted, scored, rules=Rules(), home=home)
    given = ToExport(
        converted,
        scored,
        filtered,
        NAMES,
        OutputFolder(root / "published"),
        staging,
        pairs=PairChoice("all"),
        about=AboutRun((AboutModel(None, "nobody", "f" * 32),)),
        shard_bytes=shard_bytes,
    )
    return Exports(staging, EXPORT.run(given, RunContext(home)).exports)


def scored_by_nobody(converted: Converted, home: Home) -> Scored:
    """Scores made of the turns' keys."""
    pieces = []
    for number, piece in enumerate(converted.pieces):
        turns = pl.read_parquet(home.artifacts / piece.turns.path, glob=False)
        numbers = [int.from_bytes(key[:2], "big") / 6553.6 - 5 for key in turns["key"]]
        frame = turns.select("row", "turn").with_columns(
            pl.Series("reward", numbers, pl.Float32),
            pl.lit(None, pl.String).alias("reason"),
            pl.lit(0, pl.UInt32).alias("tokens_cut"),
        )
        path = home.artifacts / "score" / f"{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)
        pieces.append(ScoredPiece(Artifact.of(path, home)))
    count = sum(piece.turn_count for piece in converted.pieces)
    return Scored("0" * 32, ATTRIBUTES, tuple(pieces), count, count, {}, ())


def forced(path: Path, export: Export[Item] | Export[Pair], *items: Any) -> Path:
    """A file of rows that the export would have left out, each of them refused."""
    assert not isinstance(export.row, EveryRecord)
    for item in items:
        assert refusal(export, item), item
    rows = [export.row(item) for item in items]  # type: ignore[operator]
    columns = export.columns(NOTHING) if callable(export.columns) else export.columns
    if columns is not None:
        pl.DataFrame(rows, schema=dict(columns), orient="row").write_parquet(path)
    else:
        path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return path
