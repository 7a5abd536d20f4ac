"""Names of speakers and fields: those that are known, and those that the user maps to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Every known name of a speaker, in lower case, with its role.
SPEAKERS: Mapping[str, str] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "instruction": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "gpt4": "assistant",
    "gpt-4": "assistant",
    "gpt-3.5": "assistant",
    "claude": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "gemini": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "tool_response": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
    "ipython": "tool",
}

#: Speakers whose messages are calls of tools, as JSON: LLaMA-Factory's and ms-swift's.
CALLERS = frozenset({"function_call", "tool_call", "tool_calls"})

#: Fields of a message that a field may be mapped to.
INSIDE_MESSAGES = frozenset({"role", "content"})


def plain(name: str) -> str:
    """The name as known names are written: in lower case, with ``_`` between words.

    >>> plain("Chosen-Response")
    'chosen_response'
    """
    return name.strip().lower().replace("-", "_").replace(" ", "_")


@dataclass(frozen=True, slots=True)
class Names:
    """What the names in a row mean, beyond those that are known."""

    fields: dict[str, str] = field(default_factory=dict)
    """A field of the input → the known field that it is read as."""
    speakers: dict[str, str] = field(default_factory=dict)
    """A speaker's name in lower case → its role."""
    roles: Mapping[str, str] = field(init=False, compare=False, repr=False)
    """All speakers, known and mapped, each with its role."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "roles", {**SPEAKERS, **self.speakers})

    @property
    def inside(self) -> Mapping[str, str]:
        """Fields of a message that are read as its ``role`` or its ``content``."""
        if not self.fields:
            return self.fields
        return {name: meant for name, meant in self.fields.items() if meant in INSIDE_MESSAGES}


#: Nothing is mapped.
KNOWN_NAMES = Names()
