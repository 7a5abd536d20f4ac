"""Hugging Face reward models in this process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers

from assay.errors import ModelFault
from assay.rewards import batching, heads
from assay.rewards.protocol import ModelSpec, Request, TurnScore
from assay.rewards.rendering import Pass, Renderer

#: Budgeted tokens of a batch. On a CPU more than this only leaves the cache; a GPU is to be kept busy.
CPU_BATCH_TOKENS = 4096
CUDA_BATCH_TOKENS = 32_768

#: How far the engine may be from transformers' own forward pass when a model is opened, relative to the
#: score (or to one, for smaller ones). The 16-bit types carry 8 to 11 bits of mantissa.
_OPENING_TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}

#: How torch names the failure on a CPU, where it raises no OutOfMemoryError (c10/core/CPUAllocator.cpp).
_CPU_ALLOCATOR = "DefaultCPUAllocator: "

_UNFIT = "out_of_memory: {tokens} tokens do not fit into memory, not even alone"


class LocalRewardModel:
    """A loaded model that scores every requested turn of a conversation in one pass."""

    def __init__(self, spec: ModelSpec, *, device: str = "cpu", batch_tokens: int | None = None) -> None:
        self.spec = spec
        self.attributes = spec.attributes
        self.fingerprint = spec.fingerprint
        self.tokens_seen = 0
        """Tokens put through the model so far, padding not counted."""
        self._device = torch.device(device)
        default = CUDA_BATCH_TOKENS if self._device.type == "cuda" else CPU_BATCH_TOKENS
        self._budget = batching.TokenBudget(batch_tokens or default)
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            spec.folder, local_files_only=True, trust_remote_code=False
        )
        self._renderer = Renderer(tokenizer, max_tokens=spec.max_tokens, over_length=spec.over_length)
        self._model = _load(spec).to(self._device).eval()
        self._backbone = self._model.base_model
        self._head = heads.HEADS[spec.family](self._model)
        self._check_against_transformers()

    @torch.inference_mode()
    def score(self, requests: Sequence[Request]) -> list[list[TurnScore]]:
        """An outcome a requested turn, in the order of the requests and their turns."""
        rendered = self._renderer.render(requests)
        outcomes: list[dict[int, TurnScore]] = [
            {turn: TurnScore(None, reason) for turn, reason in item.refused.items()} for item in rendered
        ]
        owners = [number for number, item in enumerate(rendered) for _ in item.passes]
        passes = [one for item in rendered for one in item.passes]

        def forward(batch: list[int]) -> batching.Outcome:
            try:
                values = self._forward([passes[index] for index in batch])
            except (torch.OutOfMemoryError, MemoryError):
                return batching.Outcome.OUT_OF_MEMORY
            except RuntimeError as error:
                if _CPU_ALLOCATOR not in str(error):
                    raise
                return batching.Outcome.OUT_OF_MEMORY
            for index, rows in zip(batch, values, strict=True):
                for read, row in zip(passes[index].reads, rows, strict=True):
                    outcomes[owners[index]][read.turn] = _outcome(row, passes[index].tokens_cut)
            return batching.Outcome.DONE

        lengths = [len(one.token_ids) for one in passes]
        for batch, outcome in batching.run(lengths, self._budget, forward):
            if outcome is batching.Outcome.OUT_OF_MEMORY:
                (index,) = batch
                reason = _UNFIT.format(tokens=lengths[index])
                outcomes[owners[index]].update(
                    {read.turn: TurnScore(None, reason) for read in passes[index].reads}
                )
            else:
                self.tokens_seen += sum(lengths[index] for index in batch)
        return [
            [by_turn[turn] for turn in request.turns]
            for request, by_turn in zip(requests, outcomes, strict=True)
        ]

    def _forward(self, batch: Sequence[Pass]) -> list[np.ndarray]:
        """Per pass a float32 array ``[reads, attributes]``."""
        longest = max(len(one.token_ids) for one in batch)
        # Padding stands on the right, where no token of a causal model can see it: no mask is needed,
        # and which token it is makes no difference.
        token_ids = np.zeros((len(batch), longest), dtype=np.int64)
        for row, one in enumerate(batch):
            token_ids[row, : len(one.token_ids)] = one.token_ids
        hidden = self._hidden(torch.from_numpy(token_ids).to(self._device))
        rows = [row for row, one in enumerate(batch) for _ in one.reads]
        positions = [read.position for one in batch for read in one.reads]
        scores = self._head(hidden[rows, positions]).float().cpu().numpy()
        ends = np.cumsum([len(one.reads) for one in batch])
        return np.split(scores, ends[:-1])

    def _hidden(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Last hidden states ``[batch, time, hidden]``."""
        hidden: torch.Tensor = self._backbone(input_ids=token_ids, use_cache=False).last_hidden_state
        return hidden

    @torch.inference_mode()
    def _check_against_transformers(self) -> None:
        """Compare with the model's own forward pass, and see that no score depends on what follows it.

        Raises ``ModelFault`` where this engine would not give the numbers that the model's card means.
        """
        vocabulary = self._model.config.get_text_config().vocab_size
        pad = self._model.config.get_text_config().pad_token_id
        drawn = np.random.default_rng(0).permutation(min(vocabulary, 4096))[:33]
        ids = torch.from_numpy(drawn[drawn != (-1 if pad is None else pad)][:32][None].astype(np.int64))
        ids = ids.to(self._device)
        half = ids.shape[1] // 2
        hidden = self._hidden(ids)
        ours = self._head(hidden[:, -1]).float()
        theirs = self._model(input_ids=ids, use_cache=False).logits.float()
        if self.spec.family == heads.FIRST_TOKEN_LOGIT:
            theirs = theirs[:, -1, heads.REWARD_TOKEN_ID, None]
        if ours.shape != theirs.shape or ours.shape[1] != len(self.attributes):
            raise ModelFault(
                f"model {self.spec.name}: it gives {theirs.shape[-1]} numbers, {len(self.attributes)} are "
                f"expected ({', '.join(self.attributes)})"
            )
        if not self._agree(ours, theirs):
            raise ModelFault(
                f"model {self.spec.name}: this engine reads {ours.tolist()} where transformers itself gives "
                f"{theirs.tolist()}; its head does more than one linear layer and is not supported"
            )
        shorter = self._head(self._hidden(ids[:, :half])[:, -1]).float()
        if not self._agree(self._head(hidden[:, half - 1]).float(), shorter):
            raise ModelFault(
                f"model {self.spec.name}: a position's state depends on what follows it, so it is no causal "
                "model; such models are not supported"
            )

    def _agree(self, ours: torch.Tensor, theirs: torch.Tensor) -> bool:
        if not (ours.isfinite().all() and theirs.isfinite().all()):
            return True  # told turn by turn, as `not_finite`
        tolerance = _OPENING_TOLERANCE[self.spec.dtype]
        return bool(((ours - theirs).abs() <= tolerance * theirs.abs().clamp(min=1)).all())


