from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from converting import line
from stages import take_inventory

from assay.core.digests import digest_of_file
from assay.read import known_files, looks
from assay.read.inventory import Inventory
from assay.read.known_files import DigestedFile, KnownFiles, Look
from assay.storage.home import Home
from assay.storage.sealed import unsealed

ROW = line("Which way to the mill?", "Left at the bridge.") + b"\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were read for a digest."""
    paths: list[str] = []
    whole = looks._digest_and_cuts

    def noted(path: str, shard_bytes: int | None) -> tuple[str, int, tuple[tuple[int, int], ...]]:
        paths.append(path)
        return whole(path, shard_bytes)

    monkeypatch.setattr(looks, "_digest_and_cuts", noted)
    # A file of a test was changed just now.
    monkeypatch.setattr(known_files, "_SETTLED_NS", -(10**12))
    return paths


def written(path: Path, rows: int = 3) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(ROW * rows)
    return str(path)


def taken(path: str, home: Home, *, verify: bool = False, shard_bytes: int = len(ROW)) -> Inventory:
    return take_inventory([path], home=home, verify=verify, shard_bytes=shard_bytes)


def test_an_unchanged_file_is_read_once_and_gives_the_same_inventory(
    tmp_path: Path, home: Home, read: list[str]
) -> None:
    path = written(tmp_path / "a.jsonl")
    first = taken(path, home)
    assert len(first.shards) == 3
    assert taken(path, home) == first
    assert read == [path]
    other = written(tmp_path / "b.jsonl", rows=2)
    taken(str(tmp_path / "*.jsonl"), home)
    assert read == [path, other], "what is new beside it is read alone"
    assert taken(path, home) == first
    assert read == [path, other]


def same_bytes_and_times(path: Path) -> None:
    """Another content of the same length, the time of the content set back; the inode's time is not to be."""
    before = path.stat()
    path.write_bytes(ROW[:-3] + b" }\n" + ROW * 2)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def another_file_in_its_place(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(ROW * 2),
        lambda path: os.utime(path, ns=(1, 1)),
        same_bytes_and_times,
        another_file_in_its_place,
    ],
)
def test_a_file_that_may_have_changed_is_read_again(
    tmp_path: Path, home: Home, read: list[str], change: Callable[[Path], object]
) -> None:
    path = written(tmp_path / "a.jsonl")
    taken(path, home)
    time.sleep(0.02)  # The kernel's clock for files ticks every few milliseconds.
    change(Path(path))
    assert taken(path, home).files[0].digest == digest_of_file(Path(path))
    assert read == [path, path]


def test_each_thing_that_the_file_system_says_of_a_file_counts(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_files, "_SETTLED_NS", -(10**12))
    path = written(tmp_path / "a.jsonl")
    look, found = Look.at(path), os.stat(path)
    assert (look.size, look.modified_ns, look.changed_ns) == (
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )
    assert (look.inode, look.device) == (found.st_ino, found.st_dev)
    known = KnownFiles(home)
    read_before = DigestedFile("d", look.size, ((0, 1),), None)
    known.learn(path, look, read_before)
    known.keep()
    assert KnownFiles(home).known(path, look, shard_bytes=None) == read_before
    for name in Look.__struct_fields__:
        other = msgspec.structs.replace(look, **{name: getattr(look, name) + 1})
        assert KnownFiles(home).known(path, other, shard_bytes=None) is None, name


def test_inputs_are_read_again_where_a_run_asks_for_it_and_where_shards_have_another_size(
    tmp_path: Path, home: Home, read: list[str]
) -> None:
    path = written(tmp_path / "a.jsonl")
    first = taken(path, home)
    assert taken(path, home, verify=True) == first
    assert len(taken(path, home, shard_bytes=1 << 20).shards) == 1
    assert read == [path] * 3


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", None])
def test_what_is_known_of_files_is_not_believed_once_it_is_damaged(
    tmp_path: Path, home: Home, read: list[str], damage: bytes | None
) -> None:
    path = written(tmp_path / "inputs" / "a.jsonl")
    first = taken(path, home)
    (kept,) = (home.artifacts / "ingest").glob("*.json")
    digest = first.files[0].digest
    kept.write_bytes(kept.read_bytes().replace(digest.encode(), b"0" * 32) if damage is None else damage)
    assert taken(path, home) == first
    assert read == [path, path]


def test_a_file_that_was_written_just_now_is_not_remembered(tmp_path: Path, home: Home) -> None:
    path = written(tmp_path / "a.jsonl")
    known = KnownFiles(home)
    known.learn(path, Look.at(path), DigestedFile("d", len(ROW) * 3, ((0, 1),), None))
    known.keep()
    assert KnownFiles(home).known(path, Look.at(path), shard_bytes=None) is None
    assert KnownFiles(home).digest(path) == digest_of_file(Path(path))


@pytest.mark.parametrize(("seconds", "remembered"), [(59, False), (61, True)])
def test_a_file_is_remembered_a_minute_after_its_last_change(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch, seconds: int, remembered: bool
) -> None:
    path = written(tmp_path / "a.jsonl")
    look, known = Look.at(path), KnownFiles(home)
    now = max(look.modified_ns, look.changed_ns) + seconds * 10**9
    monkeypatch.setattr("assay.read.known_files.time.time_ns", lambda: now)
    known.learn(path, look, DigestedFile("d", look.size, ((0, 1),), None))
    known.keep()
    assert (KnownFiles(home).known(path, look, shard_bytes=None) is not None) == remembered


def test_what_is_known_of_a_folder_is_read_once_for_all_its_files(
    tmp_path: Path, home: Home, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [written(tmp_path / "inputs" / f"{n}.jsonl", n + 1) for n in range(4)]
    for path in paths:
        taken(path, home)
    opened: list[str] = []

    def noted(content: bytes, *, about: str) -> dict[str, Any]:
        opened.append(about)
        return unsealed(content, about=about)

    monkeypatch.setattr(known_files, "unsealed", noted)
    known = KnownFiles(home)
    assert [known.digest(path) for path in paths] == [digest_of_file(Path(path)) for path in paths]
    assert len(opened) == 1


def test_a_file_that_changed_while_it_was_read_is_not_remembered(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_files, "_SETTLED_NS", -(10**12))
    path = written(tmp_path / "a.jsonl")
    look = Look.at(path)
    time.sleep(0.02)
    os.utime(path)
    known = KnownFiles(home)
    known.learn(path, look, DigestedFile("d", look.size, ((0, 1),), None))
    known.keep()
    assert KnownFiles(home).known(path, look, shard_bytes=None) is None


def test_files_that_are_gone_are_forgotten(tmp_path: Path, home: Home, read: list[str]) -> None:
    paths = [written(tmp_path / "inputs" / f"{name}.jsonl") for name in "ab"]
    taken(str(tmp_path / "inputs"), home)
    Path(paths[0]).unlink()
    written(tmp_path / "inputs" / "c.jsonl")
    taken(str(tmp_path / "inputs"), home)
    (kept,) = (home.artifacts / "ingest").glob("*.json")
    assert b"a.jsonl" not in kept.read_bytes()
    assert b"b.jsonl" in kept.read_bytes()
