"""What each function comes to: the numbers of docs/rules.md, and a plain Python loop on generated data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from statistics import fmean, pstdev
from typing import NamedTuple, assert_never, get_args

import pytest
from handmade import HELPSTEER, Made, Record, Turn, make
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from measuring import notes, outcomes, values, values_of_turns, words

from assay.rewards.local_spec import local_spec
from assay.rewards.tokenizer import load
from assay.select.columns import Json, field
from assay.select.expressions import InGroupName, OverTurns, OverTurnsName, ValueKind
from assay.select.frames import Dataset, ToMeasure
from assay.select.measure import measured
from assay.select.rules import parse_rules
from assay.select.sides import both_sides_kept
from assay.select.token_counts import place_of
from assay.storage.home import Home

NAN = float("nan")
Value = float | str | bool | None
PLAIN = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def turn(helpfulness: float, given: Mapping[str, float] | None = None) -> Turn:
    return Turn((helpfulness, 3.0, 3.0, 1.0, 1.0), given=given)


def said(*contents: str) -> tuple[tuple[str, str], ...]:
    return tuple((("user", "assistant")[number % 2], content) for number, content in enumerate(contents))


def record(
    line: int,
    *contents: str,
    scores: Sequence[float],
    given: Iterable[Mapping[str, float] | None] = repeat(None),
    rest: Mapping[str, Json] | None = None,
    part: int = 0,
) -> Record:
    return Record(
        line,
        said(*contents),
        tuple(map(turn, scores, given)),
        part,
        rest=None if rest is None else json.dumps(rest),
    )


class Row(NamedTuple):
    """A drawn record: what it says, its turns' scores, its fields, and the record."""

    contents: list[str]
    scores: list[float]
    rest: Mapping[str, Json]
    record: Record


@pytest.fixture
def answers(home: Home) -> Made:
    """Four answers to one prompt, with 3, 3, 2 and 0, and one to another."""
    four = [record(n, "Why?", f"answer {n}", scores=[x]) for n, x in enumerate([3.0, 3.0, 2.0, 0.0], 1)]
    other = record(2, "How?", "So.", scores=[1.5])
    return make(home, {"a.jsonl": [four[:1], four[1:3]], "b.jsonl": [[four[3], other]]})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rank(helpfulness)", [1, 1, 3, 4, 1]),
        ("margin(helpfulness)", [0, 0, -1, -3, None]),
        ("gap(helpfulness)", [0, 0, 1, 3, 0]),
        ("centred(helpfulness)", [1, 1, 0, -2, 0]),
        # The deviation of 3, 3, 2, 0 from their mean 2 is the root of (1 + 1 + 0 + 4) / 4.
        ("zscore(helpfulness)", [1 / math.sqrt(1.5), 1 / math.sqrt(1.5), 0, -2 / math.sqrt(1.5), None]),
        # Of 0, 1.5, 2, 3, 3: below 2 are two, and it equals itself, so 100 * 2.5 / 5.
        ("percentile(helpfulness)", [80, 80, 50, 10, 30]),
        ("percentile(helpfulness, by=source)", [200 / 3, 200 / 3, 100 / 6, 25, 75]),
        ("group_size", [4, 4, 4, 4, 1]),
    ],
)
def test_answers_to_one_prompt_are_compared_across_files_as_the_table_says(
    answers: Made, text: str, expected: list[float | None]
) -> None:
    assert alike(values(answers, text), expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("helpfulness", 2.0),
        ("last(helpfulness)", 2.0),
        ("first(helpfulness)", 1.0),
        ("min(helpfulness)", 1.0),
        ("max(helpfulness)", 4.0),
        ("mean(helpfulness)", 7 / 3),
        ("turns", 3),
        ("messages", 6),
        ("answer_chars", 5),
        ("prompt_chars", 10),
        ("max(answer_chars)", 5),
        ("row.votes", 7),
        ("row.meta.depth", 2),
        ("given.quality", None),
    ],
)
def test_a_records_turns_come_to_one_value_as_the_table_says(
    home: Home, text: str, expected: float | str | None
) -> None:
    row = record(
        1,
        "a",
        "bb",
        "c",
        "ddd",
        "eee",
        "fffff",
        scores=[1.0, 4.0, 2.0],
        rest={"votes": 7, "meta": {"depth": 2}},
    )
    assert alike(values(make(home, {"a.jsonl": [[row]]}), text), [expected])


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("all(helpfulness >= 1)", True),
        ("all(helpfulness >= 2)", False),
        ("any(helpfulness >= 4)", True),
        ("any(helpfulness > 4)", False),
        ("all(helpfulness >= 1 and turns == 3)", True),
        ("any(helpfulness > 3 and mean(helpfulness) > 3)", False),
        ("row.lang == 'en'", True),
        ("row.lang in ('de', 'en')", True),
        ("row.lang not in ('de', 'fr')", True),
        ("row.lang == 3", None),
        ("row.lang is missing", False),
        ("row.nothing is missing", True),
        ("row.nothing == 'x'", None),
        ("not row.nothing == 'x'", None),
        ("row.nothing == 'x' or helpfulness > 1", True),
        ("row.checked", True),
        ("not row.checked", False),
        ("row.lang", None),
        ("source == 'a.jsonl'", True),
        ("side == 'chosen'", True),
        ("starts_with_assistant", False),
        ("alternates", True),
        ("language == 'en'", True),
        ("first(language) is missing", True),
        ("given.quality is missing", True),
    ],
)
def test_a_rule_holds_does_not_hold_or_is_left_open(home: Home, text: str, holds: bool | None) -> None:
    rest: dict[str, Json] = {"lang": "en", "checked": True, "assay_side": "chosen"}
    english = "This is an answer in plain English, and long enough to be recognised."
    row = record(1, "a", "b", "c", "d", "e", english, scores=[1.0, 4.0, 2.0], rest=rest)
    assert outcomes(make(home, {"a.jsonl": [[row]]}), text) == [holds]


