"""What may be said of a reward model: by a run, and by an operator alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from assay.core.errors import UserMistake
from assay.rewards.families import READ_AT, ReadAt

Dtype = Literal["float32", "bfloat16", "float16"]
OverLength = Literal["quarantine", "left-truncate"]

DTYPES: tuple[Dtype, ...] = get_args(Dtype)
OVER_LENGTH: tuple[OverLength, ...] = get_args(OverLength)


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What a run may choose of its model. All but ``over_length`` and ``factors`` are for local models.

    Raises ``UserMistake`` for a word that is none of those to choose from.

    >>> ModelOptions(dtype="bfloat16", attributes=("helpfulness", "verbosity")).over_length
    'quarantine'
    """

    dtype: Dtype | None = None
    """What it computes in; None: what its card loads it in, or float32 where that is not known."""
    revision: str | None = None
    """Branch, tag or commit of a model on the Hub; None: its main branch."""
    known_as: str | None = None
    """The name in the catalog of the model in a folder; None: the folder's name, or nothing, is known."""
    family: str | None = None
    """How it is read where neither the catalog nor its architecture says: a key of ``families.FAMILIES``."""
    read_at: ReadAt | None = None
    """Where it is read, where transformers' own head reads elsewhere; None: nobody chose."""
    add_bos: bool | None = None
    """Whether a conversation begins with the tokenizer's own first token, as ``tokenizer(text)`` has it and
    the template does not; None: as its card does, or not."""
    attributes: tuple[str, ...] = ()
    """Names of its outputs, in their order; empty: what the catalog or its config.json calls them."""
    max_tokens: int | None = None
    """The longest conversation it is shown, in tokens; None: its own limit."""
    over_length: OverLength = "quarantine"
    """What is done with a turn that is longer."""
    factors: Mapping[str, float] | None = None
    """What multiplies each attribute in ``weighted_reward``; None: what is published; empty: no such sum."""

    def __post_init__(self) -> None:
        _check("--dtype", self.dtype, DTYPES)
        _check("--read-at", self.read_at, READ_AT)
        _check("--over-length", self.over_length, OVER_LENGTH)


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What only an operator may say about loading models. In no fingerprint: none changes a score."""

    trust_remote_code: bool = False
    """Let code from a model's repository run, where a commit hash says which."""
    hub_token_variable: str | None = None
    """Name of the environment variable that holds the token for gated models."""
    device_map: str | None = None
    """As in transformers; None: one device a process."""


def _check(option: str, word: str | None, words: tuple[str, ...]) -> None:
    if word is not None and word not in words:
        raise UserMistake(f"{option} {word}: choose one of {', '.join(words)}")
