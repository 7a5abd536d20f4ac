"""The families of local reward models: how each is shown a conversation, and where its number is.

What of this needs torch is in ``local.heads``, under the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

SEQUENCE_CLASSIFICATION = "sequence-classification"
FIRST_TOKEN_LOGIT = "first-token-logit"
GATED_OBJECTIVES = "gated-objectives"
ATTRIBUTE_MIXTURE = "attribute-mixture"
HEAD_IN_WEIGHTS = "head-in-weights"
APPENDED_TOKEN = "appended-token"
APPENDED_CLS = "appended-cls"
PAIR_CLASSIFICATION = "pair-classification"

#: Where a *ForSequenceClassification is read: at the last token of a conversation, or where the head of
#: transformers itself reads it, which passes over padding tokens that a conversation ends in.
ReadAt = Literal["last-token", "transformers"]
READ_AT: tuple[ReadAt, ...] = get_args(ReadAt)
AS_TRANSFORMERS: ReadAt = "transformers"


#: How the architecture of QRM's later models ends. Unlike ArmoRM and QRM's first ones they have no matrix
#: that transforms rewards.
WITHOUT_TRANSFORM = "ForQuantileSequenceClassification"


@dataclass(frozen=True, slots=True)
class Family:
    """What must be known of a family to render for it and to load it."""

    auto_class: str
    """The class of transformers that loads it."""
    gated: bool = False
    """Whether its head also reads the state at the header of the turn, which weighs the objectives."""
    head_from_weights: bool = False
    """Whether transformers loads its backbone alone, and its head is built from the weights."""
    appended: bool = False
    """Whether a token that stands in no conversation follows the turn, and is where the score is read."""
    pair: bool = False
    """Whether it is an encoder that is shown a question and an answer, and sees both in both directions."""


FAMILIES: dict[str, Family] = {
    # Skywork-Reward, Qwen-2.5-Nemotron-Reward: one linear layer on the last token's state.
    SEQUENCE_CLASSIFICATION: Family("AutoModelForSequenceClassification"),
    # Llama-3.x-Nemotron-70B-Reward: a causal model's logit of vocabulary id 0.
    FIRST_TOKEN_LOGIT: Family("AutoModelForCausalLM"),
    # ArmoRM, QRM: objectives at the last token, weighed by a network on the state at the turn's header.
    GATED_OBJECTIVES: Family("AutoModel", gated=True, head_from_weights=True),
    # URM: attributes' means at the last token, weighed by a network on the same state.
    ATTRIBUTE_MIXTURE: Family("AutoModel", head_from_weights=True),
    # LLaMA-Factory, TRL, INF-ORM, WorldPM, GRM-sftreg, Decision-Tree-Reward: linear layers on the last
    # token's state, which lie in the weights beside a backbone.
    HEAD_IN_WEIGHTS: Family("AutoModel", head_from_weights=True),
    # InternLM2-Reward: one linear layer on the state of a token appended to the conversation.
    APPENDED_TOKEN: Family("AutoModel", appended=True),
    # Athene-RM: such a layer on the state of the tokenizer's CLS token, appended to the conversation.
    APPENDED_CLS: Family("AutoModel", head_from_weights=True, appended=True),
    # OpenAssistant's reward-model-deberta-v3.
    PAIR_CLASSIFICATION: Family("AutoModelForSequenceClassification", pair=True),
}

#: The families whose head is built from the tensors that ``head_in_weights`` finds.
BY_TENSORS = frozenset({HEAD_IN_WEIGHTS, APPENDED_CLS})
