"""What formats share whose row is a conversation: an answer or a prompt may stand in a field beside it."""

from __future__ import annotations

from assay.core.schema import Message, roles_of
from assay.read.formats.answers import LISTS, SINGLE, after, answer_field
from assay.read.formats.names import Names
from assay.read.formats.prompts import Prompt, prompt_of
from assay.read.formats.reading import Draft, Row, is_asked

#: A prompt in one of these fields belongs before a conversation that has none.
_PROMPTS = ("prompt", "instruction", "question", "query")
BESIDE = frozenset({*LISTS, *SINGLE, *_PROMPTS})


def completed(row: Row, messages: list[Message], field: str, names: Names) -> list[Draft]:
    """The conversation in ``field``, with the answer or the prompt that the row keeps beside it.

    An answer beside a conversation that ends with one is carried along, and so is a prompt beside one that
    has a user's message.
    """
    used = frozenset({field})
    if not messages or BESIDE.isdisjoint(row):
        return [Draft(messages, used)]
    if messages[-1].role != "assistant":
        answered = answer_field(row)
        if answered is not None:
            return after(row, Prompt(messages, used), answered, names)
        return [Draft(messages, used)]
    roles = roles_of(messages)
    asked = next((name for name in _PROMPTS if name in row), None)
    if asked is None or is_asked(messages):
        return [Draft(messages, used)]
    prompt = prompt_of(row, asked, names)
    systems = len(roles) - len(roles.lstrip("s"))
    messages = [*messages[:systems], *prompt.messages, *messages[systems:]]
    return [Draft(messages, used | prompt.used, is_answer=True)]
