"""Workers that read inputs on S3 find what the run would find, and the run's machine gets no copy."""

from __future__ import annotations

import fcntl
import gzip
import io
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from converting import line
from job_doers import Backwards, Deadly
from running_dask import RunningDask
from stages import Heard

from assay.core.errors import ClusterFault, InputFault, StoreFault, UserMistake
from assay.core.jobs import IN_THIS_PROCESS, Workers
from assay.export.files import LinesFile
from assay.export.results import _Quarantine
from assay.read import looks, remote_inputs
from assay.read.convert import CONVERT, ToConvert
from assay.read.inventory import INGEST, Inputs, Inventory
from assay.read.remote_inputs import copied, copied_and_held, in_use, remote_files
from assay.storage.home import Home
from assay.storage.manifests import Converted
from assay.storage.s3 import Objects, _client
from assay.storage.stage import RunContext
from assay.workers.cluster import ClusterOptions
from assay.workers.of_run import RunWorkers

SHARD_BYTES = 800
ROWS = [line(f"question {n}", f"answer {n}") for n in range(30)]
LINES = b"\n".join([*ROWS, b"{no json", b""])


def parquet() -> bytes:
    content = io.BytesIO()
    pl.DataFrame({"prompt": ["a", "b"], "response": ["c", "d"]}).write_parquet(content)
    return content.getvalue()


FILES = {
    "a.jsonl": LINES,
    "b.jsonl.gz": gzip.compress(LINES.replace(b"answer", b"reply"), mtime=0),
    "deep/c.csv": b"prompt,response\nWhy?,So.\n",
    "d.parquet": parquet(),
    # A file without columns of a chat, which no input names: a line says that it is not read.
    "prices.csv": b"year,price\n2024,3\n",
}


@pytest.fixture
def home(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The run's home. Workers have another one."""
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "worker"))
    return Home(tmp_path / "home", bucket, f"{bucket}-stages")


@pytest.fixture
def address(bucket: str) -> str:
    place = f"{bucket}-inputs"
    for name, data in FILES.items():
        Objects(place).put(name, data)
    return place


@pytest.fixture
def fetches(address: str) -> list[str]:
    """The names of inputs that are fetched from now on."""
    fetched: list[str] = []

    def note(params: dict[str, Any], **_: Any) -> None:
        if "scores-inputs/" in params["Key"]:
            fetched.append(params["Key"].rpartition("scores-inputs/")[2])

    _client().meta.events.register("provide-client-params.s3.GetObject", note)
    return fetched


def far() -> Backwards:
    """Workers on other machines."""
    return Backwards(are_elsewhere=True)


def inventory_of(
    home: Home, workers: Workers, *names: str, heard: Heard | None = None, **options: Any
) -> Inventory:
    inputs = Inputs(names, **{"shard_bytes": SHARD_BYTES, **options})
    return INGEST.run(inputs, RunContext(home, heard or Heard(), workers=workers))


def convert(home: Home, workers: Workers, inventory: Inventory, **options: Any) -> Converted:
    return CONVERT.run(ToConvert(inventory, **options), RunContext(home, Heard(), workers=workers))


def copies(root: Path) -> list[str]:
    """The names of the copies of inputs below a home."""
    return sorted(path.name for path in root.glob("copies/inputs/*") if not path.is_symlink())


def by_the_run(home: Home) -> Home:
    """Another home with the same buckets, for a run that copies its inputs itself."""
    return replace(home, root=home.root.parent / "alone" / "home")


def test_workers_see_what_the_run_would_see_and_give_what_they_see_its_keys(
    home: Home, address: str, tmp_path: Path
) -> None:
    said, said_by_workers, workers = Heard(), Heard(), far()
    alone = inventory_of(home, IN_THIS_PROCESS, address, heard=said)
    (home.root / "copies").rename(tmp_path / "away")
    found = inventory_of(home, workers, address, heard=said_by_workers)
    assert (found.files, found.sources, found.shards) == (alone.files, alone.sources, alone.shards)
    assert len(found.files) == 4
    assert len(found.shards) > 6
    assert CONVERT.digest(ToConvert(found)) == CONVERT.digest(ToConvert(alone))
    assert said.lines[1:] == said_by_workers.lines[1:]
    assert any("prices.csv: is not read, since it has no columns of a chat" in one for one in said.lines)
    assert sorted(workers.names) == [f"ingest {address}/{name}" for name in sorted(FILES)]


