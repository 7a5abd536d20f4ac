"""Each warning is given where it is due, with the right numbers, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay.report.aggregate import (
    LENGTH,
    TURN,
    Aggregated,
    Correlations,
    KeptAt,
    OfAttribute,
    OfGroups,
    OfSides,
    OfSource,
    Quantiles,
    ScoreBars,
)
from assay.report.overview import what_was_kept
from assay.report.warnings import warnings_of
from assay.storage.run_manifest import Rows, RunManifest, Turns, Written


def spread(count: int, middle: float) -> Quantiles:
    return Quantiles(count, (middle - 2, middle - 1, middle, middle + 1, middle + 2), middle)


def attribute(
    count: int = 100, *, least: tuple[float, int] = (0.0, 1), most: tuple[float, int] = (4.0, 1)
) -> OfAttribute:
    bars, kept_at = ScoreBars(0.0, 4.0, (1,), (1,)), KeptAt((0.0,), (1,), (1,))
    whole = spread(count, 2.0)
    return OfAttribute("helpfulness", whole, whole, bars, kept_at, (), least, most, (), (), (), None)


def correlations(with_length: float) -> Correlations:
    names = ("helpfulness", LENGTH, TURN)
    return Correlations(names, ((1.0, with_length, 0.0), (with_length, 1.0, 0.9), (0.0, 0.9, 1.0)), 100, 1)


FIGURES = Aggregated(
    judged=100,
    attributes=(attribute(),),
    ranked_by="helpfulness",
    sources=(OfSource("a.jsonl", 60, 30, 30, 0), OfSource("b.jsonl", 40, 20, 20, 0)),
    kept_lengths=spread(50, 100),
    dropped_lengths=spread(50, 90),
    correlations=correlations(0.2),
    groups=OfGroups("helpfulness", 40, 2, 1, 40, 22, spread(39, 1.0), (0.0, 2.0, (39,))),
    sides=OfSides("helpfulness", 40, 30, 0, 20),
    repeated=0,
)


def manifest(kept: int = 50, dropped: int = 50, quarantined: int = 0) -> RunManifest:
    return RunManifest(
        assay="0",
        versions={},
        complete=True,
        rows=Rows(kept + dropped + quarantined, kept, dropped, quarantined),
        dropped={"rule: helpfulness >= 2": dropped} if dropped else {},
        quarantined={"not_json": quarantined} if quarantined else {},
        lines=100,
        turns=Turns(100, 0, 0),
        failed={},
        model=None,
        inputs=(),
        files={},
        options={"keep": ["helpfulness >= 2"], "output": "out"},
        seconds={},
    )


def test_figures_that_are_in_order_give_no_warning() -> None:
    assert warnings_of(FIGURES, manifest()) == []


@pytest.mark.parametrize(
    ("figures", "run", "sentence"),
    [
        (
            {"kept_lengths": spread(50, 230), "dropped_lengths": spread(50, 100)},
            manifest(),
            "The kept answers are 2.3 times as long as the dropped ones (in the "
            "middle 230 and 100 characters).",
        ),
        (
            {"kept_lengths": spread(50, 100), "dropped_lengths": spread(50, 200)},
            manifest(),
            "The dropped answers are 2.0 times as long as the kept ones (in the "
            "middle 100 and 200 characters).",
        ),
        (
            {"sources": (OfSource("a.jsonl", 60, 40, 20, 0), OfSource("b.jsonl", 40, 10, 30, 0))},
            manifest(),
            "One source makes up 80% of what is kept, and 60% of what was read: a.jsonl.",
        ),
        (
            {"attributes": (attribute(most=(4.0, 12)),)},
            manifest(),
            "12% of the records have the maximum helpfulness (4): above it nothing can be told apart.",
        ),
        (
            {"attributes": (attribute(least=(2.0, 100), most=(2.0, 100)),)},
            manifest(),
            "All 100 records have the same helpfulness (2): it ranks nothing.",
        ),
        (
            {"groups": OfGroups("reward", 120, 0, 0, 100, 83, None, (0.0, 1.0, (1,)))},
            manifest(),
            "The model ranks the longer answer higher in 83% of 100 groups of "
            "answers to one prompt (reward).",
        ),
        (
            {"groups": OfGroups("reward", 120, 0, 0, 100, 20, None, (0.0, 1.0, (1,)))},
            manifest(),
            "The model ranks the shorter answer higher in 80% of 100 groups of "
            "answers to one prompt (reward).",
        ),
        (
            {"groups": OfGroups("reward", 120, 30, 0, 100, 50, None, (0.0, 1.0, (1,)))},
            manifest(),
            "In 25% of 120 groups the two best answers score alike: the best of them is chosen by chance.",
        ),
        (
            {"correlations": correlations(-0.6)},
            manifest(),
            "Scores follow the length of the answer (rank correlation: helpfulness -0.60).",
        ),
        (
            {"sides": OfSides("reward", 200, 104, 0, 90)},
            manifest(),
            "The model ranks the answer that a person chose higher in 52% of 200 "
            "pairs (reward): guessing gives 50%.",
        ),
        (
            {"kept_rejected": 24},
            replace(manifest(), exports={name: Written(f"{name}.jsonl") for name in ("openai", "trl-kto")}),
            "24 of the 50 kept records end on an answer that a person rejected, and openai.jsonl holds them "
            "as the others. --keep \"side == 'chosen'\" keeps what was chosen; a preference export holds "
            "pairs.",
        ),
        (
            {"repeated": 3},
            manifest(),
            "6% of the kept records repeat another one word for word (3).",
        ),
        (
            {},
            manifest(quarantined=10),
            "9% of the records are in quarantine, most for not_json (10): what is "
            "kept may lack a kind of record.",
        ),
        ({}, manifest(100, 0), "The rules keep all of the 100 records that have scores: they hardly choose."),
        (
            {},
            manifest(1, 99),
            "The rules keep 1 of the 100 records that have scores: look at each of them.",
        ),
        (
            {},
            manifest(0, 100),
            "Nothing is kept. The most frequent reason is rule: helpfulness >= 2: 100 of 100 records.",
        ),
    ],
)
def test_a_warning_has_its_numbers(figures: dict[str, object], run: RunManifest, sentence: str) -> None:
    assert warnings_of(replace(FIGURES, **figures), run) == [sentence]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "figures",
    [
        {"kept_lengths": spread(10, 900)},
        {"groups": OfGroups("reward", 19, 19, 0, 19, 19, None, (0.0, 1.0, (1,)))},
        {"sides": OfSides("reward", 19, 0, 0, 0)},
        {"kept_rejected": 50},
        {"attributes": (attribute(19, most=(4.0, 19)),)},
        {"sources": (OfSource("a.jsonl", 60, 50, 10, 0),)},
        {"groups": None, "sides": None, "correlations": None, "kept_lengths": None, "attributes": ()},
    ],
)
def test_few_records_are_no_reason_for_a_warning(figures: dict[str, object]) -> None:
    assert warnings_of(replace(FIGURES, **figures), manifest()) == []  # type: ignore[arg-type]


def test_what_chose_besides_the_rules_is_named() -> None:
    options = {"dedup": "near", "target": "20%", "decontaminate": ["sets/eval.jsonl"]}
    run = replace(manifest(), options={**manifest().options, **options})
    found = "Of these the run keeps what --decontaminate eval.jsonl and --dedup near and --target 20% leaves."
    assert found in list(what_was_kept(run))
    assert all("leaves." not in sentence for sentence in what_was_kept(manifest()))


def test_no_share_is_said_to_be_whole_that_is_not() -> None:
    sources = (OfSource("a.jsonl", 5000, 4999, 1, 0), OfSource("b.jsonl", 10, 1, 9, 0))
    (said,) = warnings_of(replace(FIGURES, sources=sources), manifest())
    assert said == (
        "One source makes up more than 99% of what is kept, and more than 99% of what was read: a.jsonl."
    )
