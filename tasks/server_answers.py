"""What a Prefect server says is data: no result that a state names is ever read.

A state may carry a result: a value, or a place and the serializer that is to read it. Prefect's engine asks
the state that the server answered with for its result, where a run ended otherwise than by its own function.
Then whoever may set a state chooses what this process reads, and how: by pickle, by ``__class__`` in JSON,
which calls whatever function it names, or by a library that is imported while the answer is parsed.

Prefect has no setting for it. So the result is dropped where the answer comes in, before Prefect makes a
state of it. Assay needs none: what a run's function returns stays in its process (``flows.server.outcome``).
"""

from __future__ import annotations

from typing import Any

import httpx
from prefect.client.base import PrefectResponse
from prefect.client.schemas.objects import StateType

_STATE_TYPES = frozenset(kind.value for kind in StateType)


def drop_results() -> None:
    """Have every Prefect client of this process drop the results of states that a server answers with.

    To be called before a server is asked for anything; once more has no effect.
    """
    setattr(PrefectResponse, "json", _without_results_of_states)  # noqa: B010 - it has none of its own


def _without_results_of_states(answer: PrefectResponse, **options: Any) -> Any:
    return without_results(httpx.Response.json(answer, **options))


def without_results(value: Any) -> Any:
    """The JSON value, and no state in it has ``data``. A state is what has the type of one."""
    if isinstance(value, list):
        return [without_results(one) for one in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("type")
    is_state = isinstance(kind, str) and kind in _STATE_TYPES
    return {name: without_results(one) for name, one in value.items() if not (is_state and name == "data")}
