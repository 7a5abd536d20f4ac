"""Every example in a docstring runs, and gives what the docstring says."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest
from places import ROOT

#: How many examples the text of a module holds, by the module's name; modules without one left out.
WRITTEN = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): count
    for package in ("assay", "tasks", "flows")
    for path in sorted((ROOT / package).rglob("*.py"))
    if (count := len(re.findall(r"^[ \t]*>>> ", path.read_text(), re.MULTILINE)))
}


#: Modules whose examples start workers.
SLOW = {"assay.api"}


@pytest.mark.parametrize(
    "module", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in WRITTEN]
)
def test_the_examples_of_a_module_run(module: str, assay_home: Path) -> None:
    done = doctest.testmod(import_module(module))
    assert done.failed == 0, "what was expected is above"
    assert done.attempted == WRITTEN[module], "an example stands outside a docstring"
