"""How a model is read: its architecture's name shows it, or else a person says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from assay.core.errors import UserMistake
from assay.rewards import not_read
from assay.rewards.adapters import Adapter, head_of
from assay.rewards.families import (
    APPENDED_CLS,
    APPENDED_TOKEN,
    AS_TRANSFORMERS,
    ATTRIBUTE_MIXTURE,
    BY_TENSORS,
    FAMILIES,
    FIRST_TOKEN_LOGIT,
    GATED_OBJECTIVES,
    HEAD_IN_WEIGHTS,
    PAIR_CLASSIFICATION,
    SEQUENCE_CLASSIFICATION,
    WITHOUT_TRANSFORM,
)
from assay.rewards.head_in_weights import (
    APPENDED_HEAD,
    SCORE,
    VALUE_HEAD,
    WeightsHead,
    head_in,
    is_a_classifiers,
)
from assay.rewards.sizes import check_size, size_in

#: The models for which the scale of HelpSteer's five is documented.
_ARMORM = "ForRewardModelWithGating"

#: How an architecture's name ends → its family; the first that fits.
_FAMILY_BY_ENDING = (
    ("DebertaForSequenceClassification", PAIR_CLASSIFICATION),
    ("DebertaV2ForSequenceClassification", PAIR_CLASSIFICATION),
    ("ForSequenceClassification", SEQUENCE_CLASSIFICATION),
    (_ARMORM, GATED_OBJECTIVES),
    # QRM's: of its first two models, and of the later ones.
    ("ForRewardModelWithGating3", GATED_OBJECTIVES),
    ("ForRewardModelWithGating31", GATED_OBJECTIVES),
    (WITHOUT_TRANSFORM, GATED_OBJECTIVES),
    ("ForSequenceClassificationWithNormal_Weights", ATTRIBUTE_MIXTURE),
    ("InternLM2ForRewardModel", APPENDED_TOKEN),
)


class _KnownHead(NamedTuple):
    """A head that is known to lie in the weights of an architecture."""

    ending: str
    """How the architecture's name ends."""
    prefix: str
    """What the names of its tensors begin with."""
    family: str = HEAD_IN_WEIGHTS
    several_layers: bool = False
    """Whether it is known only where it has several layers."""
    one_output: bool = False
    """Whether it is known only where it gives one number."""


#: How the architecture of several kinds of models ends, of which one is read.
_REWARD_MODEL = "ForRewardModel"

#: Their layers, and the rectifier between two, are those of the code that the models come with.
_KNOWN_HEADS = (
    # LLaMA-Factory and TRL save a value head with a causal model; others merge a classifier's into one.
    _KnownHead("ForCausalLM", VALUE_HEAD, one_output=True),
    _KnownHead("ForCausalLM", SCORE),
    # GRM-*-sftreg: TRL's value head, mostly of two layers (its code is in RewardBench: models/grm.py).
    _KnownHead("GRewardModel", VALUE_HEAD, one_output=True),
    # Qwen2.5-Math-RM, WorldPM (vLLM: models/qwen2_rm.py). Skywork-o1-Open-PRM, which rates steps, has an
    # architecture of this name too, and another head.
    _KnownHead(_REWARD_MODEL, SCORE, several_layers=True, one_output=True),
    # INF-ORM (RewardBench: models/inform.py).
    _KnownHead("ForSequenceClassification", SCORE, several_layers=True),
    # Athene-RM (RewardBench: models/athene.py).
    _KnownHead("ForSequenceClassification", APPENDED_HEAD, APPENDED_CLS, one_output=True),
    # Decision-Tree-Reward's ratings: its modeling_decision_tree_reward_model.py. The tree is for pairs.
    _KnownHead("ForDecisionTreeRewardModel", SCORE),
)


class Recognised(NamedTuple):
    """How a model is read."""

    family: str
    named: bool = False
    """Whether the family is known only because a person named it."""
    head: WeightsHead | None = None
    """The head that lies in its weights, where its family builds it from there by its tensors' names."""


def architectures_of(config: Mapping[str, Any]) -> list[str]:
    """The names in its config.json; none where it has none."""
    return [str(one) for one in config.get("architectures") or ()]


def reading_of(
    name: str,
    folder: Path,
    config: Mapping[str, Any],
    published: str | None,
    named: str | None,
    adapter: Adapter | None = None,
) -> Recognised:
    """How the model is read: its family is the catalog's (``published``), shown by its files, or ``named``.

    ``UserMistake`` where nobody says which it is, two disagree, or its head does not fit. ``adapter`` is one
    that is merged into the model in ``folder``.
    """
    architectures = architectures_of(config)
    found = _adapted(name, config, adapter) if adapter is not None else _head(name, folder, config)
    head, family = found or (None, None)
    known = published or family or _shown_by(architectures)
    if known in BY_TENSORS and known != family:
        raise UserMistake(
            f"model {name}: its weights hold no head of the family {known}, which the catalog says it is of"
        )
    if known is not None and named in (None, known):
        return Recognised(known, head=head if known == family else None)
    if known is not None:
        source = f"as its architecture says ({architectures[0]})"
        if head is not None:
            source = f"as its weights show ({head.described})"
        if published:
            source = "as the catalog has it"
        raise UserMistake(f"--family {named}: model {name} is of the family {known}, {source}; leave it out")
    is_causal = any(one.endswith("ForCausalLM") for one in architectures)
    if named == FIRST_TOKEN_LOGIT and is_causal:
        return Recognised(FIRST_TOKEN_LOGIT, named=True)
    raise not_read.why_not(name, folder, architectures, named=named)


