"""Whether an answer is a good one: as a person chose, else as a rule says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from handmade import Made, Record, Turn, make
from stages import decide

from assay.core.errors import UserMistake
from assay.export import RECORD_EXPORTS, wanted
from assay.export.contract import ToWrite
from assay.export.foreseen import warnings_of
from assay.export.results import write_results
from assay.select.rules import parse_rules
from assay.select.selection import Budget, Selection, parsed_target
from assay.select.vocabulary import Vocabulary
from assay.storage.home import Home
from assay.storage.run_manifest import Written
from assay.storage.stage import RunContext

RULE = "helpfulness >= 2"
ASKED = ("user", "Q")
SIDES = [json.dumps({"assay_side": side}) for side in ("chosen", "rejected")]


#: Chooses by rules alone.
ALL = Selection()


def answered(line: int, text: str, helpfulness: float, *, part: int = 0, rest: str | None = None) -> Record:
    return Record(line, (ASKED, ("assistant", text)), (Turn((helpfulness, 1.0)),), part=part, rest=rest)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    records = [
        answered(1, "good", 2.0),
        answered(2, "bad", 1.5),
        # A person thinks otherwise than the rule.
        answered(3, "chosen", 0.0, rest=SIDES[0]),
        answered(3, "rejected", 4.0, part=1, rest=SIDES[1]),
        Record(
            4,
            (ASKED, ("assistant", "good"), ASKED, ("assistant", "worse")),
            (Turn((4.0, 1.0)), Turn((0.0, 1.0))),
        ),
    ]
    home = Home(tmp_path / "home")
    return make(home, {"a.jsonl": [records[:1], records[1:]]}, ["helpfulness", "verbosity"])


def verdicts(
    made: Made, staging: Path, *keep: str, rule: str | None = RULE, selection: Selection = ALL
) -> tuple[dict[str, bool], Written]:
    """The label of each row of KTO's file, by the text of its answer."""
    rules = parse_rules(keep, attributes=made.scored.attributes)
    filtered = decide(made.converted, made.scored, rules=rules, home=made.home, selection=selection)
    desirable = None
    if rule is not None:
        by_rule = parse_rules([rule], attributes=made.scored.attributes)
        desirable = decide(
            made.converted, made.scored, rules=by_rule, home=made.home, selection=selection.of_verdicts
        )
    exports = ToWrite((RECORD_EXPORTS["trl-kto"],), has_rule=rule is not None)
    staging.mkdir()
    done = write_results(
        made.converted,
        made.scored,
        filtered,
        exports,
        RunContext(made.home),
        staging=staging,
        desirable=desirable,
    )
    return {row["completion"][0]["content"]: row["label"] for row in _rows(staging)}, done.exports["trl-kto"]


def _rows(staging: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (staging / "trl/kto.jsonl").read_bytes().splitlines()]


def test_a_rule_says_which_answers_are_good_where_no_person_chose(made: Made, tmp_path: Path) -> None:
    labels, written = verdicts(made, tmp_path / "out")
    assert labels == {"good": True, "bad": False, "chosen": True, "rejected": False, "worse": False}
    assert written.left_out == {}


def test_what_is_kept_is_another_question(made: Made, tmp_path: Path) -> None:
    labels, _ = verdicts(made, tmp_path / "out", "helpfulness < 2")
    assert labels == {"bad": False, "chosen": True, "worse": False}


def test_the_verdict_on_a_record_that_is_cut_is_that_on_its_last_answer_now(
    made: Made, tmp_path: Path
) -> None:
    cut = Selection(on_fail="truncate")
    labels, written = verdicts(
        made, tmp_path / "out", "helpfulness >= 1", rule="helpfulness >= 3", selection=cut
    )
    # Of the first line, and of the last one up to its first answer.
    assert labels == {"good": True, "bad": False, "rejected": False}
    assert [row["label"] for row in _rows(tmp_path / "out")] == [False, False, False, True]
    assert written.rows == 4


def test_a_record_that_is_cut_ends_with_another_answer_than_a_person_saw(tmp_path: Path) -> None:
    both = (ASKED, ("assistant", "first"), ASKED)
    records = [
        Record(1, (*both, ("assistant", side)), (Turn((4.0,)), Turn((score,))), part=part, rest=SIDES[part])
        for part, (side, score) in enumerate([("chosen", 4.0), ("rejected", 0.0)])
    ]
    made = make(Home(tmp_path / "home"), {"a.jsonl": [records]}, ["helpfulness"])
    cut = Selection(on_fail="truncate")
    labels, written = verdicts(made, tmp_path / "out", RULE, rule=None, selection=cut)
    assert labels == {"chosen": True}
    assert written.left_out == {"no_side": 1}


def test_a_verdict_does_not_depend_on_how_many_records_are_wanted(made: Made, tmp_path: Path) -> None:
    by = Vocabulary(made.scored.attributes, {}, {}).column("helpfulness")
    best = Selection(budget=Budget(parsed_target("50%"), by))
    # Two of five are kept, and the rule holds for both; half of those that it holds for are one.
    labels, _ = verdicts(made, tmp_path / "out", selection=best)
    assert labels == {"good": True, "rejected": False}


def test_without_a_rule_only_what_a_person_chose_or_rejected_is_written(made: Made, tmp_path: Path) -> None:
    labels, written = verdicts(made, tmp_path / "out", rule=None)
    assert labels == {"chosen": True, "rejected": False}
    assert written.left_out == {"no_side": 3}


def test_with_a_rule_verdicts_make_sense_of_data_that_nobody_chose_from(tmp_path: Path) -> None:
    unpaired = make(Home(tmp_path), {"a.jsonl": [[answered(1, "good", 2.0)]]}, ["helpfulness", "verbosity"])
    assert warnings_of(wanted(["trl-kto"], None, has_rule=True), unpaired.converted, unpaired.home) == []
    with pytest.raises(UserMistake, match="--desirable 'helpfulness >= 3'"):
        warnings_of(wanted(["trl-kto"], None), unpaired.converted, unpaired.home)
