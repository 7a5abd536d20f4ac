"""A server's requests wait for each other; none is sent away because another one wrote."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx

AT_ONCE = 4
RUNS_EACH = 8


def statuses(api_url: str) -> Counter[int]:
    """The answers to the requests that a few runs begin with, by HTTP status."""
    user, password = os.environ["PREFECT_API_AUTH_STRING"].split(":", 1)
    found: Counter[int] = Counter()
    with httpx.Client(base_url=api_url, auth=(user, password), timeout=100) as client:
        flow = client.post("/flows/", json={"name": f"transactions {uuid4()}"}).json()["id"]
        for _ in range(RUNS_EACH):
            made = client.post("/flow_runs/", json={"flow_id": flow, "state": {"type": "PENDING"}})
            found[made.status_code] += 1
            if made.is_success:
                path = f"/flow_runs/{made.json()['id']}/set_state"
                found[client.post(path, json={"state": {"type": "RUNNING"}}).status_code] += 1
    return found


def test_no_request_fails_because_another_one_wrote(prefect_api: str) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = sum(pool.map(statuses, [prefect_api] * AT_ONCE), Counter())
    assert found == {201: 2 * AT_ONCE * RUNS_EACH}
