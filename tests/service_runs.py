"""Whole runs against a loopback service, and the promises that hold after every one of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import ran
import services
import yaml

from flows.command.curate import COMMAND
from flows.command.launch import launch

CANARY = "sk-canary-4f1d8e7b9a"
RECORDS = 6


def settings_for(url: str, **changes: Any) -> dict[str, Any]:
    """An endpoint as an operator writes it, with times that suit a test."""
    given: dict[str, Any] = {
        "kind": "openai",
        "url": f"{url}/v1",
        "model": "nvidia/nemotron-4-340b-reward",
        "attributes": list(services.HELPSTEER),
        "revision": "1",
        "key_variable": "SERVICE_KEY",
        "timeout_seconds": 0.8,
        "deadline_seconds": 4.0,
        "longest_wait_seconds": 2.0,
    }
    return {key: value for key, value in (given | changes).items() if value is not None}


@dataclass
class Ran(ran.Ran):
    """What a run against a service came to."""

    @property
    def labels(self) -> list[str]:
        lines = (self.output / "labeled.jsonl").read_text().splitlines()
        return [turn["label"] for line in lines for turn in json.loads(line)["conversations"][1::2]]

    @property
    def reasons(self) -> list[str]:
        lines = (self.output / "quarantine.jsonl").read_text().splitlines()
        return [json.loads(line)["reason"] for line in lines]

    def files(self) -> dict[str, bytes]:
        """The results but for the manifest, which tells of the run."""
        return {
            one.name: one.read_bytes()
            for one in self.output.iterdir()
            if one.name not in ("manifest.json", "report.html")
        }


def check_accounts(ran: Ran, read: int = RECORDS) -> None:
    """I1, I2 and I4: every record once, in the manifest and in the files, and an export that is whole."""
    rows = ran.manifest["rows"]
    assert rows["read"] == read == rows["kept"] + rows["dropped"] + rows["quarantined"]
    decisions = pl.read_parquet(ran.output / "decisions.parquet")
    assert decisions.height == read
    assert decisions.unique(["file", "line", "part"]).height == read
    labeled = (ran.output / "labeled.jsonl").read_text().splitlines()
    assert len(labeled) == len(set(labeled)) == rows["kept"]
    assert len(ran.reasons) == rows["quarantined"]
    for name, told in ran.manifest["files"].items():
        assert (ran.output / name).stat().st_size == told["size"]


def check_stopped(ran: Ran, code: int, *said: str) -> None:
    """I4 and I5: no export, one line that says what and what to do, no traceback and no key."""
    assert ran.code == code, ran.err
    assert not ran.output.exists()
    complaints = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(complaints) == 1, ran.err
    for text in said:
        assert text in complaints[0]
    assert "Traceback" not in ran.err
    assert CANARY not in ran.err + ran.out


class Runs:
    """Runs the command in this process, on the tests' Prefect server."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        # Results tell of inputs as they were named: by the same name in every test.
        monkeypatch.chdir(folder)
        self.chats = Path("chats.jsonl")
        self.write_chats(
            {
                "messages": [
                    {"role": "user", "content": f"question {n}"},
                    {"role": "assistant", "content": f"answer {n}"},
                    {"role": "user", "content": "and more?"},
                    {"role": "assistant", "content": f"more {n}"},
                ]
            }
            for n in range(RECORDS)
        )

    def write_chats(self, rows: Any) -> None:
        self.chats.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def endpoint(self, url: str, **changes: Any) -> None:
        """Have the operator's list hold one endpoint, ``reward-service``."""
        path = self._folder / "endpoints.yaml"
        path.write_text(yaml.safe_dump({"reward-service": settings_for(url, **changes)}))
        self._monkeypatch.setenv("ASSAY_ENDPOINTS_FILE", str(path))

    def home(self, name: str) -> Path:
        home = self._folder / name
        self._monkeypatch.setenv("ASSAY_HOME", str(home))
        return home

    def __call__(self, *arguments: object, output: str = "out") -> Ran:
        where = self._folder / output
        model = () if "--model" in arguments else ("--model", "reward-service")
        given = ["--input", self.chats, *model, "--output", where, *arguments]
        code = launch(COMMAND, [str(one) for one in given])
        captured = self._capsys.readouterr()
        return Ran(code, captured.out, captured.err, where)


class Faulty:
    """A service that does wrong by some turns, so many times each, and is right from then on."""

    def __init__(
        self, fault: Callable[[services.Asked], services.Answer], *, turns: str = "answer 3", times: int = 1
    ) -> None:
        self.fault = fault
        self.turns = turns
        self.times = times
        self.mended = False
        self._seen: dict[str, int] = {}

    def __call__(self, asked: services.Asked) -> services.Answer:
        if self.mended or self.turns not in asked.last:
            return services.rated(asked)
        self._seen[asked.last] = self._seen.get(asked.last, 0) + 1
        if self._seen[asked.last] > self.times:
            return services.rated(asked)
        return self.fault(asked)
