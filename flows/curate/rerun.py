"""A rerun with nothing to do: every stage's result is kept, so the run needs no Prefect and no server."""

from __future__ import annotations

import os

import msgspec

from assay.config.options import RunOptions
from assay.core.errors import AssayError
from assay.export import EXPORT
from assay.read.inventory import local_names
from assay.report.build import Reported
from assay.score.scoring import SCORE, ToScore
from assay.storage.kept_manifests import Finished, kept
from assay.storage.manifests import InputFile, Scored
from assay.storage.run_manifest import RunManifest, run_manifest_in
from assay.storage.stage import Given, Made, RunContext, Stage
from flows.command.console import HeldConsole
from flows.curate.prepare import Prepared
from flows.curate.run import Run, inputs_of


class _NotKept(Exception):
    """A stage has something to do."""


class _AsKept:
    """Uses the manifests that earlier runs kept, and raises _NotKept if one is missing. Shows no pages."""

    def __init__(self, console: HeldConsole) -> None:
        self._console = console
        self.has_all = False
        """Whether every stage's result is kept."""

    def run(self, stage: Stage[Given, Made], given: Given, context: RunContext) -> Finished[Made]:
        if stage.key is None:
            return Finished(stage.run(given, context), cached=False)
        found = kept(stage, given, context)
        if found is None:
            raise _NotKept
        if stage.name == EXPORT.name:
            # The last stage that is kept: from here on, this is the run, and it shows its lines.
            self.has_all = True
            self._console.release()
        return Finished(found, cached=True)

    def score(self, given: ToScore, context: RunContext, model: str) -> Finished[Scored]:
        return self.run(SCORE, given, context)

    def show(self, manifest: RunManifest, page: Reported) -> None:
        """Do nothing: Prefect's pages show no run that had nothing to do."""

    def announce(self, manifest: RunManifest) -> None:
        """Do nothing: the run that made the results announced them."""


def rerun(options: RunOptions, prepared: Prepared, console: HeldConsole) -> RunManifest | None:
    """The manifest of the run, if every stage's result is kept. None where a stage has something to do.

    It is None, too, if a fault comes before all results are found: the usual run that follows meets the same
    fault and reports it. Once all are found, this is the run: it shows what ``console`` held back, and raises
    its faults.
    """
    conductor = _AsKept(console)
    try:
        if not _is_the_same_again(options, prepared):
            return None
        with prepared.workers() as workers:
            context = RunContext(prepared.home, console, workers=workers)
            return Run(options, prepared, console, context, conductor).written()
    except _NotKept:
        return None
    except (AssayError, OSError):
        if conductor.has_all:
            raise
        return None


def _is_the_same_again(options: RunOptions, prepared: Prepared) -> bool:
    """Whether the output folder seems to hold the results of the same options and inputs, by names and sizes.

    If it does not, the usual run begins at once: it checks everything anyway.
    """
    if options.preview or options.dry_run or options.release or options.verify_inputs:
        return False
    if prepared.output.has_leftovers():
        return False
    manifest = run_manifest_in(prepared.output.path)
    if manifest is None or manifest.get("options") != options.model_dump(mode="json"):
        return False
    names = local_names(inputs_of(options, prepared), prepared.home)
    if names is None:
        return False
    try:
        before = {one.path: one.size for one in msgspec.convert(manifest.get("inputs"), list[InputFile])}
    except msgspec.ValidationError:
        return False
    return {name: os.stat(name).st_size for name in names} == before
