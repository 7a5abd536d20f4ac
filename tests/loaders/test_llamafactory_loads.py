"""LLaMA-Factory reads every row to the letter, and empties those that are left out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from loaders.calling_chats import conversations
from loaders.exported import Exports, forced
from loaders.items import item, pair
from loaders.page import PAGE, snippet

from assay.export import EXPORTS, PAIR_EXPORTS, RECORD_EXPORTS
from assay.export.llamafactory import DATASET_INFO
from assay.storage.run_manifest import Written

LOADER = "llamafactory"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROLES = {"tool": "observation", "tool_call": "function"}


def apart(messages: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The system message, and the others as LLaMA-Factory names their roles."""
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    rest = messages[1:] if system else messages
    return system, [{**one, "role": ROLES.get(one["role"], one["role"])} for one in rest]


@pytest.mark.parametrize("kind", ["sft", "kto", "preference"])
def test_every_row_is_read(kind: str, exports: Exports, load: Any) -> None:
    name = f"llamafactory-{kind}"
    done = load("llamafactory_load", name=f"assay_{kind}", folder=str(exports.path(name).parent))
    rows = exports.rows(name)
    assert len(done) == len(rows) > 0
    for row, seen in zip(rows, done, strict=True):
        system, said = apart(row["messages"])
        assert seen["_system"] == system
        if kind == "preference":
            assert seen["_prompt"] == said
            assert seen["_response"] == [row["chosen"], row["rejected"]]
            continue
        assert seen["_prompt"] == said[:-1]
        empty = {"role": "assistant", "content": ""}
        expected = {"sft": said[-1:], "kto": [said[-1], empty] if row.get("label") else [empty, said[-1]]}
        assert seen["_response"] == expected[kind]


def test_the_snippet_trains_a_step(exports: Exports, load: Any, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(exports.folder)
    assert load("llamafactory_snippet", yaml=snippet("LLaMA-Factory", "yaml"))["steps"] == 1


def bad_folder(folder: Path, name: str, *items: Any) -> str:
    forced(folder / Path(EXPORTS[name].file).name, EXPORTS[name], *items)
    (folder / "dataset_info.json").write_bytes(DATASET_INFO.content({name: Written(EXPORTS[name].file, 1)}))
    return str(folder)


def not_emptied(name: str, rows: dict[str, Any], load: Any, folder: Path) -> list[str]:
    """Of which of these rows, by name, the loader leaves anything."""
    done = load(
        "llamafactory_load",
        name=name.replace("llamafactory-", "assay_"),
        folder=bad_folder(folder, name, *rows.values()),
    )
    return [
        one for one, seen in zip(rows, done, strict=True) if (seen["_prompt"], seen["_response"]) != ([], [])
    ]


def test_what_is_left_out_of_sft_would_be_emptied(load: Any, tmp_path: Path) -> None:
    rows = {
        roles: item(roles) for roles in ("uau", "uasua", "ssua", "uua", "uaa", "aua", "uta", "sa", "uatta")
    }
    assert not_emptied("llamafactory-sft", rows, load, tmp_path) == []


def test_what_is_left_out_of_preferences_would_be_emptied(load: Any, tmp_path: Path) -> None:
    rows = {roles: pair(roles) for roles in ("uus", "uu", "a", "ua", "s")}
    assert not_emptied("llamafactory-preference", rows, load, tmp_path) == []


def test_it_is_sharegpt_because_openai_would_add_to_the_system_message(exports: Exports) -> None:
    info = json.loads((exports.folder / "llamafactory/dataset_info.json").read_text())
    assert {one["formatting"] for one in info.values()} == {"sharegpt"}
    assert RECORD_EXPORTS.keys() | PAIR_EXPORTS.keys() >= {f"llamafactory-{name[6:]}" for name in info}


def test_calls_and_tools_are_read(calls: Exports, load: Any) -> None:
    folder = str(calls.path("llamafactory-sft").parent)
    done = load("llamafactory_load", name="assay_sft", folder=folder)
    rows = calls.rows("llamafactory-sft")
    # Text beside a call, and two results of tools in a row, have no place.
    assert len(done) == len(rows) == len(conversations()) - 2
    for row, seen in zip(rows, done, strict=True):
        _, said = apart(row["messages"])
        assert (seen["_prompt"], seen["_response"]) == (said[:-1], said[-1:])
        assert seen["_tools"] == row["tools"]
    contents = [one["content"] for row in rows for one in row["messages"] if one["role"] == "tool_call"]
    assert contents
    for made in load("llamafactory_calls", contents=contents):
        assert all("tide" in text and not text.startswith("died") for text in made.values()), made


def test_what_says_something_beside_a_call_or_has_no_object_is_died_on(load: Any) -> None:
    contents = ['Let me see. {"name": "tide", "arguments": {}}', '{"name": "tide", "arguments": "today"}']
    for made in load("llamafactory_calls", contents=contents):
        assert any(text.startswith("died") for text in made.values()), made


def test_several_calls_in_one_message_are_died_on_by_the_templates_that_the_page_names(load: Any) -> None:
    one, other = '{"name":"tide","arguments":{}}', '{"name":"moon","arguments":{}}'
    alone, both = load("llamafactory_calls", contents=[one, f"[{one},{other}]"])
    assert not [name for name, text in alone.items() if text.startswith("died")]
    assert [name for name, text in both.items() if text.startswith("died")] == ["glm4"]
    assert all(("tide" in text) and ("moon" in text) for name, text in both.items() if name != "glm4")
    as_glm4 = load("llamafactory_templates", tool_format="glm4")
    named = re.search(r"those that\nwrite calls as GLM-4 does \((.*?)\)", PAGE)
    assert named is not None
    assert sorted(as_glm4) == sorted(re.findall(r"`(\w+)`", named[1]))
