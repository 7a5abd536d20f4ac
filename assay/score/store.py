"""The score store: a folder a fingerprint, of append-only Parquet segments named by their own digest.

Where the segments are is ``assay.score.segments``'; what is in them is said here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import polars as pl

from assay.core.progress import Progress
from assay.core.schema import TURN_KEY_BYTES
from assay.rewards.protocol import TurnScore
from assay.rewards.spec import ModelSpec
from assay.score.segments import segments_of
from assay.storage.disk import damage_named
from assay.storage.home import Home
from assay.storage.stage import RunContext

KEY = "key"
REASON = "reason"
TOKENS_CUT = "tokens_cut"
TOKENS = "tokens"
SEGMENT = "segment"


def score_schema(attributes: Sequence[str]) -> dict[str, pl.DataType]:
    """The columns that a score has everywhere: an attribute each, the reason if none, tokens cut, tokens."""
    return {
        **{name: pl.Float32() for name in attributes},
        REASON: pl.String(),
        TOKENS_CUT: pl.UInt32(),
        TOKENS: pl.UInt32(),
    }


class ScoreStore:
    """The scores of one model, by turn key."""

    def __init__(self, home: Home, fingerprint: str, attributes: Sequence[str]) -> None:
        self._segments = segments_of(home, fingerprint)
        self.place = self._segments.place
        self._schema: dict[str, pl.DataType] = {KEY: pl.Binary(), **score_schema(attributes)}
        self._attributes = tuple(attributes)
        self._intact: list[Path] = []

    def open(self, progress: Progress | None = None) -> ScoreStore:
        """This store, its segments verified. A damaged one is set aside, and a line says so.

        Without ``progress`` nothing is touched: a damaged segment is only not looked into.
        """
        self._intact = self._segments.intact(progress)
        return self

    def look_up(self, keys: pl.Series) -> pl.DataFrame:
        """A row for each of the ``keys`` (unique, Binary) that is stored: key, score columns, segment.

        Where two segments hold a key, the one of the smaller name is taken, whatever the order of writing.
        """
        if not self._intact or keys.is_empty():
            return pl.DataFrame(schema={**self._schema, SEGMENT: pl.String()})
        wanted = pl.LazyFrame({KEY: keys})
        with damage_named(self._intact[0].parent):
            return self._looked_up(wanted)

    def _looked_up(self, wanted: pl.LazyFrame) -> pl.DataFrame:
        return (
            # A column that came later is null in segments that are older.
            pl.scan_parquet(
                self._intact,
                schema=self._schema,
                missing_columns="insert",
                include_file_paths=SEGMENT,
                glob=False,
            )
            .join(wanted, on=KEY, how="semi")
            .collect(engine="streaming")
            .with_columns(pl.col(SEGMENT).str.extract(r"([0-9a-f]{32})\.parquet$"))
            .sort(SEGMENT)
            .unique(KEY, keep="first", maintain_order=True)
        )

    def write(self, scores: Mapping[bytes, TurnScore]) -> str:
        """The digest of the new segment that holds these scores, in the order given."""
        columns: dict[str, object] = {KEY: list(scores)}
        for index, name in enumerate(self._attributes):
            columns[name] = [None if one.values is None else one.values[index] for one in scores.values()]
        columns[REASON] = [one.reason for one in scores.values()]
        columns[TOKENS_CUT] = [one.tokens_cut for one in scores.values()]
        columns[TOKENS] = [one.tokens for one in scores.values()]
        frame = pl.DataFrame(columns, schema=self._schema)
        if frame[KEY].bin.size().n_unique() != 1 or frame[KEY].bin.size()[0] != TURN_KEY_BYTES:
            raise ValueError(f"a turn key has {TURN_KEY_BYTES} bytes")
        written = io.BytesIO()
        frame.write_parquet(written, compression="zstd", compression_level=3)
        return self._segments.keep(written.getvalue())

    def planning(self, context: RunContext) -> AbstractContextManager[RunContext]:
        """Hold the one lock of this fingerprint: from the look at what is missing until it is stored.

        Whoever had to wait opens the store after that, so nothing is planned twice. A run that is no longer
        wanted stops waiting. In the context that is yielded, ``leave_if_unwanted`` also raises Resumable
        where the lock was lost meanwhile, as one on S3 can be.
        """
        return self._segments.planning(context)


def nameless_scores(model: ModelSpec, home: Home) -> str | None:
    """A line on scores that are kept under no endpoint's name and may be this one's; None without any.

    They do not show which endpoint gave them: only the operator can know.
    """
    if model.former_fingerprint is None:
        return None
    kept, own = segments_of(home, model.former_fingerprint), segments_of(home, model.fingerprint)
    if own.holds_any() or not kept.holds_any():
        return None
    return (
        f"{kept.place} holds scores from before endpoints of this kind had scores of their own, and they are "
        f"not used. If {model.name} alone gave them, move that folder to {own.place}, and nothing is rated "
        "twice"
    )
