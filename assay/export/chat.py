"""What the rows of many trainers share: messages as JSON, prompts and answers, and what loaders stumble on.

The functions on ``roles`` take a letter a message (``suaua``) and give a reason, ``code: detail``, or None.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from assay.core.schema import CALL, ROLES, Message
from assay.export.contract import Json
from assay.export.kept import Item
from assay.export.pairs import Pair

_ROLES = {role[0]: role for role in ROLES} | {CALL: "call"}
_WHOSE = {"s": "a system message", "u": "a user's", "a": "the assistant's", "t": "a tool's", CALL: "a call"}

#: A message in a table.
MESSAGE = pl.Struct({"role": pl.String, "content": pl.String})


def messages_of(messages: Sequence[Message]) -> list[dict[str, Json]]:
    """The messages as most trainers write them: ``[{"role": …, "content": …}, …]``."""
    return [{"role": message.role, "content": message.content} for message in messages]


def trained_turns(item: Item) -> list[bool]:
    """Whether each message is trained on: every turn is, and nothing else."""
    return [message.role == "assistant" for message in item.messages]


def ends_on_another(roles: str) -> str | None:
    """``ends_on_user``, ``ends_on_tool``, …: why the last message is no answer; None where it is one.

    >>> ends_on_another("sua"), ends_on_another("uau")
    (None, "ends_on_user: message 3 is the last, and not the assistant's")
    """
    if roles.endswith("a"):
        return None
    return f"ends_on_{_ROLES[roles[-1]]}: message {len(roles)} is the last, and not the assistant's"


def no_prompt(roles: str) -> str | None:
    """``no_prompt``: why there is nothing before the last message; None where there is."""
    return "no_prompt: the answer is the only message" if len(roles) == 1 else None


def prompt_of(pair: Pair) -> list[dict[str, Json]]:
    """The messages before the two answers."""
    return messages_of(pair.prompt)


def answer_of(message: Message) -> dict[str, Json]:
    """One answer as a message."""
    (row,) = messages_of([message])
    return row


def without_prompt(pair: Pair) -> str | None:
    """``no_prompt``: why there is nothing before the answers; None where there is."""
    return None if pair.prompt else "no_prompt: the answers are the only messages"


def late_system(roles: str) -> str | None:
    """``late_system_message``: why a system message is not the first; None where none is elsewhere.

    >>> late_system("sua"), late_system("uas")
    (None, 'late_system_message: message 3 is a system message')
    """
    place = roles.find("s", 1)
    return None if place < 0 else f"late_system_message: message {place + 1} is a system message"


#: Matches as much as alternates: after a system message, a user's or a tool's message and an answer in turn.
_IN_TURN = re.compile("s?(?:[ut]a)*")
#: The same with several results of tools, one behind the other, where one is due.
_IN_TURN_BUT_TOOLS = re.compile("s?(?:(?:u|(?<=a)t+)a)*")


def out_of_turn(roles: str, *, tools_in_a_row: bool = False) -> str | None:
    """``roles_do_not_alternate``: why prompt and answer do not take turns, from a prompt to an answer.

    A tool's message counts as a prompt. ``tools_in_a_row`` allows several where one is due.

    >>> out_of_turn("suata"), out_of_turn("uaua"), out_of_turn("uua")
    (None, None, "roles_do_not_alternate: message 2 is a user's")
    """
    pattern = _IN_TURN_BUT_TOOLS if tools_in_a_row else _IN_TURN
    found = pattern.match(roles)
    end = found.end() if found else 0
    if end == len(roles):
        return None
    place = end if roles[end] not in "ut" else min(end + 1, len(roles) - 1)
    return f"roles_do_not_alternate: message {place + 1} is {_WHOSE[roles[place]]}"


def no_side(item: Item) -> str | None:
    """``no_side``: why nobody says whether the answer is a good one; None where the record has a side."""
    return "no_side: the record is no side of a pair" if item.side is None else None
