"""Does this set-up give the scores on a model's card, and the same scores in every batch and process?

Every check measures a deviation and compares it with a tolerance. If a published number does not come out, a
person must decide what that means.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.core.errors import ModelFault, UserMistake
from assay.core.progress import Progress
from assay.core.reasoning import NothingElse, without_reasoning
from assay.core.schema import (
    UNSEEN_TEXT,
    Conversation,
    FullMessage,
    Message,
    MessageFields,
    turn_positions,
)
from assay.core.versions import VERSION, installed
from assay.rewards.catalog import CATALOG, Published
from assay.rewards.protocol import Request, RewardModel, TurnScore
from assay.rewards.remote.endpoints import ReadBlock
from assay.rewards.spec import LocalSpec, ModelSpec, ServedSpec
from assay.score.open_model import let_go, opened, using
from assay.score.ways import way_of
from assay.storage.home import written_whole
from assay.storage.private import make_private, usual_file_mode
from assay.storage.regular import read_regular
from assay.storage.run_manifest import run_manifest_in
from assay.storage.sealed import DIGEST, is_as_sealed, sealed
from assay.workers.cluster import ClusterOptions, connected
from assay.workers.same_code import unfit_workers

#: How far two scores of the same turn may differ, times ``max(1, |score|)``. For fp32 Assay promises it; the
#: others were measured, with rounding to 11 and 8 bits of mantissa.
TOLERANCE = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}

_SERVED_DTYPE = "bfloat16"

#: How far a score may differ from the one that its authors print, as a share of the printed one. They used
#: other hardware and kernels. The share is of at least 0.1: else a score near zero could not be met.
PUBLISHED_SHARE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 5e-2}
_SMALLEST_SCALE = 0.1

#: One list per conversation, with the values of every turn.
Scores = list[list[tuple[float, ...]]]

#: Tokens per batch: one sequence, a few, most of them.
_BUDGETS = (1, 64, 1024)

_GOLDEN_VERSION = 1
_GOLDEN = "golden rows"
_PACKAGES = ("torch", "transformers", "tokenizers")


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    passed: bool | None
    """None where the check does not apply to this model, or only informs."""
    measured: str
    allowed: str = ""


@dataclass(frozen=True, slots=True)
class Golden:
    """Recorded scores, to compare with later or elsewhere."""

    model: str
    fingerprint: str
    attributes: tuple[str, ...]
    dtype: str
    versions: dict[str, str | None]
    rows: tuple[tuple[Conversation, tuple[tuple[float, ...], ...]], ...]
    """Conversations, each with the values of every turn."""
    weights: dict[str, str] | None = None
    """The digest of every file of weights; None for a service, and where none were recorded."""


def probe_conversations() -> list[Conversation]:
    """The conversations that every check uses: many lengths, one turn or several, several scripts."""
    talks: list[tuple[tuple[str, str], ...]] = [
        (("user", "What is 1+1?"), ("assistant", "1+1=2")),
        (("user", "What is 1+1?"), ("assistant", "1+1=3")),
        (
            ("system", "Answer in one sentence."),
            ("user", "Why is the sky blue?"),
            ("assistant", "Air scatters short waves of light more than long ones."),
            ("user", "And at sunset?"),
            ("assistant", "The light's way through the air is longer, and what is left of it is red."),
        ),
        (
            ("user", "Write a function that adds two numbers."),
            ("assistant", "def add(a, b):\n    return a + b\n"),
            ("user", "Now with types."),
            ("assistant", "def add(a: int, b: int) -> int:\n    return a + b\n"),
            ("user", "Thanks!"),
            ("assistant", "You are welcome."),
        ),
        (("user", "Wie heißt die Hauptstadt von Österreich?"), ("assistant", "Wien.")),
        (("user", "请用一句话介绍北京。"), ("assistant", "北京是中国的首都，有三千多年的历史。")),
        (("user", "Назови три реки."), ("assistant", "Волга, Дон и Лена.")),
    ]
    for length in (3, 17, 60, 110):
        answer = " ".join(f"Point {number}: it depends on the case at hand." for number in range(length // 3))
        talks.append((("user", f"Give me {length} reasons."), ("assistant", answer or "None.")))
    return [tuple(Message(role, content) for role, content in talk) for talk in talks]


def verify(
    spec: LocalSpec, *, cluster: ClusterOptions, progress: Progress, hide_reasoning: bool = False
) -> list[Check]:
    """Every check of the model, in the order they ran. Loads it in this process, then in the workers.

    It asks as many of a scheduler's workers as ``cluster`` says. Before that, this process lets go of the
    model, so that workers that are started here get its GPUs.
    """
    from assay.rewards.local.device_memory import give_back

    conversations, alone, checks = _checked_here(spec, progress, hide_reasoning=hide_reasoning)
    let_go()
    give_back()
    progress.say(f"{'asking' if cluster.scheduler_address else 'starting'} workers")
    return [*checks, _workers(spec, conversations, alone, cluster, progress)]


def _checked_here(
    spec: LocalSpec, progress: Progress, *, hide_reasoning: bool
) -> tuple[list[Conversation], Scores, list[Check]]:
    """The probe conversations, their scores one at a time, and the checks that need this process alone."""
    progress.say(f"loading {spec.name} ({spec.dtype})")
    model = opened(spec)
    conversations, alone = _scored_alone(model, spec.name)
    left_out = len(probe_conversations()) - len(conversations)
    if left_out:
        progress.say(f"{left_out} probe conversations are left out: the model does not take them whole")
    progress.say(f"scoring {len(conversations)} conversations in every way")
    checks = [
        *_published(model, spec, spec.dtype),
        *_differences(model),
        *_template(model, spec),
        *reasoning_checks(model, spec, hide=hide_reasoning),
        _neighbours(model, spec, conversations, alone),
        _padding_side(model, spec, conversations, alone),
        _batch_budget(model, spec, conversations, alone),
        _single_pass(model, spec, conversations, alone),
    ]
    return conversations, alone, checks


def verify_service(
    spec: ServedSpec,
    local: LocalSpec | None,
    *,
    read_block: ReadBlock | None = None,
    progress: Progress,
) -> list[Check]:
    """Every check that applies to a service; ``local`` is the same model on this machine, if it is there.

    The number format that a service computes in is unknown, so the tolerance is that of bfloat16, the usual
    one for big reward models. ``read_block`` looks up the secret block that holds the service's key.
    """
    progress.say(f"asking {spec.name} ({spec.endpoint.kind})")
    model = way_of(spec, read_block=read_block).opened()
    conversations, alone = _scored_alone(model, spec.name)
    together = model.score([_whole(conversation) for conversation in conversations])
    return [
        *_published(model, spec, _SERVED_DTYPE),
        _compared("all at once", together, alone, _SERVED_DTYPE),
        _as_local(spec, local, conversations, alone),
    ]


def _as_local(
    spec: ServedSpec, local: LocalSpec | None, conversations: list[Conversation], served: Scores
) -> Check:
    """Whether the local model gives the service's scores, attribute by attribute."""
    name = "the same model on this machine"
    if local is None:
        return Check(name, None, "none was named")
    missing = [attribute for attribute in spec.attributes if attribute not in local.attributes]
    if missing:
        return Check(name, False, f"{local.name} does not rate {', '.join(missing)}")
    places = [local.attributes.index(attribute) for attribute in spec.attributes]
    outcomes = [
        [
            one
            if one.values is None
            else dataclasses.replace(one, values=tuple(one.values[place] for place in places))
            for one in turns
        ]
        for turns in opened(local).score([_whole(conversation) for conversation in conversations])
    ]
    return _compared(name, outcomes, served, _SERVED_DTYPE)


