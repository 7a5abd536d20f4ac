"""``python killed_runs.py FOLDER STEP``: kill runs of all stages, each before another call.

A call is one that changes a disk. After each kill the run is made again, and what it came to is printed, a
line of JSON each. This process itself uses nothing of polars, whose threads do not survive a fork.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl
from converting import line
from killing import killed_at
from stage_runs import run, scored_in_this_process

from assay.core.digests import digest_of_bytes
from assay.storage.home import Home


def prepare(root: Path) -> Path:
    """Inputs and a model for a run in ``root``."""
    (root / "model").mkdir(parents=True)
    (root / "model" / "model.safetensors").write_bytes(b"weights" * 100)
    (root / "chats").mkdir()
    for name in ("a", "b"):
        lines = [line(f"question {n} of {name}", f"answer {n}", "more", f"more {n}") for n in range(4)]
        (root / "chats" / f"{name}.jsonl").write_bytes(b"\n".join([*lines, b"{no json"]))
    return root


def go(root: Path) -> None:
    """A run, and what it came to as ``root/outcome.json``."""
    scored_in_this_process(setattr)
    home = Home(root / "home")
    # Paths of inputs are in the results, so all runs read the same.
    made = run(root, str(root.parent / "inputs" / "chats"), inventory_home=home)
    stored = pl.concat([pl.read_parquet(path) for path in home.scores.glob("*/*.parquet")])["key"]
    counts = made.filtered.counts
    outcome = {
        "results": {name: digest_of_bytes(content) for name, content in sorted(made.results.items())},
        "read": counts.read,
        "turns": len(stored),
        "distinct": stored.n_unique(),
        "temporary": [path.name for path in home.root.rglob("*.tmp")],
        "said": [one for one in made.said if "damaged" in one or "gone or altered" in one],
    }
    (root / "outcome.json").write_text(json.dumps(outcome))


def forked(act: Callable[[], object]) -> None:
    """Do it in a child, which is to end well."""
    if killed_at(0, act):
        raise SystemExit("the child was killed")


def main(folder: Path, step: int) -> None:
    inputs = prepare(folder / "inputs")
    for number in itertools.count(1, step):
        root = folder / f"{number:04d}"
        root.mkdir()
        (root / "model").symlink_to(inputs / "model")
        was_killed = killed_at(number, partial(go, root))
        if was_killed:
            forked(partial(go, root))
        print(json.dumps([number, json.loads((root / "outcome.json").read_text())]), flush=True)
        shutil.rmtree(root)
        if not was_killed:
            return


if __name__ == "__main__":
    os.environ["POLARS_MAX_THREADS"] = "1"
    main(Path(sys.argv[1]), int(sys.argv[2]))
