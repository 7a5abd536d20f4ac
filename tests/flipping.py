"""Flip bits of a Parquet file, and hold what is read of it against what it held.

``python tests/flipping.py 1000`` flips a thousand bits, one at a time, of each of several small files, and
400 of one with 20,000 rows. ``read/test_parquet.py`` flips a few.
"""

from __future__ import annotations

import io
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
from converting import converted_paths

from assay.core.errors import UserMistake
from assay.read.tables import decoder_kept

WORDS = ["mill", "brook", "bridge", "hill", "barn", "gate", "lane", "well"]


def chats(rows: int, *, nested: bool, seed: int = 7) -> pl.DataFrame:
    """Rows with a prompt and a response, or with a list of messages; some prompts are null."""
    chance = random.Random(seed)

    def text(count: int) -> str:
        return " ".join(chance.choices(WORDS, k=count))

    if nested:
        return pl.DataFrame(
            {
                "messages": [
                    [{"role": "user", "content": text(6)}, {"role": "assistant", "content": text(9)}]
                    for _ in range(rows)
                ],
                "source": [chance.choice(["a", "b", None]) for _ in range(rows)],
                "number": list(range(rows)),
            }
        )
    return pl.DataFrame(
        {
            "prompt": [text(6) if row % 9 else None for row in range(rows)],
            "response": [text(9) for _ in range(rows)],
            "kind": [chance.choice(WORDS) for _ in range(rows)],
        }
    )


def stream_parts(frame: pl.DataFrame, step: int, **how: Any) -> list[bytes]:
    """An Arrow stream in its parts: the schema, batches of ``step`` rows, and the end.

    polars writes one batch a stream.
    """
    streams = []
    for at in range(0, max(1, len(frame)), step):
        stream = io.BytesIO()
        frame[at : at + step].write_ipc_stream(stream, **how)
        streams.append(stream.getvalue())
    # A continuation, the length of what follows, and the schema, which has no body.
    begin = 8 + int.from_bytes(streams[0][4:8], "little")
    return [streams[0][:begin], *(stream[begin:-8] for stream in streams), streams[0][-8:]]


def flip(path: Path, whole: bytes, bit: int) -> None:
    """Write ``whole`` with one bit turned."""
    data = bytearray(whole)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def became(path: Path, home: Path, rows: int, sound: list[dict[str, Any]]) -> str:
    """What became of a flipped file: ``refused``, ``quarantined``, ``altered`` or ``as it was``.

    AssertionError where a row is neither among the records nor in quarantine, or the manifest hides it.
    """
    try:
        outcome = converted_paths(home, str(path), format="auto")
    except UserMistake:
        return "refused"
    converted, records = outcome.converted, outcome.records
    assert sorted({record["line"] for record in records}) == list(range(1, rows + 1)), "rows are lost"
    damaged = converted.counts.quarantined.get("damaged_row_group", 0)
    assert converted.lines == rows
    assert converted.complete == (damaged == 0)
    assert [one.quarantined for one in converted.shortfalls] == ([damaged] if damaged else [])
    if damaged:
        return "quarantined"
    return "as it was" if records == sound else "altered"


def sweep(frame: pl.DataFrame, count: int, *, seed: int = 1, **written: Any) -> Counter[str]:
    """How often which of ``became`` was met, for ``count`` flips that are spread over the whole file."""
    chance = random.Random(seed)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, decoder_kept():
        path = Path(folder) / "rows.parquet"
        frame.write_parquet(path, **written)
        whole = path.read_bytes()
        sound = converted_paths(Path(folder), str(path)).records
        assert len({record["line"] for record in sound}) == len(frame)
        for number in range(count):
            # One in each of so many ranges of bytes, so that none is left out.
            begin, end = (8 * len(whole) * each // count for each in (number, number + 1))
            flip(path, whole, chance.randrange(begin, max(end, begin + 1)))
            began = time.monotonic()
            found[became(path, Path(folder) / str(number), len(frame), sound)] += 1
            assert time.monotonic() - began < 60, "it took too long"
    return found


def main() -> None:
    """Print a line a file: how many flips came to what."""
    count = int(sys.argv[1])
    for nested in (False, True):
        for compression in ("zstd", "snappy", "uncompressed"):
            found = sweep(chats(300, nested=nested), count, compression=compression, row_group_size=100)
            print(f"300 rows, {'nested' if nested else 'flat'}, {compression}: {dict(found)}", flush=True)
    found = sweep(chats(20_000, nested=False), max(1, count * 2 // 5), row_group_size=2000)
    print(f"20,000 rows: {dict(found)}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"most memory of a process that decoded: {peak} MB")


if __name__ == "__main__":
    main()
