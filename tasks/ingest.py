"""Ingest: what there is to read. Runs every time, because only reading the inputs tells what they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

import assay.read.inventory
from assay.read.inventory import Inventory
from assay.storage.home import Home
from tasks.stage import may_pass


@task(
    name="ingest",
    task_run_name="ingest",
    persist_result=False,
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 5],
    retry_condition_fn=may_pass,
)
def ingest(
    inputs: Sequence[str],
    format: str,
    within: tuple[str, ...] | None,
    output: Path,
    say: Callable[[str], None],
    home: Home,
) -> Inventory:
    """The inventory of the inputs, each of which lies in a folder of ``within`` and outside ``output``.

    Those on S3 are copied to ``home``.
    """
    return assay.read.inventory.take_inventory(
        inputs, format=format, within=within, output=output, say=say, home=home
    )
