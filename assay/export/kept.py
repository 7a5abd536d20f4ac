"""What an export is given: kept records with the scores of their turns, a block or an item at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import polars as pl

from assay.core.schema import Conversation
from assay.export.turned import IS_CUT, MASKED_TURNS, WEIGHT
from assay.rewards.scalar import scalar_among
from assay.select.judge import MASKED
from assay.storage.conversations import FieldKind, conversation_of, merged_kinds
from assay.storage.manifests import Converted, Filtered

_DECODE_LABELS = msgspec.json.Decoder(list[str | None]).decode

#: Where the formats that read pairs write the side.
_SIDE = "assay_side"
_SIDES = {b'"chosen"': "chosen", b'"rejected"': "rejected"}


class _Rest(msgspec.Struct):
    assay_side: msgspec.Raw = msgspec.Raw(b"null")


_DECODE_SIDE = msgspec.json.Decoder(_Rest).decode


class Held(NamedTuple):
    """What the records of a run hold beside the roles and contents of messages.

    Every row of a file has the same keys, so a row is made of this as well as of its record.
    """

    fields: Mapping[str, FieldKind] = MappingProxyType({})
    """Fields of messages, by name."""
    tools: bool = False
    """Whether any record has tools."""

    @classmethod
    def in_records(cls, converted: Converted) -> Held:
        """What these records hold, whatever becomes of them."""
        return cls(converted.fields, converted.with_tools > 0)

    def in_kept(self, filtered: Filtered) -> Held:
        """What those of them hold that are kept: a rule may mask a turn of theirs."""
        if not filtered.turns.get(MASKED):
            return self
        return self._replace(fields=merged_kinds(self.fields, {WEIGHT: "whole"}))


NOTHING = Held()

#: The column of ``KeptRecords.scores`` with what the run orders answers by, where it names that.
ORDER = ".order"


class KeptRecords(NamedTuple):
    """A bounded block of kept records of one file, in input order. Every turn has its scores."""

    file: str
    attributes: tuple[str, ...]
    """Empty where the run stops before scoring."""
    records: pl.DataFrame
    """``row``, ``line``, ``part``, ``roles``, ``messages`` (a JSON array), ``labels`` (a JSON array, or
    null), ``rest`` (a JSON object, or null), ``nemo_prompt``, ``tools`` (a JSON array, or null): as
    ``ConvertedPiece`` has them, but without turns that were cut. ``masked``: the numbers of the turns that
    are not to be trained on; null or empty where there are none. ``is_cut``: whether turns were cut. No such
    columns where no turn can be masked or cut.
    ``desirable``: whether the run's rule on that holds of the last answer, or null."""
    scores: pl.DataFrame
    """``row``, ``turn``, a Float32 column an attribute, and ``given`` (what people gave the turn: a JSON
    object of numbers, or null); the records' turns, ordered. ``ORDER`` where the run names an order."""
    some_have_rest: bool = False
    """Whether any record of the run came with other fields than its messages."""
    given: tuple[str, ...] = ()
    """What people gave any turn of the run: ``given.NAME``, sorted."""
    held: Held = NOTHING
    """Of all records of the run."""

    def given_numbers(self) -> pl.Expr:
        """Of each of the ``scores`` a struct: of each ``given.NAME`` a Float64, or null."""
        return pl.col("given").str.json_decode(pl.Struct(dict.fromkeys(self.given, pl.Float64)))

    @property
    def one_number(self) -> str | None:
        """Which of the ``scores`` is ``score``: the model's one number, else what the run orders by."""
        scalar = scalar_among(self.attributes)
        return ORDER if scalar is None and ORDER in self.scores.columns else scalar

    @property
    def ranked_by(self) -> str | None:
        """Which of the ``scores`` ranks answers: what the run orders by, else the model's one number."""
        return ORDER if ORDER in self.scores.columns else scalar_among(self.attributes)

    @property
    def have_masks(self) -> bool:
        """Whether a turn of any of the records is masked."""
        return MASKED_TURNS in self.records.columns and bool(self.records[MASKED_TURNS].list.len().sum())

    def only(self, wanted: pl.Series) -> KeptRecords:
        """The records at which ``wanted`` is true, with their scores."""
        if wanted.all(ignore_nulls=False):
            return self
        records = self.records.filter(wanted)
        scores = self.scores.join(records.select("row"), on="row", how="semi", maintain_order="left")
        return self._replace(records=records, scores=scores)


