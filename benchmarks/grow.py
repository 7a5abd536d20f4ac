"""What a run costs as its data grow: another rule, one new record, workers, and ten times the records.

Records are made of 2,000 short conversations, of which five answer each prompt, so that scoring is cheap and
all else is not.

- ``rule_over_polars``: a rerun with another rule and ``--export steerlm``, from the command to the files,
  over polars' scan, filter and sink of the first run's ``messages.jsonl``. CPU seconds of all processes.
- ``top_up``: a run with one new record beside 100,000 scored ones, over a rerun of that run that has
  nothing to do; both with Prefect. CPU seconds of all processes.
- ``cpu_per_million_10m_over_1m`` and ``peak_gb_10m`` (with ``--large``): CPU seconds a record of a first run
  of 10 million over those of the first run above, and the peak of the memory of all processes at 10 million
  (proportional set size: pages that several share count once).
- ``two_over_one``: a run with ``--workers 2`` whose scores are all stored and whose other artifacts are gone,
  over the same with ``--workers 1``. Seconds from the command to the files, the least of several runs:
  a machine that does other work beside makes both longer, and their ratio wrong. So the memory of these
  runs is not looked at either.

What was not measured is null in the file of figures, and its reason stands under ``why_null``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from large_runs import Taken, taken, write_data

RECORDS = 1_000_000
BESIDE = 100_000
LARGE = 10_000_000
RULE = "helpfulness >= 2"

_POLARS = """
import sys
import polars as pl
whole, kept = sys.argv[1:]
last = pl.col("scores").list.last().struct.field("helpfulness")
pl.scan_ndjson(whole).filter(last >= 2).sink_ndjson(kept)
"""

_WANTED = {
    "two_over_one": 0.7,
    "rule_over_polars": 2,
    "cpu_per_million_10m_over_1m": 1.15,
    "peak_gb_10m": 1.5,
    "top_up": 2.5,
}


#: A setting that has no effect in Prefect, but makes a rerun with nothing to do start Prefect all the same.
WITH_PREFECT = {"PREFECT_CLI_COLORS": "true"}


def curate(
    data: Path,
    output: Path,
    home: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
    look_at_memory: bool = True,
) -> Taken:
    """What a run takes from the command to its files."""
    command = [sys.executable, "-m", "flows.curate", "--input", str(data), "--output", str(output)]
    return taken([*command, *options], home=home, environment=environment, look_at_memory=look_at_memory)


def rule_over_polars(folder: Path, records: int) -> tuple[float, Taken, list[tuple[str, str]]]:
    """The ratio, what the first run took, and rows for the table."""
    data, home = folder / "data.jsonl", folder / "home"
    write_data(data, records)
    first = curate(data, folder / "whole", home, "--export", "messages", "--workers", "1")
    rows = [("first run, messages", str(first))]
    ratios = {}
    polars = taken(
        [sys.executable, "-c", _POLARS, str(folder / "whole/messages.jsonl"), str(folder / "polars.jsonl")],
        home=home,
    )
    rows.append(("polars: scan, filter, sink", str(polars)))
    for export in ("messages", "steerlm"):
        run = curate(data, folder / "kept", home, "--keep", RULE, "--export", export)
        ratios[export] = run.cpu_seconds / polars.cpu_seconds
        rows.append((f"{RULE}, {export}", f"{run}; {ratios[export]:.2f} of polars"))
    return ratios["steerlm"], first, rows


def two_over_one(folder: Path, records: int, runs: int) -> tuple[float, list[tuple[str, str]]]:
    """The ratio, and rows for the table."""
    data, home = folder / "data.jsonl", folder / "home"
    write_data(data, records)
    curate(data, folder / "out", home)
    rows, walls = [], dict[int, list[float]]()
    for _ in range(runs):
        for workers in (1, 2):
            for made in home.iterdir():
                if made.name != "scores":
                    shutil.rmtree(made) if made.is_dir() else made.unlink()
            shutil.rmtree(folder / "out")
            run = curate(data, folder / "out", home, "--workers", str(workers), look_at_memory=False)
            walls.setdefault(workers, []).append(run.wall_seconds)
            load = f"load of the last minute {os.getloadavg()[0]:.1f}"
            rows.append((f"{records:,} records, all but scoring, {workers} of workers", f"{run}; {load}"))
    return min(walls[2]) / min(walls[1]), rows


def top_up(folder: Path) -> tuple[float, list[tuple[str, str]]]:
    """The ratio, and rows for the table."""
    data, home = folder / "inputs", folder / "home"
    write_data(data / "a.jsonl", BESIDE)
    output = folder / "out"
    first = curate(data, output, home, "--workers", "1")
    new = {"messages": [{"role": "user", "content": "New?"}, {"role": "assistant", "content": "Brand new."}]}
    (data / "b.jsonl").write_text(json.dumps(new) + "\n", encoding="utf-8")
    more = curate(data, output, home, "--workers", "1")
    cached = curate(data, output, home, "--workers", "1", environment=WITH_PREFECT)
    rows = [
        (f"{BESIDE:,} records, scored for the first time", str(first)),
        ("one new record beside them", str(more)),
        ("the same again", str(cached)),
    ]
    return more.cpu_seconds / cached.cpu_seconds, rows


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as one object")
    parser.add_argument("--records", type=int, default=RECORDS, help="for rule_over_polars, two_over_one")
    parser.add_argument("--runs", type=int, default=2, help="runs for two_over_one")
    parser.add_argument("--only", choices=sorted(_WANTED), help="measure this figure alone")
    parser.add_argument("--large", action="store_true", help="also measure 10 million records: hours, 40 GB")
    options = parser.parse_args()
    figures: dict[str, float | None] = dict.fromkeys(_WANTED)
    why_null: dict[str, str] = {}
    rows: list[tuple[str, str]] = []

    def is_wanted(*names: str) -> bool:
        if options.only in (None, *names):
            return True
        why_null.update(dict.fromkeys(names, f"--only {options.only}"))
        return False

    if is_wanted("two_over_one"):
        with tempfile.TemporaryDirectory() as temporary:
            figures["two_over_one"], found = two_over_one(Path(temporary), options.records, options.runs)
            rows += found
    if is_wanted("top_up"):
        with tempfile.TemporaryDirectory() as temporary:
            figures["top_up"], found = top_up(Path(temporary))
            rows += found
    if is_wanted("rule_over_polars", "cpu_per_million_10m_over_1m", "peak_gb_10m"):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            figures["rule_over_polars"], first, found = rule_over_polars(folder / "some", options.records)
            rows += found
            shutil.rmtree(folder / "some")
            if options.large:
                write_data(folder / "data.jsonl", LARGE)
                tenfold = curate(
                    folder / "data.jsonl", folder / "whole", folder / "home", "--export", "messages"
                )
                rows.append((f"first run of {LARGE:,}, messages", str(tenfold)))
                per_record = first.cpu_seconds / options.records
                figures["cpu_per_million_10m_over_1m"] = tenfold.cpu_seconds / LARGE / per_record
                figures["peak_gb_10m"] = tenfold.peak_gb
            else:
                why_null |= dict.fromkeys(("cpu_per_million_10m_over_1m", "peak_gb_10m"), "without --large")
    if options.records != RECORDS:
        rows.append(("records", f"{options.records:,}: ratios are those of {RECORDS:,} only at that number"))
    print("\nA run as its data grow")
    for name, value in figures.items():
        shown = f"not measured: {why_null[name]}" if value is None else f"{value:.2f}"
        rows.append((name, f"{shown} (at most {_WANTED[name]} wanted)"))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"  {name:<{width}}  {text}")
    if options.json:
        options.json.write_text(json.dumps({**figures, "why_null": why_null}, indent=1) + "\n")


if __name__ == "__main__":
    main()
