"""Artifacts in Prefect's pages: shown where the server can be reached, missed by nobody where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
from prefect.context import SettingsContext, get_settings_context
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError


@contextmanager
def where_reachable() -> Iterator[None]:
    """Within, it is no fault that the server is away, or that somebody deleted the run there.

    Prefect's client retries once, a few seconds. By itself it would retry for a minute, each time, and then
    fail a stage whose work is done.
    """
    with retrying(1), suppress(httpx.HTTPError, PrefectHTTPStatusError, ObjectNotFound):
        yield


@contextmanager
def retrying(times: int) -> Iterator[None]:
    """Within, Prefect's clients send a request that failed so many times again.

    Prefect's ``temporary_settings`` would read all settings anew, which takes longer than a request.
    """
    context = get_settings_context()
    client = context.settings.client.model_copy(update={"max_retries": times})
    settings = context.settings.model_copy(update={"client": client})
    with SettingsContext(profile=context.profile, settings=settings):
        yield
