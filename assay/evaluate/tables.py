"""An evaluation as tables: for a terminal, and as Markdown for a model card or for Prefect's pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import rich.box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from assay.core.text import counted, printable
from assay.evaluate.evaluation import Evaluation, FigureDifference, ModelEvaluation
from assay.evaluate.figures import Figure
from assay.report.evaluation_page import Section
from assay.report.summary import escaped

_NOTHING = "–"
#: A first column is at least so wide, where its names are.
_NARROW = 14


def percent(value: float | None) -> str:
    """``59.4``; a dash for what does not apply."""
    return _NOTHING if value is None else f"{100 * value:.1f}"


def _range(interval: tuple[float, float] | None) -> str:
    return _NOTHING if interval is None else f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}"


def counts_of(figure: Figure) -> str:
    """``208/350``."""
    correct = figure.correct if isinstance(figure.correct, int) else round(figure.correct, 1)
    return f"{correct:,}/{figure.total:,}"


def _correlation(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2f}"


def _moved(difference: FigureDifference) -> str:
    if difference.difference is None:
        return _NOTHING
    shown = f"{100 * difference.difference:+.1f}"
    if difference.interval is None:
        return shown
    return f"{shown} ({100 * difference.interval[0]:+.1f} to {100 * difference.interval[1]:+.1f})"


def sections(evaluation: Evaluation) -> Iterator[Section]:
    """Yield every table, each with what part of the benchmark it is of."""
    yield from sections_of_several(evaluation)
    for model in evaluation.models:
        yield from sections_of(evaluation, model)


def sections_of_several(evaluation: Evaluation) -> Iterator[Section]:
    """Yield the tables that hold models against each other; none for one model."""
    of = of_what(evaluation)
    shown = [*evaluation.models, *([evaluation.ensemble] if evaluation.ensemble else [])]
    if len(shown) > 1:
        yield _side_by_side(evaluation, shown, of)
    if evaluation.versus:
        yield _versus(evaluation, of)


def sections_of(evaluation: Evaluation, model: ModelEvaluation) -> Iterator[Section]:
    """Yield the tables of one model."""
    of = of_what(evaluation)
    yield _figures(evaluation, model, of)
    if model.labels:
        yield _labels(model, of)
        yield from _confusions(model, of)
        yield _cuts(model, of)
    yield _doubts(model, of)
    if model.doubts.margins:
        yield _margins(model, of)
    if model.published:
        yield _published(model, of)


def of_what(evaluation: Evaluation) -> str:
    """``JudgeBench, 350 rows``; where rows are missing, how many and of how many."""
    rows = evaluation.rows.used
    if evaluation.complete:
        return f"{evaluation.title}, {counted(rows, 'rows')}"
    if evaluation.expected is not None:
        return f"{evaluation.title}, NOT COMPLETE: {rows:,} of {evaluation.expected:,} rows"
    return f"{evaluation.title}, NOT COMPLETE: {rows:,} of {evaluation.rows.read:,} rows"


def named_figures(model: ModelEvaluation) -> Iterator[tuple[str, Figure]]:
    """Yield all figures of a model with their names, the overall one first."""
    yield "overall", model.overall
    if model.overall_by_rows is not None:
        yield "overall, by rows", model.overall_by_rows
    for name, figure in model.groups.items():
        yield name, figure
        if name in model.groups_by_rows:
            yield f"{name}, by rows", model.groups_by_rows[name]


def _side_by_side(evaluation: Evaluation, models: Sequence[ModelEvaluation], of: str) -> Section:
    found = [dict(named_figures(model)) for model in models]
    names = dict.fromkeys(name for one in found for name in one)
    rows = tuple(
        (name, *(percent(one[name].accuracy) if name in one else _NOTHING for one in found)) for name in names
    )
    return Section(f"Models side by side: {of}", ("%", *(model.name for model in models)), rows)


def _versus(evaluation: Evaluation, of: str) -> Section:
    rows = tuple(
        (
            f"{one.first} – {one.second}",
            _moved(one.overall),
            f"{one.rows:,}",
            percent(one.agreement),
            percent(one.both_right),
            percent(one.both_wrong),
        )
        for one in evaluation.versus
    )
    headings = ("pair of models", "difference (95%)", "rows", "agree", "both right", "both wrong")
    return Section(f"Differences on the same rows: {of}", headings, rows)


def _figures(evaluation: Evaluation, model: ModelEvaluation, of: str) -> Section:
    by = f", by {model.by}" if model.kind == "model" else ""
    beside = () if model.starter_baseline is None else ("starter",)
    headings = ("%", "right", "95%", "counts", "ties", "length", *beside)
    rows = tuple(
        (
            name,
            percent(figure.accuracy),
            _range(figure.interval),
            counts_of(figure),
            f"{figure.ties:,}",
            percent(figure.length_only),
            *(percent(figure.starter) for _ in beside),
        )
        for name, figure in named_figures(model)
    )
    return Section(f"{model.name}{by}: {of}", headings, rows, tuple(_notes(evaluation, model)))


def _notes(evaluation: Evaluation, model: ModelEvaluation) -> Iterator[str]:
    yield from evaluation.rules
    ties = model.by_ties
    if model.overall.ties:
        yield (
            f"With each tie lost {percent(ties.lost)}, as half a point {percent(ties.half)}, left out "
            f"{percent(ties.left_out)}; by the benchmark's own rule {percent(ties.own_rule)}."
        )
    for reason, count in model.rows.unscored.items():
        yield f"{counted(count, 'rows')} without a score: {reason}."
    yield from (f"  {example}" for example in model.rows.examples)
    yield from model.notes


def _doubts(model: ModelEvaluation, of: str) -> Section:
    doubts = model.doubts
    rows = [
        ("overall less that of length alone", _moved(doubts.over_length)),
        ("overall where the shorter answer counts", percent(doubts.shorter_only)),
        ("correlation with length, all answers", _correlation(doubts.length_correlation)),
        ("correlation with length, within prompts", _correlation(doubts.length_correlation_within_prompts)),
        ("right where the better answer is shorter", _with_counts(doubts.chosen_shorter)),
        ("prompts whose answers score all the same", percent(doubts.no_spread)),
        ("rows without a score", f"{sum(model.rows.unscored.values()):,}"),
    ]
    rows += [(f"right where {name}", _with_counts(figure)) for name, figure in doubts.positions.items()]
    rows += [(f"right in language {name}", _with_counts(figure)) for name, figure in doubts.languages.items()]
    return Section(f"What to doubt of {model.name}: {of}", ("", "figure"), tuple(rows))


def _with_counts(figure: Figure) -> str:
    return f"{percent(figure.accuracy)} ({counts_of(figure)})"


def _margins(model: ModelEvaluation, of: str) -> Section:
    rows = tuple(
        (f"{step.margin:.4g}", percent(step.accuracy), f"{step.pairs:,}", percent(step.share))
        for step in model.doubts.margins
    )
    headings = ("scores differ by at least", "right", "pairs", "% of all")
    return Section(f"Accuracy by margin of {model.name}: {of}", headings, rows)


def _labels(model: ModelEvaluation, of: str) -> Section:
    rows = tuple(
        (
            name if name == one.column else f"{name} ({one.column})",
            f"{one.answers:,}",
            _correlation(one.spearman),
            _NOTHING if one.interval is None else f"{one.interval[0]:.2f} to {one.interval[1]:.2f}",
            _correlation(one.kendall),
            _correlation(one.length_only),
            _correlation(one.starter),
            percent(one.agreement),
        )
        for name, one in model.labels.items()
    )
    headings = ("rated", "answers", "Spearman", "95%", "Kendall", "length", "starter", "% same")
    return Section(f"Agreement of {model.name} with people: {of}", headings, rows)


def _confusions(model: ModelEvaluation, of: str) -> Iterator[Section]:
    for name, one in model.labels.items():
        if one.confusion:
            rows = tuple(
                (str(label), *(f"{count:,}" for count in counts))
                for label, counts in enumerate(one.confusion)
            )
            headings = ("people's label", *(f"model: {label}" for label in range(len(one.confusion))))
            yield Section(f"Labels for {name} by {model.name}: {of}", headings, rows)


def _cuts(model: ModelEvaluation, of: str) -> Section:
    rows = tuple(
        (cut.rule, percent(cut.precision), percent(cut.recall), f"{cut.kept:,}", f"{cut.holds:,}")
        for one in model.labels.values()
        for cut in one.cuts
    )
    headings = ("--keep", "precision", "recall", "kept", "by people")
    return Section(f"Rules on {model.name}: {of}", headings, rows)


def _published(model: ModelEvaluation, of: str) -> Section:
    rows = tuple(
        (
            line.figure,
            percent(line.printed),
            percent(line.found),
            _range(line.interval),
            "OFF by more than its interval" if line.off else "within",
        )
        for line in model.published
    )
    notes = dict.fromkeys(
        [f"Printed: {line.source}." for line in model.published]
        + [f"{line.figure}: {line.note}." for line in model.published if line.note]
    )
    headings = ("%", "printed", "found", "95%", "the printed figure is")
    return Section(f"{model.name} beside what is published: {of}", headings, rows, tuple(notes))


def opening(evaluation: Evaluation) -> list[str]:
    """What became of the rows, and why the evaluation is not complete."""
    rows = evaluation.rows
    line = f"{counted(rows.read, 'rows')} read: {rows.used:,} used"
    for word, count, reasons in (
        ("dropped", rows.dropped, evaluation.dropped),
        ("quarantined", rows.quarantined, evaluation.quarantined),
    ):
        if count:
            line += (
                f", {count:,} {word} ({', '.join(f'{name} {number:,}' for name, number in reasons.items())})"
            )
    return [line, *(f"! Not complete: {why}." for why in evaluation.why_incomplete)]


def evaluation_table(evaluation: Evaluation) -> RenderableType:
    """The tables for a terminal. Text from data is never markup, and cannot command the terminal."""
    parts: list[RenderableType] = [Text(printable(line)) for line in opening(evaluation)]
    for section in sections(evaluation):
        table = Table(
            title=Text(printable(section.title), style="bold"),
            title_justify="left",
            box=rich.box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for number, heading in enumerate(section.headings):
            right = number > 0 and all(_is_short(row[number]) for row in section.rows)
            # A name is folded where a column has to be: figures are not.
            width = max(map(len, (row[number] for row in section.rows)), default=0)
            table.add_column(
                Text(printable(heading)),
                justify="right" if right else "left",
                overflow="fold",
                no_wrap=right,
                min_width=min(width, _NARROW),
            )
        for row in section.rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        parts += [Text(""), table, *(Text(printable(note), style="dim") for note in section.notes)]
    return Group(*parts)


def _is_short(cell: str) -> bool:
    return len(cell) <= 16


def evaluation_markdown(evaluation: Evaluation, *, level: int = 2) -> str:
    """The tables as Markdown. Text from data is escaped: it can be neither markup nor a link."""
    written = [f"{'#' * level} {escaped(evaluation.title)}", ""]
    written += [f"{escaped(line)}\n" for line in opening(evaluation)]
    if evaluation.source:
        written.append(f"{escaped('Rules: ' + evaluation.source)}\n")
    for section in sections(evaluation):
        written += [f"{'#' * (level + 1)} {escaped(section.title)}", ""]
        written.append(f"| {' | '.join(map(escaped, section.headings))} |")
        written.append(f"|:--|{'--:|' * (len(section.headings) - 1)}")
        written += [f"| {' | '.join(map(escaped, row))} |" for row in section.rows]
        written += ["", *(f"{escaped(note.strip())}\n" for note in section.notes)]
    return "\n".join(written)


def figure_rows(evaluation: Evaluation) -> list[dict[str, str]]:
    """Every figure of every model as rows for a table in Prefect's pages.

    The starter model has a column if the evaluation asked it too.
    """
    models = (*evaluation.models, *([evaluation.ensemble] if evaluation.ensemble else []))
    figures = [(model, name, figure) for model in models for name, figure in named_figures(model)]
    has_starter = any(figure.starter is not None for _, _, figure in figures)
    return [
        {
            "model": printable(model.name),
            "figure": printable(name),
            "right, %": percent(figure.accuracy),
            "95%": _range(figure.interval),
            "counts": counts_of(figure),
            "ties": f"{figure.ties:,}",
            "length only, %": percent(figure.length_only),
            **({"starter, %": percent(figure.starter)} if has_starter else {}),
        }
        for model, name, figure in figures
    ]
