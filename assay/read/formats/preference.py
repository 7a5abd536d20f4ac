"""``preference``: ``chosen`` and ``rejected`` answers, one record each.

A side is one of these:

- a list of messages, which begins with the prompt, or is only the answer to a prompt field;
- one message;
- an answer's text beside a prompt;
- an HH transcript (``\\n\\nHuman: …\\n\\nAssistant: …``), or one of NeMo-Aligner: a text that begins as one;
- a list of texts: several answers, as in RM-Bench.

The fields may also be ``chosen_response`` (Argilla, NeMo-Aligner) or ``chosen_messages``, and the like for
``rejected``, or OpenAI's ``preferred_output`` and ``non_preferred_output``. In ms-swift's rows ``messages``,
or ``response`` beside a prompt, are the chosen side, and ``rejected_response`` or ``rejected_messages`` the
other one.

The chosen answers come first. ``rest`` holds ``"assay_side": "chosen"`` or ``"rejected"``. Where a side holds
the prompt itself, a ``prompt`` field is carried along. A side that is an answer without a prompt is refused.

Policy: messages are kept as given, also with a system message in the middle, an assistant first, or the same
role twice. Empty or null content quarantines only the record of that side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from assay.core.schema import CALL, Message, roles_of
from assay.read.formats.names import Names
from assay.read.formats.prompts import (
    PROMPT_FIELDS,
    Prompt,
    is_transcript,
    messages_in,
    prompt_field,
    prompt_of,
    transcript,
)
from assay.read.formats.ratings import number_in
from assay.read.formats.reading import (
    Draft,
    Format,
    MissingField,
    Row,
    Unreadable,
    decoded,
    is_asked,
    kind_of,
)
from assay.read.formats.sides import CHOSEN, REJECTED, Side

_MARKS = {"chosen": CHOSEN, "rejected": REJECTED}
#: What the two sides may be called.
_PAIRS = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("chosen_messages", "rejected_messages"),
    ("preferred_output", "non_preferred_output"),
)
#: ms-swift's rejected sides, beside a chosen one that is ``messages`` or an answer.
_REJECTED_ALONE = ("rejected_response", "rejected_messages")
_CHOSEN_ALONE = ("response", "output", "completion", "answer", "messages")
_KEYS = (
    *(frozenset(pair) for pair in _PAIRS),
    *(frozenset((chosen, rejected)) for rejected in _REJECTED_ALONE for chosen in _CHOSEN_ALONE),
)
#: Fields that may hold the whole conversation, of which a side replaces the last answer.
_WHOLE = ("messages", "conversations", "conversation")
#: A number for each side, by the patterns of its name, and what it gives.
_GIVEN = {
    pattern: what for what in ("score", "rating", "reward") for pattern in (f"{what}_{{}}", f"{{}}_{what}")
} | {"{}_avg_rating": "rating"}
_OF_BOTH = ("margin", "preference_strength", "strength")
_BESIDE = frozenset(
    {*_OF_BOTH, *PROMPT_FIELDS, *(pattern.format(side) for pattern in _GIVEN for side in _MARKS)}
)

_DECODE_TEXTS = msgspec.json.Decoder(list[str]).decode
_DECODE_TEXT = msgspec.json.Decoder(str).decode


class _Sides(NamedTuple):
    fields: Mapping[Side, str]
    prompt: Prompt | None


def read(row: Row, names: Names) -> list[Draft]:
    """One record per answer, the chosen ones first."""
    fields, prompt = _sides(row, names)
    found: list[Draft] = []
    for side, field in fields.items():
        given = _given(row, side)
        try:
            found += [
                one._replace(used={*one.used, *fields.values()}, added=_MARKS[side], given=given)
                for one in _answers(row, field, prompt, names)
            ]
        except Unreadable as error:
            found.append(Draft([], problem=str(error)))
    return found


def _sides(row: Row, names: Names) -> _Sides:
    """The fields of the two sides, and the prompt that both answer."""
    for chosen, rejected in _PAIRS:
        if chosen in row and rejected in row:
            break
    else:
        alone = next((name for name in _REJECTED_ALONE if name in row), None)
        field = next((name for name in _CHOSEN_ALONE if name in row), None)
        if alone is None or field is None:
            raise MissingField("chosen" if "rejected" in row else "rejected")
        chosen, rejected = field, alone
    apart = {name: value for name, value in row.items() if name not in (chosen, rejected)}
    field = prompt_field(apart)
    fields: dict[Side, str] = {"chosen": chosen, "rejected": rejected}
    if field is not None:
        prompt = prompt_of(apart, field, names)
        return _Sides(fields, _without_last_answer(prompt) if field in _WHOLE else prompt)
    if chosen != "messages":
        return _Sides(fields, None)
    # What the rejected answer answers is the chosen conversation without its answer, which stays a side.
    before = _without_last_answer(Prompt(messages_in(row, chosen, "user", names), frozenset()))
    return _Sides(fields, before._replace(used=frozenset()))


def _without_last_answer(prompt: Prompt) -> Prompt:
    """The prompt without the answer that it ends with; its field is then carried along whole."""
    if len(prompt.messages) < 2 or prompt.messages[-1].role != "assistant":
        return prompt
    return Prompt(prompt.messages[:-1], frozenset())


def _given(row: Row, side: Side) -> dict[str, float]:
    """The numbers that the row holds for this side, and those for both."""
    named = {pattern.format(side): what for pattern, what in _GIVEN.items()}
    named |= {name: name for name in _OF_BOTH}
    return {
        what: number
        for name, what in named.items()
        if name in row and (number := number_in(row[name])) is not None
    }


def _answers(row: Row, field: str, prompt: Prompt | None, names: Names) -> Iterator[Draft]:
    """Yield the record of every answer of a side."""
    kind = kind_of(row, field)
    if kind == "[" and bytes(row[field])[1:].lstrip().startswith(b'"'):
        for text in _texts(row, field):
            yield _after(prompt, _from_text(text, prompt, names))
    elif kind == '"':
        yield _after(prompt, _from_text(decoded(row, field, _DECODE_TEXT), prompt, names))
    else:
        yield _after(prompt, messages_in(row, field, "assistant", names))


def _texts(row: Row, field: str) -> list[str]:
    try:
        return _DECODE_TEXTS(row[field])
    except msgspec.DecodeError as error:
        raise Unreadable(f"wrong_type: in {field!r}: texts and other things in one list") from error


def _from_text(text: str, prompt: Prompt | None, names: Names) -> list[Message]:
    messages = transcript(text, names) if prompt is None or is_transcript(text) else []
    # An answer may begin with "Human:" too. A transcript also ends with an answer.
    if prompt is not None and (not messages or messages[-1].role != "assistant"):
        return [Message("assistant", text)]
    return messages


def _after(prompt: Prompt | None, side: list[Message]) -> Draft:
    """A side's record. A prompt goes before an answer, not before a whole conversation."""
    roles = roles_of(side)
    if is_asked(side) and (prompt is None or roles.lstrip("s")[:1] not in ("a", CALL)):
        return Draft(side)
    if prompt is None:
        return Draft(side, is_answer=True)
    systems = len(roles) - len(roles.lstrip("s"))
    found = prompt.with_answer(side[systems:])
    return found._replace(messages=side[:systems] + found.messages)


def fits(row: Row) -> bool:
    """Whether there are no more candidates than the two sides, as in SimPO's rows."""
    return kind_of(row, "all_generated_responses") != "["


PREFERENCE = Format("preference", _KEYS, fits, read, beside=_BESIDE)
