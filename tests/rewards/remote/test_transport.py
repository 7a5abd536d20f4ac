"""Pace, retries, addresses and what is told of them."""

from __future__ import annotations

import asyncio
import email.utils
import gzip
import itertools
import logging
import resource
import time
import zlib
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import services
from hypothesis import given
from hypothesis import strategies as st
from services import Answer, Asked, Server, as_json, rated
from stages import Heard

from assay.core.errors import AssayError, ModelFault, Resumable
from assay.core.schema import Message
from assay.rewards.endpoint import Endpoint
from assay.rewards.protocol import TurnScore
from assay.rewards.remote import service as service_module
from assay.rewards.remote.addresses import why_refused, why_url_refused
from assay.rewards.remote.endpoints import served_spec
from assay.rewards.remote.pacing import Pace, Slots
from assay.rewards.remote.replies import Reply
from assay.rewards.remote.service import Service, _written_anyhow
from assay.rewards.remote.transport import MAX_REPLY_BYTES, patience_asked_for, retry_after_seconds

TALK = (Message("user", "a private question"), Message("assistant", "a private answer"))
NOW = 1_700_000_000.0


@pytest.fixture
def server() -> Iterator[Server]:
    with services.serving() as running:
        yield running


def rate(endpoint: Endpoint, said: list[str] | None = None) -> TurnScore:
    async def rated_once() -> TurnScore:
        async with Service(
            served_spec(endpoint), progress=Heard((said if said is not None else []).append)
        ) as service:
            return await service.rate(TALK)

    return asyncio.run(rated_once())


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1", 1.0),
        ("300", 300.0),
        ("0.5", 0.5),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tuesday, 14-Nov-23 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("Tue, 14 Nov 2023 23:13:50 +0100", 30.0),
        ("soon", None),
        ("", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("Wed, 99 Foo 2026 99:99:99 GMT", None),
        (None, None),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, now=NOW) == seconds


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_reply_of_backslashes_alone_is_looked_through_in_seconds() -> None:
    # Where a search begins anew at each of them, and goes to the end, this takes hours.
    hidden = _written_anyhow("CANARY-KEY")
    reply = "\\" * (1 << 20)
    assert hidden.sub("[key]", reply) == reply
    assert hidden.sub("[key]", reply + "CANARY\\\\\\\\u002dKEY") == reply[:-8] + "[key]"


@pytest.mark.parametrize("told", ["Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2065 07:28:00 GMT"])
def test_a_date_to_wait_for_is_by_the_clock_of_whoever_replied(told: str) -> None:
    later = told.replace("07:28:00", "07:28:05")
    assert patience_asked_for(Reply(429, {"date": told, "retry-after": later}, b"")) == 5.0


