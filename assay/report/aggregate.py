"""Every figure of the page that is computed from scores: counts, quantiles, shares and correlations.

``aggregated`` reads a few columns of ``Measures`` at a time. What it returns is as small for a million turns
as for ten, so that the page never holds a row a turn.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import polars as pl

from assay.report.measures import DROPPED, KEPT, QUARANTINED, Measures, read
from assay.rewards.scalar import scalar_among

#: Bars of a histogram.
BINS = 40
#: Thresholds at which the share that would be kept is counted.
CUTS = 160
#: Rows of a figure: the sources with the most turns, and so many turns of a conversation one by one.
MOST_SOURCES = 12
MOST_TURNS = 8
#: Ranks are held for all columns at once: of more turns, every second, third … is taken.
RANKED_AT_MOST = 1_000_000
#: So many numbers are computed with at once, in float64.
_BLOCK = 1 << 18
_PLACE = "place"
#: So many answers are compared at once.
_ANSWERS_AT_ONCE = 500_000
#: What ranks answers where the model has no one number.
_RANKED_BY = "helpfulness"
#: The names of the columns that every run has beside its attributes.
LENGTH, TURN = "answer length", "turn index"


@dataclass(frozen=True, slots=True)
class Quantiles:
    """How some numbers are spread."""

    count: int
    at: tuple[float, float, float, float, float]
    """The numbers below which 5, 25, 50, 75 and 95 per cent lie, interpolated."""
    mean: float


@dataclass(frozen=True, slots=True)
class ScoreBars:
    """Counts of records in equal steps from ``low`` to ``high``, both included, by outcome."""

    low: float
    high: float
    kept: tuple[int, ...]
    dropped: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChosenCut:
    """A threshold of one of the run's rules."""

    rule: str
    operator: str
    """``>=``, ``>``, ``<=`` or ``<``, the attribute standing on the left."""
    at: float
    passing: int
    """How many of the judged records hold this comparison."""


@dataclass(frozen=True, slots=True)
class KeptAt:
    """For each threshold, how many of the judged records have at least this score."""

    thresholds: tuple[float, ...]
    at_least: tuple[int, ...]
    above: tuple[int, ...]
    """How many have more than it."""


@dataclass(frozen=True, slots=True)
class OfAttribute:
    """The scores of one attribute."""

    name: str
    turns: Quantiles
    """Of all turns."""
    judged: Quantiles
    """Of the turns that rules look at: the last of each record whose turns have scores."""
    bars: ScoreBars
    """Of these."""
    kept_at: KeptAt
    cuts: tuple[ChosenCut, ...]
    least: tuple[float, int]
    """The smallest score, and how many of the judged records have it."""
    most: tuple[float, int]
    by_source: tuple[tuple[str, Quantiles], ...]
    """Of all turns, the sources with the most turns first; empty where there is one source."""
    by_turn: tuple[tuple[str, Quantiles], ...]
    """Of all turns by their index; empty where all are of one index."""
    by_language: tuple[tuple[str, Quantiles], ...]
    """Of the last answers whose language was looked at; empty where all are in one."""
    language_explains: float | None
    """The share of their variance between languages (epsilon squared), 0 to 1; None for one language."""


@dataclass(frozen=True, slots=True)
class OfSource:
    """What became of the records of one input file."""

    name: str
    read: int
    kept: int
    dropped: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class OfGroups:
    """How the model ranks answers to the same prompt."""

    ranked_by: str
    prompts: int
    """Prompts with at least two different answers that have scores."""
    ties: int
    """Those of which the two best score alike."""
    level: int
    """Those of which all answers score alike."""
    lengths_differ: int
    """Those of which the best and the worst answer differ in score and in length."""
    longer_wins: int
    """Those of these whose best answer is longer than the worst."""
    margins: Quantiles | None
    """The best score less the worst, of the groups that are not level."""
    margin_bars: tuple[float, float, tuple[int, ...]]
    """The least margin, the greatest, and counts in equal steps between them."""


