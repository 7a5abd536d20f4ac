"""``evaluation.json`` is described where people read, in the words of its types."""

from __future__ import annotations

import ast
import inspect
import re
from types import ModuleType

import pytest
from places import ROOT

from assay.evaluate import evaluation, figures

#: By heading of the page, the type whose fields stand there.
TYPES = {
    "## `evaluation.json`": "Evaluation",
    "### `models[]`, `ensemble`": "ModelEvaluation",
    "### a figure: `overall`, `groups.NAME`, `length_baseline` …": "Figure",
    "### `by_ties`": "ByTies",
    "### `models[].rows`": "ModelRows",
    "### `doubts`": "Doubts",
    "### `doubts.margins[]`": "MarginStep",
    "### a difference: `doubts.over_length`, `versus[].overall`": "FigureDifference",
    "### `labels.NAME`": "AttributeAgreement",
    "### `labels.NAME.cuts[]`": "RuleCut",
    "### `published[]`": "PublishedLine",
    "### `versus[]`": "Versus",
}


def described(module: ModuleType) -> dict[str, dict[str, str]]:
    """What each dataclass of a module says of its fields."""
    found = {}
    for cls in ast.parse(inspect.getsource(module)).body:
        if isinstance(cls, ast.ClassDef) and cls.name in TYPES.values():
            words = {}
            for field, below in zip(cls.body, cls.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    assert isinstance(below, ast.Expr), (cls.name, field.target.id)
                    assert isinstance(below.value, ast.Constant)
                    words[field.target.id] = " ".join(str(below.value.value).split())
            found[cls.name] = words
    return found


@pytest.mark.parametrize("heading", TYPES)
def test_the_page_describes_the_file_field_by_field(heading: str) -> None:
    page = (ROOT / "docs/evaluation.md").read_text()
    (table,) = re.findall(
        rf"^{re.escape(heading)}\n.*?\n\|---\|---\|\n(.*?)(?:\n\n|\Z)", page, re.DOTALL | re.MULTILINE
    )
    rows = [re.fullmatch(r"\| `(\w+)` \| (.*) \|", line) for line in table.strip().splitlines()]
    assert {row[1]: row[2] for row in rows if row} == (described(evaluation) | described(figures))[
        TYPES[heading]
    ]
    assert all(rows)
