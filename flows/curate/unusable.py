"""A run that could use no record: where its files go, and how it is reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from assay.config.options import RunOptions
from assay.core.errors import AssayError, OutputRefused
from assay.core.progress import Progress
from assay.export.files import Exported
from assay.export.folder import OutputFolder
from assay.export.usable import nothing_usable
from assay.storage.kept_manifests import Finished
from assay.storage.manifests import Counts
from assay.storage.run_manifest import RunManifest
from flows.curate.prepare import Prepared


@contextmanager
def destination(
    counts: Counts, exported: Finished[Exported], options: RunOptions, prepared: Prepared
) -> Iterator[OutputFolder]:
    """Yield the folder for the files of a run with these counts, and hold it.

    It is the output folder. If no record could be used and the output holds other records, it is a folder
    beside the output. A release without a usable record goes there too: otherwise later runs would skip its
    inputs. AssayError where the folder beside the output cannot be used.
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
    """Remove what a killed run left in the folder beside the output, unless another run works there."""
    beside = output.unusable()
    if beside.has_leftovers():
        with suppress(OutputRefused), beside.held():
            beside.repair()


def name_of(folder: OutputFolder, options: RunOptions, prepared: Prepared) -> str:
    """The folder's name in the words of the person who started the run: below the name of a root, if any."""
    if folder is prepared.output:
        return options.output
    return folder.shown.replace(str(prepared.places.output), options.output, 1)


def sentence(manifest: RunManifest) -> str | None:
    """Why a run could use no record, and where its files are; None for any other run."""
    why = nothing_usable(manifest.counts, manifest.exports)
    if why is None or not manifest.is_beside:
        return why
    asked = manifest.options["output"]
    return f"{why} {asked} stays as it was; what this run wrote is in {manifest.output}."


def show(why: str, rows: Iterable[str], progress: Progress, *, fault: bool) -> None:
    """Show why no record could be used, and the beginnings of the first rows."""
    progress.say(f"{'error' if fault else 'warning'}: {why}")
    for number, row in enumerate(rows):
        if not number:
            progress.say("The first rows:")
        progress.say(f"  {row}")
