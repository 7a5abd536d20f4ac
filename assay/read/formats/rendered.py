"""Texts that a chat template has rendered: ChatML's and Llama-3's, which NeMo-Aligner's guides train on.

``<|im_start|>user\\n…<|im_end|>\\n`` and ``<|start_header_id|>user<|end_header_id|>\\n\\n…<|eot_id|>``, as
the chat templates of Qwen2.5 and Llama-3.1 write them. Left as one text, a model would be shown its own
markers inside a message.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from assay.core.schema import Message
from assay.read.formats.names import Names
from assay.read.formats.reading import Unreadable, is_blank, unknown_speaker


class _Template(NamedTuple):
    begins: re.Pattern[str]
    speaker: re.Pattern[str]
    end: str
    """What ends a message."""


_TEMPLATES = (
    _Template(
        re.compile(r"\s*<\|im_start\|>\w+\n"), re.compile(r"<\|im_start\|>([^\n<]*)(?:\n|\Z)"), "<|im_end|>"
    ),
    _Template(
        re.compile(r"\s*(?:<\|begin_of_text\|>)?<\|start_header_id\|>\w+<\|end_header_id\|>"),
        re.compile(r"<\|start_header_id\|>([^\n<]*)<\|end_header_id\|>\n{0,2}"),
        "<|eot_id|>",
    ),
)


#: What a tokenizer's own end of a text looks like behind that of a message.
_END_OF_TEXT = re.compile(r"<\|(?:end_of_text|endoftext|eot_id|im_end)\|>|</s>")


def end_of(text: str) -> str | None:
    """What ends a message in a rendered text; None where the text is not rendered."""
    return next((one.end for one in _TEMPLATES if one.begins.match(text)), None)


def rendered_messages(text: str, names: Names) -> list[Message]:
    """The messages of a rendered text. Blank system texts are none.

    Unreadable for a speaker without a role, and for text between a message's end and the next speaker.

    >>> from assay.read.formats.names import KNOWN_NAMES
    >>> text = "<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\nHo<|im_end|>\\n"
    >>> [(message.role, message.content) for message in rendered_messages(text, KNOWN_NAMES)]
    [('user', 'Hi'), ('assistant', 'Ho')]
    """
    template = next(one for one in _TEMPLATES if one.begins.match(text))
    marks = list(template.speaker.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    messages: list[Message] = []
    for mark, end in zip(marks, ends, strict=True):
        content, _, behind = text[mark.end() : end].partition(template.end)
        if not is_blank(_END_OF_TEXT.sub("", behind)):
            raise Unreadable(f"text_behind_end: message {len(messages) + 1} goes on behind {template.end}")
        role = names.roles.get(mark[1].strip().lower())
        if role is None:
            raise unknown_speaker(mark[1], len(messages) + 1, after=messages[-1].role if messages else None)
        if role != "system" or not is_blank(content):
            messages.append(Message(role, content))
    return messages


def without_end(content: str, end: str) -> str:
    """The content without what ends it, and the white space and ends of the text behind that."""
    if not end:
        return content
    before, found, behind = content.rpartition(end)
    while found and before.endswith(end):
        before = before.removesuffix(end)
    return before if found and is_blank(_END_OF_TEXT.sub("", behind)) else content
