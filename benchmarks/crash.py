"""A run killed twice with ``kill -9`` ends with the same bytes as one that nobody disturbed.

1,500 ShareGPT conversations are curated on two workers. One run is left alone. Another one's driver is
killed after its third segment, started again, killed again some segments later, and then run to the end.
Printed: whether every file of the two exports is the same to the byte (``manifest.json``, which reports
the run, excepted), how many turns of finished segments were scored again, and which processes were left.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import peers
import polars as pl
import psutil

CONVERSATIONS = 1500
KILLED_AT_SEGMENTS = (3, 7)


def start(sample: Path, folder: Path) -> subprocess.Popen[bytes]:
    """A run of the command line, its home and output below ``folder``."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "flows.curate", "--input", str(sample), "--output", str(folder / "out")),
            *("--export", "steerlm", "--export", "messages", "--workers", "2"),
        ],
        stdout=sys.stderr,
        env={**os.environ, "ASSAY_HOME": str(folder / "home")},
        cwd=Path(__file__).parent.parent,
    )


def segments(folder: Path) -> list[Path]:
    """The whole segments in the store."""
    return sorted((folder / "home" / "scores").glob("*/*.parquet"))


def stored_keys(folder: Path) -> pl.Series:
    """The keys of the turns that have a score in the store, each segment's counted."""
    scored = [pl.read_parquet(path).filter(pl.col("reason").is_null()) for path in segments(folder)]
    return pl.concat(scored)["key"]


def killed(sample: Path, folder: Path, at_segments: int) -> list[psutil.Process]:
    """Start a run, kill its driver once so many segments are stored; what is alive ten seconds later."""
    run = start(sample, folder)
    family: set[psutil.Process] = set()
    while len(segments(folder)) < at_segments:
        if run.poll() is not None:
            raise SystemExit(f"the run ended by itself with {run.returncode}, before it could be killed")
        family |= set(psutil.Process(run.pid).children(recursive=True))
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    return alive


def digests(folder: Path) -> dict[str, str]:
    """The digest of every result file, by its manifest."""
    files = json.loads((folder / "out" / "manifest.json").read_bytes())["files"]
    return {name: file["digest"] for name, file in files.items()}


def main() -> None:
    """Run, kill, compare."""
    options = peers.options(__doc__.splitlines()[0] if __doc__ else "")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sample = folder / "sample.jsonl"
        with peers.sharegpt(options.data).open("rb") as lines:
            sample.write_bytes(b"".join(islice(lines, CONVERSATIONS)))
        left: list[psutil.Process] = []
        stored = []
        for at_segments in KILLED_AT_SEGMENTS:
            left += killed(sample, folder / "killed", at_segments)
            stored.append(len(stored_keys(folder / "killed")))
        if start(sample, folder / "killed").wait() or start(sample, folder / "alone").wait():
            raise SystemExit("a run that was to go to its end did not")
        resumed = json.loads((folder / "killed" / "out" / "manifest.json").read_bytes())["turns"]["scored"]
        whole = json.loads((folder / "alone" / "out" / "manifest.json").read_bytes())["turns"]["scored"]
        kept = stored_keys(folder / "killed")
        twice = len(kept) - kept.n_unique()
        same = digests(folder / "killed") == digests(folder / "alone")
        mine = str(folder)
        left += [
            one for one in psutil.process_iter(["cmdline"]) if mine in " ".join(one.info["cmdline"] or ())
        ]
        figures = {
            "same_bytes": float(same),
            "scored_again": float(twice + stored[-1] + resumed - whole),
            "processes_left": float(len(left)),
        }
        rows = [
            ("turns of the undisturbed run", str(whole)),
            ("turns stored when killed", ", ".join(map(str, stored))),
            ("turns scored by the run that finished", str(resumed)),
            ("turns of finished segments scored again", f"{figures['scored_again']:.0f}"),
            ("files, the same to the byte", f"{', '.join(digests(folder / 'alone'))}: {same}"),
            ("processes left over", str(len(left))),
        ]
    peers.report(f"{CONVERSATIONS} ShareGPT conversations, killed twice", rows, figures, options.json)


if __name__ == "__main__":
    main()
