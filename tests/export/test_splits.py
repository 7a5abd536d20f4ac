"""A prompt, or a group, is on one side of a split, whatever else the data hold; NeMo-Aligner's is its own."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from handmade import Made, Record, Turn, make
from stages import convert, decide, take_inventory

from assay.core.errors import UserMistake
from assay.core.schema import Message
from assay.export import EXPORT, EXPORTS, PAIR_EXPORTS, ToExport, check_split
from assay.export.contract import ToWrite
from assay.export.files import Exported
from assay.export.folder import OutputFolder
from assay.export.foreseen import notes_on_sides, warnings_of
from assay.export.pairs import PairChoice
from assay.export.splits import Split, SplitByGroup, TreeOrder, parse_splits
from assay.select.columns import groups_of
from assay.select.rules import Rules
from assay.storage.home import Home
from assay.storage.manifests import Converted, Filtered, Scored, to_json
from assay.storage.stage import RunContext

THREE = Split((("val", 0.25), ("test", 0.125)), seed=3)
BY_GROUP = SplitByGroup(THREE.shares, THREE.seed, group="row.tree.id")


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
    given = ToExport(
        converted, scored, filtered, exports, folder, staging, stop, PairChoice("all"), split=split
    )
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


def test_a_pair_is_on_the_side_of_its_tree_in_nemo_aligners_split(home: Home) -> None:
    def answered(line: int, prompt: str, answer: str, score: float, part: int) -> Record:
        return Record(line, (("user", prompt), ("assistant", answer)), (Turn((score,)),), part=part)

    of_trees = [
        answered(line, "asked of all" if shared else f"question {line}", f"{score} {line}", score, part)
        for line in range(1, 41)
        for part, (shared, score) in enumerate([(False, 2.0), (False, 1.0), (True, line * 1.0)])
    ]
    made = make(home, {"trees.jsonl": [of_trees]}, attributes=("reward",))
    (file,) = made.converted.inputs
    converted = replace(made.converted, inputs=(replace(file, format="oasst_trees"),))
    exported, staging = run(converted, made.scored, home, Split(nemo_oasst=True), "trl-preference")
    written, order = exported.exports["trl-preference"], TreeOrder.of(40)
    pairs = 0
    for side, name in written.sides.items():
        for row in rows(staging / name):
            pairs += 1
            for answer in (row["chosen"], row["rejected"]):
                assert order.side_of(int(answer[0]["content"].split()[1])) == side
    # The prompt that all 40 trees share has pairs within the 38, and within the 2.
    assert written.left_out == {}
    assert pairs == written.rows == 40 + 38 * 37 // 2 + 1


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_side_is_of_the_prompt_or_of_the_groups_value_and_of_nothing_else() -> None:
    """The hash that sides have always been made by: earlier rows stay where they are."""

    def place(*parts: str) -> float:
        fed = b"".join(b"%d:%s" % (len(part.encode()), part.encode()) for part in ("split", "3", *parts))
        return int(blake2b(fed, digest_size=16).hexdigest()[:13], 16) / 16**13

    def side(share: float) -> str:
        return "val" if share < 0.25 else "test" if share < 0.375 else "train"

    for number in range(100):
        said = asked(f"q{number} é", "an answer", system="Be brief.")
        by_prompt = side(place("system", "Be brief.", "user", f"q{number} é"))
        assert THREE.side_of(said) == BY_GROUP.side_of(said) == by_prompt
        assert BY_GROUP.side_of_group(f'"{number}"') == side(place("group", f'"{number}"'))


def test_results_of_a_split_without_a_group_are_known_by_what_they_were() -> None:
    assert to_json(Split((("val", 0.5),), 7)) == b'{"shares":[["val",0.5]],"seed":7,"nemo_oasst":false}'
    assert to_json(BY_GROUP) != to_json(THREE)
    assert parse_splits(["val=0.25", "test=0.125"], 3, "row.tree.id") == BY_GROUP
    assert parse_splits(["nemo-oasst"], 3, "row.tree.id") == Split(nemo_oasst=True)


Answers = list[tuple[int, int | None]]
"""The number of the prompt of each answer, and of its group."""


def grouped(home: Home, answers: Answers) -> Made:
    """Records of two turns, in pieces of ten, whose every answer names its prompt, its group and itself."""

    def record(number: int, prompt: int, group: int | None) -> Record:
        first, last = (f"{prompt} {group} {number} {turn}" for turn in range(2))
        said = (("user", f"question {prompt}"), ("assistant", first), ("user", "?"), ("assistant", last))
        # A value, its JSON and a number of the same digits; null is no value.
        rest = {"tree": {"id": None if group is None else [group, {"b": group, "a": 1}]}}
        scores = (Turn((number * 1.0,)), Turn((0.0,)))
        return Record(
            number, said, scores, rest=None if number % 5 == 4 and group is None else json.dumps(rest)
        )

    records = [record(number, *answer) for number, answer in enumerate(answers)]
    pieces = [records[start : start + 10] for start in range(0, len(records), 10)]
    return make(home, {"a.jsonl": pieces}, attributes=("reward",))


def sides_of_groups(exported: Exported, staging: Path, name: str) -> dict[str, set[str]]:
    """Of each group, or prompt where there is none, the sides on which the file's answers have it."""
    found: dict[str, set[str]] = {}
    for side, file in exported.exports[name].sides.items():
        for row in rows(staging / file):
            for message in [one for key in ("messages", "chosen", "rejected") for one in row.get(key) or []]:
                if message["role"] == "assistant":
                    prompt, group, *_ = message["content"].split()
                    whose = f"question {prompt}" if group == "None" else group
                    found.setdefault(whose, set()).add(side)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_group_is_on_one_side_in_every_file_and_stays_there_when_data_grow(home: Home, seed: int) -> None:
    draw = random.Random(seed)
    prompts, groups = draw.choice([(5, 30), (30, 8), (15, 15)])
    answers: Answers = [
        (draw.randrange(prompts), draw.choice([None, *range(groups)])) for _ in range(draw.randrange(60, 90))
    ]
    names = ("messages", "trl-sft", "trl-preference", "verl-sft")
    found: list[dict[str, dict[str, set[str]]]] = []
    for count in (len(answers) // 2, len(answers)):
        made = grouped(Home(home.root / str(count)), answers[:count])
        exported, staging = run(made.converted, made.scored, made.home, BY_GROUP, *names)
        by_name = {name: sides_of_groups(exported, staging, name) for name in names[:3]}
        for sides in by_name.values():
            assert all(len(some) == 1 for some in sides.values())
        assert by_name["messages"] == by_name["trl-sft"]
        assert by_name["trl-preference"].items() <= by_name["messages"].items()
        whole = {f"{prompt} {group}" for prompt, group in answers[:count]}
        by_prompt = {f"question {one.split()[0]}" for one in whole if one.endswith("None")}
        assert by_name["messages"].keys() == by_prompt | {one.split()[1] for one in whole} - {"None"}
        for prompt in by_prompt:
            assert by_name["messages"][prompt] == {THREE.side_of(asked(prompt))}
        pairs = exported.exports["trl-preference"]
        assert (pairs.rows, pairs.left_out) == (exported.files["pairs.parquet"].rows, {})
        found.append(by_name)
    for name in names[:3]:
        assert found[0][name].items() <= found[1][name].items()


#: Two groups that are on different sides.
TRAIN_GROUP = next(str(n) for n in range(99) if BY_GROUP.side_of_group(str(n)) == "train")
VAL_GROUP = next(str(n) for n in range(99) if BY_GROUP.side_of_group(str(n)) == "val")


def answers_in_groups(home: Home, *files: list[tuple[str, float, str]]) -> Made:
    """Answers to one prompt, each with its score and the JSON of its group."""
    records = [
        [
            Record(
                line,
                (("user", "q"), ("assistant", answer)),
                (Turn((score,)),),
                rest=f'{{"tree":{{"id":{group}}}}}',
            )
            for line, (answer, score, group) in enumerate(answers, 1)
        ]
        for answers in files
    ]
    by_name = {f"{number}.jsonl": [some] for number, some in enumerate(records)}
    return make(home, by_name, attributes=("reward",))


IN_VAL = [("good", 3.0, VAL_GROUP), ("bad", 1.0, VAL_GROUP)]


@pytest.mark.parametrize(
    ("before", "in_train"),
    [
        ([("better", 4.0, TRAIN_GROUP), ("worst", 0.0, TRAIN_GROUP)], {("better", "worst")}),
        ([("good", 3.0, TRAIN_GROUP)], set()),
        ([("good", 3.0, TRAIN_GROUP), ("bad", 1.0, TRAIN_GROUP)], {("good", "bad")}),
    ],
)
def test_answers_on_a_side_are_paired_whatever_is_on_another(
    home: Home, before: list[tuple[str, float, str]], in_train: set[tuple[str, str]]
) -> None:
    for name, files in {"alone": [IN_VAL], "behind": [before, IN_VAL], "ahead": [IN_VAL, before]}.items():
        made = answers_in_groups(Home(home.root / name), *files)
        staging = made.home.root / "staged"
        staging.mkdir(parents=True)
        filtered = decide(made.converted, made.scored, rules=Rules(), home=made.home)
        folder = OutputFolder(made.home.root / "published")
        given = ToExport(
            made.converted, made.scored, filtered, ("trl-preference",), folder, staging, split=BY_GROUP
        )
        written = EXPORT.run(given, RunContext(made.home)).exports["trl-preference"]
        found = {
            side: {(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows(staging / of)}
            for side, of in written.sides.items()
        }
        expected = {"train": in_train if name != "alone" else set(), "val": {("good", "bad")}, "test": set()}
        assert (found, written.left_out) == (expected, {})


def test_pairs_are_refused_where_no_side_has_two_answers_to_a_prompt(home: Home) -> None:
    made = answers_in_groups(home, [("good", 2.0, TRAIN_GROUP), ("bad", 1.0, VAL_GROUP)])
    to_write = ToWrite(pairs=(PAIR_EXPORTS["trl-preference"],))
    assert warnings_of(to_write, made.converted, home) == []
    by_group = to_write._replace(split=SplitByGroup((("val", 0.25),), 3, group="row.tree.id"))
    with pytest.raises(UserMistake, match=r"two different answers, .* on one side of the split"):
        warnings_of(by_group, made.converted, home)


def test_results_of_the_version_that_dropped_pairs_and_weights_are_made_again() -> None:
    assert EXPORT.version > 8


def test_what_sides_by_groups_do_not_hold_is_said(home: Home) -> None:
    def notes(*answers: tuple[int, int | None], split: Split = BY_GROUP) -> tuple[str, ...]:
        made = grouped(Home(home.root / str(len(list(home.root.glob("*"))))), list(answers))
        return notes_on_sides(split, made.converted, made.home)

    home.root.mkdir()
    assert notes((1, 1), split=THREE) == ()
    divided = "the files are divided by row.tree.id, so records with one value of it are on one side"
    assert notes((1, 1), (2, 1), (3, 2)) == (divided,)
    everywhere = [(prompt, group) for prompt in (1, 2) for group in range(40)]
    assert notes(*everywhere, (3, None), (3, None)) == (
        divided,
        "2 of 82 records have no row.tree.id, and are divided by prompt instead",
        "2 of 3 prompts stand on more than one side, since records with different values of row.tree.id "
        "share them; leave out --group to keep each prompt on one side",
    )


def test_a_group_that_no_record_has_is_a_mistake_that_names_what_there_is(home: Home) -> None:
    made = grouped(home, [(1, 1), (2, 2)])
    misspelt = SplitByGroup(THREE.shares, THREE.seed, group="row.trees")
    with pytest.raises(
        UserMistake, match=r"--group row\.trees: no record of 2 has it; .*did you mean row\.tree\?"
    ):
        notes_on_sides(misspelt, made.converted, made.home)


@pytest.mark.parametrize(
    ("rest", "value"),
    [
        ('{"tree":{"id":7,"n":1e400}}', "7"),
        ('{"tree":{"id":1e400}}', None),
        ('{"tree":1e400}', None),
        ('{"other":1e400,"tree":{"id":"x"}}', '"x"'),
    ],
)
def test_a_number_that_no_float_holds_costs_its_own_value_alone(rest: str, value: str | None) -> None:
    assert groups_of(pl.Series([rest, '{"tree":{"id":1}}', None]), "row.tree.id") == [value, "1", None]


def test_nemo_aligners_split_is_of_one_file_of_trees_and_of_lines(home: Home) -> None:
    with pytest.raises(UserMistake, match="orders lines, and verl-sft is a table"):
        check_split(["messages", "parquet", "verl-sft"], Split(nemo_oasst=True))
    check_split(["messages", "parquet", "verl-preference", "dropped"], Split(nemo_oasst=True))
    check_split(["verl-sft"], THREE)
    made = rewards(home)
    with pytest.raises(UserMistake, match="divides one file of OpenAssistant's trees"):
        warnings_of(ToWrite(split=Split(nemo_oasst=True)), made.converted, home)
    assert TreeOrder.of(20).train == 19
    assert sorted(TreeOrder.of(20).ranks) == list(range(1, 21))
