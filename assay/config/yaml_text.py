"""YAML that a person wrote → plain values. Whatever is wrong with it, it raises one exception with a line.

PyYAML lets through what its own functions raise: ValueError for a month of 13, KeyError for ``!!bool maybe``,
RecursionError for brackets without end.
"""

from __future__ import annotations

import reprlib
from contextlib import closing
from typing import Any

import yaml

# The largest whole number that other programs, such as readers of JSON, accept.
_MOST_BITS = 63


class NotYAML(ValueError):
    """The text is not YAML. The message may repeat some of the text."""

    def __init__(self, reason: str, line: int | None) -> None:
        self.line = line
        """The line, from 1; None where it is not known."""
        super().__init__(reason)


class _Loader(yaml.SafeLoader):
    def close(self) -> None:
        """Release the text."""
        self.dispose()

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The node's value; a YAMLError with the node's place where the value cannot be made."""
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int) and value.bit_length() > _MOST_BITS:
                raise ValueError("it is too large")
            return value
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            why = f": {error}" if isinstance(error, ValueError) else ""
            reason = f"not a valid {node.tag.rpartition(':')[2]!r}{why}"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from error


def parsed_yaml(text: str) -> object:
    """The YAML's content as plain values; ``NotYAML`` where it cannot be read."""
    try:
        with closing(_Loader(text)) as loader:
            return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error)
        raise NotYAML(str(reason).split("\n")[0], mark.line + 1 if mark else None) from error
    except RecursionError as error:
        raise NotYAML("it is nested too deep", None) from error


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 200
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        """The number in digits, or its size: Python refuses to write a very long number."""
        return repr(x) if x.bit_length() <= 256 else f"a number of {x.bit_length():,} bits"


def shown(value: object) -> str:
    """The value as Python writes it, shortened: YAML's aliases can make a value without end."""
    return _Shown().repr(value)
