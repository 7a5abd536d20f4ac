"""The score store: the scores of each model, by turn key, so that no turn is scored twice.

It has a folder for each fingerprint. A folder holds segments: Parquet files that never change, each named by
its own digest. This module defines what is in a segment; ``assay.score.segments`` defines where segments lie.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import polars as pl

from assay.core.errors import AssayError
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
    """The columns of a score: one for each attribute, the reason if there is no score, tokens cut, tokens."""
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
        self._present: list[Path] = []
        self._intact: set[Path] = set()
        self._progress: Progress | None = None

    def open(self, progress: Progress | None = None) -> ScoreStore:
        """This store, with the segments that are there by now.

        A segment is verified before its values are read, once after each ``open``. A damaged one is set aside
        and reported in a line. Without ``progress`` nothing is moved: damaged segments are only not read.
        """
        self._present = self._segments.present(progress)
        self._intact, self._progress = set(), progress
        return self

    def stored(self, keys: pl.Series) -> pl.DataFrame:
        """The ``keys`` (unique, Binary) that are stored, in a column ``key``."""
        return self._found(keys).select(KEY).unique()

    def look_up(self, keys: pl.Series) -> pl.DataFrame:
        """A row for each of the ``keys`` (unique, Binary) that is stored: key, score columns, segment.

        Where two segments hold a key, the segment with the smaller name counts, whichever was written first.
        """
        names = set(self._found(keys)[SEGMENT])
        segments = [path for path in self._present if path.name in names]
        if not segments:
            return pl.DataFrame(schema={**self._schema, SEGMENT: pl.String()})
        with damage_named(segments[0].parent):
            return (
                self._scanned(segments)
                .join(pl.LazyFrame({KEY: keys}), on=KEY, how="semi")
                .collect(engine="streaming")
                .with_columns(pl.col(SEGMENT).str.extract(r"([0-9a-f]{32})\.parquet$"))
                .sort(SEGMENT)
                .unique(KEY, keep="first", maintain_order=True)
            )

    def _found(self, keys: pl.Series) -> pl.DataFrame:
        """Each of the keys that is stored, with the file name of its segment, which is intact."""
        wanted = pl.LazyFrame({KEY: keys})
        while self._present and not keys.is_empty():
            fault = None
            try:
                with damage_named(self._present[0].parent):
                    found = (
                        self._scanned(self._present)
                        .select(KEY, pl.col(SEGMENT).str.extract(r"([^/]+)$"))
                        .join(wanted, on=KEY, how="semi")
                        .collect(engine="streaming")
                    )
            except AssayError as error:
                # One of them cannot be read. The error does not say which.
                fault, holding = error, set(self._present)
            else:
                names = set(found[SEGMENT])
                holding = {path for path in self._present if path.name in names}
            unverified = holding - self._intact
            damaged = self._segments.damaged(sorted(unverified), self._progress)
            self._intact |= holding - damaged
            self._present = [path for path in self._present if path not in damaged]
            if fault is None and not damaged:
                return found
            if fault is not None and not unverified:
                raise fault
        return pl.DataFrame(schema={KEY: pl.Binary(), SEGMENT: pl.String()})

    def _scanned(self, segments: Sequence[Path]) -> pl.LazyFrame:
        # Older segments lack columns that were added later: these are null.
        return pl.scan_parquet(
            list(segments),
            schema=self._schema,
            missing_columns="insert",
            include_file_paths=SEGMENT,
            glob=False,
        )

    def write(self, scores: Mapping[bytes, TurnScore]) -> str:
        """Write these scores as a new segment, in the order given. Returns the segment's digest."""
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
        """Hold the one lock of this fingerprint, while missing turns are found and until they are stored.

        Open the store once the lock is held: then no two runs plan the same turn. A run that is no longer
        wanted stops waiting. In the context that this yields, ``leave_if_unwanted`` also raises Resumable
        where the lock was lost meanwhile, which can happen on S3.
        """
        return self._segments.planning(context)


def nameless_scores(model: ModelSpec, home: Home) -> str | None:
    """A line about scores that are stored without an endpoint's name and may be this one's. None without any.

    Only the operator can know which endpoint gave them.
    """
    if model.former_fingerprint is None:
        return None
    kept, own = segments_of(home, model.former_fingerprint), segments_of(home, model.fingerprint)
    if own.holds_any() or not kept.holds_any():
        return None
    return (
        f"{kept.place} holds scores from a version of Assay that did not keep the scores of such endpoints "
        f"apart. They are not used. If all of them came from {model.name}, move that folder to {own.place}, "
        "and nothing is rated twice"
    )
