"""The scores of several models side by side."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from handmade import Made, Record, Turn, make
from stages import decide

from assay.core.errors import AssayError
from assay.score.together import TOGETHER, ToPutTogether
from assay.select.rules import Rules
from assay.storage.home import Home
from assay.storage.manifests import Scored
from assay.storage.stage import RunContext

CHAT = (("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Bye"))


def made_by(home: Home, attributes: tuple[str, ...], *turns: Turn) -> Made:
    """One record of two turns, and one of one turn; each model's scores have a home of their own."""
    records = [Record(1, CHAT, turns[:2]), Record(2, CHAT[:2], turns[2:])]
    return make(home, {"a.jsonl": [records[:1], records[1:]]}, attributes)


@pytest.fixture
def both(tmp_path: Path) -> tuple[Made, Scored]:
    """The judge's made, and the scores of safety, which gives the second turn none."""
    home = Home(tmp_path / "home")
    safety = made_by(home, ("reward",), Turn((-1.0,)), Turn(None, "too_long: 900 tokens"), Turn((-3.0,)))
    judge = made_by(home, ("reward", "depth"), Turn((1.0, 4.0)), Turn((2.0, 5.0)), Turn((3.0, 6.0)))
    return judge, safety.scored


def together(made: Made, *others: Scored) -> Scored:
    names = ("judge", "safety", "third")
    scored = dict(zip(names, (made.scored, *others), strict=False))
    return TOGETHER.run(ToPutTogether(made.converted, scored), RunContext(made.home))


def test_columns_begin_with_the_models_names_and_one_fault_loses_nothing_of_the_other(
    both: tuple[Made, Scored],
) -> None:
    judge, safety = both
    made = together(judge, safety)
    assert made.attributes == ("judge.reward", "judge.depth", "safety.reward")
    assert made.failed == {"too_long": 1}
    frame = pl.concat([pl.read_parquet(judge.home.artifacts / piece.scores.path) for piece in made.pieces])
    assert frame["judge.reward"].to_list() == [1.0, 2.0, 3.0]
    assert frame["judge.depth"].to_list() == [4.0, 5.0, 6.0]
    assert frame["safety.reward"].to_list() == [-1.0, None, -3.0]
    assert frame["reason"].to_list() == [None, "too_long: safety: 900 tokens", None]
    assert {"judge.tokens", "safety.tokens"} < set(frame.columns)


def test_a_record_that_one_model_could_not_rate_is_quarantined_with_that_models_name(
    both: tuple[Made, Scored],
) -> None:
    judge, safety = both
    filtered = decide(judge.converted, together(judge, safety), rules=Rules(), home=judge.home)
    (first, second) = (
        pl.read_parquet(judge.home.artifacts / piece.decisions.path)["reason"].item()
        for piece in filtered.pieces
    )
    assert (first, second) == ("too_long: turn 1: safety: 900 tokens", None)


def test_what_is_put_together_depends_on_names_and_on_each_models_scores(both: tuple[Made, Scored]) -> None:
    judge, safety = both
    given = ToPutTogether(judge.converted, {"judge": judge.scored, "safety": safety})
    digests = {
        TOGETHER.digest(given),
        TOGETHER.digest(ToPutTogether(judge.converted, {"j": judge.scored, "safety": safety})),
        TOGETHER.digest(ToPutTogether(judge.converted, {"judge": safety, "safety": judge.scored})),
    }
    assert len(digests) == 3
    made = TOGETHER.run(given, RunContext(judge.home))
    assert TOGETHER.is_current(given, made, judge.home)
    (judge.home.artifacts / made.pieces[0].scores.path).write_bytes(b"")
    assert not TOGETHER.is_current(given, made, judge.home)


def test_scores_of_other_turns_are_refused(both: tuple[Made, Scored], tmp_path: Path) -> None:
    judge, _ = both
    records = [Record(1, CHAT[:2], (Turn((1.0,)),)), Record(2, CHAT, (Turn((1.0,)), Turn((1.0,))))]
    other = make(judge.home, {"b.jsonl": [records[:1], records[1:]]}, ("reward",))
    with pytest.raises(AssayError, match="not of the turns that the other models rated"):
        together(judge, other.scored)
