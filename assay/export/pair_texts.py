"""The answers to every prompt, across rows and files, and the texts of the pairs that are made of them.

Prompts are compared by key, and answers on different sides of a split make no pair. What is held of all turns
at once is narrow: keys, scores and places, in partitions by the prompt's key, on disk. Texts are read again
piece by piece; an answer that a pair of another piece needs waits on disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import polars as pl

from assay.core.schema import Conversation, Message, roles_of, turn_keys, turn_positions
from assay.export.files import TableFile
from assay.export.kept import Held, KeptRecords, items_of
from assay.export.pairs import Candidate, ChosenPair, Pair, PairChoice, Place, pairs_of, score_of
from assay.export.sides import Sides
from assay.storage.artifacts import read_artifact
from assay.storage.conversations import conversation_json, conversation_of
from assay.storage.home import Home
from assay.storage.manifests import Converted

#: Turns of which a partition has about as many, so that one fits in memory several times.
_TURNS_OF_A_PARTITION = 2_000_000
#: Pairs of which the answers from other pieces are held at once.
_PAIRS_OF_A_BUCKET = 50_000
_PAIRS_AT_A_TIME = 2048

_CANDIDATES = {
    "prompt": pl.Binary,
    "split": pl.String,
    "key": pl.Binary,
    "score": pl.String,
    "characters": pl.UInt32,
    "piece": pl.UInt32,
    "row": pl.UInt32,
    "turn": pl.UInt32,
    "line": pl.UInt64,
    "side": pl.String,
}
_PLACES = {
    f"{side}_{name}": pl.UInt32 for side in ("chosen", "rejected") for name in ("piece", "row", "turn")
}
_PAIRS = _PLACES | {
    "margin": pl.Float64,
    "chosen_score": pl.Float32,
    "rejected_score": pl.Float32,
    "chosen_rank": pl.UInt32,
    "rejected_rank": pl.UInt32,
    "answers": pl.UInt32,
    "chosen_characters": pl.UInt32,
    "rejected_characters": pl.UInt32,
    "chosen_side": pl.String,
    "rejected_side": pl.String,
    "split": pl.String,
}
#: The columns of ``pairs.parquet``: a pair a row, in the order of the chosen answers in the inputs.
PAIR_COLUMNS: dict[str, type[pl.DataType]] = {
    **{
        f"{side}_{name}": kind
        for side in ("chosen", "rejected")
        for name, kind in {
            "file": pl.String,
            "line": pl.UInt64,
            "part": pl.UInt32,
            "turn": pl.UInt32,
            "score": pl.Float32,
            "rank": pl.UInt32,
            "characters": pl.UInt32,
            "side": pl.String,
        }.items()
    },
    "margin": pl.Float64,
    "answers": pl.UInt32,
}
_ANSWERS = {
    "pair": pl.UInt32,
    "line": pl.UInt64,
    "part": pl.UInt32,
    "message": pl.String,
}


class Answers:
    """The answers of all kept records, in partitions by their prompt's key."""

    def __init__(self, folder: Path, sides: Sides, *, turns: int) -> None:
        """An empty collection. ``folder``, which is new, is for what does not fit in memory."""
        folder.mkdir()
        self._sides = sides
        count = 1 + turns // _TURNS_OF_A_PARTITION
        self._paths = [folder / f"answers-{number:04d}.parquet" for number in range(count)]
        self._files = [TableFile(path, _CANDIDATES) for path in self._paths]

    def add(self, piece: int, kept: KeptRecords) -> None:
        """Take the turns of a block of the piece of this number."""
        frame = _answers_in(piece, kept, self._sides)
        if len(self._files) == 1:
            self._files[0].add(frame)
            return
        number = pl.col("prompt").bin.slice(0, 2).bin.reinterpret(dtype=pl.UInt16) % len(self._files)
        for (partition,), part in (
            frame.with_columns(number.alias("of")).partition_by("of", as_dict=True).items()
        ):
            self._files[partition].add(part)

    def paired(self, choice: PairChoice, files: Sequence[str]) -> Paired:
        """The pairs of all prompts. ``files`` has the input file of each piece."""
        found: list[pl.DataFrame] = []
        prompts = 0
        without: Counter[str] = Counter()
        passed_over: Counter[str] = Counter()
        for path, file in zip(self._paths, self._files, strict=True):
            file.finish()
            rows: list[tuple[object, ...]] = []
            for split, candidates in _by_prompt(pl.read_parquet(path), files):
                of_prompt = pairs_of(candidates, choice)
                prompts += 1
                rows += [(*_row(pair), split) for pair in of_prompt.pairs]
                passed_over.update(of_prompt.passed_over)
                if of_prompt.why_none is not None:
                    without[of_prompt.why_none] += 1
            found.append(pl.DataFrame(rows, schema=_PAIRS, orient="row"))
            path.unlink()
        return Paired(pl.concat(found).sort(list(_PLACES)), prompts, without, passed_over)


