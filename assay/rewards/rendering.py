"""Conversations → token ids, and the positions at which their turns are read.

A causal model's hidden state at the end of a turn depends on nothing after it, so one pass over the
whole conversation serves every turn. That holds only where the chat template renders the first *k* turns
as a true token prefix of the whole. Every cut is therefore certified, and a turn whose cut cannot be
certified is rendered, and scored, by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from assay.core.errors import ModelFault, UserMistake
from assay.core.schema import Conversation, Message, turn_positions
from assay.rewards import probing
from assay.rewards.protocol import Request
from assay.rewards.skeletons import PLACEHOLDER, Skeleton, plain_skeleton, skeleton_of, texts_of
from assay.rewards.templates import Chain, ChatTemplate, Refused
from assay.rewards.tool_probing import UNSEEN_TOOLS, needs_tools, why_unseen

#: Added tokens that an answer may hold in good faith (Qwen3's template moves and strips them itself).
REASONING_MARKERS = frozenset({"<think>", "</think>"})

_TEMPLATE_REFUSED = "template_refused"
_NO_TOOLS = f"{UNSEEN_TOOLS}: this model is shown a question and an answer, and no tools or calls"

#: What templates write between messages, in the two alphabets in which it is seen.
_MARK = re.compile(r"<[|｜][^<>|｜\s]{1,40}[|｜]>")

#: Skeletons kept in memory; most conversations have one of a few hundred sequences of roles.
_MOST_SKELETONS = 4096

#: Conversations in which a template shows every token that it writes by itself. Some refuse some of them.
_EVERY_ROLE = (
    ("user", "assistant"),
    ("system", "user", "assistant"),
    ("user", "assistant", "tool", "assistant"),
)


@dataclass(frozen=True, slots=True)
class Read:
    """Where a turn's score is read."""

    turn: int
    position: int
    gate: int | None = None
    """Where a gated family looks at the turn's header."""
    behind: int = 0
    """Tokens of the turn behind the position."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One sequence that goes through the model, and what is read from it."""

    token_ids: np.ndarray
    """int32, ``[time]``"""
    reads: tuple[Read, ...]
    tokens_cut: int = 0
    """Tokens left out in front of ``token_ids``."""


@dataclass(slots=True)
class Rendered:
    """What one request becomes: passes, and reasons for the turns that get none."""

    passes: list[Pass] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Prefix:
    """The conversation through one requested turn, as text."""

    turn: int
    message_count: int
    text: str


class TemplateRefusal(Exception):
    """The template gives no text for these messages. Its text is why."""


