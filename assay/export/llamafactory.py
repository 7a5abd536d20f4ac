"""LLaMA-Factory: its sharegpt shapes, and the ``dataset_info.json`` that names them.

Checked against LLaMA-Factory 0.9.5 (src/llamafactory/data/parser.py, converter.py, processor/). What does not
alternate becomes an empty example, with a warning, and is dropped. ``formatting: openai`` would append
"detailed thinking off" to every system message; ``sharegpt`` with tags of our own alters nothing. A call is
a message of its own, whose content is JSON. Other content ends the training, as arguments do that are no
object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from assay.core.schema import Message
from assay.export.chat import (
    arguments_problem,
    calls_in_words,
    ends_on_another,
    late_system,
    no_prompt,
    no_side,
    out_of_turn,
    text_beside_call,
    with_tools,
    without_prompt,
)
from assay.export.contract import Companion, Export, Json, Unit
from assay.export.kept import Item
from assay.export.pairs import Pair
from assay.storage.run_manifest import Written

FOLDER = "llamafactory"
_SFT = "llamafactory-sft"
_PREFERENCE = "llamafactory-preference"
_KTO = "llamafactory-kto"

#: The role of a call.
_CALL = "tool_call"
#: What its rows hold of messages' fields.
_HOLDS = frozenset({"tool_calls", "tools"})
_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": _CALL,
    "system_tag": "system",
}
_COLUMNS = {
    _SFT: {"messages": "messages"},
    _KTO: {"messages": "messages", "kto_tag": "label"},
    _PREFERENCE: {"messages": "messages", "chosen": "chosen", "rejected": "rejected"},
}


def _dataset_info(written: Mapping[str, Written]) -> bytes:
    """A data set for each file: ``assay_sft``, ``assay_sft_val``, ``assay_sft_00000`` and so on."""
    entries = {
        f"{name.replace(FOLDER, 'assay').replace('-', '_')}{side}": {
            "file_name": file.removeprefix(f"{FOLDER}/"),
            "formatting": "sharegpt",
            **({"ranking": True} if name == _PREFERENCE else {}),
            "columns": _COLUMNS[name] | ({"tools": "tools"} if one.has_tools else {}),
            "tags": _TAGS,
        }
        for name, one in sorted(written.items())
        for side, file in _data_sets(one)
    }
    return msgspec.json.format(msgspec.json.encode(entries), indent=2) + b"\n"


def _data_sets(one: Written) -> Iterator[tuple[str, str]]:
    """Yield the end of a data set's name, and its file. Data sets are files there, not lists of them."""
    for side, files in one.by_side.items():
        name = f"_{side}" if one.sides else ""
        for number, file in enumerate(files):
            yield f"{name}_{number:05}" if one.shards else name, file


DATASET_INFO = Companion(f"{FOLDER}/dataset_info.json", _dataset_info)


def shape_refused(roles: str) -> str | None:
    """Why the converter would empty a conversation of these roles."""
    return ends_on_another(roles) or no_prompt(roles) or late_system(roles) or out_of_turn(roles)


def _refuses(item: Item) -> str | None:
    return shape_refused(item.roles) or _calls_refused(item.messages)


def _refuses_verdict(item: Item) -> str | None:
    return _refuses(item) or no_side(item)


def _calls_refused(messages: Sequence[Message]) -> str | None:
    return text_beside_call(messages) or arguments_problem(messages)


def _messages(messages: Sequence[Message]) -> list[Json]:
    return [_message(message) for message in messages]


def _message(message: Message) -> dict[str, Json]:
    if message.fields.tool_calls is None:
        return {"role": message.role, "content": message.content}
    calls = calls_in_words(message.fields.tool_calls)
    return {"role": _CALL, "content": calls[0] if len(calls) == 1 else f"[{','.join(calls)}]"}


def _sft(item: Item) -> dict[str, Json]:
    return with_tools({"messages": _messages(item.messages)}, item, "[]")


def _kto(item: Item) -> dict[str, Json]:
    row: dict[str, Json] = {"messages": _messages(item.messages), "label": item.verdict}
    return with_tools(row, item, "[]")


def _refuses_pair(pair: Pair) -> str | None:
    return without_prompt(pair) or shape_refused(f"{pair.roles}a") or _calls_refused(pair.messages)


def _preference(pair: Pair) -> dict[str, Json]:
    row: dict[str, Json] = {
        "messages": _messages(pair.prompt),
        "chosen": _message(pair.chosen),
        "rejected": _message(pair.rejected),
    }
    return with_tools(row, pair, "[]")


LLAMAFACTORY_SFT: Export[Item] = Export(
    name=_SFT,
    file=f"{FOLDER}/sft.jsonl",
    description="conversations for LLaMA-Factory, with dataset_info.json",
    refuses=_refuses,
    row=_sft,
    holds=_HOLDS,
    companions=(DATASET_INFO,),
)

LLAMAFACTORY_KTO: Export[Item] = Export(
    name=_KTO,
    file=f"{FOLDER}/kto.jsonl",
    description="conversations with a verdict (true for a chosen or desirable one) for LLaMA-Factory",
    refuses=_refuses_verdict,
    row=_kto,
    holds=_HOLDS,
    companions=(DATASET_INFO,),
    holds_sides=True,
)

LLAMAFACTORY_PREFERENCE: Export[Pair] = Export(
    name=_PREFERENCE,
    file=f"{FOLDER}/preference.jsonl",
    description="conversations with chosen and rejected for LLaMA-Factory, with dataset_info.json",
    unit=Unit.PAIR,
    refuses=_refuses_pair,
    row=_preference,
    holds=_HOLDS,
    companions=(DATASET_INFO,),
)
