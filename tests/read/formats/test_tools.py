"""Tools, calls and a message's own fields, in the shapes that people write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from converting import converted_file
from tool_chats import CHATS, TOOLS, answer, call, calling, result, user

from assay.read.formats import row_reader
from assay.read.formats.mapping import parse_names

FLAT = [one["function"] for one in TOOLS]
CALL = {"name": "weather", "arguments": {"place": "Brest"}}
ASKED, SAID = user("Rain?"), answer("It is.")


def records(folder: Path, *rows: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    data = b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows)
    return converted_file(folder, data, **options).records


def keys(folder: Path, *rows: dict[str, Any]) -> list[list[bytes]]:
    """The keys of each row's turns."""
    data = b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows)
    turns = converted_file(folder, data).turns
    return [[one["key"] for one in turns if one["row"] == row] for row in range(len(rows))]


def test_what_a_message_holds_stays_with_it(tmp_path: Path) -> None:
    fields = {
        "name": "ann",
        "reasoning_content": "Hm.",
        "thinking": "Hm!",
        "weight": 0,
        "train": False,
        "loss": 1.50,
        "label": "good",
        "metadata": {"a": [1, None, "\u2028"]},
    }
    row = {"messages": [{**ASKED, **fields}, {**SAID, **fields, "gone": None}]}
    (record,) = records(tmp_path, row)
    assert (record["outcome"], record["reason"]) == ("ok", None)
    assert record["messages"] == [{**ASKED, **fields}, {**SAID, **fields}]


def test_a_second_name_and_a_second_content_stay_too(tmp_path: Path) -> None:
    twice = {**ASKED, "from": "ann", "value": "Rain, please?"}
    (record,) = records(tmp_path, {"messages": [twice, SAID]})
    assert record["messages"] == [twice, SAID]


def test_numbers_keep_their_digits(tmp_path: Path) -> None:
    row = (
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "w": 0.10}]}'
    )
    outcome = converted_file(tmp_path, row)
    (piece,) = outcome.converted.pieces
    records = pl.read_parquet(tmp_path / "home" / "artifacts" / piece.records.path)
    assert records["messages"][0].endswith('"content":"b","w":0.10}]')


#: A conversation that holds the same call, as each shape writes it.
SHAPES: dict[str, list[dict[str, Any]]] = {
    "openai": [ASKED, calling(call("weather", {"place": "Brest"})), result("yes"), SAID],
    "arguments as a text": [ASKED, calling(call("weather", '{"place": "Brest"}')), result("yes"), SAID],
    "calls as a text": [
        ASKED,
        {**calling(), "tool_calls": json.dumps([call("weather", {"place": "Brest"})])},
        result("yes"),
        SAID,
    ],
    "flat calls": [ASKED, {**calling(), "tool_calls": [{"id": "call00001", **CALL}]}, result("yes"), SAID],
    "nulls of a table": [
        {**ASKED, "tool_calls": None, "tool_call_id": None, "name": None},
        calling({**call("weather", {"place": "Brest"}), "index": None}),
        {**result("yes"), "tool_calls": None},
        {**SAID, "tool_calls": None},
    ],
}
SPOKEN: dict[str, list[dict[str, Any]]] = {
    "llama-factory": [
        {"from": "human", "value": "Rain?"},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "observation", "value": "yes"},
        {"from": "gpt", "value": "It is."},
    ],
    "ms-swift": [
        {"role": "user", "content": "Rain?"},
        {"role": "tool_call", "content": json.dumps([CALL])},
        {"role": "tool_response", "content": "yes"},
        {"role": "assistant", "content": "It is."},
    ],
}


@pytest.mark.parametrize("name", [*SHAPES, *SPOKEN])
def test_a_call_is_context_and_the_answer_after_it_is_the_turn(tmp_path: Path, name: str) -> None:
    row = {"messages": SHAPES[name]} if name in SHAPES else {"conversations": SPOKEN[name]}
    (record,) = records(tmp_path, {**row, "tools": FLAT})
    assert (record["outcome"], record["roles"], record["reason"]) == ("ok", "ucta", None)
    (held,) = record["messages"][1]["tool_calls"]
    assert (held["type"], held["function"]["name"]) == ("function", "weather")
    arguments = held["function"]["arguments"]
    assert (json.loads(arguments) if isinstance(arguments, str) else arguments) == {"place": "Brest"}
    assert record["rest"] is None
    assert json.loads(record["tools"]) == TOOLS


