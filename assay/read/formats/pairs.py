"""``pairs``: two answers to one prompt, or two conversations, of which a vote may say which one is better.

``prompt`` (or another prompt field) with ``response_a`` and ``response_b`` (LMSYS's 55k, JudgeBench),
``response_0`` and ``response_1`` (PKU-SafeRLHF), ``response_1`` and ``response_2`` (HelpSteer2),
``answer_0``/``answer_1`` (WebGPT) and the like; or ``conversation_a`` and ``conversation_b`` (Chatbot Arena).
LMSYS's texts of several turns are JSON lists: ``"[\\"first question\\", \\"second\\"]"``.

A row gives two records, in this order, and one more for each field that goes on (``response_3`` …). Of two,
``rest`` holds ``"assay_side"`` where ``winner`` (``model_a``, ``response_a`` or ``a``), ``winner_model_a``
(1), ``better_response_id`` (0) or SHP's ``labels`` says which is better. All other fields are carried along.

Policy: as in ``preference``.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, takewhile
from string import ascii_lowercase

import msgspec
from msgspec import Raw

from assay.core.schema import Message
from assay.read.formats.names import Names
from assay.read.formats.prompts import PROMPT_FIELDS, Prompt, messages_in, prompt_field, prompt_of
from assay.read.formats.ratings import number_in
from assay.read.formats.reading import Draft, Format, MissingField, Row, Unreadable, kind_of, text_of
from assay.read.formats.sides import CHOSEN, NO_SIDE, REJECTED

_CONVERSATIONS = ("conversation_a", "conversation_b")
_ANSWERS = tuple(
    (f"{what}{first}", f"{what}{second}")
    for what in ("response", "answer", "output", "completion", "generation")
    for first, second in (("_a", "_b"), ("_0", "_1"), ("_1", "_2"), ("1", "2"))
)
#: SHP's two answers to a post, which it keeps in ``history``.
_REFERENCES = ("human_ref_a", "human_ref_b")
_ASKED = (*PROMPT_FIELDS, "history")
_WINNERS = ("winner", "winner_model_a", "winner_model_b", "better_response_id")
#: SHP's vote: 1 where people prefer ``human_ref_A``, else 0 (huggingface.co/datasets/stanfordnlp/SHP).
_VOTE = "labels"

_DECODE_LIST = msgspec.json.Decoder(list[str | None]).decode


def read(row: Row, names: Names) -> list[Draft]:
    """A record for each answer."""
    pair = next((pair for pair in (*_ANSWERS, _REFERENCES) if set(pair) <= row.keys()), None)
    if set(_CONVERSATIONS) <= row.keys():
        pair = _CONVERSATIONS
    if pair is None:
        raise MissingField(_ANSWERS[0][0])
    fields = (*pair, *_further(row, pair))
    sides = _sides(row, pair) if len(fields) == len(pair) else [NO_SIDE] * len(fields)
    found: list[Draft] = []
    for field, added in zip(fields, sides, strict=True):
        try:
            one = _conversation(row, field, names) if pair == _CONVERSATIONS else _answer(row, field, names)
        except Unreadable as error:
            one = Draft([], problem=str(error))
        found.append(one._replace(used={*one.used, *fields}, added=added))
    return found


def _further(row: Row, pair: tuple[str, str]) -> list[str]:
    """The fields that go on where a pair ends: ``response_3`` after ``response_1`` and ``response_2``."""
    stem, last = pair[1][:-1], pair[1][-1]
    if last.isdigit():
        names = (f"{stem}{number}" for number in count(int(last) + 1))
    else:
        names = (f"{stem}{letter}" for letter in ascii_lowercase[ascii_lowercase.index(last) + 1 :])
    return list(takewhile(row.__contains__, names))


def _conversation(row: Row, field: str, names: Names) -> Draft:
    return Draft(messages_in(row, field, "user", names))


def _answer(row: Row, field: str, names: Names) -> Draft:
    asked = prompt_field(row)
    if asked is None:
        # The history, if there is one, is what the answer answers.
        return Draft(messages_in(row, field, "assistant", names), is_answer=True)
    several = _turn_by_turn(row, asked, field)
    if several is not None:
        return Draft(several, {asked}, is_answer=True)
    prompt: Prompt = prompt_of(row, asked, names)
    return prompt.with_answer(messages_in(row, field, "assistant", names))


def _turn_by_turn(row: Row, asked: str, answered: str) -> list[Message] | None:
    """The messages of two JSON lists of as many texts each; None where the fields hold something else."""
    questions, answers = _list_in(row, asked), _list_in(row, answered)
    if not questions or answers is None or len(questions) != len(answers):
        return None
    messages: list[Message] = []
    for question, answer in zip(questions, answers, strict=True):
        messages += (Message("user", question or ""), Message("assistant", answer or ""))
    return messages


def _list_in(row: Row, field: str) -> list[str | None] | None:
    try:
        text = text_of(row, field) if kind_of(row, field) == '"' else bytes(row[field]).decode()
        return _DECODE_LIST(text) if text is not None and text.lstrip().startswith("[") else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _sides(row: Row, pair: tuple[str, str]) -> tuple[Mapping[str, Raw], Mapping[str, Raw]]:
    """What is added to the first and to the second record."""
    winner = _named_winner(row, pair)
    better, vote = (number_in(row[name]) if name in row else None for name in ("better_response_id", _VOTE))
    a, b = (number_in(row[name]) if name in row else None for name in _WINNERS[1:3])
    voted = vote if pair == _REFERENCES else None
    if winner == 0 or a == 1 or better == 0 or voted == 1:
        return CHOSEN, REJECTED
    if winner == 1 or b == 1 or better == 1 or voted == 0:
        return REJECTED, CHOSEN
    return NO_SIDE, NO_SIDE


def _named_winner(row: Row, pair: tuple[str, str]) -> int | None:
    """0 or 1: the answer that ``winner`` names, by field, model or last letter; None for neither."""
    try:
        winner = (text_of(row, "winner") or "").strip().lower()
    except Unreadable:
        return None
    for place, field in enumerate(pair):
        if winner in (field, field[-1], f"model_{field[-1]}", f"model_{'ab'[place]}"):
            return place
    return None


def fits(row: Row) -> bool:
    """Always True: the names of the fields are enough."""
    return True


PAIRS = Format(
    "pairs",
    (
        frozenset(_CONVERSATIONS),
        *(frozenset((asked, *pair)) for pair in (*_ANSWERS, _REFERENCES) for asked in _ASKED),
    ),
    fits,
    read,
    beside=frozenset({*_WINNERS, _VOTE}),
)
