"""What another rule costs on a million records: CPU seconds beside polars, and memory.

A million records (1.7 million turns) are made of 2,000 short conversations, of which five answer each prompt,
so that scoring is cheap. They are curated once without a rule. Then three rules are tried on the stored
scores: a plain threshold, a group rule and a percentile, each from the command to ``messages.jsonl``. Each is
held against a process that scans the messages.jsonl of the first run with polars, filters it in the same way,
and writes what is left. Figures are CPU seconds of all processes, and the peak of the memory of all processes
of a run (proportional set size: pages that several share count once).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import peers
from large_runs import Taken, taken, write_data

RECORDS = 1_000_000
LARGE = 5_000_000
RULES = {
    "threshold": "helpfulness >= 3",
    "group": "rank(helpfulness) == 1",
    "percentile": "percentile(helpfulness) > 50",
}

_POLARS = """
import sys
import polars as pl
whole, rule, kept = sys.argv[1:]
turns = pl.col("scores").list.last().struct.field("helpfulness")
scan = pl.scan_ndjson(whole)
if rule == "threshold":
    scan = scan.filter(turns >= 3)
elif rule == "group":
    prompt = pl.col("messages").list.head(pl.col("messages").list.len() - 1).hash()
    scan = scan.filter(turns == turns.max().over(prompt))
else:
    scan = scan.filter(turns > turns.median())
scan.sink_ndjson(kept)
"""


def curate(data: Path, output: Path, home: Path, *options: str) -> Taken:
    """What a run takes from the command to ``messages.jsonl``."""
    command = [sys.executable, "-m", "flows.curate", "--input", str(data), "--output", str(output)]
    return taken([*command, "--export", "messages", *options], home=home)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, help="write the figures to this file as one flat object")
    parser.add_argument("--records", type=int, default=RECORDS, help="Records of the first part.")
    parser.add_argument(
        "--large", action="store_true", help="Also measure the memory at five million records."
    )
    options = parser.parse_args()
    rows: list[tuple[str, str]] = []
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data, whole, home = folder / "data.jsonl", folder / "whole", folder / "home"
        write_data(data, options.records)
        first = curate(data, whole, home)
        rows.append(("without a rule, scored for the first time", str(first)))
        ratios, peaks = [], []
        for name, rule in RULES.items():
            run = curate(data, folder / "kept", home, "--keep", rule)
            script = [sys.executable, "-c", _POLARS]
            polars = taken(
                [*script, str(whole / "messages.jsonl"), name, str(folder / "polars.jsonl")], home=home
            )
            ratios.append(run.cpu_seconds / polars.cpu_seconds)
            peaks.append(run.peak_gb)
            rows.append((f"{rule}", f"{run}; polars {polars}; ratio {ratios[-1]:.2f}"))
        figures |= {"rule_over_polars": max(ratios), "peak_gb": max(peaks)}
        rows.append(("rule_over_polars, the largest", f"{max(ratios):.2f} (at most 3 wanted)"))
        rows.append(("peak_gb", f"{max(peaks):.2f} (below 2 wanted)"))
    if options.large:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_data(folder / "data.jsonl", LARGE)
            curate(folder / "data.jsonl", folder / "whole", folder / "home")
            large = [
                curate(folder / "data.jsonl", folder / "kept", folder / "home", "--keep", rule).peak_gb
                for rule in RULES.values()
            ]
            figures["peak_gb_5m"] = max(large)
            wanted = 1.3 * figures["peak_gb"]
            rows.append(("peak_gb_5m", f"{max(large):.2f} (at most {wanted:.2f} wanted)"))
    peers.report(f"Another rule on {options.records:,} records", rows, figures, options.json)


if __name__ == "__main__":
    main()
