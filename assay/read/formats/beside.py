"""What may stand beside the messages in a row of any format: system text, history, pictures.

Every format's records go through ``reading_of``, so that nothing of this depends on the format.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
from msgspec import Raw

from assay.core.labels import label_from_ratings, parse_label
from assay.core.reasoning import holds_reasoning
from assay.core.schema import ATTRIBUTES, Message, message_with, roles_of
from assay.read.formats.names import Names
from assay.read.formats.prompts import CONTEXT_FIELDS, is_transcript, transcript
from assay.read.formats.ratings import given_in
from assay.read.formats.reading import (
    Draft,
    More,
    Nameless,
    Reading,
    Row,
    Unreadable,
    chat_in,
    decoded,
    is_asked,
    is_blank,
    kind_of,
    on_one_line,
)
from assay.read.formats.row_tools import with_tools
from assay.read.formats.tools import TOOL_FIELDS

#: Fields that hold a system text. ``custom_instructions`` is SmolLM3's.
SYSTEM_FIELDS = (
    "system",
    "system_prompt",
    "system_message",
    "system_instruction",
    "systemprompt",
    "systeminstruction",
    "sys_prompt",
    "custom_instructions",
)
#: SmolTalk2 keeps its system text inside this field.
TEMPLATE_FIELD = "chat_template_kwargs"
_IN_TEMPLATE = ("custom_instructions", "system_message")
HISTORY_FIELDS = (
    "history",
    "chat_history",
    "conversation_history",
    "dialogue_history",
    "dialog_history",
)
#: Before another prompt field, messages in one of these are a history too.
_EARLIER_FIELDS = ("context", "context_messages", "trajectory")
#: Fields of pictures and the like. A model that rates text cannot see them.
MEDIA_FIELDS = tuple(
    f"{kind}{ending}"
    for kind in ("image", "video", "audio")
    for ending in ("", "s", "_path", "_paths", "_url", "_urls", "_file", "_files")
)
#: Fields that hold the reasoning of the one answer of a row. ``reasoning`` may be a switch: ``"on"``.
THOUGHT_FIELDS = ("reasoning_content", "thinking")
#: All of them. A null in one of these means that the row has none.
BESIDE_FIELDS = frozenset({*SYSTEM_FIELDS, *HISTORY_FIELDS, *_EARLIER_FIELDS, *CONTEXT_FIELDS, *MEDIA_FIELDS})

_DECODE_ROW = msgspec.json.Decoder(Row).decode
_DECODE_TEXT = msgspec.json.Decoder(str).decode
_DECODE_ENTRIES = msgspec.json.Decoder(list[Raw]).decode
_DECODE_PAIR = msgspec.json.Decoder(list[str | None]).decode
_ENCODE = msgspec.json.Encoder().encode
_SYSTEM_PARTS = ("content", "text", "parts", "value")
_SCORES = ("score", "rating", "overall_score", "reward")
_NOTHING = (b'""', b"[]", b"{}", b"[null]")


@dataclass(frozen=True, slots=True)
class Beside:
    """Which of these fields the rows of one shape have."""

    systems: tuple[str, ...]
    template: bool
    histories: tuple[str, ...]
    media: tuple[str, ...]
    ratings: tuple[str, ...]
    scores: tuple[str, ...]
    tools: tuple[str, ...]
    thoughts: tuple[str, ...]

    @classmethod
    def of(cls, names: Collection[str]) -> Beside:
        """Those among the names of a row's fields."""

        def among(known: Iterable[str]) -> tuple[str, ...]:
            return tuple(name for name in known if name in names)

        return cls(
            among(SYSTEM_FIELDS),
            TEMPLATE_FIELD in names,
            among((*HISTORY_FIELDS, *_EARLIER_FIELDS)),
            among(MEDIA_FIELDS),
            among(ATTRIBUTES),
            among(_SCORES),
            among(TOOL_FIELDS),
            among(THOUGHT_FIELDS),
        )


NOTHING_BESIDE = Beside((), False, (), (), (), (), (), ())


def with_beside(row: Row, beside: Beside, found: Sequence[Draft], names: Names) -> list[Draft]:
    """The records with all that stands beside their messages."""
    if picture := _picture(row, beside.media):
        return [Draft([], problem=f"not_text: the row has something in {picture!r}")]
    systems, used = _systems(row, beside, names, taken=found[0].used if found else ())
    ratings = given_in(row, beside.ratings) if len(found) == 1 else {}
    is_one_answer = len(found) == 1 and found[0].is_answer
    scores = given_in(row, beside.scores) if is_one_answer else {}

    def complete(one: Draft) -> Draft:
        if one.problem is not None:
            return one
        one = _with_system(_with_history(row, beside, one, names), systems, used)
        if is_one_answer:
            one = _with_thought(one, row, beside.thoughts)
        # The system message may show the tools.
        return with_tools(_rated(one, ratings, scores), row, beside.tools)

    return [complete(one) for one in found]


