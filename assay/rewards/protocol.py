"""What every opened reward model does: it is asked for turns, and gives a score for each or a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from assay.core.schema import Conversation

#: The reason code of a turn that no memory was found for. Another machine may have it, so it is not stored.
OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True, slots=True)
class TurnScore:
    """The outcome for one turn: values over the model's attributes, or the reason why there are none."""

    values: tuple[float, ...] | None
    reason: str | None = None
    tokens_cut: int = 0
    """Tokens left out in front of what the model saw, where over-length turns are left-truncated."""
    tokens: int | None = None
    """Tokens of the turn with all that precedes it, those left out included; None where nobody counted."""


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation, and which of its turns are to be scored (ascending; 0 is the first)."""

    messages: Conversation
    turns: tuple[int, ...]
    tools: str | None = None
    """The tools that the assistant could call, as a JSON array."""


@runtime_checkable
class OnDevice(Protocol):
    """What a model in this process also reports: its device and its busy time."""

    @property
    def device_name(self) -> str:
        """What it computes on."""

    @property
    def busy_seconds(self) -> float:
        """How long the device worked for the last ``score`` of this thread."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Another way to read a model, which gives another number. Nobody has chosen between the two."""

    text: str
    """Both numbers, and how to choose one."""
    settled_by: Literal["read_at", "add_bos"]
    """The field of ``LocalSpec`` that says which is meant; None in it: nobody chose."""


@runtime_checkable
class Remarking(Protocol):
    """What a model also reports that can be read in other ways, with other numbers."""

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """One for each such way that nobody has chosen or declined."""


class RewardModel(Protocol):
    """Turns conversations into scores."""

    attributes: tuple[str, ...]
    fingerprint: str

    def score(self, requests: Sequence[Request]) -> list[list[TurnScore]]:
        """An outcome a requested turn, in the order of the requests and their turns.

        May be called by several threads at once.
        """
        ...