def test_the_run_has_no_copy_though_little_is_converted_or_a_limit_is_set(
    home: Home, address: str, tmp_path: Path
) -> None:
    other = by_the_run(home)
    expected = convert(other, IN_THIS_PROCESS, inventory_of(other, IN_THIS_PROCESS, address))
    few = convert(other, IN_THIS_PROCESS, inventory_of(other, IN_THIS_PROCESS, address), limit=33)
    for one in list(Objects(str(home.artifact_store)).list_all("")):
        Objects(str(home.artifact_store)).remove(one.name)
    workers = far()
    found = inventory_of(home, workers, address)
    workers.names.clear()
    made = convert(home, workers, found)
    assert made.pieces == expected.pieces
    assert len(workers.names) == len(found.shards)
    limited = convert(home, workers, found, limit=33)
    assert limited.pieces == few.pieces
    assert copies(home.root) == []
    assert len(copies(tmp_path / "worker")) == len(FILES)


def test_a_file_of_the_runs_machine_is_still_its_own(home: Home, address: str, tmp_path: Path) -> None:
    (tmp_path / "local.jsonl").write_bytes(LINES)
    workers = far()
    found = inventory_of(home, workers, str(tmp_path / "local.jsonl"), f"{address}/a.jsonl")
    convert(home, workers, found)
    assert {name.split()[1].partition(".jsonl")[0] for name in workers.names} == {f"{address}/a"}


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("nothing", []),
        ("another object", ["a.jsonl"]),
        ("another shard size", list(FILES)),
        ("another format", list(FILES)),
        ("verify", list(FILES)),
        ("another version of Assay", list(FILES)),
    ],
)
def test_what_was_read_is_not_read_again_unless_it_or_the_question_is_another(
    home: Home,
    address: str,
    fetches: list[str],
    change: str,
    again: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = inventory_of(home, far(), address)
    assert sorted(fetches) == sorted(FILES)
    fetches.clear()
    # The worker's copies are gone. Only what the run remembers is left.
    (tmp_path / "worker").rename(tmp_path / "gone")
    options: dict[str, Any] = {}
    if change == "another object":
        Objects(address).put("a.jsonl", LINES.replace(b"answer 3", b"answer 4"))
    if change == "another shard size":
        options = {"shard_bytes": 2 * SHARD_BYTES}
    if change == "another format":
        options = {"format": "instruction"}
    if change == "verify":
        options = {"verify": True}
    if change == "another version of Assay":
        monkeypatch.setattr(looks, "code_here", lambda: "Assay 9.9.9")
    second = inventory_of(home, far(), address, **options)
    assert sorted(fetches) == sorted(again)
    assert (second.files == first.files) == (change not in ("another object", "another format"))


@pytest.mark.parametrize("ended_by", [KeyboardInterrupt, SystemExit, ClusterFault])
def test_what_was_read_before_the_run_ended_is_not_read_again(
    home: Home, address: str, fetches: list[str], tmp_path: Path, ended_by: type[BaseException]
) -> None:
    results: list[Any] = []

    def third_ends_the_run(result: Any) -> Any:
        if len(results) == 2:
            raise ended_by("ended")
        results.append(result)
        return result

    with pytest.raises(ended_by, match="ended"):
        inventory_of(home, Backwards(are_elsewhere=True, changed=third_ends_the_run), address)
    (tmp_path / "worker").rename(tmp_path / "gone")
    fetches.clear()
    found = inventory_of(home, far(), address)
    # Jobs are done from the last one on.
    assert sorted(fetches) == sorted(FILES)[:-2]
    (home.artifacts / "ingest").rename(tmp_path / "forgotten")
    assert inventory_of(home, far(), address).files == found.files


def test_memory_that_is_damaged_is_no_memory(
    home: Home, address: str, fetches: list[str], tmp_path: Path
) -> None:
    first = inventory_of(home, far(), address)
    fetches.clear()
    (tmp_path / "worker").rename(tmp_path / "gone")
    for path in (home.artifacts / "ingest").iterdir():
        path.write_bytes(path.read_bytes().replace(b'"size": ', b'"size": 1'))
    assert inventory_of(home, far(), address).files == first.files
    assert len(fetches) == len(FILES)


def test_a_file_that_cannot_be_read_is_the_mistake_that_it_is_to_the_run(home: Home, address: str) -> None:
    Objects(address).put("e.jsonl", b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    said = []
    for workers in (IN_THIS_PROCESS, far()):
        with pytest.raises(UserMistake, match=f"^{address}/e.jsonl: ") as refused:
            inventory_of(home, workers, address)
        said.append(str(refused.value))
    assert said[0] == said[1]
    for workers in (IN_THIS_PROCESS, far()):
        with pytest.raises(UserMistake, match=f"^{address}/prices.csv: has no columns of a chat"):
            inventory_of(home, workers, f"{address}/prices.csv")


def test_an_object_that_is_replaced_between_the_listing_and_the_worker_ends_the_run(
    home: Home, address: str
) -> None:
    class Late(Backwards):
        def do(self, jobs: Any, **more: Any) -> None:
            Objects(address).put("a.jsonl", LINES + LINES)
            super().do(jobs, **more)

    with pytest.raises(InputFault, match=r"a\.jsonl: was changed or removed since it was listed"):
        inventory_of(home, Late(are_elsewhere=True), f"{address}/a.jsonl")


def test_an_input_that_kills_every_worker_is_named_with_what_to_do(home: Home, address: str) -> None:
    workers = Deadly()
    workers.are_elsewhere = True
    with pytest.raises(ClusterFault, match=rf"ingest {address}/a\.jsonl: every worker .*--workers N"):
        inventory_of(home, workers, f"{address}/a.jsonl")


def test_quarantined_rows_are_read_where_the_copies_are(home: Home, address: str, tmp_path: Path) -> None:
    workers = far()
    (tmp_path / "local.jsonl").write_bytes(LINES)
    names = [f"{address}/a.jsonl", str(tmp_path / "local.jsonl"), f"{address}/b.jsonl.gz"]
    made = convert(home, workers, inventory_of(home, workers, *names))
    bad = pl.DataFrame(
        {"line": [31], "part": [0], "offset": [LINES.index(b"{no")], "length": [8], "reason": ["not_json: x"]}
    )
    # "reply" is one letter shorter than "answer", in each of 30 rows.
    of_b = bad.with_columns(pl.col("offset") - 30)
    tables = [bad, bad, of_b]
    written = []
    both: tuple[Workers, Workers] = (IN_THIS_PROCESS, workers)
    for number, by in enumerate(both):
        workers.names.clear()
        at = by_the_run(home) if by is IN_THIS_PROCESS else home
        with LinesFile(tmp_path / f"{number}.jsonl") as file:
            quarantine = _Quarantine(file, RunContext(at, Heard(), workers=by))
            for input_file, table in zip(made.inputs, tables, strict=True):
                quarantine.add(input_file, table)
            quarantine.end()
        written.append((tmp_path / f"{number}.jsonl").read_bytes())
    assert written[0] == written[1]
    assert written[0].count(b"{no json") == 3
    assert sorted(workers.names) == [f"quarantine of {names[0]}", f"quarantine of {names[2]}"]
    assert copies(home.root) == []


def held(home: Home) -> Home:
    """The home as a worker sees it."""
    return home.sent().here()


def test_a_workers_copies_have_so_many_bytes_at_most_and_the_one_used_last_stays(
    home: Home, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x", "y", "z"):
        Objects(address).put(f"{name}.jsonl", LINES + name.encode())
    files = {one.name[-7]: one for one in remote_files(f"{address}/[xyz].jsonl")}
    monkeypatch.setattr(remote_inputs, "WORKERS_BYTES", 2 * len(LINES) + 10)
    there = held(home)
    for name in "xyx":
        copied(files[name], there)
    copied(files["z"], there)
    kept = [Path(path).read_bytes()[-1:] for path in map(str, (there.copies / "inputs").glob("*.jsonl"))]
    assert sorted(kept) == [b"x", b"z"]
    with copied_and_held(files["x"], there, lambda: None) as path:
        copied(files["y"], there)
        copied(files["z"], there)
        assert Path(path).read_bytes() == LINES + b"x"
    # The run's own copies are bounded by time alone.
    for name in "xyz":
        copied(files[name], home)
    assert len(copies(home.root)) == 3


def test_a_worker_looks_for_old_copies_at_its_first_job_and_at_no_other(
    home: Home, address: str, tmp_path: Path
) -> None:
    folder = tmp_path / "worker/copies/inputs"
    folder.mkdir(parents=True)

    def unused_for_long(name: str) -> Path:
        path = folder / name
        path.write_bytes(b"rows")
        os.utime(path, (0, 0))
        return path

    before = unused_for_long("before.jsonl")
    inventory_of(home, far(), f"{address}/a.jsonl")
    assert not before.exists()
    meanwhile = unused_for_long("meanwhile.jsonl")
    inventory_of(home, far(), address)
    assert meanwhile.exists()
    # Another process looks again.
    looks._sweep_once.cache_clear()
    inventory_of(home, far(), address, verify=True)
    assert not meanwhile.exists()


def test_a_copy_that_was_removed_to_make_room_is_made_again_for_who_needs_it(
    home: Home, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(remote_inputs, "WORKERS_BYTES", 0)
    workers = far()
    found = inventory_of(home, workers, address)
    made = convert(home, workers, found)
    other = by_the_run(home)
    assert (
        made.counts == convert(other, IN_THIS_PROCESS, inventory_of(other, IN_THIS_PROCESS, address)).counts
    )
    assert len(copies(tmp_path / "worker")) == 1
    (file,) = (one for one in made.inputs if one.path.endswith("a.jsonl"))
    with in_use(file, held(home)) as path:
        for other_file in remote_files(address):
            copied(other_file, held(home))
        assert Path(path).read_bytes() == LINES


@pytest.mark.parametrize("removed", ["before it is opened", "before it is held"])
def test_a_copy_that_is_removed_again_and_again_is_a_fault_to_who_looks_and_nothing_to_who_converts(
    home: Home, address: str, monkeypatch: pytest.MonkeyPatch, removed: str
) -> None:
    (listed,) = remote_files(f"{address}/a.jsonl")
    (file,) = inventory_of(home, IN_THIS_PROCESS, listed.address).files
    made: list[str] = []

    def removed_at_once(*given: Any, **more: Any) -> str:
        made.append(copied(*given, **more))
        if removed == "before it is opened":
            Path(made[-1]).unlink()
        return made[-1]

    def removed_meanwhile(file: io.BufferedReader, how: int) -> None:
        assert how == fcntl.LOCK_SH
        Path(file.name).unlink()

    monkeypatch.setattr(remote_inputs, "copied", removed_at_once)
    if removed == "before it is held":
        monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with (
        pytest.raises(
            InputFault,
            match=rf"^{listed.address}: other workers remove each copy before it is read; run again",
        ),
        copied_and_held(listed, held(home), lambda: None),
    ):
        pass
    assert len(made) == 3
    with in_use(file, held(home)) as path:
        assert path == made[0]
        assert not os.path.exists(path)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningDask]:
    with ExitStack() as stack:
        yield RunningDask(tmp_path, stack)


@pytest.mark.slow
def test_a_worker_that_may_not_read_the_bucket_says_which_machine_and_what_to_do(
    home: Home, address: str, running: RunningDask
) -> None:
    without = {name: value for name, value in os.environ.items() if not name.startswith("AWS_ACCESS")}
    running.worker("poor", environment=without)
    with (
        RunWorkers(ClusterOptions(scheduler_address=running.address)) as workers,
        pytest.raises(StoreFault) as refused,
    ):
        inventory_of(home, workers, f"{address}/a.jsonl")
    where = f"worker on {socket.gethostname()}: {address}/a.jsonl: cannot be read"
    assert str(refused.value).startswith(f"{where}: no credentials were found. Set AWS_PROFILE")
    assert copies(home.root) == []
