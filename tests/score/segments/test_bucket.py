"""A segment on S3 is one PUT, is fetched once a machine, and is trusted by its digest alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from stages import Heard

from assay.core.digests import digest_of_content
from assay.score.segments import Segments, segments_of
from assay.score.segments.bucket import SegmentBucket
from assay.storage.home import Home
from assay.storage.s3 import Objects, _client

FINGERPRINT = "cd" * 16


@pytest.fixture
def home(tmp_path: Path, bucket: str) -> Home:
    return Home(tmp_path / "home", bucket)


@pytest.fixture
def segments(home: Home) -> Segments:
    found = segments_of(home, FINGERPRINT)
    assert isinstance(found, SegmentBucket)
    return found


@pytest.fixture
def requests(segments: Segments) -> Counter[str]:
    """How often S3 was asked for what from now on."""
    counted: Counter[str] = Counter()

    def count(request: Any, event_name: str, **_: Any) -> None:
        counted[event_name.rpartition(".")[2]] += 1

    _client().meta.events.register("before-send.s3", count)
    return counted


def test_a_segment_is_one_put_under_its_digest(
    segments: Segments, requests: Counter[str], bucket: str
) -> None:
    data = b"a" * (20 << 20)
    digest = segments.keep(data)
    assert requests == {"PutObject": 1}
    content = Objects(bucket).read(f"{FINGERPRINT}/{digest}.parquet")
    assert content is not None
    assert content.data == data
    assert digest == digest_of_content(data)


def test_a_segment_is_fetched_once_a_machine(segments: Segments, requests: Counter[str], home: Home) -> None:
    digests = sorted(segments.keep(bytes([number])) for number in range(5))
    requests.clear()
    for _ in range(2):
        paths = segments_of(home, FINGERPRINT).present(Heard(pytest.fail))
        assert [path.stem for path in paths] == digests
        assert segments.damaged(paths, Heard(pytest.fail)) == set()
    assert segments.hold(digests)
    assert requests == {"ListObjectsV2": 3, "GetObject": 5}


def test_a_copy_that_is_damaged_is_fetched_again_and_nobody_is_bothered(segments: Segments) -> None:
    segments.keep(b"whole")
    (path,) = segments.present(Heard(pytest.fail))
    path.write_bytes(b"cut")
    assert segments.present(Heard(pytest.fail)) == [path]
    assert path.read_bytes() == b"cut", "nobody reads its values yet"
    assert segments.damaged([path], Heard(pytest.fail)) == set()
    assert path.read_bytes() == b"whole"


def test_a_copy_and_its_object_that_are_damaged_are_reported_once(segments: Segments, bucket: str) -> None:
    digest = segments.keep(b"whole")
    (path,) = segments.present(Heard(pytest.fail))
    path.write_bytes(b"cut")
    Objects(bucket).put(f"{FINGERPRINT}/{digest}.parquet", b"cut")
    said: list[str] = []
    for _ in range(2):
        assert segments.damaged([path], Heard(said.append)) == {path}
    assert len(said) == 1
    assert segments.present(Heard(said.append)) == []


def test_a_damaged_object_is_reported_once_and_whole_again_when_it_is_kept_again(
    segments: Segments, bucket: str, requests: Counter[str]
) -> None:
    digest = segments.keep(b"whole")
    other = segments.keep(b"other")
    Objects(bucket).put(f"{FINGERPRINT}/{digest}.parquet", b"cut")
    said: list[str] = []
    requests.clear()
    for _ in range(2):
        assert [path.stem for path in segments.present(Heard(said.append))] == [other]
    assert requests["GetObject"] == 2
    assert not segments.hold([digest])
    (line,) = said
    assert f"{bucket}/{FINGERPRINT}/{digest}.parquet is damaged" in line
    segments.keep(b"whole")
    assert segments.hold([digest, other])


def test_what_is_not_there_is_not_held(segments: Segments) -> None:
    digest = segments.keep(b"one")
    assert segments.hold([])
    assert segments.hold([digest])
    assert not segments.hold([digest, digest_of_content(b"two")])


def test_other_models_segments_are_not_looked_at(segments: Segments, home: Home) -> None:
    segments_of(home, "ef" * 16).keep(b"theirs")
    assert segments.present(Heard(pytest.fail)) == []


def test_what_a_folder_holds_can_be_copied_to_a_bucket_as_it_is(tmp_path: Path, bucket: str) -> None:
    folder = Home(tmp_path / "home")
    digest = segments_of(folder, FINGERPRINT).keep(b"scores")
    for path in folder.scores.rglob("*.parquet"):
        Objects(bucket).put(str(path.relative_to(folder.scores)), path.read_bytes())
    assert segments_of(Home(tmp_path / "other", bucket), FINGERPRINT).hold([digest])
