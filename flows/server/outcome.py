"""What a flow's function came to, and never what a server says that it came to."""

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
    """What the flow's function returned, once Prefect has run it; what it raised is raised.

    ``arguments`` are of the types that the function takes.

    The value comes from the function itself: Prefect's engine would ask the run's last state for it, and that
    may be one that somebody else has set. SetFromOutside where such a state kept the function from its work;
    where it came when the work was done, ``say`` is told.
    """
    returned: list[_Returned] = []
    raised: list[BaseException] = []

    @functools.wraps(flow.fn)
    def watched(*given: Any, **named: Any) -> Any:
        # Prefect may call it again.
        returned.clear()
        raised.clear()
        try:
            value = flow.fn(*given, **named)
        except BaseException as error:
            raised.append(error)
            raise
        returned.append(_Returned(value))
        return value

    # Prefect would look for the names of types where ``watched`` stands.
    watched_flow = flow.with_options(validate_parameters=False)
    watched_flow.fn = watched
    # Where Prefect puts how a run failed. It would ask the server where.
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
        raise _told(error)
    if (
        state is not None
        and isinstance(state.data, ResultRecord)
        and isinstance(state.data.result, Exception)
    ):
        # The engine did not come as far as the function.
        raise state.data.result
    raise SetFromOutside(
        f"this run was {_what_it_was_set_to(state)} before it began, so it did nothing. The same command "
        "starts it anew"
    )


def _is_own(state: State[Any] | None) -> bool:
    """Whether this process made the state: one of a server has no result (``tasks.server_answers``)."""
    return state is not None and isinstance(state.data, ResultRecord)


def _what_it_was_set_to(state: State[Any] | None) -> str:
    if state is None:
        return "stopped by Prefect's server"
    message = f" ({state.message})" if state.message else ""
    return f"set to {state.name} from outside{message}"


def _told(error: BaseException) -> BaseException:
    """The error, or what a stage had Prefect pause the run for."""
    reason = error.__cause__
    return reason if isinstance(error, Abort | Pause) and isinstance(reason, AssayError) else error
