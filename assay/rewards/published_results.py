"""What is printed of published models on benchmarks, in percent, by the catalog's names.

``overall_is`` says which of two overall figures a table prints, as its own cells show
(``tests/rewards/test_published_results.py`` computes both): tables of RM-Bench mix the mean of the four
domains with the mean of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """One row of a printed table."""

    benchmark: str
    model: str
    values: Mapping[str, float]
    """By the name of the group, as ``assay.evaluate`` names it."""
    overall: float
    source: str
    overall_is: Literal["domains", "rows", "difficulties"] = "domains"
    """The mean of the domains, of the rows, or of the difficulties (where no more is printed)."""
    difficulties_are: Literal["domains", "rows"] | None = None
    """Whether the printed difficulties are means of the domains or of the rows; None where it is unknown."""
    corrected: Mapping[str, str] = field(default_factory=dict)
    """By group, what is wrong in the print; ``values`` has it right."""


_CARD = "https://huggingface.co/{}"
_LEADERBOARD = "https://github.com/THU-KEG/RM-Bench-Leaderboard"
_REWARDBENCH_2 = "https://arxiv.org/abs/2506.01937, table 2"


def _rm_bench(
    model: str,
    domains: tuple[float, float, float, float],
    difficulties: tuple[float, float, float],
    overall: float,
    source: str,
    overall_is: Literal["domains", "rows"] = "domains",
    difficulties_are: Literal["domains", "rows"] = "domains",
) -> PublishedResult:
    values = dict(zip(("chat", "math", "code", "safety"), domains, strict=True))
    values |= dict(zip(("easy", "normal", "hard"), difficulties, strict=True))
    return PublishedResult("rm-bench", model, values, overall, source, overall_is, difficulties_are)


def _judgebench(
    model: str,
    groups: tuple[float, float, float, float],
    overall: float,
    source: str,
    corrected: Mapping[str, str] | None = None,
) -> PublishedResult:
    """Groups in the order knowledge, reasoning, math, coding; the overall figure is that of all pairs."""
    values = dict(zip(("knowledge", "reasoning", "math", "coding"), groups, strict=True))
    return PublishedResult("judgebench", model, values, overall, source, "rows", None, corrected or {})


def _rewardbench(
    model: str, sections: tuple[float, float, float, float], overall: float, source: str
) -> PublishedResult:
    values = dict(zip(("Chat", "Chat Hard", "Safety", "Reasoning"), sections, strict=True))
    return PublishedResult("rewardbench", model, values, overall, source)


def _rewardbench_2(
    model: str, domains: tuple[float, float, float, float, float, float], overall: float
) -> PublishedResult:
    names = ("Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
    return PublishedResult(
        "rewardbench-2", model, dict(zip(names, domains, strict=True)), overall, _REWARDBENCH_2
    )


_QWEN_25 = "nvidia/Qwen-2.5-Nemotron-32B-Reward"
_QWEN_3 = "nvidia/Qwen-3-Nemotron-32B-Reward"
_LLAMA_33 = "nvidia/Llama-3.3-Nemotron-70B-Reward"
_MULTILINGUAL = "nvidia/Llama-3.3-Nemotron-70B-Reward-Multilingual"
_LLAMA_31 = "nvidia/Llama-3.1-Nemotron-70B-Reward"
_SWAPPED = (
    "its card prints 76.2 for Math and 82.1 for Code, which are swapped: 46 of the 56 pairs of math are "
    "82.1, and 32 of the 42 of coding are 76.2"
)

PUBLISHED_RESULTS = (
    _rm_bench(_QWEN_25, (76.0, 73.9, 66.2, 93.5), (85.6, 80.5, 65.9), 77.4, _CARD.format(_QWEN_25)),
    _rm_bench(_QWEN_3, (86.1, 76.1, 70.2, 95.2), (85.1, 83.4, 77.3), 81.9, _CARD.format(_QWEN_3)),
    _rm_bench(
        _MULTILINGUAL,
        (86.2, 82.4, 66.8, 94.1),
        (86.5, 85.4, 80.0),
        82.4,
        _CARD.format(_MULTILINGUAL),
        difficulties_are="rows",
    ),
    _rm_bench(
        _LLAMA_33,
        (75.4, 84.5, 69.3, 90.4),
        (92.1, 85.7, 71.1),
        79.9,
        _CARD.format(_LLAMA_33),
        difficulties_are="rows",
    ),
    _rm_bench(
        _LLAMA_31,
        (70.7, 64.3, 57.4, 90.3),
        (92.2, 76.8, 48.0),
        70.7,
        _CARD.format(_MULTILINGUAL),
        difficulties_are="rows",
    ),
    _rm_bench(
        "Skywork/Skywork-Reward-Gemma-2-27B",
        (71.8, 59.2, 56.6, 94.3),
        (89.6, 75.4, 50.0),
        70.5,
        _CARD.format(_MULTILINGUAL),
        difficulties_are="rows",
    ),
    _rm_bench(
        "Skywork/Skywork-Reward-Llama-3.1-8B",
        (69.5, 60.6, 54.5, 95.7),
        (89.0, 74.7, 46.6),
        70.1,
        _LEADERBOARD,
    ),
    _rm_bench(
        "Skywork/Skywork-Reward-Llama-3.1-8B-v0.2",
        (69.3, 62.1, 53.4, 96.0),
        (89.3, 75.8, 52.6),
        72.6,
        _LEADERBOARD,
        "rows",
        "rows",
    ),
    _rm_bench(
        "Ray2333/GRM-Llama3.2-3B-rewardmodel-ft",
        (68.6, 61.9, 52.8, 95.2),
        (90.8, 75.9, 49.4),
        72.0,
        _LEADERBOARD,
        "rows",
        "rows",
    ),
    _rm_bench("LxzGordon/URM-LLaMa-3.1-8B", (71.2, 61.8, 54.1, 93.1), (84.0, 73.2, 53.0), 70.0, _LEADERBOARD),
    _rm_bench("infly/INF-ORM-Llama3.1-70B", (66.3, 65.6, 56.8, 94.8), (91.8, 76.1, 44.8), 70.9, _LEADERBOARD),
    *(
        PublishedResult(
            "rm-bench",
            f"Skywork/Skywork-Reward-V2-{name}",
            dict(zip(("easy", "normal", "hard"), difficulties, strict=True)),
            overall,
            _LEADERBOARD,
            "difficulties",
        )
        for name, difficulties, overall in (
            ("Llama-3.1-8B-40M", (97.6, 96.9, 93.5), 96.0),
            ("Llama-3.1-8B", (97.0, 95.0, 86.5), 92.8),
            ("Llama-3.2-3B", (91.5, 84.1, 67.8), 81.1),
            ("Llama-3.2-1B", (91.3, 79.9, 57.8), 76.3),
            ("Qwen3-8B", (91.9, 85.7, 70.1), 82.6),
            ("Qwen3-4B", (92.1, 84.7, 67.9), 81.6),
            ("Qwen3-1.7B", (93.0, 83.4, 59.7), 78.7),
            ("Qwen3-0.6B", (90.3, 78.0, 54.8), 74.4),
        )
    ),
    _judgebench(
        _QWEN_25,
        (61.7, 74.5, 82.1, 76.2),
        70.3,
        _CARD.format(_QWEN_25),
        {"math": _SWAPPED, "coding": _SWAPPED},
    ),
    _judgebench(_QWEN_3, (70.1, 67.4, 78.6, 83.3), 72.3, _CARD.format(_QWEN_3)),
    _judgebench(_LLAMA_33, (70.8, 76.5, 82.1, 66.7), 73.7, _CARD.format(_LLAMA_33)),
    _judgebench(_MULTILINGUAL, (66.2, 71.4, 82.1, 59.5), 69.4, _CARD.format(_QWEN_3)),
    _rewardbench(
        "nvidia/Nemotron-4-340B-Reward",
        (95.8, 87.1, 91.5, 93.7),
        92.0,
        _CARD.format("nvidia/Nemotron-4-340B-Reward"),
    ),
    _rewardbench(_LLAMA_31, (97.5, 85.8, 95.1, 98.1), 94.1, _CARD.format(_LLAMA_31)),
    _rewardbench(
        "Skywork/Skywork-Reward-Gemma-2-27B", (95.8, 91.4, 91.9, 96.1), 93.8, _CARD.format(_LLAMA_31)
    ),
    _rewardbench_2("Skywork/Skywork-Reward-V2-Llama-3.1-8B", (84.6, 66.3, 77.6, 96.7, 98.4, 81.2), 84.1),
    _rewardbench_2("Skywork/Skywork-Reward-Llama-3.1-8B", (69.9, 42.5, 62.8, 93.3, 96.2, 74.1), 73.1),
)

#: NVIDIA publishes one model under two names.
_SAME = {"nvidia/Llama-3.1-Nemotron-70B-Reward-HF": _LLAMA_31}


def published_results(benchmark: str, model: str) -> list[PublishedResult]:
    """What is printed of the model on the benchmark."""
    name = _SAME.get(model, model)
    return [one for one in PUBLISHED_RESULTS if one.benchmark == benchmark and one.model == name]
