"""The tools that the assistant could call: which field of a row holds them, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterable

from assay.read.formats.reading import Draft, Row
from assay.read.formats.tools import NoCalls, are_in_text, tools_in


def with_tools(found: Draft, row: Row, fields: Iterable[str], *, keep: bool = False) -> Draft:
    """The record with the tools in the first of the fields that holds any; the field is used then.

    With ``keep`` the field is carried along all the same. A field of such a name may hold anything, and is
    carried along then. But calls are not rated without the tools that they call: the record has a problem.
    """
    problem: str | None = None
    for name in fields:
        try:
            tools = tools_in(row[name])
        except NoCalls as error:
            problem = problem or f"tools: {name!r} holds no tools that can be read: {error}"
            continue
        if tools is None:
            continue
        if found.tools is not None or are_in_text(tools, found.messages):
            # The model is shown tools already. These are a field like any other.
            return found
        return found._replace(tools=tools, used=found.used if keep else {*found.used, name})
    if problem is not None and any(message.fields.tool_calls is not None for message in found.messages):
        return Draft([], problem=problem)
    return found
