"""A reward service as a reward model: one request per turn, after a probe that shows that it gives scores."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar, runtime_checkable

import httpx2

from assay.core.errors import ModelFault, Resumable
from assay.core.progress import SILENT, Progress
from assay.core.schema import Message, turn_positions
from assay.rewards.endpoint import Endpoint
from assay.rewards.protocol import Request, TurnScore
from assay.rewards.remote.endpoints import ReadBlock, backend_class, key_of
from assay.rewards.remote.replies import FAILED, REFUSED, UNREADABLE, Reply, UnreadableReply
from assay.rewards.remote.transport import Caller, GivenUp, Traffic, Unanswered, http_client, status_text
from assay.rewards.remote.wording import Unfit, Wording
from assay.rewards.spec import ServedSpec
from assay.rewards.tool_probing import UNSEEN_TOOLS, needs_tools

T = TypeVar("T")

#: The first question to a service, before data are paid for. Later it shows if the service still answers.
PROBE = (Message("user", "What is 1+1?"), Message("assistant", "1+1=2"))
#: A wrong answer. It helps to find whether scores went through a sigmoid.
WRONG_PROBE = (Message("user", "What is 1+1?"), Message("assistant", "bananas bananas 77 no"))

_EXCERPT_CHARACTERS = 200

#: After so many turns in a row without a score, the service is at fault, not the turns.
MOST_WITHOUT_SCORES = 50


class Backend(Protocol):
    """One protocol: how a conversation is sent, and how a reply is read."""

    def __init__(self, endpoint: Endpoint, http: httpx2.AsyncClient, key: str | None) -> None: ...

    def worded(self, messages: Sequence[Message]) -> Wording:
        """What will be sent; ``Unfit`` where the conversation cannot be sent to this service."""
        ...

    async def send(self, messages: Sequence[Message], wording: Wording) -> Reply:
        """The reply to one attempt; ``Unanswered`` where none came. Never tries again."""
        ...

    def scores(self, reply: Reply) -> tuple[float, ...]:
        """The scores of a successful reply; ``UnreadableReply`` where it has none."""
        ...


@runtime_checkable
class TakesTools(Protocol):
    """A protocol that has a place for tools, and for calls of them."""

    def worded_with_tools(self, messages: Sequence[Message], tools: str | None) -> Wording:
        """What will be sent, as ``worded`` gives it; ``tools`` is a JSON array."""
        ...


class Service:
    """An open connection to a reward service, for one event loop. An async context manager."""

    def __init__(
        self,
        spec: ServedSpec,
        *,
        read_block: ReadBlock | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.attributes = spec.attributes
        self.fingerprint = spec.fingerprint
        self.endpoint = spec.endpoint
        self.tokens_seen = 0
        """Tokens of the turns that got a score so far, counted or estimated."""
        self._without_scores = 0
        self._key = key_of(spec.endpoint, read_block)
        self._http = http_client(spec.endpoint, self._key)
        self._backend: Backend = backend_class(spec.endpoint)(spec.endpoint, self._http, self._key)
        self._caller = Caller(spec.endpoint, progress=progress, still_answers=self._still_answers)

    @property
    def traffic(self) -> Traffic:
        """What went over the wire so far."""
        return self._caller.traffic

    async def __aenter__(self) -> Service:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    async def rate(self, messages: Sequence[Message], tools: str | None = None) -> TurnScore:
        """The outcome for the last message, which must be a turn. ``tools`` is a JSON array.

        A turn with a reason whose code is in ``replies.PASSING`` may get a score on another day. Raises what
        ``Caller.reply`` raises, except ``GivenUp``.
        """
        try:
            wording = self._worded(messages, tools)
        except Unfit as unfit:
            return TurnScore(None, str(unfit))
        try:
            reply = await self._caller.reply(lambda: self._backend.send(messages, wording), wording.tokens)
            if reply.status >= 400:
                return TurnScore(None, f"{REFUSED}: {status_text(reply.status)}{self._quoted(reply)}")
            values = self._backend.scores(reply)
        except UnreadableReply as unreadable:
            return self._unscored(f"{UNREADABLE}: {self._without_key(str(unreadable))}")
        except GivenUp as trouble:
            return self._unscored(f"{FAILED}: {trouble}")
        self._without_scores = 0
        self.tokens_seen += wording.tokens
        return TurnScore(values)

    def _worded(self, messages: Sequence[Message], tools: str | None) -> Wording:
        if not needs_tools(messages, tools):
            return self._backend.worded(messages)
        if isinstance(self._backend, TakesTools):
            return self._backend.worded_with_tools(messages, tools)
        raise Unfit(
            f"{UNSEEN_TOOLS}: a service of kind {self.endpoint.kind} is shown neither tools nor calls of them"
        )

    def _unscored(self, reason: str) -> TurnScore:
        """The outcome of a turn that may get a score another day; ``Resumable`` after too many in a row."""
        self._without_scores += 1
        if self._without_scores > MOST_WITHOUT_SCORES:
            raise Resumable(
                f"endpoint {self.endpoint.name}: more than {MOST_WITHOUT_SCORES} turns in a row got no "
                f"score, the last because of {reason}. What is scored is stored. Look at what the service "
                "answers now; then the same command goes on from there"
            )
        return TurnScore(None, reason)

    async def probe(self) -> None:
        """Check with one short conversation that the service gives scores; ``ModelFault`` where it does not.

        Requests ask for scores without a sigmoid. Where the scores of a scalar service lie between 0 and 1,
        one more request asks for the sigmoid: if the scores stay the same, the service ignores the option.
        """
        scores = await self._probed(PROBE)
        what_to_do = getattr(self._backend, "what_to_do_if_squashed", None)
        if what_to_do is None or len(self.attributes) > 1 or not 0 <= scores[0] <= 1:
            return
        wrong = await self._probed(WRONG_PROBE)
        if 0 <= wrong[0] <= 1 and await self._probed(PROBE, squashed=True) == scores:
            raise ModelFault(
                f"endpoint {self.endpoint.name}: its scores never leave 0 to 1 ({scores[0]:.4g} for a right "
                f"answer, {wrong[0]:.4g} for a wrong one), and asking for raw scores changes nothing: it "
                f"puts them through a sigmoid, which makes all good answers look alike. To do: {what_to_do}"
            )

    async def _probed(self, messages: Sequence[Message], **options: bool) -> tuple[float, ...]:
        try:
            wording = self._backend.worded(messages)
            send: Callable[..., Awaitable[Reply]] = self._backend.send
            reply = await self._caller.reply(lambda: send(messages, wording, **options), wording.tokens)
            if reply.status >= 400:
                what, body = status_text(reply.status), reply.body
            else:
                return self._backend.scores(reply)
        except Unfit as unfit:
            raise ModelFault(
                f"endpoint {self.endpoint.name}: the probe cannot be sent to it: {unfit}"
            ) from None
        except UnreadableReply as unreadable:
            what, body = self._without_key(str(unreadable)), b""
        except GivenUp as trouble:
            what, body = str(trouble), b""
        shown = f" ({self._excerpt(body)})" if body else ""
        raise ModelFault(
            f"endpoint {self.endpoint.name}: a first short conversation got no scores: {what}{shown}. "
            f"Nothing was spent on data. Check that its kind ({self.endpoint.kind}), its model "
            f"({self.endpoint.model}) and its attributes ({', '.join(self.attributes)}) are those of the "
            "reward model that is served there"
        )

    async def _still_answers(self) -> bool:
        """Whether the service answers the probe with scores, asked once."""
        self.traffic.requests += 1
        try:
            async with asyncio.timeout(self.endpoint.timeout_seconds):
                reply = await self._backend.send(PROBE, self._backend.worded(PROBE))
            return reply.status == 200 and bool(self._backend.scores(reply))
        except (Unanswered, UnreadableReply, Unfit, TimeoutError):
            return False

    def _quoted(self, reply: Reply) -> str:
        """The service's words about a refused turn. They may quote it, so only quarantine holds them."""
        said = self._excerpt(reply.body)
        return f": {said}" if said else ""

    def _excerpt(self, body: bytes) -> str:
        """The beginning of a reply, on one line."""
        text = " ".join(self._without_key(body.decode(errors="replace")).split())
        return text if len(text) <= _EXCERPT_CHARACTERS else f"{text[:_EXCERPT_CHARACTERS]}…"

    def _without_key(self, text: str) -> str:
        """A service's words, which may repeat the key that it was sent."""
        if self._key:
            text = _written_anyhow(self._key).sub("[key]", text)
        return re.sub(r"(?i)bearer\s+\S+", "Bearer [key]", text)


