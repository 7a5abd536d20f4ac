"""Real runs under random faults end with the bytes of a run that nothing struck.

A file of conversations is curated with the starter model on two workers, again and again. While a run
works, one of its processes is killed, or stopped for some seconds, or the disk is full, or the clock jumps,
or a signal ends the run, or a second run wants the same output or the same scores. Between runs a bit flips
in any file of ASSAY_HOME, or its end is cut off. A round goes on until the command has exited with 0. After
each such exit the results are compared.

Printed: strikes, runs, how they ended, and eight counts that are all to be 0.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

import peers
import polars as pl
import strikes
from strikes import Clock, Place, Run

from assay.core.digests import digest_of_file

CONVERSATIONS = 300
#: Conversations that are drawn are no longer, so that a run takes seconds.
DRAWN_BYTES = 3000
#: Some are kept and some are dropped; the line that is no JSON is quarantined.
KEEP = "helpfulness >= 1.9"
OPTIONS = ("--workers", "2", "--shard-tokens", "2500", "--keep", KEEP)
#: They describe the run, and need not be alike.
OF_THE_RUN = frozenset({"manifest.json", "report.html"})
#: A run hangs that takes longer than that, and than so many undisturbed ones.
HANGS_AFTER_SECONDS = 240.0
HANGS_AFTER_RUNS = 10
#: How long processes may take to end after their run did.
LEAVE_SECONDS = 15.0
#: Runs in a row that are left alone and do not end with 0.
TRIES = 3
#: What scores may differ by where the same turns are put into other batches (docs/models.md).
TOLERANCE = 1e-5
TRACEBACK = "Traceback (most recent call last)"
#: What runs before a command listens to Ctrl-C.
BEFORE_A_COMMAND = {"flows/curate/__main__.py", "flows/command/main.py"}
PLACES = ["file", "line", "part"]
WORDS = "mill brook bridge hill thank you because however perhaps never maybe sorry bread price answer"


@dataclass
class Counts:
    """What a soak found. All are to be 0."""

    lost: int = 0
    twice: int = 0
    turns_scored_twice: int = 0
    byte_differences: int = 0
    leftovers: int = 0
    tracebacks: int = 0
    hung: int = 0
    stuck: int = 0


@dataclass
class Soak:
    """What happened so far."""

    counts: Counts = field(default_factory=Counts)
    strikes: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    rounds: int = 0
    compared: int = 0
    within_tolerance: int = 0
    rows: int = 0


def write_chats(path: Path, count: int, seed: int) -> int:
    """So many conversations of one to four turns, and a line that is no JSON; how many lines."""
    chance = random.Random(seed)

    def text(longest: int) -> str:
        return " ".join(chance.choices(WORDS.split(), k=chance.randint(3, longest))) + "."

    lines = []
    for number in range(count):
        messages = []
        for _ in range(chance.choice((1, 1, 2, 4))):
            messages.append({"role": "user", "content": f"{number}: {text(20)}"})
            messages.append({"role": "assistant", "content": text(80)})
        lines.append(json.dumps({"messages": messages}))
    lines.insert(count // 2, '{"messages": [')
    path.write_text("\n".join(lines) + "\n")
    return len(lines)


def draw_chats(path: Path, source: Path, count: int, seed: int) -> int:
    """So many short lines of a file of lines, in its order; how many they are."""
    lines = [line for line in source.read_bytes().splitlines(keepends=True) if len(line) <= DRAWN_BYTES]
    chosen = sorted(random.Random(seed).sample(range(len(lines)), min(count, len(lines))))
    path.write_bytes(b"".join(lines[number] for number in chosen))
    return len(chosen)


def results(folder: Path) -> dict[str, str]:
    """The digest of every result file."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): digest_of_file(path) for path in paths if path.name not in OF_THE_RUN
    }


def scores_agree(one: Path, other: Path) -> bool:
    """Whether two outputs have the same turns, with scores that differ by no more than other batches may."""
    left, right = (pl.read_parquet(folder / "scores.parquet") for folder in (one, other))
    if left.columns != right.columns or left.height != right.height:
        return False
    for name, kind in left.schema.items():
        if kind.is_float():
            limit = TOLERANCE * pl.max_horizontal(1.0, right[name].abs())
            apart = left.select((pl.col(name) - right[name]).abs() > limit).to_series()
            if apart.any() or (left[name].is_null() != right[name].is_null()).any():
                return False
        elif not left[name].equals(right[name], null_equal=True):
            return False
    return True