def _scored_alone(model: RewardModel, name: str) -> tuple[list[Conversation], Scores]:
    """The probe conversations that the model takes whole, and their scores, one conversation at a time."""
    conversations, scores = [], []
    reasons = []
    for conversation in probe_conversations():
        (outcomes,) = model.score([_whole(conversation)])
        values = [outcome.values for outcome in outcomes if outcome.values is not None]
        if len(values) == len(outcomes):
            conversations.append(conversation)
            scores.append(values)
        else:
            reasons += [outcome.reason for outcome in outcomes if outcome.reason is not None]
    if not conversations:
        raise ModelFault(f"model {name} gives no score to any probe conversation: {reasons[0]}")
    return conversations, scores


def _template(model: RewardModel, spec: LocalSpec) -> list[Check]:
    """Whether the chat template shows all texts, and whether the tokenizer knows the template's marks.

    A template that shows no question or no answer is refused when the model is opened.
    """
    from assay.rewards.local.model import LocalRewardModel
    from assay.rewards.rendering import Renderer

    seen, known = "every text is seen", "the template's marks are tokens"
    renderer = model.renderer if isinstance(model, LocalRewardModel) else None
    if not isinstance(renderer, Renderer):
        return [
            Check(name, None, "the model takes conversations without a template") for name in (seen, known)
        ]
    unseen = ", ".join(renderer.unseen)
    if spec.unseen is not None and renderer.unseen != spec.unseen:
        shown = Check(seen, False, f"left out: {unseen or 'nothing'}; by its files: {spec.unseen}")
    elif unseen:
        shown = Check(seen, None, f"its template leaves out {unseen}: such conversations are `{UNSEEN_TEXT}`")
    else:
        shown = Check(seen, True, "messages of every role, wherever its template takes them")
    # Tulu's and Zephyr's models were trained with such marks, so a person must decide whether this is right.
    pieces = [f"{mark} is {count} tokens" for mark, count in renderer.marks_in_pieces().items()]
    fit = Check(known, None, f"{', '.join(pieces)}: is this the template that the model was trained with?")
    return [shown, fit if pieces else Check(known, True, "each that it writes is one token")]


