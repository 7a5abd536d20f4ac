"""Files of any container, struck: what lies before the damage is read, and the rest is not lost silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from struck_inputs import Bytes, check_case

from assay.read.tables import decoder_kept

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def one_decoder() -> Iterator[None]:
    with decoder_kept():
        yield


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.binary(min_size=40, max_size=600))
def test_no_row_of_a_struck_file_is_lost_without_a_word(data: bytes) -> None:
    check_case(Bytes(data))


def test_every_container_is_struck_and_most_of_them_are_read_in_part() -> None:
    found = Counter(check_case(Bytes(Random(seed).randbytes(400))) for seed in range(40))
    names = {what.split(":")[0] for what in found}
    packed = {
        f"{name}{packing}" for name in ("a.jsonl", "a.json", "a.csv") for packing in ("", ".gz", ".zst")
    }
    assert names >= packed | {"a.parquet", "a.arrow"}
    assert sum(count for what, count in found.items() if what.endswith("in part")) > 20
