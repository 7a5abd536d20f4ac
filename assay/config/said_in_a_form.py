"""A sentence for a person who has only a form: in the form's words, and without the server's own paths."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pydantic import BaseModel

from assay.config.options import option_name
from assay.config.settings import Settings
from assay.storage.home import contains

_MOST_NAMES = 10


def in_words_of_the_form(sentence: str, kind: type[BaseModel], settings: Settings) -> str:
    """The sentence with options by their titles, and with the operator's folders by their names.

    >>> from assay.config.options import RunOptions
    >>> settings = Settings(data_roots="data=/srv/chats")
    >>> in_words_of_the_form("/srv/chats/new: there is no such file (--input)", RunOptions, settings)
    'data/new: there is no such file (Inputs)'
    """
    roots = {**settings.data_roots, **settings.output_roots, **settings.model_folders}
    known = {str(root): name for name, root in roots.items()}
    known |= {os.path.realpath(root): name for name, root in roots.items() if isinstance(root, Path)}
    known[str(settings.home)] = "ASSAY_HOME"
    # The longest first: one folder may lie in another.
    for path in sorted(known, key=len, reverse=True):
        sentence = re.sub(rf"{re.escape(path)}(?![A-Za-z0-9._-])", known[path], sentence)
    for name, field in kind.model_fields.items():
        sentence = re.sub(rf"{option_name(name)}(?![a-z-])", field.title or name, sentence)
    return sentence


def what_there_is(inputs: Sequence[str], settings: Settings) -> list[str]:
    """A sentence for each input that is not there: what the folder holds in which it would lie.

    Looks into the operator's folders of this machine alone, and out of none of them by a link.
    """
    found = [_what_there_is(given, settings) for given in inputs]
    return list(dict.fromkeys(one for one in found if one))


def _what_there_is(given: str, settings: Settings) -> str:
    parts = PurePosixPath(given).parts
    root = settings.data_roots.get(parts[0]) if parts and ".." not in parts else None
    if not isinstance(root, Path):
        names = ", ".join(f"{name}/" for name in settings.data_roots)
        return "" if root is not None or not names else f"Inputs begin with one of: {names}"
    if glob.glob(os.path.join(glob.escape(str(root)), *parts[1:]), recursive=True):
        return ""
    folder = root
    for part in parts[1:]:
        if glob.has_magic(part) or not (folder / part).is_dir():
            break
        folder = folder / part
    if not contains([os.path.realpath(root)], os.path.realpath(folder)) or not folder.is_dir():
        return ""
    shown = "/".join([parts[0], *folder.relative_to(root).parts])
    return f"{shown}/ holds: {_names(folder)}"


def _names(folder: Path) -> str:
    with os.scandir(folder) as entries:
        names = sorted(
            f"{entry.name}/" if entry.is_dir() else entry.name
            for entry in entries
            if not entry.name.startswith(".")
        )
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "") or "nothing"
