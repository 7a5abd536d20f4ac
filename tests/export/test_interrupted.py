"""Files that were begun and not finished leave no trace in those of the next attempt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from handmade import Record, Turn, make
from stages import decide

from assay.core.digests import digest_of_file
from assay.core.schema import FullMessage, MessageFields
from assay.export import EXPORT, EXPORTS, AboutModel, AboutRun, PairChoice, ToExport
from assay.export.files import LinesFile, TableFile
from assay.export.folder import OutputFolder
from assay.export.splits import Split
from assay.select.rules import Rules
from assay.storage.home import Home
from assay.storage.stage import RunContext

NAMES = tuple(name for name in EXPORTS if not name.startswith("steerlm"))


class Killed(BaseException):
    """What nothing catches, as no program catches SIGKILL."""


def stops_after(writes: int, method: Callable[..., Any], done: list[int]) -> Callable[..., Any]:
    """The method, until all that are so made were called so many times together."""

    def limited(*arguments: Any, **named: Any) -> Any:
        if done[0] >= writes:
            raise Killed
        done[0] += 1
        return method(*arguments, **named)

    return limited


@pytest.mark.slow
def test_an_attempt_that_ends_at_any_write_changes_no_byte_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("user", "Q")
    called = FullMessage("assistant", "B", MessageFields(tool_calls='[{"id":"1","function":{"name":"f"}}]'))
    side = [json.dumps({"assay_side": side}) for side in ("chosen", "rejected")]
    records = [
        Record(1, (asked, ("assistant", "A")), (Turn((1.0,)),), rest=side[0]),
        Record(1, (asked, called), (Turn((2.0,)),), part=1, rest=side[1], tools="[]"),
        Record(2, (asked, ("assistant", "C")), (Turn((3.0,)),)),
        Record(3, (("user", "P"), ("assistant", "C")), (Turn((3.0,)),)),
    ]
    home = Home(tmp_path / "home")
    made = make(home, {"a.jsonl": [records[:2], records[2:]]}, ["reward"])
    filtered = decide(made.converted, made.scored, rules=Rules(), home=home)

    def attempt(staging: Path) -> dict[str, str]:
        staging.mkdir(exist_ok=True)
        given = ToExport(
            made.converted,
            made.scored,
            filtered,
            NAMES,
            OutputFolder(tmp_path / "published"),
            staging,
            pairs=PairChoice("all"),
            split=Split((("val", 0.5),)),
            about=AboutRun((AboutModel(None, "nobody", "f" * 32),)),
        )
        files = EXPORT.run(given, RunContext(home)).files
        assert set(files) == {str(one.relative_to(staging)) for one in staging.rglob("*") if one.is_file()}
        return {name: digest_of_file(staging / name) for name in files}

    writes = (LinesFile.write, TableFile.add, TableFile.finish)

    def killed(after: int, staging: Path) -> int:
        done = [0]
        with monkeypatch.context() as patched:
            for write in writes:
                owner = TableFile if write is not LinesFile.write else LinesFile
                patched.setattr(owner, write.__name__, stops_after(after, write, done))
            try:
                attempt(staging)
            except Killed:
                return done[0]
        return -1

    whole = attempt(tmp_path / "whole")
    assert {"trl/preference-train.jsonl", "messages-val.jsonl", "pairs.parquet", "README.md"} <= set(whole)
    after = 0
    while killed(after, staging := tmp_path / f"killed-{after}") >= 0:
        assert attempt(staging) == whole, after
        after += 7
    assert after > 40, "there is no such number of writes"
