"""A tiny seeded model of every family, each with the plain call of its model card.

ArmoRM, QRM, URM and InternLM2-Reward are code in repositories on the Hub. What stands for them here was
written from what is documented of what goes in and comes out; it is not their code.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import tiny
import tokenizers
import torch
import transformers
from tokenizers import processors

from assay.core.schema import Conversation, Message
from assay.rewards.local_spec import local_spec
from assay.rewards.options import Dtype, LoadOptions, ModelOptions
from assay.rewards.spec import LocalSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TRUSTED = LoadOptions(trust_remote_code=True)

#: The five templates that published models are of: ChatML, Llama 3, Mistral, Qwen3, plain text.
TEMPLATES = ("chatml", "llama3", "moving-system", "strips-reasoning", "plain")

HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")

_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.1,
}

Call = Callable[[Conversation], list[float]]


class Tiny(NamedTuple):
    """What the engine loads, and what it is compared with."""

    spec: LocalSpec
    card: Call


def _dicts(messages: Conversation) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _ids(tokenizer: Any, messages: Conversation) -> torch.Tensor:
    ids: torch.Tensor = tokenizer.apply_chat_template(
        _dicts(messages), return_dict=True, return_tensors="pt", add_generation_prompt=False
    )["input_ids"]
    return ids


def _config(kind: str, vocabulary: int, pad: int | None, **more: Any) -> Any:
    shape = dict(_SHAPE)
    if kind == "GPTNeoX":
        shape.pop("num_key_value_heads")
    if kind.startswith("Gemma"):
        shape["head_dim"] = 8
    config = getattr(transformers, f"{kind}Config")(vocab_size=vocabulary, pad_token_id=pad, **shape, **more)
    config.bos_token_id = config.eos_token_id = None
    return config


def copy_code_to(folder: Path) -> None:
    """Code that comes with a model is copied to that folder from now on, and not to its user's cache."""
    from transformers import dynamic_module_utils

    # The module imports the name and does not export it.
    vars(dynamic_module_utils)["HF_MODULES_CACHE"] = str(folder)


def classifier(
    folder: Path,
    template: str,
    *,
    kind: str = "Qwen2",
    attributes: tuple[str, ...] = ("reward",),
    pad: str = "own",
    dtype: Dtype = "float32",
) -> Tiny:
    """``*ForSequenceClassification`` of that kind; ``pad`` is ``own``, ``eos`` or ``none``."""
    fast = tiny.tokenizer(tiny.TEMPLATES[template])
    fast.eos_token = "<|eos|>"
    fast.pad_token = {"own": "<|pad|>", "eos": "<|eos|>", "none": None}[pad]
    labels = dict(enumerate(attributes))
    config = _config(kind, len(fast), fast.pad_token_id, num_labels=len(attributes), id2label=labels)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    model.score.weight.data.mul_(5)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    model = model.to(getattr(torch, dtype)).eval()
    # One text at a time, its last token is its last token; with the padding token known, transformers
    # would look for it, and stop before the end of a text that ends in it.
    model.config.pad_token_id = None

    @torch.inference_mode()
    def card(messages: Conversation) -> list[float]:
        values: list[float] = model(_ids(fast, messages)).logits[0].float().tolist()
        return values

    return Tiny(local_spec(str(folder), ModelOptions(dtype=dtype)), card)


def first_token(folder: Path, template: str) -> Tiny:
    """A causal model read at vocabulary id 0, as Llama-3.x-Nemotron-70B-Reward."""
    fast = tiny.tokenizer(tiny.TEMPLATES[template])
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(_config("Llama", len(fast), fast.pad_token_id)).eval()
    model.save_pretrained(folder)
    fast.save_pretrained(folder)

    @torch.inference_mode()
    def card(messages: Conversation) -> list[float]:
        return [float(model(_ids(fast, messages)).logits[0, -1, 0])]

    return Tiny(local_spec(str(folder), ModelOptions(family="first-token-logit")), card)


