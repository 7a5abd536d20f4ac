"""A footer that is struck anywhere never hides a row: the file is refused, or the damage is reported."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from flipping import chats, stream_parts

from assay.read.arrow_messages import read_messages
from assay.read.damage import DamagedTable
from assay.read.parquet_footer import read_groups
from assay.read.sources import RawRecords, sniff

#: What pyarrow 26 writes of a table of two columns without rows. Only their dictionaries have a place.
PYARROWS = base64.b64decode(
    "UEFSMRUEFQAVAEwVABUAEgAAFQQVABUATBUAFQASAAAVBBk8NQAYBnNjaGVtYRUEABUMJQIYBnByb21wdCUATBwAAAAVDCUC"
    "GAhyZXNwb25zZSUATBwAAAAWABkcGSwmABwVDBklAAYZGAZwcm9tcHQVABYAFhwWHCYAJggpHBUEFQAVAgAAACYAHBUMGSUA"
    "BhkYCHJlc3BvbnNlFQAWABYcFhwmACYkKRwVBBUAFQIAAAAWOBYAJggWOAAoIHBhcnF1ZXQtY3BwLWFycm93IHZlcnNpb24g"
    "MjYuMC4xGSwcAAAcAAAAxwAAAFBBUjE="
)
ROWS, STEP = 6, 2
SIZES = (1, 3, 8, 24, 64, 200)


def arrow_file(frame: pl.DataFrame) -> tuple[bytes, int]:
    file = io.BytesIO()
    frame.write_ipc(file, record_batch_size=STEP)
    data = file.getvalue()
    return data, len(data) - 10 - int.from_bytes(data[-10:-6], "little")


def arrow_stream(frame: pl.DataFrame) -> tuple[bytes, int]:
    """It has no footer: what says how many rows there are may be anywhere."""
    return b"".join(stream_parts(frame, STEP)), 0


def parquet(frame: pl.DataFrame) -> tuple[bytes, int]:
    file = io.BytesIO()
    frame.write_parquet(file, row_group_size=STEP)
    data = file.getvalue()
    return data, len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def rows_of(data: bytes) -> int | None:
    """How many rows the file says it holds; None where damage is reported."""
    if data.startswith(b"PAR1"):
        return sum(group.rows for group in read_groups(io.BytesIO(data)))
    found = read_messages(io.BytesIO(data))
    if found.cut or any(batch.damage for batch in found.batches):
        return None
    return sum(batch.rows for batch in found.batches)


def strikes(data: bytes, begin: int) -> Iterator[bytes]:
    """Yield the data with some of its bytes from ``begin`` on exchanged, left out, put in, or repeated."""
    for at in range(begin, len(data)):
        for size in SIZES:
            if at + size <= len(data):
                yield data[:at] + bytes(size) + data[at + size :]
                yield data[:at] + b"\xff" * size + data[at + size :]
                yield data[:at] + data[at + size :]
                yield data[:at] + bytes(size) + data[at:]
                yield data[:at] + data[at : at + size] + data[at:]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, ROWS])
@pytest.mark.parametrize("written", [arrow_file, arrow_stream, parquet])
def test_no_strike_at_a_footer_hides_a_row(
    written: Callable[[pl.DataFrame], tuple[bytes, int]], rows: int
) -> None:
    data, footer = written(chats(rows, nested=False).select("response"))
    assert rows_of(data) == rows
    became: Counter[str] = Counter()
    for struck in strikes(data, footer):
        try:
            found = rows_of(struck)
        except DamagedTable:
            became["refused"] += 1
            continue
        assert found in (rows, None)
        became["reported" if found is None else "as it was"] += 1
    assert became["refused"] > 100


@pytest.mark.parametrize("written", [arrow_file, arrow_stream, parquet])
def test_a_file_without_rows_is_no_damage(written: Callable[[pl.DataFrame], tuple[bytes, int]]) -> None:
    assert rows_of(written(chats(1, nested=False).clear())[0]) == 0


def test_pyarrows_file_without_rows_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(PYARROWS)
    raws = RawRecords(sniff(str(tmp_path / "rows.parquet")))
    assert list(raws) == []
    assert raws.complete