@dataclass(frozen=True, slots=True)
class OfSides:
    """How the model ranks what a person chose and rejected in one line."""

    ranked_by: str
    lines: int
    agree: int
    """Lines of which the chosen answer scores higher."""
    ties: int
    longer_chosen: int
    """Lines of which the person chose the longer answer."""


@dataclass(frozen=True, slots=True)
class Correlations:
    """Rank correlations (Spearman) over turns that have scores; None where one of the two is constant."""

    names: tuple[str, ...]
    """The attributes, then what people gave, ``answer length`` and ``turn index``."""
    values: tuple[tuple[float | None, ...], ...]
    turns: int
    every: int
    """1: of all turns; 3: of every third."""


@dataclass(frozen=True, slots=True)
class Aggregated:
    """All of it. A run that scores nothing has no attributes, no groups and no correlations."""

    judged: int
    """Records whose turns have scores, kept or dropped."""
    attributes: tuple[OfAttribute, ...]
    ranked_by: str | None
    """What orders answers: the model's one number, else ``helpfulness``, else the first attribute."""
    sources: tuple[OfSource, ...]
    kept_lengths: Quantiles | None
    """Characters of the last answers of kept records."""
    dropped_lengths: Quantiles | None
    correlations: Correlations | None
    groups: OfGroups | None
    sides: OfSides | None
    repeated: int
    """Kept records whose conversation is that of a kept record before."""
    kept_rejected: int = 0
    """Kept records whose last answer is one that a person rejected."""


def aggregated(measures: Measures, rules: Sequence[str]) -> Aggregated:
    """The figures of a run whose rules are spelled so."""
    by = ranked_by(measures.attributes)
    by_outcome = read(measures.of_records("source", "outcome", "side").group_by(pl.all()).len())
    lengths = measures.of_last_turns("outcome", "characters")
    kept_lengths, dropped_lengths = (_of_outcome(lengths, outcome) for outcome in (KEPT, DROPPED))
    return Aggregated(
        judged=kept_lengths.len() + dropped_lengths.len() if measures.attributes else 0,
        attributes=tuple(_attributes(measures, rules)),
        ranked_by=by,
        sources=tuple(_sources(by_outcome, measures.sources)),
        kept_lengths=_quantiles(kept_lengths),
        dropped_lengths=_quantiles(dropped_lengths),
        correlations=_correlations(measures),
        groups=None if by is None else _groups(measures, by),
        sides=None if by is None else _sides(measures, by),
        repeated=_repeated(measures),
        kept_rejected=int(
            by_outcome.filter(pl.col("outcome") == KEPT, pl.col("side") == "rejected")["len"].sum()
        ),
    )


def _of_outcome(rows: pl.LazyFrame, outcome: str) -> pl.Series:
    """The numbers of those rows; their column stands beside that of the outcome."""
    return read(rows.filter(pl.col("outcome") == outcome).drop("outcome")).to_series()


def _repeated(measures: Measures) -> int:
    kept = measures.of_last_turns("outcome", "answer").filter(pl.col("outcome") == KEPT)
    return int(read(kept.select(pl.len() - pl.col("answer").n_unique())).item() or 0)


def ranked_by(attributes: Sequence[str]) -> str | None:
    """Which attribute orders answers; None without attributes.

    >>> ranked_by(["quality", "helpfulness"]), ranked_by(["reward"]), ranked_by([])
    ('helpfulness', 'reward', None)
    """
    if not attributes:
        return None
    return scalar_among(attributes) or (_RANKED_BY if _RANKED_BY in attributes else attributes[0])