class Renderer:
    """Renders requests for one tokenizer and its chat template.

    With ``appended_token_id`` that token follows every turn and the score is read there. No longer
    conversation holds it, so each turn then has a pass of its own. With ``gated``, a read also has the place
    of the turn's header: the tokens that the template writes between a question and its answer, at their last
    occurrence, where ArmoRM's and QRM's own code looks for them.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_tokens: int,
        over_length: str,
        appended_token_id: int | None = None,
        gated: bool = False,
        add_bos: bool = False,
    ) -> None:
        self._chat_template = ChatTemplate.of(tokenizer)
        if not tokenizer.is_fast:
            raise UserMistake(f"{tokenizer.name_or_path}: a tokenizer.json (a fast tokenizer) is needed")
        shown = probing.probed(self._chat_template)
        if shown.refusal is not None:
            raise ModelFault(f"{tokenizer.name_or_path}: {shown.refusal}")
        self.unseen = shown.unseen
        """Kinds of messages that the template leaves out."""
        self._tokenizer = tokenizer
        self._backend = _unhindered(tokenizer)
        self.vocabulary: int | None = None
        """How many token ids the model has states for, where that is known: a turn with a larger id is
        refused."""
        self.passed_over: int | None = None
        """A token at which no turn is read: one that ends in it is read at the last other token before."""
        self.tokenizers_bos, self._put_behind = _put_around(self._backend)
        self.adds_bos = False
        """Whether every conversation begins with that, because its template writes none."""
        self._max_tokens = max_tokens
        self._over_length = over_length
        self._appended = () if appended_token_id is None else (appended_token_id,)
        added = tokenizer.added_tokens_decoder
        self._plain_added = frozenset(
            token_id
            for token_id, token in added.items()
            if not (token.lstrip or token.rstrip or token.single_word or token.normalized)
        )
        self._skeletons: dict[tuple[str, ...] | Skeleton, np.ndarray] = {}
        written_by_template = self._written_by_template()
        self.adds_bos = add_bos and self.lacks_bos
        control = {
            token_id
            for token_id, token in added.items()
            if (token.special or token_id in written_by_template) and token.content not in REASONING_MARKERS
        }
        # The appended token may be one of the vocabulary's own, which nothing marks as special.
        self._control = np.array(sorted(control.union(self._appended)), dtype=np.int32)
        self._header = self._turn_header() if gated else None

    def render(self, requests: Sequence[Request]) -> list[Rendered]:
        """The passes and refusals of every request, in order."""
        results = [Rendered() for _ in requests]
        prefixes = self._prefixes(requests, results)
        wholes = self._encode_conversations([chain[-1].text for chain in prefixes if chain])
        alone: list[tuple[int, _Prefix]] = []
        encodings = iter(wholes)
        cuts: list[dict[int, int]] = []
        whole_ids: list[np.ndarray] = []
        for number, chain in enumerate(prefixes):
            if not chain:
                cuts.append({})
                whole_ids.append(np.empty(0, np.int32))
                continue
            encoding = next(encodings)
            whole_ids.append(np.asarray(encoding.ids, dtype=np.int32))
            known = {chain[-1].turn: len(encoding.ids)}
            for prefix in chain[:-1]:
                cut = self._certified_cut(prefix.text, chain[-1].text, encoding)
                if cut is None:
                    alone.append((number, prefix))
                else:
                    known[prefix.turn] = cut
            cuts.append(known)
        separate: dict[int, list[tuple[int, np.ndarray]]] = {}
        for (number, prefix), encoding in zip(
            alone, self._encode_conversations([prefix.text for _, prefix in alone]), strict=True
        ):
            ids = np.asarray(encoding.ids, dtype=np.int32)
            if np.array_equal(whole_ids[number][: len(ids)], ids):
                cuts[number][prefix.turn] = len(ids)
            else:
                separate.setdefault(number, []).append((prefix.turn, ids))
        for number, request in enumerate(requests):
            if prefixes[number]:
                self._admit(request, whole_ids[number], cuts[number], results[number])
                for turn, ids in separate.get(number, ()):
                    self._admit(request, ids, {turn: len(ids)}, results[number])
        return results

    def _prefixes(self, requests: Sequence[Request], results: Sequence[Rendered]) -> list[list[_Prefix]]:
        """The requested prefixes that the template renders, shortest first; refusals go into ``results``."""
        chains = []
        for request in requests:
            positions = turn_positions(request.messages)
            counts = tuple(positions[turn] + 1 for turn in request.turns)
            chains.append(Chain(request.messages, counts, request.tools))
        rendered = self._chat_template.render(chains)
        prefixes: list[list[_Prefix]] = []
        for request, chain, texts, result in zip(requests, chains, rendered, results, strict=True):
            shown = []
            with_tools = needs_tools(request.messages, request.tools)
            for turn, count, text in zip(request.turns, chain.counts, texts, strict=True):
                shown_text = None if isinstance(text, Refused) else text
                unseen = why_unseen(self._chat_template, request, count, shown_text) if with_tools else None
                if unseen is not None:
                    result.refused[turn] = unseen
                elif isinstance(text, Refused):
                    result.refused[turn] = f"{_TEMPLATE_REFUSED}: {text.words}"
                else:
                    shown.append(_Prefix(turn, count, text))
            prefixes.append(shown)
        return prefixes

    @property
    def lacks_bos(self) -> bool:
        """Whether the template writes none of what ``tokenizer(text)`` puts before a text."""
        bos = self.tokenizers_bos
        texts = [
            self._chat_template.text([Message(role, PLACEHOLDER) for role in roles]) for roles in _EVERY_ROLE
        ]
        # Some templates want a system message, some want none.
        plainest = next((text for text in texts if isinstance(text, str)), "")
        written = self._encode([plainest])[0].ids
        return bool(bos) and tuple(written[: len(bos)]) != bos

    def token_ids(self, messages: Sequence[Message]) -> np.ndarray:
        """int32 ``[time]``: the whole conversation as the model is shown it."""
        return np.asarray(self._encode_conversations([self.text(messages)])[0].ids, dtype=np.int32)

    def decoded(self, token_ids: Iterable[int]) -> str:
        """The tokens as text."""
        text: str = self._tokenizer.decode([int(token_id) for token_id in token_ids])
        return text

    def text(self, messages: Sequence[Message], tools: str | None = None) -> str:
        """The messages as the chat template writes them; ``TemplateRefusal`` where it does not."""
        text = self._chat_template.text(messages, tools)
        if isinstance(text, Refused):
            raise TemplateRefusal(text.words)
        return text

    def _encode_conversations(self, texts: Sequence[str]) -> list[Any]:
        if not self.adds_bos:
            return self._encode(texts)
        encodings: list[Any] = self._backend.encode_batch(list(texts), add_special_tokens=True)
        if self._put_behind:
            for encoding in encodings:
                encoding.truncate(len(encoding.ids) - self._put_behind)
        return encodings

    def marks_in_pieces(self) -> dict[str, int]:
        """Marks that the template writes, such as ``<|user|>``, and their tokens, where they are several."""
        texts = self._chat_template.render(
            [Chain([Message(role, PLACEHOLDER) for role in roles], (len(roles),)) for roles in _EVERY_ROLE]
        )
        marks = {mark for (text,) in texts if isinstance(text, str) for mark in _MARK.findall(text)}
        counts = {mark: len(self._encode([mark])[0].ids) for mark in sorted(marks)}
        return {mark: count for mark, count in counts.items() if count > 1}

    def _encode(self, texts: Sequence[str]) -> list[Any]:
        # The template has written every special token already: none is added, none doubled.
        encodings: list[Any] = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return encodings

    def _certified_cut(self, prefix: str, whole: str, encoding: Any) -> int | None:
        """How many tokens of ``whole`` are exactly the tokens of ``prefix``; None if that is not certain.

        A tokenizer splits a text at added tokens first. So at a cut on the edge of one, the tokens before do
        not depend on the text behind.
        """
        if not whole.startswith(prefix):
            return None
        if len(whole) == len(prefix):
            return len(encoding.ids)
        token = encoding.char_to_token(len(prefix))
        if token is None or encoding.token_to_chars(token)[0] != len(prefix):
            return None
        ids = encoding.ids
        if ids[token] in self._plain_added or (token and ids[token - 1] in self._plain_added):
            return int(token)
        return None

    def _admit(self, request: Request, ids: np.ndarray, cuts: dict[int, int], result: Rendered) -> None:
        """Turn one tokenized text and its cuts into passes, or into refusals."""
        shared = []
        positions = turn_positions(request.messages)
        forged = self._forged_turns(request, positions, ids, cuts)
        room = self._max_tokens - len(self._appended)
        for turn, cut in sorted(cuts.items()):
            if turn in forged:
                result.refused[turn] = forged[turn]
                continue
            if self.vocabulary is not None and ids[:cut].max() >= self.vocabulary:
                result.refused[turn] = (
                    f"unknown_token: token {ids[:cut].max()}, the model has {self.vocabulary}"
                )
                continue
            if cut > room and self._over_length != "left-truncate":
                needed = cut + len(self._appended)
                result.refused[turn] = f"too_long: {needed} tokens, the model's limit is {self._max_tokens}"
                continue
            tokens_cut = max(0, cut - room)
            gate = None
            if self._header is not None:
                gate = _last_occurrence(self._header, ids[tokens_cut:cut])
                if gate is None:
                    result.refused[turn] = (
                        "no_turn_header: Token pattern not found: what the template writes before an answer "
                        "is not among the tokens that the model would see"
                    )
                    continue
            if tokens_cut or self._appended:
                shown = np.append(ids[tokens_cut:cut], np.array(self._appended, dtype=np.int32))
                result.passes.append(Pass(shown, (self._read(turn, shown, gate),), tokens_cut))
            else:
                shared.append(self._read(turn, ids[:cut], gate))
        if shared:
            result.passes.append(Pass(ids[: shared[-1].position + 1], tuple(shared)))

    def _read(self, turn: int, shown: np.ndarray, gate: int | None) -> Read:
        """Where the turn is read whose last token is the last of ``shown``."""
        behind = 0
        if self.passed_over is not None:
            read = np.flatnonzero(shown != self.passed_over)
            # Of padding alone transformers reads the first.
            behind = len(shown) - 1 - (int(read[-1]) if len(read) else 0)
        return Read(turn, len(shown) - 1 - behind, gate, behind)

    def _forged_turns(
        self, request: Request, positions: Sequence[int], ids: np.ndarray, cuts: dict[int, int]
    ) -> dict[int, str]:
        """Reasons for the turns whose text holds control tokens that the template did not write."""

        def why(turn: int) -> str | None:
            messages = request.messages[: positions[turn] + 1]
            return self._why_not_as_written(messages, request.tools, ids[: cuts[turn]])

        if why(max(cuts)) is None:
            return {}
        return {turn: reason for turn in cuts if (reason := why(turn)) is not None}

    def _written_by_template(self) -> set[int]:
        """The token ids of conversations with every role in them, wherever the template has that role."""
        written: set[int] = set()
        for roles in _EVERY_ROLE:
            # Of those that it refuses there are none; the plainest ones were seen to be rendered.
            with suppress(TemplateRefusal):
                written.update(self._skeleton_ids(plain_skeleton(roles)))
        return written

    def _why_not_as_written(
        self, messages: Sequence[Message], tools: str | None, ids: np.ndarray
    ) -> str | None:
        """The reason where ``ids`` hold other control tokens than the template writes for such messages."""
        key: tuple[str, ...] | Skeleton
        if tools is None and all(type(message) is Message for message in messages):
            key = tuple(message.role for message in messages)
        else:
            key = skeleton_of(messages, tools)
        # Another thread may empty the cache at any time.
        expected = self._skeletons.get(key)
        if expected is None:
            skeleton = key if isinstance(key, Skeleton) else plain_skeleton(key)
            try:
                expected = self._control_only(self._skeleton_ids(skeleton))
            except TemplateRefusal as refusal:
                return f"{_TEMPLATE_REFUSED}: with {PLACEHOLDER!r} for every text: {refusal}"
            if len(self._skeletons) >= _MOST_SKELETONS:
                self._skeletons.clear()
            self._skeletons[key] = expected
        if np.array_equal(self._control_only(ids), expected):
            return None
        return self._where_forged(messages, tools)

    def _turn_header(self) -> np.ndarray:
        """The tokens between a question and its answer; ``UserMistake`` where the template writes none."""
        question, answer = "<<question>>", "<<answer>>"
        try:
            text = self.text([Message("user", question), Message("assistant", answer)])
        except TemplateRefusal as refusal:
            raise ModelFault(
                f"{self._tokenizer.name_or_path}: its chat template refuses a question and an answer, where "
                f"this family's gate looks for what stands between: {refusal}"
            ) from refusal
        header = text.partition(question)[2].partition(answer)[0]
        if not header:
            raise UserMistake(
                f"{self._tokenizer.name_or_path}: its chat template writes nothing between a question and an "
                "answer, which is where this family's gate looks"
            )
        return np.asarray(self._encode([header])[0].ids, dtype=np.int32)

    def _skeleton_ids(self, skeleton: Skeleton) -> np.ndarray:
        text = self.text(skeleton.messages, skeleton.tools)
        return np.asarray(self._encode_conversations([text])[0].ids, dtype=np.int32)

    def _control_only(self, ids: np.ndarray) -> np.ndarray:
        return ids[np.isin(ids, self._control)]

    def _where_forged(self, messages: Sequence[Message], tools: str | None) -> str:
        places = [(f"message {number} ({one.role})", texts_of(one)) for number, one in enumerate(messages, 1)]
        if tools is not None:
            places.append(("the tools", [tools]))
        for place, texts in places:
            for encoding in self._encode(texts):
                found = self._control_only(np.asarray(encoding.ids, dtype=np.int32))
                if len(found):
                    token = self._tokenizer.convert_ids_to_tokens(int(found[0]))
                    return f"forged_control_token: {token!r} in {place}"
        return "forged_control_token: text that becomes a control token where two messages meet"


def _put_around(backend: Any) -> tuple[tuple[int, ...], int]:
    """The token ids that ``tokenizer(text)`` puts before a text's own, and how many it puts behind them."""
    alone = backend.encode(PLACEHOLDER, add_special_tokens=False).ids
    around = backend.encode(PLACEHOLDER, add_special_tokens=True).ids
    for start in range(len(around) - len(alone) + 1):
        if around[start : start + len(alone)] == alone:
            return tuple(around[:start]), len(around) - start - len(alone)
    return (), 0


