"""SGLang's native route for reward models: ``python -m sglang.launch_server --is-embedding``.

Its ``/v1/classify`` cannot be used: it applies a softmax, which turns a single number into 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx2

from assay.core.schema import Message
from assay.rewards.endpoint import Endpoint
from assay.rewards.remote.replies import Reply, UnreadableReply, in_order, item, parsed
from assay.rewards.remote.transport import sent
from assay.rewards.remote.wording import Scribe, Wording


class SGLangClassify:
    """Speaks ``POST {url}/classify`` with a rendered conversation."""

    def __init__(self, endpoint: Endpoint, http: httpx2.AsyncClient, key: str | None) -> None:
        self._endpoint = endpoint
        self._http = http
        self._scribe = Scribe(endpoint)

    def worded(self, messages: Sequence[Message]) -> Wording:
        """The conversation in its chat template."""
        return self._scribe.rendered(messages)

    async def send(self, messages: Sequence[Message], wording: Wording) -> Reply:
        """The reply to one attempt."""
        body = {"model": self._endpoint.model, "text": [wording.text]}
        return await sent(self._http, "POST", self._endpoint.url + "/classify", json=body)

    def scores(self, reply: Reply) -> tuple[float, ...]:
        """The scores of a reply; ``UnreadableReply`` where it has none."""
        found = parsed(reply)
        if isinstance(found, list):
            if len(found) != 1:
                raise UnreadableReply(f"{len(found)} results for one conversation")
            found = found[0]
        return in_order(item(found, "embedding"), self._endpoint.outputs, self._endpoint.attributes)
