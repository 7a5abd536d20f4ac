"""The starter's model card: what it is there for, and figures that nobody typed."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from measures import RESAMPLES, Comparison

NOTE = "The starter is there to try the pipeline, not to judge data."
THRESHOLDS = (1.0, 2.0, 3.0)
FRONT_MATTER = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-classification
datasets: [OpenAssistant/oasst1, Anthropic/hh-rlhf]
---"""
INDENT = " " * 8
"""Of the texts below in this source, so that tables put into them stay level."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How one attribute's held-out scores are spread, and how far they are from the labels."""

    mean: float
    standard_deviation: float
    label_mean: float
    label_standard_deviation: float
    mean_absolute_error: float
    constant_error: float
    """Mean absolute error of always giving the held-out labels' median: no model needed."""
    at_least: dict[str, float]
    """Share of scores that reach a threshold."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that the card says about quality."""

    attributes: dict[str, Comparison]
    pairs: dict[str, Comparison]
    spreads: dict[str, Spread]
    rated_turns: dict[str, int]
    """By split."""
    preference_pairs: dict[str, int]
    """By split."""


@dataclass(frozen=True, slots=True)
class Making:
    """How this model came about."""

    recipe: Mapping[str, Any]
    parameters: int
    best_step: int
    steps: int
    minutes: float
    cut_short: bool


def spread_of(scores: np.ndarray, labels: np.ndarray) -> Spread:
    """The spread of one attribute's ``scores`` beside its ``labels``; neither holds NaN."""
    return Spread(
        mean=_rounded(scores.mean()),
        standard_deviation=_rounded(scores.std()),
        label_mean=_rounded(labels.mean()),
        label_standard_deviation=_rounded(labels.std()),
        mean_absolute_error=_rounded(np.abs(scores - labels).mean()),
        constant_error=_rounded(np.abs(labels - np.median(labels)).mean()),
        at_least={f"{threshold:g}": _rounded(np.mean(scores >= threshold)) for threshold in THRESHOLDS},
    )


def _rounded(value: np.floating) -> float:
    return round(float(value), 3)


def write_card(out: Path, measured: Measured, making: Making) -> None:
    """Write ``card.json`` and ``README.md`` into ``out``, which holds the weights already."""
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    facts = {
        "note": NOTE,
        "complete": not making.cut_short,
        "weights_sha256": digest,
        "parameters": making.parameters,
        "trained_on": {
            "oasst1 (English validation split)": "Apache-2.0",
            "hh-rlhf (helpful-base and harmless-base, test files)": "MIT",
        },
        "rated_turns": measured.rated_turns,
        "preference_pairs": measured.preference_pairs,
        "held_out": {
            "spearman": {name: c.as_json() for name, c in measured.attributes.items()},
            "pairwise_accuracy": {name: c.as_json() for name, c in measured.pairs.items()},
            "spread": {name: asdict(s) for name, s in measured.spreads.items()},
        },
        "recipe": dict(making.recipe),
        "kept_step": making.best_step,
        "steps": making.steps,
        "versions": versions(),
    }
    (out / "card.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (out / "README.md").write_text(card_text(measured, making, digest), encoding="utf-8")


def versions() -> dict[str, str]:
    """What the weights depend on besides data and recipe."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


def card_text(measured: Measured, making: Making, digest: str) -> str:
    """The model card, in Markdown."""
    parts = [
        FRONT_MATTER,
        _opening(measured, making),
        _figures(measured),
        _spreads(measured.spreads),
        _data(measured),
        _making(making, digest),
    ]
    return "\n\n".join(dedent(part).strip() for part in parts) + "\n"


def _opening(measured: Measured, making: Making) -> str:
    text = f"""\
        # The starter reward model

        **{NOTE}** It is a very small model
        ({making.parameters / 1e6:.1f} million parameters) trained on little
        ({measured.rated_turns["train"]:,} rated answers and {measured.preference_pairs["train"]:,}
        preferences, all English). It lets every stage run without a download, along the same code path as
        a real reward model. Do not choose training data with it: it knows no facts, does not notice a
        wrong answer, and goes by what length and style give away.

        {_verdict({**measured.attributes, **measured.pairs})}
    """
    if making.cut_short:
        text += """
        **Training was cut short by `--minutes`: these weights cannot be reproduced.**
        """
    return text


def _verdict(comparisons: dict[str, Comparison]) -> str:
    ahead = [name for name, c in comparisons.items() if c.difference.low > 0]
    behind = [name for name, c in comparisons.items() if c.difference.high < 0]
    if not ahead and not behind:
        return f"""In none of the {len(comparisons)} held-out figures below can it be told apart from the
        length of the answer: every 95% interval of the difference holds zero."""
    return f"""Of the {len(comparisons)} held-out figures below, it is clearly better than the length of the
        answer (the 95% interval of the difference leaves out zero) in {_counted(ahead)} and clearly worse in
        {_counted(behind)}; in the rest the two cannot be told apart."""


def _counted(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names)})" if names else "none"


def _figures(measured: Measured) -> str:
    attributes = _table(["attribute", "answers", "trees"], measured.attributes)
    pairs = _table(["pairs of", "pairs", "prompts"], measured.pairs)
    return f"""\
        ## Beside the length of the answer

        Measured once, on held-out data. *Length only* scores an answer by its number of characters, more
        or fewer being better as the training data says. In brackets: 95% bootstrap intervals
        ({RESAMPLES:,} resamples of whole message trees, or of prompts).

        Rank correlation (Spearman) with people's ratings, OASST1:

        {attributes}

        How often the answer that people preferred scores better, HH-RLHF (helpful pairs by `helpfulness`,
        harmless pairs by low `toxicity`; 0.50 is chance):

        {pairs}
    """


def _table(heads: list[str], comparisons: dict[str, Comparison]) -> str:
    rows: list[list[object]] = [
        [*heads, "starter", "length only", "difference"],
        ["---"] * 6,
        *([name, c.n, c.groups, c.model, c.length_only, c.difference] for name, c in comparisons.items()),
    ]
    return _rows(rows)


def _rows(rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, indented as the texts around it are."""
    return f"\n{INDENT}".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)


