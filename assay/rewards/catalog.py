"""The catalog: what is known of each published reward model.

It is from the model's card on the Hub unless a line says otherwise. Which file of which model a name stands
for is decided in ``find``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from assay.core.schema import ATTRIBUTES, REWARD, Conversation, Message
from assay.rewards.families import (
    APPENDED_TOKEN,
    ATTRIBUTE_MIXTURE,
    FIRST_TOKEN_LOGIT,
    GATED_OBJECTIVES,
    PAIR_CLASSIFICATION,
    SEQUENCE_CLASSIFICATION,
)
from assay.rewards.options import Dtype
from assay.rewards.scalar import NEMOTRON_4_340B_FACTORS

#: The five that HelpSteer rates, in its order.
HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


@dataclass(frozen=True, slots=True)
class Published:
    """A score that the authors of a model print."""

    messages: Conversation
    """The last message is the turn that is scored."""
    values: Mapping[str, float]
    """By attribute; those that are not printed are left out."""
    dtype: Dtype
    digits: float = 0.0
    """Half a unit of the last digit, where the number was rounded for print."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the catalog knows of one published model."""

    source: str
    """A Hub id, or a folder that ships with Assay."""
    family: str | None = None
    """Where the name of its architecture does not show it."""
    attributes: tuple[str, ...] | None = None
    max_tokens: int | None = None
    trained_tokens: int | None = None
    languages: tuple[str, ...] = ()
    """ISO 639-1; empty where the card names none."""
    dtype: Dtype | None = None
    """What the card loads it in."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """What multiplies each attribute in the one number that its authors make of them."""
    published: tuple[Published, ...] = ()
    license: str | None = None
    add_bos: bool = False
    """Whether the card's code tokenizes the rendered text by ``tokenizer(text)``, which puts a token of its
    own before it."""
    service_only: bool = False
    """Whether transformers cannot load it, so that only a service has it."""
    notes: tuple[str, ...] = ()


_STARTER = Path(__file__).parent / "starter"

_NVIDIA = "NVIDIA Open Model License"
_NVIDIA_LLAMA = "NVIDIA Open Model License, Llama Community License"
_LLAMA_3 = "Meta Llama 3 Community License"
_SKYWORK = "Skywork Community License"

_OWN_READING = "Its head is Assay's own reading of the published code, which does not run."

#: Tagged on the multilingual models trained on HelpSteer3.
_HELPSTEER3_LANGUAGES = (
    "en", "zh", "ko", "fr", "es", "ru", "ja", "de", "it", "pt", "pl", "id", "nl", "vi",
)  # fmt: skip


def _asked(question: str, answer: str) -> Conversation:
    return (Message("user", question), Message("assistant", answer))


def _one_and_one(right: float, wrong: float, dtype: Dtype) -> tuple[Published, ...]:
    """The example on NVIDIA's cards."""
    return (
        Published(_asked("What is 1+1?", "1+1=2"), {REWARD: right}, dtype),
        Published(_asked("What is 1+1?", "1+1=3"), {REWARD: wrong}, dtype),
    )


#: The question on URM's card.
_SIGMOID = "What is the range of the numeric output of a sigmoid node in a neural network?"


#: What NVIDIA's reward models of 70 B parameters have in common.
_NEMOTRON_70B = Entry(
    "",
    family=FIRST_TOKEN_LOGIT,
    attributes=(REWARD,),
    max_tokens=131_072,
    trained_tokens=4096,
    languages=("en",),
    dtype="bfloat16",
    license=_NVIDIA_LLAMA,
)


def _skywork(name: str, license: str, trained_tokens: int | None = None, *, add_bos: bool = False) -> Entry:
    return Entry(
        f"Skywork/{name}",
        family=SEQUENCE_CLASSIFICATION,
        attributes=(REWARD,),
        trained_tokens=trained_tokens,
        dtype="bfloat16",
        license=license,
        add_bos=add_bos,
    )


def _qrm(name: str) -> Entry:
    return Entry(
        f"nicolinho/{name}",
        family=GATED_OBJECTIVES,
        attributes=(REWARD,),
        dtype="bfloat16",
        notes=(_OWN_READING,),
    )


def _internlm2(name: str) -> Entry:
    return Entry(
        f"internlm/{name}",
        family=APPENDED_TOKEN,
        attributes=(REWARD,),
        languages=("en", "zh"),
        dtype="float16",
    )


def _openassistant(name: str) -> Entry:
    return Entry(
        f"OpenAssistant/{name}",
        family=PAIR_CLASSIFICATION,
        attributes=(REWARD,),
        max_tokens=512,
        languages=("en",),
        license="MIT",
    )


