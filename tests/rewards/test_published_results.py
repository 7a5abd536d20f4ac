"""What is published adds up: each overall figure is the mean that the table says it is, of its own cells."""

from __future__ import annotations

import pytest

from assay.evaluate.judgebench import GROUPS
from assay.evaluate.rm_bench import DIFFICULTIES, DOMAINS, PARTS
from assay.rewards.published_results import PUBLISHED_RESULTS, PublishedResult, published_results

#: Rows of RM-Bench by domain, and pairs of JudgeBench by group (its 350 of GPT-4o).
RM_BENCH = {domain: sum(rows for rows, one in PARTS.values() if one == domain) for domain in DOMAINS}
JUDGEBENCH = {"knowledge": 154, "reasoning": 98, "math": 56, "coding": 42}

#: A printed figure is rounded to 0.1, and so are the cells that make it.
ROUNDED = 0.101


def mean(result: PublishedResult, names: tuple[str, ...]) -> float:
    return sum(result.values[name] for name in names) / len(names)


def by_rows(result: PublishedResult) -> float:
    return sum(result.values[name] * rows for name, rows in RM_BENCH.items()) / sum(RM_BENCH.values())


def named(benchmark: str) -> list[PublishedResult]:
    return [one for one in PUBLISHED_RESULTS if one.benchmark == benchmark]


def test_rm_bench_has_as_many_rows_as_its_paper_says() -> None:
    assert RM_BENCH == {"chat": 129, "math": 529, "code": 228, "safety": 441}
    assert sum(RM_BENCH.values()) == 1327


@pytest.mark.parametrize("result", named("rm-bench"), ids=lambda one: one.model)
def test_a_table_of_rm_bench_uses_the_overall_figure_that_it_says(result: PublishedResult) -> None:
    if result.overall_is == "difficulties":
        assert result.overall == pytest.approx(mean(result, DIFFICULTIES), abs=ROUNDED)
        return
    both = {"domains": mean(result, DOMAINS), "rows": by_rows(result)}
    other = {"domains": "rows", "rows": "domains"}[result.overall_is]
    assert result.overall == pytest.approx(both[result.overall_is], abs=ROUNDED)
    assert result.overall != pytest.approx(both[other], abs=2 * ROUNDED)


@pytest.mark.parametrize(
    "result", [one for one in named("rm-bench") if one.difficulties_are], ids=lambda one: one.model
)
def test_its_difficulties_are_means_of_what_it_says(result: PublishedResult) -> None:
    both = {"domains": mean(result, DOMAINS), "rows": by_rows(result)}
    assert mean(result, DIFFICULTIES) == pytest.approx(both[result.difficulties_are or ""], abs=ROUNDED)


@pytest.mark.parametrize("result", named("judgebench"), ids=lambda one: one.model)
def test_a_row_of_judgebench_is_of_whole_pairs_which_add_up(result: PublishedResult) -> None:
    assert set(result.values) == set(GROUPS)
    right = {name: round(result.values[name] * pairs / 100) for name, pairs in JUDGEBENCH.items()}
    for name, count in right.items():
        assert result.values[name] == pytest.approx(100 * count / JUDGEBENCH[name], abs=ROUNDED)
    assert result.overall == pytest.approx(100 * sum(right.values()) / 350, abs=ROUNDED)


def test_the_card_that_swaps_math_and_code_is_put_right() -> None:
    (result,) = published_results("judgebench", "nvidia/Qwen-2.5-Nemotron-32B-Reward")
    assert set(result.corrected) == {"math", "coding"}
    # As printed, 76.2% of 56 pairs are no whole number of pairs.
    assert abs(0.762 * 56 - round(0.762 * 56)) > 0.3


@pytest.mark.parametrize(
    "result", [*named("rewardbench"), *named("rewardbench-2")], ids=lambda one: f"{one.benchmark} {one.model}"
)
def test_rewardbench_prints_the_mean_of_its_sections(result: PublishedResult) -> None:
    assert result.overall == pytest.approx(mean(result, tuple(result.values)), abs=ROUNDED)


def test_every_row_names_its_source_and_one_model_is_known_by_both_its_names() -> None:
    assert all(one.source.startswith("https://") for one in PUBLISHED_RESULTS)
    assert published_results("rewardbench", "nvidia/Llama-3.1-Nemotron-70B-Reward-HF")
    assert published_results("rewardbench", "somebody/else") == []
