"""NeMo-Aligner's text of a conversation: ``<extra_id_0>System\\n…\\n<extra_id_1>User\\n…``, and its labels.

Checked against NVIDIA/NeMo-Aligner: docs/user-guide/dpo.rst (preference rows), its SteerLM scripts
(process_to_regression_format.py), and HelpSteer2's prompts of several turns.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from assay.core.schema import Message
from assay.core.steerlm import NEMO_SYSTEM
from assay.read.formats.names import Names
from assay.read.formats.reading import Unreadable, is_blank, unknown_speaker

_BEGINNING = re.compile(r"\s*<extra_id_[01]>")
#: A speaker's line. A bare marker is where generation stops.
_SPEAKER = re.compile(r"<extra_id_[01]>([^\n<]*)(?:\n|\Z)")
#: A label stands before a turn's text in NeMo-Aligner's training text, and behind it in regression rows.
_LABEL = re.compile(r"<extra_id_2>([^\n<]*)(?:\n|\Z)")
#: What ends an answer in NeMo-Aligner's preference rows.
NEMO_END = "\n<extra_id_1>"


class Marked(NamedTuple):
    """Messages and the label of each."""

    messages: list[Message]
    labels: list[str | None]


def is_marked(text: str) -> bool:
    """Whether the text begins with a speaker's marker."""
    return _BEGINNING.match(text) is not None


def marked_messages(text: str, names: Names) -> Marked:
    """The messages of a text that begins with a marker; Unreadable for a speaker without a role.

    NeMo-Aligner's fixed system sentence, and a blank one, are no messages.

    >>> from assay.read.formats.names import KNOWN_NAMES
    >>> text = "<extra_id_0>System\\n\\n<extra_id_1>User\\nHi\\n<extra_id_1>Assistant\\nHo\\n<extra_id_1>"
    >>> [(message.role, message.content) for message in marked_messages(text, KNOWN_NAMES).messages]
    [('user', 'Hi'), ('assistant', 'Ho')]
    """
    marks = list(_SPEAKER.finditer(text))
    if not marks or not is_blank(text[: marks[0].start()]):
        raise Unreadable("unknown_speaker: the text does not begin with a marker and a speaker's name alone")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    found = Marked([], [])
    for mark, end in zip(marks, ends, strict=True):
        content = text[mark.end() : end]
        if end < len(text) or content.endswith("\n"):
            content = content.removesuffix("\n")
        if not mark[1] and is_blank(content):
            continue
        label = _LABEL.search(content)
        if label is not None and (label.start() == 0 or label.end() == len(content)):
            content = (content[: label.start()] + content[label.end() :]).removesuffix("\n")
        role = names.roles.get(mark[1].strip().lower())
        if role is None:
            after = found.messages[-1].role if found.messages else None
            raise unknown_speaker(mark[1], len(found.messages) + 1, after=after)
        if role == "system" and (is_blank(content) or content == NEMO_SYSTEM):
            continue
        found.messages.append(Message(role, content))
        found.labels.append(label[1] or None if label is not None else None)
    return found


def split_prompt(text: str) -> list[Message] | None:
    """The messages of a prompt of several turns, as HelpSteer2 has them; None where it is of one turn.

    Nothing is split that the same markers would not join to the same text again.

    >>> split_prompt("q\\n<extra_id_1>Assistant\\na\\n<extra_id_1>User\\nr")[1]
    Message(role='assistant', content='a')
    """
    if "<extra_id_1>" not in text:
        return None
    parts = re.split(r"\n<extra_id_1>(User|Assistant)\n", text)
    speakers = ["User", *parts[1::2]]
    contents = parts[::2]
    if len(contents) < 2 or speakers[-1] != "User" or any("<extra_id_" in content for content in contents):
        return None
    return [
        Message(names, content)
        for names, content in zip((speaker.lower() for speaker in speakers), contents, strict=True)
    ]
