"""The score store: a folder a fingerprint, of append-only Parquet segments named by their own digest.

A segment is written to a temporary name and renamed, so it is whole or not there. One that does not
match its name any more is set aside, and its turns count as not scored.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import filelock
import polars as pl

from assay.home import Home, digest_of_file, sync
from assay.rewards.protocol import TurnScore
from assay.schema import TURN_KEY_BYTES

KEY = "key"
REASON = "reason"
TOKENS_CUT = "tokens_cut"
TOKENS = "tokens"
SEGMENT = "segment"

_SET_ASIDE = "set-aside"
_WAIT_NOTICE_SECONDS = 1.0


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
        self.folder = home.scores / fingerprint
        self._schema: dict[str, pl.DataType] = {KEY: pl.Binary(), **score_schema(attributes)}
        self._attributes = tuple(attributes)
        self._intact: list[Path] = []

    def open(self, warn: Callable[[str], None] | None) -> ScoreStore:
        """This store, its segments verified; a damaged one is set aside with a warning.

        Without ``warn`` nothing is touched: a damaged segment is only not looked into.
        """
        self._intact = []
        for path in sorted(self.folder.glob("*.parquet")):
            if digest_of_file(path) == path.stem:
                self._intact.append(path)
                continue
            if warn is None:
                continue
            aside = self.folder / _SET_ASIDE / path.name
            aside.parent.mkdir(exist_ok=True)
            path.replace(aside)
            warn(f"score store: segment {path} is damaged; set aside as {aside}, its turns are scored again")
        return self

    def look_up(self, keys: pl.Series) -> pl.DataFrame:
        """A row for each of the ``keys`` (unique, Binary) that is stored: key, score columns, segment.

        Where two segments hold a key, the one of the smaller name is taken, whatever the order of writing.
        """
        if not self._intact or keys.is_empty():
            return pl.DataFrame(schema={**self._schema, SEGMENT: pl.String()})
        wanted = pl.LazyFrame({KEY: keys})
        return (
            pl.scan_parquet(self._intact, include_file_paths=SEGMENT, glob=False)
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
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
        try:
            frame.write_parquet(temporary, compression="zstd", compression_level=3)
            sync(temporary)
            digest = digest_of_file(temporary)
            temporary.replace(self.folder / f"{digest}.parquet")
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    @contextmanager
    def planning(self, say: Callable[[str], None]) -> Iterator[None]:
        """Hold the one lock of this fingerprint: from the look at what is missing until it is stored.

        Whoever had to wait opens the store after that, so nothing is planned twice. The lock is the
        kernel's: it goes with its process, however that ends. Temporary files that killed writers left
        are removed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=_WAIT_NOTICE_SECONDS)
        except filelock.Timeout:
            say("another run is scoring with this model; waiting for it to finish, then taking its scores")
            lock.acquire()
        try:
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
            yield
        finally:
            lock.release()
