"""``nemo_texts``: NeMo-Aligner's rows for reward models, a conversation in one text with markers.

``{"text": "<extra_id_0>System\\n…<extra_id_1>User\\n…<extra_id_1>Assistant\\n…\\n<extra_id_2>", "label": [9
numbers]}``, as process_to_regression_format.py writes them; -100 stands for an attribute without a value. The
label belongs to the last turn. The label is carried along too. A text that a chat template has rendered
(``<|im_start|>user\n…``) is read as well.
"""

from __future__ import annotations

import msgspec

from assay.core.labels import label_from_ratings
from assay.core.schema import ATTRIBUTES
from assay.core.steerlm import NO_VALUE
from assay.read.formats.names import Names
from assay.read.formats.nemo_markers import is_marked, marked_messages
from assay.read.formats.reading import Draft, Format, MissingField, Row, decoded, kind_of, text_of
from assay.read.formats.rendered import end_of, rendered_messages

_TEXT, _LABEL = "text", "label"
_KEYS = frozenset({_TEXT})
_DECODE_VALUES = msgspec.json.Decoder(list[float]).decode
_DECODE_TEXT = msgspec.json.Decoder(str).decode


def read(row: Row, names: Names) -> list[Draft]:
    """One record."""
    text = decoded(row, _TEXT, _DECODE_TEXT)
    if not fits(row):
        raise MissingField("prompt")
    if not is_marked(text):
        return [Draft(rendered_messages(text, names), _KEYS)]
    messages, labels = marked_messages(text, names)
    values: dict[str, float] = {}
    if kind_of(row, _LABEL) == "[":
        given = decoded(row, _LABEL, _DECODE_VALUES)
        if len(given) == len(ATTRIBUTES):
            pairs = zip(ATTRIBUTES, given, strict=True)
            values = {name: value for name, value in pairs if value != NO_VALUE}
    if values and messages and messages[-1].role == "assistant":
        labels[-1] = label_from_ratings(values)
    has_label = any(label is not None for label in labels)
    return [Draft(messages, _KEYS, labels if has_label else None, values)]


def fits(row: Row) -> bool:
    """Whether the text begins with a speaker's marker."""
    if kind_of(row, _TEXT) != '"':
        return False
    text = text_of(row, _TEXT) or ""
    return is_marked(text) or end_of(text) is not None


NEMO_TEXTS = Format("nemo_texts", (_KEYS,), fits, read, beside=frozenset({_LABEL}))
