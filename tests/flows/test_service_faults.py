"""Faults 20 to 26: what a service can do wrong, and what a run makes of it."""

from __future__ import annotations

import email.utils
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import services
from service_runs import CANARY, RECORDS, Faulty, Runs, check_accounts, check_stopped
from services import Answer, Asked, Server, as_json, completion, rated

TURNS = 2 * RECORDS
EVERY_TIME = 1000
ALWAYS = ""  # part of every turn's text
GOOD = dict(zip(services.HELPSTEER, services.SEED_SCORES, strict=True))


@pytest.fixture
def runs(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Runs:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    monkeypatch.setenv("SERVICE_KEY", CANARY)
    monkeypatch.setattr("assay.rewards.remote.transport.FIRST_DELAY_SECONDS", 0.05)
    made = Runs(tmp_path, monkeypatch, capsys)
    made.home("home")
    return made


@pytest.fixture
def server() -> Iterator[Server]:
    with services.serving() as running:
        yield running


#: The results of a run that nothing disturbed, by name; made once.
_undisturbed: dict[str, bytes] = {}


@pytest.fixture
def undisturbed(runs: Runs, server: Server) -> dict[str, bytes]:
    if not _undisturbed:
        runs.home("undisturbed-home")
        runs.endpoint(server.url)
        ran = runs(output="undisturbed")
        assert ran.code == 0, ran.err
        check_accounts(ran)
        _undisturbed.update(ran.files())
        server.asked.clear()
        runs.home("home")
    return _undisturbed


def finishes(runs: Runs, server: Server, answer: Callable[[Asked], Answer], **changes: Any) -> list[Asked]:
    """The requests for turns of one run that ends well in spite of the fault."""
    server.answer = answer
    runs.endpoint(server.url, **changes)
    ran = runs()
    assert ran.code == 0, ran.err
    check_accounts(ran)
    assert ran.manifest["turns"] == {"scored": TURNS, "reused": 0, "failed": 0}
    assert ran.files() == _undisturbed
    assert "Traceback" not in ran.err
    return server.paid


def test_20_a_retry_after_in_seconds_is_honoured(
    runs: Runs, server: Server, undisturbed: dict[str, bytes]
) -> None:
    limited = Faulty(lambda asked: Answer(b"{}", 429, {"Retry-After": "1"}))
    paid = finishes(runs, server, limited)
    first, second = [one.at for one in paid if one.last == "answer 3"]
    assert 1.0 <= second - first < 1.8


def test_20_a_retry_after_as_a_date_is_honoured(
    runs: Runs, server: Server, undisturbed: dict[str, bytes]
) -> None:
    def limited(asked: Asked) -> Answer:
        return Answer(b"{}", 429, {"Retry-After": email.utils.formatdate(time.time() + 2, usegmt=True)})

    paid = finishes(runs, server, Faulty(limited))
    first, second = [one.at for one in paid if one.last == "answer 3"]
    assert 0.9 <= second - first < 2.8


def test_20_a_rubbish_retry_after_is_backed_off_from(
    runs: Runs, server: Server, undisturbed: dict[str, bytes]
) -> None:
    rubbish = iter(["soon", "-5", "nan", "1e999", "", "Wed, 99 Foo 2026"] * 2)
    limited = Faulty(lambda asked: Answer(b"{}", 429, {"Retry-After": next(rubbish)}), turns=ALWAYS)
    assert len(finishes(runs, server, limited)) == 2 * TURNS


def test_20_a_retry_after_beyond_the_cap_stops_the_run_to_be_resumed(
    runs: Runs, server: Server, undisturbed: dict[str, bytes]
) -> None:
    faulty = Faulty(lambda asked: Answer(b"{}", 429, {"Retry-After": "300"}), times=EVERY_TIME)
    server.answer = faulty
    runs.endpoint(server.url, in_flight=1)
    check_stopped(runs(), 75, "429", "300 s", "longest_wait_seconds", "goes on from there")
    before = len(server.paid)
    faulty.mended = True
    again = runs()
    assert again.code == 0, again.err
    check_accounts(again)
    assert again.files() == undisturbed
    assert before + len(server.paid[before:]) == TURNS + 1, (
        "what was rated before the stop is not asked again"
    )


def test_20_a_limit_that_never_ends_stops_the_run_at_the_deadline(
    runs: Runs, server: Server, undisturbed: dict[str, bytes]
) -> None:
    server.answer = Faulty(lambda asked: Answer(b"{}", 429), times=EVERY_TIME)
    runs.endpoint(server.url, deadline_seconds=0.5)
    check_stopped(runs(), 75, "429", "deadline_seconds")
    server.answer = rated
    assert runs().files() == undisturbed


def test_21_a_burst_of_errors_is_ridden_out(
    runs: Runs, server: Server, undisturbed: dict[str, bytes]
) -> None:
    statuses = itertools.cycle([500, 502, 503, 504, 408, 599])
    paid = finishes(runs, server, Faulty(lambda asked: Answer(b"no", next(statuses)), turns=ALWAYS, times=2))
    assert len(paid) == 3 * TURNS, "two failures a turn, and then its score"


def test_21_a_connection_that_is_reset_is_made_anew(
    runs: Runs, server: Server, undisturbed: dict[str, bytes]
) -> None:
    finishes(runs, server, Faulty(lambda asked: Answer(reset=True), turns="more"))


def test_21_a_reply_that_drips_is_given_up_in_time(
    runs: Runs, server: Server, undisturbed: dict[str, bytes]
) -> None:
    def drips(asked: Asked) -> Answer:
        answer = rated(asked)
        answer.drip = 0.2
        return answer

    began = time.monotonic()
    finishes(runs, server, Faulty(drips))
    assert time.monotonic() - began < 12


def test_21_a_service_that_stays_down_stops_the_run_to_be_resumed(
    runs: Runs, server: Server, undisturbed: dict[str, bytes]
) -> None:
    served = 0

    def falls_over(asked: Asked) -> Answer:
        nonlocal served
        served += 1
        return rated(asked) if served <= 6 else Answer(b"no", 503)

    server.answer = falls_over
    runs.endpoint(server.url, deadline_seconds=0.6, in_flight=2)
    check_stopped(runs(), 75, "503", "deadline_seconds", "goes on from there")
    server.asked.clear()
    server.answer = rated
    again = runs()
    assert again.code == 0, again.err
    check_accounts(again)
    assert again.files() == undisturbed
    assert len(server.paid) == TURNS - 5, (
        "the five that were rated (the sixth answer was the probe's) are kept"
    )


def test_21_nobody_listening_stops_the_run_to_be_resumed(
    runs: Runs, server: Server, undisturbed: dict[str, bytes]
) -> None:
    runs.endpoint("http://127.0.0.1:9", deadline_seconds=3)
    check_stopped(runs(), 75, "no connection")
    runs.endpoint(server.url)
    assert runs().files() == undisturbed


def test_21_a_turn_that_the_service_always_fails_on_does_not_stop_the_others(
    runs: Runs, server: Server, undisturbed: dict[str, bytes]
) -> None:
    faulty = Faulty(lambda asked: Answer(b"no", 500), times=EVERY_TIME)
    server.answer = faulty
    runs.endpoint(server.url, deadline_seconds=0.6)
    ran = runs()
    assert ran.code == 0, ran.err
    check_accounts(ran)
    assert ran.manifest["quarantined"] == {"service_failed": 1}
    faulty.mended = True
    assert runs().files() == undisturbed


def test_22_a_time_out_after_the_server_did_the_work_gives_one_row(
    runs: Runs, server: Server, undisturbed: dict[str, bytes]
) -> None:
    def too_late(asked: Asked) -> Answer:
        answer = rated(asked)
        answer.delay = 1.2
        return answer

    paid = finishes(runs, server, Faulty(too_late))
    assert len([one for one in paid if one.last == "answer 3"]) == 2
    assert len(paid) == TURNS + 1


@pytest.mark.parametrize(
    ("status", "what_to_do"), [(401, "its key"), (403, "may use this model"), (404, "url and model")]
)
def test_23_a_refusal_stops_the_run_at_once_and_shows_no_key(
    runs: Runs, server: Server, undisturbed: dict[str, bytes], status: int, what_to_do: str
) -> None:
    server.answer = lambda asked: Answer(
        json.dumps({"detail": f"key {asked.headers['authorization']} is not welcome"}).encode(), status
    )
    runs.endpoint(server.url)
    check_stopped(runs(), 1, str(status), what_to_do, "reward-service")
    assert len(server.asked) == 1, "no retries"
    server.answer = rated
    assert runs().files() == undisturbed


def test_23_a_key_that_is_revoked_in_mid_run_stops_it_and_keeps_what_is_rated(
    runs: Runs, server: Server, undisturbed: dict[str, bytes]
) -> None:
    server.answer = Faulty(lambda asked: Answer(b"{}", 401), times=EVERY_TIME)
    runs.endpoint(server.url, in_flight=1)
    check_stopped(runs(), 1, "401")
    server.asked.clear()
    server.answer = rated
    assert runs().files() == undisturbed
    assert len(server.paid) < TURNS


def _changed(**changes: Any) -> Callable[[Asked], Answer]:
    return lambda asked: as_json(completion(GOOD, **changes))


def _with(pairs: Sequence[tuple[str, object]]) -> Callable[[Asked], Answer]:
    return lambda asked: as_json(completion(list(pairs)))


def _cut(asked: Asked) -> Answer:
    whole = rated(asked).body
    return Answer(whole[: len(whole) // 2], 200, {"Content-Type": "application/json"})


_PAIRS = list(GOOD.items())
_CHAT = {"role": "assistant", "content": "You are welcome. It is 4."}

UNREADABLE: dict[str, tuple[Callable[[Asked], Answer], str]] = {
    "24-html": (lambda asked: Answer(b"<html>busy</html>", 200, {"Content-Type": "text/html"}), "HTML"),
    "24-json-cut-short": (_cut, "breaks off"),
    "24-empty": (lambda asked: Answer(b""), "empty"),
    "24-null-logprobs": (_changed(logprobs=None, message=_CHAT), "not a reward model"),
    "24-empty-logprobs": (_changed(logprobs={"content": []}, message=_CHAT), "not a reward model"),
    "24-no-choices": (lambda asked: as_json({"choices": []}), "choices"),
    "24-no-object": (lambda asked: as_json([1, 2]), "choices"),
    "25-missing": (_with(_PAIRS[:4]), "verbosity missing"),
    "25-extra": (_with([*_PAIRS, ("quality", 1.0)]), "quality not expected"),
    "25-twice": (_with([*_PAIRS, _PAIRS[0]]), "helpfulness given twice"),
    "25-misspelt": (_with([*_PAIRS[:4], ("verbose", 1.0)]), "verbosity missing"),
    "26-nan": (_with([*_PAIRS[:4], ("verbosity", float("nan"))]), "verbosity is nan"),
    "26-inf": (_with([*_PAIRS[:4], ("verbosity", float("inf"))]), "verbosity is inf"),
    "26-minus-inf": (_with([*_PAIRS[:4], ("verbosity", float("-inf"))]), "verbosity is -inf"),
    "26-null": (_with([*_PAIRS[:4], ("verbosity", None)]), "verbosity is no number"),
    "26-text": (_with([*_PAIRS[:4], ("verbosity", "0.5")]), "verbosity is no number"),
}


def test_24_25_26_a_reply_without_scores_quarantines_its_record_and_no_other(
    runs: Runs, server: Server
) -> None:
    faults = sorted(UNREADABLE)
    runs.write_chats(
        {
            "messages": [
                {"role": "user", "content": "question"},
                {"role": "assistant", "content": f"{name} first"},
                {"role": "user", "content": "and more?"},
                {"role": "assistant", "content": f"{name} second"},
            ]
        }
        for name in [*faults, "good", "fine"]
    )
    runs.endpoint(server.url)
    runs.home("undisturbed-home")
    undisturbed = runs(output="undisturbed").files()
    server.asked.clear()

    def faulty(asked: Asked) -> Answer:
        name, _, which = asked.last.partition(" ")
        return UNREADABLE[name][0](asked) if name in UNREADABLE and which == "second" else rated(asked)

    runs.home("home")
    server.answer = faulty
    ran = runs()
    records, turns = len(faults) + 2, 2 * (len(faults) + 2)
    assert ran.code == 0, ran.err
    check_accounts(ran, records)
    assert ran.manifest["quarantined"] == {"service_reply": len(faults)}
    for name, reason in zip(faults, ran.reasons, strict=True):
        assert UNREADABLE[name][1] in reason, name
    assert len(ran.labels) == 4, "no turn of a quarantined record is exported, and no other is missing"
    assert len(server.paid) == turns, "each turn is asked for once"
    assert "Traceback" not in ran.err

    server.answer = rated
    again = runs()
    check_accounts(again, records)
    assert again.files() == undisturbed, "another day's reply takes the place of none"
    assert len(server.paid) == turns + len(faults), "and nothing else is asked for again"


def test_24_a_service_that_answers_nothing_else_any_more_stops_the_run_to_be_resumed(
    runs: Runs, server: Server, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay.rewards.remote.service.MOST_WITHOUT_SCORES", 3)
    busy = Answer(b"<html>down for maintenance</html>", 200, {"Content-Type": "text/html"})

    def dies(asked: Asked) -> Answer:
        return rated(asked) if len(server.asked) <= 5 else busy

    server.answer = dies
    runs.endpoint(server.url, in_flight=2)
    check_stopped(runs(), 75, "3 turns in a row", "HTML", "goes on from there")
    server.answer = rated
    assert runs().files() == undisturbed


def test_25_attributes_in_another_order_are_matched_by_name(
    runs: Runs, server: Server, undisturbed: dict[str, bytes]
) -> None:
    def backwards(asked: Asked) -> Answer:
        reply = json.loads(rated(asked).body)
        reply["choices"][0]["logprobs"]["content"].reverse()
        return as_json(reply)

    finishes(runs, server, backwards)
