"""What no run has used for days goes, and nothing else does."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import EndpointConnectionError
from s3_replies import reply

from assay.core.errors import StoreFault, StoreRefusal
from assay.storage import bucket_artifacts
from assay.storage.artifacts import are_intact, artifacts_of
from assay.storage.bucket_artifacts import BucketArtifacts
from assay.storage.home import Artifact, Home
from assay.storage.old_artifacts import LEAST_DAYS, Removed, remove_old_artifacts
from assay.storage.s3 import Found, Objects, _client

_DAY_SECONDS = 86_400


def _file(path: Path, days_old: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"rows")
    at = time.time() - days_old * _DAY_SECONDS
    os.utime(path, (at, at))
    return path


def _age(folder: Path, days_old: float) -> None:
    for each in (*folder.rglob("*"), folder):
        at = time.time() - days_old * _DAY_SECONDS
        os.utime(each, (at, at))


@pytest.mark.parametrize(("days", "stays"), [(30, 29), (1, LEAST_DAYS - 1)])
def test_what_nobody_used_for_so_many_days_goes(tmp_path: Path, days: int, stays: float) -> None:
    home = Home(tmp_path)
    for path in (home.artifacts / "old/a.parquet", home.manifests / "convert-0.json"):
        _file(path, 31)
    used = _file(home.artifacts / "used/a.parquet", stays)
    assert remove_old_artifacts(home, days) == Removed(files=2, size=8)
    assert [path for path in home.artifacts.rglob("*") if path.is_file()] == [used]


def test_no_score_no_plan_and_nothing_of_prefect_goes(tmp_path: Path) -> None:
    home = Home(tmp_path)
    removed = (home.artifacts, home.manifests)
    others = [_file(folder / "a", 4000) for folder in home.folders if folder not in removed]
    assert len(others) == 4
    assert remove_old_artifacts(home, 1) == Removed(files=0, size=0)
    assert all(path.exists() for path in others)


def test_what_a_run_found_intact_counts_as_used(tmp_path: Path) -> None:
    home = Home(tmp_path)
    path = _file(home.artifacts / "converted/a.parquet", 100)
    artifact = Artifact.of(path, home)
    _age(home.artifacts, 100)
    written = path.stat().st_mtime_ns
    assert are_intact([artifact], home)
    assert remove_old_artifacts(home, 30).files == 0
    assert path.exists()
    assert path.stat().st_mtime_ns == written


def test_what_a_run_counts_on_without_reading_it_counts_as_used(tmp_path: Path) -> None:
    home = Home(tmp_path)
    path = _file(home.artifacts / "converted/a.parquet", 100)
    assert artifacts_of(home).hold(["converted/a.parquet"])
    assert remove_old_artifacts(home, 30).files == 0
    assert path.exists()


def test_folders_that_another_run_removes_meanwhile_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    _file(home.artifacts / "convert/a.parquet", 100)
    (home.artifacts / "export/of-another-run").mkdir(parents=True)
    listed = os.scandir

    def scandir(path: str | Path) -> object:
        if Path(path).name == "of-another-run":
            raise FileNotFoundError(path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert remove_old_artifacts(home, 30).files == 1


_KEY = "0123456789abcdef" * 2


class Ages:
    """Makes objects on S3 look older, by changing the server's answers: its clock cannot be set.

    An object that this process writes or copies looks new again.
    """

    def __init__(self) -> None:
        self.days: dict[str, float] = {}
        """How many days older each object looks, by its key."""
        events = _client().meta.events
        for operation in ("GetObject", "HeadObject", "PutObject", "CopyObject"):
            events.register(f"before-parameter-build.s3.{operation}", self._note_key)
            events.register(f"after-call.s3.{operation}", self._of_one)
        events.register("after-call.s3.ListObjectsV2", self._of_a_listing)

    def let_all_be(self, days: float, address: str) -> None:
        """Make all objects below the address look as if they had been written ``days`` days ago."""
        beginning = address.partition("://")[2].partition("/")[2]
        self.days = {f"{beginning}/{name}": days for name in _names(address)}

    def _note_key(self, params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        context["of_key"] = params["Key"]

    def _of_one(self, parsed: dict[str, Any], model: Any, context: dict[str, Any], **_: object) -> None:
        if model.name in ("PutObject", "CopyObject"):
            if parsed["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.OK:
                self.days.pop(context["of_key"], None)
        elif "LastModified" in parsed:
            parsed["LastModified"] -= timedelta(days=self.days.get(context["of_key"], 0))

    def _of_a_listing(self, parsed: dict[str, Any], **_: object) -> None:
        for one in parsed.get("Contents", ()):
            one["LastModified"] -= timedelta(days=self.days.get(one["Key"], 0))


@pytest.fixture
def ages(bucket: str) -> Ages:
    return Ages()


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that makes this process forget what it read and wrote, like a new process."""

    def forget() -> None:
        monkeypatch.setattr(bucket_artifacts, "_RECENT", bucket_artifacts._Recent(1 << 20))

    return forget


def _names(address: str) -> set[str]:
    return {one.name for one in Objects(address).list_all("")}


def _one_of_each(files: BucketArtifacts) -> list[Artifact]:
    """A file of every kind that stages keep."""
    kept = [
        files.keep(stage.encode(), f"{stage}/{_KEY}/0000.parquet")
        for stage in ("convert", "score", "filter", "gather")
    ]
    files.keep_sealed(b"{}", f"convert/{_KEY}/manifest.json")
    files.keep_sealed(b"{}", f"languages/{_KEY}.json")
    with files.handing_over("export/run-killed-1-ab/part.zst") as file:
        file.write(b"rows")
    return kept


