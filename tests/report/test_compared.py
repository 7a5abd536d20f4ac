"""What is new, gone, newly kept and newly dropped since another run, and by what change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import run_made
from handmade import Record, Turn

from assay.report import compared as module
from assay.report.build import Before
from assay.report.compared import DATA, MODEL, OTHER, RULE, Since, since


def records(scores: Sequence[float], *, first: int = 1) -> list[Record]:
    return [
        Record(n, (("user", f"q{n}"), ("assistant", f"a{n}")), (Turn((score, 1.0)),))
        for n, score in enumerate(scores, start=first)
    ]


def compared(before: run_made.Made, now: run_made.Made) -> Since:
    return since(before.folder, now.folder, now.manifest, where="before")


def moved(found: Since) -> dict[str, tuple[int, dict[str, int]]]:
    return {one.outcome: (one.records, dict(one.by_cause)) for one in found.moved}


@pytest.mark.slow
def test_another_rule_moves_records(tmp_path: Path) -> None:
    files = {"a.jsonl": [records([1, 2, 3, 4])]}
    before = run_made.run(tmp_path, files, ["helpfulness >= 2"], name="before")
    now = run_made.run(tmp_path, files, ["helpfulness >= 3"], name="now")
    found = compared(before, now)
    assert (found.new, found.gone, found.is_the_same) == (0, 0, False)
    assert (found.kept_before, found.kept_now) == (3, 2)
    assert moved(found) == {"dropped": (1, {RULE: 1})}
    assert found.moved[0].places == (("a.jsonl", 2, "rule: helpfulness >= 3"),)
    assert found.changes == ("rules: helpfulness >= 2 → helpfulness >= 3",)
    back = compared(now, before)
    assert moved(back) == {"kept": (1, {RULE: 1})}
    assert back.moved[0].places == (("a.jsonl", 2, "rule: helpfulness >= 3"),)


@pytest.mark.slow
def test_another_model_moves_records_by_a_rule_that_stayed(tmp_path: Path) -> None:
    rules = ["helpfulness >= 2"]
    before = run_made.run(tmp_path, {"a.jsonl": [records([1, 2, 3])]}, rules, name="before")
    now = run_made.run(tmp_path, {"a.jsonl": [records([3, 2, 1])]}, rules, name="now", fingerprint="e" * 32)
    found = compared(before, now)
    assert moved(found) == {"kept": (1, {MODEL: 1}), "dropped": (1, {MODEL: 1})}
    assert found.changes == ("model: judge is read in another way, or holds other weights",)


def test_rule_and_model_are_told_apart_where_both_changed(tmp_path: Path) -> None:
    before = run_made.run(tmp_path, {"a.jsonl": [records([3, 3, 3])]}, ["helpfulness >= 2"], name="before")
    changed = [
        Record(1, (("user", "q1"), ("assistant", "a1")), (Turn((1.0, 1.0)),)),
        Record(2, (("user", "q2"), ("assistant", "a2")), (Turn((3.0, 4.0)),)),
        Record(3, (("user", "q3"), ("assistant", "a3")), (Turn((3.0, 1.0)),)),
    ]
    rules = ["helpfulness >= 2", "verbosity < 2"]
    now = run_made.run(tmp_path, {"a.jsonl": [changed]}, rules, name="now", fingerprint="e" * 32)
    assert moved(compared(before, now)) == {"dropped": (2, {MODEL: 1, RULE: 1})}


@pytest.mark.slow
def test_files_that_come_go_and_change_are_data(tmp_path: Path) -> None:
    rules = ["helpfulness >= 2"]
    (tmp_path / "a.jsonl").write_text("one")
    before = run_made.run(
        tmp_path, {"a.jsonl": [records([1, 2, 3])], "gone.jsonl": [records([3])]}, rules, name="before"
    )
    (tmp_path / "a.jsonl").write_text("two")
    now = run_made.run(
        tmp_path, {"a.jsonl": [records([2, 2, 1, 1])], "new.jsonl": [records([1, 3])]}, rules, name="now"
    )
    found = compared(before, now)
    assert (found.new, found.gone) == (3, 1)
    assert moved(found) == {"kept": (1, {DATA: 1}), "dropped": (1, {DATA: 1})}
    assert found.changes == ("input files: 1 new, 1 gone, 1 changed",)


@pytest.mark.slow
def test_however_many_are_held_at_once_the_comparison_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run_made.run(
        tmp_path,
        {"a.jsonl": [records([n % 5 for n in range(60)])], "b.jsonl": [records([3] * 9)]},
        ["helpfulness >= 2", "verbosity >= 1"],
        name="before",
    )
    now = run_made.run(
        tmp_path,
        {"a.jsonl": [records([n % 4 for n in range(50)])], "c.jsonl": [records([3] * 7)]},
        ["helpfulness >= 3"],
        name="now",
        fingerprint="e" * 32,
    )
    at_once = compared(before, now)
    assert len(at_once.moved) == 2
    assert (at_once.new, at_once.gone) == (7, 19)
    for rows in (1, 7, 20):
        monkeypatch.setattr(module, "_RECORDS_AT_ONCE", rows)
        assert compared(before, now) == at_once


@pytest.mark.slow
def test_the_same_run_again_is_the_same(tmp_path: Path) -> None:
    files = {"a.jsonl": [records([1, 2, 3])]}
    before = run_made.run(tmp_path, files, ["helpfulness >= 2"], name="before")
    now = run_made.run(
        tmp_path, files, ["helpfulness >= 2"], name="now", before=Before(before.folder, "runs/before")
    )
    assert compared(before, now).is_the_same
    assert compared(before, now).changes == ()
    assert "Compared with the run before" in now.page
    assert "No record's outcome is another one." in now.page
    assert "<code>runs/before</code>" in now.page


@pytest.mark.slow
def test_what_only_a_version_can_explain_says_so(tmp_path: Path) -> None:
    before = run_made.run(tmp_path, {"a.jsonl": [records([3])]}, ["helpfulness >= 2"], name="before")
    now = run_made.run(tmp_path, {"a.jsonl": [records([1])]}, ["helpfulness >= 2"], name="now")
    assert moved(compared(before, now)) == {"dropped": (1, {OTHER: 1})}


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["no manifest", "altered manifest", "no decisions", "broken decisions"])
def test_a_folder_that_cannot_be_compared_is_named_with_the_reason(tmp_path: Path, harm: str) -> None:
    files = {"a.jsonl": [records([1, 2, 3])]}
    before = run_made.run(tmp_path, files, name="before")
    manifest, decisions = before.folder / "manifest.json", before.folder / "decisions.parquet"
    if harm == "no manifest":
        manifest.unlink()
    elif harm == "altered manifest":
        manifest.write_bytes(manifest.read_bytes().replace(b'"complete": true', b'"complete": false'))
    elif harm == "no decisions":
        decisions.unlink()
    else:
        decisions.write_bytes(b"PAR1" + b"x" * 40)
    now = run_made.run(tmp_path, files, name="now", before=Before(before.folder, "before"))
    assert now.said == []
    assert compared(before, now).why_not
    assert "They cannot be compared: " in now.page
