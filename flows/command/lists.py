"""``assay models``, ``assay formats``, ``assay exports``: lists of the names that options take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import rich.box
from rich.console import Console
from rich.table import Table

from assay.core.text import counted, did_you_mean
from flows.command.streams import writing_results

#: A format is recognised by each combination of the names that its fields may have: hundreds, for some.
_WAYS_SHOWN = 3


def models(arguments: Sequence[str], program: str) -> int:
    """Print the catalog: what each model rates, how it is read, its limit and its licence."""
    from assay.rewards.catalog import CATALOG

    rows = [
        (
            name,
            ", ".join(entry.attributes or ()) or "what its config.json says",
            "service only" if entry.service_only else entry.family or "by its architecture",
            f"{entry.max_tokens:,}" if entry.max_tokens else "its own",
            entry.license or "see its card",
        )
        for name, entry in CATALOG.items()
    ]
    return _listed(arguments, program, ("model", "rates", "family", "limit, tokens", "licence"), rows)


def formats(arguments: Sequence[str], program: str) -> int:
    """Print the input formats, and the fields by which a row of each is recognised."""
    from assay.read.formats import FORMATS

    rows = []
    for name, format in FORMATS.items():
        ways = [", ".join(sorted(keys)) for keys in format.keys]
        more = len(ways) - _WAYS_SHOWN
        others = [f"and {counted(more, 'more ways')}: docs/formats.md"] if more > 0 else []
        rows.append((name, " | ".join([*ways[:_WAYS_SHOWN], *others])))
    return _listed(arguments, program, ("format", "recognised by the fields"), rows)


def exports(arguments: Sequence[str], program: str) -> int:
    """Print the exports: the files that a run can write."""
    from assay.export import EXPORTS

    rows = [(name, export.file, export.description) for name, export in EXPORTS.items()]
    return _listed(arguments, program, ("export", "file", "holds"), rows)


def _listed(
    arguments: Sequence[str], program: str, headings: Sequence[str], rows: Sequence[tuple[str, ...]]
) -> int:
    """Print all rows, or those whose first column contains the given word. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=program, add_help=True, allow_abbrev=False)
    parser.add_argument("word", nargs="?", default="", help="list only the names that contain this word")
    word = parser.parse_args(list(arguments)).word
    found = [row for row in rows if word.casefold() in row[0].casefold()]
    if not found:
        names = [row[0] for row in rows]
        print(f"error: no name contains {word!r}{did_you_mean(word, names)}", file=sys.stderr)
        return 2
    console = Console()
    if not console.is_terminal:
        # For a pipe: one line per row, tabs between the columns, no folding.
        with writing_results():
            for row in found:
                print("\t".join(row))
        return 0
    table = Table(box=rich.box.SIMPLE_HEAD)
    for number, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", no_wrap=number == 0)
    for row in found:
        table.add_row(*row)
    with writing_results():
        console.print(table)
    return 0
