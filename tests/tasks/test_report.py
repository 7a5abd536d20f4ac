"""What Prefect's pages show of a run's page: rows that say what became of a conversation, and why."""

from __future__ import annotations

import pytest

from assay.report.sample import ShownConversation, ShownKind, ShownMessage, ShownOriginal
from tasks.report import examples


def conversation(line: int, *, reason: str | None, answer: str = "Forty-two") -> ShownConversation:
    return ShownConversation(
        why="helpfulness 1.5",
        file="/srv/chats/new/monday.jsonl",
        line=line,
        part=0,
        outcome="kept" if reason is None else "dropped",
        reason=reason,
        messages=(
            ShownMessage("user", "What is\nsix times seven?", 0),
            ShownMessage("assistant", answer, 0, turn=0),
            ShownMessage("user", "Thanks.", 0),
        ),
    )


def test_an_example_says_where_it_is_what_became_of_it_and_why() -> None:
    (row,) = examples([ShownKind("worst", "Worst", "", (conversation(7, reason="rule: helpfulness >= 2"),))])
    assert row == {
        "shown as": "Worst",
        "score": "helpfulness 1.5",
        "outcome": "dropped",
        "reason": "rule: helpfulness >= 2",
        # The folders of the machine are not for everybody who sees the pages.
        "place": "monday.jsonl:7",
        "before": "What is six times seven?",
        "answer": "Forty-two",
    }


def test_what_tells_examples_apart_stands_in_the_first_columns_and_is_short() -> None:
    bad = ShownOriginal("unknown_schema: " + "'field' is missing; " * 30, "a.jsonl", 1, "{", 0)
    (row,) = examples([ShownKind("quarantined", "Out", "", (), (bad,))])
    first = list(row)[:4]
    assert first == ["outcome", "score", "place", "reason"]
    # A page that is 1,300 pixels wide has room for this many characters.
    assert sum(len(row[name]) for name in first) < 90
    assert row["reason"].strip("`").startswith("unknown_schema: 'field' is missing")
    assert row["reason"].strip("`").endswith(" …")


def test_examples_are_few_and_short_and_each_reason_for_quarantine_is_among_them() -> None:
    long = tuple(conversation(line, reason=None, answer="word " * 1000) for line in range(300))
    damaged = tuple(ShownOriginal(f"reason {n}", "a.jsonl", n, "{", 0) for n in range(20))
    rows = examples([ShownKind("best", "Best", "", long), ShownKind("quarantined", "Out", "", (), damaged)])
    assert len(rows) == 100
    assert max(len(row["answer"]) for row in rows) < 200
    assert {row["reason"] for row in rows if row["outcome"] == "quarantined"} == {
        f"reason {n}" for n in range(20)
    }
    assert len({tuple(row) for row in rows}) == 1, "one row has other columns"


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x>",
        "[x](javascript:alert(1))",
        "see https://example.org",
        "WWW.example.org",
        "a@example.org",
        "- a list",
        "1. a list",
        "# a title",
        "> a quotation",
        "*a* _b_ ~c~",
        "&lt;b&gt;",
        "a | b",
        "``` three ```",
        "\\",
    ],
)
def test_markdown_in_the_data_stays_a_text(text: str) -> None:
    (row,) = examples([ShownKind("best", "Best", "", (conversation(1, reason=None, answer=text),))])
    fence, _, inside = row["answer"].partition(text)
    # Code, whose marks are longer than any in it.
    assert inside.strip(" ") == fence.strip(" ")
    assert set(fence.strip(" ")) == {"`"}
    assert fence.strip(" ") not in text


def test_a_run_without_a_page_has_no_examples() -> None:
    assert examples([]) == []
