"""Axolotl: ``messages`` with ``train``, verdicts, and a YAML to start from beside each.

Checked against Axolotl 0.19 (axolotl/prompt_strategies: chat_template.py, dpo/chat_template.py,
kto/chatml.py). Its DPO renders an answer behind a message of its own, and then looks for where the answer's
text begins. It finds the wrong place where the text is part of that message or of a role's name, and where
the chat template strips spaces that the text begins or ends with: of such an answer one letter is left.
Its SFT reads the texts of arguments and of ``tools``, and dies on one that is no JSON; its DPO and KTO know
neither tools nor calls.
"""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from assay.export.chat import (
    SHOWN,
    TO_TEMPLATES,
    answer_of,
    arguments_problem,
    ends_on_another,
    messages_of,
    no_prompt,
    no_side,
    trained_turns,
    with_tools,
    without_prompt,
)
from assay.export.contract import Companion, Export, Json, Unit
from assay.export.kept import Item
from assay.export.pairs import Pair
from assay.export.turned import MASKS
from assay.storage.run_manifest import Written

FOLDER = "axolotl"
#: The side of a split that training is checked against.
_VALIDATION = ("val", "validation")


def to_start_from(file: str, **settings: Json) -> Companion:
    """A YAML for ``axolotl train``; ``settings`` are those of the data set, ``rl`` stands above them."""

    def content(written: Mapping[str, Written]) -> bytes:
        rl = {"rl": settings["rl"]} if "rl" in settings else {}
        about = {name: value for name, value in settings.items() if name != "rl"}
        (one,) = written.values()
        train, *_ = one.by_side.values()
        held_back = [_data(file, about) for side in _VALIDATION for file in one.by_side.get(side, ())]
        config = {
            "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
            **rl,
            "chat_template": "tokenizer_default",
            "datasets": [_data(file, about) for file in train],
            **({"test_datasets": held_back} if held_back else {}),
            "sequence_len": 8192,
            "micro_batch_size": 1,
            "gradient_accumulation_steps": 8,
            "num_epochs": 1,
            "learning_rate": 0.00001,
            "output_dir": "./trained",
        }
        comment = (
            "# A start: name your model, and run `axolotl train` in the folder above.\n"
            "# What is longer than sequence_len is dropped.\n"
        )
        return (comment + yaml.safe_dump(config, sort_keys=False)).encode()

    return Companion(f"{FOLDER}/{file.removesuffix('.jsonl')}.yaml", content)


def _data(file: str, about: Mapping[str, Json]) -> dict[str, Json]:
    return {"path": file, "ds_type": "json", "split": "train", **about}


def _sft(item: Item) -> dict[str, Json]:
    rows = zip(messages_of(item.messages, item.held), trained_turns(item), strict=True)
    return with_tools({"messages": [{**row, "train": is_trained} for row, is_trained in rows]}, item, "[]")


def _refuses(item: Item) -> str | None:
    return arguments_problem(item.messages)


def _refuses_verdict(item: Item) -> str | None:
    return ends_on_another(item.roles) or no_prompt(item.roles) or no_side(item)


def _kto(item: Item) -> dict[str, Json]:
    return {"completion": messages_of(item.messages), "label": item.verdict}


#: What stands before an answer while its text is looked for (dpo/chat_template.py, dummy_user_message), in
#: templates that are usual: ChatML's, Llama 3's, Gemma's.
_BEFORE_AN_ANSWER = (
    "<|im_start|>user\n[[dummy_message]]<|im_end|>\n<|im_start|>assistant\n",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n[[dummy_message]]<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<bos><start_of_turn>user\n[[dummy_message]]<end_of_turn>\n<start_of_turn>model\n",
)


def _refuses_pair(pair: Pair) -> str | None:
    for side, message in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        text = message.content
        if text != text.strip():
            return f"space_around_answer: the {side} answer begins or ends with white space"
        if any(text in before for before in _BEFORE_AN_ANSWER):
            return f"answer_found_too_early: the {side} answer is a part of what stands before it"
    return without_prompt(pair)


def _preference(pair: Pair) -> dict[str, Json]:
    return {
        "messages": messages_of(pair.prompt),
        "chosen": answer_of(pair.chosen),
        "rejected": answer_of(pair.rejected),
    }


AXOLOTL_SFT: Export[Item] = Export(
    name="axolotl-sft",
    file=f"{FOLDER}/sft.jsonl",
    description="messages with train for Axolotl's chat_template, with a YAML to start from",
    refuses=_refuses,
    row=_sft,
    holds=TO_TEMPLATES | MASKS,
    companions=(
        to_start_from(
            "sft.jsonl",
            type="chat_template",
            field_messages="messages",
            message_field_training="train",
            # Otherwise it looks for them in the template's text, and does not find all.
            message_property_mappings={name: name for name in ("role", "content", *SHOWN)},
            roles_to_train=[],
            train_on_eos="turn",
        ),
    ),
)

AXOLOTL_KTO: Export[Item] = Export(
    name="axolotl-kto",
    file=f"{FOLDER}/kto.jsonl",
    description="conversations with a verdict (true for a chosen or desirable one) for Axolotl, with a YAML",
    refuses=_refuses_verdict,
    row=_kto,
    companions=(to_start_from("kto.jsonl", type="chatml.argilla_chat", rl="kto"),),
    holds_sides=True,
)

AXOLOTL_PREFERENCE: Export[Pair] = Export(
    name="axolotl-preference",
    file=f"{FOLDER}/preference.jsonl",
    description="messages, chosen and rejected for Axolotl's DPO, with a YAML to start from",
    unit=Unit.PAIR,
    refuses=_refuses_pair,
    row=_preference,
    companions=(
        to_start_from(
            "preference.jsonl",
            type="chat_template.default",
            field_messages="messages",
            field_chosen="chosen",
            field_rejected="rejected",
            rl="dpo",
        ),
    ),
)
