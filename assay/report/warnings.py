"""What people who work with data should know of a run before they use what it kept, in plain sentences.

Each warning is a function of the figures: a sentence, or None where there is nothing to warn of. To add one,
write its function and add it to ``_WARNINGS``.
"""

from __future__ import annotations

from collections.abc import Callable

from assay.core.text import counted
from assay.export import RECORD_EXPORTS
from assay.report.aggregate import LENGTH, Aggregated, largest, share
from assay.storage.run_manifest import RunManifest

#: Fewer records, or groups, say nothing about a share.
_ENOUGH = 20
#: Kept answers that are so many times as long as dropped ones, or as short, were chosen by length too.
_LENGTH_RATIO = 1.5
#: A source with more of what is kept drowns the others.
_DOMINATES = 0.8
#: So many records with the very same best score cannot be told apart by it.
_AT_THE_END = 0.1
#: The shares of groups that the longer answer wins: half would be no preference.
_LONGER_WINS, _SHORTER_WINS = 0.65, 0.35
#: From here on a score mostly follows the length (Cohen, 1988, calls 0.5 a large effect).
_LARGE = 0.5
#: A model that agrees with people in fewer of their pairs guesses.
_GUESSES = 0.55
_TIES = 0.2
_REPEATED = 0.01
_QUARANTINED = 0.05
#: Rules that keep so much decide nothing; rules that keep so little leave a sliver.
_NEARLY_ALL, _NEARLY_NOTHING = 0.99, 0.01


def warnings_of(figures: Aggregated, manifest: RunManifest) -> list[str]:
    """Sentences, each with its full stop; the gravest first."""
    return [sentence for warn in _WARNINGS if (sentence := warn(figures, manifest)) is not None]


def _nothing_is_kept(figures: Aggregated, manifest: RunManifest) -> str | None:
    rows = manifest.rows
    if rows.kept or not rows.read:
        return None
    reason, count = largest({**manifest.dropped, **manifest.quarantined})
    return f"Nothing is kept. The most frequent reason is {reason}: {count:,} of {rows.read:,} records."


def _nearly_nothing_is_kept(figures: Aggregated, manifest: RunManifest) -> str | None:
    kept = manifest.rows.kept
    if figures.judged < _ENOUGH or not kept or share(kept, figures.judged) > _NEARLY_NOTHING:
        return None
    return (
        f"The rules keep {kept:,} of the {figures.judged:,} records that have scores: look at each of them."
    )


def _all_is_kept(figures: Aggregated, manifest: RunManifest) -> str | None:
    kept = manifest.rows.kept
    if not manifest.options.get("keep") or figures.judged < _ENOUGH:
        return None
    if share(kept, figures.judged) < _NEARLY_ALL:
        return None
    part = "all" if kept == figures.judged else f"{kept:,}"
    return f"The rules keep {part} of the {figures.judged:,} records that have scores: they hardly choose."


def _quarantine_is_large(figures: Aggregated, manifest: RunManifest) -> str | None:
    rows = manifest.rows
    if rows.read < _ENOUGH or share(rows.quarantined, rows.read) < _QUARANTINED:
        return None
    reason, count = largest(manifest.quarantined)
    return (
        f"{_percent(rows.quarantined, rows.read)} of the records are in quarantine, most for {reason} "
        f"({count:,}): what is kept may lack a kind of record."
    )


def _people_disagree(figures: Aggregated, manifest: RunManifest) -> str | None:
    sides = figures.sides
    if sides is None or sides.lines < _ENOUGH or share(sides.agree, sides.lines) >= _GUESSES:
        return None
    return (
        f"The model ranks the answer that a person chose higher in {_percent(sides.agree, sides.lines)} of "
        f"{counted(sides.lines, 'pairs')} ({sides.ranked_by}): guessing gives 50%."
    )


def _rejected_answers_are_kept(figures: Aggregated, manifest: RunManifest) -> str | None:
    files = [
        written.file
        for name, written in manifest.exports.items()
        if name in RECORD_EXPORTS and not RECORD_EXPORTS[name].holds_sides
    ]
    kept = figures.kept_rejected
    if kept < _ENOUGH or not files:
        return None
    return (
        f"{kept:,} of the {manifest.rows.kept:,} kept records end on an answer that a person rejected, and "
        f"{' and '.join(files)} {'hold' if len(files) > 1 else 'holds'} them as the others. "
        "--keep \"side == 'chosen'\" keeps what was chosen; a preference export holds pairs."
    )


