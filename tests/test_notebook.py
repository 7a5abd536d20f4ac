"""Chats in a notebook: the same stages, store and files as a run's, without a Prefect server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import polars as pl
import pytest
from fakes import spec
from stage_runs import scored_in_this_process

import assay
from assay import api
from assay.core.digests import digest_of_bytes
from assay.core.errors import AssayError, OutputRefused, UserMistake
from assay.storage.run_manifest import run_manifest_in

ROWS = [
    {
        "id": number,
        "messages": [
            {"role": "user", "content": f"question {number % 3}"},
            {"role": "assistant", "content": f"answer {number}"},
        ],
    }
    for number in range(9)
]


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a fake model, which logs its calls."""
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    scored_in_this_process(monkeypatch.setattr)
    # A process opens a model once: that of each test is another.
    found = spec(tmp_path / "model", digest_of_bytes(str(tmp_path).encode()))
    monkeypatch.setattr(api, "find_model", lambda name, *rest, **more: found)
    return tmp_path / "model"


class Lines:
    """As a ``datasets.Dataset`` is: iterable, and no sequence."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(ROWS)


@pytest.mark.parametrize("rows", [ROWS, pl.DataFrame(ROWS), Lines()], ids=["dicts", "frame", "dataset"])
def test_rows_are_read_as_a_file_of_them_is(rows: Any) -> None:
    chats = assay.read(rows)
    assert chats.counts.ok == 9
    assert chats.rate("fake").scores().height == 9


def test_files_are_read_by_path_and_by_glob_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pl.DataFrame(ROWS).write_ndjson(tmp_path / "chats.jsonl")
    monkeypatch.chdir(tmp_path)
    for source in ("chats.jsonl", tmp_path / "chats.jsonl", ["*.jsonl"], [tmp_path / "chats.jsonl"]):
        assert assay.read(source).counts.ok == 9
    with pytest.raises(UserMistake, match="there is no such file"):
        assay.read("nothing.jsonl")
    with pytest.raises(UserMistake, match="a row is not JSON"):
        assay.read([{"messages": object()}])


def test_nothing_is_rated_twice(model: Path) -> None:
    chats: assay.Chats = assay.read(ROWS)
    first: assay.Rated = chats.rate("fake")
    assert len(fakes.calls(model)) == 9
    again = assay.read(ROWS[:5]).rate("fake")
    assert len(fakes.calls(model)) == 9
    assert again.scores()["helpfulness"].to_list() == first.scores()["helpfulness"].to_list()[:5]


def test_selecting_narrows_what_scores_and_files_hold(tmp_path: Path) -> None:
    rated = assay.read(ROWS).rate("fake")
    values = rated.scores()["helpfulness"].sort()
    best = rated.select(f"helpfulness > {values[2]:.6f}").select(f"helpfulness < {values[7]:.6f}")
    assert 0 < best.counts.ok < rated.counts.ok == 9
    scores = best.scores()
    assert scores.height == best.counts.ok
    assert scores.columns == [
        "file",
        "line",
        "part",
        "turn",
        "helpfulness",
        "verbosity",
        "reason",
        "tokens_cut",
    ]
    manifest = best.export(tmp_path / "out", ["trl-sft", "messages"])
    assert manifest.rows.kept == best.counts.ok
    assert manifest.options["keep"] == list(best.rules)
    lines = (tmp_path / "out/trl/sft.jsonl").read_bytes().splitlines()
    assert len(lines) == best.counts.ok
    assert run_manifest_in(tmp_path / "out") is not None


def test_files_are_those_of_the_same_choices_each_time(tmp_path: Path) -> None:
    rated = assay.read(ROWS).rate("fake", weights={"helpfulness": 1.0})
    assert set(rated.export(tmp_path / "a").exports) == {"messages", "steerlm"}
    for name in ("b", "c"):
        rated.export(tmp_path / name, ["trl-sft"], split=["val=0.5"], seed=4)
    files = {path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*") if path.is_file()}
    assert Path("trl/sft-val.jsonl") in files
    for file in files - {Path("manifest.json")}:
        assert (tmp_path / "b" / file).read_bytes() == (tmp_path / "c" / file).read_bytes(), file


def test_mistakes_are_those_of_the_command_line(tmp_path: Path) -> None:
    rated = assay.read(ROWS).rate("fake")
    with pytest.raises(UserMistake, match="helpfulnes"):
        rated.select("helpfulnes > 1")
    with pytest.raises(UserMistake, match="unknown export 'trl-stf'; did you mean 'trl-sft'"):
        rated.export(tmp_path / "out", ["trl-stf"])
    with pytest.raises(UserMistake, match="trl-reward is refused"):
        rated.export(tmp_path / "out", ["trl-reward"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    with pytest.raises(OutputRefused, match="not ours to replace"):
        rated.export(tmp_path / "mine")


def test_a_service_can_wait_for_it() -> None:
    async def served() -> int:
        return (await assay.read(ROWS).rate_async("fake")).counts.ok

    assert asyncio.run(served()) == 9


def test_a_notebook_shows_an_error_in_one_line() -> None:
    assert AssayError("what, where, what to do")._render_traceback_() == [
        "AssayError: what, where, what to do"
    ]


def test_the_public_names_are_there_however_the_package_was_imported() -> None:
    from assay.read.convert import CONVERT

    assert CONVERT.name == "convert"
    assert assay.read(ROWS).counts.ok == 9
    assert all(hasattr(assay, name) for name in assay.__all__)
