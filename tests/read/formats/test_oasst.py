"""OpenAssistant's trees and flat messages, with labels worked out by hand."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from converting import converted_file, converted_paths, read_row, said, steerlm_rows

from assay.core import steerlm
from assay.read.formats import parse_names

DATA = os.environ.get("ASSAY_TEST_DATA")


def node(text: str, *replies: dict[str, Any], role: str = "assistant", **fields: Any) -> dict[str, Any]:
    return {"message_id": text, "text": text, "role": role, **fields, "replies": list(replies)}


def tree_labels(**values: float) -> dict[str, Any]:
    return {name: {"value": value, "count": 3} for name, value in values.items()}


TREE: dict[str, Any] = {
    "message_tree_id": "hello",
    "tree_state": "ready",
    "prompt": node(
        "hello",
        node("a", labels=tree_labels(quality=0.125, toxicity=0.375, humor=0.625, creativity=0.875)),
        node(
            "b",
            node("more", node("c", labels=tree_labels(violence=1.0)), role="prompter"),
            labels=tree_labels(creativity=1.0, quality=0.0, helpfulness=0.5),
        ),
        node("d"),
        role="prompter",
        labels=tree_labels(quality=1.0),
    ),
}

# By hand from the rules: every root-to-leaf path in the order of the replies; user labels null;
# 0.125*4 = 0.5 → 0, 0.375*4 = 1.5 → 2, 0.625*4 = 2.5 → 2, 0.875*4 = 3.5 → 4 (half to even);
# only the first four attributes, in their order; none of them → ""; no labels → no entry.
PATHS: list[tuple[list[str], list[str | None]]] = [
    (["hello", "a"], [None, "quality:0,toxicity:2,humor:2,creativity:4"]),
    (["hello", "b", "more", "c"], [None, "quality:0,creativity:4", None, ""]),
    (["hello", "d"], [None, None]),
]


def flat(tree_node: dict[str, Any], parent: str | None = None) -> list[dict[str, Any]]:
    """The messages of a tree as a flat file has them."""
    row = {key: value for key, value in tree_node.items() if key != "replies"}
    if "labels" in row:
        row["labels"] = {
            "name": list(row["labels"]),
            "value": [entry["value"] for entry in row["labels"].values()],
        }
    rows = [{**row, "parent_id": parent}]
    for reply in tree_node["replies"]:
        rows += flat(reply, tree_node["message_id"])
    return rows


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_a_tree_gives_a_record_a_path(tmp_path: Path) -> None:
    records = read_row(tmp_path, TREE)
    assert [([text for _, text in said(record)], record["labels"]) for record in records] == PATHS
    assert [(record["line"], record["part"]) for record in records] == [(1, 0), (1, 1), (1, 2)]
    assert json.loads(records[1]["rest"]) == {
        "message_tree_id": "hello",
        "tree_state": "ready",
        "message_id": "c",
    }


def test_a_root_without_a_tree_around_it_is_one_too(tmp_path: Path) -> None:
    records = read_row(tmp_path, TREE["prompt"])
    assert [record["labels"] for record in records] == [labels for _, labels in PATHS]


def test_flat_messages_give_the_same_paths_on_the_lines_of_their_leaves(tmp_path: Path) -> None:
    rows = flat(TREE["prompt"])
    records = converted_file(tmp_path, jsonl(rows)).records
    assert [([text for _, text in said(record)], record["labels"]) for record in records] == PATHS
    # hello, a, b, more, c, d are lines 1 to 6.
    assert [(record["line"], record["part"]) for record in records] == [(2, 0), (5, 0), (6, 0)]
    assert json.loads(records[0]["rest"])["message_id"] == "a"


def test_flat_messages_may_come_in_any_order_and_are_never_cut(tmp_path: Path) -> None:
    rows = flat(TREE["prompt"])[::-1]
    outcome = converted_file(tmp_path, jsonl(rows), shard_bytes=10)
    assert sorted(len(record["messages"]) for record in outcome.records) == [2, 2, 4]
    assert [record["line"] for record in outcome.records] == [1, 2, 5]


def renamed(value: Any, names: dict[str, str]) -> Any:
    """The same with other names of fields, at any depth."""
    if isinstance(value, list):
        return [renamed(one, names) for one in value]
    if isinstance(value, dict):
        return {names.get(name, name): renamed(one, names) for name, one in value.items()}
    return value


IN_ANOTHER_CASE = {
    "message_id": "Message_ID",
    "parent_id": "Parent-Id",
    "text": "TEXT",
    "role": "Role",
    "labels": "Labels",
    "replies": "Replies",
    "prompt": "Prompt",
}


@pytest.mark.parametrize(
    ("spelled", "mapped"),
    [
        (IN_ANOTHER_CASE, []),
        ({"text": "body", "role": "who", "replies": "answers"}, ["body=text", "who=role", "answers=replies"]),
    ],
)
def test_the_fields_of_messages_are_found_under_other_names(
    tmp_path: Path, spelled: dict[str, str], mapped: list[str]
) -> None:
    names = parse_names(mapped, [])
    for number, rows in enumerate(([TREE], [TREE["prompt"]], flat(TREE["prompt"]))):
        outcome = converted_file(
            tmp_path, jsonl(renamed(rows, spelled)), name=f"{number}.jsonl", mapped=names
        )
        found = [([text for _, text in said(record)], record["labels"]) for record in outcome.records]
        assert found == PATHS
        leaf = json.loads(outcome.records[1]["rest"])
        assert leaf[spelled.get("message_id", "message_id")] == "c"
        assert spelled.get("message_id", "message_id") in outcome.converted.left_out


def test_a_field_of_a_message_whose_name_another_one_takes_is_left_out_by_name(tmp_path: Path) -> None:
    names = parse_names(["body=text"], [])
    one = node("a", body="x")
    tree = {"message_tree_id": "t", "prompt": {**one, "role": "prompter", "replies": [node("b", body="y")]}}
    outcome = converted_file(tmp_path, jsonl([tree]), mapped=names)
    assert said(outcome.records[0]) == [("user", "x"), ("assistant", "y")]
    assert outcome.converted.left_out == {"text": 1, "message_id": 1}


def test_numbers_that_json_lacks_in_flat_messages_are_counted(tmp_path: Path) -> None:
    rows = flat(node("q", node("a", note=float("nan")), role="prompter"))
    outcome = converted_file(tmp_path, jsonl(rows))
    assert outcome.converted.left_out == {"message_id": 1, "note": 1}


def test_the_rows_written_of_a_tree_are_nemos(tmp_path: Path) -> None:
    outcome = converted_file(tmp_path, jsonl([TREE]))
    lines = steerlm_rows(tmp_path, outcome.converted)
    speakers = {"hello": "User", "more": "User"}
    expected = []
    for texts, labels in PATHS:
        turns = []
        for text, label in zip(texts, labels, strict=True):
            turn: dict[str, str | None] = {"value": text, "from": speakers.get(text, "Assistant")}
            if text in speakers or label is not None:
                turn["label"] = label
            turns.append(turn)
        expected.append(
            {"conversations": turns, "system": steerlm.NEMO_SYSTEM, "mask": "User", "type": "VALUE_TO_TEXT"}
        )
    assert lines == expected


def test_a_path_of_one_message_is_dropped(tmp_path: Path) -> None:
    (record,) = read_row(tmp_path, {"message_tree_id": "x", "prompt": node("x", role="prompter")})
    assert (record["outcome"], record["reason"]) == ("dropped", "single_message_path")
    (record,) = read_row(tmp_path, flat(node("x", role="prompter"))[0], name="flat.jsonl")
    assert (record["outcome"], record["reason"]) == ("dropped", "single_message_path")


def test_a_message_without_its_parent_is_quarantined_and_so_is_what_hangs_below(tmp_path: Path) -> None:
    rows = [row for row in flat(TREE["prompt"]) if row["text"] != "b"]
    records = converted_file(tmp_path, jsonl(rows)).records
    # hello, a, more, c, d
    assert [(record["line"], record["reason"]) for record in records] == [
        (2, None),
        (3, "parent_missing: its parent 'b' is not in the file"),
        (4, "parent_missing: an ancestor 'b' is not in the file"),
        (5, None),
    ]


def test_messages_in_a_circle_and_repeated_ids_are_not_lost(tmp_path: Path) -> None:
    rows = flat(TREE["prompt"])
    circle = [
        {"message_id": "x", "parent_id": "y", "text": "x", "role": "prompter"},
        {"message_id": "y", "parent_id": "x", "text": "y", "role": "assistant"},
    ]
    outcome = converted_file(tmp_path, jsonl([*rows, *circle, rows[1]]))
    assert [(record["line"], record["reason"]) for record in outcome.records[3:]] == [
        (7, "parent_cycle: 'x' is its own ancestor"),
        (8, "parent_cycle: 'y' is its own ancestor"),
        (9, "duplicate_message_id: 'a' is on line 2 too"),
    ]


def test_bad_lines_and_fields_are_quarantined_on_their_lines(tmp_path: Path) -> None:
    rows = flat(TREE["prompt"])
    rows[1]["text"] = None
    rows[5]["role"] = "narrator"
    odd: list[dict[str, Any]] = [
        {"message_id": "z", "parent_id": None, "role": "prompter"},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
    ]
    data = jsonl(rows) + b"oops\n" + jsonl(odd)
    records = converted_file(tmp_path, data).records
    assert [(record["line"], (record["reason"] or "").partition(";")[0]) for record in records] == [
        (2, "empty_content: message 2 (assistant) is null"),
        (5, ""),
        (6, "unknown_speaker: message 2 is by 'narrator'"),
        (7, records[3]["reason"]),
        (8, "unknown_schema: 'text' is missing for the nearest format, oasst_messages"),
        (9, ""),
        (9, ""),
    ]
    assert records[3]["reason"].startswith("not_json: ")


def test_a_deep_tree_is_read_or_refused_but_breaks_nothing(tmp_path: Path) -> None:
    deep: dict[str, Any] = node("leaf")
    for _ in range(100):
        deep = node("on", deep)
    (record,) = read_row(tmp_path, {"message_tree_id": "x", "prompt": deep})
    assert len(record["messages"]) == 101
    data = b'{"message_tree_id": 1, "prompt": ' + b'{"text": "x", "role": "a", "replies": [' * 90_000
    data += b"]}" * 90_000 + b"}"
    (record,) = converted_file(tmp_path, data, name="deeper.jsonl", format="oasst_trees").records
    assert record["reason"].startswith("too_deep: ")


def test_one_bad_message_costs_its_paths_and_not_the_tree(tmp_path: Path) -> None:
    bad: list[Any] = [{"text": 5, "role": "assistant", "replies": [node("x")]}, 7, {"role": "assistant"}]
    bad.append({**node("y"), "labels": {"quality": {"value": "high"}}})
    bad.append({**node("z"), "replies": "none"})
    tree = node("hello", node("a"), *bad, node("b"), role="prompter")
    records = read_row(tmp_path, {"message_tree_id": "t", "prompt": tree})
    assert [record["outcome"] for record in records] == ["ok", *["quarantined"] * 5, "ok"]
    assert [said(records[at])[-1] for at in (0, 6)] == [("assistant", "a"), ("assistant", "b")]
    assert [record["reason"].partition(":")[0] for record in records[1:6]] == [
        "wrong_type",
        "wrong_type",
        "missing_field",
        "wrong_type",
        "wrong_type",
    ]


def test_fields_of_messages_that_a_path_does_not_hold_are_counted(tmp_path: Path) -> None:
    rows = flat(TREE["prompt"])
    for row in rows:
        row["lang"] = "en"
    of_tree = converted_file(tmp_path, json.dumps({**TREE, "id": 1}).encode(), name="tree.jsonl").converted
    of_rows = converted_file(tmp_path, jsonl(rows), name="flat.jsonl").converted
    # Of each path the ids of all but its leaf; labels where they hold more than is given.
    assert of_tree.left_out == {"labels": 3, "message_id": 3}
    assert of_rows.left_out == {"labels": 3, "lang": 3, "message_id": 3}


def test_labels_of_messages_are_given_exactly(tmp_path: Path) -> None:
    outcome = converted_file(tmp_path, json.dumps(TREE).encode())
    assert [turn["given"] and json.loads(turn["given"]) for turn in outcome.turns] == [
        {"given.quality": 0.5, "given.toxicity": 1.5, "given.humor": 2.5, "given.creativity": 3.5},
        {"given.quality": 0.0, "given.creativity": 4.0, "given.helpfulness": 2.0},
        None,
        None,
    ]


@pytest.mark.skipif(DATA is None, reason="ASSAY_TEST_DATA names no folder of real data")
def test_the_real_validation_split_has_the_paths_it_is_known_for(tmp_path: Path) -> None:
    assert DATA is not None
    path = Path(DATA) / "oasst1" / "en-validation.messages.jsonl.gz"
    outcome = converted_paths(tmp_path, str(path))
    assert outcome.converted.lines == 2022
    assert outcome.converted.counts.ok == 1002
    assert outcome.converted.counts.quarantined == {"parent_missing": 3}
    assert len(outcome.turns) == 1685
    assert len({turn["key"] for turn in outcome.turns}) == 1240
    with gzip.open(path) as lines:
        ids = [json.loads(line)["message_id"] for line in lines]
    assert all(
        json.loads(record["rest"])["message_id"] == ids[record["line"] - 1]
        for record in outcome.records
        if record["outcome"] == "ok"
    )
