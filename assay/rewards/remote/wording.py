"""How a conversation is sent to a service: as messages, or as text from a chat template or NeMo's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from assay.core.calls import Json, sent_calls
from assay.core.errors import ModelFault
from assay.core.schema import REASONING_FIELDS, Message, turn_positions
from assay.rewards.endpoint import Endpoint
from assay.rewards.protocol import Request
from assay.rewards.rendering import Renderer
from assay.rewards.skeletons import texts_of
from assay.rewards.tokenizer import load

#: UTF-8 bytes that make one token, where no tokenizer is known; planning uses the same number.
BYTES_PER_TOKEN = 4

_NO_LIMIT = 1 << 30


class Unfit(Exception):
    """The conversation cannot be sent to this service. The text is the reason, ``code: detail``."""


class Wording(NamedTuple):
    """A conversation as it is sent."""

    text: str
    """The rendered text; empty where the service renders."""
    tokens: int
    """Counted where the tokenizer is known, else estimated."""
    tools: str | None = None
    """The tools that are sent with it, as a JSON array."""


def as_dicts(messages: Sequence[Message]) -> list[dict[str, Json]]:
    """The messages as OpenAI's protocol has them."""
    return [
        {"role": message.role, "content": message.content} if type(message) is Message else _as_dict(message)
        for message in messages
    ]


def _as_dict(message: Message) -> dict[str, Json]:
    fields = message.fields
    texts = {name: getattr(fields, name) for name in (*REASONING_FIELDS, "tool_call_id", "name")}
    calls = {} if fields.tool_calls is None else {"tool_calls": sent_calls(fields.tool_calls)}
    return {
        "role": message.role,
        "content": message.content if fields.content_is is None else None,
        **{name: text for name, text in texts.items() if text is not None},
        **calls,
    }


class Scribe:
    """Renders conversations for one endpoint, and refuses those beyond the limits that its operator set."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._tokenizer: Any = None
        self._renderer: Renderer | None = None
        if endpoint.tokenizer is None:
            return
        self._tokenizer = load(endpoint.tokenizer, whose=f"endpoint {endpoint.name}")
        if self._tokenizer.chat_template:
            limit = endpoint.max_tokens or _NO_LIMIT
            self._renderer = Renderer(self._tokenizer, max_tokens=limit, over_length="quarantine")

    def tokens_of_text(self, text: str) -> int:
        """How many tokens the text has without special ones, or an estimate. ``Unfit`` if it is too long."""
        self._check_characters(len(text))
        if self._tokenizer is None:
            return _estimated(len(text.encode()))
        tokens = len(self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)
        if self._endpoint.max_tokens is not None and tokens > self._endpoint.max_tokens:
            raise Unfit(f"too_long: {tokens} tokens, the model's limit is {self._endpoint.max_tokens}")
        return tokens

    def tokens_of_messages(self, messages: Sequence[Message], tools: str | None = None) -> int:
        """How many tokens these have, where the service renders them. ``Unfit`` if there are too many."""
        texts = [text for message in messages for text in texts_of(message)]
        if tools is not None:
            texts.append(tools)
        self._check_characters(sum(map(len, texts)))
        if self._renderer is None:
            if self._tokenizer is not None:
                return self.tokens_of_text("\n".join(texts))
            return _estimated(sum(len(text.encode()) for text in texts))
        return len(self._token_ids(self._renderer, messages, tools))

    def rendered(self, messages: Sequence[Message]) -> Wording:
        """The conversation in its chat template, for a server that adds special tokens around a text.

        The template may write the same special tokens. So they are removed where needed: the server's
        tokenizer then makes exactly the tokens that the template means.
        """
        if self._renderer is None:
            raise ModelFault(
                f"endpoint {self._endpoint.name}: tokenizer: it has no chat template, so a conversation "
                f"cannot be rendered for it; add a chat_template.jinja to {self._endpoint.tokenizer}"
            )
        meant = self._token_ids(self._renderer, messages)
        text = self._renderer.text(messages)
        beginning, end = (
            str(self._tokenizer.special_tokens_map.get(f"{n}_token", "")) for n in ("bos", "eos")
        )
        for candidate in dict.fromkeys(
            (
                text,
                text.removeprefix(beginning),
                text.removesuffix(end),
                text.removeprefix(beginning).removesuffix(end),
            )
        ):
            if self._tokenizer.backend_tokenizer.encode(candidate, add_special_tokens=True).ids == meant:
                self._check_characters(len(candidate))
                return Wording(candidate, len(meant))
        raise Unfit("no_wording: the server's tokenizer would not read the tokens that the template means")

    def _token_ids(
        self, renderer: Renderer, messages: Sequence[Message], tools: str | None = None
    ) -> list[int]:
        turn = len(turn_positions(messages)) - 1
        (found,) = renderer.render([Request(tuple(messages), (turn,), tools)])
        if found.refused:
            raise Unfit(found.refused[turn])
        ids: list[int] = found.passes[0].token_ids.tolist()
        return ids

    def _check_characters(self, characters: int) -> None:
        limit = self._endpoint.max_characters
        if limit is not None and characters > limit:
            raise Unfit(f"too_long: {characters} characters, the operator's limit is {limit}")


def _estimated(text_bytes: int) -> int:
    return text_bytes // BYTES_PER_TOKEN + 1
