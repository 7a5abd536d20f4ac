"""Runs on many records that cost little to score, and what a command takes with all that it starts."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

PROMPTS = 400
ANSWERS = 5
#: Of ten prompts, so many stand behind a first exchange.
SECOND_TURNS = 7
_LOOK_SECONDS = 0.1
_TEXT = (
    "the road to mill brook bridge turns left behind a garden where old apple trees stand and people sell "
    "bread milk honey eggs in spring summer autumn winter ask them which way is best before it rains"
)
_WORDS = _TEXT.split()


class Taken(NamedTuple):
    """What a command took."""

    cpu_seconds: float
    peak_gb: float
    """Zero where nobody looked."""
    wall_seconds: float

    def __str__(self) -> str:
        memory = f", {self.peak_gb:.2f} GB" if self.peak_gb else ""
        return f"{self.cpu_seconds:.1f} CPU s, {self.wall_seconds:.1f} s{memory}"


def taken(
    command: Sequence[str],
    *,
    home: Path,
    environment: Mapping[str, str] | None = None,
    look_at_memory: bool = True,
) -> Taken:
    """CPU seconds of the command and of all that it starts, and the most memory that they have together.

    To look at the memory of all processes ten times a second takes a tenth of a core. Leave it out where
    seconds by the clock are compared and the command keeps every core busy.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, **(environment or {}), "ASSAY_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []
    reading = threading.Thread(target=lambda: said.extend(process.stderr or ()))
    reading.start()
    peak = 0
    while look_at_memory and process.poll() is None:
        peak = max(peak, _memory(process.pid))
        time.sleep(_LOOK_SECONDS)
    process.wait()
    reading.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{''.join(said[-20:])}")
    after, wall_seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(seconds, peak / 1e9, wall_seconds)


def _memory(pid: int) -> int:
    """Bytes of a process and of all below it, pages that they share counted once."""
    total = 0
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for one in [parent, *parent.children(recursive=True)]:
            with suppress(psutil.Error):
                total += one.memory_full_info().pss
    return total


def write_data(path: Path, records: int) -> None:
    """So many rows of the 2,000 conversations, one after the other."""

    def text(seed: int, words: int) -> str:
        return " ".join(_WORDS[(seed * 7 + 3 * step * step + step) % len(_WORDS)] for step in range(words))

    conversations = []
    for prompt in range(PROMPTS):
        asked = [{"role": "user", "content": f"{prompt}: {text(prompt, 20)}?"}]
        if prompt % 10 < SECOND_TURNS:
            asked += [
                {"role": "assistant", "content": text(prompt + 1, 25)},
                {"role": "user", "content": text(prompt + 2, 10)},
            ]
        for answer in range(ANSWERS):
            last = {"role": "assistant", "content": text(prompt * 11 + answer * 17, 15 + 12 * answer)}
            conversations.append(json.dumps({"messages": [*asked, last], "lang": "en"})[:-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for number in range(records):
            file.write(f'{conversations[number % len(conversations)]}, "id": {number}}}\n')
