"""Shards that others convert, in any order, on any machine: the same records, and one line a fault."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pytest
from converting import line
from job_doers import Backwards, Deadly
from stages import Heard, take_inventory

from assay.core.errors import AssayError, ClusterFault, InputFault
from assay.core.jobs import Workers
from assay.read import convert as converting
from assay.read.convert import CONVERT, ToConvert
from assay.read.inventory import Inventory
from assay.storage.home import Home
from assay.storage.manifests import Converted
from assay.storage.stage import RunContext


@pytest.fixture(autouse=True)
def _any_size_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converting, "_WORTH_WORKERS_BYTES", 0)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder of two files, of several shards each."""
    folder = tmp_path / "chats"
    folder.mkdir()
    for name in ("a", "b"):
        rows = [line(f"question {n} of {name}", f"answer {n}") for n in range(40)]
        (folder / f"{name}.jsonl").write_bytes(b"\n".join([*rows, b"{no json", b""]))
    return folder


def inventory_of(folder: Path) -> Inventory:
    found = take_inventory([str(folder)], shard_bytes=800)
    assert len(found.shards) > 4
    return found


def convert(
    inventory: Inventory, home: Home, workers: Workers, heard: Heard | None = None, **options: Any
) -> Converted:
    context = RunContext(home, heard or Heard(), workers=workers)
    return CONVERT.run(ToConvert(inventory, **options), context)


def artifacts(home: Home) -> dict[str, bytes]:
    """Every file that a conversion left, by its place."""
    files = (path for path in home.artifacts.rglob("*") if path.is_file())
    return {str(path.relative_to(home.artifacts)): path.read_bytes() for path in files}


@pytest.fixture
def alone(inputs: Path, tmp_path: Path) -> tuple[Converted, dict[str, bytes]]:
    """What a run without workers makes of the inputs."""
    home = Home(tmp_path / "alone")
    context = RunContext(home)
    return CONVERT.run(ToConvert(inventory_of(inputs)), context), artifacts(home)


def test_whoever_converts_in_whatever_order_makes_the_same_bytes(
    inputs: Path, tmp_path: Path, alone: tuple[Converted, dict[str, bytes]]
) -> None:
    home, workers = Home(tmp_path / "home"), Backwards()
    assert (convert(inventory_of(inputs), home, workers), artifacts(home)) == alone
    assert len(workers.names) == len(inventory_of(inputs).shards)


def test_a_worker_in_another_folder_reads_what_the_run_names_from_its_own(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inputs.parent)
    found = inventory_of(Path("chats"))
    (tmp_path / "other").mkdir()
    home, workers = Home(tmp_path / "home"), Backwards(there=lambda: chdir(tmp_path / "other"))
    first = convert(found, home, workers)
    assert len(workers.names) == len(found.shards)
    # The shards have the names that they have without workers.
    again = Backwards()
    assert convert(found, home, again) == first
    assert again.names == []


