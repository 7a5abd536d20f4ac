"""distilabel's RewardModelScore over conversations, in CPU seconds; scoring.py runs it.

    python distilabel_rewards.py MODEL_FOLDER CONVERSATIONS.json BATCH_SIZE

The file holds lists of conversations by name. Prints one JSON object: by name, the seconds of scoring them
in the order in which they stand, and the scores.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.update(TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")

import torch
from distilabel.steps import RewardModelScore


def scored(step: Any, conversations: list[Any], batch_size: int) -> dict[str, Any]:
    rows = [{"conversation": conversation} for conversation in conversations]
    scores: list[float] = []
    start = time.process_time()
    for first in range(0, len(rows), batch_size):
        for row in next(step.process(rows[first : first + batch_size])):
            score = row["score"]
            scores.append(float(score[0] if isinstance(score, list) else score))
    return {"seconds": time.process_time() - start, "scores": scores}


def main() -> None:
    folder, file, batch_size = sys.argv[1:]
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(sys.stderr):
        step = RewardModelScore(model=folder)
        step.load()
        inputs = json.loads(Path(file).read_text())
        scored(step, inputs["last"][:2], 2)
        results = {name: scored(step, inputs[name], int(batch_size)) for name in inputs}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
