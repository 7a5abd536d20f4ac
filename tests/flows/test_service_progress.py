"""What a person sees while a service is asked: rate, retries, failures, money, time left."""

from __future__ import annotations

import io

import pytest

from flows.command.console import Console


def test_progress_shows_rate_retries_failures_money_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("flows.command.console.time.monotonic", lambda: clock[0])
    said = io.StringIO()
    console = Console(errors=said, results=io.StringIO())
    console.begin("score", 300, "turns")
    clock[0] += 30.0
    console.advance(99, failed=0, tokens=5000, requests=104, retries=5, cost=1.5, currency="EUR")
    console.advance(1, failed=1, tokens=10, requests=1, retries=0, cost=0.01, currency="EUR")
    line = said.getvalue().splitlines()[-1]
    assert "99 of 300 turns, 3.3 turns/s, 208 requests/min, 5 retries, 1.50 EUR" in line
    clock[0] += 30.0
    console.advance(50, failed=0, tokens=500, requests=50, retries=0, cost=0.5, currency="EUR")
    told = " ".join(said.getvalue().split())
    # 51 turns took the 30 s since the first were done; 150 are left.
    assert "150 of 300 turns, 2.5 turns/s, 88 s left, 155 requests/min, 5 retries" in told
    assert "1 without a score, 2.01 EUR" in told


def test_local_models_show_turns_and_tokens_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("flows.command.console.time.monotonic", lambda: clock[0])
    said = io.StringIO()
    console = Console(errors=said, results=io.StringIO())
    console.begin("score", 300, "turns")
    clock[0] += 20.0
    console.advance(100, failed=1, tokens=5000, seconds=3.0)
    assert said.getvalue().splitlines()[-1] == "score: 100 of 300 turns, 5.0 turns/s, 250 tokens/s"
