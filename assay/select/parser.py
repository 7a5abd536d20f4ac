"""The text of a rule → a typed predicate; the text of ``--by`` → a typed value.

The grammar, keywords in any case::

    rule       = either
    either     = both { "or" both }
    both       = denial { "and" denial }
    denial     = "not" denial | "(" either ")" | ("all" | "any") "(" either ")" | agreement | test
    agreement  = "agree" "(" value "," value ")"
    test       = comparison | value [ "not" ] "in" "(" item { "," item } ")"
               | value "is" [ "not" ] "missing" | FLAG
    comparison = operand operator operand { operator operand }
    operand    = NUMBER | STRING | value
    value      = COLUMN | FUNCTION "(" value [ "," "by" "=" COLUMN ] ")"
    item       = NUMBER | STRING
    operator   = "<" | "<=" | ">" | ">=" | "==" | "!="

Each operator compares a value with a number or a string; ``1 <= helpfulness <= 3`` means ``1 <= helpfulness
and helpfulness <= 3``. Nothing else is evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from assay.core.errors import UserMistake
from assay.select.expressions import (
    Agreement,
    Both,
    Comparison,
    Either,
    EveryTurn,
    Flag,
    GivenPair,
    InGroup,
    Missing,
    NamedColumn,
    Not,
    OneOf,
    Operator,
    OverTurns,
    Percentile,
    Predicate,
    Value,
    ValueKind,
    nearest_float32,
    parts,
    varies_by_turn,
)
from assay.select.tokens import Token, mistake, tokens
from assay.select.vocabulary import (
    AGREE,
    EVERY_TURN,
    FUNCTIONS,
    GIVEN_PAIR,
    IN_GROUP,
    OVER_TURNS,
    PERCENTILE,
    Vocabulary,
)

MAX_RULE_CHARACTERS = 4096
#: The deepest nesting of ``not``, functions and parentheses; Python's stack and polars take far more.
MAX_DEPTH = 50

_MIRRORED: dict[str, Operator] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_ALONE = "`{0}` is true or false: write it alone, or `not {0}`"


class Compared(NamedTuple):
    """A value that is compared with a number or a string, and the tokens that it is written with."""

    value: Value
    tokens: tuple[Token, ...]


class ParsedRule(NamedTuple):
    """A rule's predicate, and what it compares."""

    predicate: Predicate
    compared: tuple[Compared, ...]


def parsed_rule(text: str, vocabulary: Vocabulary) -> ParsedRule:
    """The rule in ``text``; UserMistake with the place in the text and what was expected there."""
    parser = _Parser(text, vocabulary)
    return ParsedRule(parser.rule(), tuple(parser.compared))


def parsed_number(text: str, vocabulary: Vocabulary, *, option: str) -> Compared:
    """The number that ``text`` names, given for that ``option``; UserMistake as for a rule."""
    parser = _Parser(text, vocabulary, option)
    return Compared(parser.number(), tuple(tokens(text)))


def parsed_column(text: str, vocabulary: Vocabulary, *, option: str) -> NamedColumn:
    """The column that ``text`` names, given for that ``option``; UserMistake as for a rule."""
    return _Parser(text, vocabulary, option).only_column()


class _Operand(NamedTuple):
    token: Token
    literal: float | str | None
    """What is written; None where a value is measured."""
    value: Value | None
    tokens: tuple[Token, ...] = ()


