"""What ``assay verify`` measured of a model, kept with the model's scores for those who use them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from assay.core.text import counted
from assay.core.versions import VERSION
from assay.storage.home import Home, written_whole
from assay.storage.sealed import Altered, sealed_json, unsealed
from assay.storage.stage import RunContext
from assay.verify.checks import Check


class _KeptChecks(msgspec.Struct, frozen=True):
    assay: str
    """The version of Assay that measured."""
    checks: tuple[Check, ...]


def keep_checks(checks: Sequence[Check], fingerprint: str, home: Home) -> None:
    """Write down the results of all checks of the model with this fingerprint, in place of earlier ones."""
    content = {"assay": VERSION, "checks": msgspec.to_builtins(checks)}
    with written_whole(_file(fingerprint, home)) as temporary:
        temporary.write_bytes(sealed_json(content, about=_about(fingerprint)))


def measured_of(fingerprint: str, context: RunContext) -> Iterator[str]:
    """Yield what was measured, a sentence or a check each. Nothing where the model was never checked.

    A damaged file is reported in a line: no score depends on it.
    """
    path = _file(fingerprint, context.home)
    try:
        found = msgspec.convert(unsealed(path.read_bytes(), about=_about(fingerprint)), _KeptChecks)
    except FileNotFoundError:
        return
    except (OSError, Altered, msgspec.ValidationError) as error:
        context.say(f"{path}: cannot be read, or is damaged ({error}); `assay verify` makes it again")
        return
    decided = [check for check in found.checks if check.passed is not None]
    if not decided:
        return
    passed = sum(check.passed is True for check in decided)
    yield f"assay verify (Assay {found.assay}): {passed} of {counted(len(decided), 'checks')} passed."
    for check in decided:
        allowed = f" (allowed: {check.allowed})" if check.allowed else ""
        yield f"{'' if check.passed else 'FAILED: '}{check.name}: {check.measured}{allowed}"


def _file(fingerprint: str, home: Home) -> Path:
    return home.scores / fingerprint / "checks.json"


def _about(fingerprint: str) -> str:
    return f"checks of {fingerprint}"
