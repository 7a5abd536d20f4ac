"""What every reward model is, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from assay.core.schema import WEIGHTED_REWARD, Conversation
from assay.rewards.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What is known of a reward model before it is loaded. Small, plain, sent to workers."""

    name: str
    """As the user named it."""
    folder: str
    """Where its files lie on this machine."""
    family: str
    """How it is shown a conversation and where its number is: a key of ``families.FAMILIES``."""
    attributes: tuple[str, ...]
    max_tokens: int
    """The longest conversation it is shown, in tokens; 0 for a service whose operator states none."""
    over_length: str
    """``quarantine``, or ``left-truncate``: what is done with a turn beyond ``max_tokens``."""
    dtype: str
    opener: str
    """``module:function`` that turns this into a ``RewardModel``, in the process that will use it."""
    fingerprint: str
    """32 hex digits; changes whenever the same conversation could score differently."""
    notes: tuple[str, ...] = ()
    """What a person who uses this model should be told in every summary."""
    appended_token_id: int | None = None
    """The token after the turn at which the score is read, where the family appends one."""
    trained_tokens: int | None = None
    """The longest conversations it was trained on, where its card says; longer ones are scored and told."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes of what the model was made for, where its card says."""
    unseen: tuple[str, ...] | None = None
    """Kinds of messages that its chat template leaves out (``probing``); None where nobody could see."""
    weights: tuple[tuple[str, float], ...] = ()
    """What makes one number of the attributes, if any. In no fingerprint: raw scores do not depend on it."""
    family_named: bool = False
    """Whether a person named the family, because the model's folder does not tell it."""
    read_at: str | None = None
    """One of ``families.READ_AT``; None: nobody chose, so that a turn is read at its last token."""
    add_bos: bool | None = None
    """Whether a conversation begins with the token that its tokenizer puts before a text, where the template
    writes none. None: nobody chose, so that it does not."""
    remote_code: bool = False
    """Whether the Python code in its repository may run. The operator's to say."""
    device_map: str | None = None
    """How transformers lays the model over the devices that this process sees, where that is asked for."""
    digest_cache: str | None = None
    """A JSON file in which digests of its weights are kept, so that checking them again costs nothing."""
    endpoint: Endpoint | None = None
    """Where it is served, for a service. Such a model is asked by the run itself and by no worker: its
    limits are one for the run."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What rules and exports may name: the attributes, and the scalar made of them, if any."""
        return (*self.attributes, WEIGHTED_REWARD) if self.weights else self.attributes


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


#: An environment variable, set in processes that were started for a GPU: one that cannot use it says so,
#: instead of taking days on a CPU.
EXPECTS_CUDA = "ASSAY_EXPECTS_CUDA"


@runtime_checkable
class OnDevice(Protocol):
    """What a model also tells that computes in this process."""

    @property
    def device_name(self) -> str:
        """What it computes on."""

    @property
    def busy_seconds(self) -> float:
        """How long that was at work for the last ``score`` of this thread."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Another way to a model that gives another number, which nobody has chosen or declined."""

    told: str
    """Both numbers, and how to choose one."""
    settled_by: Literal["read_at", "add_bos"]
    """The field of ``ModelSpec`` that says which is meant; None in it: nobody chose."""


@runtime_checkable
class Remarking(Protocol):
    """What a model also tells of which another way to it gives other numbers."""

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """One for each such way."""


class RewardModel(Protocol):
    """Turns conversations into scores."""

    attributes: tuple[str, ...]
    fingerprint: str

    def score(self, requests: Sequence[Request]) -> list[list[TurnScore]]:
        """An outcome a requested turn, in the order of the requests and their turns.

        May be called by several threads at once.
        """
        ...
