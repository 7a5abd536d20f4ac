"""Start a run of a deployment from a command line, and follow it. The deployment's worker does the work."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from assay.config.settings import Settings
from assay.core.errors import ServerFault, UserMistake
from flows.command.signals import INTERRUPTED, ending_code
from flows.server.connection import Connection, configured_server

if TYPE_CHECKING:
    import httpx

_LOOK_SECONDS = 1.0
_NO_LONGER = "stopped following; the run goes on. To end it, cancel it in Prefect's pages"


def run_there(
    flow_name: str,
    deployment: str,
    parameters: Mapping[str, Any],
    settings: Settings,
    say: Callable[[str], None],
) -> int:
    """Start a run of this deployment and follow it to its end. Returns the exit code for its last state.

    UserMistake where no server is configured, or the server has no such deployment. A signal ends this
    command, not the run.
    """
    connection = configured_server(settings)
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    from flows.server.endings import exit_code

    name = deployment if "/" in deployment else f"{flow_name}/{deployment}"
    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(name)
        except ObjectNotFound:
            flows = {flow.id: flow.name for flow in client.read_flows()}
            known = [f"{flows.get(one.flow_id)}/{one.name}" for one in client.read_deployments()]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(known) or 'none'}"
            raise UserMistake(f"--deployment: {connection.pages} has no deployment {name!r}{hint}") from None
        try:
            run = client.create_flow_run_from_deployment(found.id, parameters=dict(parameters))
            say(f"Run {run.name}: {connection.pages}/runs/flow-run/{run.id}")
            shown = ""
            while True:
                run = client.read_flow_run(run.id)
                state = run.state
                assert state is not None
                if state.name != shown:
                    shown = state.name or ""
                    say(f"{shown}{f': {state.message}' if state.message else ''}")
                if state.is_final():
                    return exit_code(state)
                time.sleep(_LOOK_SECONDS)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != httpx.codes.CONFLICT:
                raise _failed(connection, error) from error
            raise UserMistake(f"--deployment {deployment}: {_refusal(error.response)}") from error
        except httpx.HTTPError as error:
            raise _failed(connection, error) from error
        except KeyboardInterrupt:
            say(_NO_LONGER)
            return INTERRUPTED
        except SystemExit as leaving:
            code = ending_code(leaving)
            if code is None:
                raise
            say(_NO_LONGER)
            return code


def _failed(connection: Connection, error: Exception) -> ServerFault:
    what = str(error).split("\n")[0] or type(error).__name__
    return ServerFault(
        f"the Prefect server at {connection.api_url} failed ({what}); the run that this command started may "
        "go on"
    )


def _refusal(answer: httpx.Response) -> str:
    """Why a server refuses a run with these parameters: what their schema says, in its own words."""
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return "its server refuses these options"
    return f"its form refuses these options. {detail}"
