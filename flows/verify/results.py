"""The folder that ``verify --output`` writes: ``checks.json`` for programs, ``report.html`` for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from assay.config.deployed import results_place
from assay.config.options import as_command
from assay.config.settings import Settings
from assay.config.verify_options import VerifyOptions
from assay.core.errors import UserMistake
from assay.core.versions import VERSION
from assay.export.folder import is_page
from assay.report.page import CheckLine, checks_page
from assay.storage.home import written_whole
from assay.storage.private import usual_file_mode
from assay.storage.regular import NotRegular, read_regular
from assay.storage.run_manifest import REPORT, run_manifest_in
from assay.verify.checks import Check
from assay.verify.table import checks_rows, verdict

CHECKS = "checks.json"


class ChecksFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``checks.json``."""

    assay: str
    """The version of Assay."""
    model: str
    passed: bool
    """Whether no check failed."""
    checks: list[Check]


def checks_file(options: VerifyOptions, checks: Sequence[Check]) -> ChecksFile:
    """What programs read of the checks."""
    passed = not any(check.passed is False for check in checks)
    return ChecksFile(assay=VERSION, model=options.model, passed=passed, checks=list(checks))


def folder_for(options: VerifyOptions, settings: Settings, *, deployed: bool) -> Path | None:
    """The folder for the results; None where none is named. UserMistake where it holds what is not ours."""
    if options.output is None:
        return None
    folder = Path(results_place(options.output, "output", settings, deployed=deployed))
    what = f"--output {options.output}"
    if folder.exists() and not folder.is_dir():
        raise UserMistake(f"{what}: is a file; name a folder, new or of earlier checks")
    if run_manifest_in(folder) is not None:
        raise UserMistake(f"{what}: holds the results of a run; name another folder")
    if (folder / REPORT).exists() and not is_page(folder / REPORT):
        raise UserMistake(f"{what}: holds a {REPORT} that Assay did not make; name another folder")
    if (folder / CHECKS).exists() and not _is_ours(folder / CHECKS):
        raise UserMistake(f"{what}: holds a {CHECKS} that Assay did not make; name another folder")
    return folder


def _is_ours(path: Path) -> bool:
    try:
        msgspec.json.decode(read_regular(path), type=ChecksFile)
    except (msgspec.DecodeError, NotRegular, OSError):
        return False
    return True


def write(folder: Path, options: VerifyOptions, checks: Sequence[Check], say: Callable[[str], None]) -> None:
    """Write both files; with --no-report ``checks.json`` alone, and no page is left there from before.

    OSError where ``checks.json`` cannot be written. A page that cannot be written is a warning.
    """
    mode = usual_file_mode()
    content = msgspec.json.format(msgspec.json.encode(checks_file(options, checks)), indent=2) + b"\n"
    with written_whole(folder / CHECKS, mode=mode) as temporary:
        temporary.write_bytes(content)
    if not options.report:
        (folder / REPORT).unlink(missing_ok=True)
        return
    lines = [
        CheckLine(row["check"], row["measured"], row["allowed"], row["outcome"])
        for row in checks_rows(checks)
    ]
    page = checks_page(options.model, lines, verdict(checks), as_command(options, "assay verify"))
    try:
        with written_whole(folder / REPORT, mode=mode) as temporary:
            temporary.write_bytes(page)
    except OSError as error:
        say(f"warning: {REPORT} could not be written ({error})")