@pytest.mark.parametrize(
    ("roles", "starts", "alternates"),
    [
        (("user", "assistant"), False, True),
        (("system", "assistant", "user", "assistant"), True, True),
        (("user", "user", "assistant"), False, False),
        (("user", "assistant", "assistant"), False, False),
        (("user", "assistant", "tool", "assistant"), False, True),
    ],
)
def test_how_a_record_begins_and_whether_it_alternates(
    home: Home, roles: tuple[str, ...], starts: bool, alternates: bool
) -> None:
    messages = tuple((role, "x") for role in roles)
    made = make(home, {"a.jsonl": [[Record(1, messages, (turn(1.0),) * roles.count("assistant"))]]})
    assert outcomes(made, "starts_with_assistant") == [starts]
    assert outcomes(made, "alternates") == [alternates]


@pytest.mark.slow
def test_tokens_of_an_answer_are_what_the_models_tokenizer_makes_of_its_text(home: Home) -> None:
    tokenizer = place_of(local_spec("starter"))
    assert tokenizer is not None
    row = record(1, "Hello there!", "One two, three.", "And now?", "x", scores=[1.0, 1.0])
    made = make(home, {"a.jsonl": [[row]]})
    value = words().column("answer_tokens")
    wanted = ToMeasure((value, OverTurns("first", value)), tokenizers={"answer_tokens": tokenizer})
    with measured(Dataset(made.converted, made.scored, wanted, home)) as found:
        (frames,) = found.frames
    loaded = load(tokenizer.folder, whose="starter")
    expected = [len(loaded.encode(text, add_special_tokens=False)) for text in ("x", "One two, three.")]
    assert frames.records.select("answer_tokens", "first(answer_tokens)").row(0) == tuple(expected)
    assert values(made, "answer_tokens") == [None]


def test_what_people_gave_a_turn_is_the_turns(home: Home) -> None:
    rated = record(
        1,
        "a",
        "b",
        "c",
        "d",
        scores=[1.0, 1.0],
        given=[{"quality": 3, "toxicity": 0.25}, {"quality": 1, "my.scale": 7}],
    )
    rows = [record(2, "e", "f", scores=[1.0]), record(3, "g", "h", scores=[NAN]), rated]
    made = make(home, {"a.jsonl": [rows]})
    assert values(made, "given.quality") == [None, 1.0]
    assert values(made, "max(given.quality)") == [None, 3.0]
    assert values(made, "first(given.toxicity)") == [None, 0.25]
    assert values(made, "given.toxicity") == [None, None]
    assert values(made, "given.my.scale") == [None, 7.0]


