"""When the next request may leave, so that neither requests nor tokens a minute exceed their limits."""

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
    """Points in time, evenly spaced."""

    def __init__(self, per_minute: float) -> None:
        self._spacing = 60.0 / (per_minute * _USED_SHARE)
        self._catch_up_seconds = int(per_minute * _CATCH_UP_SHARE) * self._spacing
        self._next = 0.0

    def due(self, now: float) -> float:
        """When the next request may leave, not before ``now``; seconds of the same clock."""
        return max(self._next, now)

    def left(self, at: float, amount: float = 1.0) -> None:
        """A request left then, later than it was due or not. The next one is due so much after it.

        A little lateness is caught up with; a longer one, and time that nobody used, is lost: a pause is
        not followed by a burst.
        """
        late = at - self._next > self._catch_up_seconds
        self._next = (at if late else self._next) + amount * self._spacing


class Pace:
    """The rate limits of one service, one for the whole run."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._requests = Slots(requests_per_minute) if requests_per_minute else None
        self._tokens = Slots(tokens_per_minute) if tokens_per_minute else None
        self._held_until = 0.0
        self._first_in_line = asyncio.Lock()

    async def wait(self, tokens: int) -> None:
        """Return when a request of so many tokens may leave, in the order in which they asked."""
        async with self._first_in_line:
            while (due := self._due(now := time.monotonic())) > now:
                await asyncio.sleep(due - now)
            if self._requests is not None:
                self._requests.left(now)
            if self._tokens is not None:
                self._tokens.left(now, tokens)

    def hold(self, seconds: float) -> None:
        """Let nothing leave for so long: the service asked for it."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    def _due(self, now: float) -> float:
        slots = [one.due(now) for one in (self._requests, self._tokens) if one is not None]
        return max(now, self._held_until, *slots)
