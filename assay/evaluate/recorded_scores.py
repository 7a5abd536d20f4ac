"""Recorded scores: a file → the scores of a benchmark's answers, without a model.

What is read, from JSON, JSON lines, CSV, Parquet or Arrow:

- a row for each item with its id (``id``, ``pair_id``, …) and its answers' scores in their order:
  ``judgments`` (JudgeBench's output files), ``score_chosen`` and ``score_rejected`` (RM-Bench's and
  RewardBench's), ``scores``, or any columns of numbers, as in a CSV of ids and numbers;
- several rows with one id: their numbers one after the other;
- ``scores.parquet`` of a run of ``curate`` over the same files, by file, line, part and turn.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

import msgspec

from assay.core.calls import Json
from assay.core.errors import UserMistake
from assay.core.schema import SCORE
from assay.core.text import counted
from assay.evaluate.items import AskedItem
from assay.evaluate.scores import Place, Scores, column_to_compare, place_of
from assay.read.sources import RawRecords, sniff
from assay.read.tables import decoder_kept

_IDS = ("pair_id", "prompt_id", "message_id", "id")
_SIDES = (("score_chosen", "score_rejected"), ("scores_chosen", "scores_rejected"))
_PLACE = ("file", "line", "part", "turn")
#: Columns of a run's ``scores.parquet`` that are no score.
_NO_SCORES = frozenset({*_PLACE, "reason", "tokens_cut", "tokens"})
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|[-+]?inf(?:inity)?", re.IGNORECASE)
#: NaN and infinities, which JSON does not have and Python writes.
_NO_JSON = re.compile(rb'("(?:[^"\\]|\\.)*+")|-?\b(?:NaN|Infinity)\b')
_SHOWN = 3

NOT_RECORDED = "not_recorded"
NOT_A_NUMBER = "not_a_number"


def recorded(name: str, path: str, shown: str, items: Sequence[AskedItem], by: str | None) -> Scores:
    """The scores that the file holds for the items. ``shown`` is the file as the user named it.

    An item without scores, or with another number of them than it has answers, has none, with a reason.
    UserMistake where the file holds no scores of these items at all, and where its ids do not tell items
    apart.
    """
    rows = list(_rows(path, shown))
    if rows and set(_PLACE) <= rows[0].keys():
        return _of_a_run(name, shown, rows, items, by)
    return _by_id(name, shown, rows, items)


def _rows(path: str, shown: str) -> Iterator[dict[str, Json]]:
    with decoder_kept():
        try:
            raws = RawRecords(sniff(path))
            for raw in raws:
                if raw.problem is not None:
                    raise UserMistake(f"--scores {shown}:{raw.line}: {raw.problem}")
                yield _row(raw.data, f"--scores {shown}:{raw.line}")
        except OSError as error:
            raise UserMistake(f"--scores {shown}: cannot be read: {error.strerror or error}") from error


def _row(data: bytes, where: str) -> dict[str, Json]:
    try:
        row = msgspec.json.decode(_NO_JSON.sub(lambda found: found[1] or b'"nan"', data))
    except msgspec.DecodeError as error:
        raise UserMistake(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise UserMistake(f"{where}: is no object of an id and its scores")
    return row


def _by_id(name: str, shown: str, rows: Sequence[Mapping[str, Json]], items: Sequence[AskedItem]) -> Scores:
    found: dict[str, list[float]] = defaultdict(list)
    judges: set[str] = set()
    for place_in_file, row in enumerate(rows, 1):
        identity = _identity(row)
        if identity is None:
            raise UserMistake(
                f"--scores {shown}: row {place_in_file} has no id. Name the column of ids {' or '.join(_IDS)}"
            )
        found[identity] += _numbers(row)
        judges |= _judges(row)
    asked = Counter(item.id for item in items)
    if twice := sorted(identity for identity in found if asked[identity] > 1):
        raise UserMistake(
            f"--scores {shown}: {counted(len(twice), 'ids')} of its rows stand for several rows of the "
            f"benchmark ({', '.join(twice[:_SHOWN])}). Evaluate one file of the benchmark at a time"
        )
    if items and not asked.keys() & found.keys():
        raise UserMistake(
            f"--scores {shown}: holds no score of these rows. It has ids such as "
            f"{', '.join(sorted(found)[:_SHOWN]) or 'none'}; the rows have "
            f"{', '.join(sorted(asked)[:_SHOWN])}"
        )
    values: dict[Place, dict[str, float]] = {}
    reasons: dict[Place, str] = {}
    for item in items:
        places = [place_of(answer) for answer in sorted(item.answers, key=lambda answer: answer.place)]
        numbers = found.get(item.id)
        if not numbers:
            reasons |= dict.fromkeys(places, f"{NOT_RECORDED}: {item.id}")
        elif len(numbers) != len(places):
            why = f"{NOT_RECORDED}: {item.id} has {len(numbers)} scores for {len(places)} answers"
            reasons |= dict.fromkeys(places, why)
        else:
            for place, number in zip(places, numbers, strict=True):
                if math.isfinite(number):
                    values[place] = {SCORE: number}
                else:
                    reasons[place] = f"{NOT_A_NUMBER}: {item.id}"
    judge = next(iter(judges)) if len(judges) == 1 else ""
    return Scores(name, shown, (SCORE,), SCORE, values, reasons, None, judge or name, _extra(found, asked))


def _extra(found: Mapping[str, object], asked: Mapping[str, int]) -> tuple[str, ...]:
    """A note on scores of rows that are not in the benchmark's files."""
    extra = len(found.keys() - asked.keys())
    return (f"{counted(extra, 'ids')} of the recorded scores are of no row that was read.",) if extra else ()


