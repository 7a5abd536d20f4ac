"""Answers in a field of their own: a list of rival ones, or one, each with what else its object holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw

from assay.core.schema import REASONING_FIELDS, Message, MessageFields, message_with
from assay.read.formats.names import Names
from assay.read.formats.prompts import Prompt, messages_in
from assay.read.formats.ratings import RATINGS, given_in, number_in
from assay.read.formats.reading import Draft, Row, Unreadable, decoded, kind_of
from assay.read.formats.tools import NoCalls, calls_in

#: Fields that hold a list of rival answers. ``answers`` is Nectar's, ``all_generated_responses`` SimPO's,
#: ``choices`` that of OpenAI's replies.
LISTS = (
    "all_generated_responses",
    "responses",
    "completions",
    "generations",
    "outputs",
    "answers",
    "choices",
)
#: Those that hold references or options where the row also has an answer of its own: SQuAD's, a quiz's.
_REFERENCES = ("answers", "choices")
#: Fields that hold one answer.
SINGLE = ("response", "output", "completion", "answer", "generation")
#: Fields of a row that hold a number for each of its answers, in their order, and what each gives.
PARALLEL: Mapping[str, str] = {
    "scores": "score",
    "ratings": "rating",
    "rewards": "reward",
    "ranks": "rank",
    "all_rm_scores": "rm_score",
}

#: What begins an answer: a text, messages, or an object that holds either.
_ANSWER_KINDS = frozenset('"[{')
_TEXTS = (
    "response",
    "completion",
    "content",
    "text",
    "output",
    "generation",
    "answer",
    "message",
    "generated_text",
)
_ROLE_FIELDS = frozenset({"role", "from"})
_CONTENTS = ("content", "text")
#: All that an object holds that is a call.
_OF_CALLS = frozenset({"name", "arguments", "id", "type"})
#: What templates show of an answer beside its content.
_OF_MESSAGE = (*REASONING_FIELDS, "tool_calls", "function_call", "tool_call_id", "name")

_DECODE_ANSWERS = msgspec.json.Decoder(list[Raw] | None).decode
_DECODE_ROW = msgspec.json.Decoder(Row).decode
_ENCODE = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """One answer, or why it cannot be read."""

    messages: list[Message]
    added: Mapping[str, Raw] = {}
    given: Mapping[str, float] = {}
    problem: str | None = None


def list_field(row: Row) -> str | None:
    """The field that holds a list of rival answers, or a text that is the only one; None where none does."""
    for name in LISTS:
        if kind_of(row, name) == "[" and not _is_of_references(row, name):
            return name
    if not row.keys().isdisjoint(SINGLE):
        return None
    return next((name for name in LISTS if kind_of(row, name) == '"' and name not in _REFERENCES), None)


def answer_field(row: Row) -> str | None:
    """The field that holds a list of rival answers, or else one answer; None where none does."""
    return list_field(row) or next((name for name in SINGLE if kind_of(row, name) in _ANSWER_KINDS), None)


def _is_of_references(row: Row, field: str) -> bool:
    """Whether the list is what an answer beside it is measured by, or chosen from, and not rival answers."""
    if field not in _REFERENCES or row.keys().isdisjoint(SINGLE):
        return False
    return not bytes(row[field])[1:].lstrip().startswith(b"{")


def answers_in(row: Row, field: str, names: Names) -> Iterator[Answer]:
    """Yield the answers in a list, or the one in a field of another type."""
    if kind_of(row, field) != "[" or field in SINGLE:
        yield _answer(row, field, names)
        return
    listed = decoded(row, field, _DECODE_ANSWERS) or []
    calls = _calls_in(row[field], listed)
    if calls is not None:
        yield Answer([message_with("assistant", "", MessageFields(tool_calls=calls, content_is="missing"))])
        return
    numbers = {meant: _numbers(row, name, len(listed)) for name, meant in PARALLEL.items() if name in row}
    for place, raw in enumerate(listed):
        try:
            answer = _answer({field: raw}, field, names)
        except Unreadable as error:
            yield Answer([], problem=str(error))
            continue
        beside = {meant: value for meant, values in numbers.items() if (value := values[place]) is not None}
        yield answer._replace(given={**beside, **answer.given}) if beside else answer


def _calls_in(value: Raw, listed: Sequence[Raw]) -> str | None:
    """The calls, where the list holds the calls of one answer (xLAM's data sets), and no rival answers."""
    try:
        fields = [_DECODE_ROW(one).keys() for one in listed]
        if not fields or any(not {"name", "arguments"} <= one <= _OF_CALLS for one in fields):
            return None
        return calls_in(value)
    except (msgspec.DecodeError, NoCalls):
        return None


def _numbers(row: Row, field: str, count: int) -> list[float | None]:
    """A number an answer; none where the field holds something else."""
    try:
        values = _DECODE_ANSWERS(row[field]) or []
    except msgspec.DecodeError:
        values = []
    return [number_in(value) for value in values] if len(values) == count else [None] * count


def _answer(row: Row, field: str, names: Names) -> Answer:
    if kind_of(row, field) != "{":
        return Answer(messages_in(row, field, "assistant", names))
    holder = _DECODE_ROW(row[field])
    inside = next((name for name in _TEXTS if name in holder), None)
    if inside is None:
        raise Unreadable(f"missing_field: an answer has none of {', '.join(_TEXTS)}")
    shown = {name: holder[name] for name in _OF_MESSAGE if name in holder}
    others = {
        name: value
        for name, value in holder.items()
        if name != inside and name not in _ROLE_FIELDS and not (name in shown and inside in _CONTENTS)
    }
    added = {"assay_response": Raw(_ENCODE(others))} if others else {}
    if inside in _CONTENTS and (shown or kind_of(holder, inside) == "["):
        # One message, whose content may be parts: not messages.
        holder = {inside: Raw(_ENCODE({"role": "assistant", "content": holder[inside], **shown}))}
    return Answer(messages_in(holder, inside, "assistant", names), added, given_in(others, RATINGS))


def after(row: Row, prompt: Prompt, field: str, names: Names) -> list[Draft]:
    """A record for each answer in ``field``, after the same prompt."""
    used = prompt.used | {field}
    return [
        prompt.with_answer(answer.messages)._replace(
            used=used, given=answer.given, added=answer.added, problem=answer.problem
        )
        for answer in answers_in(row, field, names)
    ]