def test_equal_calls_give_equal_keys_and_others_give_others(tmp_path: Path) -> None:
    same = ("openai", "arguments as a text", "calls as a text", "nulls of a table")
    rows = [{"messages": SHAPES[name], "tools": TOOLS} for name in same]
    assert len({tuple(one) for one in keys(tmp_path, *rows)}) == 1
    chat = SHAPES["openai"]
    others = [
        {"messages": chat, "tools": TOOLS},
        {"messages": chat},
        {"messages": chat, "tools": TOOLS[:1]},
        {"messages": [ASKED, calling(call("weather", {"place": "Caen"})), result("yes"), SAID]},
        {"messages": [ASKED, calling(call("tide", {"place": "Brest"})), result("yes"), SAID]},
        {"messages": [ASKED, calling(call("weather", {"place": "Brest"}), content=""), result("yes"), SAID]},
        {"messages": [ASKED, calling(call("weather", {"place": "Brest"}, 2)), result("yes"), SAID]},
        {"messages": [*chat[:2], {**result("yes"), "name": "tide"}, SAID]},
        {"messages": [*chat[:2], {**result("yes"), "tool_call_id": "x"}, SAID]},
        {"messages": [*chat[:3], {**SAID, "reasoning_content": "yes"}]},
        {"messages": [*chat[:3], {**SAID, "thinking": "yes"}]},
    ]
    found = [tuple(one) for one in keys(tmp_path, *others)]
    assert len(set(found)) == len(others)


def test_fields_that_no_model_is_shown_are_in_no_key(tmp_path: Path) -> None:
    plain = {"messages": [ASKED, SAID]}
    carried = {"messages": [{**ASKED, "weight": 1, "name": None}, {**SAID, "train": False, "label": 3}]}
    one, other = keys(tmp_path, plain, carried)
    assert one == other


def test_an_answer_beside_a_call_is_a_turn(tmp_path: Path) -> None:
    chat = [ASKED, calling(call("weather", {}), content="Let me see."), result("yes"), SAID]
    thought = [ASKED, calling(call("weather", {}), content="<think>Hm</think>\n"), result("yes"), SAID]
    found = records(tmp_path, {"messages": chat}, {"messages": thought})
    assert [record["roles"] for record in found] == ["uata", "ucta"]


def test_calls_alone_are_no_conversation_to_rate(tmp_path: Path) -> None:
    (record,) = records(tmp_path, {"messages": [ASKED, calling(call("weather", {}))]})
    assert (record["outcome"], record["reason"]) == ("dropped", "no_assistant_turn")


@pytest.mark.parametrize(
    "given", [TOOLS, FLAT, json.dumps(TOOLS), json.dumps(FLAT), json.dumps(TOOLS, indent=2)]
)
def test_tools_are_read_in_every_shape(tmp_path: Path, given: object) -> None:
    (record,) = records(tmp_path, {"messages": [ASKED, SAID], "tools": given, "id": 7})
    assert json.loads(record["tools"]) == TOOLS
    assert record["rest"] == '{"id":7}'


def test_openais_first_functions_are_tools(tmp_path: Path) -> None:
    chat = [
        ASKED,
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
        {"role": "function", "name": "weather", "content": "yes"},
        SAID,
    ]
    (record,) = records(tmp_path, {"messages": chat, "functions": FLAT})
    assert (record["roles"], json.loads(record["tools"])) == ("ucta", TOOLS)
    assert record["messages"][1]["tool_calls"] == [
        {"type": "function", "function": {"name": "weather", "arguments": "{}"}}
    ]
    assert record["messages"][2]["name"] == "weather"


@pytest.mark.parametrize("given", [None, [], "", " ", "[]"])
def test_no_tools_are_none(tmp_path: Path, given: object) -> None:
    one, other = keys(tmp_path, {"messages": [ASKED, SAID], "tools": given}, {"messages": [ASKED, SAID]})
    assert one == other


def test_tools_of_other_makers_are_tools(tmp_path: Path) -> None:
    given = [{"name": "f", "description": "d", "input_schema": {"type": "object"}}]
    (record,) = records(tmp_path, {"messages": [ASKED, SAID], "tools": given})
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    assert json.loads(record["tools"]) == [{"type": "function", "function": function}]


@pytest.mark.parametrize(
    "given", [["hammer", "saw"], "a hammer", 3, [{"id": 1}], [{"name": "hammer", "price": 1}], "[{"]
)
def test_another_field_of_that_name_is_carried_along_unless_there_are_calls(
    tmp_path: Path, given: object
) -> None:
    chats = [[ASKED, SAID], [ASKED, calling(call("weather", {})), result("yes"), SAID]]
    plain, called = records(tmp_path, *({"messages": chat, "tools": given} for chat in chats))
    assert (plain["outcome"], plain["tools"], json.loads(plain["rest"])) == ("ok", None, {"tools": given})
    assert called["outcome"] == "quarantined"
    assert called["reason"].startswith("tools: 'tools' holds no tools that can be read: ")


