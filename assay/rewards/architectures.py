"""How a model is read: its architecture's name shows it, or else a person says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.core.errors import UserMistake
from assay.rewards import not_read
from assay.rewards.families import (
    APPENDED_TOKEN,
    AS_TRANSFORMERS,
    ATTRIBUTE_MIXTURE,
    FAMILIES,
    FIRST_TOKEN_LOGIT,
    GATED_OBJECTIVES,
    PAIR_CLASSIFICATION,
    SEQUENCE_CLASSIFICATION,
    WITHOUT_TRANSFORM,
)

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


def architectures_of(config: Mapping[str, Any]) -> list[str]:
    """The names in its config.json; none where it has none."""
    return [str(one) for one in config.get("architectures") or ()]


def family_of(
    name: str, folder: Path, config: Mapping[str, Any], published: str | None, named: str | None
) -> tuple[str, bool]:
    """The family of the model, and whether it is known only because a person ``named`` it.

    ``published`` is the catalog's. ``UserMistake`` where nobody says which it is, or two disagree.
    """
    architectures = architectures_of(config)
    known = published or _shown_by(architectures)
    if known is not None and named in (None, known):
        return known, False
    if known is not None:
        source = "as the catalog has it" if published else f"as its architecture says ({architectures[0]})"
        raise UserMistake(f"--family {named}: model {name} is of the family {known}, {source}; leave it out")
    is_causal = any(one.endswith("ForCausalLM") for one in architectures)
    if named == FIRST_TOKEN_LOGIT and is_causal and not not_read.has_value_head(folder):
        return FIRST_TOKEN_LOGIT, True
    raise not_read.why_not(name, folder, architectures, named=named)


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
