"""A lock as an object on S3. Its holder renews it; another run takes over a lock that nobody renews.

No clocks are compared. A waiting run watches the object's ETag, which every renewal changes. If the ETag
stays the same for as long as the lease lasts, the waiting run replaces the object, on the condition that it
still has that ETag. Two runs can hold the lock for a moment: a holder that was suspended does not know yet
that it lost the lock. So the lock only keeps work from being done twice; nothing may depend on it for safety.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import msgspec

from assay.core.errors import Resumable, StoreFault
from assay.storage.s3 import Objects
from assay.storage.stage import RunContext

#: A holder that has not renewed its lease for this long counts as dead.
LEASE_SECONDS = 30.0

_BEATS_A_LEASE = 6
_LOOKS_A_LEASE = 15
# The share of a lease after which a renewal that hangs is given up, so that there is time for another.
_PATIENCE = 1 / 4


class _Holder(msgspec.Struct, frozen=True):
    host: str
    pid: int
    token: str
    lease_seconds: float
    beat: int = 0
    """Counts the renewals. It changes the content, and so the ETag, with each."""
    released: bool = False

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}"


class Lease:
    """A lease on the object of that name, for one ``with`` statement."""

    def __init__(self, objects: Objects, name: str) -> None:
        self._objects = objects
        self._renewing = objects.without_retries(LEASE_SECONDS * _PATIENCE)
        self._name = name
        self._mine = _Holder(socket.gethostname(), os.getpid(), uuid.uuid4().hex, LEASE_SECONDS)
        self._etag = ""
        self._lost_to: str | None = None
        self._ending = threading.Event()

    @contextmanager
    def held(self, context: RunContext) -> Iterator[RunContext]:
        """Take the lease, and yield a context whose ``leave_if_unwanted`` raises Resumable once it is lost.

        A run that is no longer wanted stops waiting for the lease.
        """

        def leave_if_unwanted_or_lost() -> None:
            context.leave_if_unwanted()
            self._check()

        self._etag = self._taken(context)
        renewing = threading.Thread(target=self._renew_until_the_end, daemon=True, name="lease")
        renewing.start()
        try:
            yield replace(context, leave_if_unwanted=leave_if_unwanted_or_lost)
        finally:
            self._ending.set()
            renewing.join(self._mine.lease_seconds)
            # The condition leaves another run's lease alone. A lease that cannot be given back runs out.
            with suppress(StoreFault):
                self._renewing.replace(self._name, self._body(released=True), etag=self._etag)

    def _check(self) -> None:
        if self._lost_to is not None:
            raise Resumable(
                f"{self._objects.address}: another run ({self._lost_to}) scores with this model now, as this "
                f"one was silent for {self._mine.lease_seconds:.0f} s. What is scored is stored, and the "
                "same command goes on from there"
            )

    def _taken(self, context: RunContext) -> str:
        """Wait until the lease is ours. Returns the ETag of the object that says so."""
        reported = watched = ""
        since = time.monotonic()
        while True:
            etag = None
            content = self._objects.read(self._name)
            if content is None:
                etag = self._objects.create(self._name, self._body())
            else:
                holder = _decoded(content.data)
                if holder.token == self._mine.token:
                    return content.etag
                if content.etag != watched:
                    watched, since = content.etag, time.monotonic()
                if holder.released:
                    etag = self._objects.replace(self._name, self._body(), etag=content.etag)
                elif time.monotonic() - since >= holder.lease_seconds:
                    context.say(
                        f"that run ({holder}) was silent for {holder.lease_seconds:.0f} s; taking over"
                    )
                    etag = self._objects.replace(self._name, self._body(), etag=content.etag)
                elif reported != holder.token:
                    reported = holder.token
                    context.say(
                        f"another run ({holder}) is scoring with this model; waiting for it to finish, then "
                        "taking its scores"
                    )
            if etag is not None:
                return etag
            context.leave_if_unwanted()
            time.sleep(self._mine.lease_seconds / _LOOKS_A_LEASE)

    def _renew_until_the_end(self) -> None:
        beat = 0
        while self._lost_to is None and not self._ending.wait(self._mine.lease_seconds / _BEATS_A_LEASE):
            beat += 1
            # While S3 does not answer, try again: the next beat shows whether the lease is still ours.
            with suppress(StoreFault):
                self._renew(beat)

    def _renew(self, beat: int) -> None:
        etag = self._renewing.replace(self._name, self._body(beat=beat), etag=self._etag)
        if etag is None:
            content = self._renewing.read(self._name)
            if content is None:
                etag = self._renewing.create(self._name, self._body(beat=beat))
            elif (holder := _decoded(content.data)).token == self._mine.token:
                # The reply to a renewal was lost, and botocore sent the renewal again.
                etag = content.etag
            else:
                self._lost_to = str(holder)
        self._etag = etag or self._etag

    def _body(self, *, beat: int = 0, released: bool = False) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(self._mine, beat=beat, released=released))


def _decoded(data: bytes) -> _Holder:
    """The holder of the lease; an unknown one where another program wrote the object."""
    try:
        return msgspec.json.decode(data, type=_Holder)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Holder("unknown", 0, "", LEASE_SECONDS)
