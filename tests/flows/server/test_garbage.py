"""A server's event loop never waits for a database because it looked for garbage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

#: A connection has the write lock, and a thread waits for it with another one, as two requests do. A cursor
#: of the second is garbage in a cycle. The main thread makes objects, until the garbage was looked for, and
#: only then gives the lock back. SQLite waits 4 s, where Prefect has it wait 60.
TWO_REQUESTS = """
import gc, sqlite3, sys, threading, time
from flows.server import garbage

garbage._LOOK_SECONDS = 0.05
holder, waiter = (
    sqlite3.connect(sys.argv[1], check_same_thread=False, isolation_level=None, timeout=4) for _ in range(2)
)
holder.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (n); INSERT INTO t VALUES (1), (2)")
cursor = waiter.execute("VALUES (1), (2)")
if sys.argv[2] == "aside":
    garbage.collect_aside()
cycle = [cursor]
cycle.append(cycle)
del cursor, cycle
holder.execute("BEGIN IMMEDIATE")
waiting = threading.Thread(target=waiter.execute, args=("INSERT INTO t VALUES (3)",), daemon=True)
waiting.start()
time.sleep(0.2)
started = time.monotonic()
kept = []
while time.monotonic() < started + 1:
    kept.extend([] for _ in range(100_000))
    time.sleep(0.01)
took = time.monotonic() - started
holder.execute("COMMIT")
waiting.join()
print(took)
"""


def seconds_of_one(where: str, database: Path) -> float:
    """How long a second of the main thread takes while ``where`` looks for garbage."""
    command = [sys.executable, "-c", TWO_REQUESTS, str(database), where]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_a_cursor_that_is_garbage_does_not_stop_the_loop_whose_lock_another_request_awaits(
    tmp_path: Path,
) -> None:
    assert seconds_of_one("here", tmp_path / "here.db") > 3.5, "Python has changed: is a thread needed?"
    assert seconds_of_one("aside", tmp_path / "aside.db") < 3
