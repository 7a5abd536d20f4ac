"""What was measured of a model is kept with its scores, and said in words."""

from __future__ import annotations

from pathlib import Path

from stages import context

from assay.core.versions import VERSION
from assay.storage.home import Home
from assay.verify.checks import Check
from assay.verify.kept import keep_checks, measured_of

FINGERPRINT = "a" * 32


def test_what_was_measured_is_said_and_what_failed_stands_out(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert list(measured_of(FINGERPRINT, context(home))) == []
    keep_checks([Check("old", True, "1")], FINGERPRINT, home)
    checks = [
        Check("batches of other sizes", True, "2e-07", "1e-05"),
        Check("fingerprint", None, "the recorded one"),
        Check("printed scores", False, "0.4 off", "0.1"),
    ]
    keep_checks(checks, FINGERPRINT, home)
    assert list(measured_of(FINGERPRINT, context(home))) == [
        f"assay verify (Assay {VERSION}): 1 of 2 checks passed.",
        "batches of other sizes: 2e-07 (allowed: 1e-05)",
        "FAILED: printed scores: 0.4 off (allowed: 0.1)",
    ]


def test_checks_that_only_inform_say_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    keep_checks([Check("fingerprint", None, "none recorded")], FINGERPRINT, home)
    assert list(measured_of(FINGERPRINT, context(home))) == []
