from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import assay.storage.regular
from assay.config.options import RunOptions, read_config_file
from assay.config.settings import Settings
from assay.core.errors import UserMistake
from assay.read.releases import released
from assay.storage.regular import NotRegular, irregular_in, open_regular, read_regular, why_not_regular
from assay.verify.checks import read_golden

# Whoever opens a FIFO waits for ever.
pytestmark = pytest.mark.timeout(20)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


IRREGULAR: list[tuple[Callable[[Path], object], str]] = [
    (os.mkfifo, "it is a FIFO (named pipe), and only regular files are read"),
    (lambda path: path.symlink_to("/dev/zero"), "it is a character device, and only regular files are read"),
    (_socket, "it is a socket, and only regular files are read"),
]


@pytest.mark.parametrize(("make", "said"), IRREGULAR)
def test_what_is_no_regular_file_is_reported_and_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], said: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is to be short
    path = Path("it")
    make(path)
    assert why_not_regular(path) == said
    with pytest.raises(NotRegular) as refused:
        read_regular(path)
    assert refused.value.strerror == said


def test_regular_files_and_links_to_them_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link"):
        assert why_not_regular(tmp_path / name) is None
        assert read_regular(tmp_path / name) == b"text"
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "gone")


def test_a_file_that_becomes_a_fifo_meanwhile_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "it")
    looks = iter([lambda path, mode: None, assay.storage.regular._refuse])
    monkeypatch.setattr(assay.storage.regular, "_refuse", lambda path, mode: next(looks)(path, mode))
    with pytest.raises(NotRegular, match="FIFO"):
        open_regular(tmp_path / "it")


def test_no_file_that_a_person_or_an_operator_names_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = tmp_path / "it"
    os.mkfifo(fifo)
    monkeypatch.setenv("ASSAY_SETTINGS_FILE", str(fifo))
    (tmp_path / "release").mkdir()
    os.mkfifo(tmp_path / "release/manifest.json")
    for read in (
        lambda: read_config_file(str(fifo), RunOptions),
        lambda: read_golden(fifo),
        Settings.read,
        lambda: Settings.model_construct(endpoints_file=fifo).endpoints(),
        lambda: released(tmp_path),
    ):
        with pytest.raises(UserMistake, match=r"it is a FIFO \(named pipe\), and only regular files"):
            read()


def test_of_a_models_folder_whatever_is_there_must_be_regular(tmp_path: Path) -> None:
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").symlink_to("gone")
    assert irregular_in(tmp_path) is None
    for name in ("vocab.txt", "additional_chat_templates/rag.jinja"):
        os.mkfifo(tmp_path / name)
        found = irregular_in(tmp_path)
        assert found is not None
        assert found.startswith(f"{tmp_path / name} cannot be read: it is a FIFO")
        (tmp_path / name).unlink()
    (tmp_path / "model.safetensors").symlink_to("gone")
    assert irregular_in(tmp_path) == f"{tmp_path}/model.safetensors cannot be read: No such file or directory"
