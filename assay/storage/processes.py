"""Whether the process that made a temporary file is still there."""

from __future__ import annotations

import psutil


def has_ended(process_id: int) -> bool:
    """Whether no process of that number runs on this machine. One that nobody has waited for has ended."""
    if not psutil.pid_exists(process_id):
        return True
    try:
        return psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
