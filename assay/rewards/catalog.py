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
    APPENDED_CLS,
    APPENDED_TOKEN,
    ATTRIBUTE_MIXTURE,
    FIRST_TOKEN_LOGIT,
    GATED_OBJECTIVES,
    HEAD_IN_WEIGHTS,
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
    """None: its card was not seen, or names none."""
    without_system: bool = False
    """Whether its card asks for conversations without a system message."""
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
_LLAMA_31 = "Llama 3.1 Community License"
_QWEN = "Qwen License"
_SKYWORK = "Skywork Community License"

_OWN_READING = "Its head is Assay's own reading of the published code, which does not run."

_NON_COMMERCIAL = "CC-BY-NC-4.0"
_ONLY_NON_COMMERCIAL = f"Its licence, {_NON_COMMERCIAL}, allows no commercial use."
_EMPTY_SYSTEM = (
    "Its README begins every conversation with an empty system message; a conversation without one is shown "
    "as the model's chat template has it."
)
_NO_TREE = (
    "Its decision tree, which chooses between two answers, is a pickle and is not read: what it gives here "
    "are the five ratings that the tree starts from."
)

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


def _jane(right: Mapping[str, float], wrong: Mapping[str, float]) -> tuple[Published, ...]:
    """The example on the cards of Skywork's models, and of those that were trained from them."""
    question = (
        "Jane has 12 apples. She gives 4 apples to her friend Mark, then buys 1 more apple, and finally "
        "splits all her apples equally among herself and her 2 siblings. How many apples does each person "
        "get?"
    )
    steps = (
        "1. Jane starts with 12 apples and gives 4 to Mark. 12 - 4 = 8. Jane now has 8 apples.\n"
        "2. Jane buys 1 more apple. 8 + 1 = 9. Jane now has 9 apples.\n"
    )
    answers = (
        "3. Jane splits the 9 apples equally among herself and her 2 siblings (3 people in total). "
        "9 ÷ 3 = 3 apples each. Each person gets 3 apples.",
        "3. Jane splits the 9 apples equally among her 2 siblings (2 people in total). "
        "9 ÷ 2 = 4.5 apples each. Each person gets 4 apples.",
    )
    return tuple(
        Published(_asked(question, steps + answer), values, "bfloat16")
        for answer, values in zip(answers, (right, wrong), strict=True)
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


def _skywork(
    name: str,
    license: str,
    trained_tokens: int | None = None,
    *,
    add_bos: bool = False,
    printed: tuple[float, float] | None = None,
) -> Entry:
    published = () if printed is None else _jane(*({REWARD: number} for number in printed))
    return Entry(
        f"Skywork/{name}",
        family=SEQUENCE_CLASSIFICATION,
        attributes=(REWARD,),
        trained_tokens=trained_tokens,
        dtype="bfloat16",
        license=license,
        add_bos=add_bos,
        published=published,
        # "Do not include system prompts", as the collection's page has it for V2.
        without_system="V2" in name,
    )


def _classifier(source: str, license: str | None = None, notes: tuple[str, ...] = ()) -> Entry:
    """A *ForSequenceClassification of one number, for English.

    It names no dtype: such models were read in float32 before the catalog knew them, and their scores stay.
    """
    return Entry(
        source,
        family=SEQUENCE_CLASSIFICATION,
        attributes=(REWARD,),
        languages=("en",),
        license=license,
        notes=notes,
    )


def _head_in_weights(
    source: str,
    *,
    languages: tuple[str, ...] = (),
    dtype: Dtype | None = None,
    license: str | None = None,
    published: tuple[Published, ...] = (),
    notes: tuple[str, ...] = (),
) -> Entry:
    """A model of one number, whose head is built from the layers in its weights."""
    return Entry(
        source,
        family=HEAD_IN_WEIGHTS,
        attributes=(REWARD,),
        languages=languages,
        dtype=dtype,
        license=license,
        published=published,
        notes=(_OWN_READING, *notes),
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


#: On the card of Qwen2.5-Math-RM-72B.
_DUCKS: Conversation = (
    Message("system", "Please reason step by step, and put your final answer within \\boxed{}."),
    Message(
        "user",
        "Janet’s ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes muffins for "
        "her friends every day with four. She sells the remainder at the farmers' market daily for $2 per "
        "fresh duck egg. How much in dollars does she make every day at the farmers' market?",
    ),
    Message(
        "assistant",
        "To determine how much Janet makes from selling the duck eggs at the farmers' market, we need to "
        "follow these steps:\n\n1. Calculate the total number of eggs laid by the ducks each day.\n2. "
        "Determine how many eggs Janet eats and bakes for herself each day.\n3. Find out how many eggs are "
        "left to be sold.\n4. Calculate the revenue from selling the remaining eggs at $2 per egg.\n\nLet's "
        "start with the first step:\n\n1. Janet's ducks lay 16 eggs per day.\n\nNext, we calculate how many "
        "eggs Janet eats and bakes for herself each day:\n\n2. Janet eats 3 eggs for breakfast every "
        "morning.\n3. Janet bakes 4 eggs for her friends every day.\n\nSo, the total number of eggs Janet "
        "eats and bakes for herself each day is:\n\\[ 3 + 4 = 7 \\text{ eggs} \\]\n\nNow, we find out how "
        "many eggs are left to be sold:\n\\[ 16 - 7 = 9 \\text{ eggs} \\]\n\nFinally, we calculate the "
        "revenue from selling the remaining eggs at $2 per egg:\n\\[ 9 \\times 2 = 18 \\text{ dollars} "
        "\\]\n\nTherefore, Janet makes \\(\\boxed{18}\\) dollars every day at the farmers' market.",
    ),
)

#: In WorldPM's README, with an empty system message.
_BETTER_SLEEP = tuple(
    Published(
        (Message("system", ""), Message("user", "Tips for better sleep?"), Message("assistant", answer)),
        {REWARD: printed},
        "float32",
    )
    for answer, printed in (
        (
            "Three key tips for better sleep:\n1. Set a consistent bedtime and wake-up schedule\n2. Avoid "
            "screens 1 hour before bed\n3. Keep your bedroom cool and dark\n\nStart with these habits and "
            "you should notice improvement within a week.",
            0.6298332214355469,
        ),
        (
            "just try sleeping earlier or take some pills if u cant sleep lol. maybe watch tv until u get "
            "tired idk",
            -1.6425328254699707,
        ),
    )
)

#: In Decision-Tree-Reward's README.
_RATED_BY_DECISION_TREE = _jane(
    dict(zip(HELPSTEER, (3.9603815, 3.9727726, 3.8582935, 0.9909791, 1.4901903), strict=True)),
    dict(zip(HELPSTEER, (2.1698856, 2.2035594, 3.2032843, 0.8786768, 1.4569137), strict=True)),
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
        license=_LLAMA_31,
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
    _skywork("Skywork-Reward-Gemma-2-27B", _SKYWORK, add_bos=True, printed=(9.1875, -17.875)),
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
            ("Llama-3.1-8B-40M", _LLAMA_31),
        )
    ),
    _skywork("Skywork-Reward-V2-Llama-3.1-8B", _LLAMA_31, trained_tokens=16_384, printed=(23.0, 3.59375)),
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
                dict(zip(HELPSTEER, (2.78125, 2.859375, 3.484375, 1.3847656, 1.296875), strict=True)),
                "bfloat16",
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
    # Its card names no dtype, nor does URM's: transformers of their time then loads float32.
    replace(_qrm("QRM-Llama3.1-8B"), dtype="float32"),
    _qrm("QRM-Llama3.1-8B-v2"),
    _qrm("QRM-Gemma-2-27B"),
    Entry(
        "LxzGordon/URM-LLaMa-3.1-8B",
        family=ATTRIBUTE_MIXTURE,
        attributes=(REWARD,),
        dtype="float32",
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
    replace(
        _internlm2("internlm2-20b-reward"),
        published=(
            Published(
                _asked(
                    "Hello! What's your name?",
                    "My name is InternLM2! A helpful AI assistant. What can I do for you?",
                ),
                {REWARD: 0.767578125},
                "float16",
            ),
            Published(
                _asked("Hello! What's your name?", "I have no idea."), {REWARD: -2.22265625}, "float16"
            ),
        ),
    ),
    Entry(
        "nvidia/Qwen-3-Nemotron-32B-Reward",
        family=SEQUENCE_CLASSIFICATION,
        attributes=(REWARD,),
        # Per an earlier revision of its card (c9f9d58).
        trained_tokens=8192,
        languages=("en",),
        license=_NVIDIA,
    ),
    *(
        _classifier(f"nvidia/AceMath-{size}-RM", _NON_COMMERCIAL, notes=(_ONLY_NON_COMMERCIAL,))
        for size in ("7B", "72B")
    ),
    # Of the seven of RewardBench 2 those whose cards were seen. Some are saved as pickles alone.
    *(
        _classifier(f"allenai/{name}", _LLAMA_31)
        for name in (
            "Llama-3.1-8B-Base-RM-RB2",
            "Llama-3.1-8B-Instruct-RM-RB2",
            "Llama-3.1-70B-Instruct-RM-RB2",
            "Llama-3.1-Tulu-3-8B-SFT-RM-RB2",
            "Llama-3.1-Tulu-3-70B-SFT-RM-RB2",
            "Llama-3.1-Tulu-3-8B-RM",
        )
    ),
    # The card of the first was not seen.
    replace(_classifier("sfairXC/FsfairX-LLaMA3-RM-v0.1"), languages=()),
    _classifier("NCSOFT/Llama-3-OffsetBias-RM-8B", _LLAMA_3),
    # Of GRM's cards, the one of Gemma2-2B and the one of the distilled model were seen.
    replace(_classifier("Ray2333/GRM-Gemma2-2B-rewardmodel-ft", "Apache-2.0"), languages=()),
    replace(_classifier("Ray2333/GRM-llama3-8B-distill"), languages=()),
    *(
        replace(_classifier(f"Ray2333/{name}"), languages=())
        for name in (
            "GRM_Llama3.1_8B_rewardmodel-ft",
            "GRM-Llama3-8B-rewardmodel-ft",
            "GRM-Llama3.2-3B-rewardmodel-ft",
            "GRM-Gemma-2B-rewardmodel-ft",
        )
    ),
    *(
        _head_in_weights(f"Ray2333/GRM-{base}-sftreg")
        for base in ("llama3-8B", "llama3.2-3B", "Gemma2-2B", "Gemma-2B")
    ),
    # Its card, and README, name no licence.
    _head_in_weights("infly/INF-ORM-Llama3.1-70B"),
    _head_in_weights(
        "Qwen/Qwen2.5-Math-RM-72B",
        languages=("en", "zh"),
        dtype="bfloat16",
        license=_QWEN,
        published=(Published(_DUCKS, {REWARD: 3.75}, "bfloat16", digits=0.005),),
    ),
    _head_in_weights(
        "Qwen/WorldPM-72B",
        languages=("en",),
        # Its README names no dtype, and prints more digits than 16 bits hold.
        dtype="float32",
        license=_QWEN,
        published=_BETTER_SLEEP,
        notes=(_EMPTY_SYSTEM,),
    ),
    *(
        _head_in_weights(
            f"Qwen/WorldPM-72B-{data}",
            languages=("en",),
            dtype="float32",
            license=_QWEN,
            notes=(_EMPTY_SYSTEM,),
        )
        for data in ("HelpSteer2", "UltraFeedback", "RLHFLow")
    ),
    # RewardBench's code for it calls tokenizer(text). Its card was not seen.
    *(
        Entry(
            f"Nexusflow/Athene-RM-{size}",
            family=APPENDED_CLS,
            attributes=(REWARD,),
            add_bos=True,
            notes=(_OWN_READING,),
        )
        for size in ("8B", "70B")
    ),
    *(
        Entry(
            f"RLHFlow/Decision-Tree-Reward-{base}",
            family=HEAD_IN_WEIGHTS,
            attributes=HELPSTEER,
            languages=("en",),
            dtype="bfloat16",
            license=_SKYWORK,
            published=printed,
            notes=(_OWN_READING, _NO_TREE),
        )
        for base, printed in (("Llama-3.1-8B", _RATED_BY_DECISION_TREE), ("Gemma-2-27B", ()))
    ),
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
