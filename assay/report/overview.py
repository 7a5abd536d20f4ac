"""The three answers at the top of the page: what was kept, what was lost, whether the model is to be trusted.

Sentences made of a run's figures, for somebody who sees Assay for the first time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

from assay.core.text import counted
from assay.report.aggregate import LENGTH, Aggregated
from assay.report.figures import frequent, percent
from assay.storage.run_manifest import RunManifest

_RULE = "rule: "
_REASONS_NAMED = 4
_FIELDS_NAMED = 6


def what_was_kept(manifest: RunManifest) -> Iterator[str]:
    """Yield how many records were kept, by what, and where they are."""
    rows = manifest.rows
    rules = list(manifest.options.get("keep") or ())
    yield (
        f"{rows.kept:,} of {counted(rows.read, 'records')} ({percent(rows.kept, rows.read)}). A record is "
        "one conversation of the input."
    )
    if manifest.model is None and not manifest.models:
        yield "The run stopped before scoring, so nothing was judged."
    elif rules:
        listed = " and ".join(f"“{rule}”" for rule in rules)
        which = "all rules" if len(rules) > 1 else "the rule"
        yield f"A record is kept if its last answer passes {which}: {listed}."
    elif not manifest.dropped:
        yield "There is no rule: every record that has its scores is kept."
    if chosen := _chosen_besides(manifest):
        yield f"Of these the run keeps what {' and '.join(chosen)} leaves."
    for written in manifest.exports.values():
        left_out = sum(written.left_out.values())
        lacking = (
            f"; {left_out:,} that it cannot hold are left out ({_reasons(written.left_out)})"
            if left_out
            else ""
        )
        yield f"{written.file} holds {counted(written.rows, 'rows')}{lacking}."


def _chosen_besides(manifest: RunManifest) -> list[str]:
    """The options that choose records besides the rules, each with its value."""
    options = manifest.options
    evaluated = [f"--decontaminate {PurePath(file).name}" for file in options.get("decontaminate") or ()]
    return evaluated + [f"--{name} {options[name]}" for name in ("dedup", "target") if options.get(name)]


def what_was_lost(manifest: RunManifest) -> Iterator[str]:
    """Yield how many records were not kept, and why."""
    rows = manifest.rows
    if not rows.dropped and not rows.quarantined:
        yield "No record. Each one that was read is kept."
    if rows.dropped:
        yield (
            f"{counted(rows.dropped, 'records')} ({percent(rows.dropped, rows.read)}) "
            f"{'was' if rows.dropped == 1 else 'were'} read and dropped: {_reasons(manifest.dropped)}. "
            "decisions.parquet names each with its reason."
        )
    if rows.quarantined:
        yield (
            f"{counted(rows.quarantined, 'records')} ({percent(rows.quarantined, rows.read)}) could not be "
            f"processed: {_reasons(manifest.quarantined)}. quarantine.jsonl holds the originals, so that "
            "they can be mended and run again."
        )
    if manifest.left_out:
        fields = ", ".join(name for name, _ in frequent(manifest.left_out)[:_FIELDS_NAMED])
        more = len(manifest.left_out) - _FIELDS_NAMED
        others = f" and {more:,} more" if more > 0 else ""
        yield f"Fields of the input that no file carries: {fields}{others}."
    yield from (f"{shortfall}." for shortfall in manifest.shortfalls)


def is_the_model_to_be_trusted(
    figures: Aggregated, manifest: RunManifest, warnings: Sequence[str]
) -> Iterator[str]:
    """Yield what speaks for and against the scores. Empty where nothing was scored."""
    models = manifest.models or ({manifest.model.name: manifest.model} if manifest.model else {})
    if not models:
        return
    for name, model in models.items():
        yield from (f"{name}: {note}" if len(models) > 1 else note for note in model.notes)
    for what, count in manifest.warnings.items():
        yield f"{counted(count, 'conversations')} {'is' if count == 1 else 'are'} {what}."
    if (sides := figures.sides) is not None:
        yield (
            f"It ranks the answer that a person chose higher in {percent(sides.agree, sides.lines)} of "
            f"{counted(sides.lines, 'pairs')}. Always taking the longer answer would be right in "
            f"{percent(sides.longer_chosen, sides.lines)}."
        )
    if (groups := figures.groups) is not None and groups.lengths_differ:
        yield (
            f"Of two answers to one prompt it ranks the longer one higher in "
            f"{percent(groups.longer_wins, groups.lengths_differ)} of "
            f"{counted(groups.lengths_differ, 'cases')}; 50% would mean that length plays no part."
        )
    if (follows := _follows_length(figures)) is not None:
        yield follows
    if sum(manifest.failed.values()):
        yield f"{counted(sum(manifest.failed.values()), 'turns')} got no score: {_reasons(manifest.failed)}."
    if not warnings:
        yield "Nothing that is measured here is a reason for doubt. What its card says holds beside it."


def _follows_length(figures: Aggregated) -> str | None:
    found = figures.correlations
    if found is None or figures.ranked_by is None or figures.ranked_by not in found.names:
        return None
    value = found.values[found.names.index(figures.ranked_by)][found.names.index(LENGTH)]
    if value is None:
        return None
    strength = "strongly" if abs(value) >= 0.5 else "moderately" if abs(value) >= 0.3 else "hardly"
    return (
        f"Its {figures.ranked_by} {strength} follows the length of the answer (rank correlation "
        f"{value:+.2f}; 0 is none, 1 complete)."
    )


def _reasons(counts: Mapping[str, int]) -> str:
    """``63 for rule: helpfulness >= 2, 2 for not_json`` and how many reasons more."""
    ordered = frequent(counts)
    named = [
        f"{count:,} for {'the rule “' + name.removeprefix(_RULE) + '”' if name.startswith(_RULE) else name}"
        for name, count in ordered[:_REASONS_NAMED]
    ]
    more = len(ordered) - len(named)
    return ", ".join(named) + (f", and {counted(more, 'more reasons')}" if more else "")
