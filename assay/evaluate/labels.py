"""``labels``: answers that people rated with numbers: OpenAssistant's labels, HelpSteer's ratings.

An item is all rated answers to one prompt, so that a pair of them is a comparison. Every rated answer counts
in the correlations (``agreement``). An answer that several records share, as paths of a tree do, counts once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from assay.core.schema import ATTRIBUTES
from assay.evaluate.answers import ScoredItem, summed
from assay.evaluate.benchmark import Benchmark, Figures
from assay.evaluate.figures import ALL, ResampledUnit, Share, Spec
from assay.evaluate.items import AskedItem, ItemAnswer, Line, RefusedLine, answer_of, id_of, language_of

#: What people rate, the first of which that there is decides which answer is the better one.
RATED = ("helpfulness", "quality", "overall_score", "rating", "score", *ATTRIBUTES)


def gather(lines: Iterable[Line]) -> Iterator[AskedItem | RefusedLine]:
    """Yield an item for each prompt of rated answers, after all lines."""
    seen: set[tuple[bytes, tuple[tuple[str, float], ...]]] = set()
    by_prompt: dict[bytes, list[tuple[Line, ItemAnswer, dict[str, float], bytes]]] = defaultdict(list)
    for line in lines:
        rated = 0
        for record in line.records:
            if record.outcome == "quarantined":
                continue
            for turn in record.turns:
                given = {name: value for name, value in turn.given.items() if name in RATED}
                rated += bool(given)
                identity = (turn.key, tuple(sorted(given.items())))
                if given and identity not in seen:
                    seen.add(identity)
                    by_prompt[turn.prompt].append(
                        (line, answer_of(record, 0, 0.0, turn), given, record.opening)
                    )
        bad = [record for record in line.records if record.outcome == "quarantined"]
        if bad:
            yield RefusedLine(line, bad[0].reason or bad[0].outcome)
        elif not rated:
            yield RefusedLine(line, "no_labels: nobody rated its answers", "dropped")
    for prompt, found in by_prompt.items():
        line = found[0][0]
        names = sorted({name for _, _, given, _ in found for name in given}, key=RATED.index)
        yield AskedItem(
            id_of(line, "message_id"),
            "",
            prompt,
            line.file,
            line.number,
            tuple(replace(answer, place=place) for place, (_, answer, _, _) in enumerate(found)),
            language_of(line),
            rows=len({(line.file, line.number) for line, _, _, _ in found}),
            opening=found[0][3],
            given={name: tuple(given.get(name) for _, _, given, _ in found) for name in names},
        )


def holds(line: Line) -> bool:
    """False: what is rated is not known by the fields beside it."""
    return False


def figures(groups: Sequence[str]) -> Figures:
    """The pairs of answers to one prompt by the first attribute that people gave; others are made apart."""
    return Figures(Spec(Share(("",)), ("",)), {})


def rated_by(item: AskedItem, name: str) -> AskedItem:
    """The item with what people gave under this name as worths; answers without it are left out."""
    given = item.given.get(name)
    if given is None:
        return replace(item, answers=())
    answers = tuple(
        replace(answer, worth=value) for answer in item.answers if (value := given[answer.place]) is not None
    )
    return replace(item, answers=answers)


def units(items: Sequence[ScoredItem]) -> list[ResampledUnit]:
    """A unit for each prompt that has answers of different ratings."""
    return [ResampledUnit("", one.key, {ALL: summed(pairs)}) for one in items if (pairs := one.pairs())]


LABELS = Benchmark(
    "labels",
    "Labels",
    holds,
    gather,
    figures,
    units,
    rules=(
        "A comparison is two answers to one prompt that people rated differently; a tie is lost.",
        "Correlations are over all rated answers. Their intervals resample whole conversations: answers that "
        "begin with the same message stay together.",
    ),
)
