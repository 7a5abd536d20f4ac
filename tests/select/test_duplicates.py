"""Records that say the same, and records that hold evaluation data."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import polars as pl
import pytest
from handmade import HELPSTEER, Record, Turn, make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measuring import Options
from stages import decide

from assay.core.errors import UserMistake
from assay.select.contamination import EvaluationTexts
from assay.select.kinds import Dedup
from assay.select.rules import parse_rules
from assay.select.selection import parse_selection
from assay.select.signatures import shingles
from assay.select.vocabulary import Vocabulary
from assay.storage.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def record(line: int, prompt: str, answer: str, score: float = 1.0) -> Record:
    return Record(line, (("user", prompt), ("assistant", answer)), (Turn((score, 3.0, 3.0, 1.0, 1.0)),))


def reasons(
    home: Home,
    pieces: Sequence[Sequence[Record]],
    *rules: str,
    attributes: tuple[str, ...] = HELPSTEER,
    **options: Unpack[Options],
) -> tuple[list[str | None], tuple[str, ...]]:
    """The reason of each record, None where it is kept, and the notes."""
    made = make(home, {"a.jsonl": pieces}, attributes)
    words = Vocabulary(attributes, {}, {})
    if (by := options.get("by")) is not None:
        words = Vocabulary(attributes, {}, {}, words.column(by))
    filtered = decide(
        made.converted,
        made.scored,
        rules=parse_rules(rules, attributes=attributes),
        home=made.home,
        selection=parse_selection(words, **options),
    )
    found = [
        reason
        for piece in filtered.pieces
        for reason in pl.read_parquet(made.home.artifacts / piece.decisions.path)["reason"]
    ]
    return found, filtered.notes


ROWS = [
    record(1, "Why?", "Because.", 1.0),
    record(2, "Why?", "Because.", 2.0),
    record(3, "How?", "Because.", 3.0),
    record(4, "Why?", "Just so.", 0.0),
]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [None, "of a.jsonl:1", None, None]),
        ({"dedup_over": "answer"}, [None, "of a.jsonl:1", "of a.jsonl:1", None]),
        ({"dedup_over": "prompt"}, [None, "of a.jsonl:1", None, "of a.jsonl:1"]),
        ({"by": "helpfulness"}, ["of a.jsonl:2", None, None, None]),
        ({"by": "helpfulness", "dedup_over": "answer"}, ["of a.jsonl:3", "of a.jsonl:3", None, None]),
    ],
)
@pytest.mark.parametrize("kind", ["exact", "near"])
def test_of_records_that_say_the_same_one_stays_and_is_named_by_the_others(
    home: Home, kind: Dedup, options: Options, expected: list[str | None]
) -> None:
    chosen: Options = {**options, "dedup": kind}
    found, notes = reasons(home, [ROWS[:1], ROWS[1:]], **chosen)
    assert found == [one and f"duplicate: {one}" for one in expected]
    gone = len([one for one in expected if one])
    over = options.get("dedup_over", "whole")
    drops = f"drops {gone} record{'s' * (gone != 1)}, of 1 cluster that say the same ({over})"
    assert notes == (f"--dedup {kind} {drops}",)


def test_duplicates_are_looked_for_among_what_rules_leave_and_before_a_target(home: Home) -> None:
    found, _ = reasons(home, [ROWS], "helpfulness > 1", dedup="exact", dedup_over="answer")
    assert found == ["rule: helpfulness > 1", None, "duplicate: of a.jsonl:2", "rule: helpfulness > 1"]
    found, notes = reasons(home, [ROWS], dedup="exact", target="50%", by="helpfulness")
    assert found == [
        "duplicate: of a.jsonl:2",
        "over_target: helpfulness is not among the best",
        None,
        "over_target: helpfulness is not among the best",
    ]
    assert notes[-1].startswith("--target 50% keeps 1 of 3 records")


def test_nearly_equal_texts_are_found_and_others_are_not(home: Home) -> None:
    random.seed(1)
    words = [f"w{n}" for n in range(300)]
    text = random.choices(words, k=120)
    changed = [*text[:60], "other", *text[61:]]
    halves = [*text[:60], *random.choices(words, k=60)]
    rows = [record(n, "P", " ".join(one)) for n, one in enumerate([text, halves, changed, text[::-1]], 1)]
    found, _ = reasons(home, [rows], dedup="near", dedup_over="answer")
    assert found == [None, None, "duplicate: of a.jsonl:1", None]
    # Of 118 shingles three differ: 115 of 121 are common.
    found, _ = reasons(home, [rows], dedup="near", dedup_over="answer", near=0.99)
    assert found == [None] * 4


def test_most_texts_that_are_as_alike_as_they_have_to_be_are_found(home: Home) -> None:
    """Twenty pairs, in each of which 100 of 118 shingles are common: 0.85, and 0.8 is asked for."""
    random.seed(3)
    rows = []
    for pair in range(20):
        text = [f"{pair}.{random.randrange(10**6)}" for _ in range(111)]
        changed = [*text[:20], "x", *text[21:60], "y", *text[61:90], "z", *text[91:]]
        rows += [record(2 * pair + n, "P", " ".join(one)) for n, one in enumerate((text, changed), 1)]
    found, _ = reasons(home, [rows], dedup="near", dedup_over="answer")
    assert len([reason for reason in found if reason]) >= 15


def test_words_make_shingles_whatever_their_case_and_marks() -> None:
    assert shingles("To be, or NOT to be?") == {b"to be or", b"be or not", b"or not to", b"not to be"}
    assert shingles("Two words") == {b"two words"}
    assert shingles("?!") == {b"?!"}


texts = st.lists(st.sampled_from(["x y z", "x y z!", "a b c d", "q"]), max_size=8)


@pytest.mark.slow
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=texts, cut=st.integers(0, 8))
def test_exact_duplicates_agree_with_a_plain_loop(tmp_path: Path, answers: list[str], cut: int) -> None:
    rows = [record(n, "P", answer) for n, answer in enumerate(answers, 1)]
    found, _ = reasons(Home(tmp_path / "home"), [rows[:cut], rows[cut:]], dedup="exact", dedup_over="answer")
    firsts = {answer: n for n, answer in reversed([*enumerate(answers, 1)])}
    assert found == [
        None if firsts[answer] == n else f"duplicate: of a.jsonl:{firsts[answer]}"
        for n, answer in enumerate(answers, 1)
    ]


def test_near_duplicates_do_not_depend_on_how_the_input_is_cut(home: Home) -> None:
    random.seed(2)
    answers = [" ".join(random.choices("ab", k=12)) for _ in range(40)]
    rows = [record(n, "P", answer) for n, answer in enumerate(answers, 1)]
    options: Options = {"dedup": "near", "dedup_over": "answer", "near": 0.5}
    whole, _ = reasons(home, [rows], **options)
    assert whole.count(None) < len(whole)
    assert reasons(home, [rows[:7], rows[7:30], rows[30:]], **options)[0] == whole


QUESTION = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def test_a_record_that_shares_thirteen_words_with_evaluation_data_goes(home: Home, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text(f'{{"q": "nothing"}}\n{{"deep": [{{"text": "zero {QUESTION}"}}]}}\n')
    (tmp_path / "plain.txt").write_text("A line that stands alone and is far too short.\n")
    shared = QUESTION.upper().replace("FIVE", "five,")
    answers = ["x", QUESTION[4:60], f"So: {QUESTION}"]
    rows = [record(n, f"Say {shared}" if n == 1 else "P", one) for n, one in enumerate(answers, 1)]
    found, notes = reasons(
        home, [rows], decontaminate=[str(tmp_path / "*.jsonl"), str(tmp_path / "plain.txt")]
    )
    place = f"contaminated: shares 13 words with {tmp_path}/test.jsonl:2"
    assert found == [place, None, place]
    assert notes == ("--decontaminate drops 2 records that share 13 words with evaluation files",)


def test_evaluation_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    words = Vocabulary(HELPSTEER, {}, {})
    for name in ("missing.jsonl", "*.nothing", "."):
        with pytest.raises(UserMistake, match="--decontaminate"):
            parse_selection(words, decontaminate=[str(tmp_path / name)])
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserMistake, match="is not UTF-8 text"):
        EvaluationTexts([str(tmp_path / "binary")])


def test_decisions_depend_on_the_content_of_evaluation_files(tmp_path: Path) -> None:
    file = tmp_path / "test.txt"
    file.write_text("a")
    words = Vocabulary(HELPSTEER, {}, {})
    first = parse_selection(words, decontaminate=[str(file)]).depends_on()
    file.write_text("b")
    assert parse_selection(words, decontaminate=[str(file)]).depends_on() != first


def test_the_best_by_reward_is_not_chosen_across_prompts() -> None:
    words = Vocabulary(("reward",), {}, {}, Vocabulary(("reward",), {}, {}).column("reward"))
    across: list[Options] = [
        {"by": "reward", "dedup": "exact", "dedup_over": "answer"},
        {"by": "reward", "dedup": "near"},
    ]
    for options in across:
        with pytest.raises(UserMistake, match="compares answers to the same prompt"):
            parse_selection(words, **options)
    assert parse_selection(words, dedup="exact", by="reward").duplicates
    near = parse_selection(words, dedup="near").duplicates
    assert near is not None
    assert near.by is None