def test_a_number_that_people_gave_no_turn_is_reported_with_those_that_they_gave(home: Home) -> None:
    rated = make(home, {"a.jsonl": [[record(1, "a", "b", scores=[1.0], given=[{"quality": 3}])]]})
    assert notes(rated, "given.qualty > 1") == (
        "no record of 1 has `given.qualty`; turns have given.quality: did you mean given.quality?",
    )
    bare = make(home, {"b.jsonl": [[record(1, "a", "b", scores=[1.0])]]})
    assert notes(bare, "given.quality > 1") == (
        "no record of 1 has `given.quality`; people gave no turn a number",
    )


def test_an_answer_in_the_middle_is_one_member_however_many_paths_go_on_from_it(home: Home) -> None:
    """Three answers to P: one ends a record, one goes on in two records, one in one."""
    made = make(
        home,
        {
            "a.jsonl": [
                [
                    record(1, "P", "ends", scores=[2.0]),
                    record(2, "P", "goes on", "x", "y", scores=[3.0, 1.0]),
                    record(3, "P", "goes on", "x", "z", scores=[3.0, 2.0]),
                    record(4, "P", "other", "x", "y", scores=[1.0, 0.0]),
                ]
            ]
        },
    )
    assert values_of_turns(made, "rank(helpfulness)") == [[2], [1, 2], [1, 1], [3, 1]]
    assert values_of_turns(made, "margin(helpfulness)") == [[-1], [1, -1], [1, 1], [-2, None]]
    assert values_of_turns(made, "group_size") == [[3], [3, 2], [3, 2], [3, 1]]
    assert values(made, "min(rank(helpfulness))") == [2, 1, 1, 1]


def test_a_record_that_ends_where_another_goes_on_counts_once(home: Home) -> None:
    made = make(
        home,
        {
            "a.jsonl": [
                [
                    record(1, "P", "same", scores=[2.0]),
                    record(2, "P", "same", "x", "y", scores=[2.0, 1.0]),
                    record(3, "P", "worse", scores=[1.0]),
                ]
            ]
        },
    )
    assert values_of_turns(made, "rank(helpfulness)") == [[1], [1, 1], [2]]
    assert values(made, "group_size") == [2, 1, 2]


def test_a_group_may_be_named_by_a_field(home: Home) -> None:
    rows = [
        record(n, f"prompt {n}", "a", scores=[x], rest=None if key is None else {"prompt_id": key})
        for n, (x, key) in enumerate([(1.0, "p"), (2.0, "p"), (3.0, "q"), (4.0, None), (5.0, 7)], 1)
    ]
    made = make(home, {"a.jsonl": [rows]})
    group = field("row.prompt_id", ValueKind.ANY).column
    assert values(made, "rank(helpfulness)", group) == [2, 1, 1, None, 1]
    assert values(made, "group_size", group) == [2, 2, 1, None, 1]


def test_a_quarantined_record_is_in_no_group_and_no_percentile(home: Home) -> None:
    rows = [
        record(1, "P", "a", scores=[1.0]),
        record(2, "P", "b", scores=[NAN]),
        record(3, "P", "c", scores=[2.0]),
    ]
    made = make(home, {"a.jsonl": [rows]})
    assert values(made, "rank(helpfulness)") == [2, 1]
    assert values(made, "percentile(helpfulness)") == [25, 75]


def test_what_compares_nothing_is_reported(home: Home) -> None:
    alone = make(home, {"a.jsonl": [[record(1, "P", "a", scores=[1.0], rest={"lang": "en", "id": 1})]]})
    assert notes(alone, "margin(helpfulness) > 0") == (
        "`margin(helpfulness)` compares nothing: every group has one member",
    )
    assert notes(alone, "percentile(helpfulness) > 50") == (
        "`percentile(helpfulness)` says little of so few: 1 value",
    )
    assert notes(alone, "row.lnag == 'en'") == (
        "no record of 1 has `row.lnag` that is a string; rows have lang, id: did you mean row.lang?",
    )
    assert notes(alone, "row.lang == 'en' and helpfulness > 3") == ()


