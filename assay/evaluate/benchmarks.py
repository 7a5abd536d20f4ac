"""The benchmarks by name. A new one is a module beside this, and a line here."""

from __future__ import annotations

from collections.abc import Iterable

from assay.evaluate.benchmark import Benchmark
from assay.evaluate.items import Line
from assay.evaluate.judgebench import JUDGEBENCH
from assay.evaluate.labels import LABELS
from assay.evaluate.preferences import PREFERENCES
from assay.evaluate.rewardbench import REWARDBENCH
from assay.evaluate.rewardbench_2 import REWARDBENCH_2
from assay.evaluate.rm_bench import RM_BENCH

BENCHMARKS: dict[str, Benchmark] = {
    one.name: one for one in (RM_BENCH, JUDGEBENCH, REWARDBENCH, REWARDBENCH_2, PREFERENCES, LABELS)
}


def recognised(line: Line) -> str | None:
    """The benchmark whose rows look like the line; None where it is none's."""
    return next((name for name, one in BENCHMARKS.items() if one.holds(line)), None)


def names(found: Iterable[str]) -> str:
    """The benchmarks' titles, for a sentence."""
    return " and ".join(sorted({BENCHMARKS[name].title for name in found}))
