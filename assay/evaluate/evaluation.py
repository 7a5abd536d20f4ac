"""The result of an evaluation, as ``evaluation.json`` holds it. Shares are from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from assay.evaluate.figures import Figure
from assay.evaluate.gather import BenchmarkRows
from assay.storage.manifests import InputFile, Shortfall


@dataclass(frozen=True, slots=True, kw_only=True)
class ByTies:
    """The overall figure under each rule on ties."""

    lost: float | None
    """A tie is lost."""
    half: float | None
    """A tie is half a point."""
    left_out: float | None
    """A tie is no comparison."""
    own_rule: float | None
    """The benchmark's own rule, which is ``overall``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginStep:
    """The pairs whose scores differ by at least so much."""

    margin: float
    accuracy: float
    pairs: int
    share: float
    """Of all pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureDifference:
    """How far apart two figures are on the same rows, resampled together."""

    difference: float | None
    interval: tuple[float, float] | None
    """95%. Zero in it: the two cannot be told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """What a reader should doubt."""

    over_length: FigureDifference
    """The overall figure less that of the length of the answer."""
    length_correlation: float | None
    """Spearman, of score and number of characters, over all answers."""
    length_correlation_within_prompts: float | None
    """The same of what each answer has beyond the mean of its prompt's answers."""
    chosen_shorter: Figure
    """Over the pairs of which the better answer is the shorter one."""
    margins: tuple[MarginStep, ...]
    """Accuracy at each margin: from 0 to the margin that a tenth of the pairs have."""
    no_spread: float | None
    """The share of prompts whose answers all have the same score."""
    positions: dict[str, Figure] = field(default_factory=dict)
    """By where the better answer stands, where rows show their answers in an order."""
    languages: dict[str, Figure] = field(default_factory=dict)
    """By the language that rows name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCut:
    """A ``--keep`` rule, and how it agrees with people who were asked the same."""

    rule: str
    precision: float | None
    """Of the answers that the rule keeps, the share for which it holds by people's numbers."""
    recall: float | None
    """Of the answers for which it holds by people's numbers, the share that the rule keeps."""
    kept: int
    holds: int
    """Answers for which the rule holds by people's numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeAgreement:
    """How scores agree with the numbers that people gave under one name."""

    column: str
    """The model's column that is compared."""
    answers: int
    spearman: float | None
    interval: tuple[float, float] | None
    kendall: float | None
    """Tau-b."""
    length_only: float | None
    """Spearman of people's numbers with the number of characters."""
    starter: float | None
    """Spearman of the starter's scores, over the same answers."""
    agreement: float | None
    """The share of answers whose label is people's, once both are clamped to 0–4 and rounded; null where the
    scores are on a scale of their own."""
    confusion: tuple[tuple[int, ...], ...]
    """Answers by people's label (rows, 0 to 4) and the model's (columns)."""
    cuts: tuple[RuleCut, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedLine:
    """A printed figure beside the one that was found."""

    figure: str
    printed: float
    found: float
    interval: tuple[float, float] | None
    off: bool
    """Whether the printed figure lies outside of the interval."""
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRows:
    """Rows by what became of them with one model."""

    used: int
    unscored: dict[str, int] = field(default_factory=dict)
    """Rows of which an answer has no score, by reason code. No figure counts them."""
    examples: tuple[str, ...] = ()
    """The first of them: ``FILE:LINE: reason``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEvaluation:
    """One model's figures."""

    name: str
    kind: Literal["model", "recorded", "ensemble"]
    """Whether its scores were made by a run, recorded elsewhere, or made of the ranks by several models."""
    source: str
    """The model as it was named, or the file of its scores."""
    fingerprint: str | None
    by: str
    """The column that answers are compared by."""
    rows: ModelRows
    overall: Figure
    overall_by_rows: Figure | None
    """Where published tables also have an overall figure that weighs each row alike."""
    groups: dict[str, Figure]
    groups_by_rows: dict[str, Figure]
    by_ties: ByTies
    length_baseline: Figure
    """``overall`` where the longer answer counts as the better one."""
    starter_baseline: Figure | None
    """``overall`` of the starter model; null where it was not asked."""
    doubts: Doubts
    labels: dict[str, AttributeAgreement] = field(default_factory=dict)
    published: tuple[PublishedLine, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Versus:
    """Two models on the rows that both could score."""

    first: str
    second: str
    rows: int
    overall: FigureDifference
    """The first's overall figure less the second's."""
    agreement: float | None
    """The share of pairs of answers that both put into the same order, or both tie."""
    both_right: float | None
    both_wrong: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The content of ``evaluation.json``."""

    assay: str
    """The version of Assay."""
    benchmark: str
    title: str
    complete: bool
    """False where rows of the benchmark are missing, unreadable or without a score."""
    why_incomplete: tuple[str, ...]
    expected: int | None
    """How many rows the benchmark has; null where it has no fixed number."""
    rows: BenchmarkRows
    dropped: dict[str, int]
    """Rows that say nothing on which answer is better, by reason code."""
    quarantined: dict[str, int]
    rules: tuple[str, ...]
    """How the figures are made."""
    source: str | None
    """Where these rules are from."""
    models: tuple[ModelEvaluation, ...]
    """In the order in which they were named."""
    ensemble: ModelEvaluation | None = None
    """The mean of the models' ranks, with two models or more."""
    versus: tuple[Versus, ...] = ()
    inputs: tuple[InputFile, ...] = ()
    shortfalls: tuple[Shortfall, ...] = ()
    """The inputs that are cut short or damaged."""
    resamples: int = 0
    """How often rows were resampled for the intervals."""
    options: dict[str, Any] = field(default_factory=dict)
    """The options of the run."""
    versions: dict[str, str | None] = field(default_factory=dict)
    """Versions of Python and of the packages that can change a figure."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each stage took, without the start-up."""
    files: dict[str, str] = field(default_factory=dict)
    """The digests of the other result files, BLAKE2b-128."""

    @property
    def unusable(self) -> str | None:
        """Why no row could be used; None where one could."""
        if self.rows.used and any(one.rows.used for one in self.models):
            return None
        reasons = {**self.dropped, **self.quarantined}
        for model in self.models:
            reasons |= model.rows.unscored
        if not reasons:
            return "No row could be used: the inputs hold none."
        reason, count = min(reasons.items(), key=lambda item: (-item[1], item[0]))
        return f"No row could be used: {reason} ({count:,} of {self.rows.read:,})."