def test_what_nobody_used_goes_from_a_bucket_and_no_score_and_nothing_of_others(
    tmp_path: Path, bucket: str, ages: Ages
) -> None:
    home = Home(tmp_path, f"{bucket}/score", bucket)
    _one_of_each(BucketArtifacts(bucket))
    of_stages = {name for name in _names(bucket) if not name.startswith("score/")}
    # Scores may lie below this address under names like those of stages, and others may use the bucket too.
    others = {f"score/{_KEY}/0000.{_KEY}.parquet", f"score/{_KEY}/{_KEY}.parquet", f"{_KEY}/{_KEY}.parquet"}
    others |= {f"photos/{_KEY}/0000.{_KEY}.parquet", f"convert/readme.{_KEY}.txt", "languages/all.json"}
    for name in others:
        Objects(bucket).put(name, b"of others")
    everything = _names(bucket)
    ages.let_all_be(32, bucket)
    # Nothing goes yet: an object may have been used up to three days after it was written.
    assert remove_old_artifacts(home, 30) == Removed(0, 0)
    ages.let_all_be(34, bucket)
    assert remove_old_artifacts(home, 30).files == len(of_stages) == 6
    assert _names(bucket) == everything - of_stages
    # If the score store is not in the bucket, names below score/ are those of the stage *score*.
    assert remove_old_artifacts(Home(tmp_path, None, bucket), 30).files == 2
    assert _names(bucket) == others - {f"score/{_KEY}/0000.{_KEY}.parquet"}


@pytest.mark.parametrize("way", ["found intact", "read", "read sealed", "counted on"])
def test_what_a_run_used_stays_in_a_bucket(
    tmp_path: Path, bucket: str, ages: Ages, forget: Callable[[], None], way: str
) -> None:
    home = Home(tmp_path, None, bucket)
    files = BucketArtifacts(bucket)
    kept, *_ = _one_of_each(files)
    sealed = f"languages/{_KEY}.json"
    used = sealed if way in ("read sealed", "counted on") else f"convert/{_KEY}/0000.{kept.digest}.parquet"
    content = Objects(bucket).read(used)
    assert content is not None
    ages.let_all_be(100, bucket)
    forget()
    if way == "found intact":
        assert are_intact([kept], home)
    elif way == "read":
        assert files.read(kept) == b"convert"
    elif way == "read sealed":
        assert files.read_sealed(sealed) == b"{}"
    else:
        assert files.hold([sealed])
    assert remove_old_artifacts(home, 30).files == 6
    assert _names(bucket) == {used}
    after = Objects(bucket).read(used)
    assert after is not None
    assert after.data == content.data


@pytest.mark.parametrize("fault", [StoreRefusal, StoreFault])
def test_what_is_read_is_read_though_its_use_cannot_be_noted_in_a_bucket(
    tmp_path: Path, bucket: str, ages: Ages, forget: Callable[[], None], fault: type[Exception]
) -> None:
    files, home = BucketArtifacts(bucket), Home(tmp_path, None, bucket)
    kept, *_ = _one_of_each(files)
    sealed = f"languages/{_KEY}.json"
    ages.let_all_be(100, bucket)
    forget()
    asked: list[str] = []

    def refuse(request: Any, **_: object) -> AWSResponse:
        asked.append(request.url)
        if fault is StoreFault:
            raise EndpointConnectionError(endpoint_url=request.url)
        return reply(request.url, HTTPStatus.FORBIDDEN, b"<Error><Code>AccessDenied</Code></Error>")

    _client().meta.events.register("before-send.s3.CopyObject", refuse)
    with pytest.raises(fault, match="cannot be written"):
        Objects(bucket).write_again(sealed)
    ways: tuple[Callable[[], bool], ...] = (
        lambda: are_intact([kept], home),
        lambda: files.read(kept) == b"convert",
        lambda: files.read_sealed(sealed) == b"{}",
        lambda: files.hold([sealed]),
    )
    for way in ways:
        asked.clear()
        assert way()
        assert asked


def test_what_is_read_is_read_though_its_use_cannot_be_noted_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    files = artifacts_of(home)
    kept = files.keep(b"rows", "convert/a.bin")
    asked: list[str] = []

    def refuse(path: Path, **_: object) -> None:
        asked.append(path.name)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    monkeypatch.setattr(os, "utime", refuse)
    assert are_intact([kept], home)
    assert files.read(kept) == b"rows"
    assert files.read_sealed("convert/a.bin") == b"rows"
    assert files.hold(["convert/a.bin"])
    assert asked == ["a.bin"] * 4


def test_what_another_run_uses_while_a_bucket_is_listed_stays(
    tmp_path: Path, bucket: str, ages: Ages, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = BucketArtifacts(bucket)
    kept = files.keep(b"rows", f"convert/{_KEY}/0000.parquet")
    ages.let_all_be(100, bucket)
    listed = Objects.list_all

    def list_all(objects: Objects, beginning: str) -> Iterator[Found]:
        found = list(listed(objects, beginning))
        if beginning == "":
            assert files.first_altered([kept]) is None
        yield from found

    monkeypatch.setattr(Objects, "list_all", list_all)
    assert remove_old_artifacts(Home(tmp_path, None, bucket), 30).files == 0
    assert files.first_altered([kept]) is None


def test_a_bucket_that_cannot_be_cleaned_is_a_sentence_and_no_fault_of_the_run(
    tmp_path: Path, s3: str
) -> None:
    old = _file(Home(tmp_path).artifacts / "old/a.parquet", 100)
    removed = remove_old_artifacts(Home(tmp_path, None, "s3://no-such-bucket-of-this-test/stages"), 30)
    assert (removed.files, removed.size) == (1, 4)
    assert not old.exists()
    assert removed.fault is not None
    assert "there is no such bucket" in removed.fault
