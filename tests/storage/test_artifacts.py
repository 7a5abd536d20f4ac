"""Files of stages are the same in a folder and in a bucket, whole or not there, and never read altered."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import polars as pl
import pytest
from converting import line
from job_doers import Backwards
from stages import Heard, take_inventory

from assay.core.errors import AssayError, StoreFault, StoreRefusal, UserMistake
from assay.export import RECORD_EXPORTS
from assay.export.contract import ToWrite
from assay.export.results import write_results
from assay.read import convert as converting
from assay.read.convert import CONVERT, ToConvert
from assay.report.measures import measured_turns
from assay.report.sample import _read as shown_records
from assay.select.decide import DECIDE, ToDecide
from assay.select.rules import Rules
from assay.storage import bucket_artifacts, piece_jobs, s3
from assay.storage.artifacts import are_intact, artifacts_of, check_artifacts, read_artifact
from assay.storage.home import Artifact, Home
from assay.storage.manifests import Converted, Filtered
from assay.storage.s3 import Objects
from assay.storage.stage import RunContext

FRAME = pl.DataFrame({"row": range(500), "text": [f"text {n % 7}" for n in range(500)]})


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Nothing was read or written yet, and again once this is called, as in another process."""

    def forget() -> None:
        monkeypatch.setattr(bucket_artifacts, "_RECENT", bucket_artifacts._Recent(1 << 20))

    forget()
    return forget


@pytest.fixture
def in_bucket(tmp_path: Path, bucket: str) -> Home:
    return Home(tmp_path / "home", bucket, f"{bucket}/stages")


@pytest.fixture
def in_folder(tmp_path: Path) -> Home:
    return Home(tmp_path / "folder")


@pytest.fixture(params=["in_folder", "in_bucket"])
def home(request: pytest.FixtureRequest) -> Home:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Home)
    return found


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def objects(home: Home) -> Objects:
    assert home.artifact_store is not None
    return Objects(home.artifact_store)


def names_in(home: Home) -> list[str]:
    return [one.name for one in objects(home).list_all("")]


def replace_content(home: Home, artifact: Artifact, change: Callable[[bytes], bytes]) -> None:
    """Change what lies there, as neither Assay nor the file's name knows."""
    if home.artifact_store is None:
        path = home.artifacts / artifact.path
        path.write_bytes(change(path.read_bytes()))
        return
    (name,) = (one for one in names_in(home) if artifact.digest in one)
    content = objects(home).read(name)
    assert content is not None
    objects(home).put(name, change(content.data))


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def test_a_table_is_read_as_it_was_written_and_has_the_same_bytes_in_both_places(
    in_folder: Home, in_bucket: Home
) -> None:
    kept = []
    for home in (in_folder, in_bucket):
        files = artifacts_of(home)
        files.begin("some/place")
        one = files.keep_table(FRAME, "some/place/0.parquet", compression_level=1, statistics=False)
        assert read_artifact(one, home, ["text"]).equals(FRAME.select("text"))
        assert pl.scan_parquet(files.to_scan(one), glob=False).slice(3, 2).collect().equals(FRAME.slice(3, 2))
        kept += [one, files.keep_table(FRAME, "some/place/1.parquet"), files.keep(b"data", "other/2.bin")]
        assert are_intact(kept[-3:], home)
    assert kept[:3] == kept[3:]
    assert not in_bucket.root.exists()


def test_an_intact_file_among_others_is_no_fault_and_the_first_that_is_lost_is_found(home: Home) -> None:
    files = artifacts_of(home)
    kept = [files.keep(f"data {n}".encode(), f"folder-{n % 3}/{n}.bin") for n in range(9)]
    assert files.first_altered(kept) is None
    assert files.first_altered([]) is None
    gone = Artifact("folder-1/99.bin", kept[0].digest, kept[0].size)
    assert files.first_altered([*kept[:5], gone, *kept[5:]]) == gone
    replace_content(home, kept[4], lambda data: data[:-1])
    assert files.first_altered([*kept, gone]) == kept[4]


@pytest.mark.parametrize("change", [flipped, lambda data: data[:-7], lambda data: b""])
def test_an_altered_file_is_never_read_and_is_made_again(
    home: Home, change: Callable[[bytes], bytes], forget: Callable[[], None]
) -> None:
    files = artifacts_of(home)
    one = files.keep_table(FRAME, "made/0.parquet")
    replace_content(home, one, change)
    forget()
    for _ in range(2):
        with pytest.raises(AssayError, match=r"made/0\..*: is gone or damaged .*Run again: it is made anew"):
            read_artifact(one, home, ["row"])
    # By now the next run sees it, and what it writes is read.
    assert files.first_altered([one]) == one
    assert files.keep_table(FRAME, "made/0.parquet") == one
    forget()
    assert read_artifact(one, home, ["row"]).equals(FRAME.select("row"))


