"""Inputs → an inventory: which files there are, the format of each, and its shards of bounded size."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from assay.core.errors import UserMistake
from assay.core.progress import Progress
from assay.core.text import counted, did_you_mean
from assay.read.folders import files_of_rows
from assay.read.formats import FORMATS, KNOWN_NAMES, Names
from assay.read.known_files import KnownFiles
from assay.read.looks import HowToLook, look_at, looked_at_by_workers
from assay.read.not_chat import why_file_is_no_chat
from assay.read.remote_inputs import RemoteFile, all_copied, reads_elsewhere, remote_files, sweep_copies
from assay.read.sources import (
    KNOWN_ENDINGS,
    Source,
    Stamp,
)
from assay.read.tables import decoder_kept
from assay.storage.addresses import is_remote
from assay.storage.home import Home, contains
from assay.storage.manifests import InputFile
from assay.storage.regular import read_regular, why_not_regular
from assay.storage.run_manifest import RUN_MANIFEST, UNUSABLE, is_damaged_run_manifest, run_manifest_in
from assay.storage.stage import RunContext, Stage

#: Plain lines are cut into shards of about this many bytes.
SHARD_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class InputShard:
    """A part of one file. It is converted, and reused by later runs, by itself."""

    file: int
    """Index into the inventory's files."""
    offset: int
    length: int
    """Bytes. For a file that is not cut, its size on disk."""
    first_line: int
    whole: bool
    """Whether the shard is the whole file."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a run reads, in input order. ``sources`` and ``stamps`` have one entry for each of ``files``."""

    files: tuple[InputFile, ...]
    sources: tuple[Source, ...]
    shards: tuple[InputShard, ...]
    stamps: tuple[Stamp, ...]
    """The stamp of each file, taken before its digest was computed."""
    names: Names = KNOWN_NAMES
    """What the user maps."""
    named: bool = False
    """Whether the user named the files' format. Else each row is read as the format that it shows."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The input of the ingest stage."""

    names: tuple[str, ...]
    """Paths, folders, globs, and addresses on S3 and on the Hub."""
    format: str = "auto"
    """A key of ``FORMATS``, or ``auto`` to recognise the format of each file and row."""
    within: tuple[str, ...] | None = None
    """Folders (without links), and addresses. Every file must lie in one of them; None: anywhere."""
    output: Path | None = None
    """The folder that the run replaces. Its files are not read."""
    shard_bytes: int = SHARD_BYTES
    mapped: Names = KNOWN_NAMES
    """The names of fields and speakers that the user maps."""
    verify: bool = False
    """Read every file, even one that has not changed since an earlier run by its size, times and inode."""


def check_inputs(inputs: list[str]) -> None:
    """Refuse what an input's name or first bytes show to be wrong. The ingest stage checks again."""
    for given in inputs:
        if not given:
            raise UserMistake("--input '': is empty. Name a file, a folder or a glob.")
        if not is_remote(given) and not glob.has_magic(given) and not os.path.exists(given):
            raise UserMistake(f"{given}: there is no such file or folder.")
        if not is_remote(given) and not any(glob.iglob(given, recursive=True)) and not os.path.exists(given):
            raise UserMistake(f"{given}: matches no file.")
        if not os.path.exists(given) or os.path.isdir(given):
            continue
        if why := why_not_regular(given):
            raise UserMistake(f"{given}: {why}; only regular files are read.")
        try:
            refused = why_file_is_no_chat(given)
        except OSError as error:
            raise UserMistake(f"{given}: cannot be read: {error.strerror or error}") from error
        if refused:
            raise UserMistake(f"{given}: {refused}")


