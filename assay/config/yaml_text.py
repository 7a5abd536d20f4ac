"""YAML that a person wrote → plain values; what is wrong with it is one exception with a line.

PyYAML raises whatever the functions raise that it makes values with: ValueError for a month of 13,
KeyError for ``!!bool maybe``, RecursionError for brackets without end.
"""

from __future__ import annotations

import reprlib
from contextlib import closing
from typing import Any

import yaml

# What other programs, JSON's readers among them, take for a whole number.
_MOST_BITS = 63


class NotYAML(ValueError):
    """Text that is no YAML. Its message may repeat some of the text."""

    def __init__(self, reason: str, line: int | None) -> None:
        self.line = line
        """Where, from 1; None where that is not known."""
        super().__init__(reason)


class _Loader(yaml.SafeLoader):
    def close(self) -> None:
        """Let go of the text."""
        self.dispose()

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The node's value; a YAMLError with its place where it has none."""
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int) and value.bit_length() > _MOST_BITS:
                raise ValueError("it is too large")
            return value
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            why = f": {error}" if isinstance(error, ValueError) else ""
            reason = f"no value of the kind {node.tag.rpartition(':')[2]!r}{why}"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from error


def parsed_yaml(text: str) -> object:
    """What the YAML says; ``NotYAML`` where it says nothing that can be read."""
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
        """The number in digits, which Python refuses to write of one that is very long."""
        return repr(x) if x.bit_length() <= 256 else f"a number of {x.bit_length():,} bits"


def shown(value: object) -> str:
    """The value as Python writes it, short, whatever it is: aliases can make one that never ends."""
    return _Shown().repr(value)
