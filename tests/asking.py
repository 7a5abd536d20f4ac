"""A benchmark's rows, gathered as a run gathers them, and scores that a test chooses."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import stages

from assay.core.schema import SCORE
from assay.evaluate.evaluate import ToEvaluate, evaluated
from assay.evaluate.evaluation import Evaluation, ModelEvaluation
from assay.evaluate.gather import GATHER, Gathered, ToGather, items_in
from assay.evaluate.items import AskedItem, ItemAnswer
from assay.evaluate.scores import Scores, place_of
from assay.storage.home import Home
from assay.storage.manifests import Converted

#: What a test gives an answer: by its item and the answer; None for no score.
Judge = Callable[[AskedItem, ItemAnswer], float | None]


class Asked(NamedTuple):
    """A benchmark's rows as a run has them before it scores."""

    benchmark: str
    converted: Converted
    gathered: Gathered
    items: list[AskedItem]
    home: Home


def asked(folder: Path, benchmark: str, files: Mapping[str, Sequence[object] | bytes]) -> Asked:
    """The items in these files: rows that become JSON lines, or the bytes of a file."""
    home = Home(folder / "home")
    paths = []
    for name, rows in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            rows if isinstance(rows, bytes) else b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        )
        paths.append(str(path))
    converted = stages.convert(stages.take_inventory(paths, home=home), home=home)
    gathered = GATHER.run(ToGather(converted, benchmark), stages.context(home))
    return Asked(benchmark, converted, gathered, items_in(gathered, home), home)


def given(asked: Asked, judge: Judge, name: str = "model", **more: Any) -> Scores:
    """What ``judge`` gives every answer, as scores of one number."""
    values = {
        place_of(answer): {SCORE: score}
        for item in asked.items
        for answer in item.answers
        if (score := judge(item, answer)) is not None
    }
    return Scores(name, name, (SCORE,), SCORE, values, **more)


def in_order(*scores: float) -> Judge:
    """Scores of the answers of each item by their place in the row."""
    return lambda item, answer: scores[answer.place]


def by_id(scores: Mapping[str, Sequence[float | None]]) -> Judge:
    """Scores by the item's id and the answer's place."""
    return lambda item, answer: scores[item.id][answer.place]


def evaluation(asked: Asked, *scores: Scores, starter: Scores | None = None) -> Evaluation:
    """The evaluation of these scores."""
    given = ToEvaluate(asked.gathered, asked.converted, asked.benchmark, scores, starter)
    return evaluated(given, asked.items)


def figures(asked: Asked, judge: Judge) -> ModelEvaluation:
    """The figures of one model."""
    return evaluation(asked, given(asked, judge)).models[0]


def rm_row(identity: object, prompt: str, *, styles: int = 3, **fields: object) -> dict[str, object]:
    """A row of RM-Bench; longer texts are of the fancier styles."""

    def texts(word: str) -> list[str]:
        return [f"{word} {prompt} " + "more " * (10 * style) for style in range(styles)]

    return {"id": identity, "prompt": prompt, "chosen": texts("yes"), "rejected": texts("no"), **fields}


def judge_row(identity: str, label: str, source: str = "mmlu-pro-law", **fields: object) -> dict[str, object]:
    """A row of JudgeBench."""
    return {
        "pair_id": identity,
        "source": source,
        "question": f"question {identity}",
        "response_A": f"answer A of {identity}",
        "response_B": f"another answer, B of {identity}",
        "label": label,
        "response_model": "gpt-4o-2024-05-13",
        **fields,
    }


def pair_row(identity: object, subset: str, prompt: str) -> dict[str, object]:
    """A row of RewardBench."""
    return {
        "id": identity,
        "prompt": prompt,
        "chosen": f"good {prompt}",
        "rejected": f"bad {prompt}",
        "subset": subset,
    }


def best_row(identity: str, subset: str, prompt: str, right: int, wrong: int) -> dict[str, object]:
    """A row of RewardBench 2."""
    return {
        "id": identity,
        "prompt": prompt,
        "chosen": [f"right {number} {prompt}" for number in range(right)],
        "rejected": [f"wrong {number} {prompt}" for number in range(wrong)],
        "subset": subset,
        "num_correct": right,
    }


def by_text(seed: str) -> Judge:
    """Scores that depend on an answer's text alone, and are never equal."""
    return lambda item, answer: random.Random(answer.key + seed.encode()).random()


#: Rows of every benchmark.
ALL_ROWS: dict[str, list[dict[str, Any]]] = {
    "rm-bench": [rm_row(f"m{n}", f"p{n}", domain=("chat", "math")[n % 2]) for n in range(8)],
    "judgebench": [
        judge_row(f"j{n}", ("A>B", "B>A")[n % 2], ("mmlu-pro-law", "livebench-math")[n % 3 % 2])
        for n in range(8)
    ],
    "rewardbench": [pair_row(f"w{n}", ("hep-go", "math-prm")[n % 2], f"p{n}") for n in range(8)],
    "rewardbench-2": [
        *(best_row(f"b{n}", ("Math", "Focus")[n % 2], f"p{n}", 1, 3) for n in range(6)),
        *(best_row(f"ref:{n}", "Ties", f"r{n}", 1, 2) for n in range(3)),
        *(best_row(f"tied:{n}", "Ties", f"t{n}", 3, 2) for n in range(3)),
    ],
    "preferences": [
        {"id": f"x{n}", "prompt": f"Q{n}", "chosen": "good", "rejected": "bad"} for n in range(8)
    ],
    "labels": [
        {
            "id": f"l{n}",
            "prompt": f"Q{n // 3}",
            "response": f"answer {n}",
            "helpfulness": n % 5,
            "verbosity": n % 2,
        }
        for n in range(9)
    ],
}

#: HelpSteer's rows: prompt, response, helpfulness, verbosity.
_RATED = [("p", "aa", 4, 0), ("p", "b", 1, 2), ("q", "cccc", 3, 2), ("q", "ddd", 3, 1), ("r", "eeeee", 0, 4)]
#: What a model gives them.
RATINGS_BY_A_MODEL = {
    "aa": {"helpfulness": 3.4, "verbosity": 0.2},
    "b": {"helpfulness": 2.5, "verbosity": 0.1},
    "cccc": {"helpfulness": 3.6, "verbosity": 1.5},
    "ddd": {"helpfulness": -0.3, "verbosity": 1.5},
    "eeeee": {"helpfulness": 0.5, "verbosity": 9.0},
}


def helpsteer(folder: Path) -> Asked:
    rows = [
        {"prompt": prompt, "response": answer, "helpfulness": helpful, "verbosity": verbose}
        for prompt, answer, helpful, verbose in _RATED
    ]
    return asked(folder, "labels", {"rows.jsonl": rows})


def rated(found: Asked, model: dict[str, dict[str, float]]) -> ModelEvaluation:
    by_length = {len(answer): given for answer, given in model.items()}
    values = {
        place_of(answer): by_length[answer.characters]
        for item in found.items
        for answer in item.answers
        if answer.characters in by_length
    }
    return evaluation(found, Scores("m", "m", ("helpfulness", "verbosity"), "helpfulness", values)).models[0]