def _identity(row: Mapping[str, Json]) -> str | None:
    value = next((row[name] for name in _IDS if row.get(name) is not None), None)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _numbers(row: Mapping[str, Json]) -> list[float]:
    """The scores in a row, in the order of the answers."""
    judgments = row.get("judgments")
    if isinstance(judgments, list):
        return _judged(judgments)
    for chosen, rejected in _SIDES:
        if chosen in row and rejected in row:
            return [*_listed(row[chosen]), *_listed(row[rejected])]
    if "scores" in row:
        return _listed(row["scores"])
    return [
        number
        for name, value in row.items()
        if name not in _IDS and _is_one(value)
        for number in _listed(value)
    ]


def _judged(judgments: Sequence[Json]) -> list[float]:
    """The scores of the first judgment, which shows the answers in the row's own order."""
    first = judgments[0] if judgments else None
    judgment = first.get("judgment") if isinstance(first, dict) else None
    return _listed(judgment.get("scores")) if isinstance(judgment, dict) else []


def _judges(row: Mapping[str, Json]) -> set[str]:
    """The model that gave JudgeBench's judgments."""
    judgments = row.get("judgments")
    found = judgments[0] if isinstance(judgments, list) and judgments else None
    judgment = found.get("judgment") if isinstance(found, dict) else None
    judge = judgment.get("judge_model") if isinstance(judgment, dict) else None
    return {judge} if isinstance(judge, str) else set()


def _listed(value: Json) -> list[float]:
    """The numbers in a value; a list in a list, as some tools write each score, is that score."""
    if isinstance(value, list):
        return [number for one in value for number in _listed(one)]
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return [float(value)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [float(value)]
    return [math.nan]


def _is_one(value: Json) -> bool:
    return value is None or not math.isnan(_listed(value)[0]) or str(value).strip().lower() in ("nan", "")


def _of_a_run(
    name: str, shown: str, rows: Sequence[Mapping[str, Json]], items: Sequence[AskedItem], by: str | None
) -> Scores:
    """The scores of a run's ``scores.parquet``: of the same files, by name or by the end of their path."""
    columns = tuple(
        column for column in rows[0] if column not in _NO_SCORES and not column.startswith("given.")
    )
    compared = by if by in columns else None
    if compared is None:
        compared = SCORE if SCORE in columns and by is None else column_to_compare(columns, by, shown)
    files = {str(row["file"]) for row in rows}
    named = {file: _same_file(file, files) for file in {item.file for item in items}}
    found = {
        tuple(row[part] for part in _PLACE): {
            column: float(value)
            for column in columns
            if isinstance(value := row[column], int | float) and math.isfinite(value)
        }
        for row in rows
    }
    reasons_of = {tuple(row[part] for part in _PLACE): row.get("reason") for row in rows}
    values: dict[Place, Mapping[str, float]] = {}
    reasons: dict[Place, str] = {}
    for item in items:
        for answer in item.answers:
            key = (named[item.file], answer.line, answer.part, answer.turn)
            if key in found:
                values[place_of(answer)] = found[key]
            why = reasons_of.get(key)
            reasons[place_of(answer)] = str(why) if why else f"{NOT_RECORDED}: {item.file}:{item.line}"
    if items and not values:
        raise UserMistake(
            f"--scores {shown}: holds no score of these files. Its run read "
            f"{', '.join(sorted(files)[:_SHOWN])}"
        )
    return Scores(name, shown, columns, compared, values, reasons, None, name)


def _same_file(file: str, known: set[str]) -> str | None:
    """The run's name for the file: its own, or that of the one file with its base name."""
    if file in known:
        return file
    alike = [one for one in known if PurePath(one).name == PurePath(file).name]
    return alike[0] if len(alike) == 1 else None
