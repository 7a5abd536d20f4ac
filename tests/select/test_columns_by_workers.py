"""Columns that workers compute give the decisions that one process gives, in the order of the pieces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from handmade import HELPSTEER, Made, Record, Turn, make
from job_doers import Backwards, Deadly
from measuring import words
from worker_runs import few_are_worth_it

from assay.core.errors import AssayError, ClusterFault
from assay.core.jobs import IN_THIS_PROCESS, Workers
from assay.select.decide import DECIDE, ToDecide
from assay.select.of_pieces import _FramesMade
from assay.select.rules import parse_rules
from assay.select.selection import Selection, parse_selection
from assay.storage import piece_jobs
from assay.storage.home import Home
from assay.storage.manifests import Filtered
from assay.storage.stage import RunContext

PIECES = {"a.jsonl": 4, "b.jsonl": 3}
RECORDS = 6


@pytest.fixture(autouse=True)
def _few_are_much(monkeypatch: pytest.MonkeyPatch) -> None:
    few_are_worth_it(monkeypatch.setattr)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Seven pieces of two files: answers of several lengths, some without a score, some in quarantine."""
    number = iter(range(1, 1000))

    def record(line: int) -> Record:
        n = next(number)
        if n % 11 == 5:
            return Record(line, None, outcome="quarantined", reason="not_json: no", offset=0, length=1)
        said = (
            ("user", f"question {n % 5}"),
            ("assistant", "well, " * (n % 4) + f"answer {n}"),
            ("user", "more"),
            ("assistant", f"more of {n}" * (n % 3)),
        )
        first = Turn(None, "not_finite: nan") if n % 13 == 7 else Turn((n % 9 / 2, 1.0, 2.0, 3.0, 4.0))
        turns = (first, Turn((4 - n % 9 / 2, 1.0, 2.0, 3.0, 4.0), given={"quality": n % 4}))
        return Record(line, said, turns, rest=json.dumps({"id": n, "set": "ab"[n % 2]}) if n % 4 else None)

    pieces = {
        name: [[record(10 * piece + line) for line in range(1, 1 + RECORDS)] for piece in range(count)]
        for name, count in PIECES.items()
    }
    return make(Home(tmp_path / "home"), pieces)


def decided(
    made: Made, rules: list[str], workers: Workers, selection: Selection | None = None
) -> tuple[Filtered, list[bytes]]:
    """The decisions, and the bytes of their files."""
    given = ToDecide(
        made.converted,
        made.scored,
        parse_rules(rules, attributes=HELPSTEER, allow_cross_prompt=True),
        selection or Selection(),
    )
    filtered = DECIDE.run(given, RunContext(made.home, workers=workers))
    files = [file for one in filtered.pieces for file in (one.decisions, one.turns, one.order)]
    return filtered, [(made.home.artifacts / file.path).read_bytes() for file in files if file is not None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "selection", "jobs"),
    [
        (["answer_chars > 9"], Selection(), 7),
        (["answer_chars > 9", "row.set == 'a'"], Selection(on_fail="mask"), 7),
        (["min(prompt_chars) > 10", "all(answer_chars > 3)"], Selection(on_fail="truncate"), 7),
        (["rank(answer_chars) <= 2", "percentile(answer_chars) >= 20"], Selection(), 7),
        (
            ["row.id is missing or row.id > 4"],
            parse_selection(words(), target="10", by="row.id", allow_cross_prompt=True),
            7,
        ),
        (["language is missing or language != 'xx'"], Selection(), 7),
        (["given.quality >= 1", "row.nothing is missing"], Selection(), 7),
        # These read no text, so handing their frames over would take longer than computing them.
        (["helpfulness >= 1", "turns > 1"], Selection(), 0),
        ([], Selection(), 0),
    ],
    ids=["texts", "mask", "truncate", "groups", "budget", "language", "fields", "scores alone", "no rule"],
)
def test_whoever_computes_the_columns_the_decisions_are_the_same(
    made: Made, rules: list[str], selection: Selection, jobs: int
) -> None:
    workers = Backwards()
    alone = decided(made, rules, IN_THIS_PROCESS, selection)
    assert decided(made, rules, workers, selection) == alone
    assert len(workers.names) == jobs
    assert alone[0].counts.read == RECORDS * sum(PIECES.values())
    assert list((made.home.artifacts / "export").glob("*")) == []


@pytest.mark.slow
def test_small_pieces_are_one_job_of_columns(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_jobs, "_JOB_RECORDS", 15)
    workers = Backwards()
    by_workers = decided(made, ["answer_chars > 9"], workers)
    assert len(workers.names) == 3
    assert by_workers == decided(made, ["answer_chars > 9"], IN_THIS_PROCESS)


@pytest.mark.parametrize(
    ("rule", "least", "asked"),
    [
        ("answer_chars > 9", 10, True),
        ("answer_chars > 9", 11, False),
        ("language == 'en'", 42, True),
        ("language == 'en'", 43, False),
    ],
)
def test_columns_of_few_records_are_computed_without_workers(
    made: Made, monkeypatch: pytest.MonkeyPatch, rule: str, least: int, asked: bool
) -> None:
    """There are 42 records. A rule on texts is a quarter of an export's work; one on languages is as much."""
    monkeypatch.setattr(piece_jobs, "_WORTH_WORKERS_RECORDS", least)
    workers = Backwards()
    decided(made, [rule], workers)
    assert bool(workers.names) == asked


def test_columns_that_only_their_worker_sees_are_one_line(made: Made) -> None:
    def lost(result: _FramesMade) -> _FramesMade:
        (made.home.artifacts / result.file.path).unlink()
        return result

    with pytest.raises(AssayError, match=r"worker on .* which this machine does not find.* ASSAY_HOME"):
        decided(made, ["answer_chars > 9"], Backwards(changed=lost))


def test_columns_that_are_cut_short_are_no_columns(made: Made) -> None:
    def cut(result: _FramesMade) -> _FramesMade:
        path = made.home.artifacts / result.file.path
        path.write_bytes(path.read_bytes()[:-1])
        return result

    with pytest.raises(AssayError, match=r"is cut short or altered\. Run again: it is made anew"):
        decided(made, ["answer_chars > 9"], Backwards(changed=cut))


def test_columns_that_kill_every_worker_are_named(made: Made) -> None:
    with pytest.raises(ClusterFault, match=r"filter a\.jsonl, job 0: every worker .*--workers N"):
        decided(made, ["answer_chars > 9"], Deadly())
