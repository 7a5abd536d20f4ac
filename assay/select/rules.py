"""Rules such as ``helpfulness >= 2 and not verbosity > 3``: text → typed predicates → polars expressions.

The grammar, keywords in any case::

    rule       = either
    either     = both { "or" both }
    both       = denial { "and" denial }
    denial     = "not" denial | "(" either ")" | comparison
    comparison = operand operator operand { operator operand } | FLAG
    operand    = NUMBER | ATTRIBUTE
    operator   = "<" | "<=" | ">" | ">=" | "==" | "!="

Each operator compares a number with an attribute; ``1 <= helpfulness <= 3`` means ``1 <= helpfulness and
helpfulness <= 3``. A flag is true or false of a conversation, and stands alone. Nothing else is evaluated.

A score is a float32, so a threshold is rounded to the nearest float32 before the comparison. Then a score
that is printed as 0.1 is ``== 0.1`` and ``<= 0.1``, as in numpy and polars. Rounding keeps the order, so no
comparison is turned round.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import polars as pl

from assay.core.errors import UserMistake
from assay.core.schema import REWARD
from assay.core.text import columns, nearest, printable

MAX_RULE_CHARACTERS = 4096
#: The deepest nesting of ``not`` and parentheses; Python's stack and polars take far more.
MAX_DEPTH = 50

Operator = Literal["<", "<=", ">", ">=", "==", "!="]

_MIRRORED: dict[str, Operator] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_INSTEAD = {"=": "==", "&&": "and", "&": "and", "||": "or", "|": "or", "!": "not", "<>": "!=", "=>": ">="}
_ALONE = "`{0}` is true or false: write it alone, or `not {0}`"
_KEYWORDS = ("and", "or", "not")
_EXCERPT_CHARACTERS = 72

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<word>[^\W\d][\w.-]*)
      | (?P<operator><=|>=|==|!=|<(?!>)|>)
      | (?P<bracket>[()])
      | (?P<foreign>&&|\|\||<>|=>|.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A score against a number."""

    attribute: str
    operator: Operator
    threshold: float
    """The nearest float32 to what was written."""

    def expression(self) -> pl.Expr:
        """True, false, or null where there is no score."""
        score = pl.col(self.attribute)
        threshold = pl.lit(self.threshold, dtype=pl.Float32)
        match self.operator:
            case "<":
                return score < threshold
            case "<=":
                return score <= threshold
            case ">":
                return score > threshold
            case ">=":
                return score >= threshold
            case "==":
                return score == threshold
            case "!=":
                return score != threshold

    def __str__(self) -> str:
        return f"{self.attribute} {self.operator} {_shortest(self.threshold)}"


@dataclass(frozen=True, slots=True)
class Flag:
    """A Boolean column: something that is true or false of a conversation."""

    name: str

    def expression(self) -> pl.Expr:
        """True or false."""
        return pl.col(self.name)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Not:
    """True where its operand is false."""

    operand: Predicate

    def expression(self) -> pl.Expr:
        """True, false, or null where there is no score."""
        return ~self.operand.expression()

    def __str__(self) -> str:
        if isinstance(self.operand, Both | Either):
            return f"not ({self.operand})"
        return f"not {self.operand}"


@dataclass(frozen=True, slots=True)
class Both:
    """True where all operands are true. It has two or more; none is a ``Both``."""

    operands: tuple[Predicate, ...]

    def expression(self) -> pl.Expr:
        """True, false, or null where there is no score."""
        return pl.all_horizontal([operand.expression() for operand in self.operands])

    def __str__(self) -> str:
        return " and ".join(
            f"({operand})" if isinstance(operand, Either) else str(operand) for operand in self.operands
        )


@dataclass(frozen=True, slots=True)
class Either:
    """True where an operand is true. It has two or more; none is an ``Either``."""

    operands: tuple[Predicate, ...]

    def expression(self) -> pl.Expr:
        """True, false, or null where there is no score."""
        return pl.any_horizontal([operand.expression() for operand in self.operands])

    def __str__(self) -> str:
        return " or ".join(str(operand) for operand in self.operands)


