"""``sharegpt``: ``{"conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}, …]}``.

A message may have ``role`` and ``content`` instead. A speaker has one of the names in ``names.SPEAKERS``,
in any case; a ``function_call`` is the assistant's call of tools. Another name quarantines the record.
NeMo-Aligner's rows have the same field, and are read as ``steerlm_rows`` says.

Policy: messages are kept as given, also with a system message in the middle, an assistant first (common here:
long conversations were split), or the same role twice. Empty or null content is quarantined; a system message
without content is none.
"""

from __future__ import annotations

from assay.read.formats import steerlm_rows
from assay.read.formats.chats import BESIDE
from assay.read.formats.reading import Alone, Format, Row, kind_of


def fits(row: Row) -> bool:
    """Whether ``conversations`` is a list."""
    return kind_of(row, "conversations") == "["


SHAREGPT = Format(
    "sharegpt",
    (frozenset({"conversations"}),),
    fits,
    steerlm_rows.read,
    beside=BESIDE,
    alone=Alone("conversations", steerlm_rows.plain_texts),
)
