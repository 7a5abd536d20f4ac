"""How fast a rate-limited service is used, against what its limits allow and against one row at a time.

A loopback server that answers after one second, in a process of its own.

ideal          64 in flight, no limit: 64 turns a second, less the first second's start
paced          600 requests a minute: what the server counts in every minute after the first
one at a time  NeMo-Aligner's way (attribute_annotate): a row, a new client, one request, the next row
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import peers

from assay.rewards.endpoint import Endpoint
from assay.rewards.remote.endpoints import served_spec

ANSWER_SECONDS = 1.0
IN_FLIGHT = 64
#: Turns of the run without a limit: forty times what may be in flight.
TURNS = 2560
ROUNDS = 2
PER_MINUTE = 600
#: The first minute, in which nothing is promised, and two that are counted.
PACED_SECONDS = 181
#: Rows that are sent one at a time; each takes its second.
SLOW_ROWS = 12

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
_REPLY = {
    "id": "1",
    "object": "chat.completion",
    "model": "reward",
    "choices": [
        {
            "index": 0,
            "finish_reason": "length",
            "logprobs": {"content": [{"token": name, "logprob": 1.5} for name in ATTRIBUTES]},
            "message": {"role": "assistant", "content": ""},
        }
    ],
}


def serve(port_to: Any, times_to: Any) -> None:
    """Answer every request after a second; on SIGTERM's behalf ``times_to`` is asked for arrivals."""
    body = json.dumps(_REPLY).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = head.encode() + body
    arrivals: list[float] = []

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                headers = await reader.readuntil(b"\r\n\r\n")
                arrivals.append(time.monotonic())
                length = headers.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                await asyncio.sleep(ANSWER_SECONDS)
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(connection, "127.0.0.1", 0, backlog=1024)
        port_to.send(server.sockets[0].getsockname()[1])
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, times_to.recv):
            times_to.send(list(arrivals))
            arrivals.clear()

    asyncio.run(main())


class Server:
    """The server's process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        self._times, times_there = context.Pipe()
        self._process = context.Process(target=serve, args=(there, times_there), daemon=True)
        self._process.start()
        self.url = f"http://127.0.0.1:{here.recv()}/v1"

    def arrivals(self) -> list[float]:
        """When requests arrived since this was last asked, by a clock that all processes share."""
        self._times.send(True)
        found: list[float] = self._times.recv()
        return found

    def stop(self) -> None:
        self._times.send(False)
        self._process.join(5)
        self._process.kill()


def endpoint(url: str, **changes: Any) -> Endpoint:
    """The benchmark's service."""
    given: dict[str, Any] = {"in_flight": IN_FLIGHT, "timeout_seconds": 30.0, **changes}
    return Endpoint(
        name="loopback", url=url, kind="openai", model="reward", attributes=ATTRIBUTES, revision="1", **given
    )


def rows(count: int, mark: str) -> list[dict[str, Any]]:
    """Rows of one rated turn each."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"{mark} question {number}"},
                {"role": "assistant", "content": f"answer {number}"},
            ]
        }
        for number in range(count)
    ]


def scored(url: str, count: int, mark: str, **changes: Any) -> tuple[int, float]:
    """Turns that were rated, and the seconds of the score stage, plan and store and all."""
    from assay.read.convert import ToConvert, convert
    from assay.read.inventory import Inputs, take_inventory
    from assay.score.scoring import ToScore, score
    from assay.storage.home import Home
    from assay.storage.stage import RunContext
    from assay.workers.cluster import ClusterOptions

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows(count, mark)))
        home = Home(Path(folder) / "home")
        context = RunContext(home)
        converted = convert(ToConvert(take_inventory(Inputs((str(source),)), context)), context)
        model = served_spec(endpoint(url, **changes))
        began = time.monotonic()
        scored = score(ToScore(converted, model, ClusterOptions(workers=1)), context)
        # The home is new, so that all of them were rated now.
        return scored.distinct_turns - sum(scored.failed.values()), time.monotonic() - began


def one_at_a_time(url: str, count: int) -> float:
    """Seconds for so many rows in NeMo-Aligner's manner: for each a new client, and one request."""
    began = time.monotonic()
    for row in rows(count, "slow"):
        with httpx2.Client(timeout=30) as client:
            client.post(f"{url}/chat/completions", json={"model": "reward", **row}).raise_for_status()
    return time.monotonic() - began


def per_minute(arrivals: Sequence[float]) -> tuple[list[int], int]:
    """Requests in each whole minute after the first, and the most in any 60 seconds after it."""
    start = arrivals[0] + 60
    later = [at - start for at in arrivals if at >= start]
    minutes = [
        sum(60 * m <= at < 60 * (m + 1) for at in later) for m in range(int((arrivals[-1] - start) // 60))
    ]
    most, first = 0, 0
    for last, at in enumerate(later):
        while at - later[first] >= 60:
            first += 1
        most = max(most, last - first + 1)
    return minutes, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, help="not used: the rows are made here")
    parser.add_argument("--json", type=Path, help="write the figures to this file as one flat object")
    options = parser.parse_args()
    server = Server()
    try:
        scored(server.url, 128, "warm-up")
        shares, rates = [], []
        for number in range(ROUNDS):
            turns, seconds = scored(server.url, TURNS, f"free {number}")
            rates.append(turns / seconds)
            shares.append(rates[-1] / (IN_FLIGHT / ANSWER_SECONDS))
        slow_rate = SLOW_ROWS / one_at_a_time(server.url, SLOW_ROWS)
        server.arrivals()
        scored(
            server.url,
            PER_MINUTE * PACED_SECONDS // 60,
            "paced",
            requests_per_minute=PER_MINUTE,
        )
        arrivals = server.arrivals()[1:]  # the first is the probe
    finally:
        server.stop()
    minutes, most = per_minute(arrivals)
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    figures = {
        "of_ideal": statistics.median(shares),
        "per_minute_max": max(minutes),
        "per_minute_min": min(minutes),
        "vs_one_at_a_time": statistics.median(rates) / slow_rate,
        "most_in_any_60_seconds": most,
        "shortest_gap_ms": min(gaps) * 1000,
    }
    table = [
        ("turns a second, 64 in flight", ", ".join(f"{rate:.1f}" for rate in rates)),
        ("of_ideal", f"{figures['of_ideal']:.3f} (at least 0.9 wanted)"),
        ("requests in each minute after the first", ", ".join(map(str, minutes)) + " (585 to 600)"),
        ("most in any 60 seconds after the first", str(most)),
        (
            "gap between requests, shortest and median",
            f"{min(gaps) * 1e3:.0f}, {statistics.median(gaps) * 1e3:.0f} ms",
        ),
        ("one row at a time, turns a second", f"{slow_rate:.3f}"),
        ("vs_one_at_a_time", f"{figures['vs_one_at_a_time']:.1f} x (30)"),
    ]
    peers.report("A service that answers after one second", table, figures, options.json)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
