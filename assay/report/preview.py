"""What ``--preview`` shows: what the rules would do with scores that are there."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from assay.core.text import counted, printable
from assay.select.preview import Neighbour, PreviewedCut, RulesPreview


def rules_table(preview: RulesPreview) -> Group:
    """What is kept, what each rule drops, and for each number in a rule, other numbers and what is near."""
    kept = f"{preview.kept:,} of {counted(preview.read, 'records')} would be kept"
    shown: list[Table | Text] = [Text(f"Preview: {kept}; nothing is written")]
    if preview.rules:
        rules = Table("rule", "drops", "and no other rule does", "of")
        for column in rules.columns[1:]:
            column.justify = "right"
        for one in preview.rules:
            rules.add_row(
                Text(printable(one.rule.text)), f"{one.fails:,}", f"{one.fails_alone:,}", f"{one.asked:,}"
            )
        shown.append(rules)
    for cut in preview.cuts:
        shown += [_ladder(cut), *_neighbours(cut)]
    shown += [Text(f"{note[:1].upper()}{note[1:]}.") for note in preview.notes]
    return Group(*shown)


def _ladder(cut: PreviewedCut) -> Table:
    comparison = cut.comparison
    table = Table(f"{comparison.value} {comparison.operator}", "would keep", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    chosen = str(comparison).rpartition(" ")[2]
    for rung in cut.ladder:
        mark = "  <- the rule" if rung.threshold == chosen else ""
        share = f"{100 * rung.kept / cut.asked:.1f}%" if cut.asked else ""
        table.add_row(Text(f"{rung.threshold}{mark}"), f"{rung.kept:,}", share)
    return table


def _neighbours(cut: PreviewedCut) -> list[Text]:
    lines = []
    for side, neighbours in (("not ", cut.fails), ("", cut.holds)):
        lines += [_neighbour(cut, side, one) for one in neighbours]
    return lines


def _neighbour(cut: PreviewedCut, side: str, one: Neighbour) -> Text:
    threshold = str(cut.comparison).rpartition(" ")[2]
    place = f"{printable(one.file)}:{one.line}"
    stands = f"{side}{cut.comparison.operator} {threshold}"
    return Text(f"  {one.value:.6g} ({stands})  {place}  {printable(one.answer)}")
