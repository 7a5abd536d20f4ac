"""What a worker hands to the run arrives part by part, once. If some is missing, a line says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from assay.core.errors import AssayError
from assay.storage.artifacts import artifacts_of
from assay.storage.handed_over import HandedOver, handing_over, table_in
from assay.storage.home import Home

TABLE = pl.DataFrame({"row": [1, 2], "reason": ["none", None]})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def handed(home: Home, folder: str) -> HandedOver:
    with handing_over(f"{folder}/0.parts", home) as file:
        for part in (b"a line\n", TABLE, b"", TABLE.clear()):
            file.add(part)
    return file.handed_over


def test_parts_come_in_their_order_and_their_file_goes(home: Home) -> None:
    files = artifacts_of(home)
    with files.handover() as folder:
        given = handed(home, folder)
        line, table, nothing, no_rows = given.parts(files)
        assert not (home.artifacts / given.path).exists()
    assert (line, nothing) == (b"a line\n", b"")
    assert_frame_equal(table_in(table), TABLE)
    assert_frame_equal(table_in(no_rows), TABLE.clear())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-1], "is cut short or altered. Run again"),
        (lambda data: data[:2] + bytes([data[2] ^ 1]) + data[3:], "is cut short or altered. Run again"),
        (None, "Let every machine have"),
    ],
    ids=["cut", "altered", "gone"],
)
def test_a_file_that_is_not_whole_here_is_one_line(
    home: Home, change: Callable[[bytes], bytes] | None, said: str
) -> None:
    files = artifacts_of(home)
    with files.handover() as folder:
        given = handed(home, folder)
        path = home.artifacts / given.path
        if change is None:
            path.unlink()
        else:
            path.write_bytes(change(path.read_bytes()))
        with pytest.raises(AssayError, match=said) as raised:
            list(given.parts(files))
    assert str(path) in str(raised.value)
