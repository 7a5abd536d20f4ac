"""What a run sends to Prefect besides its artifacts: tags to find it by, an event at its end, a notification.

The results need none of it: a run does not fail where the server is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import Any
from uuid import UUID

from prefect import Flow, State
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event

from assay.config.settings import Settings
from assay.storage.run_manifest import RunManifest
from flows.server.endings import EndKind, kind_in, without_kinds
from tasks.pages import where_reachable

COMPLETED_EVENT = "assay.curate.completed"

_MOST_DATA_TAGS = 3


def tag_run(run: UUID, *, models: Sequence[str], inputs: Sequence[str]) -> None:
    """Add the models and the inputs to the run's tags, as the person named them."""
    named = [f"data:{PurePath(given).name}" for given in inputs[:_MOST_DATA_TAGS]]
    with where_reachable(), get_client(sync_client=True) as client:
        known = without_kinds(client.read_flow_run(run).tags)
        client.update_flow_run(run, tags=sorted({*known, *(f"model:{one}" for one in models), *named}))


def announce_completed(manifest: RunManifest, *, output: str) -> None:
    """Emit the event that automations can wait for. It holds counts, and no text from the data."""
    emit_event(
        event=COMPLETED_EVENT,
        resource={"prefect.resource.id": f"assay.output.{output}", "prefect.resource.name": output},
        payload={
            "output": output,
            "complete": manifest.complete,
            "rows": asdict(manifest.rows),
            "turns": asdict(manifest.turns),
            "model": manifest.model.name if manifest.model else None,
            "models": {alias: one.name for alias, one in manifest.models.items()},
        },
    )


def notify(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A state hook: send a notification that a run of a deployment did not finish.

    ASSAY_NOTIFICATION_BLOCK names the Prefect block that sends it, such as ``slack-webhook/ops``.
    """
    _notify(flow, flow_run, state, "")


def notify_of_resumable(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """``notify``, for a flow whose runs can go on where they stopped. A retry mends no mistake."""
    is_mistake = kind_in(state.message) is EndKind.MISTAKE
    hint = "" if is_mistake else "What is finished is kept, and a retry goes on from there."
    _notify(flow, flow_run, state, hint)


def _notify(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any], hint: str) -> None:
    name = Settings.read().notification_block
    if name is None or flow_run.deployment_id is None:
        return
    with where_reachable():
        block: Any = Block.load(name)
        if not isinstance(block, NotificationBlock):
            raise ValueError(f"ASSAY_NOTIFICATION_BLOCK: {name} is no notification block")
        with get_client(sync_client=True) as client:
            # A worker that saw a run die knows the name that Prefect made up, not the one that it took.
            name_now = client.read_flow_run(flow_run.id).name
        # Prefect's types name only the coroutine. Outside an event loop this is a plain function.
        send: Any = block.notify
        send(
            subject=f"{flow.name}: {(state.name or '').lower()}",
            body="\n\n".join(filter(None, [f"{name_now}: {state.message or state.name}", hint])),
        )
