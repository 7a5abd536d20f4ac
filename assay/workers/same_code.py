"""Whether workers have the run's code. A worker of an older version would leave out what it does not know.

A worker that has other code gets no job. A worker that joins later is checked when it gets its first job: if
its code differs, it sends the job back unread.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from assay.core.digests import digest_of_bytes, digest_of_file
from assay.core.errors import ClusterFault
from assay.core.text import counted
from assay.core.versions import VERSION, installed

if TYPE_CHECKING:
    from distributed import Client

#: How long all workers together may take to report their code. If they take longer, each is checked with its
#: first job instead.
_ANSWER_SECONDS = 10

#: How long a run waits for a worker with its code if all have other code: one may be starting.
_LATE_SECONDS = 10.0
_AGAIN_SECONDS = 0.5

#: A line names up to this many workers with other code.
_NAMED = 3

_UNKNOWN = "no Assay, or a version too old to report its code"


class OtherCode(Exception):
    """A worker refused a job, because its code is not the run's. Arguments: its address and its code."""


class NoWorkerFits(ClusterFault):
    """Every worker has other code than the run."""


def code_here() -> str:
    """The code of this process: Assay's version, a digest of its source files, and the version of polars.

    Polars is part of it because two versions of polars can write different files.
    """
    return _code()


@functools.cache
def _code() -> str:
    """What ``code_here`` returns, computed once: a process keeps the code that it has loaded."""
    sources = digest_of_sources(Path(__file__).parents[1])
    return f"Assay {VERSION} (code {sources}, polars {installed('polars')['polars']})"


def digest_of_sources(folder: Path) -> str:
    """The first 12 digits of a digest of all Python files below the folder and of their names."""
    digests = (
        f"{path.relative_to(folder).as_posix()} {digest_of_file(path)}".encode()
        for path in sorted(folder.rglob("*.py"))
    )
    return digest_of_bytes(*digests)[:12]


class UnfitWorkers:
    """The workers of a scheduler that are known to have other code than the run."""

    def __init__(self) -> None:
        self._addresses: set[str] = set()

    def __contains__(self, address: str) -> bool:
        return address in self._addresses

    def __bool__(self) -> bool:
        return bool(self._addresses)

    def forget(self, addresses: Iterable[str]) -> None:
        """Count these workers as fit: one may have been restarted at its old address, with the run's code."""
        self._addresses.difference_update(addresses)

    def take(self, code_of: Mapping[str, str]) -> str:
        """Add these workers. Returns a line that names those that were not known before, or an empty text."""
        new = {address: code for address, code in code_of.items() if address not in self._addresses}
        self._addresses.update(new)
        if not new:
            return ""
        codes = sorted(set(new.values()))
        theirs = "; ".join(_named(code, sorted(one for one in new if new[one] == code)) for code in codes)
        return (
            f"{counted(len(new), 'Dask workers')} with other code than this run "
            f"{'gets' if len(new) == 1 else 'get'} no work: {theirs}; this run has {code_here()}. "
            "Install the same versions there, and restart the workers"
        )


def _named(code: str, addresses: list[str]) -> str:
    more = len(addresses) - _NAMED
    names = ", ".join(addresses[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    return f"{names} {'has' if len(addresses) == 1 else 'have'} {code}"


_UNFIT: WeakKeyDictionary[Client, UnfitWorkers] = WeakKeyDictionary()


def unfit_workers(client: Client) -> UnfitWorkers:
    """The unfit workers that this client knows of."""
    return _UNFIT.setdefault(client, UnfitWorkers())


def asked_again(client: Client) -> str:
    """Ask all workers for their code. Returns a line that names newly found unfit ones, or an empty text."""
    return _taken(client, _answers(client))


def _taken(client: Client, code_of: Mapping[str, str]) -> str:
    other = {address: code for address, code in code_of.items() if code != code_here()}
    unfit_workers(client).forget(code_of.keys() - other.keys())
    return unfit_workers(client).take(other)


def check_workers(client: Client, *, patience_seconds: float = _LATE_SECONDS) -> str:
    """What ``asked_again`` returns. Raises ``NoWorkerFits`` if no worker has the run's code in time."""
    deadline = time.monotonic() + patience_seconds
    lines = []
    while True:
        answers = _answers(client)
        lines += [line for line in [_taken(client, answers)] if line]
        if not answers or code_here() in answers.values():
            return "; ".join(lines)
        if time.monotonic() > deadline:
            raise NoWorkerFits("; ".join(lines))
        time.sleep(_AGAIN_SECONDS)


def _answers(client: Client) -> dict[str, str]:
    """The code of each worker, by address. Empty if not all answer in time."""
    found: queue.SimpleQueue[dict[str, object]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found.put(client.run(code_here, on_error="return"))
        except (OSError, RuntimeError, ValueError):
            # The scheduler is gone, or the client was closed meanwhile.
            found.put({})

    # Ask in a thread: Dask waits for minutes for a worker whose process is suspended.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answers = found.get(timeout=_ANSWER_SECONDS)
    except queue.Empty:
        return {}
    return {
        address: answer if isinstance(answer, str) else _UNKNOWN
        for address, answer in answers.items()
        # A worker that cannot be reached has gone; do not count it.
        if not isinstance(answer, OSError)
    }