def _written_anyhow(key: str) -> re.Pattern[str]:
    r"""Fits the key as it is, and with any of its characters as ``\u002d`` or ``%2D``."""
    # Bounded: a reply of backslashes alone must not take a search for each of them.
    escape = r"\\{1,8}"
    ways = (
        rf"(?:{re.escape(one)}|{escape}u{ord(one):04x}|%{ord(one):02x}|{escape}{re.escape(one)})"
        for one in key
    )
    return re.compile("".join(ways), re.IGNORECASE)


class ServiceModel:
    """A service as a ``RewardModel``. Each call of ``score`` opens, probes and closes a connection."""

    def __init__(self, spec: ServedSpec, *, read_block: ReadBlock | None = None) -> None:
        self.attributes = spec.attributes
        self.fingerprint = spec.fingerprint
        self.tokens_seen = 0
        self._spec = spec
        self._read_block = read_block

    def score(self, requests: Sequence[Request]) -> list[list[TurnScore]]:
        """An outcome for each requested turn, after a probe. As many are in flight as the endpoint allows."""
        return in_a_loop(self._scored(requests))

    async def _scored(self, requests: Sequence[Request]) -> list[list[TurnScore]]:
        async with Service(self._spec, read_block=self._read_block) as service:
            await service.probe()
            slots = asyncio.Semaphore(service.endpoint.in_flight)

            async def rated(messages: Sequence[Message], tools: str | None) -> TurnScore:
                async with slots:
                    return await service.rate(messages, tools)

            async def all_of(request: Request) -> list[TurnScore]:
                positions = turn_positions(request.messages)
                return await gathered(
                    rated(request.messages[: positions[turn] + 1], request.tools) for turn in request.turns
                )

            outcomes = await gathered(all_of(request) for request in requests)
            self.tokens_seen += service.tokens_seen
            return outcomes


async def gathered(work: Any) -> list[Any]:
    """The results in order. The first failure cancels the rest and is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def in_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns, run in an event loop of its own; works inside a notebook's loop too."""
    running = True
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        running = False
    # After the handler: in it, an error of the work would be shown as a consequence of the RuntimeError.
    if not running:
        return asyncio.run(work)
    with ThreadPoolExecutor(1, thread_name_prefix="service") as thread:
        return thread.submit(asyncio.run, work).result()
