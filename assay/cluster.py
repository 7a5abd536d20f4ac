"""Where Dask runs: processes on this machine, one worker a GPU, or a scheduler's address."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Which workers score."""

    workers: int | None = None
    """Processes on this machine; None: one a CPU core, or one a GPU where there are any."""
    scheduler_address: str | None = None
    """A running Dask scheduler; then ``workers`` is not looked at."""
