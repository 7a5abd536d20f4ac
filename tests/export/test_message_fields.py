"""What messages hold besides role and content, and tools: in which file, how, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from handmade import Made, Record, Turn, make
from stages import convert, decide, take_inventory

from assay.core.schema import Conversation, FullMessage, Message, MessageFields, roles_of
from assay.export import EXPORTS, PAIR_EXPORTS, RECORD_EXPORTS, PairChoice
from assay.export.contract import Export, ToWrite, rows_of
from assay.export.kept import Held, Item
from assay.export.llamafactory import DATASET_INFO
from assay.export.pairs import Pair
from assay.export.results import write_results
from assay.select.rules import Rules
from assay.storage.conversations import field_kinds
from assay.storage.home import Home
from assay.storage.run_manifest import Written
from assay.storage.stage import RunContext

TOOLS = '[{"type":"function","function":{"name":"tide","parameters":{"type":"object","properties":{}}}}]'
ASKED = Message("user", "High water?")


def calling(*arguments: str, content: str = "", **fields: Any) -> FullMessage:
    """A message that calls ``tide`` with each of these arguments, which are JSON."""
    calls = ",".join(
        f'{{"id":"c{n}","type":"function","function":{{"name":"tide","arguments":{one}}}}}'
        for n, one in enumerate(arguments, 1)
    )
    content_is: Any = None if content else "null"
    return FullMessage(
        "assistant", content, MessageFields(tool_calls=f"[{calls}]", content_is=content_is, **fields)
    )


CALL = calling('{"day": 1.10}', reasoning_content="Look it up.")
RESULT = FullMessage("tool", "At noon.", MessageFields(tool_call_id="c1", name="tide"))
ANSWER = FullMessage("assistant", "Noon.", MessageFields(reasoning_content="So.", carried='{"label":"x"}'))
CHAT: Conversation = (ASKED, CALL, RESULT, ANSWER)
ARGUMENTS = '{"day": 1.10}'

#: The messages as chat templates are given them, less what is null.
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "tide", "arguments": ARGUMENTS}},
    ],
}
Q = {"role": "user", "content": "High water?"}
FULL: list[dict[str, Any]] = [
    Q,
    {**CALLED, "reasoning_content": "Look it up."},
    {"role": "tool", "content": "At noon.", "tool_call_id": "c1", "name": "tide"},
    {"role": "assistant", "content": "Noon.", "reasoning_content": "So."},
]
#: The same in words, for trainers whose messages have a role and a content alone.
IN_WORDS: list[dict[str, Any]] = [
    Q,
    {"role": "tool_call", "content": '{"name":"tide","arguments":{"day": 1.10}}'},
    {"role": "tool", "content": "At noon."},
    {"role": "assistant", "content": "Noon."},
]


def item(messages: Conversation, tools: str | None = TOOLS, *, side: str | None = "chosen") -> Item:
    """A record of a run that has no other."""
    roles = roles_of(messages)
    scores: list[tuple[float, ...]] = [(1.0,)] * roles.count("a")
    rest = None if side is None else json.dumps({"assay_side": side})
    held = Held(field_kinds(messages), tools is not None)
    return Item("a", 1, 0, roles, messages, None, ("reward",), scores, rest, None, tools, held)


def pair(prompt: Conversation, tools: str | None = TOOLS, rejected: Message | None = None) -> Pair:
    other = rejected or Message("assistant", "Never.")
    held = Held(field_kinds((*prompt, ANSWER, other)), tools is not None)
    return Pair(prompt, roles_of(prompt), ANSWER, other, 1.5, tools, held)


def made(name: str, *items: Any) -> tuple[list[dict[str, Any]], Mapping[str, int], Mapping[str, int]]:
    """The rows of an export, less what is null in them, what is left out, and what rows lack."""
    export: Export[Any] = EXPORTS[name]
    found = rows_of(export, items, items[0].held)
    if found.table is not None:
        rows = found.table.to_dicts()
    else:
        rows = [json.loads(line) for line in found.lines.splitlines()]
    return [without_null(row) for row in rows], found.left_out, found.without


def without_null(value: Any) -> Any:
    """The value without nulls, but for a message's content."""
    if isinstance(value, list):
        return [without_null(one) for one in value]
    if isinstance(value, dict):
        return {
            name: without_null(one) for name, one in value.items() if name == "content" or one is not None
        }
    return value


def marked(messages: Sequence[Mapping[str, Any]], flag: str, yes: Any, no: Any) -> list[dict[str, Any]]:
    said = ("assistant", "tool_call")
    rows = [{**one, flag: yes if one["role"] in said else no} for one in messages]
    return [
        {name: value for name, value in one.items() if value is not None or name == "content"} for one in rows
    ]


