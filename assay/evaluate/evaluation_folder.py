"""The folder of an evaluation's results: each file whole, and ``evaluation.json`` last.

The folder holds an evaluation and nothing else, so that no run's results and nobody's files are replaced.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import filelock
import msgspec
import polars as pl

from assay.core.digests import digest_of_content
from assay.core.errors import OutputRefused
from assay.evaluate.evaluation import Evaluation
from assay.evaluate.gather import Gathered
from assay.evaluate.tables import evaluation_markdown
from assay.export.folder import is_page
from assay.export.quarantine import quarantine_lines
from assay.storage.artifacts import read_artifact
from assay.storage.disk import full_disk_named
from assay.storage.home import Home, sweep, written_whole
from assay.storage.private import make_private, usual_file_mode
from assay.storage.regular import NotRegular, read_regular
from assay.storage.run_manifest import REPORT

EVALUATION = "evaluation.json"
MARKDOWN = "evaluation.md"
QUARANTINE = "quarantine.jsonl"
FILES = frozenset({EVALUATION, MARKDOWN, QUARANTINE, REPORT})
_LOCK = ".evaluation.lock"
# What file browsers leave in any folder that was looked at.
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", _LOCK})
_REFUSED = ["file", "line", "part", "offset", "length", "reason"]


class EvaluationFolder:
    """A folder that holds one evaluation, or nothing yet."""

    def __init__(self, path: str | Path) -> None:
        """The folder at ``path``; links are followed."""
        self.path = Path(os.path.realpath(path))
        self.shown = str(path)

    def check(self) -> None:
        """Nothing, or OutputRefused where no evaluation can be written here. Changes nothing."""
        try:
            if self.path.is_dir():
                self._check_content()
            elif self.path.exists():
                raise OutputRefused(
                    f"{self.shown}: is a file. Name a folder, new or of an earlier evaluation."
                )
            place = self.path
            while not place.exists():
                place = place.parent
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise OutputRefused(
                f"{self.shown}: cannot be written: {error.strerror or error}. Name another folder."
            ) from error

    def _check_content(self) -> None:
        foreign = {name for name in os.listdir(self.path) if not name.endswith(".tmp")} - FILES - _LITTER
        if foreign:
            raise OutputRefused(
                f"{self.shown}: holds what no evaluation wrote ({', '.join(sorted(foreign)[:3])}). Name "
                "another folder, or empty this one."
            )
        if (self.path / EVALUATION).exists() and not _is_ours(self.path / EVALUATION):
            raise OutputRefused(
                f"{self.shown}: its {EVALUATION} is not one of Assay. Name another folder, or move it."
            )
        if (self.path / REPORT).exists() and not is_page(self.path / REPORT):
            raise OutputRefused(
                f"{self.shown}: holds a {REPORT} that Assay did not make. Name another folder, or move it."
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other evaluation from the folder; OutputRefused where one is at work there."""
        make_private(self.path)
        lock = filelock.FileLock(self.path / _LOCK, mode=0o600)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise OutputRefused(
                f"{self.shown}: another evaluation writes there. Wait until it is done, or name another "
                "folder."
            ) from None
        try:
            self._check_content()
            yield
        finally:
            lock.release()
            (self.path / _LOCK).unlink(missing_ok=True)

    def write(self, evaluation: Evaluation, gathered: Gathered, home: Home, page: bytes = b"") -> Evaluation:
        """The evaluation with its files' digests, once all are written, ``evaluation.json`` last.

        ``page``: its page; empty where there is none, and then none is left there from before.
        """
        with full_disk_named(self.path):
            sweep(self.path)
            written = {
                QUARANTINE: b"".join(_quarantined(evaluation, gathered, home)),
                MARKDOWN: evaluation_markdown(evaluation).encode(),
            }
            for name, data in written.items():
                self._write(name, data)
            if page:
                self._write(REPORT, page)
            else:
                (self.path / REPORT).unlink(missing_ok=True)
            # The page is no result: as of a run, it may differ where the results do not.
            digests = {name: digest_of_content(data) for name, data in written.items()}
            whole = replace(evaluation, files=digests)
            self._write(EVALUATION, evaluation_json(whole))
        return whole

    def _write(self, name: str, data: bytes) -> None:
        with written_whole(self.path / name, mode=usual_file_mode()) as temporary:
            temporary.write_bytes(data)


def evaluation_json(evaluation: Evaluation) -> bytes:
    """The evaluation as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(evaluation), indent=2) + b"\n"


def _quarantined(evaluation: Evaluation, gathered: Gathered, home: Home) -> Iterator[bytes]:
    """Yield a line for each quarantined row, with its original."""
    refused = read_artifact(gathered.refused, home, _REFUSED)
    for file in evaluation.inputs:
        rows = refused.filter(pl.col("file") == file.path)
        if rows.height:
            yield from quarantine_lines(file, rows, home)


def _is_ours(path: Path) -> bool:
    try:
        found = msgspec.json.decode(read_regular(path))
    except (msgspec.DecodeError, NotRegular, OSError):
        return False
    return isinstance(found, dict) and isinstance(found.get("assay"), str) and "benchmark" in found
