"""Imports point one way: deployments → flows → tasks → assay, and the heavy ones stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

PACKAGES = ("assay", "tasks", "flows")


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def importers(package: str, *targets: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in modules(package)
        if any(
            name == target or name.startswith(f"{target}.") for name in imports_of(path) for target in targets
        )
    }


def test_the_library_knows_nothing_of_what_is_built_on_it() -> None:
    assert importers("assay", "prefect", "tasks", "flows") == set()
    assert importers("tasks", "flows") == set()


def test_torch_is_imported_where_tensors_are_computed_only() -> None:
    places = importers("assay", "torch")
    assert places
    assert {str(Path(place).parent) for place in places} == {"assay/rewards/local"}


def test_dask_cuda_is_imported_in_one_place() -> None:
    found = {path for package in PACKAGES for path in importers(package, "dask_cuda")}
    assert found == {"assay/gpu_cluster.py"}


def test_s3_is_spoken_to_in_one_place() -> None:
    found = {path for package in PACKAGES for path in importers(package, "botocore", "boto3", "fsspec")}
    assert found == {"assay/s3.py"}


def test_rewards_know_nothing_of_stores_and_clusters() -> None:
    forbidden = [f"assay.{name}" for name in ("scoring", "store", "cluster", "plan", "shard", "dispatch")]
    assert importers("assay/rewards", *forbidden) == set()


def test_schema_needs_the_standard_library_alone() -> None:
    roots = {name.partition(".")[0] for name in imports_of(ROOT / "assay/schema.py")}
    assert roots <= {"__future__", *sys.stdlib_module_names}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("assay.scoring", ["torch", "transformers", "prefect", "distributed"]),
        ("assay.shard", ["torch", "prefect", "botocore"]),
        ("assay.rewards.local.model", ["polars", "msgspec", "distributed", "prefect", "pydantic"]),
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
