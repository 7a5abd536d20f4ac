"""Where the values of a JSON array, or of a file of JSON values, begin and end, without parsing them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import msgspec

_DECODE_ANY: Callable[[bytes], object] = msgspec.json.Decoder(msgspec.Raw).decode


def is_json(data: bytes) -> bool:
    """Whether ``data`` is one whole JSON object or array. The end of a number would not be certain."""
    try:
        _DECODE_ANY(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return data.rstrip().endswith((b"}", b"]"))


# Possessive quantifiers keep these patterns linear: they never backtrack.
_STRING = rb'"(?:[^"\\]++|\\[\s\S])*+"'
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\[\s\S])*+')
_NESTED = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+")
_BETWEEN_COMMAS = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+")
_BETWEEN_LINES = re.compile(rb'(?:[^"\[\]{}\n]++|' + _STRING + rb")*+")


class ValueSplitter:
    """Finds where the values of a JSON array begin and end, without parsing them.

    A value ends at a comma or bracket of the array itself, so a broken value with balanced brackets costs
    only itself. In a file without an array (``bracketed`` False), a value ends where its own bracket closes.
    """

    def __init__(self, offset: int, *, bracketed: bool, limit: int):
        self.closed = False
        """Whether the array's closing bracket was seen."""
        self._opened = not bracketed
        self._bracketed = bracketed
        self._at_top = _BETWEEN_COMMAS if bracketed else _BETWEEN_LINES
        self._limit = limit
        self._buffer = b""
        self._buffer_offset = offset
        # The present value begins at _start; _dropped bytes of it are no longer held.
        self._start = 0
        self._dropped = 0
        # Everything before _position has been scanned.
        self._position = 0
        self._depth = 0
        self._in_string = False

    def feed(self, chunk: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield (offset, length, data) of each value that ends in ``chunk``; data is b"" for one too long."""
        self._buffer += chunk
        if not self._opened:
            at = self._buffer.find(b"[")
            if at < 0:
                return
            self._opened = True
            self._start = self._position = at + 1
        while not self.closed:
            if self._in_string:
                self._skip(_IN_STRING)
                if self._mark() != b'"':
                    break
                self._in_string = False
                self._position += 1
            self._skip(_NESTED if self._depth else self._at_top)
            mark = self._mark()
            if not mark:
                break
            self._position += 1
            if mark == b'"':
                self._in_string = True
            elif mark in b"[{":
                self._depth += 1
            elif self._depth:
                self._depth -= 1
                if not self._bracketed and not self._depth:
                    yield from self._value(self._position)
            elif mark == b"," or mark == b"\n" or (mark == b"]" and self._bracketed):
                self.closed = mark == b"]"
                yield from self._value(self._position - 1)
                self._start = self._position
            # Any other closing bracket is part of a broken value.
        if self.closed:
            self._position = len(self._buffer)
        keep_from = self._start
        if self._position - self._start + self._dropped > self._limit:
            keep_from = self._position
            self._dropped += self._position - self._start
        self._buffer = self._buffer[keep_from:]
        self._buffer_offset += keep_from
        self._position -= keep_from
        self._start = 0

    @property
    def end(self) -> int:
        """The offset at which the input so far ends."""
        return self._buffer_offset + len(self._buffer)

    def unfinished(self) -> tuple[int, int, bytes] | None:
        """The (offset, length, data) of what follows the last whole value; None where nothing does."""
        return next(self._value(len(self._buffer)), None)

    def _mark(self) -> bytes:
        return self._buffer[self._position : self._position + 1]

    def _skip(self, pattern: re.Pattern[bytes]) -> None:
        if found := pattern.match(self._buffer, self._position):
            self._position = found.end()

    def _value(self, end: int) -> Iterator[tuple[int, int, bytes]]:
        offset = self._buffer_offset + self._start - self._dropped
        length = self._dropped + end - self._start
        if length > self._limit:
            yield offset, length, b""
        else:
            text = self._buffer[self._start : end]
            if data := text.strip():
                yield offset + len(text) - len(text.lstrip()), len(data), data
        self._start, self._dropped = end, 0
