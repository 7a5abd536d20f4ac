"""The Prefect server that a run reports to: the one that is configured, or one that the run starts.

Prefect's settings change in this process only and while the run lasts, never in a profile.
"""

from __future__ import annotations

import io
import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from http import HTTPStatus
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar
from uuid import UUID

from assay.config.settings import Settings
from assay.core.errors import ServerFault, UserMistake
from assay.storage.home import Home
from flows.server.embedded import EmbeddedServer

if TYPE_CHECKING:
    from prefect.settings import Settings as PrefectSettings
    from pydantic_core import ErrorDetails

#: Prefect reads these when it is imported. What the operator has set stays as it is.
_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Prefect's log goes to its server. On the console it would show a user's mistake with a traceback.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    # Wait half a minute for a server that restarts. Prefect's default of 5 waits two minutes or more, twice.
    "PREFECT_CLIENT_MAX_RETRIES": "3",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


#: Modules that Prefect imports and a command never uses. They take a tenth of the time of Prefect's import.
_UNUSED = ("prefect.blocks.notifications", "prefect.blocks.webhook")


class _PutOff(PathFinder):
    """Finds modules and delays them: their code runs when one of their names is first used."""

    names: ClassVar[set[str]] = set()

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = super().find_spec(fullname, path, target) if fullname in cls.names else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def _put_off(*names: str) -> None:
    """Delay the import of these modules until they are used."""
    _PutOff.names |= {*names}
    if _PutOff not in sys.meta_path:
        sys.meta_path.insert(0, _PutOff)


def _defaults(home: Home) -> dict[str, str]:
    # Prefect stores how a run failed here. By default that is below the user's home folder.
    return {**_DEFAULTS, "PREFECT_LOCAL_STORAGE_PATH": str(home.prefect / "storage")}


@dataclass(frozen=True, slots=True)
class Connection:
    """The server that a run reports to."""

    api_url: str
    embedded: bool

    @property
    def pages(self) -> str:
        """The address of Prefect's pages, if the server shows them beside its API."""
        return self.api_url.removesuffix("/api")


#: Files from which Prefect also reads settings. A file without this text, in small or capital letters, names
#: no server.
_SETTINGS_FILES = {
    ".env": b"prefect",
    "prefect.toml": b"",
    # A project that depends on Prefect has this word too: see _is_silent.
    "pyproject.toml": b"prefect",
    "~/.prefect/profiles.toml": b"api",
}


def may_name_a_server() -> bool:
    """Whether Prefect's settings may name a server. If False, they name none. Does not import Prefect."""
    ours = {*_DEFAULTS, "PREFECT_LOCAL_STORAGE_PATH"}
    if any(name.upper().startswith("PREFECT_") and name not in ours for name in os.environ):
        return True
    for name, said in _SETTINGS_FILES.items():
        try:
            content = Path(name).expanduser().read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, RuntimeError):
            return True
        if said in content.lower() and not (name == "pyproject.toml" and _is_silent(content)):
            return True
    return False


def _is_silent(pyproject: bytes) -> bool:
    """Whether the project's file holds no settings of Prefect."""
    try:
        return "prefect" not in tomllib.loads(pyproject.decode()).get("tool", {})
    except (ValueError, TypeError, RecursionError):
        return False


def prefects_settings() -> PrefectSettings:
    """Prefect's settings. UserMistake where Prefect cannot read what is set.

    Call it before anything imports Prefect: the import prints settings that cannot be read, logins too.
    """
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            from prefect.settings import get_current_settings

            found = get_current_settings()
        sys.stderr.write(printed.getvalue())
        return found
    except (AttributeError, OSError, RuntimeError, TypeError, ValueError) as error:
        # Prefect takes what it finds for a table or a text without a look, so any of these may come of it.
        files = (name for name in _SETTINGS_FILES if os.path.exists(os.path.expanduser(name)))
        raise UserMistake(
            f"Prefect cannot read its settings ({_reason(error).rstrip('.')}). They are in "
            f"{', '.join([*files, 'variables PREFECT_…'])}: correct what has another form than Prefect wants"
        ) from error


def _reason(error: Exception) -> str:
    """What is wrong, in a line that holds no value: one may be a login."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return "; ".join(f"{error.title}: {_of_a_field(one)}" for one in error.errors())
    # What Prefect itself says of a value may quote it.
    said = "" if type(error) is ValueError else str(error).split("\n")[0]
    return said or type(error).__name__


def _of_a_field(error: ErrorDetails) -> str:
    """Which field pydantic refused, and why if no validator of Prefect's did: that may quote the value."""
    name = ".".join(map(str, error["loc"])) or "a field"
    return f"{name} cannot be used" if error["type"] == "value_error" else f"{name}: {error['msg']}"


