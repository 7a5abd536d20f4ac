"""What a deployment's run is called, and the day that it is for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from prefect.context import FlowRunContext

_DAY = "{day}"

#: How the names begin that the form of Prefect's pages proposes, after stars. Its newer pages propose an
#: adjective and an animal, as in ``Incredible-Grouse``.
_LETTERS = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|tau|upsilon"
    "|phi|chi|psi|omega"
)
_PROPOSED = re.compile(rf"(?:{_LETTERS})\d*(?:-[a-z]+)+|[A-Z][a-z]+-[A-Z][a-z]+")


def named_after(words: Callable[[Any], str]) -> Callable[[], str]:
    """A ``flow_run_name``: the words for the run's options, unless a person has given the run a name."""

    def name() -> str:
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:
            return ""
        given = context.flow_run.name
        if not is_made_up(given):
            return given
        return with_day(words((context.parameters or {})["options"]), day_of_the_run())

    return name


def is_made_up(name: str) -> bool:
    """Whether Prefect has made up this name: its server from a list of words, or its pages after a star.

    >>> is_made_up("diamond-bullmastiff"), is_made_up("alpha3-canis-majoris"), is_made_up("first-try")
    (True, True, False)
    """
    return bool(_PROPOSED.fullmatch(name)) or (set(name.split("-")) <= _words() and name.count("-") == 1)


def _words() -> frozenset[str]:
    """The words of the names that Prefect's server makes up."""
    from coolname.data import config

    kinds: Mapping[str, Any] = config
    lists = (kind["words"] for kind in kinds.values() if kind["type"] == "words")
    return frozenset(word for words in lists for word in words)


def day_of_the_run() -> date:
    """The day, in UTC, for which the run was planned. A retry has the same."""
    context = FlowRunContext.get()
    planned = context.flow_run.expected_start_time if context and context.flow_run else None
    return (planned or datetime.now(UTC)).astimezone(UTC).date()


def with_day(text: str, day: date) -> str:
    """The text, with the day in place of ``{day}``.

    >>> with_day("results/{day}", date(2026, 3, 1))
    'results/2026-03-01'
    """
    return text.replace(_DAY, day.isoformat())