#: Reasoning that is in no answer, and an answer with it and without.
_THOUGHT = "One and one more makes two."
_ANSWERED = (Message("user", "What is 1+1?"), Message("assistant", "1+1=2"))
_REASONED = {
    "reasoning in a field": FullMessage("assistant", "1+1=2", MessageFields(reasoning_content=_THOUGHT)),
    "reasoning in the text": Message("assistant", f"<think>\n{_THOUGHT}\n</think>\n\n1+1=2"),
}


def reasoning_checks(model: RewardModel, spec: LocalSpec, *, hide: bool) -> Iterator[Check]:
    """Yield what reasoning before an answer does to its score; where it is hidden, it must do nothing."""
    ((without,),) = model.score([_whole(_ANSWERED)])
    if without.values is None:
        return
    for name, answer in _REASONED.items():
        conversation = (_ANSWERED[0], answer)
        ((outcome,),) = model.score([_whole(without_reasoning(conversation) if hide else conversation)])
        if hide:
            yield _compared(name, [[outcome]], [[without.values]], spec.dtype)
        elif outcome.values is None:
            yield Check(name, None, f"no score: {outcome.reason}")
        else:
            moved = _deviation(outcome.values, without.values)
            yield Check(name, None, f"moves the score by {moved:.2g}" if moved else "is not shown")


def _published(model: RewardModel, spec: ModelSpec, dtype: str) -> Iterator[Check]:
    """Yield a check for each score on the model's card."""
    entry = CATALOG.get(spec.published_name)
    if entry is None or not entry.published:
        yield Check("published score", None, "none is known for this model")
        return
    for example in entry.published:
        yield _as_published(model, spec.attributes, dtype, example)


