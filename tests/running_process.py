"""A process for the time of a test, and the workers of one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psutil
from places import ROOT


@contextmanager
def running(arguments: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that starts in the repository's root. In the end it is killed, if it still runs.

    ``Popen`` as a context waits for it: a test that has failed would never end.
    """
    with subprocess.Popen(arguments, cwd=ROOT, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def workers_of(process_id: int | None = None) -> list[psutil.Process]:
    """Dask's workers that the process, or else this one, started and that have not ended."""
    found = []
    for child in psutil.Process(process_id).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any("spawn_main" in part for part in child.cmdline()):
                found.append(child)
    return found