Predicate = Comparison | Flag | Not | Both | Either


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its predicate, and the text that the user wrote."""

    text: str
    """The user's text, with each run of white space as one space. Reasons name the rule by it."""
    predicate: Predicate

    @property
    def reason(self) -> str:
        """The reason of a record that this rule drops."""
        return f"rule: {self.text}"


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules that must all hold. Without rules everything passes."""

    rules: tuple[Rule, ...] = ()

    @property
    def canonical(self) -> tuple[str, ...]:
        """Each rule in one spelling. Equal spellings mean equal predicates; each parses to its predicate."""
        return tuple(str(rule.predicate) for rule in self.rules)

    @property
    def texts(self) -> tuple[str, ...]:
        """Each rule as the user wrote it."""
        return tuple(rule.text for rule in self.rules)


def parse_rules(
    texts: Sequence[str],
    *,
    attributes: Sequence[str],
    flags: Mapping[str, str | None] = MappingProxyType({}),
    allow_cross_prompt: bool = False,
) -> Rules:
    """The rules in ``texts``, about scores of ``attributes`` and about ``flags``.

    ``flags`` gives None for a flag that may be used, and for any other the reason why it may not.

    UserMistake, with the place in the text and what was expected there, for a rule that cannot be parsed.
    Also for a threshold on ``reward``, which says nothing across prompts, unless ``allow_cross_prompt``.
    """
    return Rules(
        tuple(
            Rule(" ".join(text.split()), _Parser(text, tuple(attributes), flags, allow_cross_prompt).rule())
            for text in texts
        )
    )


class _Token(NamedTuple):
    kind: str
    """``number``, ``word``, ``keyword``, ``operator``, ``bracket``, ``foreign`` or ``end``."""
    text: str
    position: int


class _Operand(NamedTuple):
    token: _Token
    number: float | None
    """None for an attribute."""


class _Parser:
    """Recursive descent over one rule's tokens."""

    def __init__(
        self,
        text: str,
        attributes: tuple[str, ...],
        flags: Mapping[str, str | None],
        allow_cross_prompt: bool,
    ) -> None:
        self._text = text
        self._attributes = attributes
        self._flags = flags
        self._allow_cross_prompt = allow_cross_prompt
        if len(text) > MAX_RULE_CHARACTERS:
            raise UserMistake(
                f"A rule of {len(text)} characters is longer than {MAX_RULE_CHARACTERS}: split it at its "
                "`and` into several rules, which must all hold."
            )
        self._tokens = _tokens(text)
        self._next = 0

    def rule(self) -> Predicate:
        """The whole text as one predicate."""
        if self._tokens[0].kind == "end":
            raise UserMistake(
                f"A rule is empty. Write a comparison such as `{self._example()}`, or leave the rule out."
            )
        predicate = self._either(depth=0)
        if self._peek().kind != "end":
            raise self._mistake(self._peek(), "expected `and`, `or` or the end of the rule")
        return predicate

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def _takes(self, text: str) -> bool:
        token = self._peek()
        found = token.kind in ("keyword", "bracket") and token.text.lower() == text
        if found:
            self._take()
        return found

    def _either(self, depth: int) -> Predicate:
        operands = [self._both(depth)]
        while self._takes("or"):
            operands.append(self._both(depth))
        flat = [
            part
            for operand in operands
            for part in (operand.operands if isinstance(operand, Either) else (operand,))
        ]
        return flat[0] if len(flat) == 1 else Either(tuple(flat))

    def _both(self, depth: int) -> Predicate:
        operands = [self._denial(depth)]
        while self._takes("and"):
            operands.append(self._denial(depth))
        return _all_of(operands)

    def _denial(self, depth: int) -> Predicate:
        token = self._peek()
        if depth > MAX_DEPTH:
            raise self._mistake(token, f"`not` and parentheses go deeper than {MAX_DEPTH}; split the rule")
        if self._takes("not"):
            return Not(self._denial(depth + 1))
        if self._takes("("):
            predicate = self._either(depth + 1)
            if not self._takes(")"):
                raise self._mistake(
                    self._peek(), f"expected `)` for the `(` at character {token.position + 1}"
                )
            return predicate
        if token.kind == "word" and token.text in self._flags and token.text not in self._attributes:
            return self._flag()
        return self._comparison()

    def _flag(self) -> Flag:
        token = self._take()
        reason = self._flags[token.text]
        if reason is not None:
            raise self._mistake(token, reason, found="not known for this model:")
        if self._peek().kind == "operator":
            raise self._mistake(self._peek(), _ALONE.format(token.text))
        return Flag(token.text)

    def _comparison(self) -> Predicate:
        left = self._operand(f"a comparison such as `{self._example()}`")
        if self._peek().kind != "operator":
            raise self._mistake(self._peek(), "expected one of < <= > >= == !=")
        comparisons: list[Predicate] = []
        while self._peek().kind == "operator":
            operator = self._take()
            right = self._operand("a number" if left.number is None else "an attribute")
            comparisons.append(self._compared(left, operator, right))
            left = right
        return _all_of(comparisons)

    def _compared(self, left: _Operand, operator: _Token, right: _Operand) -> Comparison:
        # The tokenizer yields only operators that are keys of _MIRRORED.
        mirrored = _MIRRORED[operator.text]
        if left.number is None and right.number is not None:
            return Comparison(left.token.text, _MIRRORED[mirrored], right.number)
        if left.number is not None and right.number is None:
            return Comparison(right.token.text, mirrored, left.number)
        if left.number is None:
            raise self._mistake(
                right.token, "expected a number: a score is compared with a number, not with another"
            )
        raise self._mistake(right.token, "expected an attribute: one side of a comparison is a score")

    def _operand(self, expected: str) -> _Operand:
        token = self._take()
        if token.kind == "number":
            return _Operand(token, self._threshold(token))
        if token.kind == "word":
            self._check_attribute(token)
            return _Operand(token, None)
        raise self._mistake(token, f"expected {expected}")

    def _threshold(self, token: _Token) -> float:
        try:
            rounded = _nearest_float32(float(token.text))
        except OverflowError:
            rounded = math.inf
        if math.isinf(rounded):
            raise self._mistake(token, "expected a number that a score can reach: float32 ends at 3.4e38")
        return rounded

    def _check_attribute(self, token: _Token) -> None:
        name = token.text
        if name in self._flags and name not in self._attributes:
            raise self._mistake(token, _ALONE.format(name), found="a comparison with")
        if name not in self._attributes:
            near = nearest(name, (*self._attributes, *self._flags))
            meant = f"did you mean {near}? " if near else ""
            rated = ", ".join(self._attributes) or "nothing"
            raise self._mistake(token, f"{meant}The model rates: {rated}", found="unknown attribute")
        if name == REWARD and not self._allow_cross_prompt:
            raise self._mistake(
                token,
                "`reward` compares answers to the same prompt (a Bradley-Terry model was trained on such "
                "pairs alone). Across prompts it says nothing, so a threshold would keep easy prompts, not "
                "good answers. Rate with an attribute model (helpfulness, correctness, …), whose scores may "
                "have a threshold, or add --allow-cross-prompt if your prompts are comparable",
                found="a threshold on",
            )

    def _example(self) -> str:
        return f"{self._attributes[0] if self._attributes else 'helpfulness'} >= 2"

    def _mistake(self, token: _Token, sentence: str, *, found: str = "") -> UserMistake:
        if not found:
            found = "the rule ends too early" if token.kind == "end" else "unexpected"
        if token.kind == "foreign" and token.text in _INSTEAD:
            sentence = f"write `{_INSTEAD[token.text]}` instead"
        shown = f" `{printable(token.text)}`" if token.text else ""
        return UserMistake(
            f"In a rule, character {token.position + 1}: {found}{shown}\n"
            f"{_pointed_at(self._text, token)}\n{sentence[0].upper()}{sentence[1:]}."
        )


