"""How a deployment's run ends, in words that Prefect's own pages know.

The pages list runs by the names of states that Prefect has (*Completed*, *Failed* …) and hide a run whose
state has another name. So the names stay Prefect's. The kind of an end is the first word of the message of
its state, where a command that follows the run reads it, and a tag, by which people find such runs.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import Any
from uuid import UUID

from prefect import State, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.states import Completed, Failed

from assay.core.errors import AssayError, Resumable, UserMistake
from tasks.pages import where_reachable

_TAG = "ended:"
#: Loggers that Prefect's engine speaks to about a run that failed.
_OF_THE_ENGINE = ("prefect.flow_runs", "prefect.engine")


class EndKind(Enum):
    """The ends of a run that are neither a plain success nor a plain failure."""

    MISTAKE = "Mistake"
    STOPPED = "Stopped"
    INCOMPLETE = "Incomplete"
    UNVERIFIED = "Unverified"

    @property
    def tag(self) -> str:
        """``ended:mistake`` and so on."""
        return f"{_TAG}{self.value.lower()}"

    def said(self, message: str) -> str:
        """The message of a state of this kind."""
        return f"{self.value}: {message}"


_EXIT_CODES = {
    EndKind.MISTAKE: UserMistake.exit_code,
    EndKind.STOPPED: Resumable.exit_code,
    EndKind.INCOMPLETE: AssayError.exit_code,
    EndKind.UNVERIFIED: AssayError.exit_code,
}


def kind_in(message: str | None) -> EndKind | None:
    """The kind of end that a state's message begins with; None for any other message.

    >>> kind_in("Mistake: input 'x': there is no such file"), kind_in("4 of 4 records kept")
    (<EndKind.MISTAKE: 'Mistake'>, None)
    """
    first, colon, _ = (message or "").partition(": ")
    return next((kind for kind in EndKind if colon and kind.value == first), None)


def kind_of(error: AssayError) -> EndKind | None:
    """The kind of end of a run with this error; None for a fault."""
    if isinstance(error, UserMistake):
        return EndKind.MISTAKE
    return EndKind.STOPPED if isinstance(error, Resumable) else None


def exit_code(state: State[Any]) -> int:
    """The exit code of a command that followed a run to this last state."""
    kind = kind_in(state.message)
    if kind is not None:
        return _EXIT_CODES[kind]
    return 0 if state.is_completed() else AssayError.exit_code


def failed(message: str, kind: EndKind | None = None) -> State[Any]:
    """The state *Failed* with this message. The run gets the tag of the kind, and its log no traceback."""
    for name in _OF_THE_ENGINE:
        logging.getLogger(name).addFilter(_says_more_than_the_state)
    return Failed(message=_said(message, kind))


def completed(message: str, kind: EndKind | None = None) -> State[Any]:
    """The state *Completed* with this message. The run gets the tag of the kind."""
    return Completed(message=_said(message, kind))


def without_kinds(tags: list[str]) -> set[str]:
    """The tags without those of an earlier attempt's end."""
    return {tag for tag in tags if not tag.startswith(_TAG)}


def _says_more_than_the_state(record: logging.LogRecord) -> bool:
    """False for the engine's last words on a run that failed: the traceback of its own call.

    It fails because the state has no result to raise, and the state's message says all that there is to say.
    """
    return "exited with unexpected exception" not in record.getMessage()


def _said(message: str, kind: EndKind | None) -> str:
    if kind is None:
        return message
    run = runtime.flow_run.id
    if run is not None:
        with where_reachable(), get_client(sync_client=True) as client:
            _tag(client, UUID(str(run)), kind)
    return kind.said(message)


def _tag(client: SyncPrefectClient, run: UUID, kind: EndKind) -> None:
    known = client.read_flow_run(run).tags
    client.update_flow_run(run, tags=sorted(without_kinds(known) | {kind.tag}))