def are_plain(records: pl.DataFrame) -> pl.Series:
    """Which records hold messages of a role and a content alone, no tools, and no turn that is masked.

    ``records`` are those of ``KeptRecords``.

    Found in the text: ``","`` stands behind a message's role, and behind its content where another field
    follows. A content can hold it too, at its end; such a record does not count as plain.
    """
    messages = pl.col("messages")
    count = pl.col("roles").str.len_bytes()
    is_plain = (
        (messages.str.count_matches('","', literal=True) == count)
        & (messages.str.count_matches('","content":"', literal=True) == count)
        & pl.col("tools").is_null()
        & pl.col("nemo_prompt").is_null()
    )
    if MASKED_TURNS in records.columns:
        is_plain &= pl.col(MASKED_TURNS).list.len().fill_null(0) == 0
    return records.select(is_plain.alias("plain"))["plain"]


class Item(NamedTuple):
    """A kept record."""

    file: str
    line: int
    part: int
    roles: str
    """A letter a message: ``suaua``, and ``c`` for an assistant's call of tools."""
    messages: Conversation
    labels: list[str | None] | None
    """Those that it came with, one a message; None where it came with none."""
    attributes: tuple[str, ...]
    scores: list[tuple[float, ...]]
    """Of each turn a number an attribute. Empty where the run stops before scoring."""
    rest: str | None
    """The other fields of the input row as one JSON object, to the digit as they were written."""
    nemo_prompt: str | None = None
    """NeMo-Aligner's text of all between the system message and the last, where the input had it so."""
    tools: str | None = None
    """The tools that the assistant could call, as a JSON array."""
    held: Held = NOTHING
    """Of all records of the run."""
    desirable: bool | None = None
    """Whether the run's rule on that holds for the last answer; None without a rule."""
    masked: tuple[int, ...] = ()
    """Numbers of the turns that a rule makes context: they are not to be trained on."""
    is_cut: bool = False
    """Whether a rule cut its last turns."""

    @property
    def side(self) -> str | None:
        """``chosen`` or ``rejected``, where the record is one side of a person's pair; else None.

        A record that is cut ends with another answer than the person saw.
        """
        if self.is_cut or self.rest is None or _SIDE not in self.rest:
            return None
        return _SIDES.get(bytes(_DECODE_SIDE(self.rest).assay_side).strip())

    @property
    def verdict(self) -> bool | None:
        """Whether the last answer is a good one: as a person chose, else as the run's rule says; None where
        neither does."""
        side = self.side
        return self.desirable if side is None else side == "chosen"


def items_of(kept: KeptRecords) -> Iterator[Item]:
    """Yield the records of a block one by one; ValueError where its scores are not of its turns."""
    if kept.attributes and kept.scores["row"].to_list() != _rows_of_turns(kept.records):
        raise ValueError(f"{kept.file}: the scores run out of step with the records")
    scores = kept.scores.select(kept.attributes).iter_rows()
    there = kept.records.columns
    changed = (
        MASKED_TURNS if MASKED_TURNS in there else pl.lit(None).alias(MASKED_TURNS),
        IS_CUT if IS_CUT in there else pl.lit(False).alias(IS_CUT),
    )
    columns = kept.records.select(
        "line", "part", "roles", "messages", "labels", "rest", "nemo_prompt", "tools", "desirable", *changed
    )
    for row in columns.iter_rows():
        line, part, roles, messages, labels, rest, nemo_prompt, tools, desirable, masked, is_cut = row
        yield Item(
            kept.file,
            line,
            part,
            roles,
            conversation_of(messages),
            None if labels is None else _DECODE_LABELS(labels),
            kept.attributes,
            list(islice(scores, roles.count("a"))),
            rest,
            nemo_prompt,
            tools,
            kept.held,
            desirable,
            tuple(masked or ()),
            is_cut,
        )


def turns_of(item: Item) -> Iterator[Item]:
    """Yield an item a turn: the messages through it, with the scores through it."""
    turn = 0
    for number, letter in enumerate(item.roles, start=1):
        if letter == "a":
            turn += 1
            yield item._replace(
                roles=item.roles[:number],
                messages=item.messages[:number],
                labels=None if item.labels is None else item.labels[:number],
                scores=item.scores[:turn],
                nemo_prompt=item.nemo_prompt if number == len(item.messages) else None,
                # A turn before it is context here, masked or not.
                masked=(turn - 1,) if turn - 1 in item.masked else (),
            )


def _rows_of_turns(records: pl.DataFrame) -> list[int]:
    turns = zip(records["row"], records["roles"], strict=True)
    return [row for row, roles in turns for _ in range(roles.count("a"))]
