"""Whole runs on this machine's GPUs: the scores of a CPU, and nothing twice."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import tiny
import torch
from curate_runs import OF_THE_RUN
from patience import PATIENCE_SECONDS
from places import ROOT
from ran import Ran

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.cuda.is_available() or importlib.util.find_spec("dask_cuda") is None,
        reason="torch sees no GPU, or dask-cuda is not installed",
    ),
]


def chats(folder: Path, count: int) -> Path:
    """``count`` conversations of one to three turns, of various lengths."""
    lines = []
    for number in range(count):
        messages = []
        for turn in range(1 + number % 3):
            messages.append({"role": "user", "content": f"Question {turn} of {number}? " * (1 + number % 11)})
            messages.append({"role": "assistant", "content": f"Answer {number * turn}. " * (1 + number % 37)})
        lines.append(json.dumps({"messages": messages}))
    path = folder / "chats.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def started(folder: Path, data: Path, model: Path, *, home: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows.curate", "--input", str(data), "--model", str(model)]
    command += ["--dtype", "float32", "--output", str(folder / f"out-{home}")]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "ASSAY_HOME": str(folder / home), **environment},
    )


def ended(run: subprocess.Popen[str], folder: Path, home: str) -> Ran:
    out, err = run.communicate(timeout=PATIENCE_SECONDS)
    assert run.returncode == 0, (out + err)[-4000:]
    return Ran(run.returncode, out, err, folder / f"out-{home}")


def files(ran: Ran) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in ran.output.iterdir() if one.name not in OF_THE_RUN}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("gpu-runs")
    chats(made, 3000)
    tiny.reward_model(made / "model", max_tokens=2048)
    return made


@pytest.fixture(scope="module")
def on_gpu(folder: Path) -> Ran:
    return ended(
        started(folder, folder / "chats.jsonl", folder / "model", home="first"), folder, home="first"
    )


def test_a_run_takes_the_gpu_and_scores_every_turn_once(folder: Path, on_gpu: Ran) -> None:
    (device,) = on_gpu.manifest["devices"]
    assert device["device"].startswith("GPU 0 ("), device
    assert device["turns"] == len(pl.read_parquet(on_gpu.output / "scores.parquet"))
    before = files(on_gpu)
    again = ended(started(folder, folder / "chats.jsonl", folder / "model", home="first"), folder, "first")
    assert files(again) == before
    assert again.manifest["turns"]["scored"] == 0


def test_a_run_on_the_cpu_gives_the_same_scores(folder: Path, on_gpu: Ran) -> None:
    run = started(folder, folder / "chats.jsonl", folder / "model", home="cpu", CUDA_VISIBLE_DEVICES="")
    on_cpu = ended(run, folder, "cpu")
    assert {one["device"] for one in on_cpu.manifest["devices"]} == {"CPU"}
    ours, theirs = (pl.read_parquet(one.output / "scores.parquet") for one in (on_gpu, on_cpu))
    assert len(ours) == len(theirs)
    for name in ("helpfulness", "correctness"):
        assert (ours[name] - theirs[name]).abs().max() < 1e-4  # type: ignore[operator]
