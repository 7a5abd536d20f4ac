"""Kept records of which a turn failed: cut before it, or with a mark on it."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import polars as pl

from assay.core.schema import Message
from assay.select.judge import CUT, MASKED

#: The column of kept records that names the turns which are context and not to be trained on.
MASKED_TURNS = "masked"
#: The column that says of which of them turns were cut.
IS_CUT = "is_cut"
#: Fields by which people say that a message is not to be learned: OpenAI's, Axolotl's, ms-swift's.
WEIGHT = "weight"
MASKS = frozenset({WEIGHT, "train", "loss"})
#: Reason code of a record with such a turn, in a file that cannot hold one.
MASKED_TURN = "masked_turn"

_DECODE = msgspec.json.Decoder(list[msgspec.Raw]).decode
_DECODE_FIELDS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_DECODE_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_ENCODE = msgspec.json.Encoder().encode
_CONTENTS = ("messages", "labels")


def turned(records: pl.DataFrame, decided: pl.DataFrame | None) -> pl.DataFrame:
    """The records as they are kept: cut, and with ``MASKED_TURNS`` and ``IS_CUT``.

    ``decided`` is ``FilteredPiece.turns``; None where records are kept whole.
    """
    if decided is None:
        no_turn = pl.lit(None, pl.List(pl.UInt32)).alias(MASKED_TURNS)
        return records.with_columns(no_turn, pl.lit(False).alias(IS_CUT))
    changed = decided.group_by("row", maintain_order=True).agg(
        pl.col("turn").filter(pl.col("outcome") == CUT).min().alias("first_cut"),
        pl.col("turn").filter(pl.col("outcome") == MASKED).alias(MASKED_TURNS),
    )
    joined = records.join(changed, on="row", how="left", maintain_order="left").with_columns(
        pl.col("first_cut").is_not_null().alias(IS_CUT)
    )
    cuts = joined["first_cut"]
    if not cuts.null_count() < cuts.len():
        return joined.drop("first_cut")
    ends = [
        None if turns is None else _end_of_turn(roles, turns)
        for roles, turns in joined.select("roles", "first_cut").iter_rows()
    ]
    whole = pl.Series([end is None for end in ends])
    shorter = [
        # The text of all before the last turn, which is another one now.
        pl.when(whole).then("nemo_prompt").alias("nemo_prompt"),
        pl.Series("roles", [_first(roles, end) for roles, end in zip(joined["roles"], ends, strict=True)]),
        *(
            pl.Series(
                name, [_cut(text, end) for text, end in zip(joined[name], ends, strict=True)], pl.String
            )
            for name in _CONTENTS
        ),
    ]
    return joined.with_columns(shorter).drop("first_cut")


def turns_left(turns: pl.DataFrame, decided: pl.DataFrame | None) -> pl.DataFrame:
    """The turns that were not cut."""
    if decided is None:
        return turns
    cut = decided.filter(pl.col("outcome") == CUT).select("row", "turn")
    return turns.join(cut, on=["row", "turn"], how="anti", maintain_order="left")


def weighed(roles: str, messages: str, masked: Collection[int]) -> str:
    """The JSON array of messages, each masked turn with ``"weight":0``, as OpenAI's fine-tuning has it."""
    found = _DECODE_FIELDS(messages)
    turns = [number for number, role in enumerate(roles) if role == "a"]
    for turn in masked:
        found[turns[turn]]["weight"] = msgspec.Raw(b"0")
    return _ENCODE(found).decode()


def partial_weight(message: Message) -> str | None:
    """The message's weight as its JSON, where it is neither 0 nor 1; None where it is, or there is none."""
    carried = message.fields.carried
    if carried is None or f'"{WEIGHT}"' not in carried:
        return None
    weight = bytes(_DECODE_OBJECT(carried).get(WEIGHT, b"null")).decode()
    return None if weight in {"true", "false", "null"} or number_in(weight) in {0, 1} else weight


def number_in(text: str) -> float | None:
    """The number that a JSON text is; None for any other."""
    try:
        return float(text)
    except ValueError:
        return None


def _end_of_turn(roles: str, turns: int) -> int:
    """How many messages a record has through its first so many turns."""
    end = 0
    for _ in range(turns):
        end = roles.index("a", end) + 1
    return end


def _first(text: str, end: int | None) -> str:
    return text if end is None else text[:end]


def _cut(array: str | None, end: int | None) -> str | None:
    """The first entries of a JSON array; each stays as it was written."""
    if array is None or end is None:
        return array
    return _ENCODE(_DECODE(array)[:end]).decode()
