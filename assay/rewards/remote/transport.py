"""HTTP to a reward service: keep connections, check addresses, retry. Nothing else retries."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import math
import random
import socket
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpcore2
import httpx2

from assay.core.errors import ModelFault, Resumable
from assay.core.progress import Progress
from assay.rewards.endpoint import Endpoint
from assay.rewards.remote.addresses import why_refused
from assay.rewards.remote.pacing import Pace
from assay.rewards.remote.replies import Reply, UnreadableReply

#: A longer reply is not read. One with scores has a few hundred bytes.
MAX_REPLY_BYTES = 1 << 20

#: zlib recognises the header of either (docs.python.org/3/library/zlib.html#zlib.decompress).
_GZIP_OR_ZLIB = 47

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0

_NOTICE_SECONDS = 10.0

#: Statuses below 500 that call for another attempt: a time-out, a conflict, "too early", a rate limit, and
#: TEI's status for a model that failed (424).
_PASSING = frozenset({408, 409, 424, 425, 429})

_WHAT_TO_DO = {
    401: "check that its key is right and has not expired",
    403: "check that its key may use this model",
    404: "check that its url and model are right",
    405: "check that its url and kind are right",
    407: "a proxy in between asks for a login, which is not supported; use an address without it",
}

#: Loggers that can show headers and bodies (``OPENAI_LOG=debug``, httpcore's trace).
_TALKATIVE = ("openai", "httpx2", "httpcore2")


class Unanswered(Exception):
    """No reply came. The text says why, and quotes nothing of what was sent."""


class GivenUp(Exception):
    """The service fails on this turn but answers others."""


@dataclass(slots=True)
class Traffic:
    """What went over the wire."""

    requests: int = 0
    """All attempts."""
    retries: int = 0


class _CheckedAddresses(httpcore2.AsyncNetworkBackend):
    """Refuses to connect to the addresses that the module ``addresses`` refuses, by whatever host name."""

    def __init__(self, endpoint_name: str, inner: httpcore2.AsyncNetworkBackend) -> None:
        self._endpoint_name = endpoint_name
        self._inner = inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} has no address here: {error.strerror}") from None
        addresses = [str(one[4][0]) for one in found]
        for address in addresses:
            if reason := why_refused(address):
                raise ModelFault(f"endpoint {self._endpoint_name}: {host} is not connected to: {reason}")
        trouble: httpcore2.ConnectError | httpcore2.ConnectTimeout | None = None
        for address in dict.fromkeys(addresses):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                trouble = error
        raise trouble or httpcore2.ConnectError(f"{host} has no address")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _BoundedBody(httpx2.AsyncByteStream):
    """A reply's body, unpacked if it is packed as gzip, and never held beyond the limit."""

    def __init__(self, inner: httpx2.AsyncByteStream, *, is_packed: bool) -> None:
        self._inner = inner
        self._is_packed = is_packed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = unpacked = 0
        unpacking = zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
        async for chunk in self._inner:
            received += len(chunk)
            content = chunk
            if self._is_packed:
                try:
                    content = unpacking.decompress(chunk, MAX_REPLY_BYTES + 1)
                except zlib.error:
                    raise UnreadableReply("a packed reply that cannot be unpacked") from None
            unpacked += len(content)
            if max(received, unpacked) > MAX_REPLY_BYTES:
                raise UnreadableReply(f"a reply of more than {MAX_REPLY_BYTES:,} bytes")
            yield content

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Bounded(httpx2.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        # No packing is asked for, and httpx2 unpacks without a limit whatever comes.
        packing = response.headers.pop("content-encoding", "identity").strip().lower()
        if packing not in ("identity", "gzip", "x-gzip", "deflate"):
            await response.aclose()
            raise UnreadableReply("a reply packed in a way that was not asked for")
        response.stream = _BoundedBody(
            response.stream,  # type: ignore[arg-type]
            is_packed=packing != "identity",
        )
        return response


def http_client(endpoint: Endpoint, key: str | None) -> httpx2.AsyncClient:
    """A client with a connection for each request that may be in flight.

    It follows no redirect, uses no proxy and reads no ``.netrc``: requests go to the operator's address only.
    """
    _silence_the_talkative()
    limits = httpx2.Limits(
        max_connections=endpoint.in_flight,
        max_keepalive_connections=endpoint.in_flight,
        keepalive_expiry=60.0,
    )
    transport = _Bounded(limits=limits, trust_env=False)
    pool: Any = transport._pool  # httpx2 has no option for its pool's network backend
    pool._network_backend = _CheckedAddresses(endpoint.name, pool._network_backend)
    # Without compression, which saves nothing for replies of this size.
    headers = {"accept-encoding": "identity"}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return httpx2.AsyncClient(
        transport=transport,
        headers=headers,
        timeout=endpoint.timeout_seconds,
        follow_redirects=False,
        trust_env=False,
    )


def _silence_the_talkative() -> None:
    """Let the libraries' loggers show warnings only, and those below them, which have levels of their own."""
    below = tuple(f"{name}." for name in _TALKATIVE)
    for name in [*_TALKATIVE, *(one for one in logging.root.manager.loggerDict if one.startswith(below))]:
        logger = logging.getLogger(name)
        if logger.getEffectiveLevel() < logging.WARNING:
            logger.setLevel(logging.WARNING)


async def sent(client: httpx2.AsyncClient, method: str, url: str, **content: Any) -> Reply:
    """The reply to one attempt; ``Unanswered`` where none came."""
    try:
        response = await client.request(method, url, **content)
    except httpx2.TransportError as error:
        raise Unanswered(described(error)) from None
    return reply_of(response)


def reply_of(response: httpx2.Response) -> Reply:
    """An HTTP response, already read, as a ``Reply``."""
    return Reply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.content)


