"""The languages of a piece's conversations, and those of its answers, each found once and kept.

A file holds those of one piece. It is named by a digest of the piece's records and of the detector's
versions. So another version of the detector finds them anew, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import polars as pl

from assay.core.digests import digest_of_bytes
from assay.core.schema import is_turn
from assay.core.versions import installed
from assay.read.languages import DETECTOR, language_of, language_of_conversation
from assay.storage.artifacts import artifacts_of, read_artifact
from assay.storage.conversations import conversation_of
from assay.storage.home import Home
from assay.storage.manifests import ConvertedPiece
from assay.storage.sealed import Altered, sealed_json, unsealed

#: Part of every file's name: raise it when the same texts get other languages.
_VERSION = 1
_LANGUAGES = "languages"
#: Stands for a language that is not sure.
_NONE = "-"


def languages_of(piece: ConvertedPiece, home: Home) -> pl.DataFrame:
    """Row and language (null where it is not sure) of the piece's records that have turns.

    The language of a record is that of its conversation, as a model is shown it. Where the file of an earlier
    run is missing or damaged, the languages are found now.
    """
    outcomes = read_artifact(piece.records, home, ["row", "outcome"])
    rows = outcomes.filter(pl.col("outcome") == "ok")["row"]
    found = _kept_or_found("conversations", piece, home, rows.len(), _of_conversations)
    return pl.DataFrame([rows, found.alias("language")])


def are_kept(pieces: Iterable[ConvertedPiece], home: Home) -> bool:
    """Whether the languages of all these pieces' records have been found. Whether they are intact is not
    looked at: who needs them finds them anew where they are not."""
    return artifacts_of(home).hold(_path(_key("conversations", piece)) for piece in pieces)


def languages_of_answers(piece: ConvertedPiece, home: Home) -> pl.DataFrame:
    """Row, turn and language (null where it is not sure) of each of the piece's turns, by its text alone."""
    turns = read_artifact(piece.turns, home, ["row", "turn"])
    found = _kept_or_found("answers", piece, home, turns.height, _of_answers)
    return turns.with_columns(found.alias("language"))


def _kept_or_found(
    kind: str, piece: ConvertedPiece, home: Home, count: int, find: Callable[[pl.DataFrame], list[str | None]]
) -> pl.Series:
    """So many languages: of an earlier run, or found now in the records that have turns, and kept."""
    key = _key(kind, piece)
    files = artifacts_of(home)
    kept = _kept(files.read_sealed(_path(key)), key)
    if kept is not None and len(kept) == count:
        return kept
    records = read_artifact(piece.records, home, ["outcome", "messages", "shown"])
    found = pl.Series(find(records.filter(pl.col("outcome") == "ok")), dtype=pl.String)
    # One text: the digest of a list of 50,000 entries takes longer.
    content = {_LANGUAGES: " ".join(found.fill_null(_NONE))}
    files.keep_sealed(sealed_json(content, about=key), _path(key))
    return found


def _path(key: str) -> str:
    return f"{_LANGUAGES}/{key}.json"


def _key(kind: str, piece: ConvertedPiece) -> str:
    versions = installed(*DETECTOR)
    detector = [f"{one} {versions[one]}" for one in DETECTOR]
    parts = (f"{_LANGUAGES} {_VERSION}", kind, piece.records.digest, *detector)
    return digest_of_bytes(*(part.encode() for part in parts))


def _kept(data: bytes | None, key: str) -> pl.Series | None:
    if data is None:
        return None
    try:
        text = unsealed(data, about=key)[_LANGUAGES]
    except Altered:
        return None
    languages = pl.Series(text.split(), dtype=pl.String)
    return languages.set(languages == _NONE, None)


def _of_conversations(records: pl.DataFrame) -> list[str | None]:
    """The languages of the records. Each different conversation is looked at once."""
    known: dict[str, str | None] = {}
    texts = records.select(pl.coalesce("shown", "messages")).to_series()
    for text in texts:
        if text not in known:
            known[text] = language_of_conversation(conversation_of(text))
    return [known[text] for text in texts]


def _of_answers(records: pl.DataFrame) -> list[str | None]:
    """The languages of the records' turns. Each different answer is looked at once."""
    known: dict[str, str | None] = {}
    found: list[str | None] = []
    for text in records["messages"]:
        for message in conversation_of(text):
            if is_turn(message):
                if message.content not in known:
                    known[message.content] = language_of(message.content)
                found.append(known[message.content])
    return found