def preference(line: int, scores: Sequence[float], sides: Sequence[str | None]) -> list[Record]:
    return [
        record(
            line,
            "P",
            f"{line} {n}",
            scores=[score],
            part=n,
            rest=None if side is None else {"assay_side": side},
        )
        for n, (score, side) in enumerate(zip(scores, sides, strict=True))
    ]


def test_what_a_person_chose_is_compared_with_what_was_rejected_also_across_pieces(home: Home) -> None:
    """3 over 1, 1 over 2, a tie, two chosen and two rejected, and a row that is no preference."""
    rows = [
        *preference(1, [3.0, 1.0], ["chosen", "rejected"]),
        *preference(2, [1.0, 2.0], ["chosen", "rejected"]),
        *preference(3, [2.0, 2.0], ["chosen", "rejected"]),
        *preference(4, [3.0, 2.5, 1.0, 2.0], ["chosen", "chosen", "rejected", "rejected"]),
        *preference(5, [2.0], [None]),
        *preference(6, [2.0, NAN], ["chosen", "rejected"]),
    ]
    made = make(home, {"a.jsonl": [rows[:3], rows[3:7], rows[7:]], "b.jsonl": [rows[:1]]})
    margins = [2, 2, -1, -1, 0, 0, 0.5, 0.5, 0.5, 0.5, None, None, None]
    agreed = [True, True, False, False, False, False, True, True, True, True, None, None, None]
    assert alike(values(made, "given_margin"), margins)
    assert outcomes(made, "agrees") == agreed
    assert outcomes(made, "agrees or given_margin > -0.2")[:6] == [True, True, False, False, True, True]
    assert outcomes(made, "side == 'chosen' and agrees")[:2] == [True, False]
    assert notes(made, "agrees") == ()


def test_what_was_rejected_and_is_kept_is_warned_of_unless_a_rule_tells_sides_apart() -> None:
    def said(*rules: str, formats: Sequence[str] = ("preference", "messages")) -> str | None:
        order = words().column("helpfulness")
        return both_sides_kept(formats, parse_rules(rules, attributes=HELPSTEER, order=order))

    assert "side == 'chosen'" in (said() or "")
    assert said("helpfulness > 2")
    assert said(formats=("messages",)) is None
    for rule in ("side == 'chosen'", "not agrees", "rank(helpfulness) == 1 or turns > 3"):
        assert said(rule) is None


def test_where_nothing_came_as_a_preference_that_is_said(home: Home) -> None:
    made = make(home, {"a.jsonl": [preference(1, [2.0], [None])]})
    assert notes(made, "agrees") == ("no record came as chosen or rejected, so `agrees` is missing in all",)


numbers = st.sampled_from([0.0, -0.0, 0.10000000149011612, 1.0, 1.5, 2.0, 3.0]) | st.floats(-5, 5, width=32)


@st.composite
def datasets(draw: st.DrawFn) -> list[list[Row]]:
    """Pieces of records whose prompts and answers often coincide; scores depend on the conversation alone."""
    table = draw(st.lists(numbers, min_size=1, max_size=7))
    pieces: list[list[Row]] = []
    line = 0
    for _ in range(draw(st.integers(1, 3))):
        rows: list[Row] = []
        for _ in range(draw(st.integers(0, 6))):
            line += 1
            contents: list[str] = []
            for _ in range(draw(st.integers(1, 2))):
                contents += [draw(st.sampled_from("pq")), draw(st.sampled_from("abc"))]
            ends = range(2, len(contents) + 1, 2)
            scores = [table[sum(map(ord, "".join(contents[:end]))) % len(table)] for end in ends]
            if draw(st.integers(0, 9)) == 0:
                scores[0] = NAN
            votes = draw(st.sampled_from([None, 1, 2.5, 2.5, "many", True, 1e308, -3]))
            rest: dict[str, Json] = {"votes": votes, "lang": draw(st.sampled_from(["en", "de", None]))}
            rows.append(Row(contents, scores, rest, record(line, *contents, scores=scores, rest=rest)))
        pieces.append(rows)
    return pieces