@pytest.mark.parametrize("told", [None, "", "yesterday", "Wed, 99 Foo 2026 99:99:99 GMT"])
def test_without_a_date_in_the_reply_our_own_clock_counts(told: str | None) -> None:
    headers = {"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)}
    found = patience_asked_for(Reply(429, headers | ({} if told is None else {"date": told}), b""))
    assert found == pytest.approx(60, abs=3)


@given(st.text(max_size=60))
def test_no_retry_after_breaks_anything(value: str) -> None:
    found = retry_after_seconds(value, now=NOW)
    assert found is None or 0 <= found < float("inf")


@pytest.mark.slow
@given(
    per_minute=st.integers(1, 100_000),
    lateness=st.lists(st.floats(0, 3), min_size=1, max_size=50),
    often=st.integers(1, 97),
)
def test_no_minute_sees_more_than_the_rate_however_late_the_process_is(
    per_minute: int, lateness: list[float], often: int
) -> None:
    slots, clock, leaves = Slots(per_minute), 1000.0, []
    for number in range(min(4 * per_minute, 3000)):
        clock = slots.due(clock)
        if number % often == 0:
            clock += lateness[(number // often) % len(lateness)]
        slots.left(clock)
        leaves.append(clock)
    first = 0
    for last, at in enumerate(leaves):
        while at - leaves[first] >= 60:
            first += 1
        assert last - first + 1 <= per_minute


@pytest.mark.parametrize("per_minute", [30, 600, 6000])
def test_a_process_that_is_a_little_late_keeps_its_rate(per_minute: int) -> None:
    slots, clock = Slots(per_minute), 1000.0
    for _ in range(3 * per_minute + 1):
        clock = slots.due(clock) + 0.0004
        slots.left(clock)
    assert 0.975 <= 180 / (clock - 1000.0) <= 1.0


def test_a_pause_is_not_followed_by_a_burst() -> None:
    def five_from(now: float) -> list[float]:
        times = []
        for _ in range(5):
            now = slots.due(now)
            slots.left(now)
            times.append(now)
        return times

    slots = Slots(600)
    for begins in (0.0, 500.0):
        times = five_from(begins)
        assert min(after - before for before, after in itertools.pairwise(times)) > 0.099
        assert times[-1] - begins == pytest.approx(0.403, rel=0.01)


def test_tokens_are_paced_as_requests_are(monkeypatch: pytest.MonkeyPatch) -> None:
    async def took(pace: Pace) -> float:
        began = time.monotonic()
        for _ in range(4):
            await pace.wait(1000)
        return time.monotonic() - began

    assert 0.29 < asyncio.run(took(Pace(None, 600_000))) < 0.6
    assert asyncio.run(took(Pace(None, None))) < 0.1


@pytest.mark.slow
def test_a_limit_holds_up_every_turn_and_not_the_limited_one_alone(server: Server) -> None:
    limited_at: list[float] = []

    def answer(asked: Asked) -> Answer:
        if not limited_at:
            limited_at.append(asked.at)
            return Answer(b"{}", 429, {"Retry-After": "1"})
        return rated(asked)

    server.answer = answer

    async def some() -> None:
        async with Service(served_spec(services.endpoint(server.url, in_flight=4))) as service:
            await service.rate(TALK)
            await asyncio.gather(*[service.rate((*TALK, Message("assistant", str(n)))) for n in range(4)])

    asyncio.run(some())
    assert all(one.at - limited_at[0] >= 1.0 for one in server.asked[1:])


@pytest.mark.slow
def test_backoff_grows_and_is_never_the_same_for_all(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.rewards.remote.transport.FIRST_DELAY_SECONDS", 0.1)
    server.answer = lambda asked: Answer(b"", 503)
    with pytest.raises(Resumable, match="503"):
        rate(services.endpoint(server.url, deadline_seconds=1.2))
    times = [one.at for one in server.asked if b"private" in one.body]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert 3 <= len(times) <= 6
    assert gaps[-1] > 1.4 * gaps[0]


def test_a_reply_without_end_is_not_read_to_its_end(server: Server) -> None:
    server.answer = lambda asked: Answer(b"x" * (MAX_REPLY_BYTES + 1))
    for kind in ("openai", "vllm-classify"):
        outcome = rate(services.endpoint(server.url, kind))
        assert str(outcome.reason).startswith("service_reply: a reply of more than")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["openai", "vllm-classify"])
@pytest.mark.parametrize("status", [200, 422, 503])
@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Length": str(2 << 30)}, {"Transfer-Encoding": "chunked"}, {"Content-Encoding": "gzip"}],
    ids=["without end", "2 GB promised", "one chunk of 2 GB", "gzip"],
)
def test_a_body_of_gigabytes_is_left_after_a_megabyte(
    server: Server, kind: str, status: int, headers: dict[str, str]
) -> None:
    begin = b"80000000\r\n" if "Transfer-Encoding" in headers else b""
    if "Content-Encoding" in headers:
        begin = zeros_in_gzip(60)
        assert len(begin) < MAX_REPLY_BYTES
    server.answer = lambda asked: Answer(begin, status, headers, poured=2 << 30)
    endpoint = services.endpoint(server.url, kind, timeout_seconds=20.0, deadline_seconds=20.0)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    room = psutil.Process().memory_info().vms + 200 * MAX_REPLY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (room, limits[1]))
    try:
        reason = str(rate(endpoint).reason)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert reason == "service_reply: a reply of more than 1,048,576 bytes"
    # What the sockets hold comes on top.
    assert server.poured < 64 * MAX_REPLY_BYTES


@pytest.mark.parametrize("kind", ["openai", "vllm-classify"])
def test_a_reply_that_is_packed_though_nobody_asked_is_read(server: Server, kind: str) -> None:
    plain = services.endpoint(server.url, "openai")
    expected = rate(plain).values
    assert expected is not None

    def answer(asked: Asked) -> Answer:
        return Answer(gzip.compress(rated(asked).body), headers={"Content-Encoding": "gzip"})

    server.answer = answer
    assert rate(plain).values == expected
    headers: dict[str, str] = {}
    server.answer = lambda asked: Answer(b"x", headers=headers)
    for packing in ("br", "zstd", "gzip, gzip"):
        headers["Content-Encoding"] = packing
        reason = str(rate(services.endpoint(server.url, kind)).reason)
        assert reason == "service_reply: a reply packed in a way that was not asked for"
    server.answer = lambda asked: Answer(b"no gzip", headers={"Content-Encoding": "gzip"})
    reason = str(rate(services.endpoint(server.url, kind)).reason)
    assert reason == "service_reply: a packed reply that cannot be unpacked"


def zeros_in_gzip(megabytes: int) -> bytes:
    """Small, and a thousand times as long once it is unpacked."""
    packing = zlib.compressobj(9, wbits=31)
    packed = [packing.compress(bytes(1 << 20)) for _ in range(megabytes)]
    return b"".join([*packed, packing.flush()])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_turn_that_the_service_refuses_is_quarantined_with_what_it_says(
    server: Server, status: int
) -> None:
    server.answer = lambda asked: as_json({"error": {"message": "at most 4096 tokens"}}, status)
    reason = str(rate(services.endpoint(server.url)).reason)
    assert reason.startswith(f"service_refused: HTTP {status}")
    assert "at most 4096 tokens" in reason
    assert len(server.asked) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["openai", "vllm-classify"])
