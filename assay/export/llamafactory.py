"""LLaMA-Factory: its sharegpt shapes, and the ``dataset_info.json`` that names them.

Checked against LLaMA-Factory 0.9.5 (src/llamafactory/data/parser.py, converter.py, processor/). What does not
alternate becomes an empty example, with a warning, and is dropped. ``formatting: openai`` would append
"detailed thinking off" to every system message; ``sharegpt`` with tags of our own alters nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from assay.export.chat import (
    answer_of,
    ends_on_another,
    late_system,
    messages_of,
    no_prompt,
    no_side,
    out_of_turn,
    prompt_of,
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

_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "tool_call",
    "system_tag": "system",
}
_MORE: Mapping[str, Mapping[str, Json]] = {
    _SFT: {"columns": {"messages": "messages"}},
    _KTO: {"columns": {"messages": "messages", "kto_tag": "label"}},
    _PREFERENCE: {
        "ranking": True,
        "columns": {"messages": "messages", "chosen": "chosen", "rejected": "rejected"},
    },
}


def _dataset_info(written: Mapping[str, Written]) -> bytes:
    """A data set for each file: ``assay_sft``, ``assay_sft_val`` and so on."""
    entries = {
        f"{name.replace(FOLDER, 'assay').replace('-', '_')}{side}": {
            "file_name": file.removeprefix(f"{FOLDER}/"),
            "formatting": "sharegpt",
            **_MORE[name],
            "tags": _TAGS,
        }
        for name, one in sorted(written.items())
        for side, file in ({f"_{side}": file for side, file in one.sides.items()} or {"": one.file}).items()
    }
    return msgspec.json.format(msgspec.json.encode(entries), indent=2) + b"\n"


DATASET_INFO = Companion(f"{FOLDER}/dataset_info.json", _dataset_info)


def shape_refused(roles: str) -> str | None:
    """Why the converter would empty a conversation of these roles."""
    return ends_on_another(roles) or no_prompt(roles) or late_system(roles) or out_of_turn(roles)


def _refuses(item: Item) -> str | None:
    return shape_refused(item.roles)


def _refuses_verdict(item: Item) -> str | None:
    return shape_refused(item.roles) or no_side(item)


def _sft(item: Item) -> dict[str, Json]:
    return {"messages": messages_of(item.messages)}


def _kto(item: Item) -> dict[str, Json]:
    return {"messages": messages_of(item.messages), "label": item.side == "chosen"}


def _refuses_pair(pair: Pair) -> str | None:
    return without_prompt(pair) or shape_refused(f"{pair.roles}a")


def _preference(pair: Pair) -> dict[str, Json]:
    return {
        "messages": prompt_of(pair),
        "chosen": answer_of(pair.chosen),
        "rejected": answer_of(pair.rejected),
    }


LLAMAFACTORY_SFT: Export[Item] = Export(
    name=_SFT,
    file=f"{FOLDER}/sft.jsonl",
    description="conversations for LLaMA-Factory, with dataset_info.json",
    refuses=_refuses,
    row=_sft,
    holds_fields=False,
    companions=(DATASET_INFO,),
)

LLAMAFACTORY_KTO: Export[Item] = Export(
    name=_KTO,
    file=f"{FOLDER}/kto.jsonl",
    description="conversations with a verdict (the chosen side is true) for LLaMA-Factory",
    refuses=_refuses_verdict,
    row=_kto,
    holds_fields=False,
    companions=(DATASET_INFO,),
)

LLAMAFACTORY_PREFERENCE: Export[Pair] = Export(
    name=_PREFERENCE,
    file=f"{FOLDER}/preference.jsonl",
    description="conversations with chosen and rejected for LLaMA-Factory, with dataset_info.json",
    unit=Unit.PAIR,
    refuses=_refuses_pair,
    row=_preference,
    holds_fields=False,
    companions=(DATASET_INFO,),
)
