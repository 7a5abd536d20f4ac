from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from assay.rewards.spec import LocalSpec
from assay.score import open_model

MODULE = """
import gc

SEARCHED_MEANWHILE = gc.isenabled()


class Model:
    def __init__(self, spec):
        self.of_itself = self
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSpec]:
    """Of a model that is in a cycle, so that only a search for garbage frees it."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "cyclic_models.py").write_text(MODULE)
    (code / "broken_models.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(str(code))
    yield replace(tiny.spec(tiny.reward_model(tmp_path / "model")), opener="cyclic_models:Model")
    open_model.let_go()


def test_python_searches_for_no_garbage_while_it_imports_what_opens_a_model(spec: LocalSpec) -> None:
    passed_over = gc.get_freeze_count()
    open_model.opened(spec)
    import cyclic_models  # type: ignore[import-not-found]

    assert not cyclic_models.SEARCHED_MEANWHILE
    assert gc.get_freeze_count() > passed_over
    assert gc.isenabled()


def test_a_model_that_another_replaces_is_garbage(spec: LocalSpec) -> None:
    former = weakref.ref(open_model.opened(spec))
    open_model.opened(replace(spec, fingerprint="another"))
    gc.collect()
    assert former() is None


def test_the_search_goes_on_after_an_import_that_fails(spec: LocalSpec) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        open_model.opened(replace(spec, opener="broken_models:Model", fingerprint="broken"))
    assert gc.isenabled()
