"""Pages in a real browser: nothing is fetched, nothing of the data runs, the cut can be dragged."""

from __future__ import annotations

import re
from collections.abc import Iterator

import polars as pl
import pytest
import run_made
from browser import CHROMIUM, OpenPage, browser
from handmade import Record, Turn
from run_made import Made, chats, in_pieces

pytestmark = [
    pytest.mark.operated,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]

CANARIES = [
    "<script>document.title = 'canary'</script>",
    "</style></script><script>document.title = 'canary'</script>",
    "<img src=x onerror=\"document.title='canary'\"><svg onload=\"document.title='canary'\">",
    "[x](javascript:document.title='canary') https://example.org/picture.png",
    "\u202e\x00\x1b[31m",
    "w" * 1_000_000,
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPage]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """A usual run, one of hostile texts, one that keeps nothing."""
    hostile = [
        Record(n, (("user", text), ("assistant", text)), (Turn((float(n), 1.0)),))
        for n, text in enumerate(CANARIES, start=1)
    ]
    usual = {"a.jsonl": in_pieces(chats(150)), "b.jsonl": in_pieces(chats(60, 1))}
    named = "<script>document.title='canary'<!--.jsonl"
    made = {
        "usual": (usual, ["helpfulness >= 2"]),
        "hostile": ({named: [hostile]}, ["helpfulness >= 3"]),
        "nothing kept": ({"a.jsonl": in_pieces(chats(30))}, ["helpfulness >= 9"]),
    }
    return {
        name: run_made.run(tmp_path_factory.mktemp("run"), files, keep)
        for name, (files, keep) in made.items()
    }


def opened(page: OpenPage, run: Made) -> None:
    page.console.clear()
    page.requests.clear()
    page.open((run.folder / "report.html").as_uri())


@pytest.mark.parametrize("name", ["usual", "hostile", "nothing kept"])
@pytest.mark.parametrize(("width", "dark"), [(1100, False), (1100, True), (390, False)])
def test_no_page_runs_or_fetches_anything_of_others(
    page: OpenPage, runs: dict[str, Made], name: str, width: int, dark: bool
) -> None:
    page.look(width=width, dark=dark, mobile=width < 600)
    opened(page, runs[name])
    for each in ("details", "input[type=search]"):
        page.ask(f"document.querySelectorAll('{each}').forEach((one) => {{ one.open = true; }})")
    assert page.console == []
    assert [one for one in page.requests if not one.startswith("file:")] == []
    assert "records kept" in str(page.ask("document.title"))
    assert "canary" not in str(page.ask("document.title")).replace("document.title", "")
    # Nothing is wider than the window: a figure or a table scrolls by itself.
    assert page.ask("document.documentElement.scrollWidth") <= width
    ink, paper = (page.ask(f"getComputedStyle(document.body).{one}") for one in ("color", "backgroundColor"))
    assert (brightness(ink) > brightness(paper)) is dark
    assert page.ask("performance.timing.loadEventEnd - performance.timing.navigationStart") < 5000


def brightness(color: str) -> int:
    return sum(map(int, re.findall(r"\d+", color)[:3]))


def test_a_dragged_cut_shows_what_polars_counts(page: OpenPage, runs: dict[str, Made]) -> None:
    page.look()
    run = runs["usual"]
    opened(page, run)
    judged = run.judged()
    said = "document.querySelector('.slider output').textContent"
    at_rule = judged.filter(pl.col("helpfulness") >= 2).height
    assert page.ask(said).startswith(f"helpfulness >= 2 alone keeps {at_rule} of {judged.height} (")
    for move in ("input.value = 20", "input.value = 0", "input.value = input.max"):
        page.ask(
            f"{{ const input = document.querySelector('.slider input'); {move};"
            " input.dispatchEvent(new Event('input')); }"
        )
        words = re.match(r"helpfulness >= (-?[\d.]+) alone keeps ([\d,]+) of ", page.ask(said))
        assert words is not None
        limit = pl.lit(float(words[1]), pl.Float32)
        assert int(words[2].replace(",", "")) == judged.filter(pl.col("helpfulness") >= limit).height


def test_the_mark_in_the_picture_can_be_dragged(page: OpenPage, runs: dict[str, Made]) -> None:
    page.look()
    opened(page, runs["usual"])
    said = "document.querySelector('.slider output').textContent"
    before = page.ask(said)
    box = page.ask(
        "(() => { const one = document.querySelector('.movable').ownerSVGElement; one.scrollIntoView();"
        " const { left, top, width, height } = one.getBoundingClientRect();"
        " return [left, top, width, height]; })()"
    )
    left, top, width, height = box
    for kind, part in (("mousePressed", 0.3), ("mouseMoved", 0.7), ("mouseReleased", 0.7)):
        page.send(
            "Input.dispatchMouseEvent",
            type=kind,
            x=left + part * width,
            y=top + height / 2,
            button="left",
            buttons=1,
        )
    assert page.ask(said) != before


def test_the_search_leaves_what_holds_the_words(page: OpenPage, runs: dict[str, Made]) -> None:
    page.look()
    opened(page, runs["usual"])
    count = "document.querySelectorAll('article:not([hidden])').length"
    whole = page.ask(count)
    page.ask(
        "{ const find = document.querySelector('.find input'); find.value = 'Question 3?';"
        " find.dispatchEvent(new Event('input')); }"
    )
    found = page.ask(count)
    assert 0 < found < whole
    texts = page.ask("[...document.querySelectorAll('article:not([hidden])')].map((one) => one.textContent)")
    assert all("question" in text.lower() and "3?" in text for text in texts)
    assert page.ask("document.querySelector('.find output').textContent") == f"{found} of {whole} shown"
