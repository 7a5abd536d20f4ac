"""What a score shard costs: the same run cut into 1,000 shards instead of 10, with a model of no weights.

    python benchmarks/shards.py [--shards 1000]

Prints CPU milliseconds of all processes a further shard, and by how much Prefect's database grows. Meant
to be at most 20 ms and 2 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FEW = 10

#: A record of these is estimated at 12 tokens or so; a shard of fewer tokens than one record holds one.
_ONE_RECORD_A_SHARD = 1


def measured(folder: Path, records: int, shard_tokens: int) -> tuple[float, int, int]:
    """CPU seconds of a run and of all it started, bytes of Prefect's database, and the shards scored."""
    folder.mkdir()
    with (folder / "chats.jsonl").open("w") as file:
        for number in range(records):
            messages = [
                {"role": "user", "content": f"question {number:06}"},
                {"role": "assistant", "content": f"answer {number:06}"},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "ASSAY_"))}
    subprocess.run(
        [
            *(sys.executable, str(ROOT / "tests/flows/fake_curate.py"), "--input", "chats.jsonl"),
            *("--output", "out", "--workers", "2", "--shard-tokens", str(shard_tokens)),
        ],
        cwd=folder,
        env={
            **kept,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
            "ASSAY_HOME": str(folder / "home"),
            "FAKE_MODEL": str(folder / "model"),
            "FAKE_FINGERPRINT": "ab" * 16,
        },
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    database = sum(path.stat().st_size for path in (folder / "home/prefect").glob("prefect.db*"))
    shards = len(list((folder / "home/scores").rglob("*.parquet")))
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, database, shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=int, default=1000)
    many = parser.parse_args().shards
    with tempfile.TemporaryDirectory() as temporary:
        tokens_a_record = 14
        few_seconds, few_bytes, few = measured(Path(temporary, "few"), many, tokens_a_record * many // FEW)
        seconds, size, shards = measured(Path(temporary, "many"), many, _ONE_RECORD_A_SHARD)
    print(f"{few:,} shards: {few_seconds:.1f} CPU s, database {few_bytes / 1e6:.2f} MB")
    print(f"{shards:,} shards: {seconds:.1f} CPU s, database {size / 1e6:.2f} MB")
    print(f"a further shard: {1000 * (seconds - few_seconds) / (shards - few):.1f} ms of CPU")
    print(f"the database grows by {(size - few_bytes) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
