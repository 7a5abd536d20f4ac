"""The words that options of selecting take. They stand apart, so that options are read without polars."""

from __future__ import annotations

from typing import Literal

#: What a turn that fails a rule costs.
OnFail = Literal["drop", "truncate", "mask"]
#: Which records say the same: those with equal texts, or with nearly equal ones.
Dedup = Literal["exact", "near"]
#: The text that is compared: the last answer, all before it, or both.
Over = Literal["answer", "prompt", "whole"]
#: How large the parts of a target are.
Quota = Literal["proportional", "equal"]
