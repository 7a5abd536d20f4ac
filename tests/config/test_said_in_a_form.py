"""Who has only a form reads its words, no path of the server, and what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.config.options import RunOptions
from assay.config.said_in_a_form import in_words_of_the_form, what_there_is
from assay.config.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    chats = tmp_path / "srv" / "chats"
    for name in ("new/a.jsonl", "new/b.jsonl", "old/c.jsonl", ".hidden"):
        (chats / name).parent.mkdir(parents=True, exist_ok=True)
        (chats / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.jsonl").touch()
    (chats / "link").symlink_to(tmp_path / "elsewhere")
    return Settings(
        home=tmp_path / "home",
        data_roots={"data": chats, "bucket": "s3://team/chats"},
        output_roots={"results": tmp_path / "srv" / "chats-results"},
    )


def test_folders_of_the_server_are_said_by_their_names(settings: Settings, tmp_path: Path) -> None:
    said = (
        f"{tmp_path}/srv/chats/new: no such file; {tmp_path}/srv/chats-results/a is in use; "
        f"{tmp_path}/home/scores is full; s3://team/chats/x is not there; s3://team/chats2 is another"
    )
    shown = in_words_of_the_form(said, RunOptions, settings)
    assert shown == (
        "data/new: no such file; results/a is in use; ASSAY_HOME/scores is full; bucket/x is not there; "
        "s3://team/chats2 is another"
    )
    assert str(tmp_path) not in shown


def test_options_are_said_by_their_titles(settings: Settings) -> None:
    said = "--stop-after convert stops before --keep 'x >= 1' would be used; --map-role, not --map"
    assert in_words_of_the_form(said, RunOptions, settings) == (
        "Stop after convert stops before Rules 'x >= 1' would be used; Names of speakers, not Names of fields"
    )


@pytest.mark.parametrize(
    ("given", "there_is"),
    [
        ("data/new/*.csv", ["data/new/ holds: a.jsonl, b.jsonl"]),
        ("data/nwe", ["data/ holds: link/, new/, old/"]),
        ("data/new/deeper/x.jsonl", ["data/new/ holds: a.jsonl, b.jsonl"]),
        ("data/new/a.jsonl", []),
        ("data/new/*.jsonl", []),
        ("dat/new", ["Inputs begin with one of: data/, bucket/"]),
        # Nothing is shown of what a link leads to, of what is above, or of what is elsewhere.
        ("data/link/*.csv", []),
        ("data/../elsewhere/x", ["Inputs begin with one of: data/, bucket/"]),
        ("bucket/x", []),
    ],
)
def test_where_an_input_is_not_there_is_said_what_is(
    settings: Settings, given: str, there_is: list[str]
) -> None:
    assert what_there_is([given], settings) == there_is


def test_of_a_full_folder_some_names_are_shown(settings: Settings, tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "srv/chats/old" / f"{number:02}.jsonl").touch()
    (said,) = what_there_is(["data/old/x.jsonl", "data/old/y.jsonl"], settings)
    assert said.startswith("data/old/ holds: 00.jsonl, ")
    assert said.endswith(" and 3 more")
