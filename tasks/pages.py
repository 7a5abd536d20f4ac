"""Artifacts in Prefect's pages. A run needs none: without a server it goes on without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from tasks.prefect_settings import retrying


@contextmanager
def where_reachable() -> Iterator[None]:
    """In this context, ignore that the server is away, or that somebody deleted the run there.

    Prefect's client retries once, for a few seconds. By default it would retry for a minute at each call, and
    then fail a stage whose work is done.
    """
    with retrying(1), suppress(httpx.HTTPError, PrefectHTTPStatusError, ObjectNotFound):
        yield
