"""The invariant: each value of a row is in the record's messages, carried along, or counted as left out.

A row of every format is drawn, with whatever may stand beside its messages. Every value in it is a word that
stands nowhere else in the row, so that a word can be looked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import given_in, row

from assay.core.schema import ATTRIBUTES
from assay.read.formats import FORMATS, Reading, row_reader
from assay.read.formats.beside import SYSTEM_FIELDS
from assay.storage.conversations import conversation_json

Row = dict[str, Any]


class Words:
    """Words, each given once."""

    def __init__(self) -> None:
        self._numbers = count(100)

    def __call__(self) -> str:
        return f"word{next(self._numbers)}"

    def chat(self, draw: st.DrawFn, *, ends: str = "assistant") -> list[Row]:
        """Messages of user and assistant in turn, the last one by ``ends``, in one of the usual spellings."""
        turns = draw(st.integers(1, 2))
        roles = (
            ["user", "assistant"] * turns
            if ends == "assistant"
            else ["user", "assistant"] * (turns - 1) + ["user"]
        )
        spelling = draw(st.sampled_from(["role", "from"]))
        return [self.message(draw, role, spelling) for role in roles]

    def message(self, draw: st.DrawFn, role: str, spelling: str = "role") -> Row:
        content: object = self()
        if spelling == "role" and draw(st.booleans()):
            content = [{"type": "text", "text": self()}, {"type": "text", "text": self(), "mark": self()}]
        fields = {
            name: value
            for name, value in (
                ("name", self()),
                ("weight", 0),
                ("reasoning_content", self()),
                ("timestamp", self()),
                ("marks", {"by": [self()]}),
                ("label", self()),
                ("value", None),
            )
            if draw(st.integers(0, 5)) == 0
        }
        if spelling == "from":
            fields.pop("value", None)
            return {"from": {"user": "human", "assistant": "gpt"}[role], "value": content, **fields}
        return {"role": role, "content": content, **fields}

    def answer(self, draw: st.DrawFn) -> object:
        kind = draw(st.sampled_from(["text", "message", "messages", "object"]))
        message = self.message(draw, "assistant")
        if kind == "object":
            return {"response": self(), "model": self(), "meta": {"id": self()}}
        return {"text": self(), "message": message, "messages": [message]}[kind]


Made = Callable[[st.DrawFn, Words], Row]


def prompt(draw: st.DrawFn, words: Words) -> Row:
    field = draw(st.sampled_from(["prompt", "instruction", "question", "query"]))
    if draw(st.booleans()):
        return {field: words.chat(draw, ends="user")}
    return {field: words()}


def whole(field: str) -> Made:
    return lambda draw, words: {field: words.chat(draw)}


def answered_chat(draw: st.DrawFn, words: Words) -> Row:
    field = draw(st.sampled_from(["messages", "conversation", "conversations"]))
    answer = {"response": words()} if draw(st.booleans()) else {"responses": [words.answer(draw), words()]}
    return {field: words.chat(draw, ends="user"), **answer}


def steerlm(draw: st.DrawFn, words: Words) -> Row:
    talk = [{"value": words(), "from": "User", "label": None}, {"value": words(), "from": "Assistant"}]
    return {"conversations": talk, "mask": "User", "type": draw(st.sampled_from(["VALUE_TO_TEXT", words()]))}


def instruction(draw: st.DrawFn, words: Words) -> Row:
    field = draw(st.sampled_from(["response", "output", "completion", "answer"]))
    context = {draw(st.sampled_from(["input", "context"])): words()} if draw(st.booleans()) else {}
    asked = prompt(draw, words)
    if any(isinstance(value, list) for value in asked.values()):
        context = {}
    return {**asked, **context, field: words()}


def responses(draw: st.DrawFn, words: Words) -> Row:
    field = draw(
        st.sampled_from(["responses", "completions", "generations", "answers", "all_generated_responses"])
    )
    answers = [words.answer(draw) for _ in range(draw(st.integers(1, 3)))]
    numbers = {"scores": [number + 0.5 for number, _ in enumerate(answers)]} if draw(st.booleans()) else {}
    return {**prompt(draw, words), field: answers, **numbers}


def preference(draw: st.DrawFn, words: Words) -> Row:
    pair = draw(
        st.sampled_from(
            [
                ("chosen", "rejected"),
                ("chosen_response", "rejected_response"),
                ("messages", "rejected_response"),
            ]
        )
    )
    if pair[0] == "messages":
        return {"messages": words.chat(draw), "rejected_response": words()}
    if draw(st.booleans()):
        beside = prompt(draw, words) if draw(st.booleans()) else {}
        return {**beside, pair[0]: words.chat(draw), pair[1]: words.chat(draw)}
    sides = {side: draw(st.sampled_from([words(), [words.message(draw, "assistant")]])) for side in pair}
    return {**prompt(draw, words), **sides, "margin": 0.25}


def pairs(draw: st.DrawFn, words: Words) -> Row:
    if draw(st.booleans()):
        return {"conversation_a": words.chat(draw), "conversation_b": words.chat(draw), "winner": "model_a"}
    return {**prompt(draw, words), "response_a": words(), "response_b": words(), "model_a": words()}


def helpsteer(draw: st.DrawFn, words: Words) -> Row:
    return {"prompt": words(), "response_1": words(), "response_2": words(), "preference_strength": -1}


def stepwise(draw: st.DrawFn, words: Words) -> Row:
    return {"prompt": words(), "completions": [words(), words()], "labels": [True, False]}


def nemo_texts(draw: st.DrawFn, words: Words) -> Row:
    speakers = ("<extra_id_0>System", "<extra_id_1>User", "<extra_id_1>Assistant")
    text = "".join(f"{speaker}\n{words()}\n" for speaker in speakers) + "<extra_id_2>"
    return {"text": text, "label": [-100.0, -100, -100, -100, 4, 3, 3.5, 1, 2]}


def batch(draw: st.DrawFn, words: Words) -> Row:
    choices = [{"index": number, "message": words.message(draw, "assistant")} for number in range(2)]
    reply = {"status_code": 200, "request_id": words(), "body": {"id": words(), "choices": choices}}
    return {
        "custom_id": words(),
        "body": {"messages": words.chat(draw, ends="user"), "model": words()},
        "response": reply,
    }


def tree(draw: st.DrawFn, words: Words) -> Row:
    def node(role: str, depth: int) -> Row:
        replies = [node("assistant" if role == "prompter" else "prompter", depth - 1) for _ in range(depth)]
        return {
            "message_id": words(),
            "text": words(),
            "role": role,
            "lang": words(),
            "labels": {"quality": {"value": 0.5}, "spam": {"value": 0.0}},
            "replies": replies,
        }

    return {"message_tree_id": words(), "prompt": node("prompter", draw(st.integers(1, 2)))}


MADE: dict[str, Made] = {
    "messages": whole("messages"),
    "conversation": whole("conversation"),
    "sharegpt": whole("conversations"),
    "an answer beside a chat": answered_chat,
    "steerlm": steerlm,
    "instruction": instruction,
    "responses": responses,
    "preference": preference,
    "pairs": pairs,
    "helpsteer_pairs": helpsteer,
    "stepwise": stepwise,
    "nemo_texts": nemo_texts,
    "openai_batch": batch,
    "oasst_trees": tree,
}


@st.composite
def rows_of_any_format(draw: st.DrawFn) -> Row:
    words = Words()
    made = MADE[draw(st.sampled_from(list(MADE)))](draw, words)
    if draw(st.booleans()):
        made[draw(st.sampled_from(SYSTEM_FIELDS))] = words()
    if draw(st.booleans()):
        function = {"name": words(), "parameters": {"type": words()}}
        made[draw(st.sampled_from(["tools", "functions", "Tools"]))] = [function]
    if draw(st.booleans()):
        made["history"] = draw(
            st.sampled_from([[[words(), words()]], [{"role": "user", "content": words()}]])
        )
    if draw(st.booleans()):
        made["chat_template_kwargs"] = {"custom_instructions": words(), "flag": True}
    made |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "id": st.just(words()),
                "meta": st.just({"deep": [{"er": words()}]}),
                "score": st.just(float("nan")),
                "tags": st.just([words(), None]),
                "images": st.just([]),
                "Note": st.just(words()),
                "thinking": st.just(words()),
                **{name: st.sampled_from([3, 2.5]) for name in ATTRIBUTES[:5]},
                **{name: st.none() for name in ("chosen", "rejected", "messages", "response", "system")},
            },
        ).map(lambda optional: {name: value for name, value in optional.items() if name not in made})
    )
    return {name: made[name] for name in draw(st.permutations(sorted(made)))}


def values_in(value: object) -> Iterator[str]:
    """Yield every word in ``value``."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from values_in(one)
    elif isinstance(value, str):
        yield from (word for word in value.split() if word.startswith("word"))


