"""The form that Prefect's pages make of options: what most people fill in, then a group *Advanced*.

A form has no empty number: an option that may be left open shows ``0``, ``auto`` or an empty text instead,
which ``unfolded`` reads as left open. Programs may give all options side by side, as on the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

GROUP = "advanced"
_OPEN = "auto"
_ONE, _SEVERAL = "one", "several"
#: A number, or nothing. In a form it is a text, because 0 is a margin.
_NUMBER = r"^(-?\d+(\.\d+)?)?$"

Schema = dict[str, Any]

_NOTHING = {"type": "null"}


def in_two_groups(properties: Mapping[str, Schema], front: tuple[str, ...], hidden: frozenset[str]) -> Schema:
    """The properties of a form: those in ``front`` first, then a group with the others; no hidden ones.

    All have a ``position``: Prefect's form sorts by it, as PostgreSQL returns keys by length.
    """
    shown = {name: _in_a_form(field) for name, field in properties.items() if name not in hidden}
    first = {name: shown[name] for name in front or shown}
    rest = {name: field for name, field in shown.items() if name not in first}
    if rest:
        first[GROUP] = {
            "title": "Advanced",
            "description": "What most runs leave as it is.",
            "type": "object",
            "properties": _numbered(rest),
            "additionalProperties": False,
            "default": {},
        }
    return _numbered(first)


def _numbered(fields: Mapping[str, Schema]) -> Schema:
    return {name: {**field, "position": place} for place, (name, field) in enumerate(fields.items())}


def _in_a_form(field: Schema) -> Schema:
    """The field with a value for what is left open, which its description names.

    Where several values may be given, each for a model, the form takes one for all of them.
    """
    kinds = field.get("anyOf", [field])
    may_be_open = _NOTHING in kinds
    inner = next(kind for kind in kinds if kind.get("type") != "array" or kinds == [field])
    if not may_be_open:
        is_name = "enum" not in inner and len(kinds) > 1
        if is_name:
            # The words between which a person chooses; without them, they would be str and list.
            named = [{**kind, "title": _SEVERAL if "items" in kind else _ONE} for kind in kinds]
            return _described({**field, "anyOf": named}, "Empty")
        one = {**{name: field[name] for name in field if name != "anyOf"}, **inner}
        return _described(one, "Off" if one.get("type") == "boolean" else "Empty")
    kept = {name: value for name, value in field.items() if name not in ("anyOf", "default")}
    if "enum" in inner:
        choice = {"type": "string", "enum": [_OPEN, *inner["enum"]], "default": _OPEN}
        return _described({**kept, **choice}, _OPEN)
    if inner["type"] == "boolean":
        return _described({**kept, "type": "string", "enum": [_OPEN, "yes", "no"], "default": _OPEN}, _OPEN)
    if inner["type"] == "integer":
        return _described({**kept, **inner, "minimum": 0, "default": 0}, "0")
    text = {**kept, "type": "string", "default": ""}
    return _described({**text, "pattern": _NUMBER} if inner["type"] == "number" else text, "Empty")


def _described(field: Schema, standing_for_it: str) -> Schema:
    if "description" not in field:
        return field
    return {**field, "description": field["description"].replace("Default: ", f"{standing_for_it}: ")}


def unfolded(given: object, kind: type[BaseModel]) -> object:
    """What a form gives, as options side by side. ValueError where its group is none, or repeats one."""
    if not isinstance(given, Mapping) or GROUP not in given:
        return given
    group = given[GROUP]
    front = {name: value for name, value in given.items() if name != GROUP}
    if not isinstance(group, Mapping):
        raise ValueError(f"{GROUP} should hold options by name")
    if twice := sorted(front.keys() & group.keys()):
        raise ValueError(f"{twice[0]} is given twice, once in {GROUP}")
    return {**front, **{name: value for name, value in group.items() if not _is_open(name, value, kind)}}


def _is_open(name: str, value: object, kind: type[BaseModel]) -> bool:
    field = kind.model_fields.get(name)
    may_be_open = field is not None and not field.is_required() and field.default is None
    return may_be_open and value is not False and value in (None, 0, "", _OPEN)
