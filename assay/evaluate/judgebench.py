"""``judgebench``: pairs of answers A and B of which one is right, from four kinds of sources.

Rows: ``question``, ``response_A``, ``response_B``, ``label`` (``A>B`` or ``B>A``), ``source``,
``response_model``, ``pair_id``. Its own output files are such rows too, with ``judgments`` beside.

Rules: ScalerLab/JudgeBench, ``utils/judges.py`` (a reward model decides ``A>B`` where A scores strictly
higher, else ``B>A``) and ``utils/metrics.py`` (right decisions over all pairs).
"""

from __future__ import annotations

from collections.abc import Sequence

from assay.evaluate.answers import ComparedPair, ScoredItem, pair_units
from assay.evaluate.benchmark import Benchmark, Figures
from assay.evaluate.figures import ResampledUnit, share
from assay.evaluate.items import AskedItem, Line, RefusedLine, answer_of, by_line, id_of, language_of

#: The beginnings of sources, and the group that each is counted in.
SOURCES = {
    "mmlu-pro": "knowledge",
    "livebench-reasoning": "reasoning",
    "livebench-math": "math",
    "livecodebench": "coding",
}
GROUPS = tuple(SOURCES.values())
LABELS = ("A>B", "B>A")
#: How many pairs there are by each model that wrote the answers (the repository's ``data/``).
PAIRS_BY_MODEL = {"gpt-4o-2024-05-13": 350, "claude-3-5-sonnet-20240620": 270}


def read(line: Line) -> AskedItem | RefusedLine:
    """The row as an item of two answers, A first."""
    label, source = line.text("label"), line.text("source") or ""
    if label not in LABELS:
        return RefusedLine(line, f"unknown_label: {label!r} is neither A>B nor B>A")
    if len(line.records) != 2:
        return RefusedLine(line, f"wrong_answers: {len(line.records)} answers, not A and B")
    group = next((group for start, group in SOURCES.items() if source.startswith(start)), None)
    if group is None:
        return RefusedLine(line, f"unknown_source: {source!r} begins with none of {', '.join(SOURCES)}")
    worths = (1.0, 0.0) if label == "A>B" else (0.0, 1.0)
    # The model that wrote the answers decides how many rows the benchmark has.
    written_by = line.text("response_model") or ""
    return AskedItem(
        id_of(line, "pair_id"),
        group,
        line.records[0].turns[-1].prompt,
        line.file,
        line.number,
        tuple(answer_of(record, place, worths[place]) for place, record in enumerate(line.records)),
        language_of(line),
        positioned=True,
        part=written_by,
    )


def holds(line: Line) -> bool:
    """Whether the line has JudgeBench's labels and a source."""
    return line.text("label") in LABELS and line.text("source") is not None


def points(pair: ComparedPair) -> float:
    """A point by JudgeBench's rule: a tie is decided as ``B>A``, so it is right where B is the better one."""
    return float(pair.margin > 0 or (pair.margin == 0 and pair.better.place == 1))


def units(items: Sequence[ScoredItem]) -> list[ResampledUnit]:
    """A unit for each pair."""
    return pair_units(items, points)


def figures(groups: Sequence[str]) -> Figures:
    """Each group, and all pairs together."""
    return Figures(share(*GROUPS), {name: share(name) for name in GROUPS if name in groups})


def expected(items: Sequence[AskedItem]) -> int:
    """The pairs of the models whose answers these are; GPT-4o's where the rows name none."""
    models = {item.part for item in items} & PAIRS_BY_MODEL.keys()
    return sum(PAIRS_BY_MODEL[name] for name in models or {"gpt-4o-2024-05-13"})


JUDGEBENCH = Benchmark(
    "judgebench",
    "JudgeBench",
    holds,
    by_line(read),
    figures,
    units,
    expected,
    rules=("A>B where A scores strictly higher, else B>A: a tie counts for B.",),
    source="https://github.com/ScalerLab/JudgeBench",
    swaps_count=True,
)