def without_reasoning(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in one.items() if name != "reasoning_content"} for one in messages]


LABEL = {"label": 1}
IDS = {"reasoning_content": 1, "tool_call_id": 1, "name": 1}


@pytest.mark.parametrize(
    ("name", "row", "lacks"),
    [
        ("trl-sft", {"messages": FULL, "tools": TOOLS}, LABEL),
        (
            "trl-kto",
            {"prompt": FULL[:-1], "completion": FULL[-1:], "label": True, "tools": TOOLS},
            LABEL,
        ),
        (
            "openai",
            {"messages": marked(without_reasoning(FULL), "weight", 1, None), "tools": json.loads(TOOLS)},
            {**LABEL, "reasoning_content": 1},
        ),
        ("nemo-rl-sft", {"messages": FULL, "tools": json.loads(TOOLS)}, LABEL),
        ("llamafactory-sft", {"messages": IN_WORDS, "tools": TOOLS}, {**LABEL, **IDS}),
        ("llamafactory-kto", {"messages": IN_WORDS, "label": True, "tools": TOOLS}, {**LABEL, **IDS}),
        ("axolotl-sft", {"messages": marked(FULL, "train", True, False), "tools": TOOLS}, LABEL),
        ("swift-sft", {"messages": marked(IN_WORDS, "loss", True, False), "tools": TOOLS}, {**LABEL, **IDS}),
    ],
)
def test_a_row_holds_what_its_trainer_takes(
    name: str, row: Mapping[str, Any], lacks: Mapping[str, int]
) -> None:
    assert made(name, item(CHAT)) == ([row], {}, lacks)


CONTEXT: Conversation = CHAT[:3]
TOLD = {"role": "assistant", "content": "Never."}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("trl-preference", {"prompt": FULL[:-1], "chosen": FULL[-1:], "rejected": [TOLD], "tools": TOOLS}),
        (
            "trl-reward",
            {"prompt": FULL[:-1], "chosen": FULL[-1:], "rejected": [TOLD], "margin": 1.5, "tools": TOOLS},
        ),
        (
            "llamafactory-preference",
            {"messages": IN_WORDS[:-1], "chosen": IN_WORDS[-1], "rejected": TOLD, "tools": TOOLS},
        ),
        (
            "swift-preference",
            {
                "messages": IN_WORDS,
                "rejected_messages": [*IN_WORDS[:-1], TOLD],
                "margin": 1.5,
                "tools": TOOLS,
            },
        ),
    ],
)
def test_a_pair_holds_what_its_trainer_takes(name: str, row: Mapping[str, Any]) -> None:
    rows, left_out, _ = made(name, pair(CONTEXT))
    assert (rows, left_out) == ([row], {})


@pytest.mark.parametrize("name", ["openrlhf-preference", "nemo-rl-preference"])
def test_calls_without_tools_are_in_the_prompts_of_trainers_that_know_no_tools(name: str) -> None:
    (row,), left_out, _ = made(name, pair(CONTEXT, None))
    assert row.get("prompt", row.get("context")) == FULL[:-1]
    assert left_out == {}


TWO = calling('{"day": 1}', '{"day": 2}')
BESIDE = calling('{"day": 1}', content="Let me see.")
NO_OBJECT = calling('"today"')


@pytest.mark.parametrize(
    ("name", "messages", "tools", "code"),
    [
        ("verl-sft", CHAT, TOOLS, "tools"),
        ("axolotl-kto", CHAT, None, "tool_call"),
        ("axolotl-kto", CHAT[:1] + CHAT[3:], TOOLS, "tools"),
        ("steerlm-regression", (*CHAT[:1], BESIDE), None, "tool_call"),
        ("llamafactory-sft", (ASKED, BESIDE), None, "text_beside_call"),
        ("llamafactory-kto", (ASKED, BESIDE), None, "text_beside_call"),
        *(
            (name, (ASKED, NO_OBJECT, RESULT, ANSWER), None, "arguments_no_object")
            for name in ("llamafactory-sft", "llamafactory-kto", "axolotl-sft")
        ),
        ("llamafactory-sft", (ASKED, TWO, RESULT, RESULT, ANSWER), None, "roles_do_not_alternate"),
    ],
)
def test_a_record_that_a_trainer_would_drop_alter_or_die_on_is_left_out(
    name: str, messages: Conversation, tools: str | None, code: str
) -> None:
    rows, left_out, _ = made(name, item(messages, tools))
    assert (rows, left_out) == ([], {code: 1})


