"""Pairs: of the answers to one prompt, which two a preference trainer is shown, and by what margin.

This module decides; ``pair_texts`` finds the answers and their texts. To decide, an answer is a key, a score,
a length and a place, never a text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple

from assay.core.schema import Conversation, Message
from assay.export.kept import NOTHING, Held

PairWay = Literal["best-worst", "best-next", "all", "given"]

#: Reasons why a prompt gives no pair.
ONE_ANSWER = "one_answer"
TIE = "tie"
MARGIN = "margin_too_small"
LENGTHS = "lengths_differ"
NOT_GIVEN = "not_given"
EQUAL_ANSWERS = "equal_answers"
#: Why a prompt gives no more pairs.
BEYOND = "beyond_pairs_per_prompt"


@dataclass(frozen=True, slots=True)
class PairChoice:
    """Which pairs are made of the answers to a prompt."""

    way: PairWay = "best-worst"
    """The best answer with the worst, the best with the next best, every two, or as a person chose."""
    min_margin: float | None = None
    """The least margin, itself included."""
    max_length_ratio: float | None = None
    """How many times as long as the shorter answer the longer one may be, in characters."""
    per_prompt: int | None = None
    """The most pairs of a prompt, those of the widest margin first."""


class Place(NamedTuple):
    """Where an answer stands: the number of its piece, its row in it, its turn. In order of the inputs."""

    piece: int
    row: int
    turn: int


class Candidate(NamedTuple):
    """An answer to a prompt."""

    key: bytes
    """The turn's key: equal answers to a prompt have one."""
    score: Decimal
    """The model's number, with the fewest digits that give the same float32."""
    characters: int
    place: Place
    source: tuple[str, int] | None = None
    """The input line that it is one side of, as file and line; None where it is no side of a pair."""
    side: str | None = None
    """``chosen`` or ``rejected``, as a person has it."""


class ChosenPair(NamedTuple):
    """Two answers to one prompt, the better one first."""

    chosen: Candidate
    rejected: Candidate
    margin: Decimal
    """The chosen one's score less the other's. Negative only where a person chose."""
    chosen_rank: int
    """1 + the number of strictly better answers to the prompt."""
    rejected_rank: int
    answers: int
    """How many different answers the prompt has."""


class OfPrompt(NamedTuple):
    """The pairs of one prompt, the widest margin first, or why there are none."""

    pairs: list[ChosenPair]
    why_none: str | None
    passed_over: Counter[str]
    """How many pairs would have been, by the reason why they are not."""


class Pair(NamedTuple):
    """What a preference export is given: a prompt and two answers to it, the better one first."""

    prompt: Conversation
    roles: str
    """A letter a message of the prompt."""
    chosen: Message
    rejected: Message
    margin: float
    tools: str | None = None
    """The tools that the assistant could call, as a JSON array."""
    held: Held = NOTHING
    """Of all records of the run."""

    @property
    def messages(self) -> Conversation:
        """The prompt, the chosen answer and the rejected one."""
        return (*self.prompt, self.chosen, self.rejected)


def score_of(written: str) -> Decimal:
    """The number that a score's shortest text stands for, so that 0.7 - 0.6 is 0.1.

    >>> score_of("0.7") - score_of("0.6")
    Decimal('0.1')
    """
    return Decimal(written)


def pairs_of(candidates: Sequence[Candidate], choice: PairChoice) -> OfPrompt:
    """The pairs of one prompt. ``candidates`` are the answers of its kept records, in any order.

    The same answer counts once, at its first place. Answers that score alike make no pair, and which of them
    stands for all is decided by content, not by the order of the inputs.
    """
    ranked = _ranked(candidates)
    two: Iterator[tuple[Candidate, Candidate]]
    if choice.way == "given":
        two = _given(candidates)
    elif len(ranked) < 2:
        return OfPrompt([], ONE_ANSWER, Counter())
    elif choice.way == "all":
        two = (
            (better, worse)
            for number, better in enumerate(ranked)
            for worse in ranked[number + 1 :]
            if better.score > worse.score
        )
    else:
        two = _of_the_best(ranked, to_the_worst=choice.way == "best-worst")
    passed_over: Counter[str] = Counter()
    taken: list[tuple[Candidate, Candidate]] = []
    for pair in two:
        why_not = _why_not(pair, choice)
        if why_not is None:
            taken.append(pair)
        else:
            passed_over[why_not] += 1
    if not taken:
        nothing = NOT_GIVEN if choice.way == "given" else TIE
        return OfPrompt(
            [], max(passed_over, key=lambda one: (passed_over[one], one), default=nothing), passed_over
        )
    scores = [one.score for one in ranked]
    made = [
        ChosenPair(
            better,
            worse,
            better.score - worse.score,
            1 + sum(score > better.score for score in scores),
            1 + sum(score > worse.score for score in scores),
            len(ranked),
        )
        for better, worse in taken
    ]
    made.sort(key=lambda pair: (-pair.margin, pair.chosen.key, pair.rejected.key))
    if choice.per_prompt is not None and len(made) > choice.per_prompt:
        passed_over[BEYOND] = len(made) - choice.per_prompt
    return OfPrompt(made[: choice.per_prompt], None, passed_over)


def _ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The different answers, each at its first place, the best first; equally good ones by content."""
    first: dict[bytes, Candidate] = {}
    for one in sorted(candidates, key=lambda one: one.place):
        first.setdefault(one.key, one)
    return sorted(first.values(), key=lambda one: (-one.score, one.key))


def _of_the_best(ranked: Sequence[Candidate], *, to_the_worst: bool) -> Iterator[tuple[Candidate, Candidate]]:
    """Yield the best with the worst or the next best that scores lower; nothing where all score alike."""
    best = ranked[0]
    lower = [one for one in ranked if one.score < best.score]
    if lower:
        other = lower[-1].score if to_the_worst else lower[0].score
        yield best, min((one for one in lower if one.score == other), key=lambda one: one.key)


def _given(candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Candidate]]:
    """Yield every chosen answer of a line with every rejected one of that line."""
    by_line: dict[tuple[str, int], list[Candidate]] = {}
    for one in sorted(candidates, key=lambda one: one.place):
        if one.source is not None and one.side is not None:
            by_line.setdefault(one.source, []).append(one)
    for sides in by_line.values():
        for better in sides:
            for worse in sides:
                if better.side == "chosen" and worse.side == "rejected":
                    yield better, worse


def _why_not(pair: tuple[Candidate, Candidate], choice: PairChoice) -> str | None:
    better, worse = pair
    if better.key == worse.key:
        return EQUAL_ANSWERS
    if choice.min_margin is not None and better.score - worse.score < Decimal(repr(choice.min_margin)):
        return MARGIN
    shorter, longer = sorted((better.characters, worse.characters))
    if choice.max_length_ratio is not None and longer > Decimal(repr(choice.max_length_ratio)) * shorter:
        return LENGTHS
    return None
