"""When a run could use nothing, and what is said of it."""

from __future__ import annotations

import manifests
import pytest

from assay.export.usable import all_ruled_out, holds_records, nothing_usable
from assay.storage.manifests import Counts
from assay.storage.run_manifest import Written

HELD = Written("messages.jsonl", 5)
EMPTY = Written("labeled.jsonl", 0, {"late_system_message": 2, "tool_message": 3})


@pytest.mark.parametrize(
    ("counts", "exports", "said"),
    [
        (Counts(5), {}, None),
        (Counts(5), {"messages": HELD}, None),
        (Counts(5), {"steerlm": EMPTY, "messages": HELD}, None),
        (Counts(5), {"steerlm": EMPTY}, "steerlm: tool_message (3 of 5)"),
        (Counts(5, {"rule: quality > 3": 9}), {"steerlm": EMPTY}, "steerlm: tool_message (3 of 5)"),
        (Counts(0, {"rule: quality > 3": 9}), {"steerlm": Written("labeled.jsonl")}, None),
        (Counts(0, {"no_messages": 1}, {"not_json": 2}), {}, "not_json (2 of 3)"),
        (Counts(), {"steerlm": Written("labeled.jsonl")}, "the inputs hold none"),
    ],
)
def test_a_record_is_of_use_where_a_file_holds_it_or_a_rule_judged_it(
    counts: Counts, exports: dict[str, Written], said: str | None
) -> None:
    found = nothing_usable(counts, exports)
    assert (found is None) == (said is None)
    if found is not None and said is not None:
        assert found.startswith("No record could be used: ")
        assert said in found


def test_rules_that_keep_nothing_are_named_and_those_that_keep_something_are_not() -> None:
    ruled = {"rule: quality > 3": 9, "rule: humor < 1": 2}
    assert all_ruled_out(Counts(0, ruled)) == "The rules keep no record: quality > 3 drops 9 of 11."
    assert all_ruled_out(Counts(1, ruled)) is None
    assert all_ruled_out(Counts(0, {"no_messages": 1})) is None


@pytest.mark.parametrize(
    ("exports", "holds"),
    [
        ({}, True),
        ({"a": Written("a.jsonl", 1, {"tool_message": 1})}, True),
        ({"a": Written("a.jsonl", 0, {"tool_message": 2})}, False),
    ],
)
def test_results_hold_no_records_where_all_that_was_kept_was_left_out(
    exports: dict[str, Written], holds: bool
) -> None:
    manifest = manifests.of_counts(Counts(2), exports=exports)
    assert holds_records(manifest.as_written()) is holds


def test_results_whose_manifest_cannot_be_read_are_taken_to_hold_records() -> None:
    assert holds_records({**manifests.of_counts(Counts(0)).as_written(), "exports": {"a": {"rows": "many"}}})
