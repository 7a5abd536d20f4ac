"""Items whose messages have the roles that are asked for."""

from __future__ import annotations

import json

from assay.core.schema import ROLES, Conversation, FullMessage, Message, MessageFields
from assay.export.kept import Held, Item
from assay.export.pairs import Pair
from assay.storage.conversations import field_kinds

ROLE = {role[0]: role for role in ROLES}


def messages(roles: str) -> Conversation:
    """A message a letter; each says which it is."""
    return tuple(Message(ROLE[letter], f"{place}") for place, letter in enumerate(roles))


def item(roles: str, *, side: str | None = None) -> Item:
    """A record."""
    rest = None if side is None else json.dumps({"assay_side": side})
    scores: list[tuple[float, ...]] = [(1.0,)] * roles.count("a")
    return Item("a.jsonl", 1, 0, roles, messages(roles), None, ("reward",), scores, rest)


def pair(roles: str, chosen: str = "A good answer.", rejected: str = "A bad answer.") -> Pair:
    """A pair after a prompt of these roles."""
    return Pair(messages(roles), roles, Message("assistant", chosen), Message("assistant", rejected), 1.5)


def calling(arguments: str) -> Item:
    """A record with a call whose arguments are this text."""
    calls = json.dumps(
        [{"id": "c1", "type": "function", "function": {"name": "tide", "arguments": arguments}}]
    )
    call = FullMessage("assistant", "", MessageFields(tool_calls=calls, content_is="null"))
    said = (Message("user", "Q"), call, Message("tool", "R"), Message("assistant", "A"))
    held = Held(field_kinds(said))
    return Item("a.jsonl", 1, 0, "ucta", said, None, ("reward",), [(1.0,)], None, held=held)