@pytest.mark.parametrize(
    ("name", "prompt", "tools", "code"),
    [
        ("openrlhf-preference", CONTEXT, TOOLS, "tools"),
        ("nemo-rl-preference", CONTEXT, TOOLS, "tools"),
        ("axolotl-preference", CONTEXT, None, "tool_call"),
        ("axolotl-preference", (ASKED,), TOOLS, "tools"),
        ("verl-preference", (ASKED,), TOOLS, "tools"),
        ("llamafactory-preference", (ASKED, BESIDE, RESULT), None, "text_beside_call"),
        ("llamafactory-preference", (ASKED, NO_OBJECT, RESULT), None, "arguments_no_object"),
    ],
)
def test_a_pair_that_a_trainer_would_drop_alter_or_die_on_is_left_out(
    name: str, prompt: Conversation, tools: str | None, code: str
) -> None:
    rows, left_out, _ = made(name, pair(prompt, tools))
    assert (rows, left_out) == ([], {code: 1})


def test_several_calls_of_a_message_are_a_list_or_one_behind_the_other() -> None:
    one, other = ('{"name":"tide","arguments":{"day": 1}}', '{"name":"tide","arguments":{"day": 2}}')
    (row,), _, _ = made("llamafactory-sft", item((ASKED, TWO), None))
    assert row["messages"][1] == {"role": "tool_call", "content": f"[{one},{other}]"}
    (row,), _, _ = made("swift-sft", item((ASKED, TWO), None))
    assert [(said["role"], said["content"]) for said in row["messages"][1:]] == [
        ("tool_call", one),
        ("tool_call", other),
    ]
    (row,), _, _ = made("swift-sft", item((ASKED, BESIDE), None))
    assert [(said["role"], said["content"]) for said in row["messages"][1:]] == [
        ("assistant", "Let me see."),
        ("tool_call", one),
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        # As a template's tojson writes the object, but for the digits.
        (
            r'{"port":"Zo\u00eb \ud83c\udf0a","n" :[1.10,-0],"": {}}',
            '{"port": "Zoë 🌊", "n": [1.10, -0], "": {}}',
        ),
        (r'{"said": "a:b, \"c\"\n\/"}', r'{"said": "a:b, \"c\"\n/"}'),
        # A text is the input's own.
        (r'"{\"port\":\"Zo\\u00eb\"}"', r'{"port":"Zo\u00eb"}'),
        ('""', "{}"),
    ],
)
def test_arguments_are_the_text_that_a_template_shows_of_them(arguments: str, text: str) -> None:
    (row,), _, _ = made("trl-sft", item((ASKED, calling(arguments), RESULT, ANSWER)))
    assert row["messages"][1]["tool_calls"][0]["function"]["arguments"] == text


@pytest.mark.parametrize("name", ["trl-sft", "nemo-rl-sft", "llamafactory-sft", "openai", "swift-sft"])
def test_a_conversation_may_end_on_a_call(name: str) -> None:
    rows, left_out, _ = made(name, item(CHAT[:2], None))
    assert (len(rows), left_out) == (1, {})


@pytest.mark.parametrize("mask", ['{"weight":0}', '{"train":false}', '{"loss":0.0}'])
@pytest.mark.parametrize(
    ("name", "flag", "yes", "no"),
    [("openai", "weight", 1, 0), ("axolotl-sft", "train", True, False), ("swift-sft", "loss", True, False)],
)
def test_what_the_input_says_is_not_to_be_learned_is_not(
    mask: str, name: str, flag: str, yes: Any, no: Any
) -> None:
    masked = FullMessage("assistant", "No.", MessageFields(carried=mask))
    (row,), _, lacks = made(name, item((ASKED, masked, ASKED, Message("assistant", "Yes."))))
    assert [one[flag] for one in row["messages"] if one["role"] == "assistant"] == [no, yes]
    assert lacks == {}
    _, _, lacks = made("trl-sft", item((ASKED, masked)))
    assert lacks == dict.fromkeys(json.loads(mask), 1)


def weighing(weight: str) -> FullMessage:
    return FullMessage("assistant", "Yes.", MessageFields(carried=f'{{"weight":{weight}}}'))


