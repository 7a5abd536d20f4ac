"""Report: a run's summary, its pictures and a link to its page as artifacts in Prefect's pages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from urllib.parse import quote

from markupsafe import Markup
from prefect import task
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.cache_policies import NO_CACHE

from assay.report.build import Reported
from assay.report.figures import address
from assay.report.sample import ShownConversation, ShownKind
from assay.report.summary import escaped, summary_markdown
from assay.storage.run_manifest import REPORT, RunManifest
from tasks.artifact_keys import Subject
from tasks.pages import where_reachable
from tasks.table_cells import as_it_is

#: More pictures than a model has attributes make nobody wiser: the page shows all.
_MOST_PICTURES = 12
#: The page shows more of them, each as a whole.
_MOST_EXAMPLES = 100
_EXAMPLE_CHARACTERS = 160
#: The most characters of a reason. A column is as wide as its longest text, and pushes others out of sight.
_REASON_CHARACTERS = 48
_ABOUT = {
    "flow": "Where the records went",
    "margins": "Best less worst score, by prompt",
    "lengths": "How long kept and dropped answers are",
}
_ABOUT_ONE = {
    "scores": "How the scores of {} are spread",
    "accuracies": "How often {} is right, and how often the longer answer is",
    "by-margin": "How often {} is right by the margin of two scores",
}

_OF_NOTHING_ELSE = Subject()
_NO_PAGE = Reported()


@task(name="report", task_run_name="report", persist_result=False, cache_policy=NO_CACHE)
def report(
    manifest: RunManifest,
    page: Reported = _NO_PAGE,
    results_url: str | None = None,
    subject: Subject = _OF_NOTHING_ELSE,
) -> None:
    """Show in Prefect's pages what the run did: its summary, its pictures and examples, a link to its page.

    ``results_url``: the address at which the operator serves the folders of results; None: there is none.
    ``subject``: what the artifacts are about, for their keys.
    """
    link = page_address(manifest.output, results_url) if manifest.report else None
    with where_reachable():
        linked = f"\n[The page of this run]({link})\n" if link else ""
        create_markdown_artifact(
            summary_markdown(manifest) + linked, key=subject.key("summary"), description="What the run did"
        )
        if link:
            create_link(link, subject)
        create_images(page.pictures, subject)
        if rows := examples(page.kinds):
            about = "What was kept or dropped, and why"
            create_table_artifact(rows, key=subject.key("examples"), description=about)


def page_address(output: str, results_url: str | None) -> str | None:
    """Where a browser finds the page in this folder; None where nobody serves it."""
    return None if results_url is None else f"{results_url.rstrip('/')}/{quote(output.strip('/'))}/{REPORT}"


def create_link(link: str, subject: Subject) -> None:
    """An artifact that leads to the page."""
    create_link_artifact(
        link, key=subject.key("report"), link_text=REPORT, description="The page of this run"
    )


def create_images(pictures: Mapping[str, Markup], subject: Subject) -> None:
    """An artifact for each of the first pictures."""
    for name, picture in list(pictures.items())[:_MOST_PICTURES]:
        kind, _, of = name.partition(" ")
        # Prefect takes small letters, digits and dashes.
        key = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        about = _ABOUT.get(kind) or _ABOUT_ONE[kind].format(of)
        create_image_artifact(address(picture), key=subject.key(key), description=escaped(about))


def examples(kinds: Sequence[ShownKind]) -> list[dict[str, str]]:
    """A row for each conversation that the page shows, with its outcome and with texts cut short."""
    # Wide tables are cut at the right: what a reader looks for comes first.
    conversations = [
        {
            "outcome": one.outcome,
            "score": _scores(one) if one.why == one.outcome else one.why,
            "place": _place(one.file, one.line),
            "reason": _short(one.reason or "", _REASON_CHARACTERS),
            **_last_words(one),
            "shown as": kind.title,
        }
        for kind in kinds
        for one in kind.conversations
    ]
    originals = [
        {
            "outcome": "quarantined",
            "score": "",
            "place": _place(one.file, one.line),
            "reason": _short(one.reason, _REASON_CHARACTERS),
            "answer": _short(one.text),
            "before": "",
            "shown as": kind.title,
        }
        for kind in kinds
        for one in kind.originals
    ]
    rows = [*conversations[: _MOST_EXAMPLES - len(originals)], *originals]
    return [{name: as_it_is(text) for name, text in row.items()} for row in rows]


def _scores(conversation: ShownConversation) -> str:
    """The scores of the last turn: ``quality 2.53, helpfulness 2.24``."""
    turns = [one for one in conversation.messages if one.turn is not None]
    found = turns[-1].scores if turns else ()
    return ", ".join(f"{name} {score:.4g}" for name, score in found if score is not None)


def _last_words(conversation: ShownConversation) -> dict[str, str]:
    """The last turn, and what was said before it."""
    messages = conversation.messages
    last = max((place for place, one in enumerate(messages) if one.turn is not None), default=None)
    if last is None:
        return {"answer": "", "before": _short(messages[-1].text) if messages else ""}
    before = messages[last - 1].text if last else ""
    return {"answer": _short(messages[last].text), "before": _short(before)}


def _place(file: str, line: int) -> str:
    return f"{PurePath(file).name}:{line}"


def _short(text: str, most: int = _EXAMPLE_CHARACTERS) -> str:
    words = " ".join(text.split())
    return words if len(words) <= most else f"{words[:most]} …"