def _attributes(measures: Measures, rules: Sequence[str]) -> Iterator[OfAttribute]:
    for name in measures.attributes:
        turns = measures.of_turns(name, "source", "turn").drop_nulls(name)
        judged = measures.of_last_turns("outcome", name).drop_nulls(name)
        of_turns = _quantiles(read(turns.select(name))[name])
        kept, dropped = (_of_outcome(judged, outcome) for outcome in (KEPT, DROPPED))
        ordered = pl.concat([kept, dropped]).sort()
        of_judged = _quantiles(ordered)
        if of_turns is None or of_judged is None:
            continue
        languages = read(measures.of_last_turns(name, "language").drop_nulls())
        low, high = float(ordered[0]), float(ordered[-1])
        cuts = tuple(_cuts(name, rules, ordered))
        yield OfAttribute(
            name=name,
            turns=of_turns,
            judged=of_judged,
            bars=ScoreBars(
                low,
                high,
                _counts(kept, low, high),
                _counts(dropped, low, high),
            ),
            kept_at=_kept_at(ordered, low, high, [cut.at for cut in cuts]),
            cuts=cuts,
            least=(low, int((ordered == low).sum())),
            most=(high, int((ordered == high).sum())),
            by_source=_by_source(turns, name, measures.sources),
            by_turn=_by_turn(turns, name),
            by_language=_by_language(languages, name),
            language_explains=_explained(languages, name),
        )


def _quantiles(numbers: pl.Series) -> Quantiles | None:
    if numbers.is_empty():
        return None
    ordered = numbers if numbers.flags["SORTED_ASC"] else numbers.sort()
    at = [_quantile(ordered, share) for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
    mean = math.fsum(float(block.sum()) for block in _blocks(ordered)) / ordered.len()
    return Quantiles(ordered.len(), (at[0], at[1], at[2], at[3], at[4]), mean)


def _blocks(numbers: pl.Series) -> Iterator[pl.Series]:
    """Yield the numbers in float64, some at a time: a copy of them all would take twice their memory."""
    for first in range(0, numbers.len(), _BLOCK):
        yield numbers[first : first + _BLOCK].cast(pl.Float64)


def _quantile(ordered: pl.Series, share: float) -> float:
    """Interpolated between neighbours."""
    place = share * (ordered.len() - 1)
    below = math.floor(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, ordered.len() - 1)])
    return low + (place - below) * (high - low)


def _ends(numbers: pl.Series) -> tuple[float, float]:
    """The least and the greatest number; zeros of none."""
    ordered = numbers.sort()
    return (float(ordered[0]), float(ordered[-1])) if ordered.len() else (0.0, 0.0)


def _counts(numbers: pl.Series, low: float, high: float, bins: int = BINS) -> tuple[int, ...]:
    """How many numbers are in each of equal steps from ``low`` to ``high``; the last one has ``high`` too."""
    step = (high - low) / bins or 1.0
    found: Counter[int] = Counter()
    for block in _blocks(numbers):
        places = ((block - low) / step).floor().clip(0, bins - 1).cast(pl.Int32)
        found.update(dict(places.value_counts().iter_rows()))
    return tuple(found[place] for place in range(bins))


#: ``helpfulness >= 2``, ``2 <= helpfulness``; the name may be an alias's, as ``judge.helpfulness``.
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_COMPARISON = re.compile(
    rf"(?<![\w.])(?:(?P<name>[A-Za-z_][\w.]*)\s*(?P<op><=|>=|<|>)\s*(?P<number>{_NUMBER})"
    rf"|(?P<left>{_NUMBER})\s*(?P<turned><=|>=|<|>)\s*(?P<right>[A-Za-z_][\w.]*))(?![\w.(])"
)
#: A call of a function, such as ``all(helpfulness >= 2)``: what it compares is not the last turn's score.
_CALL = re.compile(r"\b(?!(?:and|or|not)\b)\w+\s*\([^()]*\)", re.IGNORECASE)
_TURNED = {"<=": ">=", ">=": "<=", "<": ">", ">": "<"}


