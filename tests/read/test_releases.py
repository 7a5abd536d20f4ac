"""A release holds what no earlier one does, and its date is in its name."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import date
from pathlib import Path

import manifests
import msgspec
import pytest
from stages import take_inventory

from assay.core.errors import OutputRefused
from assay.read.releases import new_only, next_release, released
from assay.storage.manifests import InputFile
from assay.storage.run_manifest import RunManifest

LINE = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "%s"}]}\n'


def of_input(digest: str) -> RunManifest:
    return manifests.made(inputs=(InputFile("x.jsonl", digest, 3, "messages"),))


def test_a_day_may_have_several_releases(tmp_path: Path) -> None:
    day = date(2026, 3, 1)
    for expected in ("2026-03-01", "2026-03-01-2", "2026-03-01-3"):
        path = next_release(tmp_path, day)
        assert path == tmp_path / expected
        path.mkdir()


def test_files_of_earlier_releases_are_left_out_and_shards_follow_their_files(tmp_path: Path) -> None:
    inventory = take_inventory([str(path) for path in _written(tmp_path, first="1", second="2", third="3")])
    new = new_only(inventory, {inventory.files[1].digest})
    assert [Path(file.path).stem for file in new.files] == ["first", "third"]
    assert [new.files[shard.file].path for shard in new.shards] == [file.path for file in new.files]
    assert [source.path for source in new.sources] == [file.path for file in new.files]


def test_a_file_that_was_renamed_is_not_new_and_one_that_grew_is(tmp_path: Path) -> None:
    (path,) = _written(tmp_path, chats="1")
    known = {take_inventory([str(path)]).files[0].digest}
    renamed = path.rename(tmp_path / "renamed.jsonl")
    assert not new_only(take_inventory([str(renamed)]), known).files
    with renamed.open("a") as file:
        file.write(LINE % "2")
    assert new_only(take_inventory([str(renamed)]), known).files


def test_digests_of_all_releases_count_and_unfinished_ones_do_not(tmp_path: Path) -> None:
    for name, digest in (("2026-03-01", "a"), ("2026-03-02", "b"), (".2026-03-03.staging-0", "c")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps(of_input(digest).as_written()))
    assert released(tmp_path) == {"a", "b"}
    assert released(tmp_path / "absent") == set()


def test_what_could_not_be_used_is_no_release(tmp_path: Path) -> None:
    (tmp_path / "2026-03-01.unusable").mkdir()
    (tmp_path / "2026-03-01.unusable/manifest.json").write_bytes(msgspec.json.encode(of_input("a")))
    assert released(tmp_path) == set()


@pytest.mark.slow
def test_a_manifest_that_was_altered_is_not_believed_and_one_of_an_earlier_version_is(tmp_path: Path) -> None:
    (tmp_path / "2026-03-01").mkdir()
    path = tmp_path / "2026-03-01" / "manifest.json"
    manifest = of_input("a" * 32)
    path.write_bytes(msgspec.json.encode(manifest))
    assert released(tmp_path) == {"a" * 32}
    data = json.dumps(manifest.as_written(), indent=2).encode()
    path.write_bytes(data)
    assert released(tmp_path) == {"a" * 32}
    for n in range(8 * len(data)):
        harmed = bytearray(data)
        harmed[n // 8] ^= 1 << n % 8
        path.write_bytes(harmed)
        with suppress(OutputRefused):
            assert released(tmp_path) == {"a" * 32}
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        with pytest.raises(OutputRefused, match="Assay cannot know which inputs are new"):
            released(tmp_path)


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "2026-03-01").mkdir()
    for content in ('{"inputs": 3}', '{"more": ' + "[" * 50_000 + "]" * 50_000 + ', "inputs": []}'):
        (tmp_path / "2026-03-01/manifest.json").write_text(content)
        with pytest.raises(
            OutputRefused, match=r"2026-03-01/manifest\.json: is not the manifest of a release"
        ):
            released(tmp_path)


def _written(folder: Path, **answers: str) -> list[Path]:
    paths = [folder / f"{name}.jsonl" for name in answers]
    for path, answer in zip(paths, answers.values(), strict=True):
        path.write_text(LINE % answer)
    return paths
