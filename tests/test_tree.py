"""The README's tree names what is there, and tests lie where the tree has what they test."""

from __future__ import annotations

import re
from pathlib import Path

from places import ROOT

PACKAGES = ("assay", "tasks", "flows")
MODULES = {
    path.relative_to(ROOT)
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__init__.py"
}


def tree() -> set[Path]:
    """Every file and folder that the README's tree names, at the place where the tree has it."""
    (lines,) = re.findall(r"## What is where\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    named, above = set(), [Path()]
    for line in lines.splitlines():
        indented, name, told = re.fullmatch(r"( *)(\S+)\s+(.*)", line).groups()  # type: ignore[union-attr]
        depth = len(indented) // 2
        path = above[depth] / name
        above[depth + 1 :] = [path]
        beside = path if name.endswith("/") else above[depth]
        named |= {path, *(beside / other for other in re.findall(r"\b\w+\.py\b", told))}
    return named


def test_the_readme_names_what_is_there_and_all_of_it() -> None:
    named = tree()
    assert [str(path) for path in sorted(named) if not (ROOT / path).exists()] == []
    told_in_detail = {path.parent for path in named if path.suffix == ".py"}
    missing = {path for path in MODULES - named if path.parent in told_in_detail}
    assert [str(path) for path in sorted(missing)] == []
    assert {path.parent for path in MODULES} <= {path for path in named if not path.suffix}


def test_tests_of_the_library_lie_where_it_has_what_they_test() -> None:
    places: dict[str, set[Path]] = {}
    for module in MODULES:
        if module.parts[0] == "assay":
            places.setdefault(f"test_{module.stem}", set()).add(module.parent.relative_to("assay"))
    tests = (path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py"))
    astray = [
        str(test)
        for test in sorted(tests)
        if test.parts[0] not in ("deployments", "flows", "tasks")
        and test.parent not in places.get(test.stem, {test.parent})
    ]
    assert astray == []
