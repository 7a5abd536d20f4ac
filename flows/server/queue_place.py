"""A deployment's runs work one at a time: a run waits in its own process until no other one holds the place.

The place is a lock below ``ASSAY_HOME``. The kernel holds it and releases it when the process ends, however
that happens. So it needs no lease, which a server could lose, and a run checks its options before it waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
from prefect import runtime

from assay.core.progress import Progress
from assay.core.text import printable
from assay.storage.home import Home
from assay.storage.private import FILE, make_private, opener
from tasks.suspension import NoLongerWanted, Wanted, leave

_LOOK_SECONDS = 1.0


@contextmanager
def place_in_queue(home: Home, progress: Progress) -> Iterator[bool]:
    """Hold the place of this run's deployment; if that takes waiting, report it and the other run's name.

    Yields whether it has waited. A run that is suspended, cancelled or deleted while it waits ends as one
    that works does.
    """
    folder = home.prefect / "places"
    make_private(folder)
    # By its id, which this process knows; its name would take a request to the server.
    deployment = str(runtime.deployment.id)
    lock = filelock.FileLock(folder / f"{deployment}.lock", mode=FILE)
    # A file of its own: whoever tries the lock may empty the lock's.
    holder = folder / f"{deployment}.holder"
    try:
        with Wanted() as wanted:
            has_waited = _take(lock, holder, progress, wanted)
    except NoLongerWanted as stop:
        leave(stop)
    try:
        with open(holder, "w", opener=opener) as file:
            file.write(f"{runtime.flow_run.name}\n")
        yield has_waited
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _take(lock: filelock.BaseFileLock, holder: Path, progress: Progress, wanted: Wanted) -> bool:
    waits = False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_LOOK_SECONDS if waits else 0)
        except filelock.Timeout:
            if not waits:
                progress.say(f"the options are right; waiting for another run to end{_named(holder)}")
            waits = True
            wanted.leave_if_unwanted()
    if waits:
        progress.say("no other run works any more; this one begins")
    return waits


def _named(holder: Path) -> str:
    """``: `` and the name of the run that holds the place; empty where that is not known."""
    with suppress(FileNotFoundError):
        if name := holder.read_text(errors="replace").strip():
            return f": {printable(name)}"
    return ""
