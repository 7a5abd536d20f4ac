"""Messages, conversations, attributes and keys: the types that every other module uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from assay.core.calls import shown_calls, shown_tools
from assay.core.digests import DIGEST_BYTES, running_digest

#: Their first letters differ. A ``roles`` string is made of these letters, and of ``CALL``.
ROLES = ("system", "user", "assistant", "tool")
#: The letter of an assistant message that calls tools and says nothing: context, and no turn.
CALL = "c"

#: The attributes of HelpSteer and OpenAssistant, rated from 0 to 4. Labels list them in this order, which is
#: NeMo-Aligner's (nemo_aligner/data/nlp, ALL_ATTRIBUTES).
ATTRIBUTES = (
    "quality",
    "toxicity",
    "humor",
    "creativity",
    "helpfulness",
    "correctness",
    "coherence",
    "complexity",
    "verbosity",
)

#: The name of a Bradley-Terry model's one number, on that model's own scale.
REWARD = "reward"
#: The name of a sum of attributes, each times its factor. A threshold on it makes sense, as on an attribute.
WEIGHTED_REWARD = "weighted_reward"
#: Results use this name for either of the two above. It is distilabel's name.
SCORE = "score"
#: Begins the names of what people gave a turn, such as ``given.helpfulness``, beside what a model gives it.
GIVEN = "given."

BEYOND_TRAINED_LENGTH = "beyond_trained_length"
OTHER_LANGUAGE = "other_language"
UNSEEN_TEXT = "unseen_text"
WITH_SYSTEM_MESSAGE = "with_system_message"
#: Boolean columns beside the attributes. True means that the score may not be what it seems.
FLAGS = (BEYOND_TRAINED_LENGTH, OTHER_LANGUAGE, UNSEEN_TEXT, WITH_SYSTEM_MESSAGE)

TURN_KEY_BYTES = DIGEST_BYTES


#: Fields that hold an assistant's reasoning, as transformers knows them (chat_template_utils, 5.24).
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
#: What encloses reasoning at the beginning of an answer: DeepSeek-R1's marks, and those of OpenThoughts.
THOUGHT_MARKS = (("<think>", "</think>"), ("<|begin_of_thought|>", "<|end_of_thought|>"))
#: The first character of any text that begins with reasoning, or with white space before it.
MAY_BEGIN_THOUGHT = frozenset("<").union(filter(str.isspace, map(chr, range(0x3001))))
_ENCLOSED = "|".join(rf"{re.escape(opening)}.*?{re.escape(end)}\s*" for opening, end in THOUGHT_MARKS)
#: Reasoning at the beginning of an answer, with the white space around it.
_THOUGHT = re.compile(rf"\s*(?:{_ENCLOSED})+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class MessageFields:
    """What a message holds beside its role and its content. None: it does not hold that."""

    reasoning_content: str | None = None
    thinking: str | None = None
    reasoning: str | None = None
    tool_calls: str | None = None
    """A JSON array of ``{"type": "function", "function": {"name", "arguments"}, "id"}``. Arguments are an
    object, or a text that holds one."""
    tool_call_id: str | None = None
    name: str | None = None
    content_is: Literal["null", "missing"] | None = None
    """What stands in place of a content; ``Message.content`` is empty then."""
    carried: str | None = None
    """All other fields (``weight``, ``train``, ``label`` …) as one JSON object. They are in no template and
    in no key."""


_NO_FIELDS = MessageFields()


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, as in OpenAI's chat format."""

    role: str
    content: str

    @property
    def fields(self) -> MessageFields:
        """What it holds beside these two: nothing, unless it is a ``FullMessage``."""
        return _NO_FIELDS


@dataclass(frozen=True, slots=True)
class FullMessage(Message):
    """A message with fields. Apart, so that one without costs neither time nor memory for them."""

    fields: MessageFields = field()


Conversation = tuple[Message, ...]


