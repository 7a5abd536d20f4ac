"""Evaluate: the figures as artifacts in Prefect's pages."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from assay.evaluate.evaluation import Evaluation
from assay.evaluate.tables import evaluation_markdown, figure_rows
from tasks.artifact_keys import Subject
from tasks.pages import where_reachable
from tasks.report import create_images, create_link
from tasks.table_cells import as_it_is


@task(name="report", task_run_name="report", persist_result=False, cache_policy=NO_CACHE)
def show_evaluation(
    evaluation: Evaluation, pictures: Mapping[str, Markup], link: str | None, subject: Subject
) -> None:
    """Show the evaluation in Prefect's pages. ``link``: where a browser finds its page; None: nowhere."""
    with where_reachable():
        if link:
            create_link(link, subject)
        create_images(pictures, subject)
        create_markdown_artifact(
            evaluation_markdown(evaluation),
            key=subject.key("evaluation"),
            description="The figures, and what to doubt",
        )
        rows = [
            # Names that the data and the operator give.
            {**row, "model": as_it_is(row["model"]), "figure": as_it_is(row["figure"])}
            for row in figure_rows(evaluation)
        ]
        create_table_artifact(
            rows,
            key=subject.key("figures"),
            description="Every figure of every model",
        )
