"""The README names the packages, and tests lie where the tree has what they test."""

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
    """Every folder that the README's tree names, at the place where the tree has it."""
    (lines,) = re.findall(r"## What is where\n.*?```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    named, above = set(), [Path()]
    for line in lines.splitlines():
        found = re.match(r"( *)(\S+)/ ", line)
        assert found is not None, line
        indented, name = found.groups()
        depth = len(indented) // 2
        path = above[depth] / name
        above[depth + 1 :] = [path]
        named.add(path)
    return named


def test_the_readme_names_every_package() -> None:
    assert [str(path) for path in sorted(tree()) if not (ROOT / path).is_dir()] == []
    assert {path.parent for path in MODULES} <= tree() | {Path("assay")}


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