@decoder_kept()
def take_inventory(inputs: Inputs, context: RunContext) -> Inventory:
    """The inventory of the inputs: each file once, in the order given.

    A folder stands for its files with known endings, at any depth; a glob stands for what it matches. Both
    are sorted, and leave out the results of runs, which a line reports. UserMistake for a file that cannot
    be read, lies in the output folder or lies outside of ``within``, and for an unknown format.

    Files on S3 (``s3://…``) and on the Hub (``hf://datasets/…``) are first copied to the home folder, or
    workers copy and read them (``looks``).
    """
    format, shard_bytes = inputs.format, inputs.shard_bytes
    if format != "auto" and format not in FORMATS:
        choices = ["auto", *FORMATS]
        raise UserMistake(
            f"unknown format {format!r}{did_you_mean(format, choices)} (there are {', '.join(choices)})"
        )
    files: list[InputFile] = []
    sources: list[Source] = []
    shards: list[InputShard] = []
    stamps: list[Stamp] = []
    digested = KnownFiles(context.home)
    how = HowToLook(format, inputs.mapped, shard_bytes)
    # Check all paths before the first file is read.
    found = list(_paths(inputs, context))
    context.progress.begin("ingest", len(found), "files")
    remote = [one.remote for one in found if one.remote is not None]
    elsewhere = looked_at_by_workers(remote, how, context, verify=inputs.verify)
    for name, path, is_named, _ in found:
        if (looked := elsewhere.get(name)) is None:
            context.progress.advance()
            looked = look_at(name, path, how, digested, verify=inputs.verify)
        if looked.no_chat is not None:
            if is_named:
                raise UserMistake(f"{name}: {looked.no_chat}")
            context.say(f"{name}: is not read, since it {looked.no_chat}")
            continue
        known = looked.file
        stamps.append(looked.stamp)
        files.append(InputFile(name, known.digest, known.size, looked.format))
        sources.append(looked.source)
        cuts = known.cuts
        for cut, following in zip(cuts, [*cuts[1:], (known.size, 0)], strict=True):
            length = following[0] - cut[0]
            shards.append(InputShard(len(files) - 1, cut[0], length, cut[1], len(cuts) == 1))
    digested.keep()
    if not files:
        raise UserMistake(f"{' '.join(inputs.names)}: no file there holds rows of chats.")
    if empty := [file.path for file in files if not file.size]:
        verb, more = ("is", "") if len(empty) == 1 else ("are", f" and {len(empty) - 1:,} more")
        context.say(f"warning: {counted(len(empty), 'input files')} {verb} empty: {empty[0]}{more}")
    named = format != "auto"
    return Inventory(tuple(files), tuple(sources), tuple(shards), tuple(stamps), inputs.mapped, named)


class _Found(NamedTuple):
    """A file to read."""

    name: str
    """As the user gave it."""
    path: str
    """On this machine."""
    is_named: bool = True
    """Whether the user named it, or a glob did; a file of a folder has a known ending and is not named."""
    remote: RemoteFile | None = None
    """The remote file, if workers are to look at it. There may then be no file at ``path``."""


def local_names(inputs: Inputs, home: Home) -> list[str] | None:
    """The names of the files to read, without reading any. None if an input is not on this machine.

    Raises UserMistake for mistakes that the names alone show, as ``take_inventory`` does.
    """
    if any(map(is_remote, inputs.names)):
        return None
    return [found.name for found in _paths(inputs, RunContext(home))]


def _paths(inputs: Inputs, context: RunContext) -> Iterator[_Found]:
    """Yield every file once."""
    seen: set[str] = set()
    within, output = inputs.within, inputs.output
    if not inputs.names:
        raise UserMistake("no input given. Name a file, a folder or a glob.")
    for given in inputs.names:
        if is_remote(given):
            found = [one for one in _objects(given, within, context) if one.address not in seen]
            seen.update(one.address for one in found)
            yield from _copies(given, found, context)
            continue
        for path in _expanded(given, context.progress):
            try:
                path.encode()
            except UnicodeEncodeError:
                raise UserMistake(f"{path!r}: the name is not UTF-8. Rename the file.") from None
            _refuse_irregular(path)
            real = os.path.realpath(path)
            if output is not None and contains(_replaced(output), real):
                raise UserMistake(
                    f"{path}: lies in the output folder or its {UNUSABLE}, which the run replaces as a "
                    "whole. Name another output folder, or move the file elsewhere."
                )
            if within is not None and not contains([one for one in within if not is_remote(one)], real):
                raise UserMistake(f"{path}: a link leads out of the folders that may be read.")
            if real not in seen:
                seen.add(real)
                yield _Found(path, path, not os.path.isdir(given))


def _replaced(output: Path) -> tuple[str, str]:
    """The folders that a run with this output may replace."""
    real = os.path.realpath(output)
    return real, f"{real}{UNUSABLE}"


def _refuse_irregular(path: str) -> None:
    """Raise UserMistake where the path leads to no regular file."""
    try:
        reason = why_not_regular(path)
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise UserMistake(f"{path}: cannot be read: {reason}.")


def _objects(given: str, within: tuple[str, ...] | None, context: RunContext) -> list[RemoteFile]:
    """The files that the address stands for; UserMistake where they may not be read."""
    if within is not None and not f"{given}/".startswith(
        tuple(f"{one}/" for one in within if is_remote(one))
    ):
        raise UserMistake(f"{given}: is not below an address that may be read.")
    return remote_files(given, context.say)


