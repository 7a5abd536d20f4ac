"""An evaluation as a page: whether each model is to be trusted, in sentences, pictures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from markupsafe import Markup

from assay.core.text import counted
from assay.evaluate.evaluation import AttributeAgreement, Evaluation, FigureDifference, ModelEvaluation
from assay.evaluate.tables import (
    counts_of,
    named_figures,
    of_what,
    opening,
    percent,
    sections_of,
    sections_of_several,
)
from assay.report.accuracies import Accuracy, AtMargin, accuracies, by_margin
from assay.report.evaluation_page import EvaluationContent, ModelContent, evaluation_page

_DRAWN = 24


@dataclass(frozen=True, slots=True)
class EvaluationShown:
    """A page, and its pictures for other places. Both are empty where none could be made."""

    page: bytes = b""
    pictures: Mapping[str, Markup] = field(default_factory=dict)
    """By what each shows."""


def shown(evaluation: Evaluation, command: str) -> EvaluationShown:
    """The page of an evaluation, which ``command`` repeats."""
    models = [_model(evaluation, model) for model in evaluation.models]
    content = EvaluationContent(
        title=_title(evaluation),
        of=of_what(evaluation),
        opening=opening(evaluation)[:1],
        warnings=[*_warnings(evaluation)],
        models=models,
        together=[*sections_of_several(evaluation)],
        command=command,
        provenance=[*_provenance(evaluation)],
        inputs=evaluation.inputs,
    )
    pictures = {
        f"{what} {model.name}": picture
        for model in models
        for what, picture in (("accuracies", model.accuracies), ("by-margin", model.by_margin))
        if picture is not None
    }
    return EvaluationShown(evaluation_page(content), pictures)


def _title(evaluation: Evaluation) -> str:
    """``JudgeBench, 350 rows: judge 59.4% right``."""
    figures = ", ".join(f"{model.name} {percent(model.overall.accuracy)}%" for model in evaluation.models)
    right = " right" if any(model.overall.accuracy is not None for model in evaluation.models) else ""
    return f"{of_what(evaluation)}: {figures}{right}"


def _warnings(evaluation: Evaluation) -> Iterator[str]:
    """Yield what makes the figures doubtful, whatever they are."""
    if (unusable := evaluation.unusable) is not None:
        yield unusable
    yield from (f"Not complete: {why}." for why in evaluation.why_incomplete)
    for model in evaluation.models:
        if _is_level(model.doubts.over_length):
            yield f"{model.name} cannot be told apart from the length of the answer alone."
        elif _is_worse(model.doubts.over_length):
            yield f"{model.name} is right less often than the length of the answer alone."
        off = [line.figure for line in model.published if line.off]
        if off:
            yield f"{model.name}: what is printed lies outside of the interval for {', '.join(off)}."


def _better_by_length(model: ModelEvaluation) -> str:
    """Which answers are right more often: the longer or the shorter ones."""
    return (
        "longer" if (model.length_baseline.accuracy or 0) >= (model.doubts.shorter_only or 0) else "shorter"
    )


def _is_level(difference: FigureDifference) -> bool:
    """Whether the two figures cannot be told apart."""
    return difference.interval is not None and difference.interval[0] <= 0 <= difference.interval[1]


def _is_worse(difference: FigureDifference) -> bool:
    return difference.interval is not None and difference.interval[1] < 0


def _model(evaluation: Evaluation, model: ModelEvaluation) -> ModelContent:
    # A picture of a hundred rows is no picture; the table has them all.
    drawn = [
        Accuracy(
            name,
            figure.accuracy,
            figure.interval,
            counts_of(figure),
            figure.length_only,
            figure.starter,
        )
        for name, figure in named_figures(model)
        if figure.accuracy is not None
    ][:_DRAWN]
    steps = [AtMargin(step.margin, step.accuracy, step.share) for step in model.doubts.margins]
    return ModelContent(
        name=model.name,
        answers=[*_answers(model)],
        tables=[*sections_of(evaluation, model)],
        accuracies=accuracies(model.name, drawn) if drawn else None,
        by_margin=by_margin(model.name, steps) if len(steps) > 1 else None,
    )


def _answers(model: ModelEvaluation) -> Iterator[str]:
    """Yield whether it is to be trusted, a sentence each."""
    overall, doubts = model.overall, model.doubts
    if overall.accuracy is None:
        yield "No row has its scores, so nothing can be said of it."
        return
    yield f"It is right in {percent(overall.accuracy)}% ({counts_of(overall)}{_between(overall.interval)})."
    over = doubts.over_length
    if over.difference is not None:
        points = f"{100 * abs(over.difference):.1f} points {'more' if over.difference >= 0 else 'less'}"
        level = ", so the model cannot be told apart from that" if _is_level(over) else ""
        between = _between(over.interval, " (")
        yield f"That is {points} than by always taking the {_better_by_length(model)} answer{between}{level}."
    if model.starter_baseline is not None:
        by_starter = percent(model.starter_baseline.accuracy)
        yield f"The starter, which is there to try things out, is right in {by_starter}%."
    if doubts.chosen_shorter.total:
        yield (
            f"Where the better answer is the shorter one it is right in "
            f"{percent(doubts.chosen_shorter.accuracy)}% ({counts_of(doubts.chosen_shorter)})."
        )
    if doubts.no_spread:
        yield f"It gives all answers the same score in {percent(doubts.no_spread)}% of the prompts."
    if unscored := sum(model.rows.unscored.values()):
        yield f"{counted(unscored, 'rows')} got no score and {'is' if unscored == 1 else 'are'} in no figure."
    for name, one in model.labels.items():
        yield from _agreement(name, one)


def _agreement(name: str, one: AttributeAgreement) -> Iterator[str]:
    if one.spearman is not None:
        alone = (
            "" if one.length_only is None else f"; the length of the answer alone has {one.length_only:.2f}"
        )
        yield (
            f"Its {one.column} has a rank correlation of {one.spearman:.2f} with the {name} that people gave "
            f"{counted(one.answers, 'answers')} (0 is none, 1 complete){alone}."
        )


def _between(interval: tuple[float, float] | None, opened: str = "; ") -> str:
    if interval is None:
        return ""
    closed = ")" if opened == " (" else ""
    return f"{opened}95%: {100 * interval[0]:.1f} to {100 * interval[1]:.1f}{closed}"


def _provenance(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.source:
        yield f"Rules of the benchmark: {evaluation.source}"
    for model in evaluation.models:
        made = f", fingerprint {model.fingerprint}" if model.fingerprint else ""
        yield f"{model.name}: {model.source}{made}"
    if evaluation.resamples:
        yield f"Intervals: rows resampled {evaluation.resamples:,} times, with a fixed seed."
    versions = ", ".join(f"{name} {version}" for name, version in evaluation.versions.items() if version)
    if versions:
        yield f"Versions: {versions}"
