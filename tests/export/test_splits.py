"""A prompt is on one side of a split, whatever else the data hold; NeMo-Aligner's split is its own."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from handmade import Made, Record, Turn, make
from stages import convert, decide, take_inventory

from assay.core.errors import UserMistake
from assay.core.schema import Message
from assay.export import EXPORT, EXPORTS, ToExport
from assay.export.contract import ToWrite
from assay.export.files import Exported
from assay.export.folder import OutputFolder
from assay.export.foreseen import warnings_of
from assay.export.splits import Split, TreeOrder, parse_splits
from assay.select.rules import Rules
from assay.storage.home import Home
from assay.storage.manifests import Converted, Filtered, Scored
from assay.storage.stage import RunContext

THREE = Split((("val", 0.25), ("test", 0.125)), seed=3)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def asked(text: str, *more: str, system: str | None = None) -> list[Message]:
    first = [Message("system", system)] if system is not None else []
    said = [Message(("user", "assistant")[place % 2], each) for place, each in enumerate((text, *more))]
    return [*first, *said]


def test_a_side_depends_on_the_messages_through_the_first_of_a_user_alone() -> None:
    for number in range(50):
        side = THREE.side_of(asked(f"q{number}"))
        assert side == THREE.side_of(asked(f"q{number}", "an answer", "more", "another"))
        assert side == THREE.side_of(asked(f"q{number}", "another answer"))
    by_system = {THREE.side_of(asked("q", system=f"{number}")) for number in range(50)}
    assert by_system == {"train", "val", "test"}
    assert len({Split(THREE.shares, seed).side_of(asked("q")) for seed in range(50)}) == 3


def test_shares_are_about_as_asked_and_a_side_more_moves_only_what_it_takes() -> None:
    sides = [THREE.side_of(asked(f"question {number}")) for number in range(4000)]
    assert abs(sides.count("val") / 4000 - 0.25) < 0.03
    assert abs(sides.count("test") / 4000 - 0.125) < 0.03
    without = Split(THREE.shares[:1], THREE.seed)
    for number, side in enumerate(sides):
        before = without.side_of(asked(f"question {number}"))
        assert side == before or (before, side) == ("train", "test")


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["val"], "write a name and a share between 0 and 1"),
        (["val=0"], "write a name and a share between 0 and 1"),
        (["val=1"], "write a name and a share between 0 and 1"),
        (["val=nan"], "write a name and a share between 0 and 1"),
        (["../x=0.1"], "write a name and a share between 0 and 1"),
        (["train=0.9"], "train is what the other sides leave"),
        (["val=0.1", "val=0.2"], "val is given twice"),
        (["val=0.5", "test=0.5"], "add up to 1"),
        (["nemo-oasst", "val=0.5"], "leave out the others"),
    ],
)
def test_what_is_no_split_is_refused(texts: list[str], why: str) -> None:
    with pytest.raises(UserMistake, match=f"--split .*{why}"):
        parse_splits(texts, 0)


def run(
    converted: Converted,
    scored: Scored | None,
    home: Home,
    split: Split | None,
    *exports: str,
    name: str = "s",
) -> tuple[Exported, Path]:
    staging = home.root / name
    staging.mkdir(parents=True)
    filtered: Filtered = decide(converted, scored, rules=Rules(), home=home)
    folder = OutputFolder(home.root / "published")
    stop: Literal["convert"] | None = None if scored else "convert"
    given = ToExport(converted, scored, filtered, exports, folder, staging, stop, split=split)
    exported = EXPORT.run(given, RunContext(home))
    names = {str(path.relative_to(staging)) for path in staging.rglob("*") if path.is_file()}
    assert names == set(exported.files)
    return exported, staging


def rewards(home: Home, count: int = 60) -> Made:
    def record(line: int, number: int, answer: str, score: float) -> Record:
        said = (("user", f"question {number}"), ("assistant", answer))
        return Record(line, said, (Turn((score,)),), rest=json.dumps({"assay_side": "chosen"}))

    pieces = [
        [record(line, line, "good", 2.0) for line in range(count)],
        [record(line, line, "bad", 1.0) for line in range(count)],
    ]
    return make(home, {"a.jsonl": pieces}, attributes=("reward",))


def prompts(path: Path) -> list[str]:
    rows = (
        [json.dumps(row) for row in pl.read_parquet(path).rows()]
        if path.suffix == ".parquet"
        else (path.read_text().splitlines())
    )
    return [row.split("question ")[1].split('"')[0] for row in rows]


def test_every_file_is_divided_alike_and_no_prompt_is_on_two_sides(home: Home) -> None:
    names = [name for name in EXPORTS if not name.startswith(("steerlm", "dropped"))]
    made = rewards(home)
    exported, staging = run(made.converted, made.scored, home, THREE, *names)
    _, whole = run(made.converted, made.scored, home, None, *names, name="whole")
    for name in names:
        written = exported.exports[name]
        if name == "parquet":
            assert (written.file, written.sides) == ("records.parquet", {})
            continue
        export = EXPORTS[name]
        stem, suffix = export.file.rsplit(".", 1)
        assert written.sides == {side: f"{stem}-{side}.{suffix}" for side in ("train", "val", "test")}
        assert written.file == written.sides["train"]
        found = {side: prompts(staging / file) for side, file in written.sides.items()}
        assert all(found.values())
        for side, asked_of in found.items():
            assert {THREE.side_of(asked(f"question {number}")) for number in asked_of} == {side}
        assert sorted([one for some in found.values() for one in some]) == sorted(
            prompts(whole / export.file)
        )
        assert sum(exported.files[file].rows or 0 for file in written.sides.values()) == written.rows
    info = json.loads((staging / "llamafactory/dataset_info.json").read_text())
    assert info["assay_sft_val"]["file_name"] == "sft-val.jsonl"
    assert "path: axolotl/sft-val.jsonl" in (staging / "axolotl/sft.yaml").read_text()


def test_a_side_that_nothing_falls_to_is_refused_before_scoring(home: Home) -> None:
    made = rewards(home, 3)
    tiny = Split((("val", 0.0001),))
    with pytest.raises(UserMistake, match="no record falls to val: 6 records are too few"):
        warnings_of(ToWrite(split=tiny), made.converted, home)
    made = rewards(Home(home.root / "more"))
    assert warnings_of(ToWrite(split=THREE), made.converted, made.home) == []


def tree(number: int) -> dict[str, Any]:
    def node(text: str, role: str, replies: list[dict[str, Any]], **labels: float) -> dict[str, Any]:
        values = {name: {"value": value, "count": 2} for name, value in labels.items()}
        return {"text": text, "role": role, "labels": values, "replies": replies}

    answers = [
        node(f"answer {number}.{reply} é", "assistant", [], quality=number / 40, humor=0.125)
        for reply in range(number % 4)
    ]
    return {
        "message_tree_id": f"{number}",
        "prompt": node(f"question {number}", "prompter", answers, quality=1.0),
    }


def nemos(trees: list[dict[str, Any]]) -> dict[str, str]:
    """What NeMo-Aligner's preprocess_openassistant_data.py writes of trees that are two messages deep."""
    random.seed(10)
    random.shuffle(trees)
    cut = int(len(trees) * 0.95)
    written = {}
    for side, some in (("train", trees[:cut]), ("val", trees[cut:])):
        lines = []
        for each in some:
            asked_of = each["prompt"]
            for reply in asked_of["replies"]:
                labels = [(name, reply["labels"][name]["value"]) for name in ("quality", "humor")]
                turns = [
                    {"value": asked_of["text"], "from": "User", "label": None},
                    {
                        "value": reply["text"],
                        "from": "Assistant",
                        "label": ",".join(f"{name}:{round(value * 4)}" for name, value in labels),
                    },
                ]
                system = (
                    "A chat between a curious user and an artificial intelligence assistant. The assistant "
                    "gives helpful, detailed, and polite answers to the user's questions."
                )
                row = {"conversations": turns, "system": system, "mask": "User", "type": "VALUE_TO_TEXT"}
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        written[side] = "".join(lines)
    return written


def test_nemo_aligners_own_split_to_the_byte(home: Home, tmp_path: Path) -> None:
    trees = [tree(number) for number in range(41)]
    path = tmp_path / "trees.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in trees))
    converted = convert(take_inventory([str(path)]), home=home)
    exported, staging = run(converted, None, home, Split(nemo_oasst=True))
    for side, expected in nemos(trees).items():
        assert expected
        assert (staging / f"converted-{side}.jsonl").read_text() == expected
    assert exported.exports["converted"].rows == sum(number % 4 for number in range(41))


def test_nemo_aligners_split_is_of_one_file_of_trees_and_of_lines(home: Home) -> None:
    made = rewards(home)
    with pytest.raises(UserMistake, match="divides one file of OpenAssistant's trees"):
        warnings_of(ToWrite(split=Split(nemo_oasst=True)), made.converted, home)
    assert TreeOrder.of(20).train == 19
    assert sorted(TreeOrder.of(20).ranks) == list(range(1, 21))
