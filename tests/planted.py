"""What somebody could have put in place of a file or a reply, and by which it is seen whether it ran."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


class Bomb:
    """Leaves a file behind where its pickle is loaded, by whatever loads pickles."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self._mark,)