def _spreads(spreads: dict[str, Spread]) -> str:
    heads = ["attribute", "scores: mean ± sd", "ratings: mean ± sd", "mean abs. error", "error of the median"]
    rows: list[list[object]] = [[*heads, *(f"≥ {threshold:g}" for threshold in THRESHOLDS)]]
    rows.append(["---"] * len(rows[0]))
    for name, s in spreads.items():
        scores = f"{s.mean:.2f} ± {s.standard_deviation:.2f}"
        ratings = f"{s.label_mean:.2f} ± {s.label_standard_deviation:.2f}"
        errors = [f"{s.mean_absolute_error:.2f}", f"{s.constant_error:.2f}"]
        rows.append([name, scores, ratings, *errors, *(f"{share:.0%}" for share in s.at_least.values())])
    return f"""\
        ## How the scores are spread

        On OASST1's scale times four, 0–4, over the held-out answers. The outputs are stretched to the
        spread that people's ratings have, so that a rule such as `helpfulness >= 2` divides data. So a
        score claims more than the model knows, and its error may exceed that of always giving the median.

        {_rows(rows)}
    """


def _data(measured: Measured) -> str:
    turns, pairs = measured.rated_turns, measured.preference_pairs
    oasst = "[oasst1](https://huggingface.co/datasets/OpenAssistant/oasst1), English validation split"
    hh = "[hh-rlhf](https://github.com/anthropics/hh-rlhf), test files of helpful-base and harmless-base"
    table = _rows(
        [
            ["source", "licence", "used", *turns],
            ["---"] * (3 + len(turns)),
            [oasst, "Apache-2.0", "rated answers and what was said before them", *turns.values()],
            [hh, "MIT", "pairs of a preferred and another answer", *pairs.values()],
        ]
    )
    return f"""\
        ## Data

        {table}

        Split by message tree and by opening message, so that no conversation is on two sides. The dev
        split chose the step to keep and fits the stretch; the test split chose nothing. None of the texts
        is in this folder. HH-RLHF holds offensive and distressing texts, which the model has read.
    """


def _making(making: Making, digest: str) -> str:
    known = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"""\
        ## How it was made

        `python training/starter.py DATA_DIR --out assay/rewards/starter`: a byte-level BPE tokenizer and a
        LLaMA-shaped model from scratch; next-token prediction on the training texts; then, together, a
        robust regression on the ratings (an attribute that people left out counts nothing) and a
        Bradley–Terry loss on the preferences. Kept: the averaged weights after step
        {making.best_step} of a schedule of {making.steps}, which did best on the dev split; the run ended
        when they had not been bettered for a while. All numbers of the recipe are in `card.json`. It
        took {making.minutes:.0f} minutes on one CPU thread.

        A run on one thread with {known}
        gives the same weights (SHA-256 `{digest}`);
        other versions or processors may round differently.

        Template: ChatML without a default system message. A turn is read at the last token of its
        rendered text, the line end after `<|im_end|>`. At most 8,192 tokens; in training no conversation
        was longer than 1,024.
    """
