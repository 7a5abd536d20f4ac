"""One conversation, its scores: what a notebook asks for."""

from __future__ import annotations

import ast
import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import services
import tiny
import yaml
from places import ROOT, TESTS
from service_runs import settings_for
from services import HELPSTEER, SEED_SCORES, Server, as_json, completion

import assay
from assay import query_reward_model, query_reward_model_async
from assay.core.calls import Json
from assay.core.errors import ModelFault, UserMistake

MESSAGES = [{"role": "user", "content": "Paris?"}, {"role": "assistant", "content": "Ah, Paris!"}]
SCORES = dict(zip(HELPSTEER, SEED_SCORES, strict=True))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with services.serving(lambda asked: as_json(completion(SCORES))) as running:
        path = tmp_path / "endpoints.yaml"
        path.write_text(yaml.safe_dump({"nemotron": settings_for(running.url)}))
        monkeypatch.setenv("ASSAY_ENDPOINTS_FILE", str(path))
        monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("SERVICE_KEY", "k")
        yield running


def test_tools_and_calls_are_sent_with_the_messages(server: Server) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "tide", "arguments": "{}"}}
    tool: dict[str, Json] = {"type": "function", "function": {"name": "tide", "parameters": {}}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "High water?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "6", "tool_call_id": "c1"},
        {"role": "assistant", "content": "At six."},
    ]
    assert query_reward_model(messages=messages, model="nemotron", tools=[tool]) == SCORES
    assert server.asked[-1].json["messages"] == messages
    assert server.asked[-1].json["tools"] == [tool]
    with pytest.raises(UserMistake, match="the last one is what is rated"):
        query_reward_model(messages=messages[:2], model="nemotron")
    with pytest.raises(UserMistake, match="tools: a tool has no parameters"):
        query_reward_model(messages=messages, model="nemotron", tools=[{"name": "tide"}])


def test_the_scores_come_by_name(server: Server) -> None:
    assert query_reward_model(messages=MESSAGES, model="nemotron") == SCORES
    assert server.asked[-1].json["messages"] == MESSAGES


def test_inside_an_event_loop_both_ways_work(server: Server) -> None:
    async def notebook() -> list[dict[str, float]]:
        together = [query_reward_model_async(messages=MESSAGES, model="nemotron") for _ in range(3)]
        return [*await asyncio.gather(*together), query_reward_model(messages=MESSAGES, model="nemotron")]

    assert asyncio.run(notebook()) == [SCORES] * 4


@pytest.mark.parametrize(
    "messages",
    [
        [],
        MESSAGES[:1],
        [*MESSAGES, {"role": "user", "content": "and?"}],
        [{"role": "robot", "content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
    ],
)
def test_messages_that_cannot_be_rated_are_refused(server: Server, messages: list[Any]) -> None:
    with pytest.raises(UserMistake, match="messages"):
        query_reward_model(messages=messages, model="nemotron")
    assert not server.asked


def test_no_score_is_an_error_with_its_reason(server: Server) -> None:
    server.answer = lambda asked: as_json(completion({"helpfulness": float("nan")}))
    with pytest.raises(
        ModelFault, match="service_reply: correctness, coherence, complexity, verbosity missing"
    ):
        query_reward_model(messages=MESSAGES, model="nemotron")


def test_a_local_model_answers_as_well(server: Server, tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "tiny")
    assert set(query_reward_model(messages=MESSAGES, model=str(folder))) == {"helpfulness", "correctness"}


def test_importing_assay_alone_stays_cheap() -> None:
    code = (
        "import sys, assay; print([n for n in ('openai', 'pydantic', 'torch', 'httpx2') if n in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_mistake_is_shown_without_an_event_loops_story() -> None:
    with pytest.raises(UserMistake) as caught:
        query_reward_model(messages=[{"role": "user", "content": "Hi"}], model="starter")
    assert caught.value.__context__ is None


def names_used(path: Path) -> set[str]:
    """The names of ``assay`` itself that the file uses: imported ones, and those after ``assay.``."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imported = {
        alias.asname or alias.name: alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module == "assay"
        for alias in node.names
    }
    return {imported[node.id] for node in nodes if isinstance(node, ast.Name) and node.id in imported} | {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "assay"
    }


@pytest.mark.slow
def test_every_exported_name_is_used_in_a_test_or_an_example() -> None:
    files = [*TESTS.rglob("*.py"), *(ROOT / "examples").glob("*.py")]
    assert set(assay.__all__) - set().union(*map(names_used, files)) == set()


@pytest.mark.slow
def test_files_are_divided_by_a_group_where_one_is_named(server: Server, tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"Q{n}"}, MESSAGES[1]], "tree": {"id": n % 12}}
        for n in range(48)
    ]
    rated = assay.read(rows).rate("nemotron")
    out = tmp_path / "out"
    manifest = rated.export(out, ["messages"], split=["val=0.4"], group="row.tree.id")
    found: dict[int, set[str]] = {}
    for side, file in manifest.exports["messages"].sides.items():
        for line in (out / file).read_text().splitlines():
            found.setdefault(json.loads(json.loads(line)["extra"])["tree"]["id"], set()).add(side)
    assert found.keys() == set(range(12))
    assert all(len(sides) == 1 for sides in found.values())
    assert "divided by row.tree.id" in manifest.selected.notes[-1]
    assert "divided by `row.tree.id`" in (out / "README.md").read_text()
    with pytest.raises(UserMistake, match="--group tree: write a field of the input row"):
        rated.export(out, ["messages"], split=["val=0.4"], group="tree")
    with pytest.raises(UserMistake, match="is less than 1MB"):
        rated.export(out, ["messages"], shard_size="1kB")
