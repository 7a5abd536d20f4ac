"""Items whose messages have the roles that are asked for."""

from __future__ import annotations

import json

from assay.core.schema import ROLES, Conversation, Message
from assay.export.kept import Item
from assay.export.pairs import Pair

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
