"""How fast chat files become records: inventory and conversion, with digests, turn keys and Parquet.

Two inputs: ShareGPT's 17,671 long conversations, fetched by ``get_sharegpt.py`` of the data folder, and
500,000 rows of 200 bytes made here. Beside them, what decoding alone costs: msgspec on every line, into
structs. Each is measured in a process of its own, in CPU seconds of all its threads; the fastest of
several runs counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import peers

SHORT_ROWS = 500_000
SHORT_ROW_BYTES = 200


class _Wire(msgspec.Struct):
    speaker: str | None = msgspec.field(name="from", default=None)
    value: str | None = None
    role: str | None = None
    content: str | None = None


class _Row(msgspec.Struct):
    conversations: list[_Wire] = []
    messages: list[_Wire] = []


def decoding(path: Path) -> int:
    """Decode every line and throw it away: the ceiling."""
    decode = msgspec.json.Decoder(_Row).decode
    lines = 0
    with path.open("rb") as file:
        for line in file:
            decode(line)
            lines += 1
    return lines


def conversion(path: Path) -> int:
    """Take the inventory and convert, into an empty home."""
    from assay.read.convert import ToConvert, convert
    from assay.read.inventory import Inputs, take_inventory
    from assay.storage.home import Home
    from assay.storage.stage import RunContext

    with tempfile.TemporaryDirectory() as folder:
        context = RunContext(Home(Path(folder)))
        converted = convert(ToConvert(take_inventory(Inputs((str(path),)), context)), context)
    return converted.counts.read


MEASURED: dict[str, Callable[[Path], int]] = {"decoding": decoding, "conversion": conversion}


def measure(name: str, path: Path) -> dict[str, float]:
    """CPU seconds, records and peak memory of ``name`` on ``path``; called in a process of its own."""
    import assay.read.convert  # noqa: F401  (imports are not what is measured)

    before = time.process_time()
    records = MEASURED[name](path)
    seconds = time.process_time() - before
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"cpu_seconds": seconds, "records": records, "peak_gb": peak_gb}


def measured(name: str, path: Path, times: int) -> dict[str, float]:
    """The fastest of ``times`` runs."""
    runs = [
        json.loads(
            subprocess.run(
                [sys.executable, __file__, "--measure", name, str(path)],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
        )
        for _ in range(times)
    ]
    return min(runs, key=lambda run: run["cpu_seconds"])


def write_short_rows(path: Path) -> None:
    words = ["mill", "brook", "bridge", "hill", "barn", "gate", "lane", "well"]
    with path.open("w") as file:
        for number in range(SHORT_ROWS):
            one, other = words[number % 8], words[number // 8 % 8]
            row = {
                "id": number,
                "messages": [
                    {"role": "user", "content": f"How far is the {one} from the {other}?"},
                    {"role": "assistant", "content": f"About {number % 90} minutes on foot."},
                ],
            }
            text = json.dumps(row)
            padding = "." * (SHORT_ROW_BYTES - 1 - len(text) - len(', "note": ""'))
            file.write(f'{text[:-1]}, "note": "{padding}"}}\n')


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("ASSAY_TEST_DATA"),
        help="folder with get_sharegpt.py in it (default: $ASSAY_TEST_DATA)",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as one flat object")
    parser.add_argument("--times", type=int, default=3, help="runs of each")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "PATH"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measure(chosen.measure[0], Path(chosen.measure[1]))))
        return

    figures: dict[str, float] = {}
    has_data = chosen.data is not None and (chosen.data / "get_sharegpt.py").is_file()
    if not has_data:
        print("ShareGPT skipped: no data folder; name one with --data or in ASSAY_TEST_DATA")
    else:
        path = peers.sharegpt(chosen.data)
        mb = path.stat().st_size / 1e6
        decoded, converted = (measured(name, path, chosen.times) for name in MEASURED)
        print(f"ShareGPT: {mb:.0f} MB, {converted['records']:.0f} conversations")
        print_against(converted, decoded, amount=mb, unit="MB")
        figures["mb_per_cpu_second"] = mb / converted["cpu_seconds"]
        figures["decoding_mb_per_cpu_second"] = mb / decoded["cpu_seconds"]
        figures["peak_gb"] = converted["peak_gb"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "short.jsonl"
        write_short_rows(path)
        decoded, converted = (measured(name, path, chosen.times) for name in MEASURED)
    print(f"Short rows: {SHORT_ROWS} of {SHORT_ROW_BYTES} bytes")
    print_against(converted, decoded, amount=SHORT_ROWS, unit="rows")
    figures["short_rows_per_cpu_second"] = SHORT_ROWS / converted["cpu_seconds"]
    figures["decoding_short_rows_per_cpu_second"] = SHORT_ROWS / decoded["cpu_seconds"]
    figures["peak_gb"] = max(figures.get("peak_gb", 0.0), converted["peak_gb"])
    if chosen.json and not has_data:
        print(f"{chosen.json} not written: half of the figures are missing")
    elif chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")


def print_against(
    converted: dict[str, float], decoded: dict[str, float], *, amount: float, unit: str
) -> None:
    print(f"  ingest and convert    {amount / converted['cpu_seconds']:10,.0f} {unit} per CPU second")
    print(f"  msgspec decoding only {amount / decoded['cpu_seconds']:10,.0f} {unit} per CPU second")
    print(f"  share of the ceiling  {decoded['cpu_seconds'] / converted['cpu_seconds']:10.2f}")
    print(f"  peak memory           {converted['peak_gb']:10.2f} GB")


if __name__ == "__main__":
    main()