class ValueHead(torch.nn.Module):
    """TRL's: one linear layer, or several with rectifiers between them, named ``summary``."""

    def __init__(self, width: int, hidden: tuple[int, ...], *, outputs: int = 1, bias: bool = True) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        for neurons in hidden:
            layers += [torch.nn.Linear(width, neurons, bias=bias), torch.nn.ReLU()]
            width = neurons
        layers.append(torch.nn.Linear(width, outputs, bias=bias))
        self.summary = torch.nn.Sequential(*layers) if hidden else layers[0]
        for parameter in self.parameters():
            parameter.data.normal_(std=0.3)


def head_in_weights(
    folder: Path,
    template: str,
    *,
    kind: str = "Llama",
    hidden: tuple[int, ...] = (),
    outputs: int = 1,
    bias: bool = True,
    prefix: str = "v_head.summary",
    beside: str | None = "value_head.safetensors",
    architecture: str | None = None,
    dtype: Dtype = "float32",
    **settings: Any,
) -> Tiny:
    """A causal model and linear layers on its last state, as LLaMA-Factory saves a reward model.

    ``beside``: the file of the head; None: it lies in the model's own.
    """
    fast = tiny.tokenizer(tiny.TEMPLATES[template])
    torch.manual_seed(7)
    model = getattr(transformers, f"{kind}ForCausalLM")(_config(kind, len(fast), fast.pad_token_id)).eval()
    head = ValueHead(32, hidden, outputs=outputs, bias=bias).eval()
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    tensors = {f"{prefix}.{name}": tensor for name, tensor in head.summary.state_dict().items()}
    file = folder / (beside or "model.safetensors")
    held = {} if beside else safetensors.torch.load_file(file)
    safetensors.torch.save_file({**held, **tensors}, file, metadata={"format": "pt"})
    edit_config(folder, **{"architectures": [architecture]} if architecture else {}, **settings)

    @torch.inference_mode()
    def card(messages: Conversation) -> list[float]:
        out = model(_ids(fast, messages), output_hidden_states=True)
        values: list[float] = head.summary(out.hidden_states[-1])[0, -1].tolist()
        return values

    return Tiny(local_spec(str(folder), ModelOptions(dtype=dtype)), card)


