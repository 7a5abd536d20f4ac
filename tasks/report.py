"""Report: the run's summary as an artifact in Prefect's pages."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from assay.report.summary import summary_markdown
from assay.storage.run_manifest import RunManifest
from tasks.pages import where_reachable


@task(name="report", task_run_name="report", persist_result=False, cache_policy=NO_CACHE)
def report(manifest: RunManifest) -> None:
    """Show in Prefect's pages what the run did."""
    with where_reachable():
        create_markdown_artifact(summary_markdown(manifest), key="summary", description="What the run did")
