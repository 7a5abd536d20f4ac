"""What the flow costs beside the engine: Prefect, Dask, files, the store, planning, filter and export.

The same ShareGPT conversations, twice a round, in turn: scored by the engine alone in one process, and
curated by ``python -m flows.curate`` on one worker with everything it does, from an empty ``ASSAY_HOME``.
CPU seconds of all processes. What a run of one conversation costs (starting Prefect's server, Dask, torch
and the model) is the fixed start, and is taken off.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers

CONVERSATIONS = 400
ROUNDS = 3


def engine_seconds(sample: Path) -> float:
    """CPU seconds of scoring every turn of the sample, model loaded and warm, nothing else."""
    command = [sys.executable, __file__, "--engine-alone", str(sample)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def engine_alone(sample: Path) -> None:
    """Print the CPU seconds that the engine spends on the sample in this process."""
    from assay.core.schema import Message, turn_positions
    from assay.rewards.local.model import open_model
    from assay.rewards.local_spec import local_spec
    from assay.rewards.protocol import Request

    requests = []
    for line in sample.open(encoding="utf-8"):
        messages = tuple(Message(one["role"], one["content"]) for one in json.loads(line)["messages"])
        requests.append(Request(messages, tuple(range(len(turn_positions(messages))))))
    model = open_model(local_spec("starter"))
    model.score(requests[:2])
    start = time.process_time()
    model.score(requests)
    print(time.process_time() - start)


def flow_seconds(sample: Path) -> float:
    """CPU seconds of a whole run and of every process it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(
            [
                *(sys.executable, "-m", "flows.curate"),
                *("--input", str(sample), "--output", f"{temporary}/out", "--workers", "1"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "ASSAY_HOME": f"{temporary}/home"},
            cwd=Path(__file__).parent.parent,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write_sample(lines: Path, folder: Path) -> tuple[Path, Path]:
    """Distinct conversations as ``messages`` rows, and the first of them alone."""
    roles = {"human": "user", "user": "user", "system": "system"}
    rows: dict[str, None] = {}
    for line in lines.open(encoding="utf-8"):
        turns = json.loads(line)["conversations"]
        messages = [{"role": roles.get(t["from"], "assistant"), "content": t["value"]} for t in turns]
        whole = all(message["content"].strip() for message in messages)
        if whole and messages and messages[0]["role"] == "user" and len(messages) > 1:
            rows.setdefault(json.dumps({"messages": messages}, ensure_ascii=False))
        if len(rows) == CONVERSATIONS:
            break
    sample, one = folder / "sample.jsonl", folder / "one.jsonl"
    sample.write_text("\n".join(rows) + "\n", encoding="utf-8")
    one.write_text(next(iter(rows)) + "\n", encoding="utf-8")
    return sample, one


def main() -> None:
    """Measure, and print the table."""
    options = peers.options(__doc__.splitlines()[0] if __doc__ else "")
    with tempfile.TemporaryDirectory() as temporary:
        sample, one = write_sample(peers.sharegpt(options.data), Path(temporary))
        rounds = [(engine_seconds(sample), flow_seconds(sample), flow_seconds(one)) for _ in range(ROUNDS)]
    ratios = [(whole - start) / engine for engine, whole, start in rounds]
    figures = {"flow_over_engine": statistics.median(ratios)}
    rows = [
        ("engine alone, CPU seconds", " ".join(f"{engine:.1f}" for engine, _, _ in rounds)),
        ("whole run, CPU seconds", " ".join(f"{whole:.1f}" for _, whole, _ in rounds)),
        ("run of one conversation (fixed start)", " ".join(f"{start:.1f}" for _, _, start in rounds)),
        ("flow_over_engine, each round", " ".join(f"{ratio:.3f}" for ratio in ratios)),
        ("flow_over_engine", f"{figures['flow_over_engine']:.3f} (at most 1.05 wanted)"),
    ]
    peers.report(
        f"{CONVERSATIONS} ShareGPT conversations, every turn, one worker", rows, figures, options.json
    )


if __name__ == "__main__":
    alone = argparse.ArgumentParser(add_help=False)
    alone.add_argument("--engine-alone", type=Path)
    known, _ = alone.parse_known_args()
    if known.engine_alone:
        engine_alone(known.engine_alone)
    else:
        main()
