"""The command of a whole run, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from curate_runs import Ran


@pytest.fixture
def curate(
    prefect_api: str,
    assay_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Ran]:
    """The command in this process, on the tests' Prefect server, with a model of no weights."""
    # It imports Prefect, which has to wait for the settings that pytest_configure makes.
    from curate_runs import curating

    return curating(prefect_api, tmp_path, monkeypatch, capsys)
