"""The table of columns: what a rule can name besides the scores of a model.

Each column says what it is measured over, what it needs and how it is computed: a function of one piece,
which gives a value for each record or for each turn of it. Texts are decoded a piece at a time and then let
go. What needs more than one piece (a group, the dataset) is in ``groups`` and ``percentiles``, by key.

To add one: write its function, and add it to ``COLUMNS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TypeAlias

import msgspec
import polars as pl

from assay.core.schema import CALL, FLAGS
from assay.select.expressions import NamedColumn, Scope, ValueKind
from assay.select.kinds import Over
from assay.select.token_counts import Count

#: Begins the name of a field of the input row.
ROW = "row."

#: The column for which the model's tokenizer is needed.
ANSWER_TOKENS = "answer_tokens"

#: The column that takes longest, unless the languages of these answers were found before.
LANGUAGE = "language"

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_DTYPES = {
    ValueKind.NUMBER: pl.Float64,
    ValueKind.STRING: pl.String,
    ValueKind.BOOLEAN: pl.Boolean,
    ValueKind.ANY: pl.String,
}


#: The letter of a turn in ``roles``, and a pattern of an assistant's message of any kind.
_TURN, _ASSISTANTS = "a", f"[a{CALL}]"
#: What of a record its turns' texts are made of.
_TEXTS = ("roles", "messages")


class _Said(msgspec.Struct):
    content: str | None = None


_DECODE_SAID = msgspec.json.Decoder(list[_Said]).decode
_DECODE_GIVEN = msgspec.json.Decoder(dict[str, float]).decode
_DECODE_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NULL = msgspec.Raw(b"null")
_ENCODE = msgspec.json.Encoder(order="sorted").encode


class PieceData:
    """The scored records of one piece, with the columns that are needed of them."""

    def __init__(
        self,
        file: str,
        records: pl.DataFrame,
        turns: pl.DataFrame,
        languages: Callable[[], pl.DataFrame],
        count_tokens: Mapping[str, Count] = MappingProxyType({}),
    ) -> None:
        """``records`` and ``turns`` are in input order, and every record has at least one turn.

        ``records`` has ``row``, ``turns`` has ``row`` and ``turn``; besides, what the columns need.
        ``languages`` gives row, turn and language of the piece's turns.
        ``count_tokens`` counts as a model's tokenizer does, by the column; a model may have none here.
        """
        self.file = file
        self.records = records
        self.turns = turns
        self.languages = languages
        self.count_tokens = count_tokens

    @cached_property
    def _texts(self) -> list[tuple[str, list[str]]]:
        """Of each record its roles, and the text of each message."""
        records = self.records.select("roles", "messages").iter_rows()
        return [(roles, [one.content or "" for one in _DECODE_SAID(messages)]) for roles, messages in records]

    def answers(self) -> Iterator[tuple[Sequence[str], str]]:
        """Yield, for every turn, the texts of the messages before it, and its own."""
        for roles, texts in self._texts:
            for number, (role, text) in enumerate(zip(roles, texts, strict=True)):
                if role == _TURN:
                    yield texts[:number], text


Compute = Callable[[PieceData], pl.Series]


@dataclass(frozen=True, slots=True)
class Measure:
    """A column and how it is computed of a piece."""

    column: NamedColumn
    about: str
    """What it is, for a person."""
    compute: Compute | None
    """A value for each of ``PieceData.turns`` where ``column.of_turns``, else one for each of its
    ``records``. None: it is made by key (``groups``)."""
    of_records: tuple[str, ...] = ()
    """Columns of ``ConvertedPiece.records`` that are needed."""
    of_turns: tuple[str, ...] = ()
    """Columns of ``ConvertedPiece.turns`` that are needed."""
    of_scores: tuple[str, ...] = ()
    """Columns of ``ScoredPiece.scores`` that are needed."""


def _of_turn(
    name: str, kind: ValueKind, about: str, compute: Compute, of_records: Sequence[str] = (), *of_scores: str
) -> Measure:
    return Measure(
        NamedColumn(name, Scope.TURN, kind), about, compute, of_records=tuple(of_records), of_scores=of_scores
    )


def _of_record(name: str, kind: ValueKind, about: str, compute: Compute, *of_records: str) -> Measure:
    return Measure(
        NamedColumn(name, Scope.RECORD, kind, of_turns=False), about, compute, of_records=of_records
    )


def _roles(piece: PieceData) -> pl.Series:
    return piece.records["roles"]


def _count_of_turns(piece: PieceData) -> pl.Series:
    return _roles(piece).str.count_matches(_TURN, literal=True)


def _count_of_messages(piece: PieceData) -> pl.Series:
    return _roles(piece).str.len_chars()


def _starts_with_assistant(piece: PieceData) -> pl.Series:
    return _roles(piece).str.contains(f"^s*{_ASSISTANTS}")


def _alternates(piece: PieceData) -> pl.Series:
    return ~_roles(piece).str.contains(f"uu|{_ASSISTANTS}{{2}}")


def _source(piece: PieceData) -> pl.Series:
    return pl.Series([piece.file], dtype=pl.String).new_from_index(0, piece.records.height)


def _side(piece: PieceData) -> pl.Series:
    return _field_values(piece.records["rest"], ["assay_side"], ValueKind.STRING)


def _answer_chars(piece: PieceData) -> pl.Series:
    return pl.Series([len(answer) for _, answer in piece.answers()], dtype=pl.UInt32)


def _prompt_chars(piece: PieceData) -> pl.Series:
    counts = [sum(map(len, before)) for before, _ in piece.answers()]
    return pl.Series(counts, dtype=pl.UInt32)


def _language(piece: PieceData) -> pl.Series:
    at = ["row", "turn"]
    return piece.turns.select(at).join(piece.languages(), on=at, how="left", maintain_order="left")[
        "language"
    ]


#: What a rule can name whatever the models are, by name.
COLUMNS: dict[str, Measure] = {
    measure.column.name: measure
    for measure in (
        _of_record("turns", ValueKind.NUMBER, "how many turns the record has", _count_of_turns, "roles"),
        _of_record("messages", ValueKind.NUMBER, "how many messages it has", _count_of_messages, "roles"),
        _of_turn("answer_chars", ValueKind.NUMBER, "characters of the turn's text", _answer_chars, _TEXTS),
        _of_turn(
            "prompt_chars",
            ValueKind.NUMBER,
            "characters of the texts before the turn",
            _prompt_chars,
            _TEXTS,
        ),
        _of_turn(
            LANGUAGE,
            ValueKind.STRING,
            "the language of the turn's text, such as 'en'",
            _language,
        ),
        _of_record("source", ValueKind.STRING, "the input file, as it was named", _source),
        _of_record("side", ValueKind.STRING, "'chosen' or 'rejected', as the row came", _side, "rest"),
        _of_record(
            "starts_with_assistant",
            ValueKind.BOOLEAN,
            "whether the first message behind system messages is an assistant's",
            _starts_with_assistant,
            "roles",
        ),
        _of_record(
            "alternates",
            ValueKind.BOOLEAN,
            "whether no user's message follows a user's, and no assistant's an assistant's",
            _alternates,
            "roles",
        ),
        Measure(NamedColumn("group_size", Scope.GROUP), "how many answers the turn's group has", None),
    )
}


def _stored(kind: ValueKind, about: str) -> Callable[[str], Measure]:
    """Makes a column that was stored under its own name while turns were scored."""
    return lambda name: _of_turn(name, kind, about, lambda piece: piece.turns[name], (), name)


def _answer_tokens(name: str) -> Measure:
    def counts(piece: PieceData) -> pl.Series:
        answers = [answer for _, answer in piece.answers()]
        count = piece.count_tokens.get(name)
        return pl.Series([None] * len(answers) if count is None else count(answers), dtype=pl.UInt32)

    about = "tokens of the turn's text alone, as the model's tokenizer counts them"
    return _of_turn(name, ValueKind.NUMBER, about, counts, _TEXTS)


#: What a rule can name of a model besides its numbers: makes the column that has this name in full, which
#: begins with the model's where there are several.
COLUMNS_OF_MODELS: dict[str, Callable[[str], Measure]] = {
    "tokens": _stored(
        ValueKind.NUMBER, "tokens through the turn, as the model's tokenizer counted them when it scored"
    ),
    ANSWER_TOKENS: _answer_tokens,
    **dict.fromkeys(FLAGS, _stored(ValueKind.BOOLEAN, "a warning of the model")),
}


def attribute(name: str) -> Measure:
    """The column of a score."""
    return Measure(
        NamedColumn(name, Scope.TURN, is_float32=True),
        "a score",
        lambda piece: piece.turns[name],
        of_scores=(name,),
    )


def field(name: str, kind: ValueKind) -> Measure:
    """The column of a row's field, ``row.FIELD``, as numbers, strings, or true and false.

    A value of another kind is missing. As ``ValueKind.ANY`` it is the value's JSON, for who compares it with
    itself.
    """
    path = name.removeprefix(ROW).split(".")
    return _of_record(
        name,
        kind,
        "a field of the input row",
        lambda piece: _field_values(piece.records["rest"], path, kind),
        "rest",
    )


def groups_of(rest: pl.Series, field_of_group: str) -> list[str | None]:
    """Of each record what ``--group row.FIELD`` compares: the field's value as JSON; None without one.

    ``rest`` is that of ``ConvertedPiece``'s records.
    """
    path = field_of_group.removeprefix(ROW).split(".")
    return _field_values(rest, path, ValueKind.ANY).to_list()


def given(name: str) -> Measure:
    """The column of a number that people gave a turn, ``given.NAME``."""

    def values(piece: PieceData) -> pl.Series:
        found = [None if text is None else _DECODE_GIVEN(text).get(name) for text in piece.turns["given"]]
        return pl.Series(found, dtype=pl.Float64)

    return Measure(
        NamedColumn(name, Scope.TURN), "a number that people gave the turn", values, of_turns=("given",)
    )


def _field_values(rests: pl.Series, path: Sequence[str], kind: ValueKind) -> pl.Series:
    decoder = msgspec.json.Decoder(
        msgspec.defstruct("Rest", [("first", object, None)], rename={"first": path[0]})
    )
    found = []
    for rest in rests:
        try:
            value: Json = None if rest is None else decoder.decode(rest).first  # type: ignore[attr-defined]
        except msgspec.ValidationError:
            found.append(_as(_value_among_others(rest, path), kind))
            continue
        for name in path[1:]:
            value = value.get(name) if isinstance(value, dict) else None
        found.append(_as(value, kind))
    return pl.Series(found, dtype=_DTYPES[kind])


def _value_among_others(rest: str, path: Sequence[str]) -> Json:
    """The value of the field beside a number that no float holds; None where it is that number."""
    raw = msgspec.Raw(rest.encode())
    try:
        for name in path:
            raw = _DECODE_FIELDS(raw).get(name, _NULL)
        value: Json = msgspec.json.decode(raw)
    except msgspec.ValidationError:
        return None
    return value


def texts_of(roles: str, messages: str, over: Over) -> str:
    """The text of a record's last ``answer``, of the ``prompt`` before it, or of the ``whole`` through it.

    ``roles`` and ``messages`` are as ``ConvertedPiece`` has them, and there is a turn.
    """
    texts = [one.content or "" for one in _DECODE_SAID(messages)]
    last = roles.rindex(_TURN)
    chosen = {"answer": texts[last : last + 1], "prompt": texts[:last], "whole": texts[: last + 1]}[over]
    return "\n".join(chosen)


def fields_of(rest: str) -> list[str]:
    """The names of a row's fields, from ``ConvertedPiece``'s ``rest``."""
    return list(_DECODE_FIELDS(rest))


def _as(value: Json, kind: ValueKind) -> float | str | bool | None:
    """The value, where it is of the kind; None for any other, and for a number that is not finite."""
    match kind:
        case ValueKind.NUMBER if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                return None
            return number if math.isfinite(number) else None
        case ValueKind.STRING if isinstance(value, str):
            return value
        case ValueKind.BOOLEAN if isinstance(value, bool):
            return value
        case ValueKind.ANY if value is not None:
            return _ENCODE(value).decode()
    return None
