"""What pieces add to result files is the same whoever makes it, and stands in the order of the pieces."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from handmade import HELPSTEER, Made, Record, Turn, make
from job_doers import Backwards, Deadly
from stages import decide

from assay.core.errors import AssayError, ClusterFault
from assay.core.jobs import IN_THIS_PROCESS, Workers
from assay.core.schema import MessageFields, message_with
from assay.export import PAIR_EXPORTS, RECORD_EXPORTS, Exported, additions
from assay.export.contract import ToWrite
from assay.export.results import write_results
from assay.export.splits import Split, SplitByGroup
from assay.select.kinds import OnFail
from assay.select.rules import Rules, parse_rules
from assay.select.selection import Selection
from assay.storage import piece_jobs
from assay.storage.home import Home
from assay.storage.manifests import Filtered
from assay.storage.stage import RunContext

ALL = ToWrite(tuple(RECORD_EXPORTS.values()))
LINES = ToWrite(tuple(one for name, one in RECORD_EXPORTS.items() if not one.file.endswith(".parquet")))


@pytest.fixture(autouse=True)
def _few_are_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_jobs, "_WORTH_WORKERS_RECORDS", 0)
    monkeypatch.setattr(piece_jobs, "_JOB_RECORDS", 1)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Seven pieces of two files; some records are in quarantine, some messages have names."""
    monkeypatch.chdir(tmp_path)
    number = iter(range(1, 1000))

    def record(line: int) -> Record:
        n = next(number)
        score = n % 9 / 2
        if n % 11 == 5:
            return Record(line, None, outcome="quarantined", reason="not_json: no", offset=0, length=1)
        asked = message_with("user", f"question {n % 7}", MessageFields(name="Ann" if n % 5 else None))
        said = (asked, ("assistant", f"answer {n}"), ("user", "more"), ("assistant", f"more {n}"))
        turns = (Turn((score, 1.0, 2.0, 3.0, 4.0)), Turn((4 - score, 1.0, 2.0, 3.0, 4.0)))
        return Record(line, said, turns, rest=f'{{"id":{n}}}' if n % 2 else None)

    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text("x\n")
    pieces = {
        name: [[record(10 * p + line) for line in range(1, 9)] for p in range(count)]
        for name, count in (("a.jsonl", 4), ("b.jsonl", 3))
    }
    return make(Home(tmp_path / "home"), pieces, attributes=HELPSTEER)


def decided(made: Made, on_fail: OnFail = "drop") -> Filtered:
    rules = parse_rules(["helpfulness >= 1"], attributes=HELPSTEER)
    selection = Selection(on_fail=on_fail)
    return decide(made.converted, made.scored, rules=rules, home=made.home, selection=selection)


def write(
    made: Made, filtered: Filtered, wanted: ToWrite, workers: Workers, folder: Path
) -> tuple[Exported, dict[str, bytes]]:
    folder.mkdir()
    context = RunContext(made.home, workers=workers)
    exported = write_results(made.converted, made.scored, filtered, wanted, context, staging=folder)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return exported, files


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "on_fail", "jobs"),
    [
        (ALL, "drop", 7),
        (ALL, "mask", 7),
        (ALL, "truncate", 7),
        (ALL._replace(split=Split((("val", 0.3),), 3)), "drop", 7),
        (ALL._replace(split=SplitByGroup((("val", 0.3),), 3, group="row.id")), "drop", 7),
        (LINES._replace(shard_bytes=700), "drop", 7),
        (ToWrite(), "drop", 7),
        # Where a table is cut depends on how it lies in memory.
        (ALL._replace(shard_bytes=700), "drop", 0),
    ],
    ids=["all", "mask", "truncate", "split", "split by group", "numbered", "none", "numbered tables"],
)
def test_whoever_makes_the_rows_the_files_are_the_same(
    made: Made, tmp_path: Path, wanted: ToWrite, on_fail: OnFail, jobs: int
) -> None:
    filtered, workers = decided(made, on_fail), Backwards()
    alone = write(made, filtered, wanted, IN_THIS_PROCESS, tmp_path / "alone")
    assert write(made, filtered, wanted, workers, tmp_path / "by-workers") == alone
    assert len(workers.names) == jobs
    assert list((made.home.artifacts / "export").glob("*")) == []


def test_pairs_which_are_of_several_pieces_are_made_by_the_run(tmp_path: Path) -> None:
    answers = [Record(n, (("user", "?"), ("assistant", f"{n}")), (Turn((n / 2,)),)) for n in (1, 2)]
    made = make(Home(tmp_path / "home"), {"a.jsonl": [[one] for one in answers]}, attributes=("reward",))
    filtered = decide(made.converted, made.scored, rules=Rules(), home=made.home)
    workers = Backwards()
    wanted = ToWrite((RECORD_EXPORTS["messages"],), (PAIR_EXPORTS["trl-preference"],))
    _, files = write(made, filtered, wanted, workers, tmp_path / "out")
    assert (files["trl/preference.jsonl"].count(b"\n"), workers.names) == (1, [])


@pytest.mark.slow
def test_small_pieces_are_one_job(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_jobs, "_JOB_RECORDS", 20)
    workers = Backwards()
    by_workers = write(made, decided(made), ALL, workers, tmp_path / "by-workers")
    assert len(workers.names) == 3
    assert by_workers == write(made, decided(made), ALL, IN_THIS_PROCESS, tmp_path / "alone")


@pytest.mark.slow
def test_few_records_are_written_without_workers(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for least, asked in ((56, True), (57, False)):
        monkeypatch.setattr(piece_jobs, "_WORTH_WORKERS_RECORDS", least)
        workers = Backwards()
        write(made, decided(made), ALL, workers, tmp_path / str(least))
        assert bool(workers.names) == asked


@pytest.mark.slow
def test_what_workers_of_a_killed_run_left_is_removed_by_the_next(made: Made, tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = made.home.artifacts / "export" / f"assay-run-{socket.gethostname()}-{gone.pid}-x"
    left.mkdir(parents=True)
    write(made, decided(made), ToWrite(), IN_THIS_PROCESS, tmp_path / "out")
    assert not left.exists()


@pytest.mark.slow
def test_what_only_its_worker_sees_is_one_line(made: Made, tmp_path: Path) -> None:
    def lost(result: additions.AdditionsMade) -> additions.AdditionsMade:
        (made.home.artifacts / result.file.path).unlink()
        return result

    with pytest.raises(AssayError, match=r"worker on .* which this machine does not find.* ASSAY_HOME"):
        write(made, decided(made), ALL, Backwards(changed=lost), tmp_path / "out")


def test_pieces_that_kill_every_worker_are_named(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ClusterFault, match=r"export a\.jsonl, job 0: every worker .*--workers N"):
        write(made, decided(made), ALL, Deadly(), tmp_path / "out")
