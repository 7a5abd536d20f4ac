"""Ending a process at once, whoever reads what it says."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import psutil
import pytest
from running_process import running

from flows.command.curate import COMMAND
from flows.command.endings import exit_code_of
from flows.command.launch import launch
from flows.command.signals import GOES_ON, HUNG_UP, INTERRUPTED, TERMINATED

CODE = (
    "import subprocess, sys; from flows.command.signals import TERMINATED, _end_now\n"
    "print(subprocess.Popen(['sleep', '60']).pid, flush=True); sys.stdin.readline()\n"
    "_end_now(TERMINATED, True)"
)


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["gone", "asleep"])
def test_a_command_ends_even_if_nobody_reads_its_last_line(reader: str) -> None:
    there, here = os.pipe()
    with running(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=here
    ) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        started = int(run.stdout.readline())
        if reader == "gone":
            os.close(there)
        else:
            os.set_blocking(here, False)
            while True:
                try:
                    os.write(here, b"x" * 4096)
                except BlockingIOError:
                    break
            os.set_blocking(here, True)
        run.stdin.write("\n")
        run.stdin.flush()
        assert run.wait(timeout=30) == 143
    os.close(here)
    if reader == "asleep":
        os.close(there)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(started) and psutil.Process(started).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


IMPORTING = """
import sys, time
from flows.command import main
main.COMMANDS["curate"] = lambda *arguments: print("now", flush=True) or time.sleep(60)
main.run_module("curate")
"""
WORKING = """
import sys, time
from flows.command.endings import exit_code_of
sys.exit(exit_code_of(lambda: print("now", flush=True) or time.sleep(60), goes_on=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["gone", "asleep"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("code", [IMPORTING, WORKING], ids=["importing", "working"])
def test_a_stopped_command_ends_even_if_nobody_reads_what_it_says(
    code: str, number: signal.Signals, reader: str
) -> None:
    if (code, number, reader) == (WORKING, signal.SIGINT, "asleep"):
        pytest.skip("the first Ctrl-C has no time limit; a second one ends the command")
    there, here = os.pipe()
    if reader == "gone":
        os.close(there)
    else:
        os.set_blocking(here, False)
        with suppress(BlockingIOError):
            while True:
                os.write(here, b"x" * 4096)
        os.set_blocking(here, True)
    with running([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=here) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "now\n"
        run.send_signal(number)
        assert run.wait(timeout=60) == 128 + number
    os.close(here)
    if reader == "asleep":
        os.close(there)


@pytest.mark.parametrize("is_group", [False, True])
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, TERMINATED, "stopped by SIGTERM"),
        (signal.SIGHUP, HUNG_UP, "stopped by SIGHUP"),
        (signal.SIGINT, INTERRUPTED, "stopped by Ctrl-C"),
    ],
)
def test_a_signal_that_a_library_turns_into_another_error_still_ends_the_command_as_one(
    number: signal.Signals, code: int, said: str, is_group: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(options: object, settings: object) -> Any:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except (SystemExit, KeyboardInterrupt) as leaving:
            if is_group:
                raise BaseExceptionGroup("tasks failed", [leaving]) from None
            raise ValueError("a serializer failed") from leaving

    command = dataclasses.replace(COMMAND, check=check)
    assert launch(command, ["--input", "x", "--output", "y"]) == code
    assert said in capsys.readouterr().err


def test_an_error_that_no_signal_caused_is_raised() -> None:
    def check(options: object, settings: object) -> Any:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        launch(dataclasses.replace(COMMAND, check=check), ["--input", "x", "--output", "y"])


@pytest.mark.parametrize(
    ("stop", "code", "said"),
    [
        (KeyboardInterrupt(), INTERRUPTED, "stopped by Ctrl-C"),
        (SystemExit(TERMINATED), TERMINATED, "stopped by SIGTERM"),
        (SystemExit(HUNG_UP), HUNG_UP, "stopped by SIGHUP"),
    ],
)
def test_only_a_command_that_goes_on_promises_to(
    stop: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise stop

    assert exit_code_of(work, goes_on=False) == code
    assert exit_code_of(work, goes_on=True) == code
    assert capsys.readouterr().err == f"{said}\n{said}. {GOES_ON}\n"
