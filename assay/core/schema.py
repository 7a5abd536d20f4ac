"""Messages, conversations, attributes and keys: the types that every other module uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from assay.core.digests import DIGEST_BYTES, running_digest

#: Their first letters differ. A ``roles`` string is made of these letters.
ROLES = ("system", "user", "assistant", "tool")

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


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, as in OpenAI's chat format."""

    role: str
    content: str


Conversation = tuple[Message, ...]


def roles_of(messages: Iterable[Message]) -> str:
    """The first letter of each message's role: ``suaua`` for system, user, assistant, user, assistant.

    >>> roles_of([Message("user", "Hi"), Message("assistant", "Hello")])
    'ua'
    """
    return "".join([message.role[0] for message in messages])


def turn_positions(messages: Sequence[Message]) -> list[int]:
    """Indices into ``messages`` of the turns: the assistant messages, in order."""
    return [index for index, message in enumerate(messages) if message.role == "assistant"]


class TurnKey(NamedTuple):
    """The key that a turn's score is stored under, and how much text the score is computed from."""

    key: bytes
    """128-bit hash of the messages through the turn."""
    text_bytes: int
    """UTF-8 bytes of all contents through the turn; its tokens are estimated from this."""
    prompt_key: bytes
    """128-bit hash of the messages before the turn."""


def turn_keys(messages: Iterable[Message]) -> list[TurnKey]:
    """The key of every turn. Equal messages up to and including the turn give equal keys.

    No role holds a colon, and the length precedes each content. So two conversations that differ never
    feed the hash the same bytes.
    """
    running = running_digest()
    text_bytes = 0
    keys: list[TurnKey] = []
    for message in messages:
        content = message.content.encode()
        text_bytes += len(content)
        entry = b"%s:%d:%s" % (message.role.encode(), len(content), content)
        if message.role == "assistant":
            prompt_key = running.digest()
            running.update(entry)
            keys.append(TurnKey(running.digest(), text_bytes, prompt_key))
        else:
            running.update(entry)
    return keys