def thresholds_in(rule: str) -> list[tuple[str, str, float]]:
    """The comparisons of a name with a number in a rule, but for those inside of calls.

    >>> thresholds_in("helpfulness >= 2 and 1.5 > toxicity")
    [('helpfulness', '>=', 2.0), ('toxicity', '<', 1.5)]
    """
    without_calls, found_calls = rule, 1
    while found_calls:
        without_calls, found_calls = _CALL.subn(" ", without_calls)
    return [
        (found["name"], found["op"], float(found["number"]))
        if found["name"]
        else (found["right"], _TURNED[found["turned"]], float(found["left"]))
        for found in _COMPARISON.finditer(without_calls)
    ]


def _cuts(name: str, rules: Sequence[str], ordered: pl.Series) -> Iterator[ChosenCut]:
    for rule in rules:
        for named, operator, at in thresholds_in(rule):
            if named == name:
                at_least, above = _reaching(ordered, [at])
                passing = {
                    ">=": at_least[0],
                    ">": above[0],
                    "<": ordered.len() - at_least[0],
                    "<=": ordered.len() - above[0],
                }
                yield ChosenCut(rule, operator, at, passing[operator])


def _reaching(ordered: pl.Series, thresholds: Sequence[float]) -> tuple[list[int], list[int]]:
    """How many of the ordered scores are at least each threshold, and how many above it.

    A threshold is rounded to float32 first, as a rule's is.
    """
    asked = pl.Series(thresholds, dtype=pl.Float32)
    below = ordered.search_sorted(asked, side="left")
    not_above = ordered.search_sorted(asked, side="right")
    return (ordered.len() - below).to_list(), (ordered.len() - not_above).to_list()


def _kept_at(ordered: pl.Series, low: float, high: float, cuts: Sequence[float]) -> KeptAt:
    thresholds = sorted({*round_steps(low, high, CUTS), *cuts})
    at_least, above = _reaching(ordered, thresholds)
    return KeptAt(tuple(thresholds), tuple(at_least), tuple(above))


