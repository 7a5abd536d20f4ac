"""The figures of the page are those that polars finds in the result files, however the run was cut."""

from __future__ import annotations

import json
import random
from html import escape, unescape
from pathlib import Path
from re import findall, sub

import polars as pl
import pytest
import run_made
from handmade import Record, Turn
from job_doers import Backwards
from polars.testing import assert_frame_equal
from run_made import Made, chats, in_pieces

from assay.report import aggregate, measures
from assay.report.aggregate import Aggregated, aggregated, thresholds_in
from assay.storage import piece_jobs
from assay.storage.stage import RunContext

KEEP = ["helpfulness >= 2", "verbosity < 3.5"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    failed = [Record(900 + n, turns=(Turn(None, "too_long: 9 tokens"),)) for n in range(3)]
    files = {"a.jsonl": in_pieces(chats(150)), "b.jsonl": in_pieces([*chats(90, 1), *failed])}
    return run_made.run(tmp_path_factory.mktemp("run"), files, KEEP)


def figures_of(made: Made) -> Aggregated:
    with measures.measured_turns(made.converted, made.scored, made.filtered, RunContext(made.home)) as found:
        return aggregated(found, KEEP)


@pytest.fixture(scope="module")
def figures(made: Made) -> Aggregated:
    return figures_of(made)


@pytest.mark.slow
def test_however_much_is_held_at_once_the_figures_are_the_same(
    made: Made, figures: Aggregated, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert figures.groups is not None
    assert figures.groups.prompts > 2
    for block, answers in ((1, 1), (7, 3), (50, 100)):
        monkeypatch.setattr(aggregate, "_BLOCK", block)
        monkeypatch.setattr(aggregate, "_ANSWERS_AT_ONCE", answers)
        assert rounded(figures_of(made)) == rounded(figures)


def rounded(figures: Aggregated) -> str:
    """The figures, whatever the order in which numbers were added up."""
    return sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.9g}", repr(figures))


def test_whoever_measures_in_whatever_order_makes_the_same_tables(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piece_jobs, "_WORTH_WORKERS_RECORDS", 0)
    monkeypatch.setattr(piece_jobs, "_JOB_RECORDS", 1)
    monkeypatch.setattr(measures, "LANGUAGES_OF", 30)
    workers = Backwards()
    tables = []
    for context in (RunContext(made.home), RunContext(made.home, workers=workers)):
        with measures.measured_turns(made.converted, made.scored, made.filtered, context) as found:
            tables.append([found.turns.collect(), found.records.collect()])
    assert len(workers.names) == len(made.converted.pieces) > 3
    for alone, by_workers in zip(*tables, strict=True):
        assert_frame_equal(alone, by_workers)
    assert tables[0][0]["language"].drop_nulls().len() > 20


def test_quantiles_bars_and_ends_are_those_of_the_result_files(made: Made, figures: Aggregated) -> None:
    scores, judged = made.scores(), made.judged()
    assert figures.judged == judged.height > 200
    for one in figures.attributes:
        of_turns, of_judged = (
            scores[one.name].drop_nulls().cast(pl.Float64),
            judged[one.name].cast(pl.Float64),
        )
        for found, expected in ((one.turns, of_turns), (one.judged, of_judged)):
            assert found.count == expected.len()
            assert found.mean == pytest.approx(expected.mean())
            wanted = [expected.quantile(share, "linear") for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
            assert found.at == pytest.approx(wanted)
        for outcome, counts in (("kept", one.bars.kept), ("dropped", one.bars.dropped)):
            of_outcome = judged.filter(pl.col("outcome") == outcome)[one.name]
            assert sum(counts) == of_outcome.len()
            step = (one.bars.high - one.bars.low) / len(counts)
            third = of_outcome.is_between(one.bars.low + 3 * step, one.bars.low + 4 * step, closed="left")
            assert counts[3] == third.sum()
        assert one.most == (of_judged.max(), (of_judged == of_judged.max()).sum())
        assert one.least == (of_judged.min(), (of_judged == of_judged.min()).sum())


def test_what_another_cut_would_keep_is_counted_at_every_threshold(made: Made, figures: Aggregated) -> None:
    judged = made.judged()
    for one in figures.attributes:
        assert len(one.kept_at.thresholds) > 20
        counts = zip(one.kept_at.thresholds, one.kept_at.at_least, one.kept_at.above, strict=True)
        for at, at_least, above in counts:
            limit = pl.lit(at, pl.Float32)
            assert at_least == judged.select((pl.col(one.name) >= limit).sum()).item(), (one.name, at)
            assert above == judged.select((pl.col(one.name) > limit).sum()).item(), (one.name, at)
    helpfulness, verbosity = figures.attributes
    assert [(cut.operator, cut.at) for cut in helpfulness.cuts] == [(">=", 2.0)]
    assert helpfulness.cuts[0].passing == (judged["helpfulness"] >= 2).sum()
    assert verbosity.cuts[0].passing == (judged["verbosity"] < 3.5).sum()
    # With both rules, the kept records are those that pass both.
    both = judged.filter(pl.col("helpfulness") >= 2, pl.col("verbosity") < 3.5).height
    assert made.manifest.rows.kept == both < helpfulness.cuts[0].passing


def test_spreads_by_source_and_by_turn_are_of_all_turns(made: Made, figures: Aggregated) -> None:
    scores = made.scores().drop_nulls("helpfulness")
    (helpfulness, _) = figures.attributes
    assert [name for name, _ in helpfulness.by_source] == ["a.jsonl", "b.jsonl"]
    for name, spread in helpfulness.by_source:
        of_source = scores.filter(pl.col("file") == name)["helpfulness"].cast(pl.Float64)
        assert spread.count == of_source.len()
        assert spread.at[2] == pytest.approx(of_source.median())
    assert [name for name, _ in helpfulness.by_turn] == ["turn 0", "turn 1", "turn 2", "turn 3"]
    for number, (_, spread) in enumerate(helpfulness.by_turn):
        of_turn = scores.filter(pl.col("turn") == number)["helpfulness"].cast(pl.Float64)
        assert spread.count == of_turn.len()
        assert spread.at[2] == pytest.approx(of_turn.median())


def answers_of(made: Made) -> pl.DataFrame:
    """Every turn with the length of its answer, as ``messages.jsonl`` has it; of kept records."""
    rows = []
    for line in (made.folder / "messages.jsonl").read_text().splitlines():
        record = json.loads(line)
        said = [one["content"] for one in record["messages"] if one["role"] == "assistant"]
        source = record["source"]
        rows += [
            (source["file"], source["line"], source["part"], turn, len(text))
            for turn, text in enumerate(said)
        ]
    schema = {"file": pl.String, "line": pl.UInt64, "part": pl.UInt32, "turn": pl.UInt32, "length": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


@pytest.mark.slow
def test_correlations_are_those_of_spearman_with_length_and_turn_too(tmp_path: Path) -> None:
    made = run_made.run(tmp_path, {"a.jsonl": in_pieces(chats(120))})
    found = figures_of(made).correlations
    assert found is not None
    turns = made.scores().join(answers_of(made), on=["file", "line", "part", "turn"])
    assert found.turns == turns.height
    columns = ["helpfulness", "verbosity", "length", "turn"]
    assert found.names == ("helpfulness", "verbosity", aggregate.LENGTH, aggregate.TURN)
    for one, row in zip(columns, found.values, strict=True):
        for other, value in zip(columns, row, strict=True):
            assert value == pytest.approx(
                turns.select(pl.corr(one, other, method="spearman")).item(), abs=1e-6
            )


def test_of_too_many_turns_every_second_is_ranked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run_made.run(tmp_path, {"a.jsonl": in_pieces(chats(60))})
    turns = made.scores().height
    monkeypatch.setattr(aggregate, "RANKED_AT_MOST", turns // 2 + 1)
    found = figures_of(made).correlations
    assert found is not None
    assert (found.every, found.turns) == (2, (turns + 1) // 2)


def test_groups_ties_and_the_longer_answer_are_worked_out_by_hand(tmp_path: Path) -> None:
    def answer(line: int, prompt: str, text: str, score: float) -> Record:
        return Record(line, (("user", prompt), ("assistant", text)), (Turn((score, 0.0)),))

    records = [
        # The longer one wins, by 2.
        answer(1, "p", "a long answer", 3.0),
        answer(2, "p", "short", 1.0),
        # The shorter one wins, by 1; the best two tie.
        answer(3, "q", "no", 2.0),
        answer(4, "q", "yes", 2.0),
        answer(5, "q", "a long answer", 1.0),
        # All alike.
        answer(6, "r", "one", 1.0),
        answer(7, "r", "three", 1.0),
        # The same answer twice is one answer, and so no group.
        answer(8, "s", "same", 1.0),
        answer(9, "s", "same", 1.0),
        # Of one length.
        answer(10, "t", "abc", 4.0),
        answer(11, "t", "xyz", 1.5),
    ]
    groups = figures_of(run_made.run(tmp_path, {"a": [records[:5], records[5:]]})).groups
    assert groups is not None
    assert (groups.prompts, groups.ties, groups.level) == (4, 2, 1)
    assert (groups.lengths_differ, groups.longer_wins) == (2, 1)
    assert groups.margins is not None
    assert groups.margins.count == 3
    assert groups.margins.at[2] == 2.0
    assert groups.margins.mean == pytest.approx((2.0 + 1.0 + 2.5) / 3)
    assert sum(groups.margin_bars[2]) == 3


def test_pairs_of_people_are_counted_by_line(tmp_path: Path) -> None:
    def side(line: int, part: int, side: str, text: str, score: float) -> Record:
        rest = json.dumps({"assay_side": side})
        said = (("user", f"p{line}"), ("assistant", text))
        return Record(line, said, (Turn((score, 0.0)),), part=part, rest=rest)

    records = [
        *(side(1, 0, "chosen", "long text", 2.0), side(1, 1, "rejected", "text", 1.0)),
        *(side(2, 0, "chosen", "t", 0.5), side(2, 1, "rejected", "longer", 1.0)),
        *(side(3, 0, "chosen", "longest", 1.0), side(3, 1, "rejected", "text", 1.0)),
        # A side alone is no pair.
        side(4, 0, "chosen", "text", 1.0),
        Record(5, (("user", "p5"), ("assistant", "x")), (Turn((1.0, 0.0)),), rest='{"x": "assay_side"}'),
    ]
    sides = figures_of(run_made.run(tmp_path, {"a": [records]})).sides
    assert sides is not None
    assert (sides.lines, sides.agree, sides.ties, sides.longer_chosen) == (3, 1, 1, 2)


@pytest.mark.slow
def test_sources_repeats_and_lengths_are_those_of_the_result_files(tmp_path: Path) -> None:
    records = chats(80)
    again = [Record(200 + n, one.messages, one.turns) for n, one in enumerate(records[:7])]
    bad = Record(300, None, outcome="quarantined", reason="not_json: x")
    made = run_made.run(tmp_path, {"a.jsonl": [records], "b.jsonl": [[*again, bad]]}, ["helpfulness >= 2"])
    found = figures_of(made)
    decisions = pl.read_parquet(made.folder / "decisions.parquet")
    for source in found.sources:
        of_source = decisions.filter(pl.col("file") == source.name)
        assert source.read == of_source.height
        assert source.kept == (of_source["outcome"] == "kept").sum()
        assert source.quarantined == (of_source["outcome"] == "quarantined").sum()
        assert source.quarantined == (of_source["outcome"] == "quarantined").sum()
        assert source.dropped == (of_source["outcome"] == "dropped").sum()
    kept = made.judged().filter(pl.col("outcome") == "kept")
    assert found.repeated == kept.filter(pl.col("file") == "b.jsonl").height
    last = answers_of(made).unique(["file", "line", "part"], keep="last")
    assert found.kept_lengths is not None
    assert found.kept_lengths.at[2] == last["length"].median()


@pytest.mark.slow
def test_languages_are_found_of_a_bounded_number_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    english = "The quick brown fox jumps over the lazy dog, and nobody knows why it does."
    german = "Der schnelle braune Fuchs springt über den faulen Hund, und niemand weiß, warum."
    texts = [english, german] * 10
    records = [
        Record(n, (("user", f"q{n}"), ("assistant", text)), (Turn((3.0 if text is german else 1.0, 1.0)),))
        for n, text in enumerate(texts, start=1)
    ]
    made = run_made.run(tmp_path, {"a": [records]})
    (helpfulness, verbosity) = figures_of(made).attributes
    assert {name: spread.count for name, spread in helpfulness.by_language} == {"de": 10, "en": 10}
    assert helpfulness.language_explains == pytest.approx(1.0)
    assert verbosity.language_explains is None
    monkeypatch.setattr(measures, "LANGUAGES_OF", 4)
    (helpfulness, _) = figures_of(made).attributes
    assert sum(spread.count for _, spread in helpfulness.by_language) <= 4


def test_languages_that_mean_nothing_explain_nothing() -> None:
    drawn = random.Random(1)
    scores = [drawn.random() for _ in range(400)]
    # Groups of two: without the adjustment, chance explains about a half.
    answers = pl.DataFrame({"x": scores, "language": [f"l{number // 2}" for number in range(400)]})
    found = aggregate._explained(answers, "x")
    assert found is not None
    assert found < 0.2


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("helpfulness >= 2", [("helpfulness", ">=", 2.0)]),
        ("2.5<helpfulness", [("helpfulness", ">", 2.5)]),
        ("1 <= helpfulness <= 3", [("helpfulness", ">=", 1.0)]),
        (
            "not (toxicity > -1e-2 and judge.quality < .5)",
            [("toxicity", ">", -0.01), ("judge.quality", "<", 0.5)],
        ),
        ("not other_language", []),
        ("rank(reward) <= 2 and all(helpfulness >= max(1, 2))", []),
        ("helpfulness == 2", []),
    ],
)
def test_cuts_are_found_in_rules(rule: str, expected: list[tuple[str, str, float]]) -> None:
    assert thresholds_in(rule) == expected


def test_the_page_says_what_was_computed(made: Made, figures: Aggregated) -> None:
    """What stands in the page is read back from it, and held against the result files."""
    text = made.page
    judged = made.judged()
    about = json.loads(unescape(findall(r'data-cut="([^"]*)"', text)[0]))
    for at, count in zip(about["thresholds"], about["reaching"], strict=True):
        assert count == judged.select((pl.col("helpfulness") >= pl.lit(at, pl.Float32)).sum()).item()
    assert about["whole"] == judged.height
    rows = made.manifest.rows
    assert f"<title>out: {rows.kept:,} of {rows.read:,} records kept</title>" in text
    median = float(judged.select(pl.col("helpfulness").cast(pl.Float64).median()).item())
    assert f'<td class="n">{median:.3f}</td>' in text
    for reason, count in made.manifest.dropped.items():
        assert f'– {escape(str(reason))}</td><td class="n">{count:,}</td>' in text
