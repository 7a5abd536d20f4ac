"""``python -m flows.verify`` on a service, compared with the same model on this machine."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import services
import tiny
import yaml
from services import Answer, Asked, Server, as_json

from assay.core.schema import Message, turn_positions
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.protocol import Request
from flows.command.verify import command

pytestmark = pytest.mark.slow

ATTRIBUTES = ("helpfulness", "correctness")


@pytest.fixture
def folder(tmp_path: Path, assay_home: Path) -> str:
    return str(tiny.reward_model(tmp_path / "model", max_tokens=4096, attributes=ATTRIBUTES))


@pytest.fixture
def server(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """vLLM's ``/classify`` over a real small model."""
    model = LocalRewardModel(tiny.spec(Path(folder)))
    one_at_a_time = threading.Lock()

    def classify(asked: Asked) -> Answer:
        messages = tuple(Message(**message) for message in asked.json["messages"])
        last = len(turn_positions(messages)) - 1
        with one_at_a_time:
            ((outcome,),) = model.score([Request(messages, (last,))])
        assert outcome.values is not None
        return as_json({"data": [{"index": 0, "probs": outcome.values, "num_classes": 2}]})

    with services.serving(classify) as running:
        told: dict[str, Any] = {
            "kind": "vllm-classify",
            "url": running.url,
            "model": "tiny",
            # In another order than the local model's, which is matched by name.
            "attributes": [*reversed(ATTRIBUTES)],
            "outputs": [*ATTRIBUTES],
            "deadline_seconds": 10,
        }
        path = tmp_path / "endpoints.yaml"
        path.write_text(yaml.safe_dump({"served": told}))
        monkeypatch.setenv("ASSAY_ENDPOINTS_FILE", str(path))
        yield running


def test_a_service_gives_what_the_same_model_gives_here(
    server: Server, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["served", "--against", folder]) == 0
    out = capsys.readouterr().out
    assert "pass all at once: " in out
    found = re.search(r"pass the same model on this machine: (\S+) at most over 14 turns", out)
    assert found
    assert float(found[1]) <= 1e-5
    assert command(["served"]) == 0
    assert "-    the same model on this machine: none was named" in capsys.readouterr().out


def test_a_service_that_serves_another_model_is_found_out(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny.reward_model(tmp_path / "other", max_tokens=4096, attributes=ATTRIBUTES, seed=7)
    assert command(["served", "--against", str(other)]) == 1
    assert "FAIL the same model on this machine" in capsys.readouterr().out
    lacking = tiny.reward_model(tmp_path / "lacking", max_tokens=4096, attributes=("helpfulness",))
    assert command(["served", "--against", str(lacking)]) == 1
    assert "does not rate correctness" in capsys.readouterr().out
    assert command(["served", "--against", "served"]) == 2
    assert "that is a service too" in capsys.readouterr().err
    assert command(["starter", "--against", "starter"]) == 2
    assert "and starter is no service" in capsys.readouterr().err
