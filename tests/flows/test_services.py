"""A service as the reward model of the main job: labels, costs, what is known of it, and its key."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
import services
import yaml
from patience import PATIENCE_SECONDS
from places import ROOT
from pydantic import SecretStr
from service_runs import CANARY, RECORDS, Runs, check_accounts, settings_for
from services import HELPSTEER, SEED_SCORES, Answer, Server, as_json, completion, rated

from assay.rewards.scalar import NEMOTRON_4_340B_FACTORS, weighted_scalar

SEED_TALK = [
    {"role": "user", "content": "I am going to Paris, what should I see?"},
    {
        "role": "assistant",
        "content": "Ah, Paris, the City of Light! There are so many amazing things to see.",
    },
]


@pytest.fixture
def runs(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Runs:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    monkeypatch.setenv("SERVICE_KEY", CANARY)
    made = Runs(tmp_path, monkeypatch, capsys)
    made.home("home")
    return made


@pytest.fixture
def server() -> Iterator[Server]:
    with services.serving() as running:
        yield running


def test_nvidias_example_comes_out_as_its_label_and_its_scalar(runs: Runs, server: Server) -> None:
    seed = completion(
        dict(zip(HELPSTEER, SEED_SCORES, strict=True)),
        message=[{"role": "assistant", "content": "helpfulness:1.6171875,…"}],
    )
    server.answer = lambda asked: as_json(seed)
    runs.write_chats([{"messages": SEED_TALK}])
    runs.endpoint(server.url)
    ran = runs("--export", "steerlm", "messages")
    assert ran.code == 0, ran.err
    check_accounts(ran, 1)
    assert ran.labels == ["helpfulness:2,correctness:2,coherence:3,complexity:1,verbosity:1"]
    scores = pl.read_parquet(ran.output / "scores.parquet")
    values = tuple(scores.select(HELPSTEER).row(0))
    assert values == SEED_SCORES
    assert weighted_scalar(HELPSTEER, values, NEMOTRON_4_340B_FACTORS) == pytest.approx(3.315625)
    assert scores["weighted_reward"].to_list() == [pytest.approx(3.315625)]
    assert ran.manifest["model"]["name"] == "reward-service"


def test_a_dry_run_says_what_the_service_would_be_sent_and_would_cost(runs: Runs, server: Server) -> None:
    runs.endpoint(server.url, price_per_request=0.5, price_per_million_tokens=1000, currency="EUR")
    ran = runs("--dry-run")
    assert ran.code == 0, ran.err
    figures = {name.strip(): figure.strip() for _, name, figure, _ in _cells(ran.out)}
    assert figures["requests to reward-service"] == str(2 * RECORDS)
    tokens = int(figures["their tokens, estimated"])
    # (10 + 8) // 4 + 1 and (10 + 8 + 9 + 6) // 4 + 1 bytes a token
    assert tokens == RECORDS * (5 + 9)
    assert figures["their cost, estimated"] == f"{6 + tokens / 1000:.2f} EUR"
    assert server.asked == []
    assert runs().code == 0
    after = {name.strip(): figure.strip() for _, name, figure, _ in _cells(runs("--dry-run").out)}
    assert after["requests to reward-service"] == "0"


def _cells(text: str) -> Iterator[list[str]]:
    for row in text.splitlines():
        cells = row.split("│")
        if len(cells) == 4:
            yield cells


def test_a_key_a_rate_and_an_address_that_change_rate_nothing_anew(
    runs: Runs, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.endpoint(server.url)
    first = runs()
    asked = len(server.asked)
    monkeypatch.setenv("ANOTHER_KEY", "another")
    with services.serving() as elsewhere:
        runs.endpoint(elsewhere.url, key_variable="ANOTHER_KEY", requests_per_minute=9999, in_flight=3)
        again = runs()
        assert again.manifest["turns"]["scored"] == 0
        assert again.files() == first.files()
        assert not elsewhere.asked
        runs.endpoint(elsewhere.url, revision="2")
        assert runs().manifest["turns"]["scored"] == 2 * RECORDS
        assert len(elsewhere.paid) == 2 * RECORDS
    assert len(server.asked) == asked


def test_equal_turns_are_paid_for_once(runs: Runs, server: Server) -> None:
    rows = [json.loads(line) for line in runs.chats.read_text().splitlines()]
    runs.write_chats([*rows, *rows, rows[0]])
    runs.endpoint(server.url)
    ran = runs()
    check_accounts_of_repeats = ran.manifest["rows"]
    assert check_accounts_of_repeats["read"] == 2 * RECORDS + 1
    assert len(server.paid) == len({one.body for one in server.paid}) == 2 * RECORDS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "https://evil.example/v1"], "a name, not an address"),
        (["--over-length", "left-truncate"], "is a service"),
        (["--max-tokens", "10"], "is a service, whose operator says that"),
        (["--keep", "quality > 1"], "unknown attribute"),
        (["--model", "reward-servise"], "Or the endpoint 'reward-service'?"),
    ],
)
def test_what_a_run_may_not_ask_is_refused_before_any_work(
    runs: Runs, server: Server, arguments: list[str], said: str
) -> None:
    runs.endpoint(server.url)
    ran = runs(*arguments)
    assert ran.code == 2, ran.err
    assert said in ran.err
    assert not server.asked


def test_a_redirect_is_not_followed_and_the_key_stays_where_it_belongs(runs: Runs, server: Server) -> None:
    with services.serving() as elsewhere:
        server.answer = lambda asked: Answer(b"", 307, {"Location": f"{elsewhere.url}{asked.path}"})
        runs.endpoint(server.url)
        ran = runs()
        assert ran.code == 1
        assert "redirects are not followed" in ran.err
        assert not elsewhere.asked


def test_a_key_out_of_a_prefect_secret_block(runs: Runs, server: Server) -> None:
    from prefect.blocks.system import Secret

    Secret(value=SecretStr(CANARY)).save("reward-service-key", overwrite=True)
    runs.endpoint(server.url, key_variable=None, key_block="reward-service-key")
    ran = runs()
    assert ran.code == 0, ran.err
    assert {one.headers["authorization"] for one in server.asked} == {f"Bearer {CANARY}"}
    runs.home("another-home")
    runs.endpoint(server.url, key_variable=None, key_block="no-such-block")
    ran = runs()
    assert ran.code == 1
    assert "no Prefect Secret block 'no-such-block'" in ran.err


def test_a_key_that_is_not_there_is_named(
    runs: Runs, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SERVICE_KEY")
    runs.endpoint(server.url)
    ran = runs()
    assert ran.code == 1
    assert "environment variable SERVICE_KEY" in ran.err
    assert not server.asked


def test_a_key_that_is_exchanged_computes_nothing_anew(
    runs: Runs, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2, for a key's value, for where it is kept, and for the Hub's token."""
    from prefect.blocks.system import Secret

    runs.endpoint(server.url)
    first = runs()
    asked = len(server.asked)
    monkeypatch.setenv("SERVICE_KEY", "sk-after-rotation")
    monkeypatch.setenv("ASSAY_HUB_TOKEN_VARIABLE", "HUB_TOKEN")
    monkeypatch.setenv("HUB_TOKEN", "hf-after-rotation")
    rotated = runs()
    Secret(value=SecretStr("sk-of-the-block")).save("rotated-key", overwrite=True)
    runs.endpoint(server.url, key_variable=None, key_block="rotated-key")
    moved = runs()
    for again in (rotated, moved):
        assert again.code == 0, again.err
        assert again.manifest["turns"]["scored"] == 0
        assert again.manifest["model"]["fingerprint"] == first.manifest["model"]["fingerprint"]
        assert again.files() == first.files()
        assert "runs again" not in again.err
    assert len(server.asked) == asked