def _as_published(model: RewardModel, attributes: tuple[str, ...], dtype: str, example: Published) -> Check:
    last = len(turn_positions(example.messages)) - 1
    ((outcome,),) = model.score([Request(example.messages, (last,))])
    name = f"published score of {example.messages[-1].content[:24]!r}"
    if outcome.values is None:
        return Check(name, False, f"no score: {outcome.reason}")
    share = max(PUBLISHED_SHARE[example.dtype], PUBLISHED_SHARE.get(dtype, 0.0))
    passed = True
    measured, allowed = [], []
    for attribute, printed in example.values.items():
        ours = outcome.values[attributes.index(attribute)]
        tolerance = share * max(abs(printed), _SMALLEST_SCALE) + example.digits
        passed = passed and abs(ours - printed) <= tolerance
        measured.append(f"{attribute} {ours:.6g}, the card has {printed:.6g}")
        allowed.append(f"{tolerance:.2g}")
    dtypes = "" if dtype == example.dtype else f" (card: {example.dtype}, here: {dtype})"
    return Check(name, passed, "; ".join(measured) + dtypes, ", ".join(allowed))


def _differences(model: RewardModel) -> list[Check]:
    """One check per other way to read the model that gives another number; failed until one is chosen."""
    found = getattr(model, "differences", ())
    return [Check(one.name, None if one.is_settled else False, one.text) for one in found]


def _neighbours(
    model: RewardModel, spec: LocalSpec, conversations: list[Conversation], alone: Scores
) -> Check:
    together = model.score([_whole(conversation) for conversation in conversations])
    return _compared("all in one batch, padded to the longest", together, alone, spec.dtype)


def _padding_side(
    model: RewardModel, spec: LocalSpec, conversations: list[Conversation], alone: Scores
) -> Check:
    from assay.rewards.local.model import LocalRewardModel
    from assay.rewards.local.padded_left import last_scores_padded_left

    name = "padded on the left, with a mask"
    requests = [
        Request(conversation, (len(turn_positions(conversation)) - 1,)) for conversation in conversations
    ]
    padded_left = last_scores_padded_left(model, requests) if isinstance(model, LocalRewardModel) else None
    if padded_left is None:
        return Check(name, None, "not a causal model of this process")
    return _compared(
        name,
        [[TurnScore(values)] for values in padded_left],
        [scores[-1:] for scores in alone],
        spec.dtype,
    )


def _batch_budget(model: Any, spec: LocalSpec, conversations: list[Conversation], alone: Scores) -> Check:
    name = f"batch budgets of {', '.join(map(str, _BUDGETS))} tokens"
    if not hasattr(model, "batch_tokens"):
        return Check(name, None, "batches are the service's")
    before = model.batch_tokens
    outcomes: list[list[TurnScore]] = []
    try:
        for tokens in _BUDGETS:
            model.batch_tokens = tokens
            outcomes += model.score([_whole(conversation) for conversation in conversations])
    finally:
        model.batch_tokens = before
    return _compared(name, outcomes, alone * len(_BUDGETS), spec.dtype)


def _single_pass(
    model: RewardModel, spec: LocalSpec, conversations: list[Conversation], alone: Scores
) -> Check:
    """Score each turn from a conversation that ends with it, as the loops on models' cards do."""
    prefixes = [
        [
            model.score([Request(conversation[: position + 1], (turn,))])[0][0]
            for turn, position in enumerate(turn_positions(conversation))
        ]
        for conversation in conversations
    ]
    return _compared("every turn from a text that ends there", prefixes, alone, spec.dtype)


def _workers(
    spec: LocalSpec,
    conversations: list[Conversation],
    alone: Scores,
    cluster: ClusterOptions,
    progress: Progress,
) -> Check:
    """Score some conversations in each worker, in other batches than this process used."""
    requests = [_whole(conversation) for conversation in conversations]
    with connected(cluster, progress) as client:
        unfit = unfit_workers(client)
        there = sorted(client.scheduler_info(n_workers=-1)["workers"])
        addresses = [address for address in there if address not in unfit][: cluster.workers]
        count = len(addresses)
        futures = [
            client.submit(score_here, spec, requests[number::count], workers=[address], pure=False)
            for number, address in enumerate(addresses)
        ]
        parts: list[list[list[TurnScore]]] = client.gather(futures)
    together: list[list[TurnScore]] = [[] for _ in requests]
    for number, part in enumerate(parts):
        together[number::count] = part
    return _compared(f"{count} Dask workers", together, alone, spec.dtype)


