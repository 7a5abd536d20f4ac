"""Loopback servers that answer as reward services do, and endpoints that point at them.

A real asyncio HTTP/1.1 server, because the faults that matter (a reset, a reply that drips, one that is
cut short) are below what a framework lets a test do.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from assay.rewards.endpoint import Endpoint
from assay.rewards.remote.endpoints import KINDS

HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
#: NVIDIA's example of Nemotron-4-340B-Reward.
SEED_SCORES = (1.6171875, 1.6484375, 3.3125, 0.546875, 0.515625)


@dataclass(frozen=True)
class Asked:
    """A request as the server got it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def last(self) -> str:
        """The content of the last message."""
        return str(self.json["messages"][-1]["content"])


@dataclass
class Answer:
    """What the server does with a request."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    reset: bool = False
    """Close the connection instead of answering."""
    drip: float = 0.0
    """Seconds between two bytes."""
    cut: int | None = None
    """Promise the whole body, send so many bytes, and close."""
    poured: int = 0
    """Send so many bytes behind the body, and promise nothing of them unless a header does."""


def as_json(value: object, status: int = 200, **headers: str) -> Answer:
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json"} | _dashed(headers))


def _dashed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def completion(scores: Mapping[str, object] | list[tuple[str, object]], **changes: object) -> dict[str, Any]:
    """The documented reply of a chat completion that rates."""
    pairs = list(scores.items()) if isinstance(scores, Mapping) else scores
    choice = {
        "index": 0,
        "finish_reason": "length",
        "logprobs": {
            "content": [
                {"token": name, "bytes": None, "logprob": value, "top_logprobs": []} for name, value in pairs
            ]
        },
        "message": {"role": "assistant", "content": ",".join(f"{name}:{value}" for name, value in pairs)},
    }
    return {"id": "1", "object": "chat.completion", "model": "m", "choices": [choice | changes]}


def rated(asked: Asked) -> Answer:
    """A chat completion whose scores depend on the messages alone."""
    number = sum(json.dumps(asked.json["messages"]).encode())
    values = [((number * (place + 3)) % 257) / 64 for place in range(5)]
    return as_json(completion(dict(zip(HELPSTEER, values, strict=True))))


class Server:
    """Runs in a thread of its own; ``answer`` may be exchanged while it runs."""

    def __init__(self, answer: Callable[[Asked], Answer] = rated) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.connections = 0
        self.poured = 0
        """Bytes that were sent of bodies without an end in sight."""
        self.most_at_once = 0
        self._at_once = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None

    def start(self) -> Server:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        return self

    def stop(self) -> None:
        async def closed() -> None:
            assert self._server is not None
            self._server.close()
            for writer in list(self._open):
                writer.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(closed(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def paid(self) -> list[Asked]:
        """Requests that are not the probe's."""
        return [one for one in self.asked if b"What is 1+1?" not in one.body]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        self._open.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *rest = head.decode("latin-1").split("\r\n")
                method, path, _ = first.split(" ")
                headers = {
                    name.strip().lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in rest if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                asked = Asked(method, path, headers, body, time.monotonic(), connection)
                self.asked.append(asked)
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                try:
                    answer = self.answer(asked)
                    await asyncio.sleep(answer.delay)
                finally:
                    self._at_once -= 1
                if answer.reset:
                    writer.transport.abort()
                    return
                await self._write(writer, answer)
                if answer.cut is not None:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            self._open.discard(writer)
            with suppress(RuntimeError):
                writer.close()

    async def _write(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        length = {"Connection": "close"} if answer.poured else {"Content-Length": str(len(answer.body))}
        headers = length | answer.headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {answer.status} X\r\n{lines}\r\n".encode("latin-1"))
        if answer.drip:
            for byte in answer.body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(answer.drip)
            return
        writer.write(answer.body if answer.cut is None else answer.body[: answer.cut])
        await writer.drain()
        left = answer.poured
        while left > 0:
            piece = b" " * min(left, 1 << 16)
            writer.write(piece)
            await writer.drain()
            self.poured += len(piece)
            left -= len(piece)
        if answer.poured:
            writer.close()


@contextmanager
def serving(answer: Callable[[Asked], Answer] = rated) -> Iterator[Server]:
    server = Server(answer).start()
    try:
        yield server
    finally:
        server.stop()


def endpoint(url: str, kind: str = "openai", **changes: Any) -> Endpoint:
    """An endpoint at that address that is quick to lose patience."""
    attributes = tuple(changes.pop("attributes", HELPSTEER))
    given: dict[str, Any] = {
        "name": "service",
        "url": url + ("/v1" if kind == "openai" else ""),
        "kind": kind,
        "model": "served-model",
        "attributes": attributes,
        "outputs": KINDS[kind].outputs or attributes,
        "revision": "1",
        "timeout_seconds": 1.0,
        "deadline_seconds": 1.5,
        "longest_wait_seconds": 2.0,
    }
    return Endpoint(**given | changes)
