"""Data sets on the Hub are copied whole, once, and read under their own names, which hold the commit."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from converting import read_back, said
from hub_server import Hub, running_hub
from stages import convert, take_inventory

from assay.config.deployed import places
from assay.config.settings import Settings
from assay.core.errors import StoreFault, UserMistake
from assay.read.remote_inputs import local_path, remote_files
from assay.storage.home import Home

LINE = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n'
FILES = {
    "README.md": b"# Chats",
    "dataset_infos.json": b"{}",
    "data/train.jsonl": LINE,
    "data/test.jsonl.gz": gzip.compress(LINE, mtime=0),
    "data/deep/more.jsonl": LINE * 2,
    "extra/rows.csv": b"prompt,response\nHi,Hello\n",
    ".hidden/x.jsonl": LINE,
}
TOKEN = "hf_canary_of_the_hub"
SET = "hf://datasets/team/chats"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub with a data set; no token and no cache of this machine's user."""
    with running_hub() as running:
        running.commit(FILES)
        running.large.add("data/train.jsonl")
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "no-cache"))
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("", ["data/deep/more.jsonl", "data/test.jsonl.gz", "data/train.jsonl", "extra/rows.csv"]),
        ("/", ["data/deep/more.jsonl", "data/test.jsonl.gz", "data/train.jsonl", "extra/rows.csv"]),
        ("/data", ["data/deep/more.jsonl", "data/test.jsonl.gz", "data/train.jsonl"]),
        ("/data/train.jsonl", ["data/train.jsonl"]),
        ("/data/*.jsonl", ["data/train.jsonl"]),
        ("@main/**/*.jsonl", ["data/deep/more.jsonl", "data/train.jsonl"]),
    ],
)
def test_an_address_stands_for_files_of_a_commit(hub: Hub, given: str, found: list[str]) -> None:
    commit = hub.revisions["main"]
    assert [one.address for one in remote_files(f"{SET}{given}")] == [
        f"{SET}@{commit}/{one}" for one in found
    ]


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/7", "refs/convert/parquet", "refs%2Fpr%2F7", "COMMIT"])
def test_a_revision_is_a_branch_a_tag_a_pull_request_or_a_commit(hub: Hub, revision: str) -> None:
    older = hub.commit({"a.jsonl": LINE}, revision=revision.replace("%2F", "/"))
    hub.commit({"b.jsonl": LINE})
    given = revision.replace("COMMIT", older)
    assert [one.address for one in remote_files(f"{SET}@{given}/*.jsonl")] == [f"{SET}@{older}/a.jsonl"]


def test_rows_come_out_under_the_commit_and_a_rerun_fetches_nothing(hub: Hub, home: Home) -> None:
    commit = hub.revisions["main"]
    inventory = take_inventory([SET], home=home)
    outcome = read_back(convert(inventory, home=home), home)
    assert outcome.converted.counts.ok == 5 == outcome.converted.counts.read
    assert {tuple(said(record)) for record in outcome.records} == {(("user", "Hi"), ("assistant", "Hello"))}
    assert [file.path for file in inventory.files] == [
        f"{SET}@{commit}/{name}"
        for name in ("data/deep/more.jsonl", "data/test.jsonl.gz", "data/train.jsonl", "extra/rows.csv")
    ]
    made = [path for path in home.copies.rglob("*") if not path.is_symlink()]
    assert [path for path in made if path.stat().st_mode & 0o077] == []
    assert not list((home.copies / "inputs").glob(".*"))
    hub.asked.clear()
    assert take_inventory([SET], home=home) == inventory
    assert hub.fetched() == []
    # A commit that leaves a file as it was has it under another name, with the same content.
    hub.commit({**FILES, "data/train.jsonl": LINE * 3})
    again = take_inventory([f"{SET}/data"], home=home)
    assert [one.digest for one in again.files][:2] == [one.digest for one in inventory.files][:2]
    assert again.files[2].digest != inventory.files[2].digest