@contextmanager
def server_of_the_run(home: Home) -> Iterator[EmbeddedServer | None]:
    """Yield a server for this run, which starts meanwhile. Yield None where Prefect's settings name a server.

    The server stops at the end of the context. Prefect is imported here, with the settings for this run.
    """
    with ExitStack() as stack:
        stack.enter_context(
            _environment({name: os.environ.get(name, value) for name, value in _defaults(home).items()})
        )
        _put_off(*_UNUSED)
        if prefects_settings().api.url:
            yield None
            return
        # Both the run and the server need these modules. The server is a fork, so they are imported once.
        import prefect.client.orchestration
        import prefect.flows  # noqa: F401

        embedded = EmbeddedServer(home.prefect, may_fork=True)
        stack.callback(embedded.stop)
        embedded.start()
        yield embedded


@contextmanager
def connected(
    embedded: EmbeddedServer | None, settings: Settings, say: Callable[[str], None]
) -> Iterator[Connection]:
    """Yield the server that this process reports to: ``embedded`` once it serves, else the configured one.

    ServerFault where the configured one does not answer or the embedded one does not start.
    """
    if embedded is None:
        configured = str(prefects_settings().api.url)
        _check_that_it_answers(configured, settings.server_answer_seconds)
        yield Connection(configured, embedded=False)
        return
    embedded.wait(settings.server_start_seconds, say)
    # The environment is for processes that this one starts: without it, one that imports Prefect would start
    # a server. They get no login, because none of them needs this server.
    # Heartbeats show a server which runs are dead, but this server ends with its run. Tokens against forged
    # requests protect browsers only. The server has the same version as the client.
    superfluous: dict[str, dict[str, object]] = {
        "client": {"csrf_support_enabled": False, "server_version_check_enabled": False},
        "flows": {"heartbeat_frequency": None},
    }
    with _environment({"PREFECT_API_URL": embedded.api_url}), speaking_to(embedded, superfluous):
        yield Connection(embedded.api_url, embedded=True)


@contextmanager
def speaking_to(
    server: EmbeddedServer, others: Mapping[str, Mapping[str, object]] | None = None
) -> Iterator[None]:
    """In this context, Prefect's clients in this process log in to ``server``; ``others`` are set too."""
    from pydantic import SecretStr

    from tasks.prefect_settings import changed_settings

    login = {"url": server.api_url, "auth_string": SecretStr(server.login)}
    with changed_settings({"api": login, **(others or {})}):
        yield


def configured_server(settings: Settings) -> Connection:
    """The configured server. UserMistake where none is configured, ServerFault where it does not answer."""
    os.environ.update({name: os.environ.get(name, value) for name, value in _DEFAULTS.items()})
    configured = prefects_settings().api.url
    from tasks.server_answers import drop_results

    drop_results()
    if not configured:
        raise UserMistake(
            "--deployment: this option needs a Prefect server; name the server with PREFECT_API_URL, such "
            "as PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    _check_that_it_answers(configured, settings.server_answer_seconds)
    return Connection(configured, embedded=False)


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in wanted:
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)


def _check_that_it_answers(api_url: str, timeout_seconds: float) -> None:
    """Raise UserMistake where the server asks for another login, ServerFault where it does not answer."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    impatient = {PREFECT_API_REQUEST_TIMEOUT: timeout_seconds, PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(impatient), get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
        if problem is None:
            # Its health is open to everybody; its version is open only after a login.
            try:
                client.api_version()
            except PrefectHTTPStatusError as refusal:
                if refusal.response.status_code != HTTPStatus.UNAUTHORIZED:
                    raise
                raise UserMistake(
                    f"the Prefect server at {api_url} asks for a login that this command lacks. Set "
                    "PREFECT_API_AUTH_STRING=user:password to the login that the server was started with"
                ) from None
    if problem is not None:
        raise ServerFault(
            f"the Prefect server at {api_url} does not answer ({str(problem) or type(problem).__name__}). "
            "Start it with `prefect server start`, correct PREFECT_API_URL, or unset PREFECT_API_URL "
            "(`prefect config unset PREFECT_API_URL`): the run then starts its own server"
        )


def deliver_reports(flow_run_id: UUID, timeout_seconds: float) -> None:
    """Send what Prefect's client still holds, and wait until the server has every task run's last state.

    The server learns the states of task runs from events that arrive later. If it stopped too soon, it would
    show them as running for ever. Raises nothing where the server does not answer: no result needs it.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.events.worker import EventsWorker
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.logging.handlers import APILogWorker

    from tasks.prefect_settings import retrying

    deadline = time.monotonic() + timeout_seconds
    EventsWorker.drain_all(timeout=timeout_seconds)
    APILogWorker.drain_all(timeout=max(0.1, deadline - time.monotonic()))
    ours = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    with (
        suppress(httpx.HTTPError, PrefectHTTPStatusError),
        retrying(0),
        get_client(sync_client=True) as client,
    ):
        known = -1
        while time.monotonic() < deadline:
            runs = client.read_task_runs(flow_run_filter=ours)
            # A task run is missing until its first event has arrived, so look again after a moment.
            if len(runs) == known and all(run.state is not None and run.state.is_final() for run in runs):
                return
            known = len(runs)
            time.sleep(0.1)
