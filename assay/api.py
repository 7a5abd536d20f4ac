"""The scores of one conversation, for notebooks, in the manner of NeMo Curator's ``query_reward_model``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from assay.config.resolve import models_of
from assay.config.settings import Settings
from assay.core.calls import Json
from assay.core.errors import ModelFault, UserMistake
from assay.core.schema import ROLES, Conversation, is_turn
from assay.read.formats.names import KNOWN_NAMES
from assay.read.formats.reading import Row, Unreadable, chat_in
from assay.read.formats.tools import NoCalls, tools_in
from assay.rewards.find import find_model
from assay.rewards.remote.service import in_a_loop
from assay.score.ways import way_of


def query_reward_model(
    *,
    messages: Iterable[Mapping[str, Json]],
    model: str,
    tools: Sequence[Mapping[str, Json]] | None = None,
) -> dict[str, float]:
    """The scores of the last message, which is the assistant's, by attribute.

    ``model`` is what ``--model`` may be: an endpoint of the operator's list, a model of the catalog, a
    folder. A local model is loaded once a process. Messages may hold ``tool_calls``, ``tool_call_id``,
    ``name`` and ``reasoning_content``; ``tools`` are those that the assistant could call. ``UserMistake`` for
    messages that cannot be rated, ``ModelFault`` with the reason where the model gives no score,
    ``Resumable`` where a service stays away.

    >>> from assay import query_reward_model
    >>> messages = [
    ...     {"role": "user", "content": "What is the capital of France?"},
    ...     {"role": "assistant", "content": "Paris, on the Seine."},
    ... ]
    >>> scores = query_reward_model(messages=messages, model="starter")
    >>> {name: round(score, 1) for name, score in scores.items()}
    {'quality': 0.8, 'toxicity': -0.3, 'humor': 0.2, 'creativity': -0.4, 'helpfulness': 1.0}
    """
    return in_a_loop(query_reward_model_async(messages=messages, model=model, tools=tools))


async def query_reward_model_async(
    *,
    messages: Iterable[Mapping[str, Json]],
    model: str,
    tools: Sequence[Mapping[str, Json]] | None = None,
) -> dict[str, float]:
    """The same for use inside an event loop."""
    conversation = _conversation(messages)
    callable_tools = _tools(tools)
    settings = Settings.read()
    spec = find_model(model, models_of(settings))
    outcome = await way_of(spec).rated(conversation, callable_tools)
    if outcome.values is None:
        raise ModelFault(f"model {model}: no score: {outcome.reason}")
    return dict(zip(spec.attributes, outcome.values, strict=True))


def _conversation(messages: Iterable[Mapping[str, Json]]) -> Conversation:
    listed = [dict(message) for message in messages]
    for number, message in enumerate(listed):
        says = isinstance(message.get("content"), str) or message.get("tool_calls")
        if message.get("role") not in ROLES or not says:
            raise UserMistake(
                f"messages[{number}]: a role ({', '.join(ROLES)}) and a content that is text are needed"
            )
    row: Row = {"messages": msgspec.Raw(msgspec.json.encode(listed))}
    try:
        found = chat_in(row, "messages", KNOWN_NAMES)
    except Unreadable as error:
        raise UserMistake(f"messages: {error}") from error
    if not found or not is_turn(found[-1]):
        raise UserMistake("messages: the last one is what is rated, so it has to be the assistant's")
    return tuple(found)


def _tools(tools: Sequence[Mapping[str, Json]] | None) -> str | None:
    try:
        return None if tools is None else tools_in(msgspec.Raw(msgspec.json.encode(tools)))
    except NoCalls as error:
        raise UserMistake(f"tools: {error}") from error
