"""Read the keys of reward services from Prefect's Secret blocks, in the process that asks for scores."""

from __future__ import annotations

from typing import Any

from prefect.blocks.system import Secret

from assay.core.errors import ModelFault


def read_secret_block(name: str) -> str:
    """The secret of that block; ModelFault where there is no such block."""
    try:
        block: Any = Secret.load(name)
    except ValueError:
        raise ModelFault(
            f"there is no Prefect Secret block {name!r}, which should hold a reward service's key; make it "
            "in Prefect's pages under Blocks, or name an environment variable with key_variable"
        ) from None
    return str(block.get())
