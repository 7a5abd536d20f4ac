"""A thousand small files go through all stages with few files open at a time, and in bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from converting import line
from places import ROOT, TESTS

FILES = 1_000
#: Beside those that Python and its libraries keep open.
OPEN_FILES = 64
PROGRAM = f"""
import json, os, resource, sys
from pathlib import Path
from stage_runs import run, scored_in_this_process

scored_in_this_process(setattr)
root = Path(sys.argv[1])
opened = len(os.listdir("/proc/self/fd")) + {OPEN_FILES}
resource.setrlimit(resource.RLIMIT_NOFILE, (opened, opened))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = run(root, shard_tokens=20_000)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
counts = made.filtered.counts
print(json.dumps([counts.read, counts.ok, made.results["messages.jsonl"].count(b"\\n"), grown]))
"""


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to count open files")
def test_a_thousand_small_files_need_few_open_files_and_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights" * 100)
    (tmp_path / "chats").mkdir()
    for number in range(FILES):
        (tmp_path / "chats" / f"{number:05d}.jsonl").write_bytes(line(f"q{number}", f"a{number}"))
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(TESTS)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    read, ok, written, grown = json.loads(ran.stdout)
    assert (read, ok, written) == (FILES, FILES, FILES)
    assert grown < 200_000, "kilobytes"
