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
    """By how much the two scores differ, at least."""
    accuracy: float
    """The share of these pairs in which the better answer scores higher."""
    pairs: int
    """How many such pairs there are."""
    share: float
    """Of all pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureDifference:
    """How far apart two figures are on the same rows, resampled together."""

    difference: float | None
    """The first figure less the second."""
    interval: tuple[float, float] | None
    """95%. Zero in it: the two cannot be told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """What a reader should doubt."""

    over_length: FigureDifference
    """The overall figure less that of length alone: of the longer or the shorter answer, whichever is right
    more often."""
    shorter_only: float | None
    """The overall figure where the shorter answer counts as the better one."""
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
    """As `--keep` takes it."""
    precision: float | None
    """Of the answers that the rule keeps, the share for which it holds by people's numbers."""
    recall: float | None
    """Of the answers for which it holds by people's numbers, the share that the rule keeps."""
    kept: int
    """Answers that the rule keeps by the scores."""
    holds: int
    """Answers for which the rule holds by people's numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeAgreement:
    """How scores agree with the numbers that people gave under one name."""

    column: str
    """The model's column that is compared."""
    answers: int
    """How many answers people rated and the model scored."""
    spearman: float | None
    """Spearman's rank correlation of scores and people's numbers."""
    interval: tuple[float, float] | None
    """Its 95% interval, by conversation."""
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
    """Rules at cuts from 0.5 to 3.5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedLine:
    """A printed figure beside the one that was found."""

    figure: str
    """`overall`, or the name of a group."""
    printed: float
    """What is printed."""
    found: float
    """What this evaluation found."""
    interval: tuple[float, float] | None
    """The 95% interval of what was found."""
    off: bool
    """Whether the printed figure lies outside of the interval."""
    source: str
    """Where it is printed."""
    note: str = ""
    """What is wrong in the print."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRows:
    """Rows by what became of them with one model."""

    used: int
    """Rows that its figures count."""
    unscored: dict[str, int] = field(default_factory=dict)
    """Rows of which an answer has no score, by reason code. No figure counts them."""
    examples: tuple[str, ...] = ()
    """The first of them: ``FILE:LINE: reason``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEvaluation:
    """One model's figures."""

    name: str
    """Its name in the tables."""
    kind: Literal["model", "recorded", "ensemble"]
    """Whether its scores were made by a run, recorded elsewhere, or made of the ranks by several models."""
    source: str
    """The model as it was named, or the file of its scores."""
    fingerprint: str | None
    """32 hex digits, as in a run's manifest; null for recorded scores."""
    by: str
    """The column that answers are compared by."""
    rows: ModelRows
    """Rows with and without its scores."""
    overall: Figure
    """The figure that the benchmark calls overall."""
    overall_by_rows: Figure | None
    """Where published tables also have an overall figure that weighs each row alike."""
    groups: dict[str, Figure]
    """Figures by domain, section, subset, difficulty or attribute."""
    groups_by_rows: dict[str, Figure]
    """Those that lie across domains, with each row weighing alike."""
    by_ties: ByTies
    """The overall figure under each rule on ties."""
    length_baseline: Figure
    """``overall`` where the longer answer counts as the better one."""
    starter_baseline: Figure | None
    """``overall`` of the starter model; null where it was not asked."""
    doubts: Doubts
    """What to doubt."""
    labels: dict[str, AttributeAgreement] = field(default_factory=dict)
    """For labels: by the name of what people rated."""
    published: tuple[PublishedLine, ...] = ()
    """What is printed of the model, beside what was found."""
    notes: tuple[str, ...] = ()
    """What users of its scores should know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versus:
    """Two models on the rows that both could score."""

    first: str
    """A model."""
    second: str
    """Another one."""
    rows: int
    """Rows that both could score."""
    overall: FigureDifference
    """The first's overall figure less the second's."""
    agreement: float | None
    """The share of pairs of answers that both put into the same order, or both tie."""
    both_right: float | None
    """The share of pairs that both put into the right order."""
    both_wrong: float | None
    """The share of pairs that both put into the wrong order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The content of ``evaluation.json``."""

    assay: str
    """The version of Assay."""
    benchmark: str
    """Its name, as `--benchmark` takes it."""
    title: str
    """Its name for people."""
    complete: bool
    """False where rows of the benchmark are missing, unreadable or without a score."""
    why_incomplete: tuple[str, ...]
    """What is missing, a phrase each."""
    expected: int | None
    """How many rows the benchmark has; null where it has no fixed number."""
    rows: BenchmarkRows
    """Rows of the inputs: `read` is the sum of `used`, `dropped` and `quarantined`."""
    dropped: dict[str, int]
    """Rows that say nothing on which answer is better, by reason code."""
    quarantined: dict[str, int]
    """Rows that could not be read, by reason code."""
    rules: tuple[str, ...]
    """How the figures are made."""
    source: str | None
    """Where these rules are from."""
    models: tuple[ModelEvaluation, ...]
    """In the order in which they were named."""
    ensemble: ModelEvaluation | None = None
    """The mean of the models' ranks, with two models or more."""
    versus: tuple[Versus, ...] = ()
    """Each two models, by name."""
    inputs: tuple[InputFile, ...] = ()
    """Path, digest, size and format of every file read."""
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
