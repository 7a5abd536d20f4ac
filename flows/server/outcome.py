"""The result of a flow's function, taken from the function itself and never from a server."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect import Flow, State
from prefect.exceptions import Abort, Pause
from prefect.results import ResultRecord  # type: ignore[attr-defined]  # not in its __all__
from prefect.settings import get_current_settings

from assay.core.errors import AssayError, Resumable


class SetFromOutside(Resumable):
    """Somebody set the state of this run, and the run did not do its work."""


@dataclass(frozen=True, slots=True)
class _Returned:
    value: Any


def carried_out(flow: Flow[..., Any], *arguments: Any, say: Callable[[str], None]) -> Any:
    """What the flow's function returned, once Prefect has run it. Raises what the function raised.

    ``arguments`` have the types that the function takes.

    The value comes from the function itself. Prefect's engine would take it from the run's last state, which
    somebody else may have set. SetFromOutside where such a state kept the function from its work. If the
    state came after the work was done, ``say`` gets a warning.
    """
    returned: list[_Returned] = []
    raised: list[BaseException] = []

    @functools.wraps(flow.fn)
    def watched(*given: Any, **named: Any) -> Any:
        # Prefect may call this more than once.
        returned.clear()
        raised.clear()
        try:
            value = flow.fn(*given, **named)
        except BaseException as error:
            raised.append(error)
            raise
        returned.append(_Returned(value))
        return value

    # Without validation: Prefect would look up the names of types in this module, not in the flow's.
    watched_flow = flow.with_options(validate_parameters=False)
    watched_flow.fn = watched
    # The place where Prefect stores how a run failed. Otherwise it would ask the server for it.
    watched_flow.result_storage = get_current_settings().results.local_storage_path
    state: State[Any] | None
    try:
        state = watched_flow(*arguments, return_state=True)
    except (Abort, Pause) as signal:
        state = getattr(signal, "state", None)
    if returned:
        if not _is_own(state):
            say(f"warning: this run was {_what_it_was_set_to(state)} meanwhile; the results are whole.")
        return returned[-1].value
    for error in raised:
        raise _own_error(error)
    if (
        state is not None
        and isinstance(state.data, ResultRecord)
        and isinstance(state.data.result, Exception)
    ):
        # The engine failed before it called the function.
        raise state.data.result
    raise SetFromOutside(
        f"this run was {_what_it_was_set_to(state)} before it began, so it did nothing. Run the same command "
        "again"
    )


def _is_own(state: State[Any] | None) -> bool:
    """Whether this process made the state. A server's states have no result (``tasks.server_answers``)."""
    return state is not None and isinstance(state.data, ResultRecord)


def _what_it_was_set_to(state: State[Any] | None) -> str:
    if state is None:
        return "stopped by Prefect's server"
    message = f" ({state.message})" if state.message else ""
    return f"set to {state.name} from outside{message}"


def _own_error(error: BaseException) -> BaseException:
    """The error. If it is Prefect's signal to pause or abort, the error of Assay that caused it."""
    reason = error.__cause__
    return reason if isinstance(error, Abort | Pause) and isinstance(reason, AssayError) else error
