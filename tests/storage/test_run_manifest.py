"""A run's manifest is described where people read, in the words of its type, and read back through it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import manifests
import msgspec
import pytest
from places import ROOT

from assay.storage import run_manifest
from assay.storage.run_manifest import RUN_MANIFEST, RunManifest, read_run_manifest
from assay.storage.sealed import Altered


def described() -> dict[str, str]:
    """What the type says of each field, in its order."""
    (cls,) = (
        node
        for node in ast.parse(inspect.getsource(run_manifest)).body
        if isinstance(node, ast.ClassDef) and node.name == "RunManifest"
    )
    words = {}
    for field, below in zip(cls.body, cls.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(below, ast.Expr)
            assert isinstance(below.value, ast.Constant)
            words[field.target.id] = " ".join(str(below.value.value).split())
    return words


def test_every_field_has_words() -> None:
    assert list(described()) == [field.name for field in dataclasses.fields(RunManifest)]


def test_the_page_on_results_describes_the_manifest_field_by_field() -> None:
    page = (ROOT / "docs/results.md").read_text()
    (table,) = re.findall(
        r"## `manifest\.json`\n.*?\n\| field \| \|\n\|---\|---\|\n(.*?)\n\n", page, re.DOTALL
    )
    rows = [re.fullmatch(r"\| `(\w+)` \| (.*) \|", line) for line in table.splitlines()]
    assert all(rows)
    written = {row[1]: row[2] for row in rows if row}
    digest = written.pop("digest")
    assert written == described()
    assert digest.startswith("Of everything above")


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    made = manifests.made(seconds={"score": 1.25})
    path = tmp_path / RUN_MANIFEST
    path.write_bytes(msgspec.json.encode(made.as_written()))
    assert read_run_manifest(path) == made
    path.write_bytes(path.read_bytes().replace(b"1.25", b"1.26"))
    with pytest.raises(Altered):
        read_run_manifest(path)


def test_a_manifest_of_an_earlier_version_is_read_without_what_it_lacks(tmp_path: Path) -> None:
    made = msgspec.to_builtins(manifests.made())
    for newer in ("exports", "models", "warnings", "devices", "shortfalls", "unusable", "output"):
        del made[newer]
    # What the first runs that made releases wrote of their model.
    made["model"] = {
        **{"name": "starter", "fingerprint": "f" * 32, "attributes": ["reward"], "weights": {}},
        **{"max_tokens": 10, "over_length": "quarantine", "dtype": "float32", "notes": []},
    }
    path = tmp_path / RUN_MANIFEST
    path.write_bytes(msgspec.json.encode(made))
    read = read_run_manifest(path)
    assert read.exports == {}
    assert read.model is not None
    assert not read.model.family_named
