"""What a person sees of a run: bars that fit, rates and time left, and as little as a script asks for."""

from __future__ import annotations

import io
import json
import re

import pytest

from flows.command.console import Console, Showing


class Terminal(io.StringIO):
    """A screen of 80 columns."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr("flows.command.console.time.monotonic", moved)
    return moved


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_the_progress_has_a_rate_and_the_time_left(clock: Clock) -> None:
    shown = Console(errors=io.StringIO())
    shown.begin("score", 1000, "turns")
    # Workers load their models: that is no rate.
    clock.now += 60
    shown.advance(10)
    assert shown._about() == "10 of 1,000 turns, 0.2 turns/s"
    clock.now += 10
    shown.advance(90)
    # 90 in ten seconds, since the first: 900 left take 100.
    assert shown._about() == "100 of 1,000 turns, 1.4 turns/s, 2 min left"
    shown.advance(900)
    assert "left" not in shown._about()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_bar_is_one_line_of_the_terminal(
    clock: Clock, screen: Terminal, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = Console(errors=screen)
    shown.begin("score", 1_234_567, "turns")
    for _ in range(3):
        clock.now += 20
        shown.advance(123_456, tokens=5_000_000, worker="w", busy_seconds=19.0, retries=12, failed=3)
    about = shown._about()
    assert about.startswith("370,368 of 1,234,567 turns")
    assert 8 + 14 + 3 + len(about) <= width or width == 60
    assert ("tokens/s" in about) is (width == 200)
    shown.close()
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert all(len(line) <= width for line in re.split(r"[\r\n]", drawn))


def test_no_color_has_no_colour_and_the_same_words(
    clock: Clock, screen: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = Console(errors=screen)
    shown.begin("score", 10, "turns")
    shown.advance(5)
    shown.close()
    assert not re.search(r"\x1b\[(?:\d+;)*[34][0-9]m", screen.getvalue())
    assert "score" in screen.getvalue()


def test_quiet_shows_warnings_and_errors_and_nothing_else() -> None:
    errors, results = io.StringIO(), io.StringIO()
    shown = Console(errors=errors, results=results)
    shown.showing = Showing(is_quiet=True)
    with shown.stage("convert") as stage:
        stage.note = "5 records"
        shown.begin("convert", 5, "records")
        shown.advance(5)
    for line in ("a note", "warning: look", "error: bad"):
        shown.say(line)
    shown.show("the summary", "the summary\n")
    assert errors.getvalue() == "warning: look\nerror: bad\n"
    assert results.getvalue() == ""
    assert shown.seconds.keys() == {"convert"}


@pytest.mark.parametrize("quiet", [True, False])
def test_json_is_all_there_is_on_standard_output(quiet: bool) -> None:
    errors, results = io.StringIO(), io.StringIO()
    shown = Console(errors=errors, results=results)
    shown.showing = Showing(is_quiet=quiet, as_json=True)
    shown.say("a note")
    shown.show("the summary", "the summary\n")
    shown.show_data({"rows": {"kept": 1}, "why": "\u202e[red]"})
    assert json.loads(results.getvalue()) == {"rows": {"kept": 1}, "why": "\u202e[red]"}
    assert ("a note" in errors.getvalue()) is not quiet


def test_short_stages_are_no_line_of_a_log(clock: Clock) -> None:
    errors = io.StringIO()
    shown = Console(errors=errors)
    for name in ("ingest", "convert", "score", "filter", "export", "report"):
        shown.begin(name, 5, "records")
    assert errors.getvalue().splitlines() == ["convert: 5 records", "score: 5 records"]
