"""``labeled.jsonl``: SteerLM rows, every assistant turn labelled by its scores. NeMo-Aligner loads it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from assay.core import steerlm
from assay.core.labels import label_from_scores
from assay.core.schema import ATTRIBUTES, Message
from assay.export.kept import KeptRecords, Lines

_DECODE = msgspec.json.Decoder(list[Message]).decode


def lines(kept: KeptRecords) -> Lines:
    """A SteerLM row a record; scores become whole numbers 0-4 in ``assay.core.steerlm`` alone."""
    scores = zip(kept.scores["row"], kept.scores.select(kept.attributes).iter_rows(), strict=True)
    parts: list[bytes] = []
    for row, messages_json in kept.records.select("row", "messages").iter_rows():
        messages = _DECODE(messages_json)
        labels: list[str | None] = []
        for message in messages:
            if message.role != "assistant":
                labels.append(None)
                continue
            scored_row, values = next(scores)
            if scored_row != row:
                raise ValueError(f"the scores run out of step with the records at row {row}")
            labels.append(label_from_scores(kept.attributes, values))
        parts.append(steerlm.to_line(messages, labels))
    return Lines(b"".join(parts), len(parts))


def refusal(attributes: Sequence[str]) -> str | None:
    """Why a model of these attributes cannot label SteerLM rows; None where it can."""
    if any(attribute in ATTRIBUTES for attribute in attributes):
        return None
    return (
        f"it writes labels such as helpfulness:3, and this model rates {', '.join(attributes)}, which is "
        f"none of SteerLM's attributes ({', '.join(ATTRIBUTES)}). Write the raw scores with "
        "`--export messages`, or rate with an attribute model"
    )
