"""The output folder, replaced as a whole.

Beside the folder NAME, while a run works or after one was killed:

==================== ===========================================================================
.NAME.lock           held by the run that may change the folder; stays, empty, when no run does
.NAME.staging-HEX    an export being built; whole once it has its manifest.json
.NAME.old            the export before, for the moment between two renames
.NAME.discard-HEX    being removed
==================== ===========================================================================

A swap is two renames: NAME → .NAME.old, staging → NAME. Between them NAME does not exist; whoever is
killed there is repaired by the next run, which finishes the swap where the new export is whole, and
else takes it back.

NAME.unusable is a folder of the same kind beside it: for the files of a run that could use nothing, where
NAME holds records that they must not replace.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
import msgspec

from assay.core.errors import AssayError, OutputRefused
from assay.export.usable import holds_records
from assay.storage.disk import full_disk_named
from assay.storage.home import is_intact, sweep, sync, written_whole
from assay.storage.private import FOLDER, make_private, usual_file_mode
from assay.storage.regular import NotRegular, open_regular
from assay.storage.run_manifest import (
    PAGE_BEGINS,
    REPORT,
    RUN_MANIFEST,
    UNUSABLE,
    ExportedFile,
    RunManifest,
    is_as_written,
    run_manifest_in,
)

# 255 bytes is what file systems take; `.`, `.discard-` and 16 digits are put around the name.
_MAX_NAME_BYTES = 220
# What file browsers leave in any folder that was looked at.
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_IN_THE_MAKING = re.compile(rf"\.(?:{re.escape(RUN_MANIFEST)}|{re.escape(REPORT)})\..+\.tmp")


class OutputFolder:
    """A folder that holds one whole export, or none."""

    def __init__(self, path: str | Path, *, real: Path | None = None) -> None:
        """The folder at ``path``, which ``real`` names where no link is to be followed."""
        self.path = real or Path(os.path.realpath(path))
        """Where the export lies; links are followed, so that a link to a folder stays one."""
        self.shown = str(path)
        """As a person would name it."""
        self._old = self._beside("old")
        self._stagings: list[Path] = []
        self._is_held = False

    def _beside(self, suffix: str) -> Path:
        return self.path.parent / f".{self.path.name}.{suffix}"

    def unusable(self) -> OutputFolder:
        """The folder beside this one for the files of a run that could use nothing."""
        real = self.path.with_name(self.path.name + UNUSABLE)
        given = self.shown.rstrip("/")
        plain = os.path.basename(given) == self.path.name and not os.path.islink(given)
        return OutputFolder(given + UNUSABLE if plain else real, real=real)

    def holds_records(self) -> bool:
        """Whether results lie here that a run which could use nothing must not replace."""
        manifest = run_manifest_in(self.path)
        return manifest is not None and holds_records(manifest)

    def check(self) -> None:
        """Nothing, or OutputRefused where the export could not be written here. Changes nothing."""
        if not self.path.name:
            raise OutputRefused(f"{self.shown}: is the root of the file system. Name a folder inside it.")
        if len(os.fsencode(self.path.name.removesuffix(UNUSABLE))) > _MAX_NAME_BYTES:
            raise OutputRefused(f"{self.shown}: the name is longer than {_MAX_NAME_BYTES} bytes. Shorten it.")
        try:
            self._check_folder()
            self._check_old()
            self._check_writable()
        except OSError as error:
            raise self._unwritable(error) from error

    def _check_folder(self) -> None:
        if self.path.is_symlink():
            raise OutputRefused(f"{self.shown}: is a link, which is not followed here. Move it.")
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise OutputRefused(f"{self.shown}: is a file. Name a folder, new or of an earlier run.")
        if os.path.ismount(self.path):
            raise OutputRefused(
                f"{self.shown}: is a mount point, which cannot be replaced as a whole. "
                "Name a folder inside it."
            )
        names = set(os.listdir(self.path)) - _LITTER
        if not names:
            return
        manifest = run_manifest_in(self.path)
        if manifest is None:
            raise OutputRefused(
                f"{self.shown}: is not empty, and what it holds is not ours to replace ({_some(names)}; no "
                f"{RUN_MANIFEST} of an earlier run). Name another folder, or empty this one."
            )
        ours = set(manifest.get("files") or ())
        foreign = {
            name
            for name in _names_in(self.path, {os.path.dirname(name) for name in ours}) - ours - {RUN_MANIFEST}
            if not _IN_THE_MAKING.fullmatch(name) and not (name == REPORT and is_page(self.path / name))
        }
        if foreign:
            raise OutputRefused(
                f"{self.shown}: holds something that no run wrote and that would be lost "
                f"({_some(foreign)}). Move it elsewhere, or name another folder."
            )

    def _check_old(self) -> None:
        if self._old.exists() and not _is_replaceable(self._old):
            raise OutputRefused(
                f"{self._old}: stands where the export before is put for a moment, and is not one. Move it."
            )

    def _check_writable(self) -> None:
        """Make a file that has no name, and so cannot be left behind, wherever one must be made later."""
        parent = self.path.parent
        while not parent.exists():
            parent = parent.parent
        places = [parent, self.path] if self.path.exists() else [parent]
        for place in places:
            with tempfile.TemporaryFile(dir=place):
                pass
        if not self.path.exists():
            return
        # In a sticky folder such as /tmp only an entry's owner can rename it, whoever may write to it.
        above, user = parent.stat(), os.geteuid()
        if above.st_mode & stat.S_ISVTX and user not in (0, above.st_uid, self.path.stat().st_uid):
            raise OutputRefused(f"{self.shown}: belongs to another user. Name a folder of your own.")

    def _unwritable(self, error: OSError) -> OutputRefused:
        place = error.filename if isinstance(error.filename, str) else self.shown
        # The nameless file's own name tells nobody anything; its folder does.
        place = place if os.path.isdir(place) else self.shown
        return OutputRefused(
            f"{self.shown}: cannot be written ({place}: {error.strerror or error}). "
            "Name another folder, or let this user write there."
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other run from the folder; OutputRefused, with who holds it, where one has it."""
        path = self._beside("lock")
        lock = filelock.FileLock(path, mode=0o600)
        try:
            make_private(self.path.parent)
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise OutputRefused(
                f"{self.shown}: is in use by {_holder(path)}. Wait until it is done, or name another folder."
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            # The lock is the kernel's and ends with its process; this line is for people.
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
            self._is_held = True
            yield
        finally:
            for staging in self._stagings:
                if staging.exists():
                    shutil.rmtree(staging)
            self._stagings.clear()
            self._is_held = False
            with suppress(OSError):
                os.truncate(path, 0)
            lock.release()

    def repair(self) -> str | None:
        """Put the last whole export under its name and remove what dead runs left; what was repaired.

        Whoever holds the lock knows that every other run is dead.
        """
        self._require_lock()
        self._check_old()
        said = None
        stagings = self._leftovers("staging")
        if self._old.exists():
            if self.path.exists() and not any(self.path.iterdir()):
                self.path.rmdir()
            if not self.path.exists():
                whole = [staging for staging in stagings if _is_whole(staging)]
                if len(whole) == 1:
                    os.rename(whole[0], self.path)
                    said = f"{self.shown}: an earlier run was stopped while it replaced the export; finished."
                else:
                    os.rename(self._old, self.path)
                    said = f"{self.shown}: an earlier run was stopped; the export before it is back in place."
                sync(self.path.parent)
            self._discard(self._old)
        for leftover in [*self._leftovers("staging"), *self._leftovers("discard")]:
            shutil.rmtree(leftover)
        if self.path.is_dir():
            for name in os.listdir(self.path):
                if _IN_THE_MAKING.fullmatch(name):
                    (self.path / name).unlink()
        return said

    def staging(self) -> Path:
        """A fresh private folder, in which an export is built. It goes when the lock does."""
        self._require_lock()
        staging = self._beside(f"staging-{secrets.token_hex(8)}")
        staging.mkdir(mode=FOLDER)
        self._stagings.append(staging)
        return staging

    def put_page(self, staging: Path | None, page: bytes) -> None:
        """Put the page beside the results in ``staging``, or in the folder itself where that is None.

        A page of an earlier run is removed first: it shows another run than the manifest. AssayError, or
        OSError, where the page cannot be written.
        """
        self._require_lock()
        path = (staging or self.path) / REPORT
        if is_page(path):
            path.unlink()
        elif os.path.lexists(path):
            raise AssayError(f"{path}: is no page that Assay made, and came while the run worked")
        if page:
            with written_whole(path, mode=usual_file_mode()) as temporary:
                temporary.write_bytes(page)

    def publish(self, staging: Path, manifest: RunManifest) -> None:
        """Make ``staging`` the export. Its manifest is written last, when all else is on the disk.

        AssayError where the folder meanwhile holds what is not ours; nothing is replaced then.
        """
        self._require_lock()
        with full_disk_named(self.path):
            mode = usual_file_mode()
            folder_mode = stat.S_IMODE(self.path.stat().st_mode) if self.path.exists() else FOLDER
            for path in staging.rglob("*"):
                path.chmod(folder_mode if path.is_dir() else mode)
                sync(path)
            _write_manifest(staging, manifest)
            os.chmod(staging, folder_mode)
            sync(staging)
            self._refuse_what_came()
            self._swap(staging)
        self._discard(self._old)

    def _refuse_what_came(self) -> None:
        try:
            self._check_folder()
        except OutputRefused as refusal:
            raise AssayError(
                f"{refusal} That came while the run worked, and nothing was replaced. Then the same command "
                "writes the results without scoring anything again."
            ) from refusal

    def _swap(self, staging: Path) -> None:
        if self.path.exists():
            os.rename(self.path, self._old)
        try:
            os.rename(staging, self.path)
        except OSError:
            if self._old.exists():
                os.rename(self._old, self.path)
            raise
        sync(self.path.parent)

    def refresh(self, manifest: RunManifest) -> None:
        """Replace manifest.json alone: what the folder holds is what this run would have written."""
        self._require_lock()
        with full_disk_named(self.path):
            _write_manifest(self.path, manifest)
            sync(self.path)

    def holds(self, files: Mapping[str, ExportedFile]) -> bool:
        """Whether the folder is a whole export of exactly these files, byte for byte."""
        manifest = run_manifest_in(self.path)
        return (
            manifest is not None
            and is_as_written(manifest)
            and set(manifest.get("files") or ()) == set(files)
            and all(
                is_intact(self.path / name, digest=file.digest, size=file.size)
                for name, file in files.items()
            )
        )

    def _leftovers(self, kind: str) -> list[Path]:
        if not self.path.parent.is_dir():
            return []
        pattern = re.compile(rf"\.{re.escape(self.path.name)}\.{kind}-[0-9a-f]{{16}}")
        return [path for path in sorted(self.path.parent.iterdir()) if pattern.fullmatch(path.name)]

    def has_leftovers(self) -> bool:
        """Whether a run that writes here works, or one was killed."""
        return self._old.exists() or any(map(self._leftovers, ("staging", "discard")))

    def _discard(self, folder: Path) -> None:
        """Remove a folder; renamed first, so that no half of an export ever bears an export's name."""
        if folder.exists():
            doomed = self._beside(f"discard-{secrets.token_hex(8)}")
            os.rename(folder, doomed)
            shutil.rmtree(doomed)

    def _require_lock(self) -> None:
        if not self._is_held:
            raise RuntimeError("OutputFolder is changed without its lock: use `with folder.held():`")


def is_page(path: Path) -> bool:
    """Whether the file is a page that Assay made. Another program's is not ours to replace."""
    try:
        with open_regular(path) as file:
            return file.read(len(PAGE_BEGINS)) == PAGE_BEGINS
    except (OSError, NotRegular):
        return False


def _holder(lock: Path) -> str:
    try:
        said = lock.read_text().strip()
    except OSError:
        said = ""
    return said or "another run"


def _some(names: set[str]) -> str:
    """At most three of the names, printable, for a sentence."""
    shown = [repr(name) for name in sorted(names)[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _names_in(folder: Path, known: set[str]) -> set[str]:
    """The names in the folder; those in a folder that is ``known`` instead of the folder's own.

    What file browsers leave is not among them.
    """
    names: set[str] = set()
    for name in set(os.listdir(folder)) - _LITTER:
        path = folder / name
        if name in known and path.is_dir() and not path.is_symlink():
            names |= {f"{name}/{inner}" for inner in set(os.listdir(path)) - _LITTER}
        else:
            names.add(name)
    return names


def _is_replaceable(folder: Path) -> bool:
    return folder.is_dir() and (not any(folder.iterdir()) or run_manifest_in(folder) is not None)


def _is_whole(staging: Path) -> bool:
    """Whether every file that the manifest names is there as it says."""
    manifest = run_manifest_in(staging)
    if manifest is None or not is_as_written(manifest):
        return False
    try:
        files = msgspec.convert(manifest.get("files", {}), dict[str, ExportedFile])
    except msgspec.ValidationError:
        return False
    return _are_intact(staging, files)


def _are_intact(folder: Path, files: Mapping[str, ExportedFile]) -> bool:
    return all(is_intact(folder / name, digest=file.digest, size=file.size) for name, file in files.items())


def _write_manifest(folder: Path, manifest: RunManifest) -> None:
    sweep(folder)
    with written_whole(folder / RUN_MANIFEST, mode=usual_file_mode()) as temporary:
        written = msgspec.json.encode(manifest.as_written())
        temporary.write_bytes(msgspec.json.format(written, indent=2) + b"\n")
