"""Inputs on S3 are copied whole, once, and read under their own names."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3
from stages import context, take_inventory

from assay.config.deployed import places
from assay.config.settings import Settings
from assay.core.digests import digest_of_file
from assay.core.errors import InputFault, StoreFault, UserMistake
from assay.read import remote_inputs
from assay.read.remote_inputs import all_copied, copied, local_path, remote_files, sweep_copies
from assay.read.sources import Stamp
from assay.storage.home import Home
from assay.storage.s3 import Objects, _client

LINE = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n'
#: Of the same length.
OTHER = LINE.replace(b"Hello", b"Hullo")
NAMES = [
    "chats/2026/a.jsonl",
    "chats/2026/b [1].jsonl.gz",
    "chats/2026/deep/c.jsonl",
    "chats/2026/notes.txt",
    "chats/2026/.hidden/d.jsonl",
    "chats/2026-old/e.jsonl",
    "chats/top.parquet",
]


@pytest.fixture
def team(bucket: str) -> str:
    """The address of a bucket with chats in it."""
    address = bucket.removesuffix("/scores")
    for name in NAMES:
        Objects(address).put(name, LINE)
    return address


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("chats/2026/a.jsonl", ["chats/2026/a.jsonl"]),
        ("chats/2026/b [1].jsonl.gz", ["chats/2026/b [1].jsonl.gz"]),
        ("chats/2026/notes.txt", ["chats/2026/notes.txt"]),
        ("chats/2026", ["chats/2026/a.jsonl", "chats/2026/b [1].jsonl.gz", "chats/2026/deep/c.jsonl"]),
        ("chats/2026/", ["chats/2026/a.jsonl", "chats/2026/b [1].jsonl.gz", "chats/2026/deep/c.jsonl"]),
        ("chats/2026/*.jsonl", ["chats/2026/a.jsonl"]),
        ("chats/*/?.jsonl", ["chats/2026-old/e.jsonl", "chats/2026/a.jsonl"]),
        ("chats/**/*.jsonl", ["chats/2026-old/e.jsonl", "chats/2026/a.jsonl", "chats/2026/deep/c.jsonl"]),
        ("chats/2026/*/?.jsonl", ["chats/2026/deep/c.jsonl"]),
        ("*/top.*", ["chats/top.parquet"]),
    ],
)
def test_an_address_stands_for_what_a_path_would(team: str, given: str, found: list[str]) -> None:
    assert [one.address for one in remote_files(f"{team}/{given}")] == [f"{team}/{name}" for name in found]


def test_a_bucket_stands_for_all_of_it(team: str) -> None:
    assert len(remote_files(team)) == len(remote_files(f"{team}/")) == 5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("chats/2027", "there is no such object, and none that matches"),
        ("chats/*.jsonl", "there is no such object, and none that matches"),
        ("chats/2026/a", "there is no such object"),
    ],
)
def test_what_is_not_there_is_the_users_mistake(team: str, given: str, said: str) -> None:
    with pytest.raises(UserMistake, match=said) as refused:
        remote_files(f"{team}/{given}")
    assert str(refused.value).startswith(f"{team}/{given}: ")


def test_a_bucket_that_is_not_there_is_the_users_mistake(s3: str) -> None:
    with pytest.raises(UserMistake, match=r"s3://absent-bucket: cannot be listed \(NoSuchBucket\)"):
        remote_files("s3://absent-bucket/chats")


def test_what_is_no_address_is_the_users_mistake() -> None:
    with pytest.raises(UserMistake, match=r"s3://Team/a: is not of the form s3://BUCKET/NAME"):
        remote_files("s3://Team/a")


@pytest.fixture
def fetches(team: str) -> list[str]:
    """What is fetched from now on."""
    fetched: list[str] = []

    def note(params: dict[str, Any], **_: Any) -> None:
        fetched.append(params["Key"])

    _client().meta.events.register("provide-client-params.s3.GetObject", note)
    return fetched


def test_an_object_is_copied_once_and_again_when_it_is_another(
    team: str, home: Home, fetches: list[str]
) -> None:
    def copy() -> str:
        (file,) = remote_files(f"{team}/chats/2026/a.jsonl")
        return copied(file, home)

    before = os.umask(0)
    try:
        first = copy()
    finally:
        os.umask(before)
    assert Path(first).read_bytes() == LINE
    made = [path for path in home.root.rglob("*") if not path.is_symlink()]
    assert [path for path in made if path.stat().st_mode & 0o077] == []
    assert copy() == first
    assert len(fetches) == 1
    Objects(team).put("chats/2026/a.jsonl", OTHER)
    assert Path(copy()).read_bytes() == OTHER
    Path(first).write_bytes(b"x" * len(LINE))
    Objects(team).put("chats/2026/a.jsonl", LINE)
    assert copy() == first
    assert Path(first).read_bytes() == LINE, "a damaged copy was taken for the object"
    assert len(fetches) == 3
    assert not list((home.copies / "inputs").glob(".*"))


class BreaksOff:
    """A connection that ends after so many bytes of a body."""

    def __init__(self, raw: Any, count: int) -> None:
        self._raw = raw
        self._left = count

    def read(self, amount: int) -> bytes:
        if not self._left:
            raise urllib3.exceptions.ProtocolError("Connection broken.")
        data: bytes = self._raw.read(min(amount, self._left))
        self._left -= len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def breaking_off(after: int, times: int) -> list[int]:
    """From now on so many bodies break off; the list has as many entries as there are to come."""
    left = [after] * times

    def break_off(parsed: dict[str, Any], **_: Any) -> None:
        if left:
            body = parsed["Body"]
            body._raw_stream = BreaksOff(body._raw_stream, left.pop())

    _client().meta.events.register("after-call.s3.GetObject", break_off)
    return left


def test_a_copy_that_breaks_off_goes_on_where_it_was(team: str, home: Home, fetches: list[str]) -> None:
    content = os.urandom(5_000_000)
    Objects(team).put("large.jsonl", content)
    (file,) = remote_files(f"{team}/large.jsonl")
    left = breaking_off(after=1_500_000, times=3)
    assert Path(copied(file, home)).read_bytes() == content
    assert left == []
    assert len(fetches) == 4


def test_a_copy_that_breaks_off_again_and_again_is_a_fault_that_names_the_object(
    team: str, home: Home
) -> None:
    (file,) = remote_files(f"{team}/chats/2026/a.jsonl")
    breaking_off(after=0, times=9)
    with pytest.raises(StoreFault, match=rf"^{team}/chats/2026/a\.jsonl: cannot be read: .*[^.]\. What is"):
        copied(file, home)
    assert list((home.copies / "inputs").iterdir()) == []


def test_several_objects_are_fetched_at_a_time_and_given_in_order(team: str, home: Home) -> None:
    together = threading.Barrier(3)

    def wait_for_the_others(**_: Any) -> None:
        together.wait(30)

    _client().meta.events.register("before-send.s3.GetObject", wait_for_the_others)
    inventory = take_inventory([f"{team}/chats/2026"], home=home)
    assert [file.path for file in inventory.files] == [
        f"{team}/chats/2026/{name}" for name in ("a.jsonl", "b [1].jsonl.gz", "deep/c.jsonl")
    ]


def test_where_one_object_fails_the_others_are_given_up(team: str, home: Home) -> None:
    Objects(team).put("chats/2026/z.jsonl", os.urandom(20_000_000))
    files = remote_files(f"{team}/chats/2026/?.jsonl")
    _remove(team)
    failed = threading.Event()

    def slowly(parsed: dict[str, Any], **_: Any) -> None:
        if parsed["ResponseMetadata"]["HTTPStatusCode"] != 200:
            failed.set()
        elif failed.wait(30):
            time.sleep(0.5)

    _client().meta.events.register("after-call.s3.GetObject", slowly)
    with pytest.raises(InputFault, match=r"/a\.jsonl: was changed or removed"):
        all_copied(files, home)
    assert list((home.copies / "inputs").iterdir()) == []


def _remove(team: str) -> None:
    _client().delete_object(Bucket=team.removeprefix("s3://"), Key="chats/2026/a.jsonl")


@pytest.mark.parametrize("meddle", [_remove, lambda team: Objects(team).put("chats/2026/a.jsonl", OTHER)])
def test_an_object_that_changes_after_it_was_listed_is_reported(
    team: str, home: Home, meddle: Callable[[str], object]
) -> None:
    (file,) = remote_files(f"{team}/chats/2026/a.jsonl")
    meddle(team)
    with pytest.raises(InputFault, match="was changed or removed since it was listed") as fault:
        copied(file, home)
    assert str(fault.value).startswith(f"{team}/chats/2026/a.jsonl: ")
    assert list((home.copies / "inputs").iterdir()) == []


def test_copies_that_nobody_asked_for_in_a_week_are_removed(team: str, home: Home) -> None:
    kept, dropped = (remote_files(f"{team}/chats/2026/{name}") for name in ("a.jsonl", "b [1].jsonl.gz"))
    paths = [Path(copied(file, home)) for file in (*kept, *dropped)]
    long_ago = time.time() - remote_inputs.KEPT_SECONDS - 60
    for path in paths:
        os.utime(path, (long_ago, long_ago))
    stamp = paths[0].stat().st_mtime_ns
    assert copied(kept[0], home) == str(paths[0])
    assert paths[0].stat().st_mtime_ns == stamp, "a run that reads it would take it for changed"
    said: list[str] = []
    for _ in range(2):
        sweep_copies(context(home, said.append))
    assert [path.exists() for path in paths] == [True, False]
    assert len(list((home.copies / "inputs").iterdir())) == 2
    (line,) = said
    assert "removed copies of 1 input that no run read for a week" in line


def test_a_copy_from_before_the_clock_was_set_back_is_kept_a_week_and_no_longer(home: Home) -> None:
    folder = home.copies / "inputs"
    folder.mkdir(parents=True)
    copy = folder / f"{'0' * 32}.jsonl"
    copy.touch()
    stamp = copy.stat().st_mtime_ns
    in_a_year = time.time() + 365 * 24 * 3600
    os.utime(copy, ns=(int(in_a_year * 1e9), stamp))
    sweep_copies(context(home))
    assert abs(copy.stat().st_atime - time.time()) < 3600
    assert copy.stat().st_mtime_ns == stamp


def test_a_copy_that_is_removed_while_its_run_scores_is_made_again(team: str, home: Home) -> None:
    inventory = take_inventory([f"{team}/chats/2026/a.jsonl"], home=home)
    (file,) = inventory.files
    path = Path(inventory.sources[0].path)
    assert local_path(file, home) == str(path)
    path.unlink()
    assert Path(local_path(file, home)).read_bytes() == LINE
    path.unlink()
    Objects(team).put("chats/2026/a.jsonl", OTHER)
    assert not Path(local_path(file, home)).exists()
    _remove(team)
    assert not Path(local_path(file, home)).exists()


def test_the_inventory_names_the_object_and_knows_its_content(team: str, home: Home, tmp_path: Path) -> None:
    local = tmp_path / "a.jsonl"
    local.write_bytes(LINE)
    inventory = take_inventory([f"{team}/chats/2026/*.jsonl", str(local)], home=home)
    remote, file = inventory.files
    assert (remote.path, file.path) == (f"{team}/chats/2026/a.jsonl", str(local))
    assert (remote.digest, remote.size, remote.format) == (file.digest, file.size, file.format)
    assert digest_of_file(Path(inventory.sources[0].path)) == file.digest


def test_two_objects_of_one_content_are_two_files_and_neither_seems_changed(team: str, home: Home) -> None:
    Objects(team).put("chats/2026/a-again.jsonl", LINE)
    inventory = take_inventory([f"{team}/chats/2026/*.jsonl"], home=home)
    assert [file.path.rpartition("/")[2] for file in inventory.files] == ["a-again.jsonl", "a.jsonl"]
    for source, stamp in zip(inventory.sources, inventory.stamps, strict=True):
        assert Stamp.of(source.path) == stamp


def test_what_cannot_be_read_is_reported_by_the_objects_name(team: str, home: Home) -> None:
    Objects(team).put("chats/top.parquet", b"PAR1 and no more")
    with pytest.raises(UserMistake, match=r"s3://.*/chats/top\.parquet: ") as refused:
        take_inventory([f"{team}/chats/top.parquet"], home=home)
    assert str(home.root) not in str(refused.value)


def test_a_deployed_run_reads_below_the_operators_address_alone(
    team: str, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_DATA_ROOTS", f"new={team}/chats/2026:files={tmp_path}")
    monkeypatch.setenv("ASSAY_OUTPUT_ROOTS", f"results={tmp_path}")
    settings = Settings.read()
    assert settings.data_roots == {"new": f"{team}/chats/2026", "files": tmp_path}
    where = places(["new/*.jsonl", "new"], "results/a", settings, deployed=True)
    assert where.inputs == [f"{team}/chats/2026/*.jsonl", f"{team}/chats/2026"]
    assert len(take_inventory(where.inputs, within=where.within, home=home).files) == 3
    for given in ("new/../2026-old/e.jsonl", f"{team}/chats/top.parquet", "other/a"):
        with pytest.raises(UserMistake):
            places([given], "results/a", settings, deployed=True)
    for outside in (f"{team}/chats/2026-old/e.jsonl", f"{team}/chats/2026*/*.jsonl"):
        with pytest.raises(UserMistake, match="is not below an address that may be read"):
            take_inventory([outside], within=where.within, home=home)


@pytest.mark.parametrize("value", ["a=s3://Team/x", "a=s3://team/x*", "a=http://team/x", "a=s3://"])
def test_a_root_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ASSAY_DATA_ROOTS", value)
    with pytest.raises(UserMistake, match=r"ASSAY_DATA_ROOTS.* or NAME=s3://BUCKET/PREFIX"):
        Settings.read()


def test_results_are_not_written_to_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_OUTPUT_ROOTS", "a=s3://team/x")
    with pytest.raises(UserMistake, match="ASSAY_OUTPUT_ROOTS"):
        Settings.read()
