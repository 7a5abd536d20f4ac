"""Scores of answers by column, from the score stage or recorded, laid out beside the items."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from assay.core.errors import UserMistake
from assay.core.text import did_you_mean
from assay.evaluate.answers import ScoredItem
from assay.evaluate.items import AskedItem, ItemAnswer
from assay.rewards.scalar import scalar_among
from assay.rewards.spec import ModelSpec
from assay.storage.artifacts import read_artifact
from assay.storage.home import Home
from assay.storage.manifests import Scored, reason_code

Place = tuple[int, int, int]
"""Piece, row and turn."""

_NO_SCORE = "no_score"
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Scores:
    """What one model gave the answers."""

    name: str
    source: str
    columns: tuple[str, ...]
    by: str
    """The column that answers are compared by."""
    values: Mapping[Place, Mapping[str, float]]
    """By answer; one without a score is missing."""
    reasons: Mapping[Place, str] = field(default_factory=dict)
    """Why answers have no score."""
    spec: ModelSpec | None = None
    """None where the scores were recorded."""
    published_name: str = ""
    notes: tuple[str, ...] = ()

    def of(self, item: AskedItem, column: str) -> ScoredItem | None:
        """The item with its scores in this column; None where one is missing."""
        scores = [self.values.get(place_of(answer), {}).get(column, math.nan) for answer in item.answers]
        return None if any(map(math.isnan, scores)) else ScoredItem(item, tuple(scores))

    def scored(self, items: Sequence[AskedItem]) -> list[ScoredItem]:
        """The items whose every answer has a score."""
        return [one for item in items if (one := self.of(item, self.by)) is not None]

    def why_unscored(self, item: AskedItem) -> str | None:
        """Why the item has no score; None where it has one."""
        for answer in item.answers:
            place = place_of(answer)
            if math.isnan(self.values.get(place, {}).get(self.by, math.nan)):
                return self.reasons.get(place, _NO_SCORE)
        return None

    def unscored(self, items: Sequence[AskedItem]) -> tuple[dict[str, int], tuple[str, ...]]:
        """Rows without a score by reason code, and a line for each of the first."""
        found = [(item, why) for item in items if (why := self.why_unscored(item)) is not None]
        found.sort(key=lambda one: (one[0].file, one[0].line))
        counts: Counter[str] = Counter()
        for item, why in found:
            counts[reason_code(why)] += item.rows
        examples = tuple(f"{item.file}:{item.line}: {why}" for item, why in found[:_SHOWN])
        return dict(sorted(counts.items())), examples


def place_of(answer: ItemAnswer) -> Place:
    """Where the answer's turn is."""
    return answer.piece, answer.row, answer.turn


def scores_of(name: str, model: ModelSpec, scored: Scored, by: str | None, home: Home) -> Scores:
    """The scores that the score stage gave the turns."""
    values: dict[Place, dict[str, float]] = {}
    reasons: dict[Place, str] = {}
    for number, piece in enumerate(scored.pieces):
        frame = read_artifact(piece.scores, home, ["row", "turn", "reason", *scored.attributes])
        for row, turn, reason, *numbers in frame.iter_rows():
            given = {
                column: float(number)
                for column, number in zip(scored.attributes, numbers, strict=True)
                if number is not None
            }
            values[number, row, turn] = given
            if reason is not None:
                reasons[number, row, turn] = reason
    return Scores(
        name,
        model.name,
        scored.attributes,
        column_to_compare(scored.attributes, by, model.name),
        values,
        reasons,
        model,
        model.published_name,
        tuple(model.notes),
    )


def column_to_compare(columns: Sequence[str], by: str | None, whose: str) -> str:
    """The column that answers are compared by: the one that was asked for, the model's one number, or else
    helpfulness. UserMistake where there is none of these."""
    if by is not None:
        if by not in columns:
            raise UserMistake(
                f"--by {by}: {whose} does not rate it{did_you_mean(by, columns)}; it rates "
                f"{', '.join(columns)}"
            )
        return by
    found = scalar_among(columns) or ("helpfulness" if "helpfulness" in columns else None)
    if found is None:
        raise UserMistake(
            f"{whose} rates {', '.join(columns)}: name with --by the one that answers are compared by, or "
            "make one number of them with --weights"
        )
    return found