def _length_decides_what_is_kept(figures: Aggregated, manifest: RunManifest) -> str | None:
    kept, dropped = figures.kept_lengths, figures.dropped_lengths
    if kept is None or dropped is None or min(kept.count, dropped.count) < _ENOUGH:
        return None
    middle_kept, middle_dropped = kept.at[2], dropped.at[2]
    if not middle_kept or not middle_dropped:
        return None
    lengths = f"in the middle {middle_kept:,.0f} and {middle_dropped:,.0f} characters"
    if middle_kept >= _LENGTH_RATIO * middle_dropped:
        ratio = middle_kept / middle_dropped
        return f"The kept answers are {ratio:.1f} times as long as the dropped ones ({lengths})."
    if middle_dropped >= _LENGTH_RATIO * middle_kept:
        ratio = middle_dropped / middle_kept
        return f"The dropped answers are {ratio:.1f} times as long as the kept ones ({lengths})."
    return None


def _length_decides_ranks(figures: Aggregated, manifest: RunManifest) -> str | None:
    groups = figures.groups
    if groups is None or groups.lengths_differ < _ENOUGH:
        return None
    wins = share(groups.longer_wins, groups.lengths_differ)
    of = f"of {counted(groups.lengths_differ, 'groups')} of answers to one prompt ({groups.ranked_by})"
    if wins >= _LONGER_WINS:
        part = _percent(groups.longer_wins, groups.lengths_differ)
        return f"The model ranks the longer answer higher in {part} {of}."
    if wins <= _SHORTER_WINS:
        part = _percent(groups.lengths_differ - groups.longer_wins, groups.lengths_differ)
        return f"The model ranks the shorter answer higher in {part} {of}."
    return None


def _scores_follow_length(figures: Aggregated, manifest: RunManifest) -> str | None:
    found = figures.correlations
    if found is None or found.turns < _ENOUGH:
        return None
    place = found.names.index(LENGTH)
    scored = {one.name for one in figures.attributes}
    strong = [
        f"{name} {value:+.2f}"
        for name, row in zip(found.names, found.values, strict=True)
        if name in scored and (value := row[place]) is not None and abs(value) >= _LARGE
    ]
    if not strong:
        return None
    return f"Scores follow the length of the answer (rank correlation: {', '.join(strong)})."


def _one_source_dominates(figures: Aggregated, manifest: RunManifest) -> str | None:
    kept = {source.name: source.kept for source in figures.sources}
    whole = sum(kept.values())
    if len(kept) < 2 or whole < _ENOUGH:
        return None
    name, most = largest(kept)
    if share(most, whole) < _DOMINATES:
        return None
    read = {source.name: source.read for source in figures.sources}
    return (
        f"One source makes up {_percent(most, whole)} of what is kept, and "
        f"{_percent(read[name], sum(read.values()))} of what was read: {name}."
    )


def _many_have_the_best_score(figures: Aggregated, manifest: RunManifest) -> str | None:
    for one in figures.attributes:
        count = one.judged.count
        alike = one.least[0] == one.most[0]
        if count >= _ENOUGH and alike:
            return f"All {count:,} records have the same {one.name} ({one.most[0]:.4g}): it ranks nothing."
        if count >= _ENOUGH and share(one.most[1], count) >= _AT_THE_END:
            return (
                f"{_percent(one.most[1], count)} of the records have the maximum {one.name} "
                f"({one.most[0]:.4g}): above it nothing can be told apart."
            )
    return None


def _many_ties(figures: Aggregated, manifest: RunManifest) -> str | None:
    groups = figures.groups
    if groups is None or groups.prompts < _ENOUGH or share(groups.ties, groups.prompts) < _TIES:
        return None
    return (
        f"In {_percent(groups.ties, groups.prompts)} of {counted(groups.prompts, 'groups')} the two best "
        "answers score alike: the best of them is chosen by chance."
    )


def _kept_records_repeat(figures: Aggregated, manifest: RunManifest) -> str | None:
    kept = manifest.rows.kept
    if kept < _ENOUGH or share(figures.repeated, kept) < _REPEATED:
        return None
    part = _percent(figures.repeated, kept)
    return f"{part} of the kept records repeat another one word for word ({figures.repeated:,})."


_WARNINGS: tuple[Callable[[Aggregated, RunManifest], str | None], ...] = (
    _nothing_is_kept,
    _nearly_nothing_is_kept,
    _all_is_kept,
    _people_disagree,
    _rejected_answers_are_kept,
    _length_decides_ranks,
    _length_decides_what_is_kept,
    _scores_follow_length,
    _many_have_the_best_score,
    _many_ties,
    _one_source_dominates,
    _kept_records_repeat,
    _quarantine_is_large,
)


def _percent(part: int, whole: int) -> str:
    """A share in whole per cent; 0% and 100% only where that is exact."""
    percent = 100 * share(part, whole)
    if 0 < percent < 1:
        return "less than 1%"
    if 99 < percent < 100:
        return "more than 99%"
    return f"{percent:.0f}%"
