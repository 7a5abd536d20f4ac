from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import yaml
from handmade import Made, Record, Turn, make
from hypothesis import given
from hypothesis import strategies as st
from stages import decide

from assay.core.errors import UserMistake
from assay.export import EXPORT, EXPORTS, ToExport
from assay.export.card import AboutModel, AboutRun
from assay.export.files import Exported
from assay.export.folder import OutputFolder
from assay.export.numbered import NumberedLines, NumberedTables, all_numbered, numbered, parse_shard_size
from assay.export.splits import Split
from assay.select.rules import Rules
from assay.storage.home import Home
from assay.storage.stage import RunContext

LIMIT = 3000


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1GB", 10**9),
        ("500 MB", 5 * 10**8),
        ("1mb", 10**6),
        ("1.5MiB", 3 << 19),
        ("1000000B", 10**6),
        ("1TiB", 1 << 40),
    ],
)
def test_a_size_has_its_unit(text: str, size: int) -> None:
    assert parse_shard_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "1", "GB", "-1GB", "1GBs", "1e3MB", "nan GB", "inf GB", "infinite", "1iB", "9" * 400 + "GB"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserMistake, match="write a number of bytes with its unit"):
        parse_shard_size(text)


@pytest.mark.parametrize("text", ["0GB", "0.1B", "7B", "999kB", "976KiB", "0.999MB", "999999B"])
def test_a_size_below_a_megabyte_is_refused(text: str) -> None:
    with pytest.raises(UserMistake, match="is less than 1MB"):
        parse_shard_size(text)


def test_a_pattern_fits_the_numbered_files_and_no_other_side() -> None:
    pattern = all_numbered(numbered("messages.jsonl", 0, of=2))
    assert Path(numbered("messages.jsonl", 1, of=2)).match(pattern)
    assert not Path(numbered("messages-val.jsonl", 1, of=2)).match(pattern)
    assert all_numbered("records.parquet") == "records.parquet"


@pytest.mark.slow
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6), max_size=8), st.integers(1, 20))
def test_lines_are_whole_in_order_and_in_as_few_files_as_go(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[list[int]], limit: int
) -> None:
    """``blocks``: the lengths of the lines that are written at once."""
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    written = [[bytes([97 + n % 26]) * length + b"\n" for length in block] for n, block in enumerate(blocks)]
    with NumberedLines(path, limit) as file:
        for lines in written:
            file.write(b"".join(lines), len(lines))
        files = file.finish("x/a.jsonl")
    assert list(files) == [numbered("x/a.jsonl", number, len(files)) for number in range(len(files))]
    assert {one.name for one in path.parent.iterdir()} == {Path(name).name for name in files}
    contents = [path.with_name(Path(name).name).read_bytes() for name in files]
    every = [line for lines in written for line in lines]
    assert b"".join(contents) == b"".join(every)
    for content, about in zip(contents, files.values(), strict=True):
        assert (about.size, about.rows) == (len(content), content.count(b"\n"))
        assert content.endswith(b"\n") or (content == b"" and len(contents) == 1)
        assert len(content) <= limit or about.rows == 1
    firsts = [content[: content.index(b"\n") + 1] for content in contents[1:]]
    for before, first in zip(contents, firsts, strict=False):
        assert len(before) + len(first) > limit, "the line would have gone into the file before"


def records(home: Home, count: int = 120) -> Made:
    def record(line: int, answer: str, score: float) -> Record:
        said = (("user", f"question {line} of many"), ("assistant", answer))
        return Record(line, said, (Turn((score,)),))

    pieces = [
        [record(n, f"{word} answer", score) for n in range(count)] for word, score in (("a", 1.0), ("b", 2.0))
    ]
    return make(home, {"a.jsonl": pieces}, attributes=("reward",))


def run(
    made: Made, name: str, *exports: str, split: Split | None = None, limit: int | None
) -> tuple[Exported, Path]:
    staging = made.home.root / name
    staging.mkdir(parents=True)
    filtered = decide(made.converted, made.scored, rules=Rules(), home=made.home)
    given = ToExport(
        made.converted,
        made.scored,
        filtered,
        exports,
        OutputFolder(made.home.root / "published"),
        staging,
        split=split,
        about=AboutRun((AboutModel(None, "judge", "f" * 32),)),
        shard_bytes=limit,
    )
    exported = EXPORT.run(given, RunContext(made.home))
    names = {str(path.relative_to(staging)) for path in staging.rglob("*") if path.is_file()}
    assert names == set(exported.files)
    return exported, staging