def test_what_an_earlier_run_converted_is_handed_to_nobody(inputs: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    convert(inventory_of(inputs), home, Backwards())
    with (inputs / "b.jsonl").open("ab") as file:
        file.write(line("one more", "answer") + b"\n")
    workers = Backwards()
    convert(inventory_of(inputs), home, workers)
    assert {name.partition(":")[0] for name in workers.names} == {f"convert {inputs / 'b.jsonl'}"}


def test_little_to_convert_starts_no_worker(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = inventory_of(inputs)
    size = sum(shard.length for shard in found.shards)
    for least, asked in ((size, True), (size + 1, False)):
        monkeypatch.setattr(converting, "_WORTH_WORKERS_BYTES", least)
        workers = Backwards()
        convert(found, Home(tmp_path / str(least)), workers)
        assert bool(workers.names) == asked


def test_a_strict_run_names_the_first_fault_of_the_input_whoever_meets_one_first(
    inputs: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        with pytest.raises(InputFault, match=r"a\.jsonl:41: .*json"):
            convert(inventory_of(inputs), Home(tmp_path / "home"), Backwards(), strict=True)


def test_a_limit_takes_the_first_records_without_workers(inputs: Path, tmp_path: Path) -> None:
    workers = Backwards()
    made = convert(inventory_of(inputs), Home(tmp_path / "home"), workers, limit=50)
    assert (made.counts.read, workers.names) == (50, [])


def test_languages_are_found_with_the_records_and_no_second_time(inputs: Path, tmp_path: Path) -> None:
    home, first, second = Home(tmp_path / "home"), Backwards(), Backwards()
    plain = convert(inventory_of(inputs), home, Backwards())
    assert convert(inventory_of(inputs), home, first, find_languages=True) == plain
    assert convert(inventory_of(inputs), home, second, find_languages=True) == plain
    assert (len(first.names), second.names) == (len(inventory_of(inputs).shards), [])
    kept = list((home.artifacts / "languages").iterdir())
    assert len(kept) == len({piece.records.digest for piece in plain.pieces})


def test_an_input_that_one_machine_lacks_is_converted_by_another_and_named_once(
    inputs: Path, tmp_path: Path, alone: tuple[Converted, dict[str, bytes]]
) -> None:
    home, heard = Home(tmp_path / "home"), Heard()
    away = Backwards(
        changed=lambda ended: ended._replace(host="far"), there=lambda: hidden(inputs / "b.jsonl")
    )
    assert (convert(inventory_of(inputs), home, away, heard), artifacts(home)) == alone
    (said,) = heard.lines
    assert said.startswith(f"worker on far: {inputs / 'b.jsonl'} is not there, or is another file")
    assert said.endswith("at the same paths; this machine converts what others cannot")


@contextmanager
def hidden(path: Path) -> Iterator[None]:
    """In this context there is no such file."""
    path.rename(path.with_name("hidden"))
    yield
    path.with_name("hidden").rename(path)


def test_pieces_that_only_their_worker_sees_are_made_again_here(
    inputs: Path, tmp_path: Path, alone: tuple[Converted, dict[str, bytes]]
) -> None:
    home, heard = Home(tmp_path / "home"), Heard()

    def lost(ended: Any) -> Any:
        shutil.rmtree(home.artifacts / "convert")
        return ended._replace(host="far")

    assert convert(inventory_of(inputs), home, Backwards(changed=lost), heard) == alone[0]
    assert artifacts(home) == alone[1]
    (said,) = heard.lines
    assert said.startswith(f"worker on far: {home.artifacts / 'convert'}")
    assert "is not there for this one. Let every machine have the same ASSAY_HOME" in said


def test_a_file_that_somebody_changed_ends_the_run_at_once(inputs: Path, tmp_path: Path) -> None:
    found = inventory_of(inputs)
    with (inputs / "a.jsonl").open("ab") as file:
        file.write(b"more\n")
    workers = Backwards()
    with pytest.raises(InputFault, match=r"a\.jsonl: was changed while it was read"):
        convert(found, Home(tmp_path / "home"), workers)


def test_a_shard_that_kills_every_worker_is_named_with_what_to_do(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterFault, match=r"a\.jsonl:1: every worker that takes this dies.*--workers N"):
        convert(inventory_of(inputs), Home(tmp_path / "home"), Deadly())


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full after a few files."""
    real, calls = os.replace, 0

    def replace(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.usefixtures("full")
def test_a_full_disk_is_one_line_and_finished_shards_stay(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, workers = Home(tmp_path / "home"), Backwards()
    with pytest.raises(AssayError, match=r"No space left on device. Make room"):
        convert(inventory_of(inputs), home, workers)
    finished = len(list(home.artifacts.glob("convert/*/manifest.json")))
    assert finished == 2
    monkeypatch.undo()
    monkeypatch.setattr(converting, "_WORTH_WORKERS_BYTES", 0)
    later = Backwards()
    convert(inventory_of(inputs), home, later)
    assert len(later.names) == len(inventory_of(inputs).shards) - finished
