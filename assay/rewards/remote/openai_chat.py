"""Chat completions whose answer holds scores: NVIDIA's API catalog and NIM serve reward models in this way.

The answer has the scores in place of log probabilities (``token`` is an attribute, ``logprob`` its score),
and again as text: ``helpfulness:1.6171875,correctness:1.6484375,…``. Scalar models answer with text only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import httpx2
import openai

from assay.core.calls import Json
from assay.core.errors import AssayError
from assay.core.schema import REWARD, Message
from assay.rewards.endpoint import Endpoint
from assay.rewards.remote.replies import Reply, UnreadableReply, by_name, item, number, parsed
from assay.rewards.remote.transport import Unanswered, described, reply_of
from assay.rewards.remote.wording import Scribe, Wording, as_dicts

_FLOAT = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf(?:inity)?)"
_PAIR = re.compile(rf"\s*([\w-]+)\s*[:=]\s*({_FLOAT})\s*", re.IGNORECASE)
_ALONE = re.compile(rf"\s*({_FLOAT})\s*", re.IGNORECASE)

#: The names that scalar models give their number.
_SCALAR_NAMES = frozenset({REWARD, "score"})


class OpenAIChat:
    """Speaks ``POST {url}/chat/completions`` through the official client."""

    def __init__(self, endpoint: Endpoint, http: httpx2.AsyncClient, key: str | None) -> None:
        self._endpoint = endpoint
        self._scribe = Scribe(endpoint)
        # Otherwise the client would send keys and account names for OpenAI that are in the environment.
        omitted: dict[str, Any] = {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
        self._headers: dict[str, Any] = {} if key else {"Authorization": openai.Omit()}
        self._client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=endpoint.url,
            http_client=http,
            max_retries=0,
            timeout=endpoint.timeout_seconds,
            default_headers=omitted,
        )

    def worded(self, messages: Sequence[Message]) -> Wording:
        """The conversation's tokens; it is sent as messages."""
        return Wording("", self._scribe.tokens_of_messages(messages))

    def worded_with_tools(self, messages: Sequence[Message], tools: str | None) -> Wording:
        """What the conversation and its tools cost."""
        return Wording("", self._scribe.tokens_of_messages(messages, tools), tools)

    async def send(self, messages: Sequence[Message], wording: Wording) -> Reply:
        """The reply to one attempt."""
        body: dict[str, Json] = {"model": self._endpoint.model, "messages": list(as_dicts(messages))}
        if wording.tools is not None:
            body["tools"] = json.loads(wording.tools)
        try:
            # Use the client's method for any path: `chat.completions.create` searches every message for
            # types that JSON lacks, which takes longer than all the rest.
            response = await self._client.post(
                "/chat/completions",
                body=body,
                options={"headers": self._headers},
                cast_to=httpx2.Response,
            )
        except openai.APIStatusError as error:
            return reply_of(error.response)
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            if isinstance(cause, AssayError | UnreadableReply):
                raise cause from None
            raise Unanswered(described(cause)) from None
        return reply_of(response)

    def scores(self, reply: Reply) -> tuple[float, ...]:
        """The scores of a reply; ``UnreadableReply`` where it has none."""
        choice = item(parsed(reply), "choices", 0)
        logprobs = choice.get("logprobs") if isinstance(choice, dict) else None
        content = logprobs.get("content") if isinstance(logprobs, dict) else None
        if isinstance(content, list) and content:
            pairs = [(item(entry, "token"), item(entry, "logprob")) for entry in content]
            return by_name(_as_stored(pairs, self._endpoint.attributes), self._endpoint.attributes)
        message = item(choice, "message")
        if isinstance(message, list):  # seen from hosted services
            message = item(message, 0)
        return _from_text(item(message, "content"), self._endpoint.attributes)


def _from_text(text: object, attributes: Sequence[str]) -> tuple[float, ...]:
    """The scores in a text that holds nothing else: the answer of a chat model may also end in a number."""
    if not isinstance(text, str):
        raise UnreadableReply("neither logprobs nor text")
    alone = _ALONE.fullmatch(text)
    if alone and len(attributes) == 1:
        return (number(float(alone[1]), attributes[0]),)
    found = [_PAIR.fullmatch(part) for part in text.strip().strip(",").split(",")]
    if any(one is None for one in found):
        raise UnreadableReply("no logprobs, and its text is no list of scores: probably not a reward model")
    pairs = [(one[1], float(one[2])) for one in found if one is not None]
    return by_name(_as_stored(pairs, attributes), attributes)


def _as_stored(pairs: list[tuple[Any, Any]], attributes: Sequence[str]) -> list[tuple[Any, Any]]:
    """The pairs. A scalar under another usual name gets the name that the operator uses."""
    if len(attributes) == 1 and len(pairs) == 1 and {pairs[0][0], attributes[0]} <= _SCALAR_NAMES:
        return [(attributes[0], pairs[0][1])]
    return pairs
