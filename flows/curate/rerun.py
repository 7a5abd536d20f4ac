"""A rerun with nothing to do: every stage's result is kept, so the run needs no Prefect and no server."""

from __future__ import annotations

import os

import msgspec

from assay.config.options import RunOptions
from assay.core.errors import AssayError
from assay.report.build import Reported
from assay.score.scoring import SCORE, ToScore
from assay.storage.addresses import is_remote
from assay.storage.kept_manifests import Finished, kept
from assay.storage.manifests import InputFile, Scored
from assay.storage.run_manifest import RunManifest, run_manifest_in
from assay.storage.stage import Given, Made, RunContext, Stage
from flows.command.console import HeldConsole
from flows.curate.prepare import Prepared
from flows.curate.run import Run


class _NotKept(Exception):
    """A stage has something to do."""


class _AsKept:
    """Takes what earlier runs made, and raises _NotKept where there is no such thing. Shows nothing."""

    def run(self, stage: Stage[Given, Made], given: Given, context: RunContext) -> Finished[Made]:
        if stage.key is None:
            return Finished(stage.run(given, context), cached=False)
        found = kept(stage, given, context)
        if found is None:
            raise _NotKept
        return Finished(found, cached=True)

    def score(self, given: ToScore, context: RunContext, model: str) -> Finished[Scored]:
        return self.run(SCORE, given, context)

    def show(self, manifest: RunManifest, page: Reported) -> None:
        """Prefect's pages show no run in which nothing was done."""

    def announce(self, manifest: RunManifest) -> None:
        """The results were announced by the run that made them."""


def rerun(options: RunOptions, prepared: Prepared, console: HeldConsole) -> RunManifest | None:
    """The manifest of the run, if every stage's result is kept. None where a stage has something to do.

    ``console`` holds what the run shows. It also is None where something went wrong, for the run that follows
    finds the same and reports it.
    """
    if not _is_the_same_again(options, prepared):
        return None
    try:
        with prepared.workers() as workers:
            context = RunContext(prepared.home, console, workers=workers)
            return Run(options, prepared, console, context, _AsKept()).written()
    except (_NotKept, AssayError, OSError):
        return None


def _is_the_same_again(options: RunOptions, prepared: Prepared) -> bool:
    """Whether the output folder seems to hold the results of the same options and inputs, at a first look.

    Where it does not, a closer look is not worth it: the run that follows looks at everything again.
    """
    if options.preview or options.dry_run or options.release or options.verify_inputs:
        return False
    if prepared.output.has_leftovers():
        return False
    manifest = run_manifest_in(prepared.output.path)
    if manifest is None or manifest.get("options") != options.model_dump(mode="json"):
        return False
    try:
        inputs = msgspec.convert(manifest.get("inputs"), tuple[InputFile, ...])
        return all(is_remote(one.path) or os.stat(one.path).st_size == one.size for one in inputs)
    except (msgspec.ValidationError, OSError):
        return False