def score_here(spec: LocalSpec, requests: Sequence[Request]) -> list[list[TurnScore]]:
    """The model's outcomes in the process that runs this."""
    return using(spec, lambda model: model.score(requests))


def _whole(conversation: Conversation) -> Request:
    return Request(conversation, tuple(range(len(turn_positions(conversation)))))


def _compared(
    name: str,
    outcomes: Iterable[Sequence[TurnScore]],
    expected: Iterable[Sequence[tuple[float, ...]]],
    dtype: str,
) -> Check:
    """The check of the largest deviation from the expected values, in units of ``max(1, |score|)``."""
    tolerance = TOLERANCE.get(dtype, TOLERANCE["float32"])
    largest = 0.0
    turns = equal = 0
    for ours, theirs in zip(outcomes, expected, strict=True):
        for outcome, values in zip(ours, theirs, strict=True):
            if outcome.values is None:
                return Check(name, False, f"no score: {outcome.reason}", f"{tolerance:g}")
            turns += 1
            equal += outcome.values == values
            largest = max(largest, _deviation(outcome.values, values))
    measured = f"{largest:.2g} at most over {turns} turns, {equal} equal to the bit"
    return Check(name, largest <= tolerance, measured, f"{tolerance:g}")


def _deviation(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return max(abs(one - other) / max(1.0, abs(other)) for one, other in zip(ours, theirs, strict=True))


def record(
    spec: ModelSpec, path: Path, *, shown: str | None = None, read_block: ReadBlock | None = None
) -> int:
    """Record the probe conversations, their scores, and what made them in ``path``. Returns how many turns.

    ``UserMistake`` where the file cannot be written, or would replace something else. Messages name the file
    by ``shown``.
    """
    shown = shown or str(path)
    _check_that_nothing_is_lost(path, shown)
    model = way_of(spec, read_block=read_block).opened()
    conversations, scores = _scored_alone(model, spec.name)
    golden = {
        "golden": _GOLDEN_VERSION,
        "model": spec.name,
        "fingerprint": spec.fingerprint,
        "attributes": list(spec.attributes),
        "dtype": spec.reading.dtype,
        "versions": _versions(),
        "weights": spec.digests_of_weights(),
        "rows": [
            {
                "messages": [{"role": one.role, "content": one.content} for one in conversation],
                "scores": [list(values) for values in turns],
            }
            for conversation, turns in zip(conversations, scores, strict=True)
        ],
    }
    try:
        make_private(path.parent)
        with written_whole(path, mode=usual_file_mode()) as temporary:
            text = json.dumps(sealed(golden, about=_GOLDEN), ensure_ascii=False, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserMistake(f"{shown}: the golden rows cannot be written: {error.strerror}") from error
    return sum(len(turns) for turns in scores)


def _check_that_nothing_is_lost(path: Path, shown: str) -> None:
    """Raise ``UserMistake`` where the golden rows would replace another file, or lie in a run's results."""
    if path.exists():
        try:
            read_golden(path, shown=shown)
        except UserMistake as error:
            raise UserMistake(f"{shown}: exists and holds no golden rows. Name another file") from error
    folder = path.parent.resolve()
    if any(run_manifest_in(above) is not None for above in (folder, *folder.parents)):
        raise UserMistake(
            f"{shown}: lies in a run's results, which the next run replaces as a whole. Name another folder"
        )


def read_golden(path: Path, *, shown: str | None = None) -> Golden:
    """The golden rows that ``record`` wrote to ``path``; ``UserMistake`` where it did not, or for changes."""
    shown = shown or str(path)
    try:
        data = json.loads(read_regular(path))
    except OSError as error:
        raise UserMistake(f"{shown}: the golden rows cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserMistake(f"{shown}: holds no golden rows, because it is not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("golden") != _GOLDEN_VERSION:
        raise UserMistake(f"{shown}: holds no golden rows of this version; record them with --record")
    try:
        golden = Golden(
            model=str(data["model"]),
            fingerprint=str(data["fingerprint"]),
            attributes=tuple(map(str, data["attributes"])),
            dtype=str(data["dtype"]),
            versions=dict(data["versions"]),
            rows=tuple(
                (
                    tuple(Message(one["role"], one["content"]) for one in row["messages"]),
                    tuple(tuple(map(float, values)) for values in row["scores"]),
                )
                for row in data["rows"]
            ),
            weights=None if data.get("weights") is None else dict(data["weights"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserMistake(
            f"{shown}: something in the golden rows is missing or altered: {error!r}"
        ) from error
    whole = all(
        len(scores) == len(turn_positions(messages)) > 0
        and all(
            len(values) == len(golden.attributes) and all(map(math.isfinite, values)) for values in scores
        )
        for messages, scores in golden.rows
    )
    if not whole or not golden.rows:
        raise UserMistake(f"{shown}: the scores of the golden rows do not match their turns")
    # Rows of an earlier version have no digest.
    if DIGEST in data and not is_as_sealed(data, about=_GOLDEN):
        raise UserMistake(
            f"{shown}: the golden rows were altered after they were recorded; copy the file again from where "
            "it was recorded, or record them again"
        )
    return golden


def check_golden(
    spec: ModelSpec, golden: Golden, *, read_block: ReadBlock | None = None, hide_reasoning: bool = False
) -> list[Check]:
    """Whether the model gives the recorded scores here, and whether it is the same model."""
    if golden.attributes != spec.attributes:
        raise UserMistake(
            f"the golden rows hold {', '.join(golden.attributes)}, but model {spec.name} rates "
            f"{', '.join(spec.attributes)}"
        )
    same = spec.fingerprint == golden.fingerprint
    which = "the recorded one" if same else f"{spec.fingerprint[:8]}, recorded with {golden.fingerprint[:8]}"
    differing = [
        f"{package} {version} (recorded: {golden.versions.get(package)})"
        for package, version in _versions().items()
        if version != golden.versions.get(package)
    ]
    model = way_of(spec, read_block=read_block).opened()
    conversations = [messages for messages, _ in golden.rows]
    if hide_reasoning:
        conversations = [_hidden(messages) for messages in conversations]
    outcomes = model.score([_whole(messages) for messages in conversations])
    looser = max(spec.reading.dtype, golden.dtype, key=lambda dtype: TOLERANCE.get(dtype, 0.0))
    scores = _compared("recorded scores", outcomes, [scores for _, scores in golden.rows], looser)
    return [
        Check("fingerprint", None, which),
        Check("versions", None, ", ".join(differing) or "as recorded"),
        *_as_recorded(spec.digests_of_weights(), golden.weights),
        scores,
    ]


def _hidden(messages: Conversation) -> Conversation:
    """A golden row without reasoning; ``UserMistake`` where nothing is left of a turn."""
    try:
        return without_reasoning(messages)
    except NothingElse as nothing:
        raise UserMistake(f"a golden row cannot be rated without its reasoning: {nothing}") from nothing


def _as_recorded(ours: dict[str, str] | None, recorded: dict[str, str] | None) -> list[Check]:
    """Whether the weights are the recorded ones to the bit. A few scores would not show every change."""
    if ours is None or recorded is None:
        return []
    names = sorted(name for name in {*ours, *recorded} if ours.get(name) != recorded.get(name))
    others = f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}: not the recorded ones"
    return [Check("weights", not names, others if names else "the recorded ones")]


def _versions() -> dict[str, str | None]:
    return {"assay": VERSION, **installed(*_PACKAGES)}
