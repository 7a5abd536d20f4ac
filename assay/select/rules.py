"""Rules such as ``helpfulness >= 2 and not verbosity > 3``: their texts, and what they were parsed to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from assay.select.comparing import check_threshold
from assay.select.expressions import GivenPair, Predicate, Value, parts
from assay.select.parser import parsed_rule
from assay.select.vocabulary import Vocabulary


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
    def compares_sides(self) -> bool:
        """Whether a rule names what a model makes of a person's preferences."""
        return any(isinstance(part, GivenPair) for rule in self.rules for part in parts(rule.predicate))

    @property
    def texts(self) -> tuple[str, ...]:
        """Each rule as the user wrote it."""
        return tuple(rule.text for rule in self.rules)


def parse_rules(
    texts: Sequence[str],
    *,
    attributes: Sequence[str],
    flags: Mapping[str, str | None] = MappingProxyType({}),
    unknown: Mapping[str, str] = MappingProxyType({}),
    order: Value | None = None,
    allow_cross_prompt: bool = False,
) -> Rules:
    """The rules in ``texts``, about scores of ``attributes``, about ``flags`` and about columns.

    ``flags`` gives None for a flag that may be used, and for any other the reason why it may not; ``unknown``
    the reason why a column may not. ``order`` is what ``agrees`` and ``given_margin`` compare by.

    UserMistake, with the place in the text and what was expected there, for a rule that cannot be parsed.
    Also for a threshold on ``reward``, which says nothing across prompts, unless ``allow_cross_prompt``.
    """
    vocabulary = Vocabulary(tuple(attributes), flags, unknown, order)
    return rules_in(texts, vocabulary, allow_cross_prompt=allow_cross_prompt)


def rules_in(texts: Sequence[str], vocabulary: Vocabulary, *, allow_cross_prompt: bool = False) -> Rules:
    """The rules in ``texts``, in the words of this vocabulary; UserMistake as of ``parse_rules``."""
    rules = []
    for text in texts:
        predicate, compared = parsed_rule(text, vocabulary)
        if not allow_cross_prompt:
            check_threshold(text, compared)
        rules.append(Rule(" ".join(text.split()), predicate))
    return Rules(tuple(rules))
