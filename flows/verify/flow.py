"""The flow *verify* of a deployment: check a model's set-up, and show the checks in Prefect's pages.

The command ``assay verify`` needs no Prefect server and does not use this flow.
"""

from __future__ import annotations

from typing import Any

from prefect import State, flow, runtime
from prefect.artifacts import create_table_artifact

from assay.config.settings import Settings
from assay.config.verify_options import VerifyOptions
from assay.core.errors import AssayError
from assay.core.text import counted, printable
from assay.storage.private import private
from assay.verify.checks import Check
from assay.verify.table import checks_rows
from flows.command.console import current, is_of_a_deployment
from flows.server.announcing import notify, tag_run
from flows.server.endings import EndKind, completed, failed
from flows.server.mistakes import ended_by
from flows.server.run_names import named_after
from flows.verify.checked import checked
from flows.verify.results import folder_for, write
from tasks.artifact_keys import Subject
from tasks.pages import where_reachable
from tasks.secret_blocks import read_secret_block
from tasks.server_answers import drop_results

drop_results()


@flow(
    name="verify",
    flow_run_name=named_after(lambda options: f"verify {options.model}"),
    persist_result=False,
    on_failure=[notify],
    on_crashed=[notify],
    on_cancellation=[notify],
)
def verify(options: VerifyOptions) -> State[Any]:
    """Run the checks, show them as an artifact, and return the state in which the run ends.

    A mistake or a fault is raised; a deployment's run ends in a state whose message is the same sentence.
    """
    deployed = is_of_a_deployment()
    console = current()
    try:
        tag_run(runtime.flow_run.id, models=[options.model], inputs=[])
        with private():
            settings = Settings.read()
            folder = folder_for(options, settings, deployed=deployed)
            checks = checked(options, settings, console, deployed=deployed, read_block=read_secret_block)
            if folder is not None:
                write(folder, options, checks, console.say)
    except AssayError as error:
        if not deployed:
            raise
        return ended_by(error, options)
    with where_reachable():
        create_table_artifact(
            checks_rows(checks),
            key=Subject(options.model).key("checks"),
            description=f"Verified: {printable(options.model)}",
        )
    return _end_of(checks)


def _end_of(checks: list[Check]) -> State[Any]:
    """The state for the results of the checks. Its message names those that failed."""
    not_passed = [check for check in checks if check.passed is False]
    if not_passed:
        named = "; ".join(
            f"{check.name}: {check.measured}" + (f" (allowed: {check.allowed})" if check.allowed else "")
            for check in not_passed
        )
        message = f"{len(not_passed)} of {counted(len(checks), 'checks')} failed: {named}"
        return failed(printable(message), EndKind.UNVERIFIED)
    passed = sum(check.passed is True for check in checks)
    if passed:
        return completed(f"{counted(passed, 'checks')} passed")
    return completed(printable("; ".join(f"{check.name}: {check.measured}" for check in checks)))