def scored(pieces: list[list[Row]]) -> list[Row]:
    return [row for rows in pieces for row in rows if not any(map(math.isnan, row.scores))]


def members(rows: Sequence[Row], prompt: Sequence[str]) -> list[float]:
    """The values of the answers to a prompt: those that end records, and each other one once."""
    ends = {tuple(contents) for contents, *_ in rows}
    found = [scores[-1] for contents, scores, *_ in rows if contents[:-1] == prompt]
    inner = {
        tuple(contents[: 2 * n + 2]): scores[n]
        for contents, scores, *_ in rows
        for n in range(len(scores) - 1)
        if contents[: 2 * n + 1] == prompt
    }
    return found + [value for answer, value in inner.items() if answer not in ends]


def compared(function: InGroupName, value: float | None, others: Sequence[float]) -> float | None:
    """The function of a value that is one of the ``others``; plainly."""
    if value is None:
        return None
    rest = list(others)
    rest.remove(value)
    match function:
        case "rank":
            return 1 + sum(other > value for other in others)
        case "margin":
            return value - max(rest) if rest else None
        case "gap":
            return max(others) - value
        case "centred":
            return value - fmean(others)
        case "zscore":
            return (value - fmean(others)) / pstdev(others) if len(set(others)) > 1 else None
        case _:
            assert_never(function)


def alike(found: Sequence[Value], expected: Sequence[Value]) -> bool:
    return len(found) == len(expected) and all(
        (one is None) == (other is None) and (one is None or one == pytest.approx(other, rel=2e-6, abs=2e-6))
        for one, other in zip(found, expected, strict=True)
    )


FUNCTIONS: tuple[InGroupName, ...] = get_args(InGroupName)
#: Those whose values are exact.
EXACT: tuple[InGroupName, ...] = ("rank", "margin", "gap")


@pytest.mark.slow
@PLAIN
@given(pieces=datasets(), function=st.sampled_from(FUNCTIONS))
def test_group_functions_agree_with_a_plain_loop(
    tmp_path: Path, pieces: list[list[Row]], function: InGroupName
) -> None:
    made = make(Home(tmp_path / "home"), {"a.jsonl": [[row.record for row in rows] for rows in pieces]})
    rows = scored(pieces)
    expected = [
        [compared(function, value, members(rows, contents[: 2 * n + 1])) for n, value in enumerate(scores)]
        for contents, scores, *_ in rows
    ]
    found = values_of_turns(made, f"{function}(helpfulness)")
    assert alike([*chain(*found)], [*chain(*expected)])
    assert alike(values(made, f"{function}(helpfulness)"), [one[-1] for one in expected])


def votes_of(rest: Mapping[str, Json]) -> float | None:
    votes = rest["votes"]
    return float(votes) if isinstance(votes, int | float) and not isinstance(votes, bool) else None


@pytest.mark.slow
@PLAIN
@given(pieces=datasets(), function=st.sampled_from(EXACT))
def test_group_functions_of_a_field_leave_out_rows_without_a_number(
    tmp_path: Path, pieces: list[list[Row]], function: InGroupName
) -> None:
    made = make(Home(tmp_path / "home"), {"a.jsonl": [[row.record for row in rows] for rows in pieces]})
    rows = scored(pieces)
    expected: list[float | None] = []
    for contents, _, rest, _ in rows:
        same = [votes_of(other.rest) for other in rows if other.contents[:-1] == contents[:-1]]
        others = [vote for vote in same if vote is not None]
        expected.append(compared(function, votes_of(rest), others))
    assert alike(values(made, f"{function}(row.votes)"), expected)


