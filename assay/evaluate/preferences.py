"""``preferences``: any data that says which of several answers is better, in any layout that Assay reads.

An item is one of these, the first that fits:

- a line with a chosen and a rejected side (or several of each);
- a line of several answers with a number each: a rank (the lowest is the best), or a score or rating;
- lines of one answer each to the same prompt, with such a number each or a ``label`` that is true or false.

Answers of equal worth are not compared. Reward models compare answers to the same prompt, so answers that
follow different messages are not compared either.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from assay.evaluate.answers import ScoredItem, pair_units
from assay.evaluate.benchmark import Benchmark, Figures
from assay.evaluate.figures import ResampledUnit, share
from assay.evaluate.items import (
    AskedItem,
    ItemAnswer,
    Line,
    Record,
    RefusedLine,
    answer_of,
    id_of,
    language_of,
)

#: Numbers that order answers, the most telling first, and whether more is better.
NUMBERS: Mapping[str, int] = {
    "rank": -1,
    "score": 1,
    "rating": 1,
    "overall_score": 1,
    "reward": 1,
    "rm_score": 1,
    "helpfulness": 1,
    "quality": 1,
}
#: Fields that name a part of the data, the first that a row has.
_PARTS = ("subset", "domain", "source", "category")
_MOST_PARTS = 30
_DIFFERENT_PROMPTS = "different_prompts: the answers follow different messages, so no model compares them"
_NO_PREFERENCE = "no_preference: nothing says which answer is better"


def gather(lines: Iterable[Line]) -> Iterator[AskedItem | RefusedLine]:
    """Yield an item for each line, and for lines that answer one prompt one together, after all lines."""
    alone: dict[bytes, list[Line]] = defaultdict(list)
    for line in lines:
        if (problem := line.problem) is not None:
            dropped = all(record.outcome != "quarantined" for record in line.records)
            yield RefusedLine(line, problem, "dropped" if dropped else "quarantined")
        elif len(line.records) == 1:
            alone[line.records[0].turns[-1].prompt].append(line)
        else:
            yield _of_line(line)
    for together in alone.values():
        yield from _of_lines(together)


def _of_line(line: Line) -> AskedItem | RefusedLine:
    records = line.records
    worths = [{"chosen": 1.0, "rejected": 0.0}.get(record.side or "") for record in records]
    by_side = [worth for worth in worths if worth is not None]
    if len(by_side) < len(records):
        by_side = _by_number([record.turns[-1].given for record in records])
    if len(set(by_side)) < 2:
        return RefusedLine(line, _NO_PREFERENCE, "dropped")
    if len({record.turns[-1].prompt for record in records}) > 1:
        return RefusedLine(line, _DIFFERENT_PROMPTS, "dropped")
    if len({record.turns[-1].key for record in records}) < 2:
        return RefusedLine(line, "same_answer: the answers are equal", "dropped")
    # Only such rows show their answers in an order of their own; others put the chosen one first.
    positioned = len(records) == 2 and _is_positioned(line)
    return _item(line, tuple(map(answer_of, records, range(len(records)), by_side)), positioned=positioned)


def _is_positioned(line: Line) -> bool:
    """Whether the row is one of two answers and a vote: the sides then need not begin with the chosen one."""
    votes = ("winner", "winner_model_a", "better_response_id", "preference_strength", "overall_preference")
    return not line.rest.keys().isdisjoint(votes)


def _of_lines(lines: Sequence[Line]) -> Iterator[AskedItem | RefusedLine]:
    """Yield the item of lines that answer one prompt, or why they are none."""
    records = [line.records[0] for line in lines]
    worths = _by_number([_given(line, record) for line, record in zip(lines, records, strict=True)])
    if len(set(worths)) < 2:
        for line in lines:
            yield RefusedLine(line, _NO_PREFERENCE, "dropped")
        return
    answers = tuple(map(answer_of, records, range(len(records)), worths))
    yield _item(lines[0], answers, positioned=False, rows=len(lines))


def _given(line: Line, record: Record) -> Mapping[str, float]:
    """What people gave the line's answer: a label that is true or false comes first."""
    label, rank = line.rest.get("label"), line.rest.get("rank")
    given = dict(record.turns[-1].given)
    if isinstance(rank, int) and not isinstance(rank, bool):
        given["rank"] = float(rank)
    if isinstance(label, bool):
        given["rank"] = -float(label)
    return given


def _by_number(given: Sequence[Mapping[str, float]]) -> list[float]:
    """The worths by the first number that all answers have; none where there is no such number."""
    for name, sign in NUMBERS.items():
        if all(name in one for one in given) and len({one[name] for one in given}) > 1:
            return [sign * one[name] for one in given]
    return []


def _item(line: Line, answers: tuple[ItemAnswer, ...], *, positioned: bool, rows: int = 1) -> AskedItem:
    part = next((text for name in _PARTS if (text := line.text(name))), "")
    prompt = line.records[0].turns[-1].prompt
    return AskedItem(
        id_of(line, "prompt_id", "pair_id"),
        part,
        prompt,
        line.file,
        line.number,
        answers,
        language_of(line),
        positioned,
        rows=rows,
    )


def holds(line: Line) -> bool:
    """False: any data may be preferences, so none is recognised as such."""
    return False


def units(items: Sequence[ScoredItem]) -> list[ResampledUnit]:
    """A unit for each item: every better answer with every worse one."""
    return pair_units(items)


def figures(groups: Sequence[str]) -> Figures:
    """All pairs, and those of each part that the rows name, where these are not too many to be read."""
    named = sorted(name for name in groups if name)
    shown = named if len(named) <= _MOST_PARTS else []
    return Figures(share(*sorted(groups)), {name: share(name) for name in shown})


PREFERENCES = Benchmark(
    "preferences",
    "Preferences",
    holds,
    gather,
    figures,
    units,
    rules=(
        "A pair counts where the better answer scores strictly higher; a tie is lost.",
        "Answers of equal worth, equal answers, and answers that follow different messages are not compared.",
    ),
)
