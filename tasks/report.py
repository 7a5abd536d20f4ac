"""Report: the run's summary as an artifact in Prefect's pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import PrefectHTTPStatusError

from assay.report import summary_markdown


@task(name="report", task_run_name="report", persist_result=False, cache_policy=NO_CACHE)
def report(manifest: Mapping[str, Any]) -> None:
    """Show what happened. The results are in place by now, so a server that is away is no fault."""
    try:
        create_markdown_artifact(summary_markdown(manifest), key="summary", description="What the run did")
    except (httpx.HTTPError, PrefectHTTPStatusError):
        return
