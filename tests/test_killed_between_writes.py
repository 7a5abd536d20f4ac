"""A run that is killed between any two writes of any stage is made again as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT, TESTS


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder that waits for no disk, where the system has one: hundreds of runs flush dozens of files."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.mark.faults
def test_kill_9_between_any_two_writes_of_a_stage_changes_no_result(in_memory: Path) -> None:
    """Fault 2: I1, I2, I3 and I6 after each kill, of ingest, convert, score, filter and export."""
    ran = subprocess.run(
        [sys.executable, str(TESTS / "killed_runs.py"), str(in_memory), "1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(TESTS)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    outcomes = dict(json.loads(found) for found in ran.stdout.splitlines())
    # The last run came to its end undisturbed.
    *_, last = outcomes
    undisturbed = outcomes[last]
    assert last > 100, "each stage writes several files, and each file takes several calls"
    assert (undisturbed["read"], undisturbed["turns"], undisturbed["distinct"]) == (10, 16, 16)
    assert {"messages.jsonl", "decisions.parquet", "quarantine.jsonl"} <= set(undisturbed["results"])
    for number, outcome in outcomes.items():
        assert outcome == undisturbed, number
