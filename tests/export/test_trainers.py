"""What each trainer's file holds of a record, and each reason why it holds none.

That the trainers' own loaders agree is shown in ``tests/loaders``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest
import yaml
from handmade import HELPSTEER

from assay.core.schema import ROLES, Message
from assay.core.steerlm import regression_rows, to_row
from assay.export import PAIR_EXPORTS, RECORD_EXPORTS
from assay.export.contract import Unit, rows_of
from assay.export.kept import Item, turns_of
from assay.export.pairs import Pair
from assay.storage.run_manifest import Written

ROLE = {role[0]: role for role in ROLES}
SYSTEM, ASKED, FIRST, MORE, LAST = (
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Où ? \u2028\n"},
    {"role": "assistant", "content": ' "Là."\t'},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "\U0001f642"},
)
SUAUA = [SYSTEM, ASKED, FIRST, MORE, LAST]


def item(roles: str, *, side: str | None = None, contents: list[dict[str, str]] | None = None) -> Item:
    said = contents or [{"role": ROLE[letter], "content": f"{n}"} for n, letter in enumerate(roles)]
    return Item(
        "a.jsonl",
        1,
        0,
        roles,
        tuple(Message(**message) for message in said),
        None,
        HELPSTEER,
        [(2.5, 3.5, -1.0, 4.4, 0.2)] * roles.count("a"),
        None if side is None else json.dumps({"assay_side": side}),
    )


def row_of(name: str, roles: str = "suaua", **more: Any) -> dict[str, Any]:
    """The one row that the export writes of an item with these roles."""
    export = RECORD_EXPORTS[name]
    made = rows_of(export, [item(roles, contents=SUAUA if roles == "suaua" else None, **more)])
    assert made.rows == 1, made.left_out
    if made.table is None:
        row: dict[str, Any] = json.loads(made.lines)
        return row
    return made.table.row(0, named=True)


def trained(flag: str, yes: Any, no: Any) -> list[dict[str, Any]]:
    return [{**message, flag: yes if message["role"] == "assistant" else no} for message in SUAUA]


@pytest.mark.parametrize(
    ("name", "side", "row"),
    [
        ("trl-sft", None, {"messages": SUAUA}),
        ("trl-kto", "chosen", {"prompt": SUAUA[:-1], "completion": [LAST], "label": True}),
        ("trl-kto", "rejected", {"prompt": SUAUA[:-1], "completion": [LAST], "label": False}),
        (
            "openai",
            None,
            {"messages": [SYSTEM, ASKED, {**FIRST, "weight": 1}, MORE, {**LAST, "weight": 1}]},
        ),
        ("nemo-rl-sft", None, {"messages": SUAUA}),
        ("llamafactory-sft", None, {"messages": SUAUA}),
        ("llamafactory-kto", "rejected", {"messages": SUAUA, "label": False}),
        ("axolotl-sft", None, {"messages": trained("train", True, False)}),
        ("axolotl-kto", "chosen", {"completion": SUAUA, "label": True}),
        ("verl-sft", None, {"messages": SUAUA}),
        ("swift-sft", None, {"messages": trained("loss", True, False)}),
    ],
)
def test_a_row_holds_the_texts_as_they_are(name: str, side: str | None, row: Mapping[str, Any]) -> None:
    assert row_of(name, side=side) == row


#: Of each export the roles, and the side, that its trainer would drop, alter or die on, with the code why.
REFUSED = [
    ("openai", "uau", None, "ends_on_user"),
    ("openai", "uat", None, "ends_on_tool"),
    ("nemo-rl-sft", "uau", None, "ends_on_user"),
    ("nemo-rl-sft", "uas", None, "ends_on_system"),
    ("trl-kto", "uau", "chosen", "ends_on_user"),
    ("trl-kto", "a", "chosen", "no_prompt"),
    ("trl-kto", "ua", None, "no_side"),
    ("axolotl-kto", "uau", "chosen", "ends_on_user"),
    ("axolotl-kto", "a", "chosen", "no_prompt"),
    ("axolotl-kto", "ua", None, "no_side"),
    *(
        (name, roles, "chosen", code)
        for name in ("llamafactory-sft", "llamafactory-kto", "swift-sft")
        for roles, code in [
            ("uau", "ends_on_user"),
            ("a", "no_prompt"),
            ("uasua", "late_system_message"),
            ("ssua", "late_system_message"),
            ("uua", "roles_do_not_alternate"),
            ("uaa", "roles_do_not_alternate"),
            ("aua", "roles_do_not_alternate"),
            ("uta", "roles_do_not_alternate"),
            ("sa", "roles_do_not_alternate"),
        ]
    ),
    ("llamafactory-sft", "uatta", None, "roles_do_not_alternate"),
    ("llamafactory-kto", "ua", None, "no_side"),
    ("steerlm-regression", "uata", None, "tool_message"),
    ("steerlm-regression", "uasua", None, "late_system_message"),
]
#: What each takes, though it looks like the above.
TAKEN = [
    *(
        (name, roles)
        for name in ("trl-sft", "axolotl-sft", "verl-sft")
        for roles in ("uau", "a", "uasua", "uta")
    ),
    *((name, roles) for name in ("openai", "nemo-rl-sft") for roles in ("a", "uasua", "uta")),
    *((name, roles) for name in ("trl-kto", "axolotl-kto") for roles in ("uasua", "aa", "uata")),
    *(
        (name, roles)
        for name in ("llamafactory-sft", "llamafactory-kto", "swift-sft")
        for roles in ("ua", "suata")
    ),
    ("swift-sft", "uatta"),
]


@pytest.mark.parametrize(("name", "roles", "side", "code"), REFUSED)
def test_what_a_trainer_would_drop_alter_or_die_on_is_left_out(
    name: str, roles: str, side: str | None, code: str
) -> None:
    export = RECORD_EXPORTS[name]
    one = item(roles, side=side)
    given = list(turns_of(one))[-1:] if export.unit is Unit.TURN else [one]
    made = rows_of(export, given)
    assert (made.rows, made.left_out) == (0, {code: 1})
    assert made.lines == b""


@pytest.mark.parametrize(("name", "roles"), TAKEN)
def test_what_a_trainer_takes_is_not_left_out(name: str, roles: str) -> None:
    made = rows_of(RECORD_EXPORTS[name], [item(roles, side="chosen")])
    assert (made.rows, made.left_out) == (1, {})


def test_every_export_that_refuses_has_each_of_its_reasons_in_the_table() -> None:
    refusing = {
        name
        for name, export in RECORD_EXPORTS.items()
        if export.refuses is not None and export.unit is not Unit.PAIR
    }
    # axolotl-sft refuses calls alone (test_message_fields.py).
    assert refusing - {"steerlm", "axolotl-sft"} == {name for name, *_ in REFUSED}


def test_a_regression_row_is_what_nemo_aligner_makes_of_the_labelled_one() -> None:
    one = item("suaua", contents=SUAUA)
    made = rows_of(RECORD_EXPORTS["steerlm-regression"], turns_of(one))
    assert made.rows == 2
    label = "helpfulness:2,correctness:4,coherence:0,complexity:4,verbosity:0"
    labels = [None, None, label, None, label]
    # The script's own steps, on our labelled row: examples/nlp/data/steerlm/process_to_regression_format.py.
    lines = []
    text = (
        "<extra_id_0>System\nA chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.\n"
    )
    for turn in to_row(one.messages, labels)["conversations"]:
        text += f"<extra_id_1>{turn['from']}\n{turn['value']}\n"
        if turn.get("label"):
            nine = [-100.0, -100.0, -100.0, -100.0, 2.0, 4.0, 0.0, 4.0, 0.0]
            lines.append(
                json.dumps({"text": text + "<extra_id_2>", "label": nine}, ensure_ascii=False) + "\n"
            )
    assert made.lines.decode() == "".join(lines)
    assert [json.loads(line) for line in lines] == list(regression_rows(one.messages, labels))


def test_llamafactorys_dataset_info_names_the_files_that_were_written() -> None:
    (companion,) = RECORD_EXPORTS["llamafactory-sft"].companions
    assert (companion,) == RECORD_EXPORTS["llamafactory-kto"].companions
    written = {
        name: Written(RECORD_EXPORTS[name].file, 3) for name in ("llamafactory-kto", "llamafactory-sft")
    }
    info = json.loads(companion.content(written))
    assert companion.file == "llamafactory/dataset_info.json"
    assert {name: (one["file_name"], one["formatting"], one["columns"]) for name, one in info.items()} == {
        "assay_kto": ("kto.jsonl", "sharegpt", {"messages": "messages", "kto_tag": "label"}),
        "assay_sft": ("sft.jsonl", "sharegpt", {"messages": "messages"}),
    }


@pytest.mark.parametrize("name", [name for name in RECORD_EXPORTS if name.startswith("axolotl-")])
def test_axolotls_yaml_names_its_file(name: str) -> None:
    export = RECORD_EXPORTS[name]
    (companion,) = export.companions
    config = yaml.safe_load(companion.content({name: Written(export.file, 3)}))
    assert companion.file == export.file.replace(".jsonl", ".yaml")
    assert config["datasets"][0]["path"] == export.file
    assert config.get("rl") == {"axolotl-kto": "kto", "axolotl-preference": "dpo"}.get(name)


def test_a_tables_columns_are_typed_even_without_rows() -> None:
    made = rows_of(RECORD_EXPORTS["verl-sft"], [])
    assert made.table is not None
    assert dict(made.table.schema) == {
        "messages": pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    }


def test_nemo_rls_rows_are_what_its_loaders_assert() -> None:
    """NeMo-RL is on no index. These are its own lines, August 2026, on rows of ours.

    nemo_rl/data/datasets/response_datasets/oai_format_dataset.py, OpenAIFormatDataset.format_data;
    nemo_rl/data/processors.py, preference_preprocessor.
    """
    items = [item(roles) for roles in ("sua", "uau", "uaua", "uas", "uat", "a")]
    made = rows_of(RECORD_EXPORTS["nemo-rl-sft"], items)
    assert made.rows == 3
    for row in map(json.loads, made.lines.splitlines()):
        # One row that fails ends the load of the whole file.
        assert row["messages"][-1]["role"] == "assistant"
        assert all(set(message) == {"role", "content"} for message in row["messages"])
    prompt = tuple(Message(ROLE[letter], letter) for letter in "su")
    pair = Pair(prompt, "su", Message("assistant", "good"), Message("assistant", "bad"), 1.0)
    (line,) = rows_of(PAIR_EXPORTS["nemo-rl-preference"], [pair]).lines.splitlines()
    row = json.loads(line)
    assert len(row["completions"]) == 2
    first, second = row["completions"]
    assert first["rank"] != second["rank"], "ties are not supported"
    chosen = first if first["rank"] < second["rank"] else second
    assert [message["content"] for message in row["context"] + chosen["completion"]] == ["s", "u", "good"]
