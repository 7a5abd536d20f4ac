"""Cells of the tables in Prefect's pages, which may hold texts of the data."""

from __future__ import annotations

import re

#: Texts of these characters mean nothing else in Markdown; some of what looks like an address becomes a link.
#: Markdown's own marks are all ASCII, so typographic quotes, dashes and signs are safe.
_NO_MARKDOWN = re.compile(r"[^\W\d_](?:[^\W_]|[ .,;:'\"?!()%=>/+‘’“”„«»–—−…·×÷°€£-])*")
_LINKED = re.compile(r"://|www\.", re.IGNORECASE)


def as_it_is(text: str) -> str:
    """The text for a cell, which some of Prefect's pages render as Markdown and others show as it is.

    A text that Markdown would change, or make a link or a picture of, becomes code, which is shown as it is.

    >>> as_it_is("rule: helpfulness >= 2"), as_it_is("[x](javascript:y)"), as_it_is("a `b`")
    ('rule: helpfulness >= 2', '`[x](javascript:y)`', '`` a `b` ``')
    >>> as_it_is("It isn’t 20 °C – it is “−1”…")
    'It isn’t 20 °C – it is “−1”…'
    """
    if not text or (_NO_MARKDOWN.fullmatch(text) and not _LINKED.search(text)):
        return text
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (1 + max(map(len, re.findall("`+", text))))
    return f"{fence} {text} {fence}"
