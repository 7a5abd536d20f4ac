"""A process for the time of a test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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