def open_model(spec: ModelSpec) -> LocalRewardModel:
    """The loaded model, on this process's GPU if it sees one, on one CPU thread otherwise."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    if torch.cuda.is_available():
        return LocalRewardModel(spec, device="cuda")
    torch.set_num_threads(1)
    return LocalRewardModel(spec)


def _load(spec: ModelSpec) -> Any:
    kind: Any = (
        transformers.AutoModelForSequenceClassification
        if spec.family == heads.SEQUENCE_CLASSIFICATION
        else transformers.AutoModelForCausalLM
    )
    options = {
        "dtype": getattr(torch, spec.dtype),
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    try:
        model, info = kind.from_pretrained(spec.folder, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelFault(f"model {spec.name}: {' '.join(str(error).split())}") from error
    missing = [*info.get("missing_keys", ()), *info.get("mismatched_keys", ())]
    if missing:
        raise ModelFault(
            f"model {spec.name}: its weights lack {', '.join(map(str, sorted(missing)[:3]))}; "
            "transformers would fill them with random numbers, and every score would be noise"
        )
    return model


def _outcome(row: np.ndarray, tokens_cut: int) -> TurnScore:
    values = tuple(float(value) for value in row)
    if all(math.isfinite(value) for value in values):
        return TurnScore(values, tokens_cut=tokens_cut)
    return TurnScore(None, f"not_finite: the model gave {values}", tokens_cut)