def message_with(role: str, content: str, fields: MessageFields) -> Message:
    """The message; one without fields is a plain ``Message``, so that equal messages are equal."""
    return Message(role, content) if fields == _NO_FIELDS else FullMessage(role, content, fields)


def is_call(message: Message) -> bool:
    """Whether an assistant message calls tools and says nothing. Reasoning before the call says nothing.

    >>> is_call(FullMessage("assistant", "", MessageFields(tool_calls="[…]")))
    True
    >>> is_call(Message("assistant", "Let me see."))
    False
    """
    if type(message) is Message or message.fields.tool_calls is None:
        return False
    return not message.content[thought_end(message.content) :].strip()


def thought_end(content: str) -> int:
    """Where an answer begins behind its reasoning (``<think>…</think>``); 0 where it does not begin with any.

    >>> thought_end("<think>2 + 2</think> 4")
    21
    """
    found = _THOUGHT.match(content)
    return 0 if found is None else found.end()


def is_turn(message: Message) -> bool:
    """Whether a reward model rates this message."""
    return message.role == "assistant" and (type(message) is Message or not is_call(message))


def roles_of(messages: Iterable[Message]) -> str:
    """The first letter of each message's role: ``suaua`` for system, user, assistant, user, assistant.

    An assistant's call of tools has the letter ``c``, so that every ``a`` is a turn.

    >>> roles_of([Message("user", "Hi"), Message("assistant", "Hello")])
    'ua'
    """
    return "".join(
        [
            message.role[0] if type(message) is Message or not is_call(message) else CALL
            for message in messages
        ]
    )


def turn_positions(messages: Sequence[Message]) -> list[int]:
    """Indices into ``messages`` of the turns, in order."""
    return [index for index, message in enumerate(messages) if is_turn(message)]


class TurnKey(NamedTuple):
    """The key that a turn's score is stored under, and how much text the score is computed from."""

    key: bytes
    """128-bit hash of the messages through the turn, and of the tools."""
    text_bytes: int
    """UTF-8 bytes of all texts through the turn; its tokens are estimated from this."""
    prompt_key: bytes
    """128-bit hash of the messages before the turn, and of the tools."""


def turn_keys(messages: Iterable[Message], tools: str | None = None) -> list[TurnKey]:
    """The key of every turn. Equal tools and messages up to and including the turn give equal keys.

    ``tools``: a JSON array. Two conversations that differ never feed the hash the same bytes: a length
    precedes each text, and the names of fields and of ``tools`` are no role's.
    """
    running = running_digest()
    update, digest = running.update, running.digest
    text_bytes = 0
    keys: list[TurnKey] = []
    if tools is not None:
        encoded = shown_tools(tools).encode()
        text_bytes += len(encoded)
        update(b"tools:%d:%s" % (len(encoded), encoded))
    for message in messages:
        role, content = message.role, message.content.encode()
        text_bytes += len(content)
        entry = b"%s:%d:%s" % (role.encode(), len(content), content)
        is_rated = role == "assistant"
        if type(message) is not Message:
            more = _key_of_fields(message.fields)
            entry, text_bytes = entry + more, text_bytes + len(more)
            is_rated = is_turn(message)
        if is_rated:
            prompt_key = digest()
            update(entry)
            keys.append(TurnKey(digest(), text_bytes, prompt_key))
        else:
            update(entry)
    return keys


def _key_of_fields(fields: MessageFields) -> bytes:
    """What a key is made of besides role and content: all that a template may show."""
    shown = {
        "reasoning_content": fields.reasoning_content,
        "thinking": fields.thinking,
        "reasoning": fields.reasoning,
        "tool_calls": None if fields.tool_calls is None else shown_calls(fields.tool_calls),
        "tool_call_id": fields.tool_call_id,
        "name": fields.name,
        "content_is": fields.content_is,
    }
    entries = [(name.encode(), text.encode()) for name, text in shown.items() if text is not None]
    return b"".join(b"+%s:%d:%s" % (name, len(text), text) for name, text in entries)