def round_steps(low: float, high: float, at_most: int) -> list[float]:
    """Numbers with few digits from below ``low`` to above ``high``, in equal steps, about ``at_most``.

    >>> round_steps(0.13, 0.91, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    digits = math.floor(math.log10(span / at_most))
    for factor in (1, 2, 5, 10):
        step = factor * 10.0**digits
        if span / step <= at_most:
            break
    first, last = math.floor(low / step), math.ceil(high / step)
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return [round(number * step, places) for number in range(first, last + 1)]


def _by_source(turns: pl.LazyFrame, name: str, sources: Sequence[str]) -> tuple[tuple[str, Quantiles], ...]:
    counted = read(turns.group_by("source").agg(pl.len().alias("count")))
    counts = counted.sort(["count", "source"], descending=[True, False])
    if counts.height < 2:
        return ()
    found = []
    for source in counts["source"].head(MOST_SOURCES):
        spread = _quantiles(read(turns.filter(pl.col("source") == source).select(name))[name])
        if spread is not None:
            found.append((sources[source], spread))
    return tuple(found)


def _by_turn(turns: pl.LazyFrame, name: str) -> tuple[tuple[str, Quantiles], ...]:
    ends = read(turns.select(pl.col("turn").min().alias("first"), pl.col("turn").max().alias("last")))
    first, last = ends.row(0)
    if first == last:
        return ()
    found = []
    for turn in range(min(last + 1, MOST_TURNS)):
        if spread := _quantiles(read(turns.filter(pl.col("turn") == turn).select(name))[name]):
            found.append((f"turn {turn}", spread))
    if spread := _quantiles(read(turns.filter(pl.col("turn") >= MOST_TURNS).select(name))[name]):
        found.append((f"turn {MOST_TURNS} and later", spread))
    return tuple(found)


def _by_language(answers: pl.DataFrame, name: str) -> tuple[tuple[str, Quantiles], ...]:
    counts = answers["language"].value_counts().sort(["count", "language"], descending=[True, False])
    if counts.height < 2:
        return ()
    found = []
    for language in counts["language"].head(MOST_SOURCES):
        if spread := _quantiles(answers.filter(pl.col("language") == language)[name]):
            found.append((language, spread))
    return tuple(found)


def _explained(answers: pl.DataFrame, name: str) -> float | None:
    """Epsilon squared (Kelley, 1935): eta squared, less what as many groups explain by chance; at least 0."""
    languages, count = answers["language"].n_unique(), answers.height
    if languages < 2 or count <= languages:
        return None
    scores = answers.select(pl.col(name).cast(pl.Float64), "language")
    means = scores.with_columns(pl.col(name).mean().over("language").alias("of_language"))
    whole = means[name].var(ddof=0)
    between = means["of_language"].var(ddof=0)
    if not isinstance(whole, float) or not isinstance(between, float) or whole <= 0:
        return None
    return max(0.0, 1 - (1 - between / whole) * (count - 1) / (count - languages))


def _sources(by_outcome: pl.DataFrame, names: Sequence[str]) -> Iterator[OfSource]:
    counted = by_outcome.group_by("source").agg(
        pl.col("len").sum().alias("read"),
        *(
            pl.col("len").filter(pl.col("outcome") == word).sum().alias(word)
            for word in (KEPT, DROPPED, QUARANTINED)
        ),
    )
    for row in counted.sort(["read", "source"], descending=[True, False]).iter_rows(named=True):
        yield OfSource(names[row["source"]], row["read"], row[KEPT], row[DROPPED], row[QUARANTINED])


def _correlations(measures: Measures) -> Correlations | None:
    if not measures.attributes:
        return None
    first = measures.attributes[0]
    turns = measures.turns.filter(pl.col(first).is_not_null())
    count = int(read(turns.select(pl.len())).item())
    if count < 2:
        return None
    every = math.ceil(count / RANKED_AT_MOST)
    columns = [*measures.attributes, *measures.given, "characters", "turn"]
    chosen = read(
        turns.select(columns).with_row_index(_PLACE).filter(pl.col(_PLACE) % every == 0).drop(_PLACE)
    )
    ranks = chosen.select(pl.col(column).rank().cast(pl.Float32) for column in columns)
    names = (*measures.attributes, *measures.given, LENGTH, TURN)
    found = {pair: _correlation(ranks, *pair) for pair in combinations(columns, 2)}
    found |= {(other, one): value for (one, other), value in found.items()}
    return Correlations(
        names,
        tuple(tuple(1.0 if one == other else found[one, other] for other in columns) for one in columns),
        ranks.height,
        every,
    )


def _correlation(ranks: pl.DataFrame, one: str, other: str) -> float | None:
    found = ranks.select(one, other).drop_nulls()
    # Where people rated some turns only, ranks among all of them are not ranks among these.
    if found.height < ranks.height:
        found = found.select(pl.all().rank())
    value = found.select(pl.corr(pl.col(one).cast(pl.Float64), pl.col(other).cast(pl.Float64))).item()
    return None if value is None or math.isnan(value) else float(value)


def _groups(measures: Measures, by: str) -> OfGroups | None:
    answers = measures.of_last_turns("prompt", "answer", "characters", by).drop_nulls()
    count = int(read(answers.select(pl.len())).item())
    # Some prompts at a time, each with all its answers.
    parts = max(1, math.ceil(count / _ANSWERS_AT_ONCE))
    found = [
        _compared(_of_prompts(answers.filter(pl.col("prompt") % parts == part), by)) for part in range(parts)
    ]
    prompts, ties, level, lengths_differ, longer_wins = (
        sum(numbers) for numbers in zip(*(one.counts for one in found), strict=True)
    )
    if not prompts:
        return None
    margins = pl.concat([one.margins for one in found])
    low, high = _ends(margins)
    return OfGroups(
        ranked_by=by,
        prompts=prompts,
        ties=ties,
        level=level,
        lengths_differ=lengths_differ,
        longer_wins=longer_wins,
        margins=_quantiles(margins),
        margin_bars=(low, high, _counts(margins, low, high)),
    )


def _of_prompts(answers: pl.LazyFrame, by: str) -> pl.DataFrame:
    """A row for each prompt with several answers: how many, the best, the second and the worst of them."""
    # Answers of one key are one answer, so it does not matter which of them stays.
    different = read(answers.unique(["prompt", "answer"], keep="any"))
    return (
        different.lazy()
        .sort("prompt", by, "answer", descending=[False, True, False])
        .group_by("prompt", maintain_order=True)
        .agg(
            pl.len().alias("answers"),
            pl.col(by).first().alias("best"),
            pl.col(by).get(1, null_on_oob=True).alias("second"),
            pl.col(by).last().alias("worst"),
            pl.col("characters").first().cast(pl.Int64).alias("best_characters"),
            pl.col("characters").last().cast(pl.Int64).alias("worst_characters"),
        )
        .filter(pl.col("answers") > 1)
        .collect()
    )


class _Compared(NamedTuple):
    """What some prompts come to."""

    counts: tuple[int, int, int, int, int]
    """Prompts; those with ties, those whose answers are all alike; those whose best and worst answer differ
    in length, and of these those whose best is the longer."""
    margins: pl.Series
    """Of each prompt whose answers are not all alike."""


def _compared(of_prompt: pl.DataFrame) -> _Compared:
    uneven = of_prompt.filter(pl.col("best") > pl.col("worst"))
    differ = uneven.filter(pl.col("best_characters") != pl.col("worst_characters"))
    counts = (
        of_prompt.height,
        int((of_prompt["best"] == of_prompt["second"]).sum()),
        of_prompt.height - uneven.height,
        differ.height,
        int((differ["best_characters"] > differ["worst_characters"]).sum()),
    )
    return _Compared(counts, uneven["best"].cast(pl.Float64) - uneven["worst"].cast(pl.Float64))


def pairs_by_people(measures: Measures, by: str) -> pl.DataFrame:
    """A row a line of which one chosen and one rejected answer have scores: where both are, and their scores.

    Columns ``piece``, ``source``, ``line``, ``row`` and ``row_rejected``, ``chosen``, ``rejected`` (scores),
    ``chosen_characters``, ``rejected_characters``.
    """
    columns = ("piece", "row", "source", "line", "side", "characters", by)
    sided = read(measures.of_last_turns(*columns).drop_nulls(["side", by]))
    sides = [
        sided.filter(pl.col("side") == side)
        .unique(["source", "line"], keep="first", maintain_order=True)
        .select(
            *("source", "line"),
            pl.col("piece").alias("piece" if side == "chosen" else "piece_rejected"),
            pl.col("row").alias("row" if side == "chosen" else "row_rejected"),
            pl.col(by).alias(side),
            pl.col("characters").alias(f"{side}_characters"),
        )
        for side in ("chosen", "rejected")
    ]
    return sides[0].join(sides[1], on=["source", "line"], how="inner", maintain_order="left")


def _sides(measures: Measures, by: str) -> OfSides | None:
    lines = pairs_by_people(measures, by)
    if lines.is_empty():
        return None
    return OfSides(
        ranked_by=by,
        lines=lines.height,
        agree=int((lines["chosen"] > lines["rejected"]).sum()),
        ties=int((lines["chosen"] == lines["rejected"]).sum()),
        longer_chosen=int((lines["chosen_characters"] > lines["rejected_characters"]).sum()),
    )


def share(part: int, whole: int) -> float:
    """``part`` of ``whole``, 0 to 1; 0 of nothing."""
    return part / whole if whole else 0.0


def largest(counts: Mapping[str, int]) -> tuple[str, int]:
    """The name with the largest count, of equal ones the first; empty and 0 of nothing."""
    return min(counts.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
