"""Whether an answer is a good one: as a person chose, else as a rule says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from handmade import Made, Record, Turn, make
from stages import decide

from assay.core.errors import UserMistake
from assay.export import RECORD_EXPORTS, wanted
from assay.export.contract import ToWrite
from assay.export.foreseen import warnings_of
from assay.export.results import write_results
from assay.select.rules import parse_rules
from assay.storage.home import Home
from assay.storage.run_manifest import Written

RULE = "helpfulness >= 2"
ASKED = ("user", "Q")
SIDES = [json.dumps({"assay_side": side}) for side in ("chosen", "rejected")]


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
    made: Made, staging: Path, *keep: str, rule: str | None = RULE
) -> tuple[dict[str, bool], Written]:
    """The label of each row of KTO's file, by the text of its answer."""
    rules = parse_rules(keep, attributes=made.scored.attributes)
    filtered = decide(made.converted, made.scored, rules=rules, home=made.home)
    desirable = None
    if rule is not None:
        by_rule = parse_rules([rule], attributes=made.scored.attributes)
        desirable = decide(made.converted, made.scored, rules=by_rule, home=made.home)
    exports = ToWrite((RECORD_EXPORTS["trl-kto"],), has_rule=rule is not None)
    staging.mkdir()
    done = write_results(
        made.converted, made.scored, filtered, exports, home=made.home, staging=staging, desirable=desirable
    )
    rows = [json.loads(line) for line in (staging / "trl/kto.jsonl").read_bytes().splitlines()]
    return {row["completion"][0]["content"]: row["label"] for row in rows}, done.exports["trl-kto"]


def test_a_rule_says_which_answers_are_good_where_no_person_chose(made: Made, tmp_path: Path) -> None:
    labels, written = verdicts(made, tmp_path / "out")
    assert labels == {"good": True, "bad": False, "chosen": True, "rejected": False, "worse": False}
    assert written.left_out == {}


def test_what_is_kept_is_another_question(made: Made, tmp_path: Path) -> None:
    labels, _ = verdicts(made, tmp_path / "out", "helpfulness < 2")
    assert labels == {"bad": False, "chosen": True, "worse": False}


def test_without_a_rule_only_what_a_person_chose_or_rejected_is_written(made: Made, tmp_path: Path) -> None:
    labels, written = verdicts(made, tmp_path / "out", rule=None)
    assert labels == {"chosen": True, "rejected": False}
    assert written.left_out == {"no_side": 3}


def test_with_a_rule_verdicts_make_sense_of_data_that_nobody_chose_from(tmp_path: Path) -> None:
    unpaired = make(Home(tmp_path), {"a.jsonl": [[answered(1, "good", 2.0)]]}, ["helpfulness", "verbosity"])
    assert warnings_of(wanted(["trl-kto"], None, has_rule=True), unpaired.converted, unpaired.home) == []
    with pytest.raises(UserMistake, match="--desirable 'helpfulness >= 3'"):
        warnings_of(wanted(["trl-kto"], None), unpaired.converted, unpaired.home)
