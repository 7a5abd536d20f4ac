"""The tokens of a rule, and a mistake shown with its place."""

from __future__ import annotations

import re
from typing import NamedTuple

from assay.core.errors import UserMistake
from assay.core.text import columns, printable

KEYWORDS = ("and", "or", "not")
_INSTEAD = {"=": "==", "&&": "and", "&": "and", "||": "or", "|": "or", "!": "not", "<>": "!=", "=>": ">="}
_QUOTES = ("'", '"')
_EXCERPT_CHARACTERS = 72

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<word>[^\W\d][\w.-]*)
      | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<operator><=|>=|==|!=|<(?!>)|>)
      | (?P<bracket>[(),])
      | (?P<foreign>&&|\|\||<>|=>|.)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class Token(NamedTuple):
    """A word, number, string, operator or bracket of a rule."""

    kind: str
    """``number``, ``word``, ``string``, ``keyword``, ``operator``, ``bracket``, ``foreign`` or ``end``."""
    text: str
    position: int

    def is_word(self, text: str) -> bool:
        """Whether it is this word or keyword, in any case."""
        return self.kind in ("word", "keyword") and self.text.lower() == text

    def is_bracket(self, text: str) -> bool:
        """Whether it is this bracket, or the comma."""
        return self.kind == "bracket" and self.text == text

    @property
    def string(self) -> str:
        """The characters that a string token stands for."""
        return _ESCAPED.sub(r"\1", self.text[1:-1])


def quoted(text: str) -> str:
    r"""The text as a string token: in single quotes, with a backslash before each quote and backslash.

    >>> print(quoted("it's"))
    'it\'s'
    """
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def tokens(text: str) -> list[Token]:
    """The tokens of a rule, ``end`` last. A character that is part of no other token is ``foreign``."""
    found = []
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        if kind == "space":
            continue
        if kind == "word" and match[0].lower() in KEYWORDS:
            kind = "keyword"
        found.append(Token(kind, match[0], match.start()))
    found.append(Token("end", "", len(text.rstrip())))
    return found


def mistake(
    text: str, token: Token, sentence: str, *, found: str = "", where: str = "In a rule"
) -> UserMistake:
    """The mistake at ``token`` of ``text``: what was found there, its place, and a sentence on what to do."""
    if not found:
        found = "the rule ends too early" if token.kind == "end" else "unexpected"
    if token.kind == "foreign" and token.text in _INSTEAD:
        sentence = f"write `{_INSTEAD[token.text]}` instead"
    elif token.kind == "foreign" and token.text in _QUOTES:
        sentence = f"the string that begins here has no {token.text} at its end"
    shown = f" `{printable(token.text)}`" if token.text else ""
    return UserMistake(
        f"{where}, character {token.position + 1}: {found}{shown}\n"
        f"{_pointed_at(text, token)}\n{sentence[0].upper()}{sentence[1:]}."
    )


def _pointed_at(text: str, token: Token) -> str:
    """Two lines: the rule, or a part of a long one around the token, and carets under the token."""
    start = max(0, token.position - _EXCERPT_CHARACTERS // 2)
    if len(text) <= _EXCERPT_CHARACTERS:
        start = 0
    excerpt = printable(text[start : start + _EXCERPT_CHARACTERS]).rstrip()
    before = ("… " if start else "") + printable(text[start : token.position])
    after = " …" if start + _EXCERPT_CHARACTERS < len(text) else ""
    carets = "^" * max(1, columns(printable(token.text[: _EXCERPT_CHARACTERS // 2])))
    return f"  {'… ' if start else ''}{excerpt}{after}\n  {' ' * columns(before)}{carets}"
