"""Read one row as a run does, without files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from assay.read.formats import FORMATS, KNOWN_NAMES, Names, Reading, row_of, row_reader
from assay.read.formats.reading import Row


def row(data: object) -> Row:
    """The row as it is decoded from JSON."""
    found = row_of(data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode())
    assert isinstance(found, dict), found
    return found


def readings(data: object, names: Names = KNOWN_NAMES) -> list[Reading]:
    """The records of a row that has a format."""
    return row_reader(names).readings(row(data), FORMATS["messages"])


def format_name(data: object, names: Names = KNOWN_NAMES) -> str | None:
    """The name of the format that the row has."""
    found = row_reader(names).format_of(row(data))
    return None if found is None else found.name


def said(reading: Reading) -> list[tuple[str, str]]:
    """Role and content of the messages."""
    return [(message.role, message.content) for message in reading.messages]


def turns(*contents: str, system: str | None = None) -> list[tuple[str, str]]:
    """What a user and an assistant say in turn."""
    spoken = [(("user", "assistant")[place % 2], content) for place, content in enumerate(contents)]
    return spoken if system is None else [("system", system), *spoken]


def rest(reading: Reading) -> dict[str, Any]:
    """What is carried along."""
    return {} if reading.rest is None else dict(json.loads(reading.rest))


def chat(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """The same as a list of messages."""
    return [{"role": role, "content": content} for role, content in turns(*contents, system=system)]


def given_in(reading: Reading) -> list[Mapping[str, float] | None] | None:
    """What people gave each message."""
    return None if reading.more is None else reading.more.given