def _last_occurrence(pattern: np.ndarray, ids: np.ndarray) -> int | None:
    """Where ``pattern`` begins the last time in ``ids``; None where it does not occur."""
    if len(ids) < len(pattern):
        return None
    windows = np.lib.stride_tricks.sliding_window_view(ids, len(pattern))
    found = np.flatnonzero((windows == pattern).all(axis=1))
    return int(found[-1]) if len(found) else None


def _unhindered(tokenizer: Any) -> Any:
    """The tokenizer's backend, set neither to pad nor to cut, as a tokenizer.json may have it saved."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return backend


class PairRenderer:
    """Renders requests for an encoder that is shown a question and an answer.

    The answer is the turn. The question is everything before it as plain text: a single message as it
    is, which is what the models' cards show; several as ``User: …`` and ``Assistant: …`` lines, as the
    dialogues among their training data were written. An encoder's every state depends on the whole, so
    each turn is a pass, read at its first token.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int, over_length: str) -> None:
        if not tokenizer.is_fast:
            raise UserMistake(f"{tokenizer.name_or_path}: a tokenizer.json (a fast tokenizer) is needed")
        self._backend = _unhindered(tokenizer)
        self._added = tokenizer.added_tokens_decoder
        self._max_tokens = max_tokens
        self._over_length = over_length
        self._control = np.array(
            sorted(token_id for token_id, token in self._added.items() if token.special), dtype=np.int32
        )
        self._written = self._control_in(self._encode([(PLACEHOLDER, PLACEHOLDER)])[0])

    def render(self, requests: Sequence[Request]) -> list[Rendered]:
        """The passes and refusals of every request, in order."""
        results = [Rendered() for _ in requests]
        asked = []
        for number, request in enumerate(requests):
            if needs_tools(request.messages, request.tools):
                results[number].refused = dict.fromkeys(request.turns, _NO_TOOLS)
            else:
                asked += [(number, turn) for turn in request.turns]
        pairs = [_as_pair(requests[number].messages, turn) for number, turn in asked]
        for (number, turn), pair, encoding in zip(asked, pairs, self._encode(pairs), strict=True):
            self._admit(turn, pair, encoding, results[number])
        return results

    def _encode(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        encodings: list[Any] = self._backend.encode_batch(list(pairs), add_special_tokens=True)
        return encodings

    def _control_in(self, encoding: Any) -> np.ndarray:
        ids = np.asarray(encoding.ids, dtype=np.int32)
        return ids[np.isin(ids, self._control)]

    def _admit(self, turn: int, pair: tuple[str, str], encoding: Any, result: Rendered) -> None:
        found = self._control_in(encoding)
        if not np.array_equal(found, self._written):
            names = (token.content for token in self._added.values() if token.special)
            forged = next((name for name in names if name in pair[0] or name in pair[1]), "a control token")
            result.refused[turn] = f"forged_control_token: {forged!r} in the text"
            return
        ids = np.asarray(encoding.ids, dtype=np.int32)
        beyond = len(ids) - self._max_tokens
        if beyond > 0:
            question = [place for place, part in enumerate(encoding.sequence_ids) if part == 0]
            if self._over_length != "left-truncate" or beyond > len(question):
                result.refused[turn] = f"too_long: {len(ids)} tokens, the model's limit is {self._max_tokens}"
                return
            ids = np.delete(ids, question[:beyond])
        result.passes.append(Pass(ids, (Read(turn, 0),), max(0, beyond)))


def _as_pair(messages: Conversation, turn: int) -> tuple[str, str]:
    position = turn_positions(messages)[turn]
    before = messages[:position]
    if len(before) == 1:
        return before[0].content, messages[position].content
    dialogue = "\n".join(f"{message.role.capitalize()}: {message.content}" for message in before)
    return dialogue, messages[position].content
