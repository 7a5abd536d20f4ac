"""Where a reward service is, how it is asked, and what it allows. An operator says so, never a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """What a service is sent, and what that costs."""

    requests: int
    tokens: int
    cost: float | None
    """In ``currency``; None where the operator states no price."""
    currency: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A named reward service. Holds the name of a key, never a key."""

    name: str
    url: str
    kind: str
    """The protocol it speaks: a key of ``remote.endpoints.KINDS``."""
    model: str
    """As the service knows it."""
    attributes: tuple[str, ...]
    """What is taken of its reply, and in which order it is stored."""
    outputs: tuple[str, ...] = ()
    """What its numbers mean, in their order, where its reply does not name them."""
    revision: str = ""
    """Which version of the model answers; part of the fingerprint."""
    key_variable: str | None = None
    """The environment variable that holds the key."""
    key_block: str | None = None
    """The Prefect Secret block that holds the key."""
    tokenizer: str | None = None
    """A folder with the model's tokenizer and chat template."""
    max_tokens: int | None = None
    """The longest conversation it is sent, counted with ``tokenizer``."""
    max_characters: int | None = None
    """The longest conversation it is sent, where no tokenizer is to be had."""
    in_flight: int = 16
    """Turns that are asked for at the same time."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout_seconds: float = 120.0
    """How long one attempt may take, from the connection to the last byte."""
    deadline_seconds: float = 600.0
    """How long one turn may take, all attempts together."""
    longest_wait_seconds: float = 120.0
    """The longest ``Retry-After`` that is waited for; a longer one ends the run, to be resumed."""
    price_per_request: float = 0.0
    price_per_million_tokens: float = 0.0
    currency: str = "USD"

    def usage(self, requests: int, tokens: int) -> Usage:
        """So many requests of so many tokens together, and what they cost.

        >>> Endpoint("judge", "https://x", "openai", "m", ("reward",), price_per_request=0.5).usage(4, 900)
        Usage(requests=4, tokens=900, cost=2.0, currency='USD')
        """
        cost = None
        if self.price_per_request or self.price_per_million_tokens:
            cost = requests * self.price_per_request + tokens * self.price_per_million_tokens / 1e6
        return Usage(requests, tokens, cost, self.currency)