@pytest.mark.parametrize(
    "answer",
    [
        Answer(b'{"error": "Bearer CANARY-KEY and a private question"}', 401),
        Answer(b'{"error": "CANARY-KEY, a private question"}', 503),
        Answer(b'{"error": "CANARY-KEY"}', 422),
        Answer(b'{"error": {"message": "CANARY\\u002dKEY is no key"}}', 422),
        # Cut where a message ends, in the middle of the key.
        *(Answer(b'{"error": {"message": "%s CANARY-KEY"}}' % (b"x" * n), 422) for n in range(167, 176, 4)),
        # As the name of an attribute, which a message about the reply repeats.
        as_json(services.completion({"CANARY-KEY": 1.0})),
        Answer(b"CANARY-KEY", 200),
        Answer(reset=True),
        Answer(b"", 302, {"Location": "http://elsewhere/?CANARY-KEY"}),
    ],
    ids=[
        "401",
        "503",
        "422",
        "escaped",
        *(f"cut {n}" for n in range(167, 176, 4)),
        "attribute",
        "rubbish",
        "reset",
        "redirect",
    ],
)
def test_neither_key_nor_text_is_in_what_is_said_and_logged(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    answer: Answer,
) -> None:
    monkeypatch.setenv("A_KEY", "CANARY-KEY")
    caplog.set_level(logging.DEBUG)
    # Also those below them, as a logging configuration may name one by one.
    for name in ("openai", "openai._base_client", "httpx2", "httpcore2", "httpcore2.http11"):
        caplog.set_level(logging.DEBUG, logger=name)
    server.answer = lambda asked: answer
    said: list[str] = []
    endpoint = services.endpoint(server.url, kind, key_variable="A_KEY", deadline_seconds=0.4)
    try:
        outcome = rate(endpoint, said)
        assert outcome.values is None
        told = str(outcome.reason)
    except AssayError as error:
        told = f"{error}{error.__cause__!r}"
        assert "private" not in told
    everything = told + "".join(said) + caplog.text
    assert "CANARY" not in everything
    assert "private" not in "".join(said) + caplog.text
    assert "Location" not in caplog.text
    assert server.asked[0].headers["authorization"] == "Bearer CANARY-KEY"


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.1.1",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "2002:a9fe:a9fe::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "0.0.0.0",
        "::",
        "224.0.0.1",
    ],
)
def test_addresses_that_hand_out_credentials_are_refused(address: str) -> None:
    assert why_refused(address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.1.2.3", "192.168.1.5", "8.8.8.8", "2606:4700::1"]
)
def test_other_addresses_are_allowed(address: str) -> None:
    assert why_refused(address) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "http://2852039166/latest",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://[::ffff:169.254.169.254]/",
        "http://metadata.google.internal/computeMetadata",
        "http://METADATA.google.internal./",
        "https://user:pass@host/v1",
        "https://host/v1?api_key=x",
        "file:///etc/passwd",
        "ftp://host/",
        "host/v1",
        "",
        "http://",
        "http://[::1",
        "http://host:99999/",
    ],
)
def test_urls_that_are_none_or_lead_astray_are_refused(url: str) -> None:
    reason = why_url_refused(url, has_key=False)
    assert reason
    assert "pass" not in reason.replace("password", "")


