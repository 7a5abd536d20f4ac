"""Garbage of a server's process is collected in a thread of its own, so that it never stops the event loop.

To free a database cursor, SQLite waits for the cursor's connection. Another thread may use that connection
and wait for a lock, which a request holds until the event loop goes on. If the loop's own thread frees the
cursor, all wait for each other until SQLite gives up: 60 s as Prefect sets it (``PRAGMA busy_timeout``).
Cursors in reference cycles, which errors leave behind, are freed in the thread that looks for garbage.
"""

from __future__ import annotations

import gc
import threading
import time

#: So many new objects are worth a search. Those that the start made are not searched.
_WORTH_A_SEARCH = 50_000
_LOOK_SECONDS = 1.0


def collect_aside() -> None:
    """Have no thread but one of its own look for garbage, and never among the objects that there are now."""
    gc.disable()
    gc.freeze()
    threading.Thread(target=_collect, daemon=True, name="garbage").start()


def _collect() -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        # Python counts new objects also while its own search is off.
        if gc.get_count()[0] > _WORTH_A_SEARCH:
            gc.collect()
