"""When the next request may leave, so that requests and tokens per minute stay within their limits."""

from __future__ import annotations

import asyncio
import time

#: The share of the stated rate that is used. Requests arrive a little less evenly than they leave, and no
#: minute may see more of them than the limit.
_USED_SHARE = 0.9925

#: The share of a minute's requests that may leave at once after this process was held up. With the share
#: above, the rate stays below the limit. At less than 250 requests per minute it is none.
_CATCH_UP_SHARE = 0.004


class Slots:
    """Points in time, evenly spaced."""

    def __init__(self, per_minute: float) -> None:
        self._spacing = 60.0 / (per_minute * _USED_SHARE)
        self._catch_up_seconds = int(per_minute * _CATCH_UP_SHARE) * self._spacing
        self._next = 0.0

    def due(self, now: float) -> float:
        """When the next request may leave, not before ``now``; seconds of the same clock."""
        return max(self._next, now)

    def left(self, at: float, amount: float = 1.0) -> None:
        """Note that a request left at this time. ``amount`` is how many slots it takes before the next one.

        If it left a little late, the next ones catch up. If it left much later, the unused time is lost: no
        burst follows a pause.
        """
        late = at - self._next > self._catch_up_seconds
        self._next = (at if late else self._next) + amount * self._spacing


class Pace:
    """The rate limits of one service; one object serves the whole run."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._requests = Slots(requests_per_minute) if requests_per_minute else None
        self._tokens = Slots(tokens_per_minute) if tokens_per_minute else None
        self._held_until = 0.0
        self._first_in_line = asyncio.Lock()

    async def wait(self, tokens: int) -> None:
        """Return when a request of so many tokens may leave. Who asks first leaves first."""
        async with self._first_in_line:
            while (due := self._due(now := time.monotonic())) > now:
                await asyncio.sleep(due - now)
            if self._requests is not None:
                self._requests.left(now)
            if self._tokens is not None:
                self._tokens.left(now, tokens)

    def hold(self, seconds: float) -> None:
        """Let no request leave for this long, because the service asked for it."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    def _due(self, now: float) -> float:
        slots = [one.due(now) for one in (self._requests, self._tokens) if one is not None]
        return max(now, self._held_until, *slots)
