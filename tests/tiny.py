"""Tiny seeded reward models, built in a second and saved as any published one is."""

from __future__ import annotations

from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from assay.rewards.local_spec import local_spec
from assay.rewards.options import ModelOptions
from assay.rewards.spec import LocalSpec

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
)
LLAMA3 = (
    "{{ '<|begin|>' }}{% for message in messages %}<|header|>{{ message.role }}<|/header|>\n\n"
    "{{ message.content | trim }}<|eot|>{% endfor %}"
)
#: Mistral's manner: the system message is told with the last user message, so earlier prefixes differ.
MOVING_SYSTEM = (
    "{% set ns = namespace(last=-1) %}{% for message in messages %}"
    "{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<|inst|> "
    "{% if loop.index0 == ns.last and messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}"
    "{{ message.content }}<|/inst|>"
    "{% elif message.role == 'assistant' %} {{ message.content }}<|eos|>{% endif %}{% endfor %}"
)
#: Qwen3's manner: reasoning is stripped from every answer but the last.
STRIPS_REASONING = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' and not loop.last and '</think>' in message.content %}"
    "{{ message.content.split('</think>')[-1].lstrip('\n') }}"
    "{% else %}{{ message.content }}{% endif %}<|im_end|>\n{% endfor %}"
)
#: No added token anywhere: cuts can only be certified by comparing token ids.
PLAIN = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
#: A suffix after the last message only: no prefix is ever a prefix of the whole.
LABEL_SUFFIX = PLAIN + "label:"

#: A number after a cut takes the last of the spaces before it into a piece of its own.
NUMBERED = "{% for message in messages %}{{ loop.index }}. {{ message.content }}   {% endfor %}"
#: White space on the far side of a cut, for added tokens that swallow it.
SPACED = "{% for message in messages %} \n<|im_start|>{{ message.role }} {{ message.content }}{% endfor %}"

TEMPLATES = {
    "numbered": NUMBERED,
    "spaced": SPACED,
    "chatml": CHATML,
    "llama3": LLAMA3,
    "moving-system": MOVING_SYSTEM,
    "strips-reasoning": STRIPS_REASONING,
    "plain": PLAIN,
    "label-suffix": LABEL_SUFFIX,
}

ADDED = (
    "<|pad|>", "<|im_start|>", "<|im_end|>", "<|begin|>", "<|header|>", "<|/header|>",
    "<|eot|>", "<|inst|>", "<|/inst|>", "<|eos|>",
)  # fmt: skip

CORPUS = (
    "The quick brown fox jumps over the lazy dog. What is the capital of France? It is Paris.\n"
    "user assistant system Please explain how rainbows form; light bends in drops of water.\n"
) * 8


def tokenizer(template: str, *, stripping: bool = False) -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE of 600 pieces; with ``stripping``, its added tokens swallow the space beside them."""
    raw = tokenizers.Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    # Three spaces at the end of a text are one piece; before a number they are two: NUMBERED cuts there.
    raw.train_from_iterator([CORPUS, *["  ", "   "] * 50], trainer)
    special = [AddedToken(text, lstrip=stripping, rstrip=stripping, normalized=False) for text in ADDED]
    raw.add_special_tokens(special)
    raw.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "</think>")])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<|pad|>")
    fast.chat_template = template
    return fast


def reward_model(
    folder: Path,
    *,
    template: str = CHATML,
    attributes: tuple[str, ...] = ("helpfulness", "correctness"),
    family: str = "sequence-classification",
    max_tokens: int = 512,
    stripping: bool = False,
    seed: int = 0,
    more_added: tuple[str, ...] = (),
    late_added: tuple[str, ...] = (),
) -> Path:
    """The folder of a random two-layer Qwen2 with that chat template.

    ``more_added``: tokens that are added but not special. ``late_added``: such tokens that the model was
    given no embedding for.
    """
    fast = tokenizer(template, stripping=stripping)
    fast.add_tokens([AddedToken(text, normalized=False) for text in more_added])
    settings = {
        "vocab_size": len(fast),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": max_tokens,
        "pad_token_id": fast.pad_token_id,
        # Small enough that fp32 itself is good for six digits of every score.
        "initializer_range": 0.1,
    }
    torch.manual_seed(seed)
    model: transformers.PreTrainedModel
    if family == "first-token-logit":
        model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**settings))
    else:
        labels = dict(enumerate(attributes))
        model = transformers.Qwen2ForSequenceClassification(
            transformers.Qwen2Config(**settings, id2label=labels)
        )
        model.score.weight.data.mul_(5)
    fast.add_tokens([AddedToken(text, normalized=False) for text in late_added])
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def spec(folder: Path, options: ModelOptions = ModelOptions()) -> LocalSpec:
    """What is known of the model in that folder."""
    return local_spec(str(folder), options)