def scored_twice(home: Path) -> int:
    """How many turns have a score in more than one whole segment."""
    whole = [path for path in home.glob("scores/*/*.parquet") if digest_of_file(path) == path.stem]
    if not whole:
        return 0
    keys = pl.concat(pl.read_parquet(path).filter(pl.col("reason").is_null()).select("key") for path in whole)
    return keys.height - keys.n_unique()


def leftovers(place: Place, outputs: Iterable[str]) -> list[str]:
    """Processes and temporary files that are there after a run that ended well."""
    deadline = time.monotonic() + LEAVE_SECONDS
    while (alive := place.processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    found = [f"process {process.pid}" for process in alive]
    for process in alive:
        process.kill()
    ours = {"home", "tmp", *outputs, *(place.lock(name).name for name in outputs)}
    found += [path.name for path in place.folder.iterdir() if path.name not in ours]
    found += [f"tmp/{path.name}" for path in place.temporary.iterdir()]
    found += [str(path.relative_to(place.home)) for path in place.home.rglob("*.tmp")]
    return found


def is_of_pythons_start(said: str) -> bool:
    """Whether Ctrl-C came while Python itself started, before a command listened."""
    begins = ("Fatal Python error: init_", "Could not import runpy", f'{TRACEBACK}:\n  File "<frozen ')
    files = set(re.findall(rf'File "{re.escape(str(strikes.ROOT))}/([^".][^"]*)"', said))
    return said.startswith(begins) and said.endswith("\nKeyboardInterrupt\n") and files <= BEFORE_A_COMMAND


class Soaking:
    """Rounds of struck runs, held against one that nothing struck."""

    def __init__(self, place: Place, undisturbed: Place, chance: random.Random, *, has_disk: bool) -> None:
        self.soak = Soak()
        self._place = place
        self._undisturbed = undisturbed
        self._chance = chance
        self._strikes = {
            **strikes.STRIKES,
            **(strikes.NEEDS_A_DISK if has_disk else {}),
            **(strikes.NEEDS_A_CLOCK if place.clock else {}),
        }
        self._may_regroup = False
        self._outputs = {"out"}
        self._seconds: dict[bool, float] = {}
        """How long a run takes that nothing strikes: of a new home, and of one with scores."""
        self._longest = 0.0
        self._expected: dict[str, str] = {}
        self._records = pl.DataFrame()

    def begin(self, lines: int | None) -> None:
        """Run once undisturbed. ``lines`` says how many lines were written, if that is known."""
        began = time.monotonic()
        code, said = self._undisturbed.start().ended(HANGS_AFTER_RUNS * HANGS_AFTER_SECONDS)
        self._longest = time.monotonic() - began
        self._seconds = {True: self._longest, False: self._longest / 2}
        if code != 0:
            raise SystemExit(f"the undisturbed run exited with {code}:\n{said}")
        output = self._undisturbed.output()
        self._expected = results(output)
        self._records = pl.read_parquet(output / "decisions.parquet").select(PLACES)
        rows = json.loads((output / "manifest.json").read_bytes())["rows"]
        read = rows["kept"] + rows["dropped"] + rows["quarantined"]
        self.soak.rows = self._records.height
        if read != self._records.height or (lines is not None and lines != read):
            raise SystemExit(f"{lines} lines were written, {read} counted, {self._records.height} decided on")
        say(f"undisturbed: {self._seconds[True]:.1f} s, {read} rows, {', '.join(sorted(self._expected))}")

    def round(self) -> None:
        """Strike some runs, then leave the command alone until it has exited with 0."""
        self.soak.rounds += 1
        if self._chance.random() < 0.7:
            self._anew()
        is_finished = False
        for _ in range(self._chance.randint(1, 5)):
            if self._chance.random() < 0.25:
                is_finished = not self._damage() and is_finished
            else:
                is_finished = self._struck_run()
        for _ in range(TRIES):
            if is_finished:
                return
            is_finished = self._end(self._start(), alone=True)
        if not is_finished:
            self.soak.counts.stuck += 1
            self._keep("does not come to an end")

    def _anew(self) -> None:
        for folder in (self._place.home, *(self._place.output(name) for name in self._outputs)):
            shutil.rmtree(folder, ignore_errors=True)
        for name in self._outputs:
            self._place.lock(name).unlink(missing_ok=True)
        self._outputs = {"out"}
        self._may_regroup = False
        if self._place.clock:
            self._place.clock.set(0)

    def _damage(self) -> bool:
        """Strike one to three files; whether there were any."""
        for _ in range(self._chance.randint(1, 3)):
            done = strikes.damage(self._place.home, self._chance)
            if done is None:
                return False
            self.soak.strikes["damage a file"] += 1
            # Of a plan that is damaged the rest is put into other batches, which may move a last digit.
            self._may_regroup |= "plans/" in done
            say(f"  {done}")
        return True

    def _start(self, output: str = "out") -> Run:
        self.soak.runs += 1
        return self._place.start(output)

    def _struck_run(self) -> bool:
        """Whether the run, or one of two, exited with 0."""
        is_new = not any(self._place.home.glob("scores/*/*.parquet"))
        run, began, is_struck = self._start(), time.monotonic(), False
        if self._chance.random() < 0.15:
            return self._with_a_rival(run, self._seconds[is_new])
        for _ in range(self._chance.choice((1, 1, 1, 2))):
            if run.is_over(self._chance.uniform(0, self._seconds[is_new])):
                break
            name = self._chance.choice(list(self._strikes))
            done = self._strikes[name](run, self._chance)
            if done is not None:
                is_struck = True
                self.soak.strikes[name] += 1
                say(f"  {done}")
        is_finished = self._end(run)
        if not is_struck and is_finished:
            self._seconds[is_new] = time.monotonic() - began
        return is_finished

    def _with_a_rival(self, run: Run, seconds: float) -> bool:
        output = self._chance.choice(("out", "rival"))
        self._outputs.add(output)
        run.is_over(self._chance.uniform(0, seconds))
        rival = self._start(output)
        self.soak.strikes["a second run"] += 1
        say(f"  a second run into {output}")
        if self._chance.random() < 0.5 and not run.is_over(self._chance.uniform(0, seconds)):
            run.process.kill()
            self.soak.strikes["kill the driver"] += 1
            say("  kill -9 of the first")
        ends = [self._end(one, with_rival=True) for one in (run, rival)]
        is_finished = ends[0] or (ends[1] and output == "out")
        if any(ends):
            self._check_leftovers()
        return is_finished

    def _end(self, run: Run, *, alone: bool = False, with_rival: bool = False) -> bool:
        """Wait for the run's end and check what it left; whether it exited with 0."""
        code, said = run.ended(max(HANGS_AFTER_SECONDS, HANGS_AFTER_RUNS * self._longest))
        counts = self.soak.counts
        self.soak.ends["hung" if code is None else str(code)] += 1
        last = said.strip().splitlines()[-1:] or [""]
        say(f"  exit {code}{' (left alone)' if alone else ''}: {'' if code == 0 else last[0][:300]}")
        if code is None:
            counts.hung += 1
            self._keep("hung", said)
        if TRACEBACK in said and not is_of_pythons_start(said):
            counts.tracebacks += said.count(TRACEBACK)
            self._keep("traceback", said)
        self._may_regroup |= "it kills its worker" in said
        if code != 0:
            return False
        self._check_results(run, said)
        if not with_rival:
            self._check_leftovers()
        return True

    def _check_results(self, run: Run, said: str) -> None:
        counts, output = self.soak.counts, self._place.output(run.output)
        self.soak.compared += 1
        found = results(output)
        names = [name for name in {*found, *self._expected} if found.get(name) != self._expected.get(name)]
        if names and self._may_regroup and scores_agree(output, self._undisturbed.output()):
            self.soak.within_tolerance += 1
        elif names:
            counts.byte_differences += len(names)
            self._keep(f"differ: {names}", said)
        records = pl.read_parquet(output / "decisions.parquet").select(PLACES)
        lost = self._records.join(records, on=PLACES, how="anti").height
        twice = records.height - records.n_unique()
        again = scored_twice(self._place.home)
        counts.lost += lost
        counts.twice += twice
        counts.turns_scored_twice += again
        if lost or twice or again:
            self._keep(f"{lost} lost, {twice} twice, {again} turns scored twice", said)

    def _check_leftovers(self) -> None:
        left = leftovers(self._place, self._outputs)
        self.soak.counts.leftovers += len(left)
        if left:
            self._keep(f"left over: {left}")
            for path in (*self._place.temporary.iterdir(), *self._place.home.rglob("*.tmp")):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _keep(self, what: str, said: str = "") -> None:
        """Say what was found, and keep a copy of everything for whoever looks for the cause."""
        kept = Path(tempfile.mkdtemp(prefix="assay-soak-found-", dir=self._undisturbed.folder.parent.parent))
        # What is still running may remove a file meanwhile.
        with suppress(shutil.Error):
            shutil.copytree(self._place.folder, kept / "place", symlinks=True, dirs_exist_ok=True)
        (kept / "said").write_text(said)
        say(f"FOUND in round {self.soak.rounds}: {what}; see {kept}")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Soak for so many minutes; exit 1 where anything was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="begin no round after so many (default: 20)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the strikes and of the conversations")
    parser.add_argument("--data", type=Path, help="a chat file (default: conversations of this script's own)")
    parser.add_argument(
        "--lines",
        type=int,
        help="draw so many short lines of --data by the seed, and check that all are counted",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as one flat object")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="assay-soak-") as temporary:
        folder = Path(temporary)
        lines = None
        chats = folder / "chats.jsonl"
        if chosen.data is None:
            lines = write_chats(chats, CONVERSATIONS, chosen.seed)
        elif chosen.lines is not None:
            lines = draw_chats(chats, chosen.data, chosen.lines, chosen.seed)
        else:
            chats = chosen.data
        struck, undisturbed = folder / "struck", folder / "undisturbed"
        struck.mkdir()
        undisturbed.mkdir()
        clock = Clock.made(folder / "clock") if Clock.can_be_made() else None
        with strikes.small_disk(struck) as has_disk:
            soaking = Soaking(
                Place(struck, chats.resolve(), OPTIONS, clock),
                Place(undisturbed, chats.resolve(), OPTIONS),
                random.Random(chosen.seed),
                has_disk=has_disk,
            )
            soaking.begin(lines)
            deadline = time.monotonic() + 60 * chosen.minutes
            while time.monotonic() < deadline:
                say(f"round {soaking.soak.rounds + 1}")
                soaking.round()
    left_out = [
        *([] if has_disk else ["a full disk: no tmpfs can be mounted here"]),
        *([] if clock else ["the clock: there is no C compiler here"]),
    ]
    report(soaking.soak, chosen.minutes, chosen.seed, left_out=left_out, to=chosen.json)
    if any(vars(soaking.soak.counts).values()):
        raise SystemExit(1)


def report(soak: Soak, minutes: float, seed: int, *, left_out: list[str], to: Path | None) -> None:
    """Print what a soak came to."""
    names = [one.name for one in fields(Counts)]
    counts = {name: getattr(soak.counts, name) for name in names}
    rows = [
        ("rounds", str(soak.rounds)),
        ("strikes", f"{soak.strikes.total()}: {_listed(soak.strikes)}"),
        *(("left out", one) for one in left_out),
        ("runs", str(soak.runs)),
        ("runs by exit code", _listed(soak.ends)),
        ("results compared", f"{soak.compared}, of {soak.rows} rows each"),
        ("after a damaged plan, equal within tolerance", str(soak.within_tolerance)),
        *((re.sub("_", " ", name), str(count)) for name, count in counts.items()),
    ]
    figures = {
        "minutes": minutes,
        "strikes": float(soak.strikes.total()),
        "runs": float(soak.runs),
        "compared": float(soak.compared),
        "rows": float(soak.rows),
        **{name: float(count) for name, count in counts.items()},
    }
    peers.report(f"{minutes:g} minutes of random faults, seed {seed}", rows, figures, to)


def _listed(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))


if __name__ == "__main__":
    main()
