"""What is known of a reward model before it is opened. Small, plain, sent to workers.

A model is either in a folder, where this machine and its workers load it, or behind a service, which is
asked. ``ModelSpec`` is either; whoever works with one kind alone takes that one's type.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from assay.core.schema import WEIGHTED_REWARD
from assay.rewards.adapter_settings import tokenizer_folder
from assay.rewards.endpoint import Endpoint, Usage
from assay.rewards.fingerprint import weights_digests


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody here knows it."""

    why: str
    """As part of a sentence."""


@dataclass(frozen=True, slots=True)
class ModelReading:
    """How a model comes to its scores, as reports and golden rows name it."""

    family: str
    dtype: str
    over_length: str
    max_tokens: int | None
    """None: no limit is known here."""
    family_named: bool = False
    """Whether a person named the family, because the model's folder does not show it."""
    read_at: str | None = None
    """None: nobody chose."""
    add_bos: bool | None = None
    """None: nobody chose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spec(ABC):
    """What is known of any reward model."""

    name: str
    """As the user named it."""
    attributes: tuple[str, ...]
    fingerprint: str
    """32 hex digits; changes whenever the same conversation could score differently."""
    notes: tuple[str, ...] = ()
    """What every summary reports to a person who uses this model."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes of what the model was made for, where its card says."""
    without_system: bool = False
    """Whether its card asks for conversations without a system message."""
    factors: tuple[tuple[str, float], ...] = ()
    """What multiplies each attribute in the sum that is ``weighted_reward``; empty: there is no such sum.
    In no fingerprint: raw scores do not depend on it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What rules and exports may name: the attributes, and the sum made of them, if any."""
        return (*self.attributes, WEIGHTED_REWARD) if self.factors else self.attributes

    @property
    @abstractmethod
    def published_name(self) -> str:
        """The name by which the catalog would know it."""

    @property
    @abstractmethod
    def reading(self) -> ModelReading:
        """How the model comes to its scores."""

    @property
    @abstractmethod
    def trained_length(self) -> int | Unknown:
        """The longest conversations it was trained on, in tokens as it counts them."""

    @property
    @abstractmethod
    def unseen_messages(self) -> tuple[str, ...] | Unknown:
        """Kinds of messages (``probing``) that its chat template leaves out."""

    @property
    @abstractmethod
    def former_fingerprint(self) -> str | None:
        """The fingerprint under which an earlier release may have kept its scores, with those of others."""

    @abstractmethod
    def digests_of_weights(self) -> dict[str, str] | None:
        """The digest of each file of its weights by name; None where the files are not here."""

    @abstractmethod
    def usage(self, requests: int, tokens: int) -> Usage | None:
        """What so many requests come to; None of a model that is loaded, not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSpec(_Spec):
    """A model in a folder: it is loaded by this process, or by workers."""

    folder: str
    """Where its files lie on this machine."""
    family: str
    """How it is shown a conversation, and where its number is: a key of ``families.FAMILIES``."""
    max_tokens: int
    """The longest conversation it is shown, in tokens."""
    over_length: str
    """``quarantine``, or ``left-truncate``: what is done with a turn beyond ``max_tokens``."""
    dtype: str
    """What it computes in."""
    opener: str = "assay.rewards.local.model:open_model"
    """``module:function`` that makes a ``RewardModel`` of this, in the process that will use it."""
    known_as: str | None = None
    """The name in the catalog that somebody gave to a folder's model; None where it needs none."""
    adapter: str | None = None
    """The folder of the LoRA adapter that is merged into the model in ``folder``, where it is one."""
    appended_token_id: int | None = None
    """The token after the turn at which the score is read, where the family appends one."""
    trained_tokens: int | None = None
    """The longest conversations it was trained on, where its card says. Longer ones are scored, and
    reported."""
    unseen: tuple[str, ...] | None = None
    """Kinds of messages that its chat template leaves out (``probing``); None where nobody could see."""
    family_named: bool = False
    """Whether a person named the family, because the model's folder does not show it."""
    read_at: str | None = None
    """One of ``families.READ_AT``; None: nobody chose, so that a turn is read at its last token."""
    add_bos: bool | None = None
    """Whether a conversation begins with the token that its tokenizer puts before a text, where the template
    writes none. None: nobody chose, so that it does not."""
    remote_code: bool = False
    """Whether the Python code in its repository may run: for the operator to decide."""
    device_map: str | None = None
    """How transformers lays the model over the devices that this process sees, where the operator says."""
    digest_cache: str | None = None
    """A JSON file in which digests of its weights are kept, so that checking them again costs nothing."""

    @property
    def published_name(self) -> str:
        """The name that somebody gave to its folder's model, or else its own."""
        return self.known_as or self.name

    @property
    def reading(self) -> ModelReading:
        """How the model comes to its scores."""
        return ModelReading(
            family=self.family,
            dtype=self.dtype,
            over_length=self.over_length,
            max_tokens=self.max_tokens,
            family_named=self.family_named,
            read_at=self.read_at,
            add_bos=self.add_bos,
        )

    @property
    def trained_length(self) -> int | Unknown:
        """The longest conversations it was trained on, where its card says."""
        if self.trained_tokens is None:
            return Unknown(f"how long conversations {self.name} was trained on is not known")
        return self.trained_tokens

    @property
    def unseen_messages(self) -> tuple[str, ...] | Unknown:
        """Kinds of messages that its chat template leaves out; of an encoder that has no template, none."""
        if self.unseen is None:
            return Unknown(f"which messages {self.name} is shown is not known")
        return self.unseen

    @property
    def former_fingerprint(self) -> str | None:
        """None: its scores have always been kept apart."""
        return None

    @property
    def shown_by(self) -> str:
        """The folder with its tokenizer: an adapter's own, where it has one."""
        adapter = None if self.adapter is None else Path(self.adapter)
        return str(tokenizer_folder(Path(self.folder), adapter))

    def digests_of_weights(self) -> dict[str, str]:
        """The digest of each file of its weights by name."""
        cache = None if self.digest_cache is None else Path(self.digest_cache)
        digests = weights_digests(Path(self.folder), cache)
        if self.adapter is not None:
            of_adapter = weights_digests(Path(self.adapter), cache)
            digests |= {f"adapter/{name}": digest for name, digest in of_adapter.items()}
        return digests

    def usage(self, requests: int, tokens: int) -> Usage | None:
        """None: it is loaded, not asked."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedSpec(_Spec):
    """A model behind a service. The run itself asks it, and no worker: its limits are one for the run."""

    endpoint: Endpoint
    """Where it is served, and what it allows."""
    nameless_fingerprint: str | None = None
    """Its fingerprint of before the endpoint's own name was in it; None where the name is not in it."""

    @property
    def published_name(self) -> str:
        """The name that the service is asked for it by."""
        return self.endpoint.model

    @property
    def reading(self) -> ModelReading:
        """How the model comes to its scores, as far as that is known here."""
        return ModelReading(
            family=self.endpoint.kind,
            dtype="as served",
            over_length="quarantine",
            max_tokens=self.endpoint.max_tokens,
        )

    @property
    def trained_length(self) -> Unknown:
        """Unknown: only the service counts as the model does."""
        return Unknown(f"{self.name} is a service, and what its model counts as tokens is not known here")

    @property
    def unseen_messages(self) -> Unknown:
        """Unknown: the service renders for the model."""
        return Unknown(f"{self.name} is a service, and what its model is shown is not known here")

    @property
    def former_fingerprint(self) -> str | None:
        """The fingerprint that all services of its kind had in common."""
        return self.nameless_fingerprint

    def digests_of_weights(self) -> dict[str, str] | None:
        """None: its weights are not here."""
        return None

    def usage(self, requests: int, tokens: int) -> Usage:
        """What so many requests of so many tokens together come to."""
        return self.endpoint.usage(requests, tokens)


ModelSpec = LocalSpec | ServedSpec
