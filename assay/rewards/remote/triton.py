"""NeMo-Aligner's reward model server (``serve_reward_model.py``, PyTriton), over Triton's HTTP protocol.

The server adds no token and reads the score at the last one, which has to be the label prefix
``<extra_id_2>``. It cuts a long text at its end without a report, and that token with it. So lengths are
checked here before anything is sent.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2
import numpy as np

from assay.core.errors import ModelFault
from assay.core.schema import Message, roles_of
from assay.core.steerlm import gap, nemo_text
from assay.rewards.endpoint import Endpoint
from assay.rewards.remote.replies import Reply, UnreadableReply, in_order, item, parsed
from assay.rewards.remote.transport import sent
from assay.rewards.remote.wording import Scribe, Unfit, Wording

#: The header with the number of bytes of JSON; tensors follow them (Triton's binary tensor data extension).
_JSON_LENGTH = "inference-header-content-length"

#: What tritonclient raises for a reply of another shape, or one that is nested too deep.
_OF_STRANGE_BYTES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)

_CONTROL = re.compile(r"<extra_id_\d+>")


class NemoAligner:
    """Speaks ``POST {url}/v2/models/{model}/infer``. ``tritonclient`` writes and reads the bytes."""

    def __init__(self, endpoint: Endpoint, http: httpx2.AsyncClient, key: str | None) -> None:
        self._endpoint = endpoint
        self._http = http
        self._scribe = Scribe(endpoint)
        self._triton = _tritonclient(endpoint)
        self._inputs: frozenset[str] | None = None

    def worded(self, messages: Sequence[Message]) -> Wording:
        """The conversation in NeMo's template, whose system sentence is always the same."""
        text = checked_text(messages)
        return Wording(text, self._scribe.tokens_of_text(text))

    async def send(self, messages: Sequence[Message], wording: Wording) -> Reply:
        """The reply to one attempt. The first attempt also asks which inputs the model takes."""
        address = f"{self._endpoint.url}/v2/models/{self._endpoint.model}"
        if self._inputs is None:
            described = await sent(self._http, "GET", address)
            if described.status != 200:
                return described
            self._inputs = frozenset(str(item(one, "name")) for one in item(parsed(described), "inputs"))
        body, json_length = self._triton.InferenceServerClient.generate_request_body(self._tensors(wording))
        headers = {"content-type": "application/octet-stream"}
        if json_length is not None:
            headers[_JSON_LENGTH] = str(json_length)
        return await sent(self._http, "POST", f"{address}/infer", content=bytes(body), headers=headers)

    def scores(self, reply: Reply) -> tuple[float, ...]:
        """The scores of a reply; ``UnreadableReply`` where it has none, or reports that the text was cut."""
        json_length = reply.headers.get(_JSON_LENGTH)
        if json_length is None:
            parsed(reply)
        result = self._result(reply, json_length)
        exceeded = self._tensor(result, "exceeded")
        if exceeded is not None and exceeded.any():
            raise UnreadableReply(
                "the server cut the text, which is too long for it: state a lower limit of length"
            )
        rewards = self._tensor(result, "rewards")
        if rewards is None:
            raise UnreadableReply("no output 'rewards' in it")
        # numpy would take texts and truth values in the JSON for numbers.
        stated = result.get_output("rewards").get("data")
        values = rewards.ravel().tolist() if stated is None else list(_flat(stated))
        return in_order(values, self._endpoint.outputs, self._endpoint.attributes)

    def _tensors(self, wording: Wording) -> list[Any]:
        sentences = self._triton.InferInput("sentences", [1, 1], "BYTES")
        sentences.set_data_from_numpy(np.array([[wording.text.encode()]], dtype=np.object_))
        if self._inputs is None or "add_EOS" not in self._inputs:
            return [sentences]
        add_eos = self._triton.InferInput("add_EOS", [1, 1], "BOOL")
        add_eos.set_data_from_numpy(np.array([[False]]))
        return [sentences, add_eos]

    def _result(self, reply: Reply, json_length: str | None) -> Any:
        try:
            return self._triton.InferenceServerClient.parse_response_body(
                reply.body, header_length=None if json_length is None else int(json_length)
            )
        except (*_OF_STRANGE_BYTES, self._triton.InferenceServerException):
            raise UnreadableReply("no whole reply of Triton's protocol") from None

    def _tensor(self, result: Any, name: str) -> np.ndarray | None:
        try:
            found: np.ndarray | None = result.as_numpy(name)
        except _OF_STRANGE_BYTES:
            raise UnreadableReply(f"output {name!r} cannot be read") from None
        return found


def _flat(value: object) -> Iterator[object]:
    """Yield what is in the lists, however they are nested."""
    if isinstance(value, list):
        for one in value:
            yield from _flat(one)
    else:
        yield value


def checked_text(messages: Sequence[Message]) -> str:
    """The conversation in NeMo's template; ``Unfit`` where the template has no place for a message.

    Also ``Unfit`` where a content holds one of the template's marks: the model would see several messages.
    """
    problem = gap(roles_of(messages))
    if problem is not None:
        raise Unfit(problem)
    for number, message in enumerate(messages, 1):
        if found := _CONTROL.search(message.content):
            raise Unfit(f"forged_control_token: {found[0]!r} in message {number} ({message.role})")
    return nemo_text(messages)


def _tritonclient(endpoint: Endpoint) -> Any:
    try:
        import tritonclient.http
    except (ImportError, RuntimeError):
        raise ModelFault(
            f"endpoint {endpoint.name}: its kind needs tritonclient: pip install -e '.[triton]'"
        ) from None
    return tritonclient.http
