"""What starting costs: CPU of all processes of a run, over that of importing Prefect.

    python benchmarks/start.py [--rounds 5] [--against CHECKOUT] [--json FILE]

A rerun with nothing to do is nearly all start, and so is a first run of one turn. Both are taken as CPU
seconds of the whole tree of processes, orphans included, and divided by what ``python -c "import
prefect.flows, prefect.client.orchestration"`` takes. Each is the least of all rounds: what else a machine
does makes CPU time longer and never shorter. ``--against`` measures another checkout (with a ``.venv`` of its
own, and the same Prefect in it) in the same rounds, turn about, so that before and after can be compared;
``over_other`` is then a figure of this one over the other's.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = "import prefect.flows, prefect.client.orchestration"
ONE_TURN = '{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello."}]}\n'
#: The figures, and what each is of.
RATIOS = {"cached_cpu_over_import_prefect": "cached", "first_cpu_over_import_prefect": "first"}
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Taken:
    """What a command took, with all that it started."""

    cpu_seconds: float
    wall_seconds: float


def taken(command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Taken:
    """Run the command, wait for everything that it left behind, and say what all of it took."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=cwd, env=dict(env), capture_output=True, text=True)
    wall = time.monotonic() - began
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    # Orphans are ours by now: this process is a subreaper.
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return Taken(cpu, wall)


@dataclass(frozen=True, slots=True)
class Checkout:
    """One state of the code, and the folder in which it keeps what it has scored."""

    name: str
    root: Path
    python: Path
    work: Path

    def _environment(self, home: Path) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "ASSAY_", "PYTHON"))}
        return {**kept, "ASSAY_HOME": str(home)}

    def _run(self, home: Path, output: Path) -> Taken:
        chats = self.work / "one.jsonl"
        chats.write_text(ONE_TURN)
        command = [str(self.python), "-m", "flows.curate", "--input", str(chats), "--output", str(output)]
        return taken([*command, "--workers", "1"], cwd=self.root, env=self._environment(home))

    def first(self, number: int) -> Taken:
        """A first run of one turn, with an empty ``ASSAY_HOME``."""
        home = self.work / f"home-{number}"
        result = self._run(home, self.work / f"out-{number}")
        shutil.rmtree(home)
        return result

    def cached(self) -> Taken:
        """A rerun for which every stage is cached."""
        home, output = self.work / "home", self.work / "out"
        if not output.exists():
            self._run(home, output)
        return self._run(home, output)

    def imports(self) -> Taken:
        """The unit: importing what any flow needs of Prefect."""
        env = self._environment(self.work / "home")
        return taken([str(self.python), "-c", IMPORTS], cwd=self.root, env=env)

    def help(self) -> Taken:
        """What is imported before a command line is understood."""
        env = self._environment(self.work / "home")
        return taken([str(self.python), "-m", "flows.curate", "--help"], cwd=self.root, env=env)


def main() -> None:
    """Measure, print a table, and write the figures where they are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout, with a .venv of its own")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory() as folder:
        checkouts = [Checkout("this", ROOT, Path(sys.executable), Path(folder) / "this")]
        if options.against:
            other = options.against.resolve()
            checkouts.append(Checkout("other", other, other / ".venv/bin/python", Path(folder) / "other"))
        figures = {}
        for checkout in checkouts:
            checkout.work.mkdir()
            checkout.cached()
        rounds: dict[str, dict[str, list[Taken]]] = {one.name: {} for one in checkouts}
        for number in range(options.rounds):
            for checkout in checkouts:
                for name, found in (
                    ("import_prefect", checkout.imports()),
                    ("help", checkout.help()),
                    ("cached", checkout.cached()),
                    ("first", checkout.first(number)),
                ):
                    rounds[checkout.name].setdefault(name, []).append(found)
        # One unit for both, as they import the same.
        unit = min(one.cpu_seconds for found in rounds.values() for one in found["import_prefect"])
        for checkout in checkouts:
            found = rounds[checkout.name]
            cpu = {name: min(one.cpu_seconds for one in runs) for name, runs in found.items()}
            wall = {name: min(one.wall_seconds for one in runs) for name, runs in found.items()}
            figures[checkout.name] = {
                **{name: cpu[of] / unit for name, of in RATIOS.items()},
                "cpu_seconds": cpu,
                "wall_seconds": wall,
            }
    if options.against:
        this, that = figures["this"], figures["other"]
        figures["over_other"] = {name: this[name] / that[name] for name in RATIOS}
    for name, figure in figures.items():
        print(f"{name}:")
        for key, value in figure.items():
            shown = (
                f"{value:.2f}"
                if isinstance(value, float)
                else ", ".join(f"{part} {seconds:.2f}" for part, seconds in value.items())
            )
            print(f"  {key:32} {shown}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