def _picture(row: Row, fields: Iterable[str]) -> str | None:
    """The first of the fields that is not empty."""
    for name in fields:
        value = bytes(row[name])
        if value[:1] in (b'"', b"[", b"{") and not _holds_nothing(value):
            return name
    return None


def _holds_nothing(value: bytes) -> bool:
    """Whether all that is in the value is null or blank."""
    left = [msgspec.json.decode(value)]
    while left:
        one = left.pop()
        if isinstance(one, list):
            left += one
        elif isinstance(one, dict):
            left += one.values()
        elif one is not None and not (isinstance(one, str) and is_blank(one)):
            return False
    return True


def _systems(row: Row, beside: Beside, names: Names, *, taken: Collection[str]) -> tuple[list[str], set[str]]:
    """The system texts beside the messages, each once, and the fields that hold nothing else.

    Fields that are ``taken`` are the format's own.
    """
    texts: list[str] = []
    used: set[str] = set()
    for name in beside.systems:
        if name not in taken and (text := _system_in(row, name, names)) is not None:
            texts.append(text)
            # An object may hold more than the text, and is carried along too.
            if not bytes(row[name]).lstrip(b"[ \n").startswith(b"{"):
                used.add(name)
    if beside.template and kind_of(row, TEMPLATE_FIELD) == "{":
        inside = _DECODE_ROW(row[TEMPLATE_FIELD])
        texts += [text for name in _IN_TEMPLATE if (text := _system_in(inside, name, names)) is not None]
    return [text for text in dict.fromkeys(texts) if not is_blank(text)], used


def _system_in(row: Row, field: str, names: Names) -> str | None:
    """The text in a system field, blank where it is null; None where it holds no text at all."""
    kind = kind_of(row, field)
    if kind == "n":
        return ""
    if kind == '"':
        return decoded(row, field, _DECODE_TEXT)
    if kind == "[":
        return _joined(row, field, names)
    if kind != "{":
        return None
    inside = _DECODE_ROW(row[field])
    part = next((name for name in _SYSTEM_PARTS if name in inside), None)
    return None if part is None else _system_in(inside, part, names)


def _joined(row: Row, field: str, names: Names) -> str | None:
    """The text of a list of text parts or of messages."""
    parts = _DECODE_ENTRIES(row[field])
    if any(bytes(part)[:1] not in (b'"', b"{") for part in parts):
        raise Unreadable(f"wrong_type: in {field!r}: a list of something else than texts")
    message = {"messages": Raw(_ENCODE([{"role": "system", "content": row[field]}]))}
    if (
        parts
        and bytes(parts[0])[:1] == b"{"
        and not _DECODE_ROW(parts[0]).keys().isdisjoint({"role", "from"})
    ):
        return "\n\n".join(one.content for one in chat_in(row, field, names))
    return chat_in(message, "messages", names)[0].content


def _with_system(found: Draft, systems: Sequence[str], used: Collection[str]) -> Draft:
    if not used and not systems:
        return found
    there = {message.content.strip() for message in found.messages if message.role == "system"}
    new = [Message("system", text) for text in systems if text.strip() not in there]
    if not new:
        return found._replace(used={*found.used, *used})
    return _inserted(found, 0, new, used)


def _inserted(found: Draft, place: int, new: list[Message], used: Collection[str]) -> Draft:
    """The record with messages of no label inserted at ``place``."""
    nothing: list[None] = [None] * len(new)
    labels, every = found.labels, found.every_given
    return found._replace(
        messages=[*found.messages[:place], *new, *found.messages[place:]],
        used={*found.used, *used},
        labels=None if labels is None else [*labels[:place], *nothing, *labels[place:]],
        every_given=None if every is None else [*every[:place], *nothing, *every[place:]],
    )


def _with_history(row: Row, beside: Beside, found: Draft, names: Names) -> Draft:
    """The record with what was said before it; a problem where an answer is left without any question."""
    for name in beside.histories:
        if name in found.used:
            continue
        try:
            earlier = _history(row, name, found, names)
        except (_NothingSaid, Nameless) as error:
            if found.is_answer:
                return Draft([], problem=str(error))
            # Beside a whole conversation it is a field like any other.
            continue
        except Unreadable as error:
            return Draft([], problem=str(error))
        roles = roles_of(found.messages)
        place = len(roles) - len(roles.lstrip("s"))
        if earlier is None:
            continue
        if found.messages[place : place + len(earlier)] == earlier:
            found = found._replace(used={*found.used, name})
            continue
        found = _inserted(found, place, earlier, {name})._replace(nemo_prompt=None)
    return found


class _NothingSaid(Unreadable):
    """The value is of another type than what somebody says."""