class Paired:
    """All pairs of a run, by their places."""

    def __init__(
        self, table: pl.DataFrame, prompts: int, without: Counter[str], passed_over: Counter[str]
    ) -> None:
        self.table = table
        self.prompts = prompts
        """Different prompts of the kept records; one whose answers are on several sides counts on each."""
        self.without = without
        """How many prompts gave no pair, by reason."""
        self.passed_over = passed_over
        """How many pairs would have been, by the reason why they are not."""


def _answers_in(piece: int, kept: KeptRecords, sides: Sides) -> pl.DataFrame:
    """A row a turn of the block, but for turns that are masked or that nothing ranks."""
    number = kept.ranked_by
    if number is None:
        raise ValueError(f"no one number among {', '.join(kept.attributes)}")
    scores = iter(kept.scores[number].cast(pl.String))
    rows: list[tuple[object, ...]] = []
    records = zip(kept.records["row"], items_of(kept), sides.whole(kept.records), strict=True)
    for number, item, split in records:
        keys = turn_keys(item.messages, item.tools)
        places = turn_positions(item.messages)
        for turn, (key, place) in enumerate(zip(keys, places, strict=True)):
            score = next(scores)
            if turn in item.masked or score is None:
                continue
            is_answer = place == len(item.messages) - 1
            rows.append(
                (
                    key.prompt_key,
                    sides.of_prompt(item.messages[:place]) if split is None else split,
                    key.key,
                    score,
                    len(item.messages[place].content),
                    piece,
                    number,
                    turn,
                    item.line,
                    item.side if is_answer else None,
                )
            )
    return pl.DataFrame(rows, schema=_CANDIDATES, orient="row")


def _by_prompt(table: pl.DataFrame, files: Sequence[str]) -> Iterator[tuple[str, list[Candidate]]]:
    """Yield the answers to each prompt on each side of the split, with the side.

    A prompt's one answer counts too.
    """
    ordered = table.sort("prompt", "split", "piece", "row", "turn").iter_rows()
    for (_, split), of_prompt in groupby(ordered, key=lambda row: row[:2]):
        yield (
            split,
            [
                Candidate(
                    key, score_of(score), characters, Place(piece, row, turn), (files[piece], line), side
                )
                for _, _, key, score, characters, piece, row, turn, line, side in of_prompt
            ],
        )


def _row(pair: ChosenPair) -> tuple[object, ...]:
    return (
        *pair.chosen.place,
        *pair.rejected.place,
        float(pair.margin),
        float(pair.chosen.score),
        float(pair.rejected.score),
        pair.chosen_rank,
        pair.rejected_rank,
        pair.answers,
        pair.chosen.characters,
        pair.rejected.characters,
        pair.chosen.side,
        pair.rejected.side,
    )


class WithTexts(NamedTuple):
    """Some pairs with their texts."""

    pairs: list[Pair]
    sides: list[str]
    """Of each pair the side of the split that both its answers are on; empty where nothing is split."""
    places: pl.DataFrame
    """Of each pair the row of ``pairs.parquet``."""


