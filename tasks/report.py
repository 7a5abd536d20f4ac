"""Report: a run's summary, its pictures and a link to its page as artifacts in Prefect's pages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from markupsafe import Markup
from prefect import task
from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from assay.report.figures import address
from assay.report.summary import escaped, summary_markdown
from assay.storage.run_manifest import RunManifest
from tasks.artifact_keys import Subject
from tasks.pages import where_reachable

#: More pictures than a model has attributes make nobody wiser: the page shows all.
_MOST_PICTURES = 12
_ABOUT = {
    "flow": "Where the records went",
    "margins": "How far apart the best and the worst answer to a prompt are",
    "lengths": "How long the kept and the dropped answers are",
}


_OF_NOTHING_ELSE = Subject()


@task(name="report", task_run_name="report", persist_result=False, cache_policy=NO_CACHE)
def report(
    manifest: RunManifest,
    pictures: Mapping[str, Markup] | None = None,
    results_url: str | None = None,
    subject: Subject = _OF_NOTHING_ELSE,
) -> None:
    """Show in Prefect's pages what the run did: its summary, its pictures, a link to its page.

    ``results_url``: the address at which the operator serves the folders of results; None: there is none.
    ``subject``: what the artifacts are about, for their keys.
    """
    link = page_address(manifest, results_url)
    with where_reachable():
        linked = f"\n[The page of this run]({link})\n" if link else ""
        create_markdown_artifact(
            summary_markdown(manifest) + linked, key=subject.key("summary"), description="What the run did"
        )
        if link:
            create_link_artifact(
                link,
                key=subject.key("report"),
                link_text="report.html",
                description="The page of this run",
            )
        for key, picture, shows in _shown(pictures or {}):
            create_image_artifact(address(picture), key=subject.key(key), description=shows)


def page_address(manifest: RunManifest, results_url: str | None) -> str | None:
    """Where a browser finds the page; None where there is no page, or nobody serves it."""
    if results_url is None or manifest.report is None:
        return None
    return f"{results_url.rstrip('/')}/{quote(manifest.output.strip('/'))}/{manifest.report}"


def _shown(pictures: Mapping[str, Markup]) -> Iterator[tuple[str, Markup, str]]:
    """Yield the key, the picture and the description of each."""
    for name, picture in list(pictures.items())[:_MOST_PICTURES]:
        kind, _, of = name.partition(" ")
        # Prefect takes small letters, digits and dashes.
        key = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        yield key, picture, escaped(_ABOUT.get(kind, f"How the scores of {of} are spread"))