def _run_apart(
    folder: Path, url: str, home: Path, *, prefect_api: str | None = None, **changes: Any
) -> subprocess.Popen[str]:
    """The command in a process of its own, with a Prefect server of its own unless one is named."""
    chats = folder / "chats.jsonl"
    chats.write_text(
        "".join(
            json.dumps(
                {
                    "messages": [
                        {"role": "user", "content": f"private question {n}"},
                        {"role": "assistant", "content": f"a{n}"},
                    ]
                }
            )
            + "\n"
            for n in range(40)
        )
    )
    endpoints = folder / "endpoints.yaml"
    endpoints.write_text(yaml.safe_dump({"reward-service": settings_for(url, **changes)}))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {
        "ASSAY_HOME": str(home),
        "ASSAY_ENDPOINTS_FILE": str(endpoints),
        "SERVICE_KEY": CANARY,
        "OPENAI_LOG": "debug",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "openai,httpx2,httpcore2",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(folder / "prefect-home"),
        **(
            {
                "PREFECT_API_URL": prefect_api,
                "PREFECT_API_AUTH_STRING": os.environ["PREFECT_API_AUTH_STRING"],
            }
            if prefect_api
            else {}
        ),
    }
    if "key_variable" in changes:
        del environment["SERVICE_KEY"]
    command = [sys.executable, "-m", "flows.curate", "--input", str(chats), "--model", "reward-service"]
    return subprocess.Popen(
        [*command, "--output", str(folder / "out")],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.faults
def test_the_key_turns_up_nowhere_and_a_stopped_run_keeps_what_it_paid_for(
    tmp_path: Path, server: Server
) -> None:
    """S1 and S13 for a stopped and a finished run, the embedded Prefect server's database included."""
    home = tmp_path / "home"

    def slow(asked: services.Asked) -> Answer:
        answer = rated(asked)
        answer.delay = 0.1
        return answer

    server.answer = slow
    # A reply that comes too late is asked for, and paid, again.
    patient: dict[str, Any] = {"timeout_seconds": PATIENCE_SECONDS, "deadline_seconds": PATIENCE_SECONDS}
    process = _run_apart(tmp_path, server.url, home, in_flight=2, **patient)
    titles = _titles_until(process, lambda: len(server.paid) >= 12)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=15)
    assert process.returncode == 143, said
    assert not (tmp_path / "out").exists()
    stored = sum(pl.read_parquet(one).height for one in home.glob("scores/*/*.parquet"))
    assert stored >= 9, "the finished turns of an unfinished shard are in the store"
    before = _settled(server)

    server.answer = rated
    process = _run_apart(tmp_path, server.url, home, **patient)
    more, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, more
    assert len(server.paid) - before == 40 - stored

    assert {one.headers["authorization"] for one in server.asked} == {f"Bearer {CANARY}"}
    _check_that_nothing_tells(tmp_path, said + more + titles)
    assert any(path.name == "prefect.db" for path in tmp_path.rglob("*"))