def test_tools_that_a_system_message_shows_are_not_shown_twice(tmp_path: Path) -> None:
    """Hermes' data sets have them in both places."""
    system = {"role": "system", "content": f"Call functions.\n<tools> {FLAT} </tools>"}
    other = {"role": "system", "content": "<tools> tide </tools>"}
    rows = [{"messages": [one, ASKED, SAID], "tools": json.dumps(TOOLS)} for one in (system, other)]
    held, lacking = records(tmp_path, *rows)
    assert held["tools"] is None
    assert json.loads(held["rest"]) == {"tools": json.dumps(TOOLS)}
    assert json.loads(lacking["tools"]) == TOOLS
    without = {"messages": [system, ASKED, SAID]}
    assert keys(tmp_path, rows[0])[0] == keys(tmp_path, without)[0]


def test_both_sides_of_a_preference_have_the_tools(tmp_path: Path) -> None:
    row = {"prompt": [ASKED], "chosen": [SAID], "rejected": [answer("No.", weight=0)], "tools": TOOLS}
    found = records(tmp_path, row)
    assert [json.loads(record["tools"]) for record in found] == [TOOLS, TOOLS]
    assert [record["messages"][-1] for record in found] == [SAID, answer("No.", weight=0)]


UNREADABLE = "tool_calls: message 2 (assistant) holds calls that cannot be read: "


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({**calling(), "tool_calls": [{"id": 1}]}, UNREADABLE),
        ({**calling(), "tool_calls": ["weather"]}, UNREADABLE),
        ({**calling(), "tool_calls": "weather()"}, UNREADABLE),
        ({**calling(), "tool_calls": [{"function": {}}]}, UNREADABLE),
        ({**user("x"), "tool_calls": [call("f", {})]}, "tool_calls: message 2 (user) holds a call, which"),
        ({"role": "function_call", "content": "f"}, "tool_calls: message 2 (function_call) is no call in"),
        ({"role": "function_call", "content": ""}, "tool_calls: message 2 (function_call) is no call in"),
        (answer(""), "empty_content: message 2 (assistant)"),
        (answer("", reasoning_content="Hm"), "empty_content: message 2 (assistant)"),
    ],
)
def test_what_is_neither_a_text_nor_a_call_quarantines_its_record(
    tmp_path: Path, message: dict[str, Any], reason: str
) -> None:
    (record,) = records(tmp_path, {"messages": [ASKED, message, ASKED, SAID]})
    assert record["outcome"] == "quarantined"
    assert record["reason"].startswith(reason), record["reason"]


def test_reasoning_before_a_spoken_call_is_reasoning(tmp_path: Path) -> None:
    chat = [
        {"from": "human", "value": "Rain?"},
        {"from": "function_call", "value": f"<think>\nI look.\n</think>\n\n{json.dumps(CALL)}"},
        {"from": "observation", "value": "yes"},
        {"from": "gpt", "value": "It is."},
    ]
    (record,) = records(tmp_path, {"conversations": chat})
    assert record["messages"][1]["reasoning_content"] == "I look."
    assert record["roles"] == "ucta"


def texted(message: dict[str, Any]) -> dict[str, Any]:
    """The message with arguments that are a text, as OpenAI writes them."""
    message = json.loads(json.dumps(message))
    for one in message.get("tool_calls", ()):
        if not isinstance(one["function"]["arguments"], str):
            one["function"]["arguments"] = json.dumps(one["function"]["arguments"])
    return message


@pytest.mark.slow
def test_jsonl_and_parquet_agree(tmp_path: Path) -> None:
    # A table has one type for all arguments, so people write them as texts.
    rows = [
        {"messages": [texted(one) for one in chat], "tools": json.dumps(TOOLS)} for chat in CHATS.values()
    ]
    (tmp_path / "json").mkdir()
    (tmp_path / "parquet").mkdir()
    jsonl = converted_file(
        tmp_path / "json", b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows)
    )
    path = tmp_path / "rows.parquet"
    pl.DataFrame(rows).write_parquet(path)
    table = converted_file(tmp_path / "parquet", path.read_bytes(), name="rows.parquet")
    assert [one["key"] for one in jsonl.turns] == [one["key"] for one in table.turns]
    assert [one["roles"] for one in jsonl.records] == [one["roles"] for one in table.records]


