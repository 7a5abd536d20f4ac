"""How records are chosen, besides by rules: what makes a group, what a failing turn costs, how many stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from assay.core.digests import digest_of_file
from assay.core.errors import UserMistake
from assay.core.versions import installed
from assay.rewards.scalar import scalar_among
from assay.select import columns
from assay.select.comparing import why_no_order
from assay.select.contamination import evaluation_files
from assay.select.expressions import NamedColumn, Value, ValueKind
from assay.select.kinds import Dedup, OnFail, Over, Quota
from assay.select.parser import parsed_column, parsed_number
from assay.select.rules import Rules
from assay.select.token_counts import TokenizerPlace
from assay.select.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Target:
    """How many of the records that are left are kept."""

    text: str
    """As it was written."""
    records: int | None
    """So many; None where it is a share."""
    share: Fraction | None = None
    """Between 0 and 1; None where it is a number."""

    def of(self, records: int) -> int:
        """How many of so many records are kept; a share is rounded down.

        >>> parsed_target("20%").of(14), parsed_target("5000").of(14)
        (2, 14)
        """
        if self.share is not None:
            return int(self.share * records)
        return records if self.records is None else min(records, self.records)


@dataclass(frozen=True, slots=True)
class Budget:
    """A number of records instead of a threshold: the best are kept."""

    target: Target
    by: Value
    """What is best: the largest."""
    per: NamedColumn | None = None
    """Each value of it has a part of the target; None: one part."""
    quota: Quota = "proportional"
    """The parts are as large as what is left of each value, or equal."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Which records say the same, and which of them stays."""

    kind: Dedup
    over: Over = "whole"
    near: float = 0.8
    """The share of word shingles that two texts have in common at least, for ``near``."""
    by: Value | None = None
    """The record with the largest stays; None: the first of the input."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a run decides by, besides its rules. Without anything, every record that rules pass is kept."""

    group: NamedColumn | None = None
    """The field whose equal values make a group; None: equal messages before the turn."""
    on_fail: OnFail = "drop"
    """What becomes of a record of which a turn fails a rule."""
    budget: Budget | None = None
    duplicates: Duplicates | None = None
    evaluation: tuple[str, ...] = ()
    """Files of evaluation data; a record that shares thirteen words with one of them is dropped."""
    tokenizers: Mapping[str, TokenizerPlace] = field(default_factory=dict)
    """The models', to count the tokens of an answer, by column. A model's fingerprint covers its own."""
    sides_by: Value | None = None
    """What ``agrees`` and ``given_margin`` compare by, where somebody chose it."""

    order: Value | None = None
    """What orders answers in the files: what ``--by`` names, a number a turn; None where nobody chose it."""

    @property
    def by(self) -> Value | None:
        """What orders records or answers, whatever that is for; None where nothing is ordered."""
        budget, duplicates = self.budget, self.duplicates
        of_records = budget.by if budget is not None else duplicates.by if duplicates is not None else None
        return of_records if of_records is not None else self.order

    @property
    def looks_at_what_is_left(self) -> bool:
        """Whether records are dropped for what other records there are, once the rules are applied."""
        return self.budget is not None or self.duplicates is not None or bool(self.evaluation)

    @property
    def of_verdicts(self) -> Selection:
        """What verdicts on answers are decided by: rules alone, in the same groups, with the same sides.

        Where a failing turn does not cost its record, there is a verdict on every turn, since a record may be
        cut: a turn that is masked is no good one.
        """
        on_fail: OnFail = "drop" if self.on_fail == "drop" else "mask"
        return Selection(self.group, on_fail, tokenizers=self.tokenizers, sides_by=self.sides_by)

    @property
    def texts(self) -> tuple[str, ...]:
        """What is chosen besides rules, as options of a command line."""
        texts = [] if self.group is None else [f"--group {self.group}"]
        texts += [] if self.on_fail == "drop" else [f"--on-fail {self.on_fail}"]
        texts += [f"--decontaminate {Path(file).name}" for file in self.evaluation]
        if (one := self.duplicates) is not None:
            near = f" --near {one.near}" if one.kind == "near" else ""
            by = "" if one.by is None else f" --by {one.by}"
            texts.append(f"--dedup {one.kind} --dedup-over {one.over}{near}{by}")
        if (budget := self.budget) is not None:
            per = "" if budget.per is None else f" --per {budget.per} --quota {budget.quota}"
            texts.append(f"--target {budget.target.text} --by {budget.by}{per}")
        return tuple(texts)

    def depends_on(self) -> tuple[str, ...]:
        """What decisions depend on besides the rules; nothing for a selection of nothing."""
        parts = []
        if self.group is not None:
            parts.append(f"group: {self.group}")
        if self.on_fail != "drop":
            parts.append(f"on_fail: {self.on_fail}")
        if (budget := self.budget) is not None:
            parts.append(f"target: {budget.target.text} by {budget.by}, {budget.quota} per {budget.per}")
        if (one := self.duplicates) is not None:
            version = installed("rensa")["rensa"] if one.kind == "near" else None
            parts.append(f"dedup: {one.kind} {one.over} {one.near!r} by {one.by}, rensa {version}")
        parts += [f"evaluation: {file} {digest_of_file(Path(file))}" for file in self.evaluation]
        if self.sides_by is not None:
            parts.append(f"sides by {self.sides_by}")
        if self.order is not None:
            parts.append(f"order: {self.order}")
        return tuple(parts)


