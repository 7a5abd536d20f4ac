from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from stages import Heard

from assay.core.digests import digest_of_file
from assay.rewards.protocol import TurnScore
from assay.score.segments import intact
from assay.score.store import KEY, SEGMENT, ScoreStore
from assay.storage.home import Home

FINGERPRINT = "f" * 32


def keys_of(name: str) -> list[bytes]:
    return [name.encode() * 15 + bytes([number]) for number in range(3)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def segments(home: Home) -> dict[str, Path]:
    """A segment a letter, with three turns each."""
    store = ScoreStore(home, FINGERPRINT, ["reward"])
    written = {}
    for place, name in enumerate("abc"):
        scores = {key: TurnScore((float(place),), None) for key in keys_of(name)}
        written[name] = home.scores / FINGERPRINT / f"{store.write(scores)}.parquet"
    return written


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The segments that were digested."""
    paths: list[Path] = []

    def noted(path: Path) -> str:
        paths.append(path)
        return digest_of_file(path)

    monkeypatch.setattr(intact, "digest_of_file", noted)
    return paths


def series(*names: str) -> pl.Series:
    return pl.Series(KEY, [key for name in names for key in keys_of(name)], pl.Binary)


def test_a_segment_is_verified_once_after_the_store_is_opened_where_its_values_are_read(
    home: Home, segments: dict[str, Path], verified: list[Path]
) -> None:
    store = ScoreStore(home, FINGERPRINT, ["reward"]).open(Heard(pytest.fail))
    assert verified == []
    assert set(store.stored(series("a", "z"))[KEY]) == set(keys_of("a"))
    found = store.look_up(series("a"))
    assert (set(found["reward"]), set(found[SEGMENT])) == ({0.0}, {segments["a"].stem})
    assert verified == [segments["a"]]
    store.look_up(series("a", "b"))
    assert verified == [segments["a"], segments["b"]]
    store.open(Heard(pytest.fail)).look_up(series("a"))
    assert verified == [segments["a"], segments["b"], segments["a"]]


def test_a_damaged_segment_gives_no_value_and_the_others_do(
    home: Home, segments: dict[str, Path], verified: list[Path]
) -> None:
    other = pl.read_parquet(segments["b"]).with_columns(pl.lit(9.0, pl.Float32).alias("reward"))
    other.write_parquet(segments["b"])
    heard = Heard()
    store = ScoreStore(home, FINGERPRINT, ["reward"]).open(heard)
    assert set(store.look_up(series("a"))["reward"]) == {0.0}
    assert heard.lines == [], "none of its values is read"
    assert set(store.stored(series("a", "b"))[KEY]) == set(keys_of("a"))
    (line,) = heard.lines
    assert f"segment {segments['b']} is damaged; moved to" in line
    assert set(store.look_up(series("a", "b", "c"))["reward"]) == {0.0, 2.0}
    assert not segments["b"].exists()


def test_without_progress_a_damaged_segment_is_left_where_it_is(
    home: Home, segments: dict[str, Path]
) -> None:
    segments["b"].write_bytes(segments["b"].read_bytes()[:-9])
    store = ScoreStore(home, FINGERPRINT, ["reward"]).open()
    assert set(store.look_up(series("a", "b", "c"))["reward"]) == {0.0, 2.0}
    assert segments["b"].exists()


@pytest.mark.parametrize("content", [b"", b"no Parquet at all"])
def test_a_segment_that_cannot_be_read_is_found_whatever_is_looked_up(
    home: Home, segments: dict[str, Path], content: bytes
) -> None:
    segments["b"].write_bytes(content)
    heard = Heard()
    store = ScoreStore(home, FINGERPRINT, ["reward"]).open(heard)
    assert set(store.look_up(series("a", "c"))["reward"]) == {0.0, 2.0}
    assert len(heard.lines) == 1


def test_a_segment_that_is_gone_meanwhile_is_as_if_it_never_was(
    home: Home, segments: dict[str, Path]
) -> None:
    store = ScoreStore(home, FINGERPRINT, ["reward"]).open(Heard())
    segments["b"].unlink()
    assert set(store.look_up(series("a", "b"))["reward"]) == {0.0}
