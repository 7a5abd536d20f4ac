"""When the next request may leave: so many a minute, so many tokens a minute, one after the other."""

from __future__ import annotations

import asyncio
import time

#: Of the stated rate, what is used: arrivals are a little less even than departures, and no minute may
#: see more than was allowed.
_USED_SHARE = 0.9925

#: Of a minute's requests, how many may follow at once on a process that was held up. Together with the
#: share above they stay below the rate; below 250 a minute it is none.
_CATCH_UP_SHARE = 0.004


class Slots:
    """Points in time, evenly spaced. Reserving one is immediate; waiting for it is the caller's."""

    def __init__(self, per_minute: float) -> None:
        self._spacing = 60.0 / (per_minute * _USED_SHARE)
        self._catch_up_seconds = int(per_minute * _CATCH_UP_SHARE) * self._spacing
        self._next: float | None = None

    def reserve(self, now: float, amount: float = 1.0) -> float:
        """When ``amount`` may leave, in the seconds of ``now``'s clock.

        Time that nobody used is lost: a pause is not followed by a burst.
        """
        late = self._next is None or now - self._next > self._catch_up_seconds
        begins = now if late or self._next is None else self._next
        self._next = begins + amount * self._spacing
        return max(begins, now)


class Pace:
    """The rate limits of one service, one for the whole run."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._requests = Slots(requests_per_minute) if requests_per_minute else None
        self._tokens = Slots(tokens_per_minute) if tokens_per_minute else None
        self._held_until = 0.0

    async def wait(self, tokens: int) -> None:
        """Return when a request of so many tokens may leave, in the order in which they asked."""
        while True:
            now = time.monotonic()
            if now < self._held_until:
                await asyncio.sleep(self._held_until - now)
                continue
            leaves = now
            if self._requests is not None:
                leaves = self._requests.reserve(now)
            if self._tokens is not None:
                leaves = max(leaves, self._tokens.reserve(now, tokens))
            if leaves > now:
                await asyncio.sleep(leaves - now)
            if time.monotonic() >= self._held_until:
                return

    def hold(self, seconds: float) -> None:
        """Let nothing leave for so long: the service asked for it."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)
