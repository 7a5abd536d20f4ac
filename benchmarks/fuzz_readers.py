"""Readers under libFuzzer: damaged input files, odd settings, replies of services and chat templates.

    pip install atheris
    python benchmarks/fuzz_readers.py files -max_total_time=600 CORPUS_FOLDER

``files`` writes rows into a file of any container, strikes it, and holds what is read against what was
written. ``settings``, ``replies`` and ``templates`` are the other targets. The folder keeps what reached new
code. libFuzzer's bytes make the first choices of a case, and seed the generator that makes the others:
libFuzzer sees no new code in other processes, so it would keep its cases short. The checks are those of the
tests (``tests/struck_inputs.py`` and ``tests/strange_input.py``).
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from random import Random

import atheris

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
# Of a case; each choice that it makes takes a byte or two.
MOST_BYTES = 1024

with atheris.instrument_imports(include=["assay.read", "assay.config", "assay.rewards.remote", "yaml"]):
    from strange_input import check_reply, check_settings, check_template
    from struck_inputs import Bytes, check_case

    from assay.read.tables import decoder_kept
    from assay.rewards.templates import TemplateProcess

TEMPLATE_SECONDS = 1.0


def main() -> None:
    """Fuzz the target that is named first; the other arguments are libFuzzer's."""
    process = TemplateProcess(cpu_seconds=TEMPLATE_SECONDS)
    targets = {
        "files": check_case,
        "settings": check_settings,
        "replies": check_reply,
        "templates": lambda draws: check_template(draws, process),
    }
    program, target, *options = sys.argv
    became: Counter[str] = Counter()

    def one(data: bytes) -> None:
        case = data + Random(data).randbytes(max(0, MOST_BYTES - len(data)))
        try:
            became[targets[target](Bytes(case))] += 1
        except BaseException:
            print(f"the case is Bytes(bytes.fromhex({case.hex()!r}))", flush=True)
            raise
        if became.total() % 5000 == 0:
            print(", ".join(f"{what}: {count}" for what, count in sorted(became.items())), flush=True)

    atheris.Setup([program, f"-max_len={MOST_BYTES}", "-len_control=0", *options], one)
    with decoder_kept():
        atheris.Fuzz()


if __name__ == "__main__":
    main()