def test_numbered_files_hold_what_one_file_holds_and_every_reader_is_given_all(tmp_path: Path) -> None:
    made = records(Home(tmp_path))
    exports = ("messages", "trl-preference", "llamafactory-sft", "axolotl-sft")
    split = Split((("val", 0.3),))
    whole, at_once = run(made, "whole", *exports, split=split, limit=None)
    several, cut = run(made, "cut", *exports, split=split, limit=LIMIT)
    again, _ = run(made, "again", *exports, split=split, limit=LIMIT)
    assert again == several
    for export in exports:
        written = several.exports[export]
        assert written.rows == whole.exports[export].rows
        for side, name in whole.exports[export].sides.items():
            files = written.by_side[side]
            assert files == tuple(numbered(name, number, len(files)) for number in range(len(files)))
            assert len(files) > 1
            assert b"".join((cut / file).read_bytes() for file in files) == (at_once / name).read_bytes()
            assert all(several.files[file].size <= LIMIT for file in files)
        assert (written.file, written.sides) == (
            written.by_side["train"][0],
            {side: files[0] for side, files in written.by_side.items()},
        )
    front = yaml.safe_load((cut / "README.md").read_text().split("---\n")[1])
    listed = {
        (one["config_name"], data["split"]): data["path"]
        for one in front["configs"]
        for data in one["data_files"]
    }
    assert listed["messages", "validation"] == list(several.exports["messages"].by_side["val"])
    info = json.loads((cut / "llamafactory" / "dataset_info.json").read_text())
    train = several.exports["llamafactory-sft"].by_side["train"]
    assert [info[f"assay_sft_train_{n:05}"]["file_name"] for n in range(len(train))] == [
        file.removeprefix("llamafactory/") for file in train
    ]
    config = yaml.safe_load((cut / "axolotl" / "sft.yaml").read_text())
    by_side = several.exports["axolotl-sft"].by_side
    assert [one["path"] for one in config["datasets"]] == list(by_side["train"])
    assert [one["path"] for one in config["test_datasets"]] == list(by_side["val"])


@pytest.mark.slow
def test_tables_are_numbered_too(tmp_path: Path) -> None:
    # More than a block of records, as a table is cut between blocks.
    made = records(Home(tmp_path), 2500)
    whole, at_once = run(made, "whole", "messages", "parquet", limit=None)
    several, cut = run(made, "cut", "messages", "parquet", limit=200_000)
    files = several.exports["parquet"].by_side["train"]
    assert len(files) > 1
    together = pl.concat([pl.read_parquet(cut / file) for file in files])
    assert together.equals(pl.read_parquet(at_once / EXPORTS["parquet"].file))
    assert sum(several.files[file].rows or 0 for file in files) == whole.files["records.parquet"].rows
    assert f'data_files=f"{{FOLDER}}/{all_numbered(files[0])}"' in (cut / "README.md").read_text()


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
def test_no_table_holds_more_than_the_limit_though_its_frames_do(rows_at_once: int, tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": [f"{n:0100}" for n in range(1000)]})
    limit = 5000
    tables = NumberedTables(tmp_path / "t.parquet", frame.schema, limit)
    for part in frame.iter_slices(rows_at_once):
        tables.add(part.clone())
    files = tables.finish("t.parquet")
    read = [pl.read_parquet(tmp_path / name) for name in files]
    assert pl.concat(read).equals(frame)
    assert [one.rows for one in files.values()] == [one.height for one in read]
    # Each text has 100 bytes, and a few for where it lies.
    assert max(one.height for one in read) <= limit / 100
    assert len(files) <= 2.5 * frame.estimated_size() / limit


def test_one_row_that_is_larger_than_the_limit_is_a_file_of_its_own(tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": ["a" * 9000, "b" * 9000, "c"]})
    tables = NumberedTables(tmp_path / "t.parquet", frame.schema, 10)
    tables.add(frame)
    assert [pl.read_parquet(tmp_path / name).height for name in tables.finish("t.parquet")] == [1, 1, 1]


def test_another_size_is_another_result_and_none_is_the_result_of_before(tmp_path: Path) -> None:
    made = records(Home(tmp_path), 1)
    filtered = decide(made.converted, made.scored, rules=Rules(), home=made.home)
    folder = OutputFolder(tmp_path / "published")
    keys = {
        EXPORT.digest(
            ToExport(made.converted, made.scored, filtered, ("messages",), folder, tmp_path, shard_bytes=size)
        )
        for size in (None, 10, 20)
    }
    assert len(keys) == 3
