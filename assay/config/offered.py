"""What a deployment's form offers on an operator's machine: its roots, its models, and fitting defaults.

Prefect checks a form by its schema before it makes a run. So a name that the operator does not have is
refused there. ``python -m deployments.register`` writes this; run it again when the settings change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from assay.config.form import GROUP
from assay.config.settings import Settings
from assay.rewards.catalog import CATALOG

Schema = dict[str, Any]

#: What a field may hold by an operator's settings, whether or not it is a list, and may be left empty.
Narrow = Callable[[Settings, bool, bool], Schema]

#: The names of roots in the repository's own examples.
_DATA, _RESULTS = "data", "results"
#: ``NAME=`` before a model or a file, for the tables of an evaluation.
_SHORT_NAME = r"([A-Za-z0-9][A-Za-z0-9._-]*=)?"


def offered(parameters: Schema, settings: Settings) -> Schema:
    """The schema of a deployment's parameters, with what these settings allow.

    Inputs, outputs and golden rows begin with the name of a root; a model is one of those that there are.
    """
    definitions = {
        name: _of_options(options, settings) for name, options in parameters["definitions"].items()
    }
    return {**parameters, "definitions": definitions}


def fitting(value: Any, settings: Settings) -> Any:
    """The value of a parameter, with ``data`` and ``results`` as this operator's first roots are called.

    >>> fitting({"input": ["data/new"]}, Settings(data_roots="chats=/srv/chats"))
    {'input': ['chats/new']}
    """
    if isinstance(value, list):
        return [fitting(one, settings) for one in value]
    if isinstance(value, dict):
        return {name: fitting(one, settings) for name, one in value.items()}
    return _renamed(value, settings) if isinstance(value, str) else value


def _of_options(options: Schema, settings: Settings) -> Schema:
    if "properties" not in options:
        return options
    fields = {name: _field(name, field, settings) for name, field in options["properties"].items()}
    return {**options, "properties": fields}


def _field(name: str, field: Schema, settings: Settings) -> Schema:
    if name == GROUP:
        return _of_options(field, settings)
    if "description" in field:
        field = {**field, "description": _examples_renamed(field["description"], settings)}
    narrow = _NARROWED.get(name)
    if narrow is None:
        return field
    may_be_empty = "default" in field
    if "anyOf" in field:
        return {
            **field,
            "anyOf": [_narrowed(kind, narrow, settings, may_be_empty) for kind in field["anyOf"]],
        }
    return _narrowed(field, narrow, settings, may_be_empty)


def _narrowed(field: Schema, narrow: Narrow, settings: Settings, may_be_empty: bool) -> Schema:
    is_list = "items" in field
    allowed = narrow(settings, is_list, may_be_empty)
    return {**field, "items": {**field["items"], **allowed}} if is_list else {**field, **allowed}


def _model(settings: Settings, is_list: bool, may_be_empty: bool) -> Schema:
    """A list to choose from; a pattern where each of several models may have a short name."""
    if not is_list:
        return {"enum": _models(settings)}
    return {"pattern": f"^{_SHORT_NAME}({'|'.join(map(re.escape, _models(settings)))})$"}


def _models(settings: Settings) -> list[str]:
    """The operator's own first, which are here; those of the catalog may have to be fetched."""
    return list(dict.fromkeys([*settings.model_folders, *settings.endpoints(), *CATALOG]))


def _input(settings: Settings, is_list: bool, may_be_empty: bool) -> Schema:
    return _below(settings.data_roots, rest="(/.*)?")


def _output(settings: Settings, is_list: bool, may_be_empty: bool) -> Schema:
    return _below(settings.output_roots, rest="/.+", or_empty=may_be_empty)


def _file(settings: Settings, is_list: bool, may_be_empty: bool) -> Schema:
    roots = {**settings.output_roots, **settings.data_roots}
    return _below(roots, rest="/.+", before=_SHORT_NAME, or_empty=may_be_empty)


def _against(settings: Settings, is_list: bool, may_be_empty: bool) -> Schema:
    return {"enum": ["", *_models(settings)]}


_NARROWED: Mapping[str, Narrow] = {
    "input": _input,
    "decontaminate": _input,
    "output": _output,
    "model": _model,
    "against": _against,
    "record": _output,
    "check": _file,
    "scores": _file,
}


def _below(roots: Iterable[str], *, rest: str, before: str = "", or_empty: bool = False) -> Schema:
    """A pattern for paths below the roots; nothing where there are no roots."""
    named = "|".join(re.escape(name).replace(r"\-", "-") for name in roots)
    return {"pattern": f"^{before}({named}){rest}$" + ("|^$" if or_empty else "")} if named else {}


def _renamed(text: str, settings: Settings) -> str:
    for usual, roots in ((_DATA, settings.data_roots), (_RESULTS, settings.output_roots)):
        first, slash, rest = text.partition("/")
        if first == usual and roots and usual not in roots:
            return f"{next(iter(roots))}{slash}{rest}"
    return text


def _examples_renamed(text: str, settings: Settings) -> str:
    return re.sub(r"\b(?:data|results)/\S+", lambda found: _renamed(found[0], settings), text)
