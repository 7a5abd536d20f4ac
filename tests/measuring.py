"""Values as rules see them, of records that are made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from handmade import HELPSTEER, Made

from assay.select.columns import attribute
from assay.select.expressions import NamedColumn
from assay.select.frames import Dataset, ToMeasure
from assay.select.kinds import Dedup, OnFail, Over, Quota
from assay.select.measure import beside_turns, measured
from assay.select.parser import parsed_number, parsed_rule
from assay.select.vocabulary import Vocabulary


class Options(TypedDict, total=False):
    """Options of ``parse_selection``."""

    group: str
    on_fail: OnFail
    target: str
    by: str
    per: str
    quota: Quota
    allow_cross_prompt: bool
    dedup: Dedup
    dedup_over: Over
    near: float
    decontaminate: Sequence[str]


def words(attributes: tuple[str, ...] = HELPSTEER) -> Vocabulary:
    return Vocabulary(attributes, {}, {}, attribute(attributes[0]).column)


def values(made: Made, text: str, group: NamedColumn | None = None) -> list[float | str | bool | None]:
    """A value a scored record, in order; of a turn's value that of the last turn."""
    value = parsed_number(text, words(made.scored.attributes), option="--by").value
    with measured(Dataset(made.converted, made.scored, ToMeasure((value,), group), made.home)) as found:
        return [one for frames in found.frames for one in frames.records[value.measured]]


def values_of_turns(made: Made, text: str) -> list[list[float | None]]:
    """A list of its turns' values for each scored record, where percentiles are among turns."""
    value = parsed_number(text, words(made.scored.attributes), option="--by").value
    wanted = ToMeasure((value,), by_turn=True)
    found: list[list[float | None]] = []
    with measured(Dataset(made.converted, made.scored, wanted, made.home)) as all_of_them:
        for frames in all_of_them.frames:
            turns = beside_turns(frames, [value.measured])
            for part in turns.partition_by("row", maintain_order=True):
                found.append(part[value.measured].to_list())
    return found


def outcomes(made: Made, text: str, group: NamedColumn | None = None) -> list[bool | None]:
    """Whether the rule holds for each scored record: true, false, or None where it is open."""
    predicate = parsed_rule(text, words(made.scored.attributes)).predicate
    with measured(Dataset(made.converted, made.scored, ToMeasure((predicate,), group), made.home)) as found:
        return [
            one
            for frames in found.frames
            for one in frames.records.select(predicate.expression().alias("x"))["x"]
        ]


def notes(made: Made, text: str, group: NamedColumn | None = None) -> tuple[str, ...]:
    """What a person is to know of the rule."""
    predicate = parsed_rule(text, words(made.scored.attributes)).predicate
    with measured(Dataset(made.converted, made.scored, ToMeasure((predicate,), group), made.home)) as found:
        for _ in found.frames:
            pass
        return found.notes()