_ENTRIES = (
    Entry(
        "nvidia/Qwen-2.5-Nemotron-32B-Reward",
        family=SEQUENCE_CLASSIFICATION,
        attributes=(REWARD,),
        max_tokens=131_072,
        trained_tokens=8192,
        languages=("en",),
        dtype="float16",
        published=_one_and_one(11.4296875, -7.53515625, "float16"),
        license=_NVIDIA,
    ),
    replace(
        _NEMOTRON_70B,
        source="nvidia/Llama-3.3-Nemotron-70B-Reward-Multilingual",
        languages=_HELPSTEER3_LANGUAGES,
        published=_one_and_one(6.46875, -1.8828125, "bfloat16"),
    ),
    replace(_NEMOTRON_70B, source="nvidia/Llama-3.3-Nemotron-70B-Reward"),
    replace(
        _NEMOTRON_70B,
        source="nvidia/Llama-3.1-Nemotron-70B-Reward-HF",
        license="Llama 3.1 Community License",
    ),
    Entry(
        "nvidia/Nemotron-4-340B-Reward",
        attributes=ATTRIBUTES,
        max_tokens=4096,
        languages=("en",),
        factors=NEMOTRON_4_340B_FACTORS,
        license=_NVIDIA,
        service_only=True,
        notes=("Its first four values (quality, toxicity, humor, creativity) were not trained.",),
    ),
    Entry(
        "nvidia/nemotron-3-34b-reward",
        # As NeMo Curator's documentation names it.
        attributes=("helpfulness", "correctness", "coherence"),
        service_only=True,
    ),
    # The cards of the first two call tokenizer(text), those of v0.2 apply_chat_template. Those of V2 take the
    # template's own BOS away before tokenizer(text) adds one, which comes to the template's own tokens.
    _skywork("Skywork-Reward-Gemma-2-27B", _SKYWORK, add_bos=True),
    _skywork("Skywork-Reward-Gemma-2-27B-v0.2", _SKYWORK),
    _skywork("Skywork-Reward-Llama-3.1-8B", _SKYWORK, add_bos=True),
    _skywork("Skywork-Reward-Llama-3.1-8B-v0.2", _SKYWORK),
    *(
        _skywork(f"Skywork-Reward-V2-{base}", license, trained_tokens=16_384)
        for base, license in (
            ("Qwen3-0.6B", "Apache-2.0"),
            ("Qwen3-1.7B", "Apache-2.0"),
            ("Qwen3-4B", "Apache-2.0"),
            ("Qwen3-8B", "Apache-2.0"),
            ("Llama-3.2-1B", "Llama 3.2 Community License"),
            ("Llama-3.2-3B", "Llama 3.2 Community License"),
            ("Llama-3.1-8B", "Llama 3.1 Community License"),
            ("Llama-3.1-8B-40M", "Llama 3.1 Community License"),
        )
    ),
    Entry(
        "RLHFlow/ArmoRM-Llama3-8B-v0.1",
        family=GATED_OBJECTIVES,
        attributes=(REWARD, *HELPSTEER),
        max_tokens=4096,
        trained_tokens=4096,
        dtype="bfloat16",
        published=(
            Published(
                _asked(
                    'What are some synonyms for the word "beautiful"?',
                    "Nicely, Beautifully, Handsome, Stunning, Wonderful, Gorgeous, Pretty, Stunning, Elegant",
                ),
                dict(zip(HELPSTEER, (2.7812, 2.8398, 3.4844, 1.3945, 1.3262), strict=True)),
                "bfloat16",
                digits=5e-5,
            ),
            # Printed in the documentation of distilabel's RewardModelScore.
            Published(
                _asked("How much is 2+2?", "The output of 2+2 is 4"),
                {REWARD: 0.1169},
                "bfloat16",
                digits=5e-5,
            ),
            Published(_asked("How much is 2+2?", "4"), {REWARD: 0.1030}, "bfloat16", digits=5e-5),
        ),
        license=_LLAMA_3,
        notes=(_OWN_READING,),
    ),
    _qrm("QRM-Llama3-8B"),
    _qrm("QRM-Llama3.1-8B"),
    _qrm("QRM-Llama3.1-8B-v2"),
    _qrm("QRM-Gemma-2-27B"),
    Entry(
        "LxzGordon/URM-LLaMa-3.1-8B",
        family=ATTRIBUTE_MIXTURE,
        attributes=(REWARD,),
        dtype="bfloat16",
        published=(
            Published(
                _asked(_SIGMOID, "The output of a sigmoid node is bounded between -1 and 1."),
                {REWARD: 2.3285412788391113},
                "float32",
            ),
            Published(
                _asked(_SIGMOID, "The output of a sigmoid node is bounded between 0 and 1."),
                {REWARD: 12.438033103942871},
                "float32",
            ),
        ),
        # Its card calls tokenizer(text).
        add_bos=True,
        notes=(_OWN_READING,),
    ),
    _internlm2("internlm2-1_8b-reward"),
    _internlm2("internlm2-7b-reward"),
    _internlm2("internlm2-20b-reward"),
    _openassistant("reward-model-deberta-v3-base"),
    _openassistant("reward-model-deberta-v3-large"),
    _openassistant("reward-model-deberta-v3-large-v2"),
)

CATALOG: dict[str, Entry] = {
    "starter": Entry(
        source=str(_STARTER),
        max_tokens=8192,
        trained_tokens=1024,
        languages=("en",),
        notes=(
            "The starter model is there to try the pipeline, not to judge data: "
            "see assay/rewards/starter/README.md for what it can and cannot do.",
        ),
    ),
    **{entry.source: entry for entry in _ENTRIES},
}
