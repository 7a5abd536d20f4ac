"""An Arrow IPC file as the decoding process reads it: with polars, held against its messages."""

from __future__ import annotations

import io
from collections.abc import Sequence

import polars as pl

from assay.read.arrow_messages import Batch, as_stream, read_messages
from assay.read.damage import DamagedTable
from assay.storage.regular import open_regular


class ArrowTable:
    """An open Arrow file; DamagedTable where its schema, or its footer if it has one, cannot be read."""

    unit = "record batch"

    def __init__(self, path: str) -> None:
        self._path = path
        with open_regular(path) as file:
            self._messages = read_messages(file)
        self.groups: Sequence[Batch] = self._messages.batches
        self.cut = self._messages.cut
        pl.read_ipc_stream(io.BytesIO(as_stream(self._messages.schema, ())))

    def bytes_of(self, first: int, last: int) -> int:
        """How many bytes batches ``first`` to ``last`` take."""
        return sum(batch.length for batch in self.groups[first : last + 1])

    def decoded(self, first: int, last: int) -> pl.DataFrame:
        """The rows of batches ``first`` to ``last``; DamagedTable where they are not what their heads state.

        Only these batches are read, each as a stream of its own behind schema and dictionaries.
        """
        chosen = self.groups[first : last + 1]
        for batch in chosen:
            if batch.damage is not None:
                raise DamagedTable(batch.damage)
        return pl.concat([self._decoded(batch) for batch in chosen])

    def _decoded(self, batch: Batch) -> pl.DataFrame:
        places = (*self._messages.before(batch), (batch.offset, batch.length))
        messages: list[bytes] = []
        with open_regular(self._path) as file:
            for offset, length in places:
                file.seek(offset)
                messages.append(file.read(length))
        frame = pl.read_ipc_stream(io.BytesIO(as_stream(self._messages.schema, messages)))
        if len(frame) != batch.rows:
            raise DamagedTable(f"{len(frame)} rows came out, where it states {batch.rows}")
        for column, nulls in zip(frame, batch.nulls, strict=True):
            if column.null_count() != nulls:
                raise DamagedTable(
                    f"column {column.name} holds {column.null_count()} nulls, where it states {nulls}"
                )
        return frame
