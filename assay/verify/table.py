"""The results of checks for people: a table, lines for a log, rows for Prefect's pages, a verdict."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from assay.core.text import printable
from assay.verify.checks import Check


def _outcome(check: Check) -> str:
    return {True: "pass", False: "FAIL", None: "-"}[check.passed]


def checks_table(model: str, checks: Sequence[Check]) -> Table:
    """One row per check: its name, what it measured, what is allowed, its outcome."""
    table = Table(title=f"Verified: {printable(model)}", title_justify="left")
    for heading in ("check", "measured", "allowed", ""):
        table.add_column(heading, overflow="fold")
    for check in checks:
        style = "bold red" if check.passed is False else None
        row = (check.name, check.measured, check.allowed, _outcome(check))
        table.add_row(*map(printable, row), style=style)
    return table


def checks_text(checks: Sequence[Check]) -> str:
    """The checks as lines for a log."""
    return "".join(
        printable(f"{_outcome(check):<5}{check.name}: {check.measured}")
        + (f" (allowed: {check.allowed})\n" if check.allowed else "\n")
        for check in checks
    )


def checks_rows(checks: Sequence[Check]) -> list[dict[str, str]]:
    """The checks as rows for a table in Prefect's pages."""
    return [
        {
            "check": printable(check.name),
            "measured": printable(check.measured),
            "allowed": printable(check.allowed),
            "outcome": _outcome(check),
        }
        for check in checks
    ]


def verdict(checks: Sequence[Check]) -> str:
    """One line on all checks; empty where none applied."""
    failed = [check.name for check in checks if check.passed is False]
    if failed:
        return printable(f"failed: {'; '.join(failed)}")
    return "all checks passed" if any(check.passed for check in checks) else ""
