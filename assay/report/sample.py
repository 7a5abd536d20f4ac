"""The conversations that the page shows: which ones, drawn with a seed, and their texts.

First places are picked from the narrow tables; then the texts of these few records are read. At most
``MOST`` are shown, each with a bounded share of the page.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

import msgspec
import polars as pl

from assay.core.schema import Message, is_turn
from assay.export.additions import QUARANTINE
from assay.export.quarantine import WITHOUT_ORIGINAL
from assay.report.aggregate import Aggregated, pairs_by_people
from assay.report.measures import DROPPED, KEPT, Measures, read
from assay.report.shown_text import visible
from assay.storage.artifacts import artifacts_of, read_artifact
from assay.storage.conversations import conversation_of
from assay.storage.disk import damage_named
from assay.storage.home import Home
from assay.storage.manifests import Converted, Filtered, reason_code

#: Of all kinds together.
MOST = 200
#: How many of each kind.
_BEST, _NEAR, _AT_RANDOM, _REASONS, _DISAGREEING = 10, 5, 20, 30, 6
#: Cuts whose nearest records are shown.
_CUTS = 4
#: Bytes of escaped text that all conversations share, and that one message may have at most.
_ALL_BYTES, _MESSAGE_BYTES = 1_600_000, 6_000
_LEAST_BYTES = 300
#: Messages of one conversation that are shown: the first two, and the last ones.
_MOST_MESSAGES = 24
_SEED = 17


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """One message, as far as it is shown."""

    role: str
    text: str
    """Visible, and cut."""
    cut: int
    """How many characters are not shown."""
    beside: tuple[tuple[str, str], ...] = ()
    """What it holds beside its text, such as calls of tools: names and cut texts."""
    turn: int | None = None
    """Its number among the turns; None where no model rates it."""
    scores: tuple[tuple[str, float | None], ...] = ()
    """Of a turn, a number an attribute; None where it has no score."""


@dataclass(frozen=True, slots=True)
class ShownConversation:
    """One record with its place, its outcome and its messages."""

    why: str
    """Why it is shown: ``helpfulness 3.41``."""
    file: str
    line: int
    part: int
    outcome: str
    reason: str | None
    messages: tuple[ShownMessage, ...]
    left_out: int = 0
    """Messages between the first and the last ones that are not shown."""


@dataclass(frozen=True, slots=True)
class ShownOriginal:
    """A record in quarantine, as it is in its input."""

    reason: str
    file: str
    line: int
    text: str
    cut: int


@dataclass(frozen=True, slots=True)
class ShownKind:
    """Conversations that are shown for one reason."""

    name: str
    """A word for addresses in the page: ``best``."""
    title: str
    about: str
    conversations: tuple[ShownConversation, ...] = ()
    originals: tuple[ShownOriginal, ...] = ()


@dataclass(frozen=True, slots=True)
class _Pick:
    piece: int
    row: int
    why: str


@dataclass(frozen=True, slots=True)
class _Picked:
    name: str
    title: str
    about: str
    picks: tuple[_Pick, ...]


def sampled(
    measures: Measures,
    figures: Aggregated,
    converted: Converted,
    filtered: Filtered,
    *,
    files: Path,
    home: Home,
) -> list[ShownKind]:
    """The kinds of conversations that a run has any of, each with its own. The same run gives the same.

    ``files`` is the folder of the run's ``quarantine.jsonl``.
    """
    picked = [kind for kind in _picked(measures, figures) if kind.picks]
    # What does not fit into the page is left out from the end, kind by kind.
    room = MOST - min(_REASONS, len(filtered.counts.quarantined))
    kept: list[_Picked] = []
    for kind in picked:
        kept.append(_Picked(kind.name, kind.title, kind.about, kind.picks[:room]))
        room -= len(kept[-1].picks)
    texts = _Texts(measures, converted, filtered, home, [pick for kind in kept for pick in kind.picks])
    kinds = [
        ShownKind(kind.name, kind.title, kind.about, tuple(texts.of(pick) for pick in kind.picks))
        for kind in kept
        if kind.picks
    ]
    originals = tuple(_originals(files / QUARANTINE, filtered.counts.quarantined, texts.share))
    if originals:
        about = "The first record of each reason, as it is in its input. None is in any training file."
        kinds.append(ShownKind("quarantined", "In quarantine", about, originals=originals))
    return kinds


def _picked(measures: Measures, figures: Aggregated) -> Iterator[_Picked]:
    by = figures.ranked_by
    if by is not None:
        judged = measures.of_last_turns("piece", "row", by).drop_nulls(by)
        for name, title, descending in (("best", "Best", True), ("worst", "Worst", False)):
            found = read(judged.sort([by, "piece", "row"], descending=[descending, False, False]).head(_BEST))
            about = f"The {'highest' if descending else 'lowest'} {by} of a last turn."
            yield _Picked(name, title, about, _picks(found, by))
        yield from _near_cuts(measures, figures)
    for outcome in (KEPT, DROPPED):
        yield _Picked(
            f"random-{outcome}",
            f"{outcome.capitalize()}, at random",
            f"Drawn from all records that are {outcome}, each as likely as the next.",
            _at_random(measures, outcome),
        )
    if by is not None:
        yield from _against_people(measures, figures, by)
        yield from _two_models(measures)


def _picks(rows: pl.DataFrame, by: str) -> tuple[_Pick, ...]:
    found = rows.select("piece", "row", pl.col(by).alias("score")).iter_rows()
    return tuple(_Pick(piece, row, f"{by} {score:.4g}") for piece, row, score in found)


def _near_cuts(measures: Measures, figures: Aggregated) -> Iterator[_Picked]:
    """Yield the records nearest to each cut of a rule, on either side of it."""
    cuts = [(one.name, cut) for one in figures.attributes for cut in one.cuts][:_CUTS]
    for number, (name, cut) in enumerate(cuts):
        judged = measures.of_last_turns("piece", "row", name).drop_nulls(name)
        at = pl.lit(cut.at, pl.Float32)
        above = pl.col(name) > at if cut.operator in (">", "<=") else pl.col(name) >= at
        distance = (pl.col(name).cast(pl.Float64) - cut.at).abs()
        nearest = [
            read(judged.filter(side).sort(distance, "piece", "row").head(_NEAR)).sort(name, descending=True)
            for side in (above, ~above)
        ]
        yield _Picked(
            f"cut-{number + 1}",
            f"Nearest to {name} {cut.operator} {cut.at:g}",
            f"The {_NEAR} records just above this cut, then the {_NEAR} just below it. Would you cut here?",
            tuple(pick for few in nearest for pick in _picks(few, name)),
        )


def _at_random(measures: Measures, outcome: str) -> tuple[_Pick, ...]:
    """Records drawn by their place among all of that outcome, so that no hash decides."""
    places = read(
        measures.of_records("piece", "row", "outcome")
        .filter(pl.col("outcome") == outcome)
        .select("piece", "row")
    )
    chosen = sorted(random.Random(_SEED).sample(range(places.height), min(_AT_RANDOM, places.height)))
    return tuple(_Pick(piece, row, outcome) for piece, row in places[chosen].iter_rows())


def _against_people(measures: Measures, figures: Aggregated, by: str) -> Iterator[_Picked]:
    """Yield where the model and people disagree most: on pairs, and on what people rated."""
    pairs = pairs_by_people(measures, by).filter(pl.col("rejected") > pl.col("chosen"))
    furthest = pairs.sort(pl.col("chosen") - pl.col("rejected"), "source", "line").head(_DISAGREEING)
    picks = []
    columns = ("piece", "row", "chosen", "piece_rejected", "row_rejected", "rejected")
    for piece, row, chosen, piece_rejected, row_rejected, rejected in furthest.select(columns).iter_rows():
        picks.append(_Pick(piece, row, f"a person chose it: {by} {chosen:.4g}"))
        picks.append(_Pick(piece_rejected, row_rejected, f"a person rejected it: {by} {rejected:.4g}"))
    about = "Pairs of one line that the model ranks the other way round by the most, the chosen one first."
    yield _Picked("against-people", "Where the model and a person disagree", about, tuple(picks))
    for given in measures.given:
        name = given.rpartition(".")[2]
        rated = name if name in measures.attributes else by
        about = f"The ranks of {rated} and of {given}, what people gave, are furthest apart."
        title = f"Furthest from {given}"
        yield _Picked(f"from-{name}", title, about, _furthest(measures, rated, given))


def _two_models(measures: Measures) -> Iterator[_Picked]:
    """Yield where two models of a run rank one attribute most differently: ``a.reward``, ``b.reward``."""
    by_attribute: dict[str, list[str]] = {}
    for name in measures.attributes:
        if "." in name:
            by_attribute.setdefault(name.partition(".")[2], []).append(name)
    for attribute, names in by_attribute.items():
        for one, other in pairwise(names):
            yield _Picked(
                f"between-{one}-{other}".replace(".", "-"),
                f"Where {one} and {other} disagree",
                f"Their ranks of {attribute} are furthest apart.",
                _furthest(measures, one, other),
            )


def _furthest(measures: Measures, one: str, other: str) -> tuple[_Pick, ...]:
    both = read(measures.of_last_turns("piece", "row", one, other).drop_nulls([one, other]))
    apart = (pl.col(one).rank() - pl.col(other).rank()).abs()
    rows = both.with_columns(apart.alias("apart")).sort(
        ["apart", "piece", "row"], descending=[True, False, False]
    )
    few = rows.filter(pl.col("apart") > 0).head(_DISAGREEING).select("piece", "row", one, other)
    return tuple(
        _Pick(piece, row, f"{one} {first:.4g}, {other} {second:.4g}")
        for piece, row, first, second in few.iter_rows()
    )


class _Texts:
    """The picked records with their texts, scores and reasons."""

    def __init__(
        self,
        measures: Measures,
        converted: Converted,
        filtered: Filtered,
        home: Home,
        picks: Sequence[_Pick],
    ) -> None:
        self._measures = measures
        self._converted = converted
        self.share = max(_LEAST_BYTES, _ALL_BYTES // max(1, len(picks)))
        """Bytes that one conversation may take."""
        by_piece: dict[int, set[int]] = {}
        for pick in picks:
            by_piece.setdefault(pick.piece, set()).add(pick.row)
        self._records: dict[tuple[int, int], tuple[int, int, str, str, str | None]] = {}
        for piece, rows in by_piece.items():
            for row, *rest in _read(converted, filtered, piece, sorted(rows), home).iter_rows():
                self._records[piece, row] = (rest[0], rest[1], rest[2], rest[3], rest[4])
        self._scores = _scores(measures, by_piece)

    def of(self, pick: _Pick) -> ShownConversation:
        """The picked record."""
        line, part, text, outcome, reason = self._records[pick.piece, pick.row]
        messages = conversation_of(text)
        turns = self._scores.get((pick.piece, pick.row), {})
        numbered = _numbered(messages)
        left_out = max(0, len(numbered) - _MOST_MESSAGES)
        if left_out:
            numbered = [*numbered[:2], *numbered[2 + left_out :]]
        each = max(_LEAST_BYTES, min(_MESSAGE_BYTES, self.share // max(1, len(numbered))))
        shown = [
            _shown(message, turn, turns.get(turn, ()) if turn is not None else (), each)
            for turn, message in numbered
        ]
        file = self._converted.pieces[pick.piece].file
        return ShownConversation(pick.why, file, line, part, outcome, reason, tuple(shown), left_out)


def _numbered(messages: Sequence[Message]) -> list[tuple[int | None, Message]]:
    """The messages, each with its number among the turns, if it is one."""
    numbered: list[tuple[int | None, Message]] = []
    turns = 0
    for message in messages:
        numbered.append((turns if is_turn(message) else None, message))
        turns += is_turn(message)
    return numbered


def _read(
    converted: Converted, filtered: Filtered, piece: int, rows: Sequence[int], home: Home
) -> pl.DataFrame:
    """``row``, ``line``, ``part``, ``messages``, ``outcome`` and ``reason`` of these rows of a piece."""
    found, files = converted.pieces[piece].records, artifacts_of(home)
    wanted = pl.col("row").is_in(list(rows))
    with damage_named(files.place_of(found.path)):
        records = (
            pl.scan_parquet(files.to_scan(found), glob=False)
            .select("row", "line", "part", "messages")
            .filter(wanted)
            .collect(engine="streaming")
        )
    decided = read_artifact(filtered.pieces[piece].decisions, home, ["row", "outcome", "reason"])
    return records.join(decided.filter(wanted), on="row", how="left", maintain_order="left")


Scores = Mapping[int, tuple[tuple[str, float | None], ...]]


def _scores(measures: Measures, by_piece: Mapping[int, set[int]]) -> dict[tuple[int, int], Scores]:
    """By piece and row, the scores of each turn."""
    chosen = pl.DataFrame(
        [(piece, row) for piece, rows in by_piece.items() for row in rows],
        schema={"piece": pl.UInt32, "row": pl.UInt32},
        orient="row",
    )
    names = (*measures.attributes, *measures.given)
    found = (
        measures.turns.select("piece", "row", "turn", *names)
        .join(chosen.lazy(), on=["piece", "row"], how="semi")
        .collect(engine="streaming")
    )
    scores: dict[tuple[int, int], dict[int, tuple[tuple[str, float | None], ...]]] = {}
    for piece, row, turn, *values in found.iter_rows():
        scores.setdefault((piece, row), {})[turn] = tuple(zip(names, values, strict=True))
    return dict(scores)


def _shown(
    message: Message, turn: int | None, scores: tuple[tuple[str, float | None], ...], size: int
) -> ShownMessage:
    fields = message.fields
    beside = {
        "reasoning": fields.reasoning_content or fields.thinking or fields.reasoning,
        "calls": fields.tool_calls,
        "name": fields.name,
        "answers the call": fields.tool_call_id,
    }
    text, cut = shortened(message.content, size)
    return ShownMessage(
        message.role,
        text,
        cut,
        tuple((name, shortened(value, size // 2)[0]) for name, value in beside.items() if value),
        turn,
        # What people gave is null at most turns.
        tuple((name, value) for name, value in scores if value is not None or "given." not in name),
    )


def shortened(text: str, size: int) -> tuple[str, int]:
    """The beginning of ``text``, visible, in ``size`` bytes of HTML, and how many characters are cut.

    >>> shortened("plain", 100), shortened("<" * 10, 16)
    (('plain', 0), ('<<<<', 6))
    """
    taken = text[:size]
    shown = visible(taken)
    while len(escape(shown).encode()) > size:
        # Shorter by as much as it is too long, at least by a tenth.
        excess = len(escape(shown).encode()) / size
        taken = taken[: min(int(len(taken) / excess), len(taken) * 9 // 10)]
        shown = visible(taken)
    return shown, len(text) - len(taken)


class _Quarantined(msgspec.Struct):
    file: str
    line: int
    reason: str
    original: str | None = None
    original_base64: str | None = None


_DECODE_QUARANTINED = msgspec.json.Decoder(_Quarantined).decode


def _originals(path: Path, reasons: Mapping[str, int], size: int) -> Iterator[ShownOriginal]:
    """Yield the first record of each reason, in the order of the file."""
    wanted = set(list(reasons)[:_REASONS])
    if not wanted or not path.is_file():
        return
    with path.open("rb") as lines:
        for line in lines:
            one = _DECODE_QUARANTINED(line)
            code = reason_code(one.reason)
            if code not in wanted:
                continue
            wanted.discard(code)
            text, cut = shortened(_original(one, code), min(size, _MESSAGE_BYTES))
            yield ShownOriginal(one.reason, one.file, one.line, text, cut)
            if not wanted:
                return


def _original(one: _Quarantined, code: str) -> str:
    if one.original is not None:
        return one.original
    if one.original_base64 is not None:
        return f"not UTF-8, in base64: {one.original_base64}"
    return "too large to be shown" if code in WITHOUT_ORIGINAL else ""