@pytest.mark.slow
@PLAIN
@given(
    rows=st.lists(
        st.lists(st.tuples(numbers, st.sampled_from(["chosen", "rejected", None])), min_size=1, max_size=3),
        max_size=4,
    ),
    cut=st.integers(0, 8),
)
def test_margins_of_given_pairs_agree_with_a_plain_loop(
    tmp_path: Path, rows: list[list[tuple[float, str | None]]], cut: int
) -> None:
    records = [one for line, row in enumerate(rows, 1) for one in preference(line, *zip(*row, strict=True))]
    made = make(Home(tmp_path / "home"), {"a.jsonl": [records[:cut], records[cut:]]})
    expected: list[float | None] = []
    for row in rows:
        chosen = [score for score, side in row if side == "chosen"]
        rejected = [score for score, side in row if side == "rejected"]
        margin = min(chosen) - max(rejected) if chosen and rejected else None
        expected += [margin] * len(row)
    assert alike(values(made, "given_margin"), expected)
    assert outcomes(made, "agrees") == [None if one is None else one > 0 for one in expected]


@pytest.mark.slow
@PLAIN
@given(pieces=datasets(), by=st.booleans())
def test_percentiles_agree_with_a_plain_loop(tmp_path: Path, pieces: list[list[Row]], by: bool) -> None:
    made = make(Home(tmp_path / "home"), {"a.jsonl": [[row.record for row in rows] for rows in pieces]})
    rows = scored(pieces)
    expected: list[float | None] = []
    for _, scores, rest, _ in rows:
        part = [other.scores[-1] for other in rows if not by or other.rest["lang"] == rest["lang"]]
        below, equal = (sum(one < scores[-1] for one in part), part.count(scores[-1]))
        share = 100 * (below + equal / 2) / len(part)
        expected.append(None if by and rest["lang"] is None else share)
    text = "percentile(helpfulness, by=row.lang)" if by else "percentile(helpfulness)"
    assert alike(values(made, text), expected)


@pytest.mark.slow
@PLAIN
@given(pieces=datasets(), function=st.sampled_from(["first", "last", "min", "max", "mean"]))
def test_functions_over_turns_agree_with_a_plain_loop(
    tmp_path: Path, pieces: list[list[Row]], function: OverTurnsName
) -> None:
    made = make(Home(tmp_path / "home"), {"a.jsonl": [[row.record for row in rows] for rows in pieces]})
    plain: dict[OverTurnsName, Callable[[list[float]], float]] = {
        "first": lambda scores: scores[0],
        "last": lambda scores: scores[-1],
        "min": min,
        "max": max,
        "mean": fmean,
    }
    expected = [plain[function](row.scores) for row in scored(pieces)]
    assert alike(values(made, f"{function}(helpfulness)"), expected)


@pytest.mark.slow
@PLAIN
@given(pieces=datasets(), threshold=numbers, quantifier=st.sampled_from([all, any]))
def test_all_and_any_agree_with_a_plain_loop(
    tmp_path: Path,
    pieces: list[list[Row]],
    threshold: float,
    quantifier: Callable[[Iterable[bool]], bool],
) -> None:
    made = make(Home(tmp_path / "home"), {"a.jsonl": [[row.record for row in rows] for rows in pieces]})
    expected = [quantifier(score >= threshold for score in scores) for _, scores, *_ in scored(pieces)]
    assert outcomes(made, f"{quantifier.__name__}(helpfulness >= {threshold!r})") == expected


@pytest.mark.slow
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=datasets())
@example(pieces=[[], []])
def test_buckets_on_the_disk_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: list[list[Row]]
) -> None:
    made = make(Home(tmp_path / "home"), {"a.jsonl": [[row.record for row in rows] for rows in pieces]})
    texts = ["rank(helpfulness)", "zscore(helpfulness)", "percentile(margin(helpfulness))", "group_size"]
    together = [values(made, text) for text in texts]
    with monkeypatch.context() as small:
        small.setattr("assay.select.by_key.BUCKET_ROWS", 2)
        small.setattr("assay.storage.buckets.BUCKET_ROWS", 1)
        small.setattr("assay.select.percentiles._MERGED_AT", 1)
        assert [values(made, text) for text in texts] == together
    assert not [path for path in (made.home.artifacts / "filter").glob("*") if path.is_dir()]