def _history(row: Row, field: str, found: Draft, names: Names) -> list[Message] | None:
    """The messages in ``field``; None where it is a text that belongs to the question, or no history.

    Unreadable where it cannot be known who says what in it.
    """
    kind = kind_of(row, field)
    if kind == "n" or bytes(row[field]) in _NOTHING:
        return []
    if kind == '"':
        text = decoded(row, field, _DECODE_TEXT)
        if is_blank(text):
            return []
        if field not in HISTORY_FIELDS:
            return None
        if is_transcript(text):
            return transcript(text, names)
        return _post(found, text, field)
    if kind != "[":
        raise _NothingSaid(f"wrong_type: {field!r} is neither messages nor pairs of texts")
    entries = _DECODE_ENTRIES(row[field])
    kinds = {chr(bytes(entry)[0]) for entry in entries}
    if kinds == {"{"}:
        return chat_in(row, field, names)
    if field in HISTORY_FIELDS and kinds == {"["}:
        return [message for entry in entries for message in _pair(entry, field)]
    if field in HISTORY_FIELDS and kinds == {'"'} and len(entries) % 2 == 0:
        return _pair(row[field], field)
    if field in HISTORY_FIELDS and '"' in kinds:
        raise Unreadable(f"wrong_type: {field!r} is neither messages nor pairs of texts")
    if field in HISTORY_FIELDS:
        raise _NothingSaid(f"wrong_type: {field!r} is neither messages nor pairs of texts")
    return None


def _post(found: Draft, text: str, field: str) -> list[Message]:
    """A history of one text: SHP's question. Beside another question nobody can know who speaks in it."""
    if "u" in roles_of(found.messages):
        raise Unreadable(
            f"wrong_type: {field!r} is a text, so its speakers are not known; write it as messages, or "
            "rename the field if nobody says it"
        )
    return [Message("user", text)]


def _pair(entry: Raw, field: str) -> list[Message]:
    """The messages of question, answer, question, …; a null one is left out, as LLaMA-Factory leaves it."""
    try:
        texts = _DECODE_PAIR(entry)
    except msgspec.DecodeError as error:
        fault = Unreadable if b'"' in bytes(entry) else _NothingSaid
        raise fault(f"wrong_type: in {field!r}: {error}") from error
    roles = ("user", "assistant")
    return [Message(roles[place % 2], text) for place, text in enumerate(texts) if text]


def _with_thought(found: Draft, row: Row, fields: Iterable[str]) -> Draft:
    """The record with the reasoning that stands beside its answer, in the answer's message."""
    answer = found.messages[-1] if found.messages else None
    if answer is None or answer.role != "assistant" or holds_reasoning(answer):
        return found
    for name in fields:
        if kind_of(row, name) == '"' and not is_blank(text := decoded(row, name, _DECODE_TEXT)):
            before = answer.fields
            after = (
                replace(before, thinking=text)
                if name == "thinking"
                else replace(before, reasoning_content=text)
            )
            thinking = message_with("assistant", answer.content, after)
            return found._replace(messages=[*found.messages[:-1], thinking], used={*found.used, name})
    return found


def _rated(found: Draft, ratings: Mapping[str, float], scores: Mapping[str, float]) -> Draft:
    """The record with what the row holds for its last turn; the ratings are its label too."""
    if not found.messages or found.messages[-1].role != "assistant":
        return found
    if scores:
        found = found._replace(given={**scores, **found.given})
    if not ratings:
        return found
    labels = found.labels or [None] * len(found.messages)
    label = labels[-1] or label_from_ratings(ratings)
    return found._replace(labels=[*labels[:-1], label], given={**ratings, **found.given})


def reading_of(row: Row, found: Draft, originals: Mapping[str, str], carried: Row) -> Reading:
    """The record as it is written: what is not in its messages is carried along.

    ``originals`` has the names in the input of fields that are read under another name. ``carried`` are
    fields that the format does not see.
    """
    messages, used, added = found.messages, found.used, found.added
    if found.problem is not None:
        return Reading([], problem=found.problem)
    if found.is_answer and messages and not is_asked(messages):
        return Reading([], problem=_NOT_ASKED)
    others = {name: value for name, value in row.items() if name not in used}
    if originals:
        others = {originals.get(name, name): value for name, value in others.items()}
    if carried or added:
        others = {**others, **carried, **added}
    has_given = found.given or found.labels or found.every_given
    return Reading(
        messages,
        found.labels,
        on_one_line(others) if others else None,
        None,
        found.drop,
        _more(found) if has_given or found.nemo_prompt is not None or found.left_out else None,
        found.tools,
    )


def _more(found: Draft) -> More:
    return More(_given(found), found.nemo_prompt, found.left_out)


_NOT_ASKED = (
    "missing_prompt: an answer without the question that it answers; name the field that "
    "holds it: --map 'FIELD=prompt'"
)


def _given(found: Draft) -> list[Mapping[str, float] | None] | None:
    """What people gave each message: the numbers of its label, or the more exact ones of the format."""
    given = found.every_given or [_numbers(label) for label in found.labels or [None] * len(found.messages)]
    if found.given and found.messages[-1].role == "assistant":
        given = [*given[:-1], found.given]
    return given if any(given) else None


def _numbers(label: str | None) -> Mapping[str, float] | None:
    if not label:
        return None
    try:
        return {name: float(value) for name, value in parse_label(label).items()}
    except ValueError:
        return None
