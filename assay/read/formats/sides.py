"""Which side of a comparison a record is on, as ``rest`` says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Raw

Side = Literal["chosen", "rejected"]

CHOSEN: Mapping[str, Raw] = {"assay_side": Raw(b'"chosen"')}
REJECTED: Mapping[str, Raw] = {"assay_side": Raw(b'"rejected"')}
NO_SIDE: Mapping[str, Raw] = {}