def appended_cls(folder: Path, template: str) -> Tiny:
    """Athene's manner: a linear layer ``v_head`` on the state of an appended CLS token."""
    fast = tiny.tokenizer(tiny.TEMPLATES[template])
    fast.add_special_tokens({"cls_token": "<|reserved_1|>"})
    torch.manual_seed(8)
    model = transformers.LlamaModel(_config("Llama", len(fast), fast.pad_token_id)).eval()
    head = torch.nn.Linear(32, 1, bias=False)
    head.weight.data.normal_(std=0.5)
    weights = {f"model.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    folder.mkdir(parents=True)
    safetensors.torch.save_file(
        {**weights, "v_head.weight": head.weight.data},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    model.config.save_pretrained(folder)
    edit_config(folder, architectures=["AtheneForSequenceClassification"])
    fast.save_pretrained(folder)

    @torch.inference_mode()
    def card(messages: Conversation) -> list[float]:
        text = fast.apply_chat_template(_dicts(messages), tokenize=False) + fast.cls_token
        ids = fast(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        rewards = head(model(ids).last_hidden_state).squeeze(-1)
        return [float(rewards[0, (ids[0] == fast.cls_token_id).nonzero()[-1].item()])]

    return Tiny(local_spec(str(folder)), card)


class Gating(NamedTuple):
    """What the published gated models differ in."""

    architecture: str
    objectives: int = 19
    quantiles: int = 19
    normalised: bool = True
    """Whether each rectifier is followed by a normalisation; the layers before it then have no bias."""
    dropout: bool = False
    """Whether a dropout stands between two layers: it does nothing, and takes a number."""
    transform: bool = True
    temperature: float | None = 10.0
    """What config.json says; None: nothing, and the published code has a default."""
    default_temperature: float = 10.0


GATINGS = {
    "ArmoRM": Gating("LlamaForRewardModelWithGating", quantiles=1, normalised=False),
    "QRM-Llama3": Gating("LlamaForRewardModelWithGating3", quantiles=3),
    "QRM-Llama3.1": Gating("LlamaForRewardModelWithGating31", quantiles=3, temperature=None),
    "QRM-Gemma": Gating(
        "LlamaForQuantileSequenceClassification",
        objectives=5,
        dropout=True,
        transform=False,
        temperature=None,
        default_temperature=1.0,
    ),
}


class _Gate(torch.nn.Module):
    """Linear layers with rectifiers between them, and what else a kind of gate has there."""

    def __init__(self, width: int, kind: Gating) -> None:
        super().__init__()
        self.logit_scale = torch.nn.Parameter(torch.full((1,), 1.5))
        layers: list[torch.nn.Module] = []
        for place in range(2):
            layers.append(torch.nn.Linear(width, 24, bias=not kind.normalised))
            if kind.normalised:
                layers += [torch.nn.ReLU(), torch.nn.BatchNorm1d(24)]
            if kind.dropout and place == 0:
                layers.append(torch.nn.Dropout(0.2))
            width = 24
        layers.append(torch.nn.Linear(width, kind.objectives))
        self.layers = torch.nn.ModuleList(layers)
        self._kind = kind

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        kind = self._kind
        for layer in self.layers[:-1]:
            state = layer(state) if kind.normalised else torch.relu(layer(state))
        temperature = kind.default_temperature if kind.temperature is None else kind.temperature
        return torch.softmax(self.layers[-1](state) / temperature, dim=-1) * self.logit_scale[0]


class StandInForRewardModelWithGating(transformers.LlamaPreTrainedModel):
    """``rewards`` and the gated ``score`` of one conversation, as ArmoRM's card describes them."""

    def __init__(self, config: Any, kind: Gating) -> None:
        super().__init__(config)
        self.kind = kind
        self.model = transformers.LlamaModel(config)
        outputs = kind.objectives * kind.quantiles
        self.regression_layer = torch.nn.Linear(config.hidden_size, outputs, bias=False)
        if kind.transform:
            self.reward_transform_matrix = torch.nn.Parameter(torch.eye(kind.objectives))
        self.gating = _Gate(config.hidden_size, kind)
        self.post_init()

    def call(self, ids: list[int], pattern: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The 19 rewards and the score. ValueError: ``Token pattern not found``."""
        places = [
            start for start in range(len(ids) - len(pattern) + 1) if ids[start:][: len(pattern)] == pattern
        ]
        if not places:
            raise ValueError("Token pattern not found in the list.")
        states = self.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        rewards = self.regression_layer(states[-1]).reshape(self.kind.objectives, -1).mean(1)
        weights = self.gating(states[places[-1]][None])[0]
        transformed = rewards @ self.reward_transform_matrix if self.kind.transform else rewards
        return rewards, (weights * transformed).sum()


#: What stands between a question and its answer in each template, which the gate looks for.
HEADERS = {
    "chatml": "<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<|eot|><|header|>assistant<|/header|>\n\n",
    "moving-system": "<|/inst|> ",
    "strips-reasoning": "<|im_end|>\n<|im_start|>assistant\n",
    "plain": "\nassistant: ",
}


def gated(folder: Path, template: str, *, like: str = "ArmoRM") -> Tiny:
    """A multi-objective head with a gate, of one of ``GATINGS``."""
    kind = GATINGS[like]
    fast = tiny.tokenizer(tiny.TEMPLATES[template])
    known = {} if kind.temperature is None else {"gating_temperature": kind.temperature}
    config = _config("Llama", len(fast), fast.pad_token_id, **known)
    torch.manual_seed(2)
    model = StandInForRewardModelWithGating(config, kind).eval()
    if kind.transform:
        model.reward_transform_matrix.data.add_(torch.randn(kind.objectives, kind.objectives) * 0.1)
    for layer in model.gating.layers:
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data.normal_(std=1.0)
        elif isinstance(layer, torch.nn.BatchNorm1d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)
    model.save_pretrained(folder)
    edit_config(folder, architectures=[kind.architecture])
    fast.save_pretrained(folder)
    pattern = fast(HEADERS[template], add_special_tokens=False)["input_ids"]

    @torch.inference_mode()
    def card(messages: Conversation) -> list[float]:
        rewards, score = model.call(_ids(fast, messages)[0].tolist(), pattern)
        return [float(score), *((rewards[:5] * 5 - 0.5).tolist() if like == "ArmoRM" else [])]

    return Tiny(local_spec(str(folder)), card)


class _Weigher(torch.nn.Module):
    def __init__(self, width: int, attributes: int) -> None:
        super().__init__()
        self.fc = torch.nn.Sequential(
            torch.nn.Linear(width, width),
            torch.nn.SELU(),
            torch.nn.Linear(width, width),
            torch.nn.SELU(),
            torch.nn.Linear(width, attributes),
        )


class StandInWithNormalWeights(transformers.LlamaPreTrainedModel):
    """URM's ``score`` of one conversation: five normal distributions, and weights of their means."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = transformers.LlamaModel(config)
        self.score = torch.nn.Linear(config.hidden_size, 10, bias=False)
        self.weights = _Weigher(config.hidden_size, 5)
        self.post_init()

    def call(self, ids: torch.Tensor) -> torch.Tensor:
        """The weighed sum of the means, at the last token."""
        state = self.model(input_ids=ids).last_hidden_state[0, -1]
        pairs = self.score(state).view(5, 2)
        weights = self.weights.fc(state)
        weighed: torch.Tensor = sum(pairs[place, 0] * weight for place, weight in enumerate(weights))
        return weighed


def mixture(folder: Path, template: str) -> Tiny:
    """URM's manner: means and spreads of attributes, and a network that weighs the means."""
    fast = tiny.tokenizer(tiny.TEMPLATES[template])
    torch.manual_seed(5)
    model = StandInWithNormalWeights(_config("Llama", len(fast), fast.pad_token_id)).eval()
    for parameter in model.weights.parameters():
        parameter.data.normal_(std=0.3)
    model.save_pretrained(folder)
    edit_config(folder, architectures=["LlamaForSequenceClassificationWithNormal_Weights"])
    fast.save_pretrained(folder)

    @torch.inference_mode()
    def card(messages: Conversation) -> list[float]:
        return [float(model.call(_ids(fast, messages)))]

    return Tiny(local_spec(str(folder)), card)


_APPENDED_CODE = """
import torch
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutputWithPast


class InternLM2ForRewardModel(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.v_head = torch.nn.Linear(config.hidden_size, 1, bias=False)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, use_cache=None):
        ends = attention_mask.cumsum(dim=1).argmax(dim=1, keepdim=True)
        assert int(input_ids[0, ends[0]]) == self.config.reward_token_id
        states = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)[0]
        rewards = self.v_head(states).squeeze(-1)
        return SequenceClassifierOutputWithPast(logits=rewards.gather(1, ends).squeeze(1))

    @torch.no_grad()
    def get_score(self, tokenizer, conversation):
        text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=False)
        ids = tokenizer.encode(text, return_tensors="pt", add_special_tokens=False)
        ids = torch.cat([ids, torch.tensor([[self.config.reward_token_id]])], dim=1)
        return self.forward(ids, attention_mask=torch.ones_like(ids)).logits[0].item()
"""


def appended(folder: Path, template: str) -> Tiny:
    """InternLM2-Reward's manner: its class is Python code in the model's folder, pinned by a commit."""
    folder = folder / "snapshots" / COMMIT
    fast = tiny.tokenizer(tiny.TEMPLATES[template])
    # InternLM2's is an unused piece of its vocabulary, not a special token.
    fast.add_tokens(["<|reward|>"], special_tokens=False)
    config = _config("Llama", len(fast), fast.pad_token_id)
    config.reward_token_id = fast.convert_tokens_to_ids("<|reward|>")
    torch.manual_seed(3)
    backbone = transformers.LlamaModel(config)
    weights = {f"model.{name}": tensor.contiguous() for name, tensor in backbone.state_dict().items()}
    weights["v_head.weight"] = torch.randn(1, config.hidden_size)
    folder.mkdir(parents=True)
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = ["InternLM2ForRewardModel"]
    config.auto_map = {"AutoModel": "modeling_standin.InternLM2ForRewardModel"}
    config.save_pretrained(folder)
    (folder / "modeling_standin.py").write_text(_APPENDED_CODE)
    fast.save_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True).eval()

    def card(messages: Conversation) -> list[float]:
        return [model.get_score(fast, _dicts(messages))]

    return Tiny(local_spec(str(folder), loading=TRUSTED), card)


def pair(folder: Path, template: str = "") -> Tiny:
    """DeBERTa-v2 with one label, shown a question and an answer, as OpenAssistant's reward models."""
    fast = tiny.tokenizer("")
    fast.chat_template = None
    fast.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", fast.cls_token_id), ("[SEP]", fast.sep_token_id)],
    )
    shape: dict[str, Any] = {**_SHAPE, "max_position_embeddings": 512}
    shape.pop("num_key_value_heads")
    config = transformers.DebertaV2Config(
        vocab_size=len(fast),
        pad_token_id=fast.pad_token_id,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        type_vocab_size=0,
        **shape,
    )
    config.num_labels = 1
    torch.manual_seed(4)
    model = transformers.DebertaV2ForSequenceClassification(config).eval()
    model.classifier.weight.data.mul_(10)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)

    @torch.inference_mode()
    def card(messages: Conversation) -> list[float]:
        *before, answer = messages
        question = before[0].content
        if len(before) > 1:
            question = "\n".join(f"{message.role.capitalize()}: {message.content}" for message in before)
        inputs = fast(question, answer.content, return_tensors="pt")
        kept = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        values: list[float] = model(**kept).logits[0].tolist()
        return values

    return Tiny(local_spec(str(folder)), card)


FAMILIES: dict[str, Callable[[Path, str], Tiny]] = {
    "sequence-classification": classifier,
    "first-token-logit": first_token,
    "gated-objectives": gated,
    "attribute-mixture": mixture,
    "head-in-weights": head_in_weights,
    "appended-token": appended,
    "appended-cls": appended_cls,
    "pair-classification": pair,
}

_WORDS = (
    *tiny.CORPUS.split()[:30],
    "naïve",
    "你好",
    "Привет",
    "🙂",
    "1+1=2",
    "<|",
    "|>",
    "assistant:",
    "\n\n",
)


def conversations(count: int, *, seed: int, most_pairs: int = 4) -> list[Conversation]:
    """``count`` random conversations of one to ``most_pairs`` questions and answers."""
    drawn = random.Random(seed)

    def text() -> str:
        words = " ".join(drawn.choice(_WORDS) for _ in range(drawn.randint(1, 14)))
        return words.strip(" \n") + drawn.choice(["", "", "", " ", "\n", "!"]) or "."

    found: list[Conversation] = []
    for _ in range(count):
        messages = [Message("system", text())] if drawn.random() < 0.3 else []
        for _ in range(drawn.randint(1, most_pairs)):
            thought = f"<think>{text()}</think>\n\n" if drawn.random() < 0.2 else ""
            messages += [Message("user", text()), Message("assistant", thought + text())]
        found.append(tuple(messages))
    return found


def with_second_bos(folder: Path) -> None:
    """Have the tokenizer there put ``<|begin|>`` in front of every text, as Llama 3's does."""
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    begin = raw.token_to_id("<|begin|>")
    raw.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", begin)]
    )
    raw.save(str(folder / "tokenizer.json"))


def edit_config(folder: Path, **changes: Any) -> None:
    """Write these values into the folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
