"""What ``--dry-run`` shows: what there is, and what a run would have to score."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from assay.rewards.spec import ModelSpec
from assay.score.scoring import Preview
from assay.storage.manifests import Converted


def preview_data(converted: Converted, model: ModelSpec, preview: Preview) -> dict[str, object]:
    """The same figures for a program: JSON's own types."""
    usage = preview.usage
    return {
        "dry_run": True,
        "model": model.name,
        "lines": converted.lines,
        "records": {
            "read": converted.counts.read,
            "dropped": converted.counts.dropped,
            "quarantined": converted.counts.quarantined,
            "to_score": preview.records,
            "to_show_the_model": preview.planned_records,
        },
        "turns": {
            "all": preview.turns,
            "distinct": preview.distinct_turns,
            "stored": preview.stored_turns,
            "missing": preview.missing_turns,
        },
        "tokens": preview.estimated_tokens if usage is None else usage.tokens,
        "requests": None if usage is None else usage.requests,
        "cost": None if usage is None or usage.cost is None else {usage.currency: usage.cost},
    }


def preview_table(converted: Converted, model: ModelSpec, preview: Preview) -> Group:
    """A title, and a table of two columns, what and how many."""
    table = Table(show_header=False)
    # A title of the table's own would be filled up with spaces.
    shown = Group(Text("Dry run: nothing was scored"), table)
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    table.add_row("input lines read", f"{converted.lines:,}")
    table.add_row("records", f"{converted.counts.read:,}")
    for outcome, counts in (
        ("dropped", converted.counts.dropped),
        ("quarantined", converted.counts.quarantined),
    ):
        for reason, count in counts.items():
            table.add_row(f"  {outcome}: {reason}", f"{count:,}")
    table.add_row("  to be scored or found in the store", f"{preview.records:,}", end_section=True)
    table.add_row("turns", f"{preview.turns:,}")
    table.add_row("  distinct", f"{preview.distinct_turns:,}")
    table.add_row(f"  of these already scored by {model.name}", f"{preview.stored_turns:,}")
    table.add_row("  left to score", f"{preview.missing_turns:,}")
    if converted.reasoning_turns:
        table.add_row("turns that hold reasoning", f"{converted.reasoning_turns:,}")
    if (usage := preview.usage) is not None:
        # The contract probe's own request or two are not counted.
        table.add_row(f"requests to {model.name}", f"{usage.requests:,}")
        table.add_row("  their tokens, estimated", f"{usage.tokens:,}")
        if usage.cost is not None:
            table.add_row("  their cost, estimated", f"{usage.cost:,.2f} {usage.currency}")
        return shown
    table.add_row("records to be shown to the model", f"{preview.planned_records:,}")
    table.add_row("  their tokens, estimated", f"{preview.estimated_tokens:,}")
    return shown