class _Parser:
    """Recursive descent over one rule's tokens."""

    def __init__(self, text: str, vocabulary: Vocabulary, option: str = "") -> None:
        self._text = text
        self._words = vocabulary
        self._where = f"In {option}" if option else "In a rule"
        if len(text) > MAX_RULE_CHARACTERS:
            raise UserMistake(
                f"A rule of {len(text)} characters is longer than {MAX_RULE_CHARACTERS}: split it at its "
                "`and` into several rules, which must all hold."
                if not option
                else f"{option}: {len(text)} characters are more than {MAX_RULE_CHARACTERS}."
            )
        self._tokens = tokens(text)
        self._next = 0
        self.compared: list[Compared] = []

    def rule(self) -> Predicate:
        """The whole text as one predicate."""
        if self._peek().kind == "end":
            raise UserMistake(
                f"A rule is empty. Write a comparison such as `{self._example()}`, or leave the rule out."
            )
        predicate = self._either(depth=0)
        if self._peek().kind != "end":
            raise self._mistake(self._peek(), "expected `and`, `or` or the end of the rule")
        return predicate

    def number(self) -> Value:
        """The whole text as one number that is measured."""
        token = self._peek()
        if token.kind != "word":
            raise self._mistake(token, "expected what is measured, such as `mean(helpfulness)`")
        value = self._as(self._value(0), ValueKind.NUMBER, token)
        if self._peek().kind != "end":
            raise self._mistake(self._peek(), "expected the end: one column or function, and no comparison")
        return value

    def only_column(self) -> NamedColumn:
        """The whole text as one column."""
        if self._peek().kind != "word":
            raise self._mistake(self._peek(), "expected a column, such as `source` or `row.lang`")
        column = self._column()
        if self._peek().kind != "end":
            raise self._mistake(self._peek(), "expected the end: one column")
        return column

    def _peek(self, ahead: int = 0) -> Token:
        return self._tokens[min(self._next + ahead, len(self._tokens) - 1)]

    def _take(self) -> Token:
        token = self._peek()
        if token.kind != "end":
            self._next += 1
        return token

    def _takes(self, text: str) -> bool:
        token = self._peek()
        found = token.is_word(text) or token.is_bracket(text)
        if found:
            self._take()
        return found

    def _closed(self, opened: Token) -> None:
        if not self._takes(")"):
            raise self._mistake(self._peek(), f"expected `)` for the `(` at character {opened.position + 1}")

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
        self._check_depth(token, depth)
        if self._takes("not"):
            return Not(self._denial(depth + 1))
        if self._takes("("):
            predicate = self._either(depth + 1)
            self._closed(token)
            return predicate
        if self._calls(EVERY_TURN):
            return self._every_turn(depth)
        if self._calls((AGREE,)):
            return self._agreement(depth)
        return self._test(depth)

    def _check_depth(self, token: Token, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._mistake(token, f"`not` and parentheses go deeper than {MAX_DEPTH}; split the rule")

    def _calls(self, functions: Sequence[str]) -> bool:
        """Whether one of the functions is called here."""
        return (
            self._peek().kind == "word" and self._peek().text in functions and self._peek(1).is_bracket("(")
        )

    def _every_turn(self, depth: int) -> EveryTurn:
        name, opened = self._take(), self._take()
        operand = self._either(depth + 1)
        self._closed(opened)
        if any(isinstance(part, EveryTurn) for part in parts(operand)):
            raise self._out_of_scope(name, "it stands around another `all` or `any`; one of them is enough")
        if any(isinstance(part, Percentile) for part in parts(operand)):
            raise self._out_of_scope(name, "a percentile is of records, and not of each turn")
        if not varies_by_turn(operand):
            raise self._out_of_scope(
                name, f"what it looks at is the same at each turn of a record: write it without `{name.text}`"
            )
        return EveryTurn("all" if name.text == "all" else "any", operand)

    def _agreement(self, depth: int) -> Agreement:
        name, opened = self._take(), self._take()
        first = self._rank_of(name, depth)
        if not self._takes(","):
            raise self._mistake(self._peek(), f"expected `,` and a second number, as in `{FUNCTIONS[AGREE]}`")
        second = self._rank_of(name, depth)
        self._closed(opened)
        return Agreement(first, second)

    def _rank_of(self, name: Token, depth: int) -> InGroup:
        """The rank of the number that stands here."""
        inner = self._peek()
        if inner.kind != "word":
            raise self._mistake(inner, f"expected what is measured, as in `{FUNCTIONS[name.text]}`")
        return InGroup("rank", self._compared_in_group(name, self._value(depth + 1), inner))

    def _test(self, depth: int) -> Predicate:
        left = self._operand(f"a comparison such as `{self._example()}`", depth)
        if left.value is not None:
            denied = self._peek().is_word("not") and self._peek(1).is_word("in")
            if denied:
                self._take()
            if self._takes("in"):
                return self._denied(self._one_of(left, left.value), denied)
            if self._takes("is"):
                denied = self._takes("not")
                if not self._takes("missing"):
                    raise self._mistake(self._peek(), "expected `missing`: `is missing`, or `is not missing`")
                return self._denied(Missing(left.value), denied)
            if self._peek().kind != "operator" and self._may_be(left.value, ValueKind.BOOLEAN):
                return Flag(self._as(left.value, ValueKind.BOOLEAN, left.token))
        return self._comparison(left, depth)

    def _denied(self, predicate: Predicate, denied: bool) -> Predicate:
        return Not(predicate) if denied else predicate

    def _one_of(self, left: _Operand, value: Value) -> Predicate:
        opened = self._peek()
        if not self._takes("("):
            raise self._mistake(opened, "expected a list such as `('en', 'fr')`")
        items: list[float | str] = []
        typed = value
        while True:
            token = self._peek()
            item = self._operand("a string or a number", 0)
            if item.literal is None:
                raise self._mistake(token, "expected a string in quotes, or a number")
            typed = self._as_literal(typed, item, item.token)
            items.append(self._rounded(typed, item))
            if not self._takes(","):
                break
        self._closed(opened)
        self.compared.append(Compared(typed, left.tokens))
        return OneOf(typed, tuple(items))

    def _comparison(self, left: _Operand, depth: int) -> Predicate:
        if self._peek().kind != "operator":
            raise self._mistake(self._peek(), "expected one of < <= > >= == !=, `in` or `is missing`")
        comparisons: list[Predicate] = []
        while self._peek().kind == "operator":
            operator = self._take()
            if left.value is not None and left.value.kind == ValueKind.BOOLEAN:
                raise self._mistake(operator, _ALONE.format(left.value))
            right = self._operand(self._expected_beside(left), depth)
            comparisons.append(self._compared(left, operator, right))
            left = right
        return _all_of(comparisons)

    def _expected_beside(self, left: _Operand) -> str:
        if left.value is None:
            return "an attribute or another column"
        return "a number or a string" if left.value.kind == ValueKind.ANY else left.value.kind.value

    def _compared(self, left: _Operand, operator: Token, right: _Operand) -> Comparison:
        # The tokenizer yields only operators that are keys of _MIRRORED.
        mirrored = _MIRRORED[operator.text]
        if left.value is not None and right.literal is not None:
            return self._comparison_of(left, left.value, _MIRRORED[mirrored], right)
        if left.literal is not None and right.value is not None:
            return self._comparison_of(right, right.value, mirrored, left)
        if left.value is not None:
            raise self._mistake(
                right.token, "expected a number: a score is compared with a number, not with another"
            )
        raise self._mistake(right.token, "expected an attribute: one side of a comparison is a score")

    def _comparison_of(
        self, measured: _Operand, value: Value, operator: Operator, written: _Operand
    ) -> Comparison:
        if value.kind == ValueKind.BOOLEAN:
            raise self._mistake(measured.token, _ALONE.format(value), found="a comparison with")
        value = self._as_literal(value, written, written.token)
        if value.kind == ValueKind.STRING and operator not in ("==", "!="):
            raise self._mistake(written.token, "strings are compared with == and != alone")
        self.compared.append(Compared(value, measured.tokens))
        return Comparison(value, operator, self._rounded(value, written))

    def _operand(self, expected: str, depth: int) -> _Operand:
        token = self._peek()
        if token.kind == "word":
            first = self._next
            value = self._value(depth)
            return _Operand(token, None, value, tuple(self._tokens[first : self._next]))
        self._take()
        if token.kind == "number":
            return _Operand(token, self._number(token), None)
        if token.kind == "string":
            return _Operand(token, token.string, None)
        raise self._mistake(token, f"expected {expected}")

    def _number(self, token: Token) -> float:
        number = float(token.text)
        if math.isinf(number):
            raise self._mistake(token, "expected a number that a score can reach: float32 ends at 3.4e38")
        return number

    def _rounded(self, value: Value, written: _Operand) -> float | str:
        """What is written, as it is compared with the value."""
        literal = written.literal
        if not isinstance(literal, float) or not value.is_float32:
            return literal if literal is not None else ""
        try:
            rounded = nearest_float32(literal)
        except OverflowError:
            rounded = math.inf
        if math.isinf(rounded):
            raise self._mistake(
                written.token, "expected a number that a score can reach: float32 ends at 3.4e38"
            )
        return rounded

    def _value(self, depth: int) -> Value:
        """The column or function that begins here."""
        token = self._peek()
        self._check_depth(token, depth)
        functions: dict[str, Callable[[Token, Value, Token], Value]] = {
            **dict.fromkeys(OVER_TURNS, self._over_turns),
            **dict.fromkeys(IN_GROUP, self._in_group),
            PERCENTILE: self._percentile,
        }
        if token.text in GIVEN_PAIR and token.text not in self._words.attributes:
            return self._given_pair()
        if not self._calls(tuple(functions)):
            return self._column()
        name, opened, inner = self._take(), self._take(), self._peek()
        if inner.kind != "word":
            self._take()
            raise self._mistake(inner, f"expected what is measured, as in `{FUNCTIONS[name.text]}`")
        operand = self._value(depth + 1)
        value = functions[name.text](name, operand, inner)
        self._closed(opened)
        return value

    def _over_turns(self, name: Token, operand: Value, inner: Token) -> Value:
        function = next(one for one in OVER_TURNS if one == name.text)
        if any(isinstance(part, Percentile) for part in parts(operand)):
            raise self._out_of_scope(
                name, f"a percentile is of records: write `{PERCENTILE}({name.text}(…))`"
            )
        if not varies_by_turn(operand):
            raise self._out_of_scope(
                name, f"`{operand}` is one value of a record already: write it without `{name.text}`"
            )
        if function not in ("first", "last"):
            operand = self._as(operand, ValueKind.NUMBER, inner)
        return OverTurns(function, operand)

    def _in_group(self, name: Token, operand: Value, inner: Token) -> Value:
        operand = self._compared_in_group(name, operand, inner)
        return InGroup(next(one for one in IN_GROUP if one == name.text), operand)

    def _compared_in_group(self, name: Token, operand: Value, inner: Token) -> Value:
        """The value, where it is a number that each answer has by itself."""
        operand = self._as(operand, ValueKind.NUMBER, inner)
        if any(isinstance(part, InGroup | Percentile | GivenPair) for part in parts(operand)):
            raise self._out_of_scope(
                name, f"`{operand}` is compared with others already; `{name.text}` takes what one answer has"
            )
        return operand

    def _percentile(self, name: Token, operand: Value, inner: Token) -> Value:
        operand = self._as(operand, ValueKind.NUMBER, inner)
        if any(isinstance(part, Percentile) for part in parts(operand)):
            raise self._out_of_scope(name, f"`{operand}` is a percentile already")
        if not self._takes(","):
            return Percentile(operand)
        if not self._takes("by") or self._peek().text != "=":
            raise self._mistake(
                self._peek(), f"expected `by=` and a column, as in `{name.text}(x, by=source)`"
            )
        self._take()
        if self._peek().kind != "word":
            raise self._mistake(self._peek(), "expected a column, such as `source`")
        return Percentile(operand, self._column())

    def _given_pair(self) -> GivenPair:
        token = self._take()
        if self._words.order is None:
            raise self._mistake(
                token,
                "the model rates several things: add --by, such as --by "
                f"'{self._words.attributes[0] if self._words.attributes else 'helpfulness'}', to choose one",
                found="no number to compare by:",
            )
        return GivenPair(next(one for one in GIVEN_PAIR if one == token.text), self._words.order)

    def _column(self) -> NamedColumn:
        token = self._take()
        if token.text in GIVEN_PAIR and token.text not in self._words.attributes:
            raise self._mistake(token, "expected a column that is measured piece by piece")
        meant = self._words.meant_by(token.text)
        if not meant:
            raise self._unknown(token)
        if len(meant) > 1:
            which = ", ".join(f"`{name}`" for name in meant)
            raise self._mistake(token, f"write which model's: {which}", found="of several models:")
        if why := self._words.why_not(meant[0]):
            raise self._mistake(token, why, found="not known for this model:")
        return self._words.column(meant[0])

    def _unknown(self, token: Token) -> UserMistake:
        near = self._words.near(token.text)
        meant = f"did you mean {near}? " if near else ""
        rated = ", ".join(self._words.attributes) or "nothing"
        functions = f". Functions are {', '.join(FUNCTIONS)}" if self._peek().is_bracket("(") else ""
        return self._mistake(
            token,
            f"{meant}The model rates: {rated}. Other columns are {self._words.others}{functions}",
            found="unknown attribute",
        )

    def _may_be(self, value: Value, kind: ValueKind) -> bool:
        return value.kind in (kind, ValueKind.ANY)

    def _as(self, value: Value, kind: ValueKind, token: Token) -> Value:
        """The value as of that kind."""
        if isinstance(value, NamedColumn) and value.kind == ValueKind.ANY:
            return replace(value, kind=kind)
        if value.kind != kind:
            raise self._mistake(token, f"`{value}` is {value.kind}, and here {kind} is expected", found="at")
        return value

    def _as_literal(self, value: Value, written: _Operand, token: Token) -> Value:
        """The value as of the kind of what is written."""
        kind = ValueKind.STRING if isinstance(written.literal, str) else ValueKind.NUMBER
        if value.kind in (ValueKind.NUMBER, ValueKind.STRING) and value.kind != kind:
            raise self._mistake(token, f"`{value}` is {value.kind}: compare it with {value.kind}")
        return self._as(value, kind, token)

    def _example(self) -> str:
        return f"{self._words.attributes[0] if self._words.attributes else 'helpfulness'} >= 2"

    def _out_of_scope(self, token: Token, sentence: str) -> UserMistake:
        return self._mistake(token, sentence, found="out of its scope:")

    def _mistake(self, token: Token, sentence: str, *, found: str = "") -> UserMistake:
        return mistake(self._text, token, sentence, found=found, where=self._where)


def _all_of(operands: Sequence[Predicate]) -> Predicate:
    flat = [
        part
        for operand in operands
        for part in (operand.operands if isinstance(operand, Both) else (operand,))
    ]
    return flat[0] if len(flat) == 1 else Both(tuple(flat))