def described(error: BaseException) -> str:
    """A few words for a failure of the network. The library's own words may quote what was sent."""
    if isinstance(error, httpx2.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, httpx2.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx2.ConnectError):
        return "no connection"
    if isinstance(error, httpx2.RemoteProtocolError):
        return "the connection broke off"
    if isinstance(error, httpx2.NetworkError):
        return "the connection was reset"
    return "the connection failed"


def status_text(status: int) -> str:
    """``HTTP 503 Service Unavailable``, in the words of the standard, not of the service."""
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def retry_after_seconds(value: str | None, *, now: float) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, 10.2.3); None where it cannot be read.

    ``now`` is the time of day, in seconds since 1970.
    """
    if value is None:
        return None
    value = value.strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            # RFC 9110 allows GMT only; a date without a zone counts as GMT.
            date = email.utils.parsedate_tz(value)
            return max(0.0, email.utils.mktime_tz(date) - now) if date else None
        except (ValueError, OverflowError):
            return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def patience_asked_for(reply: Reply) -> float | None:
    """How many seconds the reply asks to wait; None where it asks for nothing.

    A date in ``Retry-After`` follows the service's clock, which its ``Date`` header shows. Our clock may
    differ from it by a day.
    """
    now = time.time()
    try:
        date = email.utils.parsedate_tz(reply.headers.get("date", ""))
        now = email.utils.mktime_tz(date) if date else now
    except (ValueError, OverflowError):
        pass
    return retry_after_seconds(reply.headers.get("retry-after"), now=now)


class Caller:
    """Sends turns and does all retries: the clients below it never retry."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        progress: Progress,
        still_answers: Callable[[], Awaitable[bool]],
    ) -> None:
        self.traffic = Traffic()
        self._still_answers = still_answers
        self._endpoint = endpoint
        self._pace = Pace(endpoint.requests_per_minute, endpoint.tokens_per_minute)
        self._progress = progress
        self._spoke = -math.inf

    async def reply(self, attempt: Callable[[], Awaitable[Reply]], tokens: int) -> Reply:
        """The service's reply: a success, or a refusal of this turn (a 4xx).

        ``Resumable`` where the service does not answer before the deadline, or asks for a longer wait than
        the operator allows; ``GivenUp`` where it fails on this turn only; ``ModelFault`` where it cannot
        answer any turn until somebody mends its set-up.
        """
        began: float | None = None
        attempts = 0
        while True:
            await self._pace.wait(tokens)
            began = time.monotonic() if began is None else began
            left = began + self._endpoint.deadline_seconds - time.monotonic()
            attempts += 1
            self.traffic.requests += 1
            asked_for: float | None = None
            limited = False
            patience = min(self._endpoint.timeout_seconds, max(left, 0.01))
            try:
                async with asyncio.timeout(patience):
                    found = await attempt()
            except TimeoutError:
                trouble = f"no answer within {patience:.3g} s"
            except Unanswered as error:
                trouble = str(error)
            else:
                if not self._is_passing(found.status):
                    return found
                trouble = status_text(found.status)
                limited = found.status == HTTPStatus.TOO_MANY_REQUESTS
                asked_for = patience_asked_for(found)
            delay = self._delay(attempts, asked_for, trouble)
            if time.monotonic() + delay >= began + self._endpoint.deadline_seconds:
                await self._give_up(trouble, attempts, limited=limited)
            self._notice(trouble, delay)
            if limited:
                self._pace.hold(delay)
            self.traffic.retries += 1
            await asyncio.sleep(delay)

    def _is_passing(self, status: int) -> bool:
        """Whether another attempt may succeed. Raises where none can."""
        name = self._endpoint.name
        if status in _WHAT_TO_DO:
            raise ModelFault(f"endpoint {name}: {status_text(status)}: {_WHAT_TO_DO[status]}")
        if status == HTTPStatus.PAYMENT_REQUIRED:
            raise Resumable(
                f"endpoint {name}: {status_text(status)}: the account has run out of credit. What is scored "
                "is stored; top it up, and the same command goes on from there"
            )
        if 300 <= status < 400:
            raise ModelFault(
                f"endpoint {name}: {status_text(status)}: it redirects, and redirects are not followed; "
                "state the address that it redirects to as its url, if you trust that"
            )
        return status in _PASSING or status >= 500

    def _delay(self, attempts: int, asked_for: float | None, trouble: str) -> float:
        if asked_for is None:
            longest = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(attempts - 1, 16))
            # Random, so that not all requests come at once when the service is back.
            return longest * random.uniform(0.5, 1.0)
        if asked_for > self._endpoint.longest_wait_seconds:
            raise Resumable(
                f"endpoint {self._endpoint.name}: {trouble}, and it asks for a wait of {asked_for:.0f} s, "
                f"more than its longest_wait_seconds ({self._endpoint.longest_wait_seconds:.0f}). What is "
                "scored is stored; the same command goes on from there"
            )
        return asked_for + random.uniform(0.0, 0.1)

    async def _give_up(self, trouble: str, attempts: int, *, limited: bool) -> None:
        """Blame the turn if the service answers another one now, else the service."""
        if not limited and await self._still_answers():
            raise GivenUp(f"{trouble}, {attempts} times, while the service answers other turns")
        raise Resumable(
            f"endpoint {self._endpoint.name}: {trouble}; tried {attempts} times within its deadline_seconds "
            f"({self._endpoint.deadline_seconds:g}). What is scored is stored; the same command goes on from "
            "there"
        )

    def _notice(self, trouble: str, delay: float) -> None:
        now = time.monotonic()
        if now - self._spoke >= _NOTICE_SECONDS:
            self._spoke = now
            self._progress.say(f"endpoint {self._endpoint.name}: {trouble}; trying again in {delay:.1f} s")