def parsed_target(text: str) -> Target:
    """The target in ``text``: a number of records, or a share such as ``20%``; UserMistake for any other."""
    number = text.strip()
    try:
        if number.endswith("%"):
            share = Fraction(number[:-1].strip()) / 100
            if 0 < share <= 1 and "/" not in number:
                return Target(number, None, share)
        elif number.isascii() and number.replace("_", "").isdigit() and int(number) > 0:
            return Target(number, int(number))
    except (ValueError, ZeroDivisionError):
        pass
    raise UserMistake(f"--target {text!r}: write a number of records, such as 50000, or a share, such as 20%")


def parse_selection(
    vocabulary: Vocabulary,
    *,
    group: str | None = None,
    on_fail: OnFail = "drop",
    target: str | None = None,
    by: str | None = None,
    per: str | None = None,
    quota: Quota | None = None,
    allow_cross_prompt: bool = False,
    rules: Rules | None = None,
    dedup: Dedup | None = None,
    dedup_over: Over = "whole",
    near: float = 0.8,
    decontaminate: Sequence[str] = (),
    orders_files: bool = False,
) -> Selection:
    """The selection that options make; UserMistake for what contradicts itself or cannot be measured.

    ``orders_files``: whether files are written that need one number, which ``by`` then chooses.
    """
    field_of_group = parsed_group(group)
    order_of_files = vocabulary.order if by is not None and orders_files else None
    sides_by = vocabulary.order if by is not None and rules is not None and rules.compares_sides else None
    evaluation = evaluation_files(decontaminate)
    duplicates = None
    if dedup is not None:
        best = vocabulary.order if by is not None else None
        why = why_no_order(best) if best is not None and (dedup == "near" or dedup_over == "answer") else None
        if why is not None and not allow_cross_prompt:
            raise UserMistake(f"--dedup {dedup} by {best}: {why}.")
        duplicates = Duplicates(dedup, dedup_over, near, best)
    if target is None:
        uses_by = orders_files or sides_by is not None or duplicates is not None
        for option, value in (("--by", None if uses_by else by), ("--per", per), ("--quota", quota)):
            if value is not None:
                raise UserMistake(f"{option} {value}: says how a target is met; add --target, such as 20%")
        return Selection(
            field_of_group,
            on_fail,
            duplicates=duplicates,
            evaluation=evaluation,
            sides_by=sides_by,
            order=order_of_files,
        )
    if quota is not None and per is None:
        raise UserMistake(f"--quota {quota}: says how a target is shared out; add --per, such as row.lang")
    order = ranking(vocabulary, by, for_option="--target")
    if not allow_cross_prompt and (why := why_no_order(order)):
        raise UserMistake(f"--target {target} by {order}: {why}.")
    column = None if per is None else parsed_column(per, vocabulary, option="--per")
    return Selection(
        field_of_group,
        on_fail,
        budget=Budget(parsed_target(target), order, column, quota or "proportional"),
        duplicates=duplicates,
        evaluation=evaluation,
        sides_by=sides_by,
        order=order_of_files,
    )


def parsed_group(group: str | None) -> NamedColumn | None:
    """The field that ``--group`` names; None without one; UserMistake where it names none."""
    if group is None:
        return None
    if not group.startswith(columns.ROW) or group == columns.ROW:
        raise UserMistake(f"--group {group}: write a field of the input row, such as row.prompt_id")
    return columns.field(group, ValueKind.ANY).column


def chosen_order(vocabulary: Vocabulary, by: str | None) -> Value | None:
    """What orders answers: what ``--by`` names, else the model's one number; None where it has several.

    UserMistake where ``by`` is no number.
    """
    if by is not None:
        return parsed_number(by, vocabulary, option="--by").value
    scalar = None if vocabulary.has_several_models else scalar_among(vocabulary.attributes)
    return None if scalar is None else vocabulary.column(scalar)


def ranking(vocabulary: Vocabulary, by: str | None, *, for_option: str) -> Value:
    """The number that orders records: what ``--by`` names, or else the model's one number.

    UserMistake where ``by`` is no number, and where the model has several and ``--by`` does not choose.
    """
    order = chosen_order(vocabulary, by)
    if order is None:
        raise UserMistake(
            f"{for_option}: needs an order, and there are several numbers: "
            f"{_listed(vocabulary.attributes)}. Add --by, such as --by 'mean({vocabulary.attributes[0]})'"
        )
    return order


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
