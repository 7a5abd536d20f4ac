"""A model's remarks, kept with its scores: other ways to read the model, which would give other scores.

They are found when the model is opened. A later run that finds every score stored opens no model. It uses the
same scores, so it reports the remarks that are kept here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from assay.rewards.protocol import Remark
from assay.rewards.spec import ModelSpec
from assay.storage.home import Home, written_whole
from assay.storage.sealed import Altered, sealed_json, unsealed
from assay.storage.stage import RunContext


class _Kept(msgspec.Struct, frozen=True):
    """A remark as it is in the file."""

    told: str
    settled_by: Literal["read_at", "add_bos"]


def sentences(remarks: Iterable[Remark], model: ModelSpec) -> tuple[str, ...]:
    """The remarks as a person reads them, once each. A remark is left out once its option is given."""
    given = {"read_at": model.reading.read_at, "add_bos": model.reading.add_bos}
    open_ones = (remark for remark in remarks if given[remark.settled_by] is None)
    return tuple(dict.fromkeys(f"{model.name}: {remark.text}" for remark in open_ones))


def keep(remarks: Iterable[Remark], model: ModelSpec, context: RunContext) -> None:
    """Write down all remarks of this run.

    An earlier remark stays unless this run has one about the same option: a run that gives the option has no
    remark about it, and the next run may not give it, with the same scores.
    """
    new = tuple(dict.fromkeys(remarks))
    settled_anew = {remark.settled_by for remark in new}
    quiet = RunContext(context.home)
    former = [remark for remark in kept(model, quiet) if remark.settled_by not in settled_anew]
    entries = [_Kept(remark.text, remark.settled_by) for remark in (*former, *new)]
    content = {"remarks": msgspec.to_builtins(entries)}
    with written_whole(_file(model, context.home)) as temporary:
        temporary.write_bytes(sealed_json(content, about=_about(model)))


def kept(model: ModelSpec, context: RunContext) -> tuple[Remark, ...]:
    """The remarks that earlier runs found when they opened the model of these scores.

    Empty where the file is missing or damaged: no score depends on it. A damaged file is reported in a line.
    """
    path = _file(model, context.home)
    try:
        content = unsealed(path.read_bytes(), about=_about(model))
        entries = msgspec.convert(content.get("remarks"), tuple[_Kept, ...])
        return tuple(Remark(entry.told, entry.settled_by) for entry in entries)
    except FileNotFoundError:
        return ()
    except (OSError, Altered, msgspec.ValidationError) as error:
        context.say(
            f"{path}: cannot be read, is damaged, or belongs to another model ({error}). It holds warnings "
            "about other ways to read the model; `assay verify` shows them again"
        )
        return ()


def _file(model: ModelSpec, home: Home) -> Path:
    return home.scores / model.fingerprint / "remarks.json"


def _about(model: ModelSpec) -> str:
    return f"remarks of {model.fingerprint}"