def check_claim(
    claimed: str,
    family: str | None,
    name: str,
    folder: Path,
    config: Mapping[str, Any],
    adapter: Adapter | None,
) -> None:
    """Raise ``UserMistake`` where the files show that the model is not the one that it is said to be.

    ``family`` is of the model of the catalog that is ``claimed``. ``adapter`` is one that is merged into the
    model in ``folder``.
    """
    architectures = architectures_of(config)
    found = _adapted(name, config, adapter) if adapter is not None else _head(name, folder, config)
    shown = found[1] if found is not None else _shown_by(architectures)
    may_be = shown == family or (
        shown is None
        and family == FIRST_TOKEN_LOGIT
        and any(one.endswith("ForCausalLM") for one in architectures)
    )
    if not may_be:
        raise UserMistake(
            f"--as {claimed}: that model is of the family {family}, and {name} is "
            f"{f'of the family {shown}' if shown else 'not'}, by its architecture "
            f"({', '.join(architectures) or 'none named'}) and its weights"
        )
    check_size(claimed, name, config)


def _adapted(name: str, config: Mapping[str, Any], adapter: Adapter) -> tuple[WeightsHead, str]:
    """The head of an adapted model, and its family; ``UserMistake`` where its base is of another."""
    head, family = head_of(name, adapter, size_in(config).width)
    architectures = architectures_of(config)
    if any(one.endswith(("ForCausalLM", "ForSequenceClassification")) for one in architectures):
        shown = _shown_by(architectures)
        if shown in (None, SEQUENCE_CLASSIFICATION):
            return head, family
    raise UserMistake(
        f"model {name}: its base {adapter.base} is {', '.join(architectures) or 'of no known architecture'}; "
        "adapters are merged into a *ForCausalLM or a *ForSequenceClassification"
    )


def _head(name: str, folder: Path, config: Mapping[str, Any]) -> tuple[WeightsHead, str] | None:
    """The head in its weights, and its family; None where its architecture keeps none there.

    ``UserMistake`` for a head that is not known of its architecture.
    """
    architectures = architectures_of(config)
    shown = _shown_by(architectures)
    if shown not in (None, SEQUENCE_CLASSIFICATION):
        return None
    if shown == SEQUENCE_CLASSIFICATION and is_a_classifiers(folder):
        return None
    candidates = [known for known in _KNOWN_HEADS if any(one.endswith(known.ending) for one in architectures)]
    if not candidates:
        return None
    is_reward_model = any(known.ending == _REWARD_MODEL for known in candidates)
    if is_reward_model:
        not_read.check_rates_no_steps(name, config.get("_name_or_path"), architectures)
    head = head_in(name, folder, size_in(config).width)
    if head is None:
        return None
    for known in candidates:
        if known.prefix == head.prefix and (len(head.layers) > 1 or not known.several_layers):
            if known.one_output and head.outputs != 1:
                raise UserMistake(
                    f"model {name}: {head.layers[-1].name}.weight gives {head.outputs} numbers, where such a "
                    "head gives one"
                )
            return head, known.family
    if is_reward_model:
        raise not_read.why_not(name, folder, architectures)
    raise UserMistake(
        f"model {name}: its weights hold {head.described}, which is no head that is known of "
        f"{architectures[0]}"
    )


def _shown_by(architectures: Sequence[str]) -> str | None:
    """The family that the architecture's name shows; None where it shows none."""
    for ending, family in _FAMILY_BY_ENDING:
        if any(architecture.endswith(ending) for architecture in architectures):
            return family
    return None


def check_reading(name: str, family: str, read_at: str | None, add_bos: bool | None) -> None:
    """Raise ``UserMistake`` for a way to read that this family does not have."""
    if read_at == AS_TRANSFORMERS and family != SEQUENCE_CLASSIFICATION:
        raise UserMistake(
            f"--read-at {read_at}: is for the family {SEQUENCE_CLASSIFICATION}, whose head in transformers "
            f"looks for a position; model {name} is of the family {family}"
        )
    if add_bos is not None and FAMILIES[family].pair:
        raise UserMistake(
            f"--add-bos: is for models that a chat template renders for; model {name} is of the family "
            f"{family}, which is shown all that its tokenizer writes"
        )


def is_armorm(config: Mapping[str, Any]) -> bool:
    """Whether it rates HelpSteer's five on their own scale, as ArmoRM does."""
    return any(name.endswith(_ARMORM) for name in architectures_of(config))