def test_two_runs_that_write_one_path_do_not_take_each_others_file(
    in_bucket: Home, forget: Callable[[], None]
) -> None:
    files = artifacts_of(in_bucket)
    one, other = files.keep(b"of one", "score/0.bin"), files.keep(b"of the other", "score/0.bin")
    forget()
    assert (files.read(one), files.read(other)) == (b"of one", b"of the other")


def test_what_was_read_last_is_not_fetched_again_and_what_is_held_is_bounded(
    in_bucket: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = artifacts_of(in_bucket)
    kept = [files.keep(bytes([n]) * 40, f"made/{n}.bin") for n in range(4)]
    monkeypatch.setattr(bucket_artifacts, "_RECENT", recent := bucket_artifacts._Recent(100))
    fetched: list[str] = []
    real = Objects.read

    def read(self: Objects, name: str) -> object:
        fetched.append(name)
        return real(self, name)

    monkeypatch.setattr(Objects, "read", read)
    for one in (*kept[:2], kept[0], kept[2], kept[0], kept[1]):
        assert files.read(one) == bytes([kept.index(one)]) * 40
    assert [int(name.split("/")[1][0]) for name in fetched] == [0, 1, 2, 1]
    assert sum(map(len, recent._held.values())) == recent._size == 80
    files.keep(b"x" * 90, "made/new.bin")
    assert recent._size == 90
    files.read(files.keep(b"x" * 500, "made/large.bin"))
    assert recent._size == 0


def test_a_sealed_file_is_there_or_none(home: Home) -> None:
    files = artifacts_of(home)
    assert files.read_sealed("languages/one.json") is None
    files.keep_sealed(b"{}", "languages/one.json")
    assert files.read_sealed("languages/one.json") == b"{}"
    assert files.hold(["languages/one.json"])
    assert not files.hold(["languages/one.json", "languages/other.json"])


def test_what_workers_hand_over_is_taken_once_and_leaves_nothing(home: Home) -> None:
    files = artifacts_of(home)
    with files.handover() as folder:
        for number in range(3):
            with files.handing_over(f"{folder}/{number}") as file:
                file.write(b"lines %d" % number)
        with files.handed_over(f"{folder}/1") as file:
            assert file.read() == b"lines 1"
        with pytest.raises(FileNotFoundError), files.handed_over(f"{folder}/1"):
            pass
        # Of a job that was done twice, something is left.
    assert left(home) == []


def left(home: Home) -> list[str]:
    return names_in(home) if home.artifact_store else files_below(home.artifacts / "export")


def test_what_was_handed_to_a_killed_run_is_removed_and_that_of_others_stays(in_bucket: Home) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    files, host = artifacts_of(in_bucket), socket.gethostname()
    for owner in (f"{host}-{gone.pid}", f"{host}-{os.getpid()}", f"{host}x-{gone.pid}"):
        files.keep_sealed(b"", f"export/run-{owner}-x/0.additions")
    files.sweep_handover()
    assert names_in(in_bucket) == sorted(
        f"export/run-{owner}-x/0.additions" for owner in (f"{host}-{os.getpid()}", f"{host}x-{gone.pid}")
    )


def test_an_error_is_not_hidden_by_a_bucket_that_went_away(
    in_bucket: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreFault("away")

    def fail() -> None:
        with artifacts_of(in_bucket).handover():
            monkeypatch.setattr(Objects, "list_all", away)
            raise UserMistake("the cause")

    with pytest.raises(UserMistake, match="the cause"):
        fail()


def test_a_bucket_that_refuses_is_one_line_with_its_address(in_bucket: Home, tmp_path: Path) -> None:
    check_artifacts(Home(tmp_path))
    check_artifacts(in_bucket)
    nowhere = Home(tmp_path, in_bucket.score_store, "s3://no-such-bucket-here/stages")
    with pytest.raises(UserMistake, match=r"ASSAY_ARTIFACTS: s3://no-such-bucket-here/stages: cannot be lis"):
        check_artifacts(nowhere)
    with pytest.raises(StoreRefusal, match=r"s3://no-such-bucket-here/stages/a/0\..*\.bin: cannot be w"):
        artifacts_of(nowhere).keep(b"data", "a/0.bin")


def test_a_home_that_was_sent_is_the_workers_own_where_it_needs_no_folder_of_the_run(
    in_bucket: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "worker"))
    assert in_bucket.here() == in_bucket
    assert in_bucket.sent().here().root == tmp_path / "worker"
    shared = Home(tmp_path / "run", None, in_bucket.artifact_store)
    assert shared.sent().here().root == tmp_path / "run"
    monkeypatch.delenv("ASSAY_HOME")
    assert in_bucket.sent().here().root == in_bucket.root
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    sent = in_bucket.sent()
    monkeypatch.undo()
    monkeypatch.delenv("ASSAY_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert sent.here().root == tmp_path / "cache/assay"


@pytest.fixture
def address(in_bucket: Home, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where inputs of several shards lie, with some rows in quarantine. Workers do the smallest jobs."""
    monkeypatch.setattr(converting, "_WORTH_WORKERS_BYTES", 0)
    monkeypatch.setattr(piece_jobs, "_WORTH_WORKERS_RECORDS", 0)
    monkeypatch.setattr(piece_jobs, "_JOB_RECORDS", 1)
    assert in_bucket.score_store is not None
    place = f"{in_bucket.score_store}-inputs"
    for name in ("a", "b"):
        rows = [line(f"question {n} of {name}", f"answer {n}") for n in range(30)]
        Objects(place).put(f"{name}.jsonl", b"\n".join([*rows, b"{no json", b""]))
    return place


def converted_of(
    address: str, home: Home, workers: Backwards | None, heard: Heard | None = None
) -> Converted:
    inventory = take_inventory([address], shard_bytes=800, home=home)
    assert len(inventory.shards) > 4
    given = ToConvert(inventory, find_languages=True)
    return CONVERT.run(given, context_of(home, workers, heard))


def elsewhere(home: Home) -> Backwards:
    """A worker that sees no folder of the run, whose home it has under another name."""

    @contextmanager
    def away() -> Iterator[None]:
        hidden = home.root.with_name("hidden")
        home.root.rename(hidden)
        yield
        assert not home.root.exists()
        hidden.rename(home.root)

    return Backwards(there=away)


def contents(converted: Converted) -> list[tuple[str, str]]:
    """What the pieces hold, wherever they lie."""
    return [(piece.records.digest, piece.turns.digest) for piece in converted.pieces]


def context_of(home: Home, workers: Backwards | None, heard: Heard | None = None) -> RunContext:
    progress = heard or Heard()
    return RunContext(home, progress) if workers is None else RunContext(home, progress, workers=workers)


def results(
    converted: Converted, filtered: Filtered, home: Home, workers: Backwards | None, out: Path
) -> dict[str, bytes]:
    out.mkdir()
    wanted = ToWrite((RECORD_EXPORTS["messages"],))
    write_results(converted, None, filtered, wanted, context_of(home, workers), staging=out)
    return {name: (out / name).read_bytes() for name in files_below(out)}


def test_all_stages_make_the_same_by_workers_that_share_a_bucket_alone(
    in_folder: Home, in_bucket: Home, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = converted_of(address, in_folder, None)
    filtered = DECIDE.run(ToDecide(expected, None, Rules()), RunContext(in_folder))
    files = results(expected, filtered, in_folder, None, tmp_path / "out")
    with measured_turns(expected, None, filtered, context_of(in_folder, None)) as measures:
        rows = measures.turns.collect(), measures.records.collect()

    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "worker"))
    workers, heard = elsewhere(in_bucket), Heard()
    made = converted_of(address, in_bucket, workers, heard)
    workers.there = nullcontext
    assert contents(made) == contents(expected)
    assert (made.counts, made.lines) == (expected.counts, expected.lines)
    assert CONVERT.is_current(ToConvert(take_inventory([address], home=in_bucket)), made, in_bucket)
    assert heard.lines == []
    decided = DECIDE.run(ToDecide(made, None, Rules()), context_of(in_bucket, workers))
    assert [piece.decisions.digest for piece in decided.pieces] == [
        piece.decisions.digest for piece in filtered.pieces
    ]
    assert results(made, decided, in_bucket, workers, tmp_path / "out-of-bucket") == files
    with measured_turns(made, None, decided, context_of(in_bucket, workers)) as measures:
        assert measures.turns.collect().equals(rows[0])
        assert measures.records.collect().equals(rows[1])
    shown = shown_records(made, decided, 0, [1, 3], in_bucket)
    assert shown.equals(shown_records(expected, filtered, 0, [1, 3], in_folder))

    stages = {name.partition(" ")[0] for name in workers.names}
    assert stages == {"convert", "export", "report"}
    # The run's machine and the worker's hold copies of inputs, and nothing that a stage made.
    for root in (in_bucket.root, tmp_path / "worker"):
        assert {name.split("/")[0] for name in files_below(root)} <= {"copies"}
    assert files_below(tmp_path / "worker/copies/inputs")
    names = names_in(in_bucket)
    assert {name.split("/")[0] for name in names} == {"convert", "filter", "languages"}
    # All names are those of stages' files, so unused ones can be removed: see test_old_artifacts.py.
    assert [name for name in names if not bucket_artifacts._OURS.fullmatch(name)] == []
    # Another machine finds it all there.
    third, later = Home(tmp_path / "third", *in_bucket_addresses(in_bucket)), Backwards()
    assert converted_of(address, third, later) == made
    assert later.names == []


def in_bucket_addresses(home: Home) -> tuple[str | None, str | None]:
    return home.score_store, home.artifact_store


def test_a_piece_that_the_bucket_lost_is_converted_again(in_bucket: Home, address: str) -> None:
    made = converted_of(address, in_bucket, None)
    lost = made.pieces[2].records
    (name,) = (one for one in names_in(in_bucket) if lost.digest in one)
    objects(in_bucket).remove(name)
    assert not are_intact([piece.records for piece in made.pieces], in_bucket)
    workers, heard = Backwards(), Heard()
    assert converted_of(address, in_bucket, workers, heard) == made
    assert len(workers.names) == 1
    assert [said for said in heard.lines if f"/{lost.path} is gone or altered; converting it again" in said]


def test_an_input_that_a_worker_may_not_read_is_converted_by_the_run(
    in_folder: Home, in_bucket: Home, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = converted_of(address, in_folder, None)
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "worker"))
    inventory = take_inventory([address], shard_bytes=800, home=in_bucket)

    def refused(given: str) -> list[object]:
        assert not in_bucket.root.exists()
        raise UserMistake(f"{given}: cannot be listed (AccessDenied): they need s3:ListBucket")

    monkeypatch.setattr("assay.read.remote_inputs.remote_files", refused)
    heard = Heard()
    given = ToConvert(inventory, find_languages=True)
    made = CONVERT.run(given, context_of(in_bucket, elsewhere(in_bucket), heard))
    assert contents(made) == contents(expected)
    (said,) = heard.lines
    assert said.startswith(f"worker on {socket.gethostname()}: {address}/b.jsonl: cannot be listed (AccessDe")
    assert said.endswith("Let every machine reach the inputs; this machine converts what others cannot")


def test_a_disk_of_a_worker_that_fills_up_is_named_and_what_is_finished_stays(
    in_folder: Home, in_bucket: Home, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = converted_of(address, in_folder, None)
    inventory = take_inventory([address], shard_bytes=800, home=in_bucket)
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "worker"))
    given, real, calls = ToConvert(inventory, find_languages=True), s3.Objects.chunks, 0

    def chunks(*_: object, **how: str) -> Iterator[bytes]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield from real(*_, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(s3.Objects, "chunks", chunks)
    workers = elsewhere(in_bucket)
    hidden = in_bucket.root.with_name("hidden")
    with pytest.raises(AssayError, match=r"/worker/copies/inputs: No space left on device. Make room"):
        CONVERT.run(given, context_of(in_bucket, workers))
    hidden.rename(in_bucket.root)
    finished = [name for name in names_in(in_bucket) if name.endswith("manifest.json")]
    assert finished
    monkeypatch.setattr(s3.Objects, "chunks", real)
    later = elsewhere(in_bucket)
    assert contents(CONVERT.run(given, context_of(in_bucket, later))) == contents(expected)
    assert len(later.names) == len(inventory.shards) - len(finished)


def test_a_bucket_that_goes_away_ends_the_run_with_its_address_and_the_next_run_finishes(
    in_folder: Home, in_bucket: Home, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = converted_of(address, in_folder, None)
    inventory = take_inventory([address], shard_bytes=800, home=in_bucket)
    given = ToConvert(inventory, find_languages=True)

    def away(objects: Objects, name: str, data: bytes) -> str:
        if len(names_in(in_bucket)) > 8:
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
            s3._client.cache_clear()
        return put(objects, name, data)

    put = Objects.put
    monkeypatch.setattr(Objects, "put", away)
    with pytest.raises(
        StoreFault, match=rf"{in_bucket.artifact_store}/.*: cannot be written: Could not conn"
    ):
        CONVERT.run(given, context_of(in_bucket, Backwards()))
    monkeypatch.setattr(Objects, "put", put)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    s3._client.cache_clear()
    workers = Backwards()
    assert contents(CONVERT.run(given, context_of(in_bucket, workers))) == contents(expected)
    assert 0 < len(workers.names) < len(inventory.shards)


def test_a_copy_that_is_not_what_the_inventory_found_is_not_converted(
    in_folder: Home, in_bucket: Home, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = converted_of(address, in_folder, None)
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "worker"))
    inventory = take_inventory([address], shard_bytes=800, home=in_bucket)
    for file in inventory.files:
        copy = tmp_path / f"worker/copies/inputs/{file.digest}.jsonl"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(b"{}\n")
    heard = Heard()
    given = ToConvert(inventory, find_languages=True)
    made = CONVERT.run(given, context_of(in_bucket, elsewhere(in_bucket), heard))
    assert contents(made) == contents(expected)
    assert "is damaged; remove this copy of" in heard.lines[0]