def _all_of(operands: Sequence[Predicate]) -> Predicate:
    flat = [
        part
        for operand in operands
        for part in (operand.operands if isinstance(operand, Both) else (operand,))
    ]
    return flat[0] if len(flat) == 1 else Both(tuple(flat))


def _tokens(text: str) -> list[_Token]:
    """The tokens of a rule, ``end`` last. A character that is part of no other token is ``foreign``."""
    tokens = []
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        if kind == "space":
            continue
        if kind == "word" and match[0].lower() in _KEYWORDS:
            kind = "keyword"
        tokens.append(_Token(kind, match[0], match.start()))
    tokens.append(_Token("end", "", len(text.rstrip())))
    return tokens


def _nearest_float32(value: float) -> float:
    """The float32 nearest to ``value``; OverflowError beyond the largest."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _shortest(value: float) -> str:
    """The shortest decimal that parses to this float32. Nine digits are always enough."""
    for digits in range(1, 9):
        text = f"{value:.{digits}g}"
        if _reads_as(text, value):
            return text
    return f"{value:.9g}"


def _reads_as(text: str, value: float) -> bool:
    # The largest float32 is 3.402823e+38. Fewer digits can round to a larger number.
    try:
        return _nearest_float32(float(text)) == value
    except OverflowError:
        return False


def _pointed_at(text: str, token: _Token) -> str:
    """Two lines: the rule, or a part of a long one around the token, and carets under the token."""
    start = max(0, token.position - _EXCERPT_CHARACTERS // 2)
    if len(text) <= _EXCERPT_CHARACTERS:
        start = 0
    excerpt = printable(text[start : start + _EXCERPT_CHARACTERS]).rstrip()
    before = ("… " if start else "") + printable(text[start : token.position])
    after = " …" if start + _EXCERPT_CHARACTERS < len(text) else ""
    carets = "^" * max(1, columns(printable(token.text[: _EXCERPT_CHARACTERS // 2])))
    return f"  {'… ' if start else ''}{excerpt}{after}\n  {' ' * columns(before)}{carets}"