def test_a_key_travels_encrypted_or_not_beyond_this_machine() -> None:
    assert why_url_refused("http://gpu.example:8000", has_key=True)
    assert why_url_refused("http://gpu.example:8000", has_key=False) is None
    assert why_url_refused("https://gpu.example:8000", has_key=True) is None
    assert why_url_refused("http://127.0.0.1:8000", has_key=True) is None
    assert why_url_refused("http://localhost:8000", has_key=True) is None


@pytest.mark.parametrize("kind", ["openai", "vllm-classify"])
def test_a_name_that_points_at_a_metadata_service_is_not_connected_to(
    server: Server, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    async def resolved(*arguments: Any, **options: Any) -> list[Any]:
        return [(2, 1, 6, "", ("169.254.169.254", 80))]

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.getaddrinfo", resolved)
    with pytest.raises(ModelFault, match="link-local"):
        rate(services.endpoint("http://rebound.example:80", kind))


@pytest.mark.parametrize("kind", ["openai", "vllm-classify"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_reported_and_not_followed(server: Server, kind: str, status: int) -> None:
    with services.serving() as elsewhere:
        server.answer = lambda asked: Answer(b"", status, {"Location": f"{elsewhere.url}{asked.path}"})
        with pytest.raises(ModelFault, match=f"HTTP {status}.*redirects are not followed"):
            rate(services.endpoint(server.url, kind))
        assert not elsewhere.asked


def test_the_probe_is_what_is_sent_first_and_holds_nothing_of_the_data(server: Server) -> None:
    async def probed() -> None:
        async with Service(served_spec(services.endpoint(server.url))) as service:
            await service.probe()

    asyncio.run(probed())
    (asked,) = server.asked
    assert [one["content"] for one in asked.json["messages"]] == [one.content for one in service_module.PROBE]


def test_a_probe_that_fails_says_what_came_back_and_what_to_do(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "CANARY-KEY")
    server.answer = lambda asked: as_json({"detail": "no such model for CANARY-KEY"}, 422)

    async def probed() -> None:
        async with Service(served_spec(services.endpoint(server.url, key_variable="A_KEY"))) as service:
            await service.probe()

    with pytest.raises(ModelFault) as refused:
        asyncio.run(probed())
    told = str(refused.value)
    assert "HTTP 422" in told
    assert "no such model for [key]" in told
    assert "Nothing was spent" in told
    assert "served-model" in told
