"""Drop every result from the states that a Prefect server sends, so that none is ever read.

A state may carry a result: a value, or a place and the name of a serializer that reads it. If a run ends in
another way than by its own function, Prefect's engine reads the result of the state that the server sent. So
whoever may set a state chooses what this process reads, and how: by pickle, by ``__class__`` in JSON, which
calls any function that it names, or by a library that is imported while the answer is parsed.

Prefect has no setting against this. So results are dropped when an answer arrives, before Prefect makes a
state of it. Assay needs none: what a run's function returns stays in its process (``flows.server.outcome``).
"""

from __future__ import annotations

from typing import Any

import httpx
from prefect.client.base import PrefectResponse
from prefect.client.schemas.objects import StateType

_STATE_TYPES = frozenset(kind.value for kind in StateType)


def drop_results() -> None:
    """Have every Prefect client of this process drop the results of states that a server sends.

    Call it before the first request to a server. A second call has no effect.
    """
    setattr(PrefectResponse, "json", _without_results_of_states)  # noqa: B010 - it has none of its own


def _without_results_of_states(answer: PrefectResponse, **options: Any) -> Any:
    return without_results(httpx.Response.json(answer, **options))


def without_results(value: Any) -> Any:
    """The JSON value without the ``data`` of its states. An object counts as a state if its type is one's."""
    if isinstance(value, list):
        return [without_results(one) for one in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("type")
    is_state = isinstance(kind, str) and kind in _STATE_TYPES
    return {name: without_results(one) for name, one in value.items() if not (is_state and name == "data")}
