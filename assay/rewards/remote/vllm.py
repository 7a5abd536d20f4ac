"""vLLM's pooling server: ``vllm serve MODEL --runner pooling --convert classify``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx2

from assay.core.schema import Message
from assay.rewards.endpoint import Endpoint
from assay.rewards.remote.replies import Reply, UnreadableReply, in_order, item, parsed
from assay.rewards.remote.transport import sent
from assay.rewards.remote.wording import Scribe, Wording, as_dicts


class VLLMClassify:
    """Speaks ``POST {url}/classify`` with messages, so that the server applies its own chat template.

    For a model with one label the server would apply a sigmoid; ``use_activation`` forbids that. Older
    servers do not know this field and ignore it.
    """

    path = "/classify"
    what_to_do_if_squashed = (
        "update vLLM, or start it with --override-pooler-config '{\"softmax\": false}'"  # before 0.11
    )

    def __init__(self, endpoint: Endpoint, http: httpx2.AsyncClient, key: str | None) -> None:
        self._endpoint = endpoint
        self._http = http
        self._scribe = Scribe(endpoint)

    def worded(self, messages: Sequence[Message]) -> Wording:
        """The conversation's tokens; it is sent as messages."""
        return Wording("", self._scribe.tokens_of_messages(messages))

    async def send(self, messages: Sequence[Message], wording: Wording, *, squashed: bool = False) -> Reply:
        """The reply to one attempt. ``squashed`` asks for the sigmoid, to find whether the server obeys."""
        body = {"model": self._endpoint.model, "messages": as_dicts(messages), "use_activation": squashed}
        return await sent(self._http, "POST", self._endpoint.url + self.path, json=body | self._details())

    def scores(self, reply: Reply) -> tuple[float, ...]:
        """The scores of a reply; ``UnreadableReply`` where it has none."""
        values = self._values(_only(item(parsed(reply), "data")))
        return in_order(values, self._endpoint.outputs, self._endpoint.attributes)

    def _details(self) -> dict[str, Any]:
        return {}

    def _values(self, entry: Any) -> Any:
        return item(entry, "probs")


class Pooling(VLLMClassify):
    """Speaks ``POST {url}/pooling``. Of a model that scores every token, the last token counts."""

    path = "/pooling"

    def _details(self) -> dict[str, Any]:
        return {"encoding_format": "float"}

    def _values(self, entry: Any) -> Any:
        values = item(entry, "data")
        if isinstance(values, list) and values and isinstance(values[-1], list):
            return values[-1]
        return values


def _only(entries: Any) -> Any:
    if not isinstance(entries, list) or len(entries) != 1:
        raise UnreadableReply(
            f"{len(entries) if isinstance(entries, list) else 'no'} results for one conversation"
        )
    return entries[0]
