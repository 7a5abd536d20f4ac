"""Reasoning that is hidden from the model stays in the record, and turns without any keep their keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fakes
import planning
import polars as pl
import pytest
from converting import Outcome, converted_file
from tool_chats import CHATS, TOOLS, answer, user

from assay.rewards.protocol import TurnScore
from assay.score.shard import Shard, requested
from assay.score.store import ScoreStore
from assay.storage.home import Home

PLAIN = [user("Hi"), answer("Hello!"), user("Rain?"), answer("Yes.")]
#: The same, with reasoning in the second answer.
REASONED = {
    "a field": [*PLAIN[:3], answer("Yes.", reasoning_content="It says so.")],
    "the other field": [*PLAIN[:3], answer("Yes.", thinking="It says so.")],
    "OpenThoughts' text": [
        *PLAIN[:3],
        answer("<|begin_of_thought|>\nIt says so.\n<|end_of_thought|>\n\nYes."),
    ],
    "the text": [*PLAIN[:3], answer("<think>\nIt says so.\n</think>\n\nYes.")],
}


def converted(folder: Path, *chats: list[dict[str, Any]], hide: bool) -> Outcome:
    data = b"\n".join(json.dumps({"messages": chat, "tools": TOOLS}).encode() for chat in chats)
    folder.mkdir(exist_ok=True)
    return converted_file(folder, data, hide_reasoning=hide)


def keys(outcome: Outcome) -> list[bytes]:
    return [one["key"] for one in outcome.turns]


@pytest.mark.parametrize("name", REASONED)
def test_reasoning_stays_in_the_record_and_its_turn_has_the_key_of_the_answer_alone(
    tmp_path: Path, name: str
) -> None:
    plain = keys(converted(tmp_path / "plain", PLAIN, hide=False))
    shown = converted(tmp_path / "shown", REASONED[name], hide=False)
    hidden = converted(tmp_path / "hidden", REASONED[name], hide=True)
    assert keys(hidden) == plain
    assert keys(shown)[0] == plain[0]
    assert keys(shown)[1] != plain[1]
    for outcome in (shown, hidden):
        assert outcome.records[0]["messages"] == REASONED[name]
        assert outcome.converted.reasoning_turns == 1
    assert shown.records[0]["shown"] is None
    assert json.loads(hidden.records[0]["shown"]) == PLAIN


def test_a_model_is_shown_no_hidden_reasoning(tmp_path: Path) -> None:
    hidden = converted(tmp_path, *REASONED.values(), CHATS["reasoning in every turn"], hide=True)
    home = Home(tmp_path / "home")
    (piece,) = hidden.converted.pieces
    members = pl.read_parquet(home.artifacts / piece.turns.path).select(
        pl.lit(0, pl.UInt32).alias("piece"), "row", "turn", "key"
    )
    shard = Shard(0, members, {0: piece.records}, 1)
    for carried in (shard, shard.carrying(home)):
        requests, _ = requested(carried, home)
        assert len(requests) == len(REASONED) + 1
        for request in requests:
            assert json.loads(request.tools or "") == TOOLS
            texts = [repr(message) for message in request.messages]
            assert not [text for text in texts if "say" in text and "cannot say" not in text], texts
            assert not [text for text in texts if "think" in text and "thinking=None" not in text]
        calling = requests[-1].messages[1]
        assert calling.fields.tool_calls is not None
        assert calling.fields.reasoning_content is None


def test_turns_that_hold_no_reasoning_are_not_rated_again(tmp_path: Path) -> None:
    chats = [PLAIN, [user("And now?"), answer("No.")], *REASONED.values(), CHATS["two turns with calls"]]
    before = converted(tmp_path, *chats, hide=False)
    home, model = Home(tmp_path / "home"), fakes.spec(tmp_path / "model")
    store = ScoreStore(home, model.fingerprint, model.attributes)
    store.write({key: TurnScore((1.0,) * len(model.attributes)) for key in dict.fromkeys(keys(before))})
    after = converted(tmp_path, *chats, hide=True)
    assert set(keys(after)) < set(keys(before))
    assert planning.missing(after.converted, model, home).is_empty()


def test_a_turn_of_nothing_but_reasoning_is_quarantined_where_that_is_hidden(tmp_path: Path) -> None:
    chats = [[user("Rain?"), answer("<think>Hm.</think>")], [user("Rain?"), answer("<think>Hm. Yes.")]]
    shown = converted(tmp_path / "shown", *chats, hide=False)
    assert [one["outcome"] for one in shown.records] == ["ok", "ok"]
    hidden = converted(tmp_path / "hidden", *chats, hide=True)
    assert [one["reason"].partition(":")[0] for one in hidden.records] == [
        "empty_content",
        "unclosed_reasoning",
    ]
    assert hidden.converted.reasoning_turns == 0


def test_turns_are_counted_that_hold_reasoning_and_no_calls(tmp_path: Path) -> None:
    outcome = converted(tmp_path, CHATS["reasoning in every turn"], PLAIN, hide=False)
    assert outcome.converted.reasoning_turns == 3
