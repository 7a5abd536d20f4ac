"""Which answers to a prompt make a pair, and what the files of pairs hold."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from handmade import Made, Record, Turn, make, spoken
from hypothesis import given, settings
from hypothesis import strategies as st
from stages import decide

from assay.core.errors import UserMistake
from assay.core.schema import ROLES, Message
from assay.export import PAIR_EXPORTS, RECORD_EXPORTS, check_exports, pair_texts
from assay.export.contract import ToWrite, rows_of
from assay.export.files import Exported
from assay.export.foreseen import warnings_of
from assay.export.pair_files import PAIRS
from assay.export.pairs import Candidate, Pair, PairChoice, Place, pairs_of, score_of
from assay.export.results import write_results
from assay.select.rules import parse_rules
from assay.storage.home import Home
from assay.storage.stage import RunContext

Q = ("user", "Which way to the mill?")
ROLE = {role[0]: role for role in ROLES}


def answer(score: str, *, text: str = "", at: int = 0, **more: Any) -> Candidate:
    """A candidate whose text is its score, unless another is given."""
    said = text or score
    return Candidate(said.encode(), score_of(score), len(said), Place(0, at, 0), **more)


def made_of(choice: PairChoice, *candidates: Candidate) -> list[tuple[str, str, str]]:
    pairs = pairs_of(candidates, choice).pairs
    return [(pair.chosen.key.decode(), pair.rejected.key.decode(), str(pair.margin)) for pair in pairs]


FIVE = [answer(score, at=at) for at, score in enumerate(("1.5", "-2.0", "3.0", "0.25", "3.0"))]


@pytest.mark.parametrize(
    ("choice", "pairs"),
    [
        (PairChoice(), [("3.0", "-2.0", "5.0")]),
        (PairChoice("best-next"), [("3.0", "1.5", "1.5")]),
        (
            PairChoice("all"),
            [
                ("3.0", "-2.0", "5.0"),
                ("1.5", "-2.0", "3.5"),
                ("3.0", "0.25", "2.75"),
                ("0.25", "-2.0", "2.25"),
                ("3.0", "1.5", "1.5"),
                ("1.5", "0.25", "1.25"),
            ],
        ),
        (PairChoice("all", per_prompt=2), [("3.0", "-2.0", "5.0"), ("1.5", "-2.0", "3.5")]),
        (
            PairChoice("all", min_margin=2.75, per_prompt=9),
            [("3.0", "-2.0", "5.0"), ("1.5", "-2.0", "3.5"), ("3.0", "0.25", "2.75")],
        ),
        (PairChoice("all", max_length_ratio=1.0), [("0.25", "-2.0", "2.25"), ("3.0", "1.5", "1.5")]),
        (PairChoice("all", max_length_ratio=1.0, min_margin=2.0), [("0.25", "-2.0", "2.25")]),
    ],
)
def test_the_pairs_of_five_answers(choice: PairChoice, pairs: list[tuple[str, str, str]]) -> None:
    assert made_of(choice, *FIVE) == pairs


def test_a_margin_equal_to_the_least_is_kept_as_a_person_reads_the_scores() -> None:
    assert made_of(PairChoice(min_margin=0.1), answer("0.7"), answer("0.6")) == [("0.7", "0.6", "0.1")]
    assert made_of(PairChoice(min_margin=0.11), answer("0.7"), answer("0.6")) == []


@pytest.mark.parametrize(
    ("choice", "candidates", "why", "passed_over"),
    [
        (PairChoice(), [answer("1.0")], "one_answer", {}),
        (PairChoice(), [answer("1.0"), answer("1.0", at=3)], "one_answer", {}),
        (PairChoice(), [answer("1.0"), answer("1.0", text="other")], "tie", {}),
        (PairChoice("all"), [answer("1.0"), answer("1.0", text="other")], "tie", {}),
        (PairChoice(min_margin=2.0), FIVE[:1] + FIVE[3:4], "margin_too_small", {"margin_too_small": 1}),
        (
            PairChoice(max_length_ratio=2.0),
            [answer("1.0", text="1234"), answer("2.0", text="123456789")],
            "lengths_differ",
            {"lengths_differ": 1},
        ),
        (PairChoice("given"), FIVE, "not_given", {}),
        (
            PairChoice("given"),
            [answer("1.0", source=("a", 1), side="chosen"), answer("2.0", source=("a", 2), side="rejected")],
            "not_given",
            {},
        ),
        (
            PairChoice("given"),
            [answer("1.0", source=("a", 1), side=side) for side in ("chosen", "rejected")],
            "equal_answers",
            {"equal_answers": 1},
        ),
    ],
)
def test_why_a_prompt_gives_no_pair(
    choice: PairChoice, candidates: list[Candidate], why: str, passed_over: dict[str, int]
) -> None:
    found = pairs_of(candidates, choice)
    assert (found.pairs, found.why_none, found.passed_over) == ([], why, passed_over)


def test_given_pairs_keep_the_persons_order_whatever_the_model_says() -> None:
    given_pair = [
        answer("1.0", source=("a", 1), side="chosen"),
        answer("2.5", source=("a", 1), side="rejected"),
        answer("9.0"),
    ]
    (pair,) = pairs_of(given_pair, PairChoice("given")).pairs
    assert (pair.margin, pair.chosen_rank, pair.rejected_rank, pair.answers) == (Decimal("-1.5"), 3, 2, 3)
    tied = [answer("1.0", text=side, source=("a", 1), side=side) for side in ("rejected", "chosen")]
    assert made_of(PairChoice("given"), *tied) == [("chosen", "rejected", "0.0")]
    assert made_of(PairChoice("given", min_margin=0.0), *given_pair) == []


candidates = st.lists(
    st.tuples(st.integers(-3, 3), st.text("ab", min_size=1, max_size=3), st.integers(0, 9)), max_size=7
)


@settings(deadline=None)
@given(
    candidates,
    st.sampled_from(["best-worst", "best-next", "all"]),
    st.sampled_from([None, 1.0, 2.0]),
    st.randoms(),
)
def test_pairs_are_those_of_a_plain_loop_in_any_order(
    found: list[tuple[int, str, int]], way: Any, least: float | None, order: random.Random
) -> None:
    scores: dict[str, int] = {}
    given_candidates = []
    for score, text, at in found:
        score = scores.setdefault(text, score)  # One answer has one score.
        given_candidates.append(answer(f"{score}.0", text=text, at=at))
    choice = PairChoice(way, min_margin=least)
    expected = set()
    if len(scores) > 1:
        best, lower = max(scores.values()), sorted(set(scores.values()))[:-1]
        for one, other in combinations(scores, 2):
            better, worse = sorted((one, other), key=lambda text: -scores[text])
            margin = scores[better] - scores[worse]
            ends = {"best-worst": lower[:1], "best-next": lower[-1:], "all": lower}[way]
            is_wanted = way == "all" or (scores[better] == best and scores[worse] in ends)
            if is_wanted and margin > 0 and margin >= (least or 0):
                expected.add((better, worse))
    made = {(better, worse) for better, worse, _ in made_of(choice, *given_candidates)}
    if way == "all":
        assert made == expected
    else:
        # Of equally good answers one stands for all, chosen by content.
        assert made == {min(expected)} if expected else not made
    order.shuffle(given_candidates)
    assert made_of(choice, *given_candidates) == made_of(choice, *given_candidates[::-1])


def record(
    line: int, *said: tuple[str, str], scores: Sequence[float], side: str = "", part: int = 0
) -> Record:
    rest = json.dumps({"assay_side": side}) if side else None
    return Record(line, said, tuple(Turn((score,)) for score in scores), part=part, rest=rest)


def reply(text: str) -> tuple[str, str]:
    return ("assistant", text)


def write(
    made: Made, choice: PairChoice = PairChoice(), *rules: str, name: str = "staging"
) -> tuple[Exported, Path]:
    staging = made.home.root / name
    staging.mkdir(parents=True)
    parsed = parse_rules(rules, attributes=("reward",), allow_cross_prompt=True)
    filtered = decide(made.converted, made.scored, rules=parsed, home=made.home)
    wanted = ToWrite((), tuple(PAIR_EXPORTS.values()), choice)
    return write_results(
        made.converted, made.scored, filtered, wanted, RunContext(made.home), staging=staging
    ), staging


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


#: Answers to one prompt in three files and in two pieces of one; two of a tree's branches; one prompt alone.
SPREAD = {
    "a.jsonl": [
        [
            record(1, Q, reply("Left."), scores=[0.5]),
            record(2, ("user", "Alone"), reply("Yes."), scores=[9.0]),
        ],
        [record(3, Q, reply("Right."), scores=[-1.25])],
    ],
    "b.jsonl": [[record(1, Q, reply("Straight on, then left."), scores=[2.0])]],
    "tree.jsonl": [
        [
            record(1, Q, reply("Left."), ("user", "Far?"), reply("A mile."), scores=[0.5, 1.0]),
            record(1, Q, reply("Left."), ("user", "Far?"), reply("No."), scores=[0.5, 4.0], part=1),
        ]
    ],
}


def test_answers_are_found_across_rows_pieces_and_files_and_at_branching_turns(home: Home) -> None:
    exported, staging = write(make(home, SPREAD, attributes=("reward",)))
    assert rows(staging / "trl/reward.jsonl") == [
        {
            "prompt": [{"role": "user", "content": Q[1]}],
            "chosen": [{"role": "assistant", "content": "Straight on, then left."}],
            "rejected": [{"role": "assistant", "content": "Right."}],
            "margin": 3.25,
        },
        {
            "prompt": [
                {"role": "user", "content": Q[1]},
                {"role": "assistant", "content": "Left."},
                {"role": "user", "content": "Far?"},
            ],
            "chosen": [{"role": "assistant", "content": "No."}],
            "rejected": [{"role": "assistant", "content": "A mile."}],
            "margin": 3.0,
        },
    ]
    table = pl.read_parquet(staging / PAIRS)
    places = [
        f"{side}_{name}" for side in ("chosen", "rejected") for name in ("file", "line", "part", "turn")
    ]
    assert table.select(places).rows() == [
        ("b.jsonl", 1, 0, 0, "a.jsonl", 3, 0, 0),
        ("tree.jsonl", 1, 1, 1, "tree.jsonl", 1, 0, 1),
    ]
    assert table.select("margin", "chosen_score", "rejected_rank", "answers").rows() == [
        (3.25, 2.0, 3, 3),
        (3.0, 4.0, 2, 2),
    ]
    made = exported.pairs
    assert made is not None
    assert (made.prompts, made.pairs, made.without) == (3, 2, {"one_answer": 1})
    assert (made.margins["5"], made.margins["95"], made.chosen_longer) == (3.0, 3.25, 0.5)
    assert not [path for path in staging.rglob("*") if path.name.startswith(".")]


def test_pairs_are_the_same_bytes_however_the_work_is_cut(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(home, SPREAD, attributes=("reward",))
    _, first = write(made, PairChoice("all"), name="first")
    monkeypatch.setattr(pair_texts, "_TURNS_OF_A_PARTITION", 2)
    monkeypatch.setattr(pair_texts, "_PAIRS_OF_A_BUCKET", 1)
    monkeypatch.setattr(pair_texts, "_PAIRS_AT_A_TIME", 1)
    _, second = write(made, PairChoice("all"), name="second")
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert len(rows(first / "trl/reward.jsonl")) == 4
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_the_order_of_the_inputs_orders_pairs_and_chooses_none(tmp_path: Path) -> None:
    tied = {
        "a.jsonl": [[record(1, Q, reply("One."), scores=[2.0]), record(2, Q, reply("Two."), scores=[2.0])]],
        "b.jsonl": [
            [record(1, Q, reply("Three."), scores=[1.0]), record(2, Q, reply("Four."), scores=[1.0])]
        ],
    }
    chosen = []
    for number, files in enumerate((tied, dict(reversed(tied.items())))):
        _, staging = write(make(Home(tmp_path / str(number)), files, attributes=("reward",)))
        chosen.append(rows(staging / "trl/preference.jsonl"))
    assert chosen[0] == chosen[1]


def test_pairs_come_only_from_records_that_the_rules_keep(home: Home) -> None:
    exported, staging = write(make(home, SPREAD, attributes=("reward",)), PairChoice(), "reward >= 0")
    assert [row["rejected"][0]["content"] for row in rows(staging / "trl/reward.jsonl")] == [
        "Left.",
        "A mile.",
    ]
    exported, staging = write(
        make(home, SPREAD, attributes=("reward",)), PairChoice(), "reward >= 3", name="none"
    )
    assert exported.pairs is not None
    assert exported.pairs.pairs == 0
    assert exported.pairs.chosen_longer is None
    assert rows(staging / "trl/reward.jsonl") == []


def test_given_pairs_say_what_the_model_says_beside_what_the_person_said(home: Home) -> None:
    files = {
        "a.jsonl": [
            [
                record(1, Q, reply("Kind."), scores=[0.5], side="chosen"),
                record(1, Q, reply("Rude."), scores=[1.5], side="rejected", part=1),
                record(2, Q, reply("Kind."), scores=[0.5], side="chosen"),
                record(2, ("user", "Other"), reply("Rude."), scores=[7.0], side="rejected", part=1),
            ]
        ]
    }
    _, staging = write(make(home, files, attributes=("reward",)), PairChoice("given"))
    (row,) = rows(staging / "openrlhf/preference.jsonl")
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"], row["margin"]) == (
        "Kind.",
        "Rude.",
        -1.0,
    )
    (pair,) = pl.read_parquet(staging / PAIRS).select("chosen_side", "rejected_side", "chosen_rank").rows()
    assert pair == ("chosen", "rejected", 2)


def test_a_person_chose_the_last_answers_of_two_conversations_and_no_earlier_ones(home: Home) -> None:
    before = (Q, reply("Left."), ("user", "Far?"))
    records = [
        record(1, *before, reply("A mile."), scores=[0.5, 1.0], side="chosen"),
        record(1, *before, reply("No."), scores=[0.5, 4.0], side="rejected", part=1),
    ]
    made = make(home, {"a.jsonl": [records]}, attributes=("reward",))
    exported, _ = write(made, PairChoice("given"))
    assert exported.pairs is not None
    assert (exported.pairs.pairs, exported.pairs.without, exported.pairs.passed_over) == (
        1,
        {"not_given": 1},
        {},
    )


def pair(roles: str, chosen: str = "A good answer.", rejected: str = "A bad answer.") -> Pair:
    prompt = tuple(Message(ROLE[letter], f"{n}") for n, letter in enumerate(roles))
    return Pair(prompt, roles, Message("assistant", chosen), Message("assistant", rejected), 1.5)


PROMPT = [{"role": "system", "content": "0"}, {"role": "user", "content": "1"}]
GOOD = {"role": "assistant", "content": "A good answer."}
BAD = {"role": "assistant", "content": "A bad answer."}
LISTS = {"prompt": PROMPT, "chosen": [GOOD], "rejected": [BAD]}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("trl-preference", LISTS),
        ("trl-reward", {**LISTS, "margin": 1.5}),
        ("openrlhf-preference", {**LISTS, "margin": 1.5}),
        (
            "nemo-rl-preference",
            {
                "context": PROMPT,
                "completions": [{"rank": 0, "completion": [GOOD]}, {"rank": 1, "completion": [BAD]}],
            },
        ),
        ("llamafactory-preference", {"messages": PROMPT, "chosen": GOOD, "rejected": BAD}),
        ("axolotl-preference", {"messages": PROMPT, "chosen": GOOD, "rejected": BAD}),
        (
            "swift-preference",
            {"messages": [*PROMPT, GOOD], "rejected_messages": [*PROMPT, BAD], "margin": 1.5},
        ),
    ],
)
def test_a_row_of_a_pair_holds_the_texts_as_they_are(name: str, row: dict[str, Any]) -> None:
    made = rows_of(PAIR_EXPORTS[name], [pair("su")])
    assert json.loads(made.lines) == row


def test_verls_pair_is_three_texts() -> None:
    made = rows_of(PAIR_EXPORTS["verl-preference"], [pair("u")])
    assert made.table is not None
    assert made.table.rows() == [("0", "A good answer.", "A bad answer.")]


#: Of each export pairs that its trainer would drop, alter or die on, with the code why.
REFUSED = [
    *((name, pair(""), "no_prompt") for name in PAIR_EXPORTS),
    *(
        (name, pair(roles), code)
        for name in ("llamafactory-preference", "swift-preference")
        for roles, code in [
            ("uus", "late_system_message"),
            ("uu", "roles_do_not_alternate"),
            ("a", "roles_do_not_alternate"),
            ("ua", "roles_do_not_alternate"),
            ("s", "roles_do_not_alternate"),
        ]
    ),
    ("axolotl-preference", pair("u", "Yes. "), "space_around_answer"),
    ("axolotl-preference", pair("u", "Yes.", "\nNo."), "space_around_answer"),
    ("axolotl-preference", pair("u", "message"), "answer_found_too_early"),
    ("axolotl-preference", pair("u", "Yes.", "user"), "answer_found_too_early"),
    ("verl-preference", pair("su"), "prompt_not_a_text"),
    ("verl-preference", pair("s"), "prompt_not_a_text"),
]


@pytest.mark.parametrize(("name", "one", "code"), REFUSED)
def test_a_pair_that_a_trainer_would_drop_alter_or_die_on_is_left_out(
    name: str, one: Pair, code: str
) -> None:
    made = rows_of(PAIR_EXPORTS[name], [one])
    assert (made.rows, made.left_out) == (0, {code: 1})


@pytest.mark.parametrize("name", PAIR_EXPORTS)
@pytest.mark.parametrize("roles", ["u", "uau", "suau"])
def test_pairs_that_every_trainer_takes(name: str, roles: str) -> None:
    made = rows_of(PAIR_EXPORTS[name], [pair(roles)])
    assert made.rows == (name != "verl-preference" or roles == "u")


def test_a_pair_needs_one_number() -> None:
    with pytest.raises(UserMistake, match=r"trl-reward is refused: .*--weights"):
        check_exports(["trl-reward"], ("helpfulness", "verbosity"))
    check_exports(["trl-reward"], ("helpfulness", "verbosity", "weighted_reward"))
    check_exports(["trl-reward"], ("reward",))


def foreseen(made: Made, *names: str, choice: PairChoice = PairChoice()) -> list[str]:
    wanted = ToWrite(
        tuple(RECORD_EXPORTS[name] for name in names if name in RECORD_EXPORTS),
        tuple(PAIR_EXPORTS[name] for name in names if name in PAIR_EXPORTS),
        choice,
    )
    return warnings_of(wanted, made.converted, made.home)


def test_a_preference_export_without_two_answers_to_a_prompt_is_refused_before_scoring(home: Home) -> None:
    alone = {
        "a.jsonl": [[record(1, Q, reply("One."), scores=[1.0]), record(2, Q, reply("One."), scores=[1.0])]]
    }
    with pytest.raises(UserMistake, match="trl-preference is refused: no prompt has two different answers"):
        foreseen(make(home, alone, attributes=("reward",)), "trl-preference", "messages")
    assert foreseen(make(home, SPREAD, attributes=("reward",)), "trl-preference") == []
    with pytest.raises(UserMistake, match="no row has a chosen and a rejected answer"):
        foreseen(make(home, SPREAD, attributes=("reward",)), "trl-preference", choice=PairChoice("given"))


def test_an_export_of_verdicts_without_any_is_refused_before_scoring(home: Home) -> None:
    with pytest.raises(UserMistake, match="trl-kto is refused: No record is one side of a pair"):
        foreseen(make(home, SPREAD, attributes=("reward",)), "messages", "trl-kto")
    sided = {"a.jsonl": [[record(1, Q, reply("One."), scores=[1.0], side="chosen")]]}
    assert foreseen(make(home, sided, attributes=("reward",)), "trl-kto") == []


def test_a_file_that_will_hold_nothing_is_reported_before_scoring(home: Home) -> None:
    ends = {"a.jsonl": [[record(1, Q, reply("One."), Q, scores=[1.0])]]}
    (line,) = foreseen(make(home, ends, attributes=("reward",)), "messages", "openai", "trl-sft")
    assert line == "openai/sft.jsonl will hold no row: its trainer takes none (ends_on_user: 1 of 1)"


def test_every_prompt_is_counted_once_however_many_records_go_through_it(home: Home) -> None:
    exported, _ = write(make(home, SPREAD, attributes=("reward",)), PairChoice("best-next"))
    found: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for pieces in SPREAD.values():
        for one in (one for piece in pieces for one in piece):
            said = spoken(one)
            for place, message in enumerate(said):
                if message.role == "assistant":
                    found[tuple(before.content for before in said[:place])].add(message.content)
    assert exported.pairs is not None
    assert exported.pairs.prompts == len(found)
    assert exported.pairs.pairs == sum(len(answers) > 1 for answers in found.values())