def test_a_key_out_of_a_secret_block_turns_up_nowhere(
    tmp_path: Path, server: Server, prefect_api: str, prefect_folder: Path
) -> None:
    """S1 and S13: in the server's database the key is encrypted, and everywhere else it is not at all."""
    from prefect.blocks.system import Secret

    Secret(value=SecretStr(CANARY)).save("canary-key", overwrite=True)
    in_block = {"prefect_api": prefect_api, "key_variable": None, "key_block": "canary-key"}
    process = _run_apart(tmp_path, server.url, tmp_path / "home", **in_block)
    titles = _titles_until(process, lambda: len(server.paid) >= 12)
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, said
    assert {one.headers["authorization"] for one in server.asked} == {f"Bearer {CANARY}"}
    _check_that_nothing_tells(tmp_path, said + titles)
    assert any(path.name == "prefect.db" for path in prefect_folder.rglob("*"))
    _check_that_nothing_tells(prefect_folder, "")


def _settled(server: Server) -> int:
    """How many answers were paid for, once the last that was under way is among them."""
    paid = -1
    while paid != (paid := len(server.paid)):
        time.sleep(0.5)
    return paid


def _titles_until(process: subprocess.Popen[str], true: Callable[[], bool]) -> str:
    """Command lines and titles of all the run's processes, until that is so."""
    titles: set[str] = set()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        with suppress(psutil.NoSuchProcess):
            for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                titles.update([*one.cmdline(), one.name()])
        time.sleep(0.05)
    return " ".join(titles)


def _check_that_nothing_tells(folder: Path, said: str) -> None:
    """Neither key nor text: not in what was said, not in any file of the folder, not in a database."""
    assert CANARY not in said
    assert "private question" not in said, "no conversation on the console"
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        # A server that ends takes its journal with it.
        with suppress(FileNotFoundError):
            assert CANARY.encode() not in path.read_bytes(), path
        if path.suffix == ".db":
            with closing(sqlite3.connect(path)) as database:
                dumped = "\n".join(database.iterdump())
            assert CANARY not in dumped
            assert "private question" not in dumped