@pytest.mark.parametrize(
    "beside", [{"Tools": TOOLS}, {"tools": None, "functions": FLAT}, {"tools": [], "functions": FLAT}]
)
def test_tools_are_found_in_any_case_and_behind_an_empty_field(
    tmp_path: Path, beside: dict[str, Any]
) -> None:
    (record,) = records(tmp_path, {"messages": [ASKED, SAID], **beside})
    assert json.loads(record["tools"]) == TOOLS


def test_tools_under_a_name_of_ones_own_are_mapped(tmp_path: Path) -> None:
    row = {"messages": [ASKED, SAID], "toolbox": TOOLS}
    mapped = parse_names(["toolbox=tools"], [], row_reader().known)
    (record,) = records(tmp_path, row, mapped=mapped)
    assert (json.loads(record["tools"]), record["rest"]) == (TOOLS, None)


def test_an_answer_that_begins_with_a_call_follows_its_question(tmp_path: Path) -> None:
    side = [calling(call("weather", {})), result("yes"), SAID]
    asked = {"prompt": "Rain?", "chosen": side, "rejected": [SAID], "tools": TOOLS}
    alone = {"chosen": side, "rejected": [SAID], "tools": TOOLS}
    beside = {"question": "Rain?", "messages": side}
    found = records(tmp_path, asked, beside, alone)
    assert [record["roles"] for record in found[:3]] == ["ucta", "ua", "ucta"]
    assert [str(record["reason"]).split(":")[0] for record in found[3:]] == ["missing_prompt"] * 2
    longer = {**asked, "chosen": [*side, user("And Caen?"), SAID]}
    assert records(tmp_path, longer)[0]["roles"] == "uctaua"


def test_what_a_candidate_says_beside_its_content_is_in_its_message(tmp_path: Path) -> None:
    candidates = [{"content": "Yes.", "reasoning_content": "Hm.", "score": 3}, {"content": "No."}]
    first, second = records(tmp_path, {"prompt": "Rain?", "responses": candidates})
    assert first["messages"][-1] == answer("Yes.", reasoning_content="Hm.")
    assert json.loads(first["rest"]) == {"assay_response": {"score": 3}}
    assert (second["messages"][-1], second["rest"]) == (answer("No."), None)


def test_what_a_part_holds_beside_its_text_stays_with_the_message(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "Ra", "cache_control": {"type": "ephemeral"}, "image_url": None},
        {"type": "text", "text": "in?", "annotations": []},
    ]
    plain, held = {"messages": [ASKED, SAID]}, {"messages": [{"role": "user", "content": parts}, SAID]}
    beside = [{"cache_control": {"type": "ephemeral"}}, None]
    assert records(tmp_path, held)[0]["messages"][0] == {**ASKED, "assay_parts": beside}
    one, other = keys(tmp_path, plain, held)
    assert one == other


def test_a_field_whose_name_a_mapped_one_takes_stays_with_the_message(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "raw", "text": "Rain?"}, {**SAID, "text": "Yes."}]}
    mapped = parse_names(["text=content"], [], row_reader().known)
    (record,) = records(tmp_path, row, mapped=mapped)
    assert record["messages"] == [
        {**user("Rain?"), "other_content": "raw"},
        answer("Yes.", other_content="It is."),
    ]


def test_what_a_blank_system_message_holds_is_counted(tmp_path: Path) -> None:
    blank = {"role": "system", "content": " ", "name": "x", "weight": 0}
    data = json.dumps({"messages": [blank, ASKED, SAID]}).encode()
    converted = converted_file(tmp_path, data).converted
    assert converted.left_out == {"name": 1, "weight": 1}


def test_a_batch_of_openai_is_rated_with_the_tools_of_its_request(tmp_path: Path) -> None:
    body = {"messages": [ASKED], "tools": TOOLS}
    reply = {"body": {"choices": [{"index": 0, "message": SAID}]}}
    (record,) = records(tmp_path, {"custom_id": "a", "body": body, "response": reply})
    assert json.loads(record["tools"]) == TOOLS
    assert json.loads(record["rest"])["body"] == body


def test_items_of_a_reply_that_are_no_messages_are_carried_along(tmp_path: Path) -> None:
    thought = {"type": "reasoning", "id": "r", "summary": []}
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is."}]}
    flat = [{"type": "function", **FLAT[0]}]
    row = {
        "custom_id": "a",
        "body": {"input": "Rain?", "tools": flat},
        "response": {"body": {"output": [thought, message]}},
    }
    (record,) = records(tmp_path, row)
    assert json.loads(record["rest"])["assay_reply"]["body"]["output"] == [thought]
    assert json.loads(record["tools"]) == TOOLS[:1]
