"""One planner at a time: a waiting run reports who that is, and a dead one does not hold it for ever."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from s3_replies import reply
from stages import context

from assay.core.errors import Resumable
from assay.score.segments import lease
from assay.score.segments.lease import Lease
from assay.storage.home import Home
from assay.storage.s3 import Content, Objects, _client
from assay.storage.stage import RunContext

SHORT = 3.0


@pytest.fixture
def objects(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Objects:
    monkeypatch.setattr(lease, "LEASE_SECONDS", SHORT)
    return Objects(bucket)


class Waiting(threading.Thread):
    """Somebody who wants the lease too, and keeps it until asked to leave."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(daemon=True)
        self.objects = objects
        self.said: list[str] = []
        self.has_it = threading.Event()
        self.may_end = threading.Event()
        self.start()

    def run(self) -> None:
        with Lease(self.objects, "lock").held(context(say=self.said.append)):
            self.has_it.set()
            self.may_end.wait(60)


def test_who_waits_reports_for_whom_and_goes_on_when_it_is_given_back(objects: Objects) -> None:
    with ExitStack() as held:
        holding = held.enter_context(Lease(objects, "lock").held(context(say=pytest.fail)))
        other = Waiting(objects)
        # Longer than a lease lasts that nobody renews.
        assert not other.has_it.wait(2 * SHORT)
        holding.leave_if_unwanted()
        assert other.said == [
            f"another run (host {socket.gethostname()}, pid {os.getpid()}) is scoring with this model; "
            "waiting for it to finish, then taking its scores"
        ]
        held.close()
        assert other.has_it.wait(30)
    other.may_end.set()
    other.join(30)
    assert len(other.said) == 1


def test_a_lease_that_is_not_renewed_is_taken_over_and_its_holder_is_reported(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew = Lease._renew
    monkeypatch.setattr(Lease, "_renew", lambda self, beat: time.sleep(SHORT / 10))
    suspended = Lease(objects, "lock")
    with suspended.held(context(say=pytest.fail)) as holding:
        began = time.monotonic()
        other = Waiting(objects)
        assert other.has_it.wait(30)
        assert time.monotonic() - began >= SHORT
        assert other.said[-1].endswith(f"was silent for {SHORT:.0f} s; taking over")
        holding.leave_if_unwanted()
        renew(suspended, 9)
        with pytest.raises(Resumable, match=f"another run .*pid {os.getpid()}.* scores with this model now"):
            holding.leave_if_unwanted()
    content = objects.read("lock")
    assert content is not None
    assert b'"released":false' in content.data, "what another holds by now was given back"
    other.may_end.set()
    other.join(30)


class Together(Objects):
    """Whoever reads the lock of the dead run goes on when both have read it."""

    both = threading.Barrier(2)

    def read(self, name: str) -> Content | None:
        content = super().read(name)
        if content is not None and b"dead" in content.data:
            self.both.wait(30)
        return content


def test_of_two_who_wait_for_a_dead_run_one_takes_over(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Use a longer lease: on a busy machine, the holder of a short one may renew it too late.
    monkeypatch.setattr(lease, "LEASE_SECONDS", 4 * SHORT)
    objects.put("lock", msgspec.json.encode(lease._Holder("dead", 1, "dead", lease_seconds=0.0)))
    first, second = (Waiting(Together(objects.address)) for _ in range(2))
    deadline = time.monotonic() + 30
    while not (first.has_it.is_set() or second.has_it.is_set()) and time.monotonic() < deadline:
        time.sleep(0.01)
    winner, other = (first, second) if first.has_it.is_set() else (second, first)
    assert winner.has_it.is_set()
    assert not other.has_it.wait(SHORT / 2)
    winner.may_end.set()
    assert other.has_it.wait(30)
    other.may_end.set()
    for one in (first, second):
        one.join(30)
        assert one.said[0] == "that run (host dead, pid 1) was silent for 0 s; taking over"


def test_a_takeover_that_s3_does_not_let_through_is_tried_now_and_then_and_may_be_given_up(
    objects: Objects,
) -> None:
    class Enough(Exception):
        pass

    objects.put("lock", msgspec.json.encode(lease._Holder("dead", 1, "dead", lease_seconds=0.0)))
    asked: list[float] = []

    def conflict(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        asked.append(time.monotonic())
        if len(asked) > 50:
            raise AssertionError("asked again and again")
        return reply(request.url, 409, b"<Error><Code>ConditionalRequestConflict</Code></Error>")

    def leave() -> None:
        if len(asked) == 4:
            raise Enough

    _client().meta.events.register("before-send.s3.PutObject", conflict)
    with (
        pytest.raises(Enough),
        Lease(objects, "lock").held(RunContext(Home(Path("/nowhere")), leave_if_unwanted=leave)),
    ):
        pass
    assert asked[-1] - asked[0] >= 3 * SHORT / lease._LOOKS_A_LEASE


def test_a_renewal_whose_answer_was_lost_does_not_cost_the_lease(objects: Objects) -> None:
    """botocore sends a request again whose answer is lost, and the condition then does not hold."""
    ours = Lease(objects, "lock")
    ours._etag = ours._taken(context(say=pytest.fail))
    assert objects.replace("lock", ours._body(beat=1), etag=ours._etag) is not None
    ours._renew(2)
    ours._check()
    ours._renew(3)
    ours._check()
    content = objects.read("lock")
    assert content is not None
    assert content.etag == ours._etag
    assert b'"beat":3' in content.data


class Between:
    """A server between S3 and who asks it, which can leave a connection without an answer."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self._behind = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.leave_next = threading.Event()
        self.left: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        for one in (self._listener, *self.left):
            one.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.leave_next.is_set():
                    self.leave_next.clear()
                    self.left.append(near)
                    continue
                far = socket.create_connection(self._behind)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_a_connection_that_hangs_does_not_cost_the_lease(
    objects: Objects, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _, prefix = objects.address.removeprefix("s3://").partition("/")
    direct = _client()

    def etag() -> str:
        return str(direct.head_object(Bucket=name, Key=f"{prefix}/lock")["ETag"])

    def renewed(since: str) -> bool:
        """Long before the time is up after which a request is given up elsewhere."""
        deadline = time.monotonic() + 10 * SHORT
        while time.monotonic() < deadline:
            if etag() != since:
                return True
            time.sleep(0.05)
        return False

    between = Between(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", between.address)
    _client.cache_clear()
    with Lease(objects, "lock").held(context(say=pytest.fail)) as holding:
        between.leave_next.set()
        deadline = time.monotonic() + 30
        while not between.left and time.monotonic() < deadline:
            time.sleep(0.01)
        assert between.left
        assert renewed(etag())
        holding.leave_if_unwanted()
        between.close()


def test_a_lock_that_somebody_removed_is_put_back(objects: Objects) -> None:
    ours = Lease(objects, "lock")
    ours._etag = ours._taken(context(say=pytest.fail))
    name, _, prefix = objects.address.removeprefix("s3://").partition("/")
    _client().delete_object(Bucket=name, Key=f"{prefix}/lock")
    ours._renew(1)
    ours._renew(2)
    ours._check()
    assert objects.read("lock") is not None


def test_a_lock_of_another_program_is_waited_for_as_long_as_a_lease(objects: Objects) -> None:
    objects.put("lock", b"\xff not ours")
    said: list[str] = []
    with Lease(objects, "lock").held(context(say=said.append)):
        assert "host unknown" in said[0]
