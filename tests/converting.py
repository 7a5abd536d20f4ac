"""Write bytes to a file, convert it, and look at what came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from stages import build, convert, decide, take_inventory

from assay.read.formats import KNOWN_NAMES, Names
from assay.select.rules import Rules
from assay.storage.home import Home
from assay.storage.manifests import Converted


class Outcome(NamedTuple):
    """A conversion, its records and its turns."""

    converted: Converted
    records: list[dict[str, Any]]
    turns: list[dict[str, Any]]


def steerlm_rows(folder: Path, converted: Converted) -> list[dict[str, Any]]:
    """The rows that a run writes of what ``converted_file`` gave, where it stops after convert."""
    home = Home(folder / "home")
    staging = folder / "staging"
    staging.mkdir()
    filtered = decide(converted, None, rules=Rules(), home=home)
    build(converted, None, filtered, home=home, staging=staging, exports=(), stop_after="convert")
    return [json.loads(each) for each in (staging / "converted.jsonl").read_bytes().splitlines()]


def line(*contents: str, **fields: Any) -> bytes:
    """A ``messages`` row without line end: contents by user and assistant in turn."""
    messages = [
        {"role": ("user", "assistant")[number % 2], "content": content}
        for number, content in enumerate(contents)
    ]
    return json.dumps({"messages": messages, **fields}, ensure_ascii=False).encode()


def converted_file(folder: Path, data: bytes, *, name: str = "rows.jsonl", **options: Any) -> Outcome:
    """The outcome for a file of these bytes."""
    path = folder / name
    path.write_bytes(data)
    return converted_paths(folder, str(path), **options)


def converted_paths(
    folder: Path,
    *paths: str,
    format: str = "auto",
    shard_bytes: int = 32 << 20,
    mapped: Names = KNOWN_NAMES,
    **options: Any,
) -> Outcome:
    """The outcome for these inputs; messages, labels and rest decoded."""
    home = Home(folder / "home")
    inventory = take_inventory(paths, format=format, shard_bytes=shard_bytes, mapped=mapped)
    return read_back(convert(inventory, home=home, **options), home)


def read_back(converted: Converted, home: Home) -> Outcome:
    """The records and turns of all pieces, in order."""
    records: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for piece in converted.pieces:
        for record in pl.read_parquet(home.artifacts / piece.records.path, glob=False).iter_rows(named=True):
            for column in ("messages", "labels"):
                record[column] = None if record[column] is None else json.loads(record[column])
            records.append(record)
        turns += pl.read_parquet(home.artifacts / piece.turns.path, glob=False).iter_rows(named=True)
    return Outcome(converted, records, turns)


def read_row(folder: Path, row: object, **options: Any) -> list[dict[str, Any]]:
    """The records of one row."""
    return converted_file(folder, json.dumps(row, ensure_ascii=False).encode(), **options).records


def said(record: dict[str, Any]) -> list[tuple[str, str]]:
    """(role, content) of a record's messages."""
    return [(message["role"], message["content"]) for message in record["messages"]]


PAIR_LINE = line("Which way to the mill?", "Left at the bridge, then along the brook.")
