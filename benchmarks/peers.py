"""Peers and data that a benchmark is held against, fetched from the package index when they are needed."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path


def options(description: str) -> argparse.Namespace:
    """The command line that every benchmark has: where the data is, where the figures go."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("ASSAY_TEST_DATA"),
        help="folder with get_sharegpt.py in it (default: $ASSAY_TEST_DATA)",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as one flat object")
    chosen = parser.parse_args()
    if chosen.data is None or not (chosen.data / "get_sharegpt.py").is_file():
        print("skipped: no data folder; name one with --data or in ASSAY_TEST_DATA")
        sys.exit(0)
    return chosen


def sharegpt(data: Path) -> Path:
    """The 17,671 ShareGPT conversations as JSON lines, fetched once into the temporary folder."""
    folder = Path(tempfile.gettempdir()) / "assay-benchmark-sharegpt"
    lines = folder / "sharegpt.jsonl"
    if not lines.is_file():
        subprocess.run([sys.executable, data / "get_sharegpt.py", folder], check=True, stdout=sys.stderr)
    return lines


def importable(*requirements: str) -> None:
    """Make packages importable that the project itself does not need; they go into the temporary folder."""
    folder = Path(tempfile.gettempdir()) / "assay-benchmark-peers"
    mark = folder / f".{'+'.join(requirements).replace('/', '_')}"
    if not mark.exists():
        # Without their dependencies: torch and transformers are those of this environment.
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*install, *requirements], check=True, stdout=sys.stderr)
        mark.touch()
    sys.path.append(str(folder))


def environment(name: str, *requirements: str) -> Path:
    """The Python of an environment of its own with ``requirements``, built once in the temporary folder.

    What they do not bring (torch) is found in this environment, behind everything that they do bring.
    Raises ``CalledProcessError`` where pip cannot install them; it has then told why.
    """
    folder = Path(tempfile.gettempdir()) / f"assay-benchmark-{name}"
    python = folder / "bin" / "python"
    mark = folder / f".{'+'.join(requirements)}"
    if not mark.exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *requirements], check=True, stdout=sys.stderr
        )
        mark.touch()
    question = "import sysconfig; print(sysconfig.get_path('purelib'))"
    inside = subprocess.run([python, "-c", question], check=True, stdout=subprocess.PIPE, text=True).stdout
    # Anew each time: what built it may have been another environment, that is gone or has another torch.
    (Path(inside.strip()) / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def report(
    title: str, rows: Sequence[tuple[str, str]], figures: Mapping[str, float], to: Path | None
) -> None:
    """Print a small table, and write the figures where they were asked for."""
    print(f"\n{title}")
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")
    if to:
        to.write_text(json.dumps(figures, indent=1) + "\n")
