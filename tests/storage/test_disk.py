"""A full disk is recognised, also for a program that cannot report it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from assay.config.options import RunOptions
from assay.config.settings import Settings
from assay.core.errors import AssayError
from assay.storage.disk import why_full
from flows.curate.prepare import prepare


def test_a_disk_with_room_is_not_full_nor_is_a_folder_that_is_gone(tmp_path: Path) -> None:
    assert why_full(tmp_path) is None
    assert why_full(tmp_path / "absent") is None
    assert list(tmp_path.iterdir()) == []


def test_a_disk_with_no_room_for_a_database_is_full(small_disk: Path) -> None:
    assert why_full(small_disk) == "No space left on device"
    assert list(small_disk.iterdir()) == []


def test_a_run_whose_home_is_full_names_it_before_any_work(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "home").mkdir()
    with suppress(OSError):
        (small_disk / "ballast").write_bytes(b"x" * (1 << 21))
    (tmp_path / "chats.jsonl").touch()
    options = RunOptions(input=[str(tmp_path / "chats.jsonl")], output=str(tmp_path / "out"))
    with pytest.raises(AssayError, match="home: No space left on device"):
        prepare(options, Settings.model_construct(home=small_disk / "home"))
