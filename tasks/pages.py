"""Artifacts in Prefect's pages: shown where the server can be reached, missed by nobody where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from tasks.prefect_settings import retrying


@contextmanager
def where_reachable() -> Iterator[None]:
    """Within, it is no fault that the server is away, or that somebody deleted the run there.

    Prefect's client retries once, a few seconds. By itself it would retry for a minute, each time, and then
    fail a stage whose work is done.
    """
    with retrying(1), suppress(httpx.HTTPError, PrefectHTTPStatusError, ObjectNotFound):
        yield
