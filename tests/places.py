"""Where the checkout is, for tests that start a process or read a file of it."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
