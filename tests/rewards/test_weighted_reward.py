"""A scalar made of attributes is a column like any other, and costs no scoring."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import fakes
import handmade
import numpy as np
import polars as pl
import pytest
import stages
from handmade import Record

from assay.config.resolve import models_of
from assay.config.settings import Settings
from assay.core.errors import UserMistake
from assay.export import check_exports
from assay.rewards.find import find_model
from assay.rewards.options import ModelOptions
from assay.rewards.scalar import parse_factors, weighted_scalar
from assay.score.scoring import SCORE, ToScore
from assay.select.rules import parse_rules
from assay.storage.home import Home
from assay.workers.cluster import ClusterOptions

WEIGHTS = {"helpfulness": 0.3, "verbosity": -0.33}


@pytest.mark.slow
def test_the_column_is_the_weighted_sum_and_other_weights_score_nothing_again(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    records = [Record(n + 1, (("user", f"question {n}"), ("assistant", f"answer {n}"))) for n in range(6)] + [
        Record(7, (("user", "what?"), ("assistant", fakes.UNSCORABLE)))
    ]
    converted = handmade.make(home, {"chat.jsonl": [records]}).converted
    plain = fakes.spec(tmp_path / "model")
    weighted = dataclasses.replace(plain, factors=tuple(WEIGHTS.items()))
    one = ClusterOptions(workers=1)
    first, work = stages.score(converted, plain, home=home, cluster=one)
    assert first.attributes == ("helpfulness", "verbosity")
    assert work.turns_scored == 6
    scored, work = stages.score(converted, weighted, home=home, cluster=one)
    assert work.turns_scored == 0
    assert scored.attributes == ("helpfulness", "verbosity", "weighted_reward")
    assert SCORE.digest(ToScore(converted, weighted)) != SCORE.digest(ToScore(converted, plain))
    frame = pl.read_parquet(home.artifacts / scored.pieces[0].scores.path)
    for row in frame.iter_rows(named=True):
        if row["reason"] is not None:
            assert row["weighted_reward"] is None
            continue
        values = (row["helpfulness"], row["verbosity"])
        expected = weighted_scalar(plain.attributes, values, WEIGHTS)
        assert row["weighted_reward"] == np.float32(expected)


def test_rules_may_put_a_threshold_on_it_and_exports_take_it() -> None:
    columns = ("helpfulness", "weighted_reward")
    assert parse_rules(["weighted_reward >= 2.5"], attributes=columns).rules
    check_exports(["steerlm", "messages"], columns)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["helpfulness"], "write an attribute and a number"),
        (["helpfulness=much"], "write an attribute and a number"),
        (["helpfulness=nan"], "write an attribute and a number"),
        (["=1"], "write an attribute and a number"),
        (["helpfulness=1", "helpfulness=2"], "helpfulness is given twice"),
    ],
)
def test_weights_that_are_none_are_refused(texts: list[str], words: str) -> None:
    with pytest.raises(UserMistake, match=words):
        parse_factors(texts)


def test_weights_are_read_by_name() -> None:
    assert parse_factors(["helpfulness=0.3", "verbosity=-.33"]) == WEIGHTS


def endpoints(tmp_path: Path, attributes: str) -> Settings:
    file = tmp_path / "endpoints.yaml"
    file.write_text(
        "nemotron:\n  kind: openai\n  url: http://127.0.0.1:9/v1\n"
        f"  model: nvidia/nemotron-4-340b-reward\n  attributes: [{attributes}]\n"
    )
    return Settings(endpoints_file=file)


def test_a_service_of_a_published_model_has_its_weights(tmp_path: Path) -> None:
    five = "helpfulness, correctness, coherence, complexity, verbosity"
    spec = find_model("nemotron", models_of(endpoints(tmp_path, five)))
    values = (1.6171875, 1.6484375, 3.3125, 0.546875, 0.515625)
    scalar = weighted_scalar(spec.attributes, values, dict(spec.factors))
    assert scalar == pytest.approx(3.315625, abs=1e-12)


def test_a_service_that_rates_fewer_has_none_of_them(tmp_path: Path) -> None:
    settings = endpoints(tmp_path, "helpfulness, correctness, coherence")
    assert find_model("nemotron", models_of(settings)).factors == ()
    with pytest.raises(UserMistake, match="given to verbosity"):
        find_model("nemotron", models_of(settings), ModelOptions(factors={"verbosity": 1.0}))