def with_texts(paired: Paired, converted: Converted, home: Home, folder: Path) -> Iterator[WithTexts]:
    """Yield the pairs in order, some at a time.

    ``folder`` is for answers from other pieces, while they wait.
    """
    table = paired.table.with_row_index("pair")
    held = Held.in_records(converted)
    waiting = _Waiting(folder, table, converted, home)
    for (piece,), pairs in table.partition_by("chosen_piece", as_dict=True, maintain_order=True).items():
        own = pl.concat(
            [
                pairs.select(pl.col("chosen_row").alias("row")),
                pairs.filter(pl.col("rejected_piece") == piece).select(pl.col("rejected_row").alias("row")),
            ]
        ).unique()
        records = _records(converted, piece, own, home)
        file = converted.pieces[piece].file
        for few in pairs.iter_slices(_PAIRS_AT_A_TIME):
            made: list[Pair] = []
            places: list[tuple[object, ...]] = []
            for row in few.iter_rows(named=True):
                line, part, messages, tools = records[row["chosen_row"]]
                place = turn_positions(messages)[row["chosen_turn"]]
                if row["rejected_piece"] == piece:
                    other_line, other_part, others, _ = records[row["rejected_row"]]
                    rejected = others[turn_positions(others)[row["rejected_turn"]]]
                else:
                    other_line, other_part, rejected = waiting.answer(row["pair"])
                prompt = messages[:place]
                made.append(
                    Pair(prompt, roles_of(prompt), messages[place], rejected, row["margin"], tools, held)
                )
                places.append(
                    (file, line, part, converted.pieces[row["rejected_piece"]].file, other_line, other_part)
                )
            yield WithTexts(made, few["split"].to_list(), _places(few, places))


def _places(pairs: pl.DataFrame, places: Sequence[tuple[object, ...]]) -> pl.DataFrame:
    names = [f"{side}_{name}" for side in ("chosen", "rejected") for name in ("file", "line", "part")]
    found = pl.DataFrame(places, schema={name: PAIR_COLUMNS[name] for name in names}, orient="row")
    return pairs.hstack(found).select(list(PAIR_COLUMNS))


class _Texts(NamedTuple):
    """A record, and where it stands in its file."""

    line: int
    part: int
    messages: Conversation
    tools: str | None


def _records(converted: Converted, piece: int, rows: pl.DataFrame, home: Home) -> dict[int, _Texts]:
    """The texts of these rows of a piece."""
    columns = ["row", "line", "part", "messages", "tools"]
    records = read_artifact(converted.pieces[piece].records, home, columns)
    records = records.join(rows, on="row", how="semi", maintain_order="left")
    return {
        row: _Texts(line, part, conversation_of(messages), tools)
        for row, line, part, messages, tools in records.iter_rows()
    }


class _Waiting:
    """Answers that pairs of other pieces need, on disk, in buckets of which one is held at a time."""

    def __init__(self, folder: Path, table: pl.DataFrame, converted: Converted, home: Home) -> None:
        self._bucket: int | None = None
        self._held: dict[int, tuple[int, int, Message]] = {}
        count = 1 + table.height // _PAIRS_OF_A_BUCKET
        self._paths = [folder / f"waiting-{number:04d}.parquet" for number in range(count)]
        files = [TableFile(path, _ANSWERS) for path in self._paths]
        crossing = table.filter(pl.col("chosen_piece") != pl.col("rejected_piece"))
        by_piece = crossing.select("pair", "rejected_piece", "rejected_row", "rejected_turn").partition_by(
            "rejected_piece", as_dict=True
        )
        for (piece,), wanted in sorted(by_piece.items()):
            of_piece = wanted.select(pl.col("rejected_row").alias("row"))
            records = _records(converted, piece, of_piece, home)
            rows = []
            for pair, _, row, turn in wanted.iter_rows():
                line, part, messages, _ = records[row]
                message = messages[turn_positions(messages)[turn]]
                rows.append((pair, line, part, conversation_json([message]).decode()))
            frame = pl.DataFrame(rows, schema=_ANSWERS, orient="row")
            of_bucket = (pl.col("pair") // _PAIRS_OF_A_BUCKET).alias("of")
            for (bucket,), part_of in frame.with_columns(of_bucket).partition_by("of", as_dict=True).items():
                files[bucket].add(part_of)
        for file in files:
            file.finish()

    def answer(self, pair: int) -> tuple[int, int, Message]:
        """Line, part and message of the rejected answer of the pair of this number."""
        bucket = pair // _PAIRS_OF_A_BUCKET
        if bucket != self._bucket:
            self._bucket = bucket
            self._held = {
                number: (line, part, *conversation_of(message))
                for number, line, part, message in pl.read_parquet(self._paths[bucket]).iter_rows()
            }
        return self._held[pair]
