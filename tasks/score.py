"""The score stage in Prefect: a progress artifact while turns are scored, then a table.

The table has a row for each shard, a group of turns that was scored together.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from assay.core.progress import Progress, Utilisation
from assay.score.scoring import SCORE, ScoringWork, ToScore
from assay.score.shard import ShardWork
from assay.storage.kept_manifests import Finished
from assay.storage.manifests import Scored
from assay.storage.stage import RunContext
from tasks.artifact_keys import Subject
from tasks.pages import where_reachable
from tasks.secret_blocks import read_secret_block
from tasks.stage import run_stage
from tasks.suspension import NoLongerWanted, Wanted, leave

_UPDATE_SECONDS = 10.0
_LAST_UPDATE_SECONDS = 10.0
_TABLE_ROWS = 200


_OF_NOTHING_ELSE = Subject()


def score(given: ToScore, context: RunContext, subject: Subject = _OF_NOTHING_ELSE) -> Finished[Scored]:
    """Every turn's scores. Prefect's pages show the progress and a table of shards."""
    in_prefect = replace(
        given,
        cluster=replace(given.cluster, show_dashboard=lambda address: _show_dashboard(address, subject)),
        read_block=read_secret_block,
    )
    return run_stage(
        SCORE,
        in_prefect,
        context,
        retry_after_seconds=[5],
        within=lambda context: _watched(context, subject),
    )


@contextmanager
def _watched(context: RunContext, subject: Subject) -> Iterator[RunContext]:
    """In this context, Prefect's pages show the progress, and a run that somebody ends there ends here."""
    try:
        with ShownInPrefect(context.progress, subject) as shown, Wanted() as wanted:
            yield replace(context, progress=shown, leave_if_unwanted=wanted.leave_if_unwanted)
    except NoLongerWanted as stop:
        leave(stop)


class ShownInPrefect:
    """Passes progress on, and shows it in a progress artifact with at most one update every few seconds.

    A thread of its own sends the updates. Otherwise scoring would wait for a server that is away, for as long
    as Prefect's client retries.
    """

    def __init__(self, watcher: Progress, subject: Subject = _OF_NOTHING_ELSE) -> None:
        self._watcher = watcher
        self._subject = subject
        self._total = 0
        self._done = 0
        self._began = 0.0
        self._sums: Counter[str] = Counter()
        self._utilisation = Utilisation()
        self._news = threading.Event()
        self._ended = threading.Event()
        # The context makes the thread a part of this task's run for Prefect.
        self._sender = threading.Thread(
            target=contextvars.copy_context().run, args=(self._send,), daemon=True, name="progress-artifact"
        )

    def __enter__(self) -> ShownInPrefect:
        self._sender.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._news.set()
        self._sender.join(timeout=_LAST_UPDATE_SECONDS)

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """Pass it on; the artifact begins at 0 %."""
        self._watcher.begin(stage, total, unit)
        self._total, self._done = total or 0, 0
        self._began, self._sums, self._utilisation = time.monotonic(), Counter(), Utilisation()
        self._news.set()

    def advance(self, count: int = 1, **details: object) -> None:
        """Pass it on; the artifact follows at its next update."""
        self._watcher.advance(count, **details)
        self._done += count
        self._utilisation.add(details)
        self._sums.update({name: n for name, n in details.items() if isinstance(n, int)})
        self._news.set()

    def say(self, line: str) -> None:
        """Pass it on."""
        self._watcher.say(line)

    def did(self, work: object) -> None:
        """Pass it on, and show the table of shards."""
        self._watcher.did(work)
        if isinstance(work, ScoringWork) and work.shards:
            _show_shards(work.shards, self._subject)

    def _send(self) -> None:
        artifact: UUID | None = None
        while not self._ended.is_set():
            self._news.wait()
            self._news.clear()
            if self._total:
                artifact = self._show(artifact)
            self._ended.wait(_UPDATE_SECONDS)
        if self._total:
            self._show(artifact)

    def _show(self, artifact: UUID | None) -> UUID | None:
        percent = 100.0 * self._done / self._total
        return _show_progress(artifact, percent, self._about(), self._subject)

    def _about(self) -> str:
        """``120 of 400 turns, 12.5 turns/s, 2 devices 97% busy, 22 s left, 1 without a score`` and so on."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        parts = [f"{self._done:,} of {self._total:,} turns", f"{self._done / seconds:,.1f} turns/s"]
        if tokens := self._sums.get("tokens"):
            parts.append(f"{tokens / seconds:,.0f} tokens/s")
        if busy := self._utilisation.summary(seconds):
            parts.append(busy)
        if 0 < self._done < self._total:
            parts.append(f"{(self._total - self._done) * seconds / self._done:,.0f} s left")
        parts += [
            f"{self._sums[name]:,} {words}"
            for name, words in (("retries", "retries"), ("failed", "without a score"))
            if self._sums.get(name)
        ]
        return ", ".join(parts)


def _show_progress(artifact: UUID | None, percent: float, about: str, subject: Subject) -> UUID | None:
    with where_reachable():
        if artifact is not None:
            update_progress_artifact(artifact, progress=percent, description=about)
        else:
            made = create_progress_artifact(percent, key=subject.key("scoring"), description=about)
            assert isinstance(made, UUID)
            return made
    return artifact


def _show_dashboard(address: str, subject: Subject) -> None:
    with where_reachable():
        create_link_artifact(
            address,
            key=subject.key("dask"),
            link_text="Dask's dashboard",
            description="What the workers do now; open it while turns are scored, on the scheduler's machine",
        )


def _show_shards(shards: Sequence[ShardWork], subject: Subject) -> None:
    rows = [
        {
            "shard": shard.shard,
            "turns": shard.turns,
            "failed": shard.failed,
            "tokens": shard.tokens,
            "seconds": round(shard.seconds, 2),
            "worker": shard.worker,
            "device": shard.device,
        }
        for shard in shards[:_TABLE_ROWS]
    ]
    about = f"Shards scored by this run: {len(shards)}"
    if len(shards) > _TABLE_ROWS:
        about += f", of which the first {_TABLE_ROWS} are shown"
    with where_reachable():
        create_table_artifact(rows, key=subject.key("shards"), description=about)
