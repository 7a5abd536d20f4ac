"""A reward model without weights: scores from a hash, a log of every call, and texts that do harm."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from assay.core.errors import Resumable
from assay.core.schema import turn_keys, turn_positions
from assay.rewards.leaving import leave_if_unwanted
from assay.rewards.protocol import Remark, Request, TurnScore
from assay.rewards.spec import LocalSpec

POISON = "kills whoever reads it"
#: Wants more memory than the process may have.
HUNGRY = "wants a gigabyte"
SLOW = "takes its time"
SLOW_SECONDS = 0.3
#: Followed by a name: is scored once a file of that name lies in the model's folder.
HELD = "is held until"
UNSCORABLE = "gives no number"
TOO_LARGE = "is larger than memory"
#: As a service that is away, which ends the run early.
AWAY = "is away"


def spec(folder: Path, fingerprint: str = "ab" * 16) -> LocalSpec:
    """A fake whose calls are written down below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    return LocalSpec(
        name="fake",
        folder=str(folder),
        family="sequence-classification",
        attributes=("helpfulness", "verbosity"),
        max_tokens=1000,
        over_length="quarantine",
        dtype="float32",
        opener="fakes:Fake",
        fingerprint=fingerprint,
    )


def weighing(spec: LocalSpec, weights: int) -> LocalSpec:
    """The same, with a file that says that it holds so many weights, and holds none."""
    header = json.dumps({"layers.0.weight": {"dtype": "F32", "shape": [weights], "data_offsets": [0, 0]}})
    content = len(header).to_bytes(8, "little") + header.encode()
    (Path(spec.folder) / "model.safetensors").write_bytes(content)
    return spec


def calls(folder: Path) -> list[str]:
    """The hex key of every turn that any worker was asked to score, repeats and all."""
    return [line for log in sorted(folder.glob("calls-*.log")) for line in log.read_text().split()]


class Fake:
    def __init__(self, spec: LocalSpec) -> None:
        self.attributes = spec.attributes
        self.fingerprint = spec.fingerprint
        self._folder = Path(spec.folder)
        remarks = self._folder / "remarks"
        lines = remarks.read_text().splitlines() if remarks.is_file() else []
        self.remarks = tuple(Remark(line, "read_at") for line in lines)
        self._log = self._folder / f"calls-{os.getpid()}.log"

    def score(self, requests: Sequence[Request]) -> list[list[TurnScore]]:
        results = []
        for request in requests:
            leave_if_unwanted()
            last = turn_positions(request.messages)[request.turns[-1]]
            text = " ".join(message.content for message in request.messages[: last + 1])
            if POISON in text:
                os.kill(os.getpid(), signal.SIGKILL)
            if HUNGRY in text:
                _, hard = resource.getrlimit(resource.RLIMIT_AS)
                used = psutil.Process().memory_info().vms
                resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), hard))
                bytearray(1 << 30)
            for name in re.findall(rf"{HELD} (\w+)", text):
                while not (self._folder / name).exists():
                    time.sleep(0.05)
                    leave_if_unwanted()
            if AWAY in text:
                raise Resumable("the fake is away; start the run again when it is back")
            if SLOW in text:
                time.sleep(SLOW_SECONDS)
            keys = [key.key for key in turn_keys(request.messages, request.tools)]
            results.append([self._one(keys[turn], text) for turn in request.turns])
        with self._log.open("a") as log:
            for request in requests:
                keys = [key.key for key in turn_keys(request.messages, request.tools)]
                log.writelines(f"{keys[turn].hex()}\n" for turn in request.turns)
        return results

    def _one(self, key: bytes, text: str) -> TurnScore:
        if UNSCORABLE in text:
            return TurnScore(None, "not_finite: the model gave nan")
        if TOO_LARGE in text:
            return TurnScore(None, "out_of_memory: 9 tokens do not fit into memory, not even alone")
        digest = hashlib.sha256(key).digest()
        return TurnScore((digest[0] / 64, digest[1] / 64))
