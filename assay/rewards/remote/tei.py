"""Hugging Face's text-embeddings-inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx2

from assay.core.schema import Message
from assay.rewards.endpoint import Endpoint
from assay.rewards.remote.replies import Reply, UnreadableReply, by_name, item, parsed
from assay.rewards.remote.transport import sent
from assay.rewards.remote.wording import Scribe, Unfit, Wording


class Predict:
    """Speaks ``POST {url}/predict`` with a rendered conversation; ``raw_scores`` forbids the sigmoid."""

    what_to_do_if_squashed = "update text-embeddings-inference: it ignores raw_scores"

    def __init__(self, endpoint: Endpoint, http: httpx2.AsyncClient, key: str | None) -> None:
        self._endpoint = endpoint
        self._http = http
        self._scribe = Scribe(endpoint)

    def worded(self, messages: Sequence[Message]) -> Wording:
        """The conversation in its chat template."""
        return self._scribe.rendered(messages)

    async def send(self, messages: Sequence[Message], wording: Wording, *, squashed: bool = False) -> Reply:
        """The reply to one attempt. ``squashed`` asks for the sigmoid, to find whether the server obeys."""
        body = {"inputs": self._inputs(messages, wording), "raw_scores": not squashed, "truncate": False}
        return await sent(self._http, "POST", self._endpoint.url + "/predict", json=body)

    def scores(self, reply: Reply) -> tuple[float, ...]:
        """The scores of a reply, by their labels. A single score may have any label, such as ``LABEL_0``."""
        found = parsed(reply)
        if isinstance(found, list) and len(found) == 1 and isinstance(found[0], list):
            found = found[0]  # a batch of one
        if not isinstance(found, list):
            raise UnreadableReply("no list of labels and scores")
        pairs = [(item(entry, "label"), item(entry, "score")) for entry in found]
        if len(pairs) == len(self._endpoint.attributes) == 1:
            pairs = [(self._endpoint.attributes[0], pairs[0][1])]
        return by_name(pairs, self._endpoint.attributes)

    def _inputs(self, messages: Sequence[Message], wording: Wording) -> Any:
        return wording.text


class PredictPair(Predict):
    """The same for encoders that are shown a question and an answer, such as OpenAssistant's DeBERTa."""

    def worded(self, messages: Sequence[Message]) -> Wording:
        """The pair's tokens. ``Unfit`` for anything but one question and its answer."""
        if [message.role for message in messages] != ["user", "assistant"]:
            raise Unfit("no_pair: this model is shown one question and its answer, and nothing before them")
        return Wording("", sum(self._scribe.tokens_of_text(message.content) for message in messages))

    def _inputs(self, messages: Sequence[Message], wording: Wording) -> Any:
        # A flat list of two strings is one pair.
        return [message.content for message in messages]
