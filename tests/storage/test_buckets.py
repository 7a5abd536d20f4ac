"""Rows that wait on disk come back whole and in order, in as few files as there are buckets."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.storage import buckets
from assay.storage.buckets import Buckets, Distinct, Parts

FRAMES = st.lists(st.lists(st.integers(0, 30), max_size=6), max_size=12)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FRAMES, st.integers(1, 5), st.integers(1, 9))
def test_each_bucket_gives_its_rows_in_the_order_in_which_they_came(
    tmp_path: Path, frames: list[list[int]], count: int, held: int
) -> None:
    folder = tmp_path / uuid4().hex
    folder.mkdir()
    with pytest.MonkeyPatch.context() as small:
        small.setattr(buckets, "BUCKET_ROWS", held)
        kept, distinct, parts = Buckets(folder, "kept", count), Distinct(folder, 30), Parts(folder, "parts")
        for frame in frames:
            rows = pl.DataFrame({"n": frame}, schema={"n": pl.Int64})
            kept.add(rows, pl.col("n") % count)
            parts.add(rows)
            distinct.add(rows["n"].cast(pl.String).cast(pl.Binary))
        every = [number for frame in frames for number in frame]
        assert len(list(folder.glob("kept-*"))) <= count
        for number in range(count):
            found = kept.rows(number)
            wanted = [one for one in every if one % count == number]
            assert ([] if found is None else found["n"].to_list()) == wanted
            assert kept.heights[number] == len(wanted)
            kept.drop(number)
            assert kept.rows(number) is None
        assert not list(folder.glob("kept-*"))
        assert [frame["n"].to_list() for frame in parts] == frames
        assert parts.height == len(every)
        assert distinct.count() == len(set(every))
