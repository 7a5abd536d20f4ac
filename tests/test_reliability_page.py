"""docs/reliability.md has each fault, rule and fuzzed input once, and names tests that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from places import ROOT

PAGE = (ROOT / "docs/reliability.md").read_text()
#: The faults that Assay is to survive. More may follow them in the table.
FAULTS = [str(number) for number in range(1, 45)]
RULES = [f"S{number}" for number in range(1, 16)]
FUZZED = [f"F{number}" for number in range(1, 6)]
ROW = re.compile(r"\d+[a-z]?|[SF]\d+")
NAMED_TEST = re.compile(r"`(tests/\S+\.py)::(\w+)`")
NO_TEST = "—"


@dataclass(frozen=True)
class Row:
    """A row of one of the page's tables."""

    number: str
    shown_by: str

    @property
    def tests(self) -> list[tuple[str, str]]:
        """File and function of each test that it names."""
        return NAMED_TEST.findall(self.shown_by)


def rows_of(page: str) -> list[Row]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    return [Row(found[0], found[-1]) for found in cells if len(found) > 2 and ROW.fullmatch(found[0])]


@cache
def functions_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def problems(page: str) -> list[str]:
    """What is wrong with the page, in a line each."""
    rows = rows_of(page)
    numbers = [row.number for row in rows]
    found = [f"row {number} stands there {numbers.count(number)} times" for number in _not_once(numbers)]
    for row in rows:
        found += [
            f"row {row.number}: {file}::{test} is no test" for file, test in row.tests if not _is(file, test)
        ]
        if not row.tests and row.shown_by != NO_TEST:
            found.append(f"row {row.number} names no test and no {NO_TEST}")
        if row.tests and NAMED_TEST.sub("", row.shown_by).strip(" ,"):
            found.append(f"row {row.number} has more than names of tests, or one that is none")
    without = {row.number for row in rows if not row.tests}
    if without != _listed_as_not_covered(page):
        found.append(f"without a test are {sorted(without)}, and not what 'Not covered' lists")
    return found


def _not_once(numbers: list[str]) -> Iterable[str]:
    return [number for number in sorted({*FAULTS, *RULES, *FUZZED, *numbers}) if numbers.count(number) != 1]


def _is(file: str, test: str) -> bool:
    path = ROOT / file
    return test.startswith("test_") and path.is_file() and test in functions_in(path)


def _listed_as_not_covered(page: str) -> set[str]:
    _, _, section = page.partition("\n## Not covered\n")
    (listed,) = re.findall(r"^Rows without a test: (.+)\.$", section, re.MULTILINE)
    return set() if listed == "none" else set(listed.split(", "))


def test_every_fault_and_every_rule_has_one_row_whose_tests_exist() -> None:
    assert problems(PAGE) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "reported"),
    [
        (r"(::test_a_killed_worker_costs_its_own_)shard_only`", r"\1shards_only`", "row 3: .* is no test"),
        (r"test_scoring(\.py::test_with)", r"test_scores\1", "row 5: .* is no test"),
        (r"\n\| 20 \|[^\n]*", "", "row 20 stands there 0 times"),
        (r"\n\| F3 \|[^\n]*", "", "row F3 stands there 0 times"),
        (r"\n(\| S9 \|[^\n]*)", r"\n\1\n\1", "row S9 stands there 2 times"),
        (r"(\n\| 28 \|.*\|) `[^\n]*", r"\1 — |", r"without a test are .*'28'.*, and not what"),
        (r"Rows without a test: .*\.", "Rows without a test: 1.", "and not what 'Not covered' lists"),
        (r"(\n\| 38 \|.*\|) `tests/([^`]*)`", r"\1 `\2`", "row 38 names no test"),
    ],
)
def test_a_page_that_is_wrong_is_noticed(old: str, new: str, reported: str) -> None:
    altered = re.sub(old, new, PAGE)
    assert altered != PAGE
    assert any(re.search(reported, problem) for problem in problems(altered)), problems(altered)