def numbers_in(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def held(readings: list[Reading]) -> str:
    """All that the records hold, as text."""
    texts = []
    for reading in readings:
        texts.append(conversation_json(reading.messages).decode())
        texts += [label for label in reading.labels or () if label]
        texts.append((reading.rest or b"").decode())
        texts.append(reading.tools or "")
    return " ".join(texts) + " "


def lost(data: Row) -> list[str]:
    """The values of a row that no record has and no count names, and what some record lacks of its own."""
    found = row_reader().readings(row(data), FORMATS["messages"])
    assert all(reading.problem is None for reading in found), [reading.problem for reading in found]
    everything, left_out = held(found), {name for reading in found for name in reading.left_out}
    counted = {word for name, value in fields_in(data) if name in left_out for word in values_in(value)}
    missing = [word for word in values_in(data) if word not in everything and word not in counted]
    # Beside the messages, what is of every record is in every record.
    for reading in found:
        here = held([reading])
        for name in (*SYSTEM_FIELDS, "history", "chat_template_kwargs", "id", "meta", "tags", "Note"):
            missing += [word for word in values_in(data.get(name)) if word not in here]
        for name in ("tools", "functions", "Tools"):
            missing += [word for word in values_in(data.get(name)) if word not in (reading.tools or "")]
        texts = " ".join(message.content for message in reading.messages)
        spoken = {**data, "template": data.get("chat_template_kwargs", {}).get("custom_instructions")}
        for name in (*SYSTEM_FIELDS, "history", "template"):
            missing += [word for word in values_in(spoken.get(name)) if word not in texts]
        rest = json.loads(reading.rest or b"{}")
        rated = [name for name in (*ATTRIBUTES, "margin") if numbers_in(data.get(name))]
        missing += [name for name in rated if name not in rest]
        if len(found) == 1 and reading.messages[-1].role == "assistant":
            given = (given_in(reading) or [None])[-1] or {}
            missing += [name for name in rated if name in ATTRIBUTES and name not in given]
        if "score" in data and "score" not in left_out:
            missing.append("score")
    return missing


def fields_in(value: object) -> Iterator[tuple[str, object]]:
    """Yield the name and the value of every field, at any depth."""
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from fields_in(one)
    if isinstance(value, dict):
        yield from value.items()


@pytest.mark.slow
@settings(deadline=None, max_examples=600)
@given(rows_of_any_format())
def test_no_value_of_a_row_leaves_silently(data: Row) -> None:
    assert lost(data) == []
