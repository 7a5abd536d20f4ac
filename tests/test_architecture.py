"""Imports point one way, and the heavy packages stay where they belong."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
from places import ROOT

#: From the top. A module imports from its own package and from the floors below it.
FLOORS = """
deployments
flows
tasks
assay.api
assay.config
assay.verify assay.evaluate
assay.report
assay.export
assay.select
assay.score
assay.rewards assay.read
assay.workers
assay.storage
assay.core
"""
FLOOR = {name: number for number, line in enumerate(FLOORS.split("\n")) for name in line.split()}

#: Packages that only these places import.
ONLY_IN: dict[str, str | tuple[str, ...]] = {
    "torch": "assay.rewards.local",
    "dask_cuda": "assay.workers",
    "botocore": "assay.storage",
    "prefect": ("tasks", "flows", "deployments"),
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    name_of(path): path
    for package in ("assay", "tasks", "flows", "deployments")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports_of(path: Path) -> set[str]:
    """Every module that the file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (inner & MODULES.keys()) or {node.module}
    return names


def floor_of(module: str) -> tuple[str, int] | None:
    """The package on whose floor the module lies; None for what is not ours."""
    parts = module.split(".")
    for package in (".".join(parts[:2]), parts[0]):
        if package in FLOOR:
            return package, FLOOR[package]
    return None


def test_imports_point_one_way() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in imports_of(path)
        if (here := floor_of(module)) and (there := floor_of(name))
        if here[0] != there[0] and there[1] <= here[1]
    ]
    assert wrong == []


def test_there_are_no_circles() -> None:
    graph = {module: imports_of(path) & MODULES.keys() - {module} for module, path in MODULES.items()}
    assert list(TopologicalSorter(graph).static_order())


def test_no_module_lies_loose_in_the_library() -> None:
    assert {path.name for path in (ROOT / "assay").glob("*.py")} == {"__init__.py", "api.py"}


@pytest.mark.slow
@pytest.mark.parametrize("package", ONLY_IN)
def test_a_heavy_package_is_imported_in_its_place_alone(package: str) -> None:
    importers = {
        module
        for module, path in MODULES.items()
        if any(name.split(".")[0] == package for name in imports_of(path))
    }
    assert importers
    assert {module for module in importers if not module.startswith(ONLY_IN[package])} == set()


@pytest.mark.slow
def test_every_package_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    declared = {re.split(r"[^\w.-]", one)[0].lower().replace("-", "_") for one in requirements}
    imported = {name.split(".")[0] for path in MODULES.values() for name in imports_of(path)}
    ours = {"__future__", "assay", "tasks", "flows", "deployments", *sys.stdlib_module_names}
    distributions = packages_distributions()
    missing = {
        name
        for name in imported - ours
        if not {one.lower().replace("-", "_") for one in [*distributions.get(name, ()), name]} & declared
    }
    assert missing == set()


#: What may know SteerLM: its exports, its codec, its readers (and their list), NeMo-Aligner's server.
KNOW_STEERLM = {
    "assay.core.steerlm",
    "assay.read.formats",
    "assay.read.formats.nemo_markers",
    "assay.read.formats.nemo_texts",
    "assay.read.formats.sharegpt",
    "assay.read.formats.steerlm_rows",
    "assay.rewards.remote.triton",
}


def test_no_stage_between_read_and_export_knows_a_trainer() -> None:
    knowing = {module for module, path in MODULES.items() if "steerlm" in path.read_text().lower()}
    strangers = {name for name in knowing - KNOW_STEERLM if name.startswith(("assay", "tasks"))}
    assert {name for name in strangers if not f"{name}.".startswith("assay.export.")} == set()


def test_local_models_need_few_packages() -> None:
    allowed = {"assay", "torch", "transformers", "numpy", "safetensors", "accelerate", "peft", "tokenizers"}
    local = [path for module, path in MODULES.items() if module.startswith("assay.rewards.local")]
    roots = {name.split(".")[0] for path in local for name in imports_of(path)}
    assert roots - allowed - {"__future__", *sys.stdlib_module_names} == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("assay.score.scoring", ["torch", "transformers", "prefect", "distributed"]),
        ("assay.score.shard", ["torch", "prefect", "botocore"]),
        ("assay.rewards.local.model", ["polars", "msgspec", "distributed", "prefect", "pydantic"]),
        ("flows.command.main", ["prefect", "torch", "polars", "pydantic"]),
    ],
)
def test_importing_does_not_drag_in_what_it_does_not_need(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


def test_the_process_that_renders_templates_imports_nothing_of_ours_and_little_else() -> None:
    roots = {name.partition(".")[0] for name in imports_of(ROOT / "assay/rewards/template_process.py")}
    assert roots <= {"__future__", "jinja2", *sys.stdlib_module_names}


def test_digests_are_made_in_one_place() -> None:
    places = [module for module, path in MODULES.items() if "blake2b(" in path.read_text()]
    assert places == ["assay.core.digests"]


def test_one_name_is_one_class() -> None:
    """Two classes of one name are two things under one word (see the terms in the README)."""
    places: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