@pytest.mark.parametrize("weight", ["0.5", "0.50", "2", "-1", "1e-1", '"1"', '"half"'])
def test_openai_takes_no_weight_but_0_and_1(weight: str) -> None:
    between = item((ASKED, weighing("0"), ASKED, weighing(weight)))
    assert RECORD_EXPORTS["openai"].refuses is not None
    assert RECORD_EXPORTS["openai"].refuses(between) == (
        f"weight_between: message 4 has the weight {weight}, which is neither 0 nor 1"
    )
    assert made("openai", between)[:2] == ([], {"weight_between": 1})
    # What a rule masks has the weight 0, whatever the input says.
    (row,), left_out, _ = made("openai", between._replace(masked=(1,)))
    assert ([one.get("weight") for one in row["messages"]], left_out) == ([None, 0, None, 0], {})
    for name in ("axolotl-sft", "swift-sft", "trl-sft"):
        assert made(name, between)[1:] == ({}, {"weight": 1})


@pytest.mark.parametrize(
    ("weight", "is_learned"),
    [("1", 1), ("1.0", 1), ("1e0", 1), ("true", 1), ("null", 1), ("0", 0), ("0.00", 0), ("false", 0)],
)
def test_a_weight_that_is_0_or_1_however_it_is_written_is_that(weight: str, is_learned: int) -> None:
    (row,), left_out, _ = made("openai", item((ASKED, weighing(weight))))
    assert (row["messages"][1]["weight"], left_out) == (is_learned, {})
    assert made("axolotl-sft", item((ASKED, weighing(weight))))[2] == {}


SCORE = Turn((0.5,))
OTHER = Turn((1.5,))
PLAIN = Message("assistant", "Plain.")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def mixed(home: Home) -> Made:
    """Records with all kinds of fields, and records without any, which come first."""
    odd = FullMessage(
        "assistant", "Odd.", MessageFields(carried='{"weight":0.50,"n":1,"of":[1.10],"ok":true}')
    )
    odder = FullMessage("assistant", "Odder.", MessageFields(carried='{"weight":1,"n":"one","of":null}'))
    more = FullMessage(
        "assistant",
        "More.",
        MessageFields(tool_calls='[{"type":"function","index":0,"function":{"name":"f","strict":true}}]'),
    )
    side = [json.dumps({"assay_side": side}) for side in ("chosen", "rejected")]
    records = [
        Record(1, (ASKED, PLAIN), (SCORE,), rest=side[0]),
        Record(1, (ASKED, Message("assistant", "Flat.")), (OTHER,), part=1, rest=side[1]),
        Record(2, CHAT, (SCORE,), tools=TOOLS),
        Record(3, (*CONTEXT, PLAIN), (OTHER,), tools=TOOLS),
        Record(4, (ASKED, odd), (SCORE,)),
        Record(5, (ASKED, odder), (Turn((2.5,)),)),
        Record(6, (ASKED, more), (Turn((3.5,)),)),
    ]
    return make(home, {"a.jsonl": [records[:2], records[2:5], records[5:]]}, ["reward"])


def files_of(made: Made, staging: Path, *names: str) -> Path:
    filtered = decide(made.converted, made.scored, rules=Rules(), home=made.home)
    exports = ToWrite(
        tuple(export for name, export in RECORD_EXPORTS.items() if name in names),
        tuple(export for name, export in PAIR_EXPORTS.items() if name in names),
        PairChoice("all"),
    )
    staging.mkdir()
    write_results(made.converted, made.scored, filtered, exports, RunContext(made.home), staging=staging)
    return staging


