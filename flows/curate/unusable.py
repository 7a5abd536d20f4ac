"""A run that could use nothing: where its files go, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from assay.config.options import RunOptions
from assay.core.errors import AssayError, OutputRefused
from assay.core.progress import Progress
from assay.export.files import Exported
from assay.export.folder import OutputFolder
from assay.export.usable import nothing_usable
from assay.storage.manifests import Counts
from assay.storage.run_manifest import RunManifest
from flows.curate.prepare import Prepared
from tasks.stage import Finished


@contextmanager
def destination(
    counts: Counts, exported: Finished[Exported], options: RunOptions, prepared: Prepared
) -> Iterator[OutputFolder]:
    """Yield the folder for the files of a run with these counts, held.

    It is the output, held already, unless nothing was of use and the output holds other records. A release
    of nothing is none, or no later run would look at its inputs. AssayError where the folder beside cannot be
    had.
    """
    output = prepared.output
    why = nothing_usable(counts, exported.manifest.exports)
    must_stay = output.holds_records() or (options.release and counts.read)
    if why is None or exported.cached or not must_stay:
        yield output
        return
    beside = output.unusable()
    with ExitStack() as stack:
        try:
            beside.check()
            stack.enter_context(beside.held())
            beside.repair()
        except OutputRefused as refusal:
            raise AssayError(
                f"{why} {output.shown} stays as it was. What this run would write has no place: {refusal}"
            ) from refusal
        yield beside


def repair_beside(output: OutputFolder) -> None:
    """Remove what a killed run left of the folder beside the output; that of a run that works stays."""
    beside = output.unusable()
    if beside.has_leftovers():
        with suppress(OutputRefused), beside.held():
            beside.repair()


def name_of(folder: OutputFolder, options: RunOptions, prepared: Prepared) -> str:
    """The folder as whoever started the run would name it, who may know it by the name of a root only."""
    if folder is prepared.output:
        return options.output
    return folder.shown.replace(str(prepared.places.output), options.output, 1)


def sentence(manifest: RunManifest) -> str | None:
    """Why a run could use nothing, and where its files are; None of any other run."""
    why = nothing_usable(manifest.counts, manifest.exports)
    if why is None or not manifest.is_beside:
        return why
    asked = manifest.options["output"]
    return f"{why} {asked} stays as it was; what this run wrote is in {manifest.output}."


def show(why: str, rows: Iterable[str], progress: Progress, *, fault: bool) -> None:
    """Show why nothing could be used, and what the first rows look like."""
    progress.say(f"{'error' if fault else 'warning'}: {why}")
    for number, row in enumerate(rows):
        if not number:
            progress.say("The first rows:")
        progress.say(f"  {row}")
