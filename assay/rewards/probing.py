"""Which messages a chat template shows: it writes conversations of which every word is known.

A score of a text that the model never saw is a number about something else. A template that leaves out what
a user or the assistant says is refused. One that leaves out system messages, tool results, or messages in
unusual places is right for all other conversations; those that hold such messages are marked
(``schema.UNSEEN_TEXT``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from assay.core.errors import UserMistake
from assay.core.schema import Message
from assay.rewards.templates import ChatTemplate, Refused, template_in

#: Words of a message. They make 8,000 characters: a template that cuts shorter texts is found out.
_WORDS = 1000
_WORD = re.compile(r"q[a-z]\d{4}z")

_EXCHANGE = ("user", "assistant")

#: Conversations as nearly all are. Some templates want a system message, some want none.
_PLAIN = (
    _EXCHANGE,
    ("system", *_EXCHANGE),
    _EXCHANGE * 4,
    ("system", *_EXCHANGE * 4),
)

#: What a template writes that was made for contents in parts, as models that also take images have them.
_READS_PARTS = re.compile(r"""\.text\b|\[\s*['"]text['"]\s*\]""")


@dataclass(frozen=True, slots=True)
class _Kind:
    """Messages that a template may leave out though it shows the others."""

    name: str
    """In the plural, as a person reads it."""
    roles: tuple[str, ...]
    """A conversation with one."""
    is_at: Callable[[Sequence[str], int], bool]
    """Whether the message at this place, in a conversation of these roles, is of this kind."""


_KINDS = (
    _Kind(
        "system messages at the beginning",
        ("system", *_EXCHANGE),
        lambda roles, place: roles[place] == "system" and place == 0,
    ),
    _Kind(
        "later system messages",
        (*_EXCHANGE, "system", *_EXCHANGE),
        lambda roles, place: roles[place] == "system" and place > 0,
    ),
    _Kind(
        "tool messages",
        (*_EXCHANGE, "tool", "assistant"),
        lambda roles, place: roles[place] == "tool",
    ),
    _Kind(
        "assistant messages before any user's",
        ("assistant", *_EXCHANGE),
        lambda roles, place: roles[place] == "assistant" and "user" not in roles[:place],
    ),
    _Kind(
        "one of two user messages in a row",
        ("user", *_EXCHANGE),
        lambda roles, place: place > 0 and roles[place] == roles[place - 1] == "user",
    ),
    _Kind(
        "one of two assistant messages in a row",
        (*_EXCHANGE, "assistant"),
        lambda roles, place: place > 0 and roles[place] == roles[place - 1] == "assistant",
    ),
)


#: How Python shows an object that has no text of its own.
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a template was seen to show."""

    refusal: str | None
    """Why no score can be made with it; None where one can."""
    unseen: tuple[str, ...] = ()
    """Kinds of messages that it leaves out, whole or in part: for ``unseen_by_turn``, and for people."""


def probed(template: ChatTemplate) -> Shown:
    """What the template shows. A kind of messages that it raises for is not left out: those get no score."""
    conversations = (*_PLAIN, *(kind.roles for kind in _KINDS))
    chats = [
        tuple(Message(role, _text(place)) for place, role in enumerate(roles)) for roles in conversations
    ]
    texts = []
    for chat in chats:
        texts.append(text := template.text(chat))
        if isinstance(text, Refused) and text.beyond_limits:
            return Shown(f"its chat template is stopped at a conversation of a few messages: {text.words}")
        if isinstance(text, str) and (address := _ADDRESS.search(text)):
            return Shown(
                f"its chat template writes where something lies in memory ({address[0]}), so a conversation "
                "would have another score in every process"
            )
    plain, special = texts[: len(_PLAIN)], texts[len(_PLAIN) :]
    if isinstance(plain[0], Refused) and all(isinstance(text, Refused) for text in plain):
        return Shown(
            "its chat template refuses the plainest conversation, of a question and an answer: "
            f"{plain[0].words}"
        )
    for roles, text in zip(_PLAIN, plain, strict=True):
        hidden = [place for place in _left_out(roles, text) if roles[place] != "system"]
        if hidden:
            return Shown(_not_shown(template, roles, hidden))
    unseen = [kind.name for kind, text in zip(_KINDS, special, strict=True) if _left_out(kind.roles, text)]
    return Shown(None, tuple(unseen))


def unseen_in(name: str, folder: Path) -> tuple[str, ...] | None:
    """The kinds of messages that the template in a model's folder leaves out; None where that is not known.

    It is not known where there is no template, and where the template uses a special token that the files do
    not name: transformers may know it from the tokenizer's class, so opening the model is left to judge it.
    ``UserMistake`` where no score can be made with it.
    """
    template = template_in(folder)
    if template is None:
        return None
    shown = probed(template)
    if shown.refusal is not None:
        if any(name in template.source for name, text in template.tokens if not text):
            return None
        raise UserMistake(f"model {name}: {shown.refusal}")
    return shown.unseen


def unseen_by_turn(roles: Sequence[str], unseen: Sequence[str]) -> list[bool]:
    """For each turn of a conversation, whether a message up to it is of a kind that is ``unseen``."""
    kinds = [kind for kind in _KINDS if kind.name in unseen]
    found = False
    by_turn = []
    for place, role in enumerate(roles):
        found = found or any(kind.is_at(roles, place) for kind in kinds)
        if role == "assistant":
            by_turn.append(found)
    return by_turn


@cache
def _text(place: int) -> str:
    """A text whose words are in no other message: lines and paragraphs, with a colon here and there."""
    words = _words(place)
    lines = [" ".join(words[start : start + 10]) + "." for start in range(0, len(words), 10)]
    paragraphs = ["\n".join(lines[start : start + 5]) for start in range(0, len(lines), 5)]
    return ":\n\n".join(paragraphs)


@cache
def _words(place: int) -> tuple[str, ...]:
    return tuple(f"q{chr(ord('a') + place)}{number:04}z" for number in range(_WORDS))


def _left_out(roles: Sequence[str], text: str | Refused) -> list[int]:
    """The messages of which some word is not in the text, in whatever case; of a refusal, none."""
    if isinstance(text, Refused):
        return []
    written = set(_WORD.findall(text.casefold()))
    return [place for place in range(len(roles)) if not written.issuperset(_words(place))]


def _not_shown(template: ChatTemplate, roles: Sequence[str], hidden: Sequence[int]) -> str:
    which = ", ".join(f"{place + 1} ({roles[place]})" for place in hidden)
    advice = (
        "it reads a message as a list of parts, and here a message is a text"
        if _READS_PARTS.search(template.source)
        else "different conversations would get the same score"
    )
    return (
        f"its chat template does not show the whole text of message {which} of {len(roles)}: {advice}; put "
        "the one that the model was trained with into chat_template.jinja"
    )