def shape(value: Any) -> Any:
    """The keys of a row, and of all that lists in it hold; every object of a list has to have the same."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items() if isinstance(one, dict | list) or True}
    if isinstance(value, list):
        shapes: list[Any] = []
        for one in map(shape, value):
            if one not in shapes:
                shapes.append(one)
        return shapes
    return type(value).__name__


def agree(one: Any, other: Any) -> bool:
    """Whether values of these shapes have one type in a table; null has any."""
    if one in ("NoneType", []) or other in ("NoneType", []):
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(agree(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return all(agree(a, b) for a in one for b in other)
    return bool(one == other)


def test_every_row_of_a_file_has_the_same_keys_and_types(home: Home, tmp_path: Path) -> None:
    # OpenAI's service takes no null, and NeMo-RL's own loader of lines keeps rows as they are.
    apart = {"openai", "nemo-rl-sft", "dropped"}
    names = [name for name in EXPORTS if name not in apart and not name.startswith("steerlm")]
    folder = files_of(mixed(home), tmp_path / "out", *names)
    for name in names:
        path = folder / EXPORTS[name].file
        if path.suffix == ".parquet":
            continue
        shapes = [shape(json.loads(line)) for line in path.read_bytes().splitlines()]
        assert len(shapes) > 1, name
        for one in shapes:
            for other in shapes:
                assert agree(one, other), (name, one, other)


def test_a_pair_has_the_tools_that_its_prompt_had_and_without_them_it_is_another_prompt(
    home: Home, tmp_path: Path
) -> None:
    records = [
        Record(line, (*CONTEXT, ("assistant", f"{line}")), (Turn((float(line),)),), tools=tools)
        for line, tools in enumerate((TOOLS, None, TOOLS, None))
    ]
    made = make(home, {"a.jsonl": [records[:3], records[3:]]}, ["reward"])
    folder = files_of(made, tmp_path / "out", "trl-preference")
    rows = [json.loads(line) for line in (folder / "trl/preference.jsonl").read_bytes().splitlines()]
    pairs = [(row["chosen"][0]["content"], row["rejected"][0]["content"], row["tools"]) for row in rows]
    assert pairs == [("2", "0", TOOLS), ("3", "1", "null")]


def test_tools_are_a_text_in_every_row_once_any_record_has_some(home: Home, tmp_path: Path) -> None:
    """``datasets`` would take null in the first 10 MB for the column's type, and die on the first text."""
    absent = {
        "trl-sft": "null",
        "axolotl-sft": "[]",
        "llamafactory-sft": "[]",
        "swift-sft": "",
        "messages": "[]",
    }
    folder = files_of(mixed(home), tmp_path / "out", *absent)
    for name, text in absent.items():
        rows = [json.loads(line) for line in (folder / EXPORTS[name].file).read_bytes().splitlines()]
        assert {row["tools"] for row in rows} == {text, TOOLS}, name


def test_values_of_several_kinds_are_json_in_a_text(home: Home, tmp_path: Path) -> None:
    folder = files_of(mixed(home), tmp_path / "out", "messages", "parquet")
    rows = [json.loads(line) for line in (folder / "messages.jsonl").read_bytes().splitlines()]
    odd, odder, more = (row["messages"][1] for row in rows[-3:])
    assert (odd["n"], odd["of"], odd["ok"], odd["weight"]) == ("1", "[1.10]", True, 0.5)
    assert (odder["n"], odder["of"], odder["ok"], odder["weight"]) == ('"one"', None, None, 1.0)
    assert b'"weight":0.50' in (folder / "messages.jsonl").read_bytes()
    (call,) = more["tool_calls"]
    assert call["extra"] == '{"index":0,"function":{"strict":true}}'
    table = pl.read_parquet(folder / "records.parquet")
    assert table["messages"].to_list() == [row["messages"] for row in rows]
    assert table["tools"].to_list() == [None, None, TOOLS, TOOLS, None, None, None]


def test_messages_jsonl_is_read_back_as_it_was_to_the_key_of_every_turn(home: Home, tmp_path: Path) -> None:
    made = mixed(home)
    again = convert(
        take_inventory([str(files_of(made, tmp_path / "out", "messages") / "messages.jsonl")]), home=home
    )

    def turns(of: Any, name: str) -> list[Any]:
        frames = [pl.read_parquet(home.artifacts / getattr(piece, name).path) for piece in of.pieces]
        return pl.concat([frame.select("key" if name == "turns" else "tools") for frame in frames]).rows()

    # What else a call holds is in a text of its own: it is not lost, and the last turn has another key.
    assert turns(again, "turns")[:-1] == turns(made.converted, "turns")[:-1]
    assert turns(again, "records") == turns(made.converted, "records")


def test_llamafactory_is_shown_the_column_of_tools_where_there_is_one() -> None:
    file = EXPORTS["llamafactory-sft"].file
    for has_tools in (True, False):
        content = DATASET_INFO.content({"llamafactory-sft": Written(file, 1, has_tools=has_tools)})
        (entry,) = msgspec.json.decode(content).values()
        assert ("tools" in entry["columns"]) == has_tools


def test_a_run_without_fields_or_tools_has_none_of_their_keys(home: Home, tmp_path: Path) -> None:
    records = [Record(1, (ASKED, PLAIN), (SCORE,))]
    folder = files_of(make(home, {"a.jsonl": [records]}, ["reward"]), tmp_path / "out", "trl-sft", "messages")
    (row,) = [json.loads(line) for line in (folder / "trl/sft.jsonl").read_bytes().splitlines()]
    assert row == {"messages": [Q, {"role": "assistant", "content": "Plain."}]}
    (row,) = [json.loads(line) for line in (folder / "messages.jsonl").read_bytes().splitlines()]
    assert list(row) == ["messages", "score", "scores", "source", "extra"]
