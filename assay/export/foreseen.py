"""What is known of the result files before anything is scored: an export that could hold nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import polars as pl

from assay.core.errors import UserMistake
from assay.core.schema import turn_keys, turn_positions
from assay.core.text import counted, nearest
from assay.export.contract import Export, ToWrite, Unit, refusal, takes_every_record
from assay.export.kept import Item, KeptRecords, items_of, turns_of
from assay.export.pairs import PairChoice
from assay.export.sides import Sides
from assay.export.splits import Split, SplitByGroup
from assay.select.columns import ROW, fields_of
from assay.storage.artifacts import read_artifact
from assay.storage.home import Home
from assay.storage.manifests import Converted, ConvertedPiece, reason_code

_AT_A_TIME = 2048
#: So many fields are named where the one of ``--group`` is missing.
_FIELDS_NAMED = 12
_CONTENTS = ["row", "line", "part", "roles", "messages", "labels", "rest", "nemo_prompt", "tools"]
#: A reason that a person can do something about before the run, and what.
_WAYS_ON = {
    "no_side": "No record is one side of a pair, so nobody says which answers are good ones. Say it by a "
    "rule, as with `--desirable 'helpfulness >= 3'`, read preference data, or leave the export out.",
}


def warnings_of(wanted: ToWrite, converted: Converted, home: Home) -> list[str]:
    """A line for each export whose trainer would take none of the records, whatever their scores.

    UserMistake where an export makes no sense of these inputs: verdicts where nobody gave one, pairs where
    no prompt has two answers.
    """
    lines: list[str] = []
    for export in wanted.records:
        if takes_every_record(export) or not converted.counts.ok:
            continue
        reasons = _refused_all(export, converted, home, has_rule=wanted.has_rule)
        if reasons is None:
            continue
        reason, count = max(reasons.items(), key=lambda item: (item[1], item[0]))
        if set(reasons) <= _WAYS_ON.keys():
            raise UserMistake(f"Export {export.name} is refused: {_WAYS_ON[reason]}")
        of_all = f"{count:,} of {sum(reasons.values()):,}"
        lines.append(f"{export.file} will hold no row: its trainer takes none ({reason}: {of_all})")
    if wanted.split is not None and converted.counts.ok:
        _check_sides(wanted.split, converted, home)
    if (
        wanted.pairs
        and converted.counts.ok
        and not _has_two_answers(converted, wanted.choice, Sides(wanted.split, converted), home)
    ):
        names = ", ".join(export.name for export in wanted.pairs)
        raise UserMistake(
            f"Export {names} is refused: {_NO_PAIR[wanted.choice.way == 'given']}{_on_a_side(wanted.split)}. "
            "Read data with several answers to a prompt, in one file or in many, or leave the export out."
        )
    return lines


def _check_sides(split: Split, converted: Converted, home: Home) -> None:
    """Nothing, or UserMistake where a side of the split would be empty, whatever is kept."""
    missing = dict.fromkeys(split.sides)
    sides = Sides(split, converted)
    for piece in converted.pieces:
        for block in _blocks(piece, home):
            for of_side in sides.divided(block):
                missing.pop(of_side.side, None)
            if not missing:
                return
    raise UserMistake(
        f"--split: no record falls to {', '.join(missing)}: {counted(converted.counts.ok, 'records')} are "
        "too few for such a share. Give a greater share, another --seed, or more data."
    )


def notes_on_sides(split: Split | None, converted: Converted, home: Home) -> tuple[str, ...]:
    """What a person should know of sides that go by groups, in sentences without a full stop.

    Of the records that could be read, whether or not they are kept. Nothing where sides go by prompts.
    """
    if not isinstance(split, SplitByGroup):
        return ()
    sides, without = Sides(split, converted), 0
    found = [pl.DataFrame(schema=_PROMPT_ON_SIDE)]
    for piece in converted.pieces:
        for block in _blocks(piece, home):
            without += sides.groups(block.records).count(None)
            for of_side in sides.divided(block):
                digests = [split.digest_of_prompt(item.messages) for item in items_of(of_side.kept)]
                of_prompts = {
                    "prompt": [int(digest[:_PROMPT_DIGITS], 16) for digest in digests],
                    "side": [split.sides.index(of_side.side)] * len(digests),
                }
                found.append(pl.DataFrame(of_prompts, schema=_PROMPT_ON_SIDE).unique())
    if without and without == converted.counts.ok:
        names = _fields_of_rows(converted, home)
        meant = nearest(split.group.removeprefix(ROW), names)
        raise UserMistake(
            f"--group {split.group}: no record of {without:,} has it; rows have "
            f"{', '.join(names[:_FIELDS_NAMED]) or 'no other fields'}"
            f"{f': did you mean {ROW}{meant}?' if meant else ''}"
        )
    per_prompt = pl.concat(found).group_by("prompt").agg(pl.col("side").n_unique())
    on_several = int((per_prompt["side"] > 1).sum())
    return tuple(_notes(split.group, without, converted.counts.ok, on_several, per_prompt.height))


def _fields_of_rows(converted: Converted, home: Home) -> list[str]:
    """The fields of the first rows, beside their messages."""
    for piece in converted.pieces:
        rests = read_artifact(piece.records, home, ["rest"])["rest"].drop_nulls().head(_AT_A_TIME)
        if not rests.is_empty():
            return list(dict.fromkeys(name for rest in rests for name in fields_of(rest)))
    return []


def _notes(group: str, without: int, records: int, on_several: int, prompts: int) -> Iterator[str]:
    yield f"the files are divided by {group}, so records with one value of it are on one side"
    if without:
        yield (
            f"{without:,} of {counted(records, 'records')} have no {group}, and are divided by prompt instead"
        )
    if on_several:
        yield (
            f"{on_several:,} of {counted(prompts, 'prompts')} stand on more than one side, since records "
            f"with different values of {group} share them; leave out --group to keep each prompt on one side"
        )


#: A prompt by the first digits of its digest, and the number of a side.
_PROMPT_ON_SIDE = {"prompt": pl.UInt64, "side": pl.UInt8}
_PROMPT_DIGITS = 16

_NO_PAIR = {
    False: "no prompt has two different answers, so there is nothing to pair",
    True: "no row has a chosen and a rejected answer, so there are no given pairs",
}


def _refused_all(
    export: Export[Item], converted: Converted, home: Home, *, has_rule: bool
) -> Counter[str] | None:
    """Why the export takes no item, by reason code; None where it takes one."""
    reasons: Counter[str] = Counter()
    for piece in converted.pieces:
        for read in _items(piece, home):
            record = read._replace(desirable=True) if has_rule else read
            for item in turns_of(record) if export.unit is Unit.TURN else (record,):
                reason = refusal(export, item)
                if reason is None:
                    return None
                reasons[reason_code(reason)] += 1
    return reasons


def _items(piece: ConvertedPiece, home: Home) -> Iterator[Item]:
    """Yield the records that could be read, as exports are given them but for the scores."""
    for block in _blocks(piece, home):
        yield from items_of(block)


def _blocks(piece: ConvertedPiece, home: Home) -> Iterator[KeptRecords]:
    records = read_artifact(piece.records, home, ["outcome", *_CONTENTS])
    unknown = pl.lit(None, pl.Boolean).alias("desirable")
    ok = records.filter(pl.col("outcome") == "ok").select(*_CONTENTS, unknown)
    scores = pl.DataFrame(schema={"row": pl.UInt32, "turn": pl.UInt32, "given": pl.String})
    for few in ok.iter_slices(_AT_A_TIME):
        yield KeptRecords(piece.file, (), few, scores)


def _on_a_side(split: Split | None) -> str:
    if not isinstance(split, SplitByGroup):
        return ""
    return f" on one side of the split, which goes by {split.group} (leave out --group to divide by prompt)"


def _has_two_answers(converted: Converted, choice: PairChoice, sides: Sides, home: Home) -> bool:
    """Whether a prompt has two different answers on one side of the split.

    For given pairs whether a row has two sides, which are always on one of the split.
    """
    if choice.way == "given":
        return any(_has_sides(piece, home) for piece in converted.pieces)
    answers: dict[tuple[bytes, str], bytes] = {}
    for block in (block for piece in converted.pieces for block in _blocks(piece, home)):
        for item, whole in zip(items_of(block), sides.whole(block.records), strict=True):
            keys, places = turn_keys(item.messages, item.tools), turn_positions(item.messages)
            for key, place in zip(keys, places, strict=True):
                side = sides.of_prompt(item.messages[:place]) if whole is None else whole
                if answers.setdefault((key.prompt_key, side), key.key) != key.key:
                    return True
    return False


def _has_sides(piece: ConvertedPiece, home: Home) -> bool:
    sides: dict[int, set[str]] = {}
    for item in _items(piece, home):
        if item.side is not None:
            found = sides.setdefault(item.line, set())
            found.add(item.side)
            if len(found) == 2:
                return True
    return False
