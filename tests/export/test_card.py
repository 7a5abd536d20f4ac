"""The card says what the data are, names the data files and no other, and obeys nobody's Markdown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import manifests
import pytest
import yaml
from handmade import Record, Turn, make
from loaders.page import words
from markdown_it import MarkdownIt
from stages import decide

from assay.core.digests import digest_of_file
from assay.core.schema import FullMessage, MessageFields
from assay.export import EXPORT, EXPORTS, AboutModel, AboutRun, ToExport
from assay.export.card import CARD, for_others
from assay.export.folder import OutputFolder
from assay.export.splits import Split, SplitByGroup
from assay.select.rules import parse_rules
from assay.storage.home import Home
from assay.storage.run_manifest import ExportedFile, Written
from assay.storage.stage import RunContext

JUDGE = AboutModel(None, "team/judge", "f" * 32, "abc123", "apache-2.0")
ABOUT = AboutRun((JUDGE,), ("reward >= 1",), ("2 of 2 golden rows agree.",))


def card_of(
    root: Path,
    *exports: str,
    about: AboutRun = ABOUT,
    file: str = "/home/me/chats.jsonl",
    split: Split | None = None,
    records: Sequence[Record] = (),
) -> tuple[dict[str, Any], str]:
    """The front matter and the body of the card of a few answers to one prompt."""
    home = Home(root)
    records = records or [
        Record(line, (("user", f"Q{line // 2}"), ("assistant", f"answer {line}")), (Turn((float(line),)),))
        for line in range(40)
    ]
    made = make(home, {file: [records]}, attributes=("reward",))
    rules = parse_rules(about.rules, attributes=("reward",), allow_cross_prompt=True)
    filtered = decide(made.converted, made.scored, rules=rules, home=home)
    staging = root / "staging"
    staging.mkdir()
    folder = OutputFolder(root / "published")
    given = ToExport(
        made.converted, made.scored, filtered, exports, folder, staging, split=split, about=about
    )
    exported = EXPORT.run(given, RunContext(home))
    assert exported.files[CARD].rows is None
    assert exported.files[CARD].digest == digest_of_file(staging / CARD)
    _, front, body = (staging / CARD).read_text().split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_front_matter_names_the_data_files_and_no_other(tmp_path: Path) -> None:
    names = [name for name in EXPORTS if not name.startswith(("steerlm", "dropped"))]
    front, body = card_of(tmp_path, *names)
    files = {one["config_name"]: one["data_files"] for one in front["configs"]}
    lines = [name for name in names if EXPORTS[name].file.endswith(".jsonl")]
    assert files == {name: [{"split": "train", "path": EXPORTS[name].file}] for name in lines}
    assert [one["config_name"] for one in front["configs"] if one.get("default")] == ["messages"]
    assert front["size_categories"] == ["n<1K"]
    for name in names:
        file = EXPORTS[name].file
        by_file = f'load_dataset("parquet", data_files=f"{{FOLDER}}/{file}", split="train")'
        assert (f'load_dataset(FOLDER, "{name}", split="train")' if name in lines else by_file) in body


def test_what_is_shared_is_the_data_and_the_card_alone() -> None:
    names = ["README.md", "decisions.parquet", "dropped.jsonl", "messages-train.jsonl", "messages-val.jsonl"]
    names += ["pairs.parquet", "quarantine.jsonl", "scores.parquet", "axolotl/sft.jsonl", "axolotl/sft.yaml"]
    sides = {side: f"messages-{side}.jsonl" for side in ("train", "val")}
    run = manifests.made(
        files={name: ExportedFile("0", 1, None) for name in names},
        exports={
            "messages": Written(sides["train"], 2, sides=sides),
            "axolotl-sft": Written("axolotl/sft.jsonl", 2),
        },
    )
    assert for_others(run) == [
        "README.md",
        "axolotl/sft.jsonl",
        "axolotl/sft.yaml",
        "messages-train.jsonl",
        "messages-val.jsonl",
    ]


def test_tables_alone_are_loaded_by_name_too(tmp_path: Path) -> None:
    front, _ = card_of(tmp_path, "verl-preference", "parquet")
    assert [one["config_name"] for one in front["configs"]] == ["parquet", "verl-preference"]


def test_sides_are_the_hubs_splits(tmp_path: Path) -> None:
    front, _ = card_of(tmp_path, "messages", split=Split((("val", 0.3),)))
    assert front["configs"][0]["data_files"] == [
        {"split": "train", "path": "messages-train.jsonl"},
        {"split": "validation", "path": "messages-val.jsonl"},
    ]


def test_the_body_says_what_sides_go_by_where_it_is_a_group(tmp_path: Path) -> None:
    _, by_group = card_of(tmp_path, "messages", split=SplitByGroup((("val", 0.3),), group="row.id"))
    assert "divided by `row.id`: records with one value of it are on one side" in by_group
    _, by_prompt = card_of(tmp_path / "by-prompt", "messages", split=Split((("val", 0.3),)))
    assert "divided by" not in by_prompt


def test_the_body_says_where_the_data_come_from_and_what_was_kept(tmp_path: Path) -> None:
    _, body = card_of(tmp_path, "messages", "trl-preference")
    for said in (
        "39 records of 40",
        "| `chats.jsonl` |",
        "`team/judge`, revision `abc123`, licence `apache-2.0`",
        "- 2 of 2 golden rows agree.",
        "- `reward >= 1`",
        "| dropped: `rule: reward >= 1` | 1 |",
        "19 pairs of the answers to 20 prompts.",
        "| `trl-preference` | `trl/preference.jsonl` | 19 | – |",
    ):
        assert said in body, said
    assert "/home/me" not in body


ENGLISH = "The weather in the mountains changes quickly, so take a warm coat and enough water with you."
GERMAN = "Das Wetter in den Bergen ändert sich schnell, also nimm einen warmen Mantel und genug Wasser mit."
FRENCH = "Le temps en montagne change vite, alors prends un manteau chaud et assez d'eau avec toi."


def test_the_card_names_the_languages_of_what_was_kept_where_the_run_finds_them(tmp_path: Path) -> None:
    said = [(ENGLISH, 2.0)] * 2 + [(GERMAN, 2.0)] * 3 + [(FRENCH, 0.0)] * 9
    records = [
        Record(line, (("user", f"{text} {line}?"), ("assistant", text)), (Turn((score,)),))
        for line, (text, score) in enumerate(said, 1)
    ]
    for name, finds in (("found", True), ("not", False)):
        about = replace(ABOUT, finds_languages=finds)
        front, _ = card_of(tmp_path / name, "messages", about=about, records=records)
        # French was dropped.
        assert front.get("language") == (["de", "en"] if finds else None)


def test_the_body_shows_each_trainer_its_file_as_the_page_of_trainers_does(tmp_path: Path) -> None:
    names = [name for name in EXPORTS if not name.startswith(("steerlm", "dropped", "messages", "parquet"))]
    _, body = card_of(tmp_path / "whole", *names)
    shown = dict(re.findall(r'load_dataset\((?:FOLDER, "|.*FOLDER}/)([^"]+)".*\n# (.*)', body))
    for trainer, name in (
        ("Axolotl", "axolotl-sft"),
        ("OpenRLHF", "openrlhf-preference"),
        ("verl", "verl-sft"),
    ):
        on_the_page = [word.replace("out", "FOLDER") for word in words(trainer) if word != "&&"]
        in_the_card = shown[name if name in shown else EXPORTS[name].file]
        assert [word for word in shlex.split(in_the_card) if word != "&&"] == on_the_page
    assert shown["swift-sft"].split() == [word.replace("out", "FOLDER") for word in words("ms-swift")]
    # verl's pairs have no trainer of verl's own.
    without = {"verl-preference"}
    files = {EXPORTS[name].file: name for name in names}
    assert {files.get(name, name) for name in shown} == set(names) - without
    _, split = card_of(tmp_path / "split", "swift-sft", split=Split((("val", 0.3),)))
    assert "# swift sft --dataset FOLDER/swift/sft-train.jsonl\n" in split


def test_equal_results_have_an_equal_card(tmp_path: Path) -> None:
    assert card_of(tmp_path / "a", "messages") == card_of(tmp_path / "b", "messages")


@pytest.mark.parametrize(
    "name", ["`<b>x</b>`.jsonl", "a|b.jsonl", "[x](http:y).jsonl", "a\nb.jsonl", "``.jsonl"]
)
def test_a_name_in_the_card_is_shown_and_not_obeyed(tmp_path: Path, name: str) -> None:
    about = AboutRun((AboutModel(None, name, "f" * 32),))
    _, body = card_of(tmp_path, "messages", about=about, file=name)
    rendered = MarkdownIt("commonmark").enable("table").render(body)
    assert "<b>" not in rendered
    assert "<a " not in rendered
    assert rendered.count("<td><code>") >= 1


def test_the_front_matter_has_the_types_of_what_messages_hold(tmp_path: Path) -> None:
    fields = MessageFields(
        tool_calls='[{"id":"1","function":{"name":"f"}}]', carried='{"weight":0.5,"ok":true}'
    )
    records = [
        Record(1, (("user", "Q"), ("assistant", "A")), (Turn((1.0,)),), tools="[]"),
        Record(2, (("user", "Q"), FullMessage("assistant", "B", fields)), (Turn((2.0,)),)),
    ]
    names = ["messages", "trl-sft", "trl-preference", "llamafactory-sft", "openai", "nemo-rl-sft"]
    front, _ = card_of(tmp_path, *names, records=records)
    typed = {one["config_name"]: {of["name"]: of for of in one["features"]} for one in front["dataset_info"]}
    assert set(typed) == set(names) - {"openai", "nemo-rl-sft"}
    text = {"dtype": "string"}
    called = [
        {"name": "id", **text},
        {"name": "type", **text},
        {"name": "function", "struct": [{"name": "name", **text}, {"name": "arguments", **text}]},
    ]
    said = [{"name": "role", **text}, {"name": "content", **text}, {"name": "tool_calls", "list": called}]
    more = [{"name": "ok", "dtype": "bool"}, {"name": "weight", "dtype": "float64"}]
    assert typed["messages"]["messages"]["list"] == [*said, *more]
    assert typed["messages"]["score"]["dtype"] == "float64"
    assert typed["trl-preference"]["chosen"]["list"] == typed["trl-sft"]["messages"]["list"] == said
    assert typed["llamafactory-sft"]["messages"]["list"] == said[:2]
    assert {one["tools"]["dtype"] for one in typed.values()} == {"string"}


def test_types_that_a_file_shows_in_every_row_are_left_to_it(tmp_path: Path) -> None:
    front, _ = card_of(tmp_path, "messages", "trl-sft")
    assert "dataset_info" not in front
