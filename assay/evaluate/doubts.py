"""What a reader should doubt beside a model's figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from assay.evaluate.answers import ComparedPair, ScoredItem, flat, summed
from assay.evaluate.correlation import spearman
from assay.evaluate.evaluation import Doubts, FigureDifference, MarginStep
from assay.evaluate.figures import ALL, Figure, Floats, ResampledUnit, Spec, Sums, interval, share

#: Steps of the ladder of margins: 0, then the margin that all but a tenth, two tenths … of the pairs have.
_STEPS = 10
_MOST_LANGUAGES = 20


def by_length(one: ScoredItem, sign: float = 1.0) -> ScoredItem:
    """The item with the number of characters of each answer, times ``sign``, in place of its score."""
    return replace(one, scores=tuple(sign * answer.characters for answer in one.item.answers))


def doubts(scored: Sequence[ScoredItem], sums: Sums, longer: Sums, shorter: Sums, overall: Spec) -> Doubts:
    """What to doubt about the scores of these items, whose sums these are; so are those of length alone."""
    by_longer, by_shorter = longer.value(overall), shorter.value(overall)
    better = longer if (by_longer or 0.0) >= (by_shorter or 0.0) else shorter
    pairs = [(one, pair) for one in scored for pair in one.pairs()]
    scores = [np.array(one.scores) for one in scored]
    characters = [np.array(by_length(one).scores) for one in scored]
    return Doubts(
        over_length=difference(sums, better, overall),
        shorter_only=by_shorter,
        length_correlation=spearman(flat([one.scores for one in scored]), _joined(characters)),
        length_correlation_within_prompts=spearman(
            _joined([one - one.mean() for one in scores]), _joined([one - one.mean() for one in characters])
        ),
        chosen_shorter=_over(
            scored, lambda one, pair: "" if pair.better.characters < pair.worse.characters else None
        ).get("", _NOTHING),
        margins=margin_steps([pair.margin for _, pair in pairs]),
        no_spread=sum(len(set(one.scores)) == 1 for one in scored) / len(scored) if scored else None,
        positions=_over(scored, _position),
        languages=_languages(scored),
    )


_NOTHING = Figure(accuracy=None, correct=0, total=0, ties=0, interval=None)


def _joined(parts: Sequence[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.array([])


def _position(one: ScoredItem, pair: ComparedPair) -> str | None:
    if not one.item.positioned:
        return None
    return "better answer first" if pair.better.place < pair.worse.place else "better answer second"


def _languages(scored: Sequence[ScoredItem]) -> dict[str, Figure]:
    found = _over(scored, lambda one, pair: one.item.language)
    return found if 1 < len(found) <= _MOST_LANGUAGES else {}


def _over(
    scored: Sequence[ScoredItem], part_of: Callable[[ScoredItem, ComparedPair], str | None]
) -> dict[str, Figure]:
    """The strict share of pairs in each part; a pair of no part counts in none."""
    units: list[ResampledUnit] = []
    for one in scored:
        parts: dict[str, list[ComparedPair]] = defaultdict(list)
        for pair in one.pairs():
            if (part := part_of(one, pair)) is not None:
                parts[part].append(pair)
        units += [ResampledUnit(part, one.key, {ALL: summed(pairs)}) for part, pairs in parts.items()]
    sums = Sums(units)
    return {part: sums.figure(share(part)) for part in sorted({unit.stratum for unit in units})}


def margin_steps(margins: Sequence[float]) -> tuple[MarginStep, ...]:
    """The accuracy of the pairs whose scores differ by at least each step.

    >>> [(one.margin, one.pairs, one.accuracy) for one in margin_steps([1.0, -1.0, 2.0, 0.0])][0]
    (0.0, 4, 0.5)
    """
    if not margins:
        return ()
    values = np.array(margins)
    apart = np.sort(np.abs(values))
    steps = [0.0, *(float(apart[len(apart) * step // _STEPS]) for step in range(1, _STEPS))]
    found = []
    for step in sorted(set(steps)):
        chosen = values[np.abs(values) >= step]
        found.append(
            MarginStep(
                margin=step,
                accuracy=float((chosen > 0).mean()),
                pairs=len(chosen),
                share=len(chosen) / len(values),
            )
        )
    return tuple(found)


def difference(first: Sums, second: Sums, spec: Spec) -> FigureDifference:
    """One figure less another, of the same units: each resampling draws the same ones of both."""
    here = (first.value(spec), second.value(spec))
    if here[0] is None or here[1] is None:
        return FigureDifference(difference=None, interval=None)
    return FigureDifference(
        difference=here[0] - here[1], interval=interval(first.draws(spec) - second.draws(spec))
    )
