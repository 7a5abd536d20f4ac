"""By which key an artifact of a run is kept: Prefect's pages show all artifacts of a key as one history."""

from __future__ import annotations

import re
from dataclasses import dataclass

from assay.core.digests import digest_of_bytes

_LONGEST = 80
_DIGITS = 8
#: ``ROOT/NAME``, or one name. No two of these are alike with ``-`` in place of ``/``.
_PLAIN = re.compile(r"(?:[a-z0-9]+/)?[a-z0-9]+(?:-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Subject:
    """What artifacts are about, so that those of other data have other keys."""

    output: str = ""
    """The folder of the results, as the person named it."""
    model: str = ""
    """What the run calls the model, where it has several."""

    def key(self, kind: str) -> str:
        """The key of an artifact of this kind. It is the same in every run to this output.

        >>> Subject("results/first").key("summary"), Subject("results/2026-03-01", "judge").key("scores")
        ('summary-results-first', 'scores-results-2026-03-01-judge')
        """
        return "-".join(filter(None, [kind, _slug(self.output), _slug(self.model)]))


def _slug(name: str) -> str:
    """The name in the letters that a key may have, with a digest where that could make two names alike."""
    if _PLAIN.fullmatch(name) and len(name) <= _LONGEST:
        return name.replace("/", "-")
    if not name:
        return ""
    digest = digest_of_bytes(name.encode(errors="surrogateescape"))[:_DIGITS]
    last = re.sub(r"[^a-z0-9]+", "-", name.lower().rstrip("/").rpartition("/")[2])[:_LONGEST]
    return f"{last.strip('-')}-{digest}".removeprefix("-")
