"""The manifests of finished stages, kept below ``ASSAY_HOME`` so that a later run need not do the work again.

The name of a manifest's file is the stage's name and the digest of all that the result depends on. The file
is sealed. A manifest is not used if its file was cut, altered or copied from another key, or if files that it
names are gone or altered.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import msgspec

from assay.storage.home import Home, mark_used, written_whole
from assay.storage.sealed import Altered, sealed_json, unsealed
from assay.storage.stage import Given, Made, RunContext, Stage

_MANIFEST = "manifest"


@dataclass(frozen=True, slots=True)
class Finished(Generic[Made]):
    """A stage's manifest, and whether an earlier run made it."""

    manifest: Made
    cached: bool


def kept(stage: Stage[Given, Made], given: Given, context: RunContext) -> Made | None:
    """The manifest that an earlier run made from the same ``given``. None if there is none to use again.

    If there is one that may not be used again, a line reports why.
    """
    if stage.key is None:
        return None
    path = _path(stage, given, context.home)
    try:
        found = read(path, stage.made)
    except Altered as error:
        context.say(
            f"{stage.name}: {path} is damaged, or of an earlier version ({error}), so this stage runs again"
        )
        return None
    if found is None:
        return None
    if stage.is_current(given, found, context.home):
        # Another run may have removed the file meanwhile.
        with suppress(OSError):
            mark_used(path)
        return found
    if stage.says_when_stale:
        context.say(f"{stage.name}: files of an earlier run are missing or altered, so this stage runs again")
    return None


def keep(stage: Stage[Given, Made], given: Given, made: Made, home: Home) -> None:
    """Keep the manifest for later runs. Does nothing for a stage that always runs."""
    if stage.key is None:
        return
    path = _path(stage, given, home)
    with written_whole(path) as temporary:
        temporary.write_bytes(sealed_json({_MANIFEST: msgspec.to_builtins(made)}, about=path.stem))


def read(path: Path, kind: type[Made]) -> Made | None:
    """The manifest in the file. None if there is no file. Altered if it is not as ``keep`` wrote it."""
    try:
        return msgspec.convert(unsealed(path.read_bytes(), about=path.stem)[_MANIFEST], kind)
    except FileNotFoundError:
        return None
    except (KeyError, msgspec.ValidationError) as error:
        raise Altered(str(error)) from error


def _path(stage: Stage[Given, Made], given: Given, home: Home) -> Path:
    return home.manifests / f"{stage.name}-{stage.digest(given)}.json"
