"""How a model's scores agree with the numbers that people gave answers, attribute by attribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from assay.core.labels import label_from_scores, parse_label
from assay.core.schema import ATTRIBUTES
from assay.evaluate.correlation import kendall, spearman, spearman_interval
from assay.evaluate.evaluation import AttributeAgreement, RuleCut
from assay.evaluate.items import AskedItem
from assay.evaluate.labels import RATED
from assay.evaluate.scores import Scores, place_of

#: Cuts of the ladder: between the whole numbers of the scale, and at them.
CUTS = tuple(step / 2 for step in range(1, 8))
#: The attribute of which less is better, so that a rule keeps what is below a cut.
_LESS_IS_BETTER = frozenset({"toxicity"})
_LABELS = 5


@dataclass(frozen=True, slots=True)
class _Rated:
    """An answer that people rated and the model scored."""

    rated: float
    score: float
    characters: float
    opening: bytes
    starter: float | None


def agreements(
    items: Sequence[AskedItem], scores: Scores, starter: Scores | None
) -> dict[str, AttributeAgreement]:
    """The agreement for everything that people rated and the model has a column for."""
    names = sorted({name for item in items for name in item.given}, key=RATED.index)
    found = {}
    for name in names:
        column = column_for(name, scores)
        rated = _rated(items, name, scores, column, starter)
        if rated:
            found[name] = _agreement(name, column, rated, on_scale=column == name and name in ATTRIBUTES)
    return found


def column_for(name: str, scores: Scores) -> str:
    """The model's column of that name; else the one that it compares answers by."""
    return name if name in scores.columns else scores.by


def _rated(
    items: Sequence[AskedItem], name: str, scores: Scores, column: str, starter: Scores | None
) -> list[_Rated]:
    found = []
    for item in items:
        given = item.given.get(name) or (None,) * len(item.answers)
        for answer in item.answers:
            rated = given[answer.place]
            score = scores.values.get(place_of(answer), {}).get(column)
            if rated is None or score is None:
                continue
            of_starter: Mapping[str, float] = (
                starter.values.get(place_of(answer), {}) if starter is not None else {}
            )
            beside = of_starter.get(column_for(name, starter)) if starter is not None else None
            found.append(_Rated(rated, score, float(answer.characters), item.opening, beside))
    return found


def _agreement(name: str, column: str, rated: Sequence[_Rated], *, on_scale: bool) -> AttributeAgreement:
    people = np.array([one.rated for one in rated])
    model = np.array([one.score for one in rated])
    confusion = _confusion(name, rated) if on_scale else ()
    agreed = sum(confusion[label][label] for label in range(len(confusion)))
    beside = [one for one in rated if one.starter is not None]
    return AttributeAgreement(
        column=column,
        answers=len(rated),
        spearman=spearman(people, model),
        interval=spearman_interval(people, model, [one.opening for one in rated]),
        kendall=kendall(people.tolist(), model.tolist()),
        length_only=spearman(people, np.array([one.characters for one in rated])),
        starter=spearman(
            np.array([one.rated for one in beside]), np.array([float(one.starter or 0) for one in beside])
        ),
        agreement=agreed / len(rated) if on_scale else None,
        confusion=confusion,
        cuts=tuple(cut(name, step, people.tolist(), model.tolist()) for step in CUTS) if on_scale else (),
    )


def _confusion(name: str, rated: Sequence[_Rated]) -> tuple[tuple[int, ...], ...]:
    counts = [[0] * _LABELS for _ in range(_LABELS)]
    for one in rated:
        counts[label_of(name, one.rated)][label_of(name, one.score)] += 1
    return tuple(map(tuple, counts))


def label_of(name: str, value: float) -> int:
    """The label that the value becomes: clamped to 0–4 and rounded half to even.

    >>> label_of("helpfulness", 2.5), label_of("helpfulness", -1.2)
    (2, 0)
    """
    return parse_label(label_from_scores((name,), (value,)))[name]


def cut(name: str, step: float, people: Sequence[float], model: Sequence[float]) -> RuleCut:
    """How the rule at this cut, applied to the model's scores, agrees with itself applied to people's.

    >>> cut("helpfulness", 2.0, [3, 1, 2], [2.5, 2.5, 0.5]).precision
    0.5
    """
    less = name in _LESS_IS_BETTER
    holds = [value < step if less else value >= step for value in people]
    keeps = [value < step if less else value >= step for value in model]
    both = sum(one and other for one, other in zip(holds, keeps, strict=True))
    return RuleCut(
        rule=f"{name} {'<' if less else '>='} {step:g}",
        precision=both / sum(keeps) if any(keeps) else None,
        recall=both / sum(holds) if any(holds) else None,
        kept=sum(keeps),
        holds=sum(holds),
    )
