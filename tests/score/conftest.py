"""Processes of their own, for all tests of this folder."""

from __future__ import annotations

import multiprocessing.process
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from scoring_runs import Spawn


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts a function of a module with its arguments in a process that ends with the test."""
    started: list[multiprocessing.process.BaseProcess] = []

    def start(function: Callable[..., object], *given: object) -> multiprocessing.process.BaseProcess:
        child = multiprocessing.get_context("spawn").Process(target=function, args=given)
        child.start()
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.join()
