"""What the page of a large run costs: a million scored turns, made here, in conversations of 1 to 4 turns.

Records are converted and decided on as in a run; their scores are drawn, because no figure of the page
depends on who gave them. The page is then made in a process of its own: its size, its seconds, and the peak
memory of that process. Where Chromium is installed, also the seconds until it has drawn the page.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

TURNS = 1_000_000
ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
RULE = "helpfulness >= 2"
_FILES = 4


def write_chats(folder: Path, turns: int) -> list[Path]:
    """Files of conversations with so many turns together; every third prompt has several answers."""
    drawn = random.Random(1)
    words = ["".join(drawn.choices("abdefgiklmnoprstuw", k=drawn.randint(2, 9))) for _ in range(500)]
    texts = [" ".join(drawn.choices(words, k=drawn.randint(3, 60))) for _ in range(2_000)]
    paths = [folder / f"chats-{number}.jsonl" for number in range(_FILES)]
    files = [path.open("w", encoding="utf-8") for path in paths]
    written = line = 0
    while written < turns:
        messages = [{"role": "user", "content": f"Question {line // 2}: {texts[line // 2 % len(texts)]}"}]
        for turn in range(drawn.choice((1, 1, 2, 3))):
            if turn:
                messages.append({"role": "user", "content": drawn.choice(texts)})
            messages.append({"role": "assistant", "content": f"{drawn.choice(texts)} {line}"})
            written += 1
        files[line // 1000 % _FILES].write(json.dumps({"messages": messages}) + "\n")
        line += 1
    for file in files:
        file.close()
    return paths


def prepare(folder: Path, turns: int) -> None:
    """Convert, draw scores, decide and export, as a run does; leave the manifests for what is measured."""
    import numpy as np
    import polars as pl

    from assay.export import EXPORT, ToExport
    from assay.export.folder import OutputFolder
    from assay.read.convert import ToConvert, convert
    from assay.read.inventory import Inputs, take_inventory
    from assay.report.summary import run_manifest
    from assay.select.decide import ToDecide, decide
    from assay.select.rules import parse_rules
    from assay.storage.home import Artifact, Home
    from assay.storage.manifests import Scored, ScoredPiece
    from assay.storage.stage import RunContext

    home = Home(folder / "home")
    context = RunContext(home)
    names = tuple(map(str, write_chats(folder, turns)))
    converted = convert(ToConvert(take_inventory(Inputs(names), context)), context)
    drawn = np.random.default_rng(1)
    pieces = []
    for number, piece in enumerate(converted.pieces):
        places = pl.read_parquet(home.artifacts / piece.turns.path, columns=["row", "turn"])
        scores = drawn.normal(2, 1, (places.height, len(ATTRIBUTES))).astype("float32")
        frame = places.with_columns(
            *(pl.Series(name, scores[:, column]) for column, name in enumerate(ATTRIBUTES)),
            pl.lit(None, pl.String).alias("reason"),
            pl.lit(0, pl.UInt32).alias("tokens_cut"),
        )
        path = home.artifacts / "score" / f"{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)
        pieces.append(ScoredPiece(Artifact.of(path, home)))
    count = sum(piece.turn_count for piece in converted.pieces)
    scored = Scored("f" * 32, ATTRIBUTES, tuple(pieces), count, count, {}, ())
    rules = parse_rules([RULE], attributes=ATTRIBUTES, flags={}, allow_cross_prompt=False)
    filtered = decide(ToDecide(converted, scored, rules), context)
    staging = folder / "out"
    staging.mkdir()
    given = ToExport(converted, scored, filtered, ("messages",), OutputFolder(folder / "none"), staging)
    manifest = run_manifest(
        options={"output": "out", "keep": [RULE]},
        models=(),
        converted=converted,
        scored=scored,
        filtered=filtered,
        exported=EXPORT.run(given, context),
        seconds={},
    )
    (folder / "out/manifest.json").write_bytes(msgspec.json.encode(manifest.as_written()))
    for name, one in (("converted", converted), ("scored", scored), ("filtered", filtered)):
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(one))


def make_page(folder: Path) -> dict[str, float]:
    """Make the page of the prepared run, compared with itself; called in a process of its own."""
    from assay.report.build import Before, ToReport, reported
    from assay.storage.home import Home
    from assay.storage.manifests import Converted, Filtered, Scored
    from assay.storage.run_manifest import read_run_manifest
    from assay.storage.stage import RunContext

    def read(name: str, kind: type) -> object:
        return msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=kind)

    out = folder / "out"
    given = ToReport(
        read_run_manifest(out / "manifest.json"),
        read("converted", Converted),  # type: ignore[arg-type]
        read("scored", Scored),  # type: ignore[arg-type]
        read("filtered", Filtered),  # type: ignore[arg-type]
        {},
        out,
        "assay curate",
        before=Before(out, "out"),
    )
    began, cpu = time.monotonic(), time.process_time()
    page = reported(given, RunContext(Home(folder / "home"))).page
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu
    (folder / "report.html").write_bytes(page)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"mb": len(page) / 1e6, "seconds_1m": seconds, "cpu_seconds": cpu_seconds, "peak_gb": peak_gb}


def drawn_seconds(page: Path, folder: Path) -> float | None:
    """Until Chromium has loaded and drawn the page; None where there is none."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return None
    # The page's policy runs no script of others, so that the navigation is timed from a frame around it.
    timed = (
        "const began = performance.now(); one.onload = () => { document.title = performance.now() - began }"
    )
    around = folder / "around.html"
    around.write_text(f"<iframe id=one src={page.as_uri()}></iframe><script>{timed}</script>")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    asked = [*command, "--allow-file-access-from-files", "--timeout=30000", "--dump-dom", around.as_uri()]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    found = done.stdout.partition("<title>")[2].partition("</title>")[0]
    return float(found) / 1000 if found else None


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--json", type=Path, help="write the figures to this file as one flat object")
    parser.add_argument("--page", type=Path, help="also write the page here")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.make:
        print(json.dumps(make_page(chosen.make)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, chosen.turns)
        command = [sys.executable, __file__, "--make", str(folder)]
        made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        figures: dict[str, float] = json.loads(made.stdout)
        if (seconds := drawn_seconds(folder / "report.html", folder)) is not None:
            figures["drawn_seconds"] = seconds
        if chosen.page:
            shutil.copyfile(folder / "report.html", chosen.page)
    print(f"\nThe page of {chosen.turns:,} scored turns")
    wanted = {"mb": "under 3 wanted", "peak_gb": "under 2 wanted", "drawn_seconds": "under 1 wanted"}
    for name, figure in figures.items():
        print(f"  {name:<14}  {figure:8.2f}  {wanted.get(name, '')}")
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
