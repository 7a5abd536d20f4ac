"""One operated Assay for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from operation import Operation, operation


@pytest.fixture(scope="session")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operation]:
    with operation(tmp_path_factory.mktemp("operated")) as running:
        running.chats("nightly.jsonl", 3)
        # Made first and looked at last: meanwhile a minute goes by.
        running.deploy_fake(
            "scheduled", every_minute={"input": ["data/nightly.jsonl"], "output": "results/nightly"}
        )
        running.deploy_fake("fake")
        yield running
