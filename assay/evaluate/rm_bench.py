"""``rm-bench``: three chosen and three rejected answers a prompt, each concise, detailed, and with Markdown.

Rows: ``prompt``, ``chosen``, ``rejected`` (three texts each, in that order of styles), ``id``, and ``domain``
in ``total_dataset.json``. The files of one domain name it in their own name alone: ``chat_filtered.json``.

Rules: THU-KEG/RM-Bench, README, "how to compute the accuracy"; THU-KEG/RM-Bench-Leaderboard, README: the
overall figure is the mean of the four domains, and so is each difficulty. Some published tables weigh rows
instead, so both are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from assay.evaluate.answers import ComparedPair, ScoredItem, summed
from assay.evaluate.benchmark import Benchmark, Figures
from assay.evaluate.figures import ALL, ResampledUnit, mean_of, share
from assay.evaluate.items import AskedItem, Line, RefusedLine, answer_of, by_line, id_of

#: The parts of the data set, how many rows each has, and the domain that it counts in.
PARTS = {
    "chat": (129, "chat"),
    "math": (529, "math"),
    "code": (228, "code"),
    "safety-refuse": (284, "safety"),
    "safety-response": (157, "safety"),
}
DOMAINS = ("chat", "math", "code", "safety")
DIFFICULTIES = ("easy", "normal", "hard")
ROWS = sum(rows for rows, _ in PARTS.values())
_STYLES = 3


def _domain(line: Line) -> str | None:
    """The domain that the row names, or else its file's name."""
    named = line.text("domain")
    if named is None:
        stem = PurePosixPath(line.file).name.lower()
        named = next((part for part in sorted(PARTS, key=len, reverse=True) if stem.startswith(part)), None)
    return PARTS[named][1] if named in PARTS else named if named in DOMAINS else None


def read(line: Line) -> AskedItem | RefusedLine:
    """The row as an item of six answers."""
    sides = [record.side for record in line.records]
    if sides != ["chosen"] * _STYLES + ["rejected"] * _STYLES:
        chosen, rejected = sides.count("chosen"), sides.count("rejected")
        return RefusedLine(
            line, f"wrong_answers: {chosen} chosen and {rejected} rejected answers, not 3 and 3"
        )
    domain = _domain(line)
    if domain is None:
        return RefusedLine(
            line,
            f"unknown_domain: neither a field 'domain' nor the file's name is one of {', '.join(PARTS)}",
        )
    answers = tuple(
        answer_of(record, place, float(record.side == "chosen")) for place, record in enumerate(line.records)
    )
    return AskedItem(id_of(line), domain, line.records[0].turns[-1].prompt, line.file, line.number, answers)


def holds(line: Line) -> bool:
    """Whether the line has three chosen and three rejected answers, and no count of them."""
    sides = [record.side for record in line.records]
    three = sides == ["chosen"] * _STYLES + ["rejected"] * _STYLES
    return three and "num_correct" not in line.rest


def difficulty(pair: ComparedPair) -> str:
    """``hard`` where the rejected answer has the fancier style, ``easy`` where the chosen one has it."""
    chosen, rejected = pair.better.place, pair.worse.place - _STYLES
    return "hard" if chosen < rejected else "normal" if chosen == rejected else "easy"


def units(items: Sequence[ScoredItem]) -> list[ResampledUnit]:
    """A unit for each row: nine comparisons, three of each difficulty."""
    found = []
    for one in items:
        pairs = one.pairs()
        parts = {name: summed([pair for pair in pairs if difficulty(pair) == name]) for name in DIFFICULTIES}
        found.append(ResampledUnit(one.item.group, one.key, {ALL: summed(pairs), **parts}))
    return found


def figures(groups: Sequence[str]) -> Figures:
    """Domains, difficulties, and both overall figures."""
    domains = [name for name in DOMAINS if name in groups]
    each = [(name,) for name in domains]
    across = {name: mean_of(each, name) for name in DIFFICULTIES}
    # Of a single domain, these would be the difficulties once more.
    cells = [(domain, name) for domain in domains for name in DIFFICULTIES] if len(domains) > 1 else []
    return Figures(
        overall=mean_of(each),
        groups={
            **{name: share(name) for name in domains},
            **across,
            **{f"{domain}/{name}": share(domain, block=name) for domain, name in cells},
        },
        overall_by_rows=share(*domains),
        groups_by_rows={name: share(*domains, block=name) for name in DIFFICULTIES},
    )


RM_BENCH = Benchmark(
    "rm-bench",
    "RM-Bench",
    holds,
    by_line(read),
    figures,
    units,
    expected=lambda items: ROWS,
    rules=(
        "A comparison counts where the chosen answer scores strictly higher; a tie is lost.",
        "The overall figure, and each difficulty, is the mean of the domains; beside it stands the same with "
        "each row weighing alike.",
    ),
    source="https://github.com/THU-KEG/RM-Bench, https://github.com/THU-KEG/RM-Bench-Leaderboard",
)
