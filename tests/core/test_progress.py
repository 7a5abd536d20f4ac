"""How busy the devices were, in words."""

from __future__ import annotations

import pytest

from assay.core.progress import Utilisation


@pytest.mark.parametrize(
    ("advances", "words"),
    [
        ([], ""),
        ([{"tokens": 4}], ""),
        ([{"worker": "a", "busy_seconds": 0.0}], ""),
        ([{"worker": "a", "busy_seconds": 5.0}, {"worker": "a", "busy_seconds": 4.0}], "1 device 90% busy"),
        (
            [{"worker": "a", "busy_seconds": 5.0}, {"worker": "b", "busy_seconds": 9.7}],
            "2 devices 50–97% busy",
        ),
        ([{"worker": "a", "busy_seconds": 5.0}, {"worker": "b", "busy_seconds": 5.0}], "2 devices 50% busy"),
        ([{"worker": "a", "busy_seconds": 10.2}], "1 device 100% busy"),
    ],
)
def test_each_worker_is_a_device(advances: list[dict[str, object]], words: str) -> None:
    utilisation = Utilisation()
    for details in advances:
        utilisation.add(details)
    assert utilisation.summary(10.0) == words
