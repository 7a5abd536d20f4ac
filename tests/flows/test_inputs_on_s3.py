"""A run over a bucket gives what a run over the same files gives, and a release takes what is new there."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from curate_runs import Ran, line

from assay.config.options import RunOptions
from assay.config.settings import Settings
from assay.core.errors import UserMistake
from assay.storage.s3 import Objects
from flows.curate.prepare import prepare


@pytest.fixture
def files(tmp_path: Path, bucket: str) -> tuple[Path, str]:
    """A folder of chats, and the address of a bucket with the same."""
    folder, address = tmp_path / "chats", bucket.removesuffix("/scores") + "/chats"
    folder.mkdir()
    good = "".join(line(f"question {n}", f"answer {n}") + "\n" for n in range(4))
    for name, data in (
        ("a.jsonl", f"{good}{{no json\n".encode()),
        (
            "b.jsonl.gz",
            gzip.compress(b"\xff is no text\n" + good.replace("answer", "reply").encode(), mtime=0),
        ),
    ):
        (folder / name).write_bytes(data)
        Objects(address).put(name, data)
    return folder, address


def test_results_are_those_of_the_same_files_on_disk(
    curate: Callable[..., Ran],
    files: tuple[Path, str],
) -> None:
    folder, address = files
    local = curate("--input", folder, "--export", "messages", output="local")
    remote = curate("--input", address, "--export", "messages", output="remote")
    assert (local.code, remote.code) == (0, 0), remote.err
    assert (
        remote.manifest["rows"]
        == local.manifest["rows"]
        == {
            "read": 10,
            "kept": 8,
            "dropped": 0,
            "quarantined": 2,
        }
    )
    assert remote.manifest["turns"]["scored"] == 0, "the same turns were scored for the files"
    for name in ("quarantine.jsonl", "messages.jsonl"):
        assert remote.files()[name] == local.files()[name].replace(str(folder).encode(), address.encode())
    paths = [one["path"] for one in remote.manifest["inputs"]]
    assert paths == [f"{address}/a.jsonl", f"{address}/b.jsonl.gz"]


def test_a_release_takes_what_is_new_in_the_bucket(
    curate: Callable[..., Ran],
    files: tuple[Path, str],
) -> None:
    _, address = files
    first = curate("--input", f"{address}/*", "--release", output="nightly")
    assert first.code == 0, first.err
    nothing = curate("--input", f"{address}/*", "--release", output="nightly")
    assert "Nothing new" in nothing.out + nothing.err
    Objects(address).put("a-renamed.jsonl", (files[0] / "a.jsonl").read_bytes())
    Objects(address).put("c.jsonl", (line("one more", "answer") + "\n").encode())
    assert curate("--input", f"{address}/*", "--release", output="nightly").code == 0
    _, two = sorted(first.output.glob("[!.]*"), key=lambda path: (len(path.name), path.name))
    inputs = json.loads((two / "manifest.json").read_bytes())["inputs"]
    assert [given["path"] for given in inputs] == [f"{address}/c.jsonl"]


def test_results_on_s3_are_refused_before_any_work(tmp_path: Path, assay_home: Path) -> None:
    (tmp_path / "chats.jsonl").write_text(line("question", "answer"))
    options = RunOptions(input=[str(tmp_path / "chats.jsonl")], output="s3://team/results")
    with pytest.raises(UserMistake, match="results are written to a folder of this machine"):
        prepare(options, Settings.read())
    assert not Path("s3:").exists()