@pytest.mark.slow
def test_a_copy_that_breaks_off_goes_on_where_it_was(
    hub: Hub, home: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    content = LINE * 20_000
    hub.commit({"large.jsonl": content})
    hub.break_off.append(1_000_000)
    inventory = take_inventory([f"{SET}/large.jsonl"], home=home)
    assert Path(inventory.sources[0].path).read_bytes() == content
    assert hub.ranges == ["bytes=1000000-"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["data/train.jsonl", "data/deep/more.jsonl"])
def test_a_copy_is_compared_with_what_the_hub_states(hub: Hub, home: Home, name: str) -> None:
    """By SHA-256 where it lies in LFS, else by git's name of it."""
    hub.alter = FILES[name].replace(b"Hello", b"Hullo")
    with pytest.raises(StoreFault, match=rf"@\w+/{name}: arrived damaged"):
        take_inventory([f"{SET}/{name}"], home=home)
    assert list((home.copies / "inputs").iterdir()) == []


def test_a_token_is_read_by_its_usual_name_and_never_shown(
    hub: Hub, home: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.token = TOKEN
    with pytest.raises(UserMistake, match=r"no data set team/chats\. If it is private, set HF_TOKEN"):
        take_inventory([SET], home=home)
    heard: list[str] = []
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}_wrong")
    with pytest.raises(UserMistake) as refused:
        take_inventory([SET], home=home)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    inventory = take_inventory([f"{SET}/data/train.jsonl"], home=home, say=heard.append)
    out, err = capfd.readouterr()
    written = b"".join(path.read_bytes() for path in home.root.rglob("*") if path.is_file())
    assert TOKEN not in "".join([str(refused.value), *heard, repr(inventory), out, err]) + written.decode()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (f"{SET}@v9", "cannot be listed: team/chats has no revision 'v9'"),
        ("hf://datasets/team/mail", "the Hub shows no data set team/mail"),
        (f"{SET}/absent", "there is no such file, and none that matches"),
        (f"{SET}/*.parquet", "there is no such file, and none that matches"),
        ("hf://models/team/chats", "is not of the form hf://datasets/OWNER/NAME"),
        ("hf://datasets/chats", "is not of the form hf://datasets/OWNER/NAME"),
        ("hf://datasets/a--b/c", "a--b/c is no name that a data set can have"),
        ("hf://datasets/a/b..c", "a/b..c is no name that a data set can have"),
    ],
)
def test_what_is_not_there_is_the_users_mistake(hub: Hub, given: str, said: str) -> None:
    with pytest.raises(UserMistake) as refused:
        remote_files(given)
    assert str(refused.value).startswith(given)
    assert said in str(refused.value)


def test_without_a_network_one_line_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreFault, match=r"Hub at http://127\.0\.0\.1:9 cannot be reached") as fault:
        remote_files(SET)
    assert "\n" not in str(fault.value)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserMistake, match="HF_HUB_OFFLINE is set, so nothing is copied from the Hub"):
        remote_files(SET)


def test_a_hub_that_answers_with_errors_is_a_fault(hub: Hub) -> None:
    hub.status = 500
    with pytest.raises(StoreFault, match="cannot be listed: the Hub answers 500"):
        remote_files(SET)


def test_a_copy_that_is_removed_while_its_run_scores_is_made_again(hub: Hub, home: Home) -> None:
    inventory = take_inventory([f"{SET}/data/train.jsonl"], home=home)
    path = Path(inventory.sources[0].path)
    path.unlink()
    hub.commit({"other.jsonl": LINE})
    assert Path(local_path(inventory.files[0], home)).read_bytes() == LINE


def test_of_a_saved_data_set_on_the_hub_the_named_files_are_read(hub: Hub) -> None:
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    files = dict.fromkeys(("train/data-00000-of-00001.arrow", "train/cache-1.arrow"), b"")
    commit = hub.commit(
        {**files, "train/state.json": json.dumps(state).encode(), "train/dataset_info.json": b"{}"}
    )
    heard: list[str] = []
    (file,) = remote_files(SET, heard.append)
    assert file.address == f"{SET}@{commit}/train/data-00000-of-00001.arrow"
    assert f"{SET}: train/cache-1.arrow: is not read, since train/state.json does not name it" in heard


def test_a_deployed_run_reads_the_operators_data_set_alone(
    hub: Hub, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_DATA_ROOTS", f"chats={SET}@main{os.pathsep}files={tmp_path}")
    monkeypatch.setenv("ASSAY_OUTPUT_ROOTS", f"results={tmp_path}")
    settings = Settings.read()
    where = places(["chats/data/*.jsonl"], "results/a", settings, deployed=True)
    assert where.inputs == [f"{SET}@main/data/*.jsonl"]
    assert len(take_inventory(where.inputs, within=where.within, home=home).files) == 1
    for outside in (f"{SET}/data/train.jsonl", "hf://datasets/team/mail"):
        with pytest.raises(UserMistake, match="is not below an address that may be read"):
            take_inventory([outside], within=where.within, home=home)
