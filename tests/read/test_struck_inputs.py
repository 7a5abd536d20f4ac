"""Files of any container, struck: what lies before the damage is read, and the rest is not lost silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from struck_inputs import Bytes, check_case, check_struck, written

from assay.read.tables import decoder_kept

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def one_decoder() -> Iterator[None]:
    with decoder_kept():
        yield


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.binary(min_size=40, max_size=600))
@example(b"[1\x001\x1c\x1c\x1c\x1c\x1c\x1c\xff;;;;;;;;;")  # gzip that unpacks to a row and 100 spaces
def test_no_row_of_a_struck_file_is_lost_without_a_word(data: bytes) -> None:
    check_case(Bytes(data))


def test_every_container_is_struck_and_most_of_them_are_read_in_part() -> None:
    found = Counter(check_case(draws_of(seed)) for seed in range(40))
    names = {what.split(":")[0] for what in found}
    packed = {
        f"{name}{packing}" for name in ("a.jsonl", "a.json", "a.csv") for packing in ("", ".gz", ".zst")
    }
    assert names >= packed | {"a.parquet", "a.arrow"}
    assert sum(count for what, count in found.items() if what.endswith("in part")) > 20


@pytest.mark.parametrize("left", [0, 1, 2, 8, 16])
def test_a_file_of_any_container_of_which_an_interrupted_copy_leaves_little(
    left: int, tmp_path: Path
) -> None:
    files = {file.name: (pairs, file) for pairs, file in (written(draws_of(seed)) for seed in range(60))}
    assert len(files) == 11
    for name, (pairs, file) in files.items():
        folder = tmp_path / name
        folder.mkdir()
        outcome = check_struck(folder, pairs, file, file.data[:left], 1000)
        if name.endswith((".parquet", ".arrow")) or (not left and name.endswith((".gz", ".zst"))):
            assert outcome == "refused"


def draws_of(seed: int) -> Bytes:
    return Bytes(Random(seed).randbytes(400))