def _copies(given: str, found: Sequence[RemoteFile], context: RunContext) -> Iterator[_Found]:
    """Yield the address of every file, and the path of its copy where the run makes one."""
    sweep_copies(context)
    megabytes = sum(one.size for one in found) / 1e6
    by_workers = reads_elsewhere(context)
    what = "workers read those that are not known" if by_workers else "copying those that are not here yet"
    context.say(f"{given}: {counted(len(found), 'files')}, {megabytes:,.1f} MB; {what}")
    is_named = glob.has_magic(given) or (len(found) == 1 and given.endswith(f"/{found[0].name}"))
    if by_workers:
        for one in found:
            yield _Found(one.address, one.address, is_named, one)
        return
    for one, path in zip(found, all_copied(found, context.home), strict=True):
        yield _Found(one.address, path, is_named)


def _expanded(given: str, progress: Progress) -> list[str]:
    """The files that ``given`` stands for, sorted. A run's results count only where they are named."""
    path = Path(given)
    if not given:
        raise UserMistake("the input's name is empty. Name a file, a folder or a glob.")
    if path.is_dir():
        if _has_run_manifest(given):
            raise UserMistake(f"{given}: holds the results of a run. Name the file in it that you mean.")
        found = _chosen(sorted(_files_below(given, progress)), progress)
        if not found:
            raise UserMistake(f"{given}: the folder holds no file that ends in {', '.join(KNOWN_ENDINGS)}.")
        return found
    if path.exists():
        return [given]
    if glob.has_magic(given):
        # Keep what is neither a file nor a folder, so that it is refused and not left out in silence.
        matched = sorted(name for name in glob.glob(given, recursive=True) if not os.path.isdir(name))
        folders = sorted({os.path.dirname(name) for name in matched})
        results = {folder for folder in folders if _holds_results(folder, progress)}
        results |= {folder for folder in folders if _is_in_results(folder, progress)}
        found = [name for name in matched if os.path.dirname(name) not in results]
        found = _chosen(found, progress)
        if not found:
            but = f" but results of runs: name the file in {min(results)} that you mean" if results else ""
            raise UserMistake(f"{given}: matches no file{but}.")
        return found
    raise UserMistake(f"{given}: there is no such file or folder.")


def _chosen(names: Sequence[str], progress: Progress) -> list[str]:
    """The files that hold rows; a line reports each that is left out."""
    found = files_of_rows(names, read_regular)
    for line in found.left_out:
        progress.say(line)
    return list(found.names)


def _holds_results(folder: str, progress: Progress) -> bool:
    """Whether the folder holds the results of a run; if so, report that they are left out."""
    if not _has_run_manifest(folder):
        return False
    progress.say(f"{folder or '.'}: holds the results of a run, which are not read")
    return True


def _is_in_results(folder: str, progress: Progress) -> bool:
    """Whether a run wrote the folder for a trainer, among its results; if so, report that it is left out."""
    path = Path(folder)
    manifest = run_manifest_in(path.parent) if path.name else None
    if manifest is None or not any(name.startswith(f"{path.name}/") for name in manifest.get("files") or ()):
        return False
    progress.say(f"{folder}: is among the results of a run, which are not read")
    return True


def _has_run_manifest(folder: str) -> bool:
    """Whether the folder has a run's manifest; UserMistake where it has one that is damaged."""
    if run_manifest_in(Path(folder)) is not None:
        return True
    manifest = Path(folder) / RUN_MANIFEST
    if is_damaged_run_manifest(manifest):
        raise UserMistake(
            f"{manifest}: looks like a run's manifest and is damaged, so the files beside it may be "
            "results. Name the files that you mean, or remove the manifest."
        )
    return False


def _files_below(folder: str, progress: Progress) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise UserMistake(f"{error.filename}: cannot be read: {error.strerror}") from error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and not _holds_results(os.path.join(parent, name), progress)
        ]
        for name in names:
            if name.lower().endswith(KNOWN_ENDINGS) and not name.startswith("."):
                yield os.path.join(parent, name)


def _is_current(inputs: Inputs, inventory: Inventory, home: Home) -> bool:
    """Always False: only reading the inputs shows what they hold now."""
    return False


INGEST = Stage("ingest", 1, Inventory, None, _is_current, take_inventory)
