"""How fast every turn is scored, against what people do today and against what the hardware allows.

One CPU thread, a small random Qwen2 with one label, real ShareGPT conversations, every assistant turn.
In each round, one after the other, and by CPU time:

loop           transformers as model cards show it: one turn prefix at a time, no batches
cross encoder  sentence-transformers' CrossEncoder over the same prefixes, at its best batch size
assay          this engine, rendering and tokenizing included
ceiling        the bare forward pass over the very token ids that the engine puts through the model, in
               batches of equal length and thus without padding, nothing rendered and nothing read
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.update(TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")

import numpy as np
import peers
import torch
import transformers

from assay.rewards.catalog import find_model
from assay.rewards.local import CPU_BATCH_TOKENS, LocalRewardModel
from assay.rewards.protocol import Request
from assay.schema import Conversation, Message, turn_positions

ROUNDS = 3
TOKENS = 40_000
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def random_model(folder: Path) -> Path:
    """A folder with a seeded random Qwen2, one label, and the tokenizer and template of the starter."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(find_model("starter").folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer),
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=8192,
        **SHAPE,
    )
    transformers.Qwen2ForSequenceClassification(config).save_pretrained(folder)
    return folder


def conversations(lines: Path, model: LocalRewardModel) -> list[Conversation]:
    """The first conversations, as they come, that the model takes, up to ``TOKENS`` in all."""
    roles = {"human": "user", "user": "user", "system": "system"}
    chosen: list[Conversation] = []
    tokens = 0
    for line in lines.open(encoding="utf-8"):
        turns = json.loads(line)["conversations"]
        messages = tuple(Message(roles.get(one["from"], "assistant"), one["value"]) for one in turns)
        positions = turn_positions(messages)
        if not positions:
            continue
        (rendered,) = model._renderer.render([Request(messages, tuple(range(len(positions))))])
        if rendered.refused:
            continue
        tokens += sum(len(one.token_ids) for one in rendered.passes)
        chosen.append(messages)
        if tokens >= TOKENS:
            break
    return chosen


class Contenders:
    """Four ways through the same conversations; the first three give a score a turn, in order."""

    def __init__(self, folder: Path, model: LocalRewardModel, chosen: Sequence[Conversation]) -> None:
        self.model = model
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.card = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self.requests = [Request(one, tuple(range(len(turn_positions(one))))) for one in chosen]
        self.prefixes = [
            [{"role": m.role, "content": m.content} for m in one[: position + 1]]
            for one in chosen
            for position in turn_positions(one)
        ]
        self.passes = [one.token_ids for r in model._renderer.render(self.requests) for one in r.passes]
        from sentence_transformers import CrossEncoder

        self.encoder = CrossEncoder(
            str(folder), device="cpu", max_length=8192, activation_fn=torch.nn.Identity()
        )
        self.batch_size = 0

    @torch.inference_mode()
    def loop(self) -> list[float]:
        scores = []
        for prefix in self.prefixes:
            rendered = self.tokenizer.apply_chat_template(
                prefix, tokenize=True, return_dict=True, return_tensors="pt"
            )
            scores.append(float(self.card(**rendered).logits[0][0]))
        return scores

    def cross_encoder(self) -> list[float]:
        return self._encode(self.prefixes, self.batch_size)

    def assay(self) -> list[float]:
        outcomes = [turn for one in self.model.score(self.requests) for turn in one]
        return [turn.values[0] if turn.values else float("nan") for turn in outcomes]

    @torch.inference_mode()
    def ceiling(self) -> None:
        by_length: dict[int, list[Any]] = defaultdict(list)
        for ids in self.passes:
            by_length[len(ids)].append(ids)
        for length, group in by_length.items():
            rows = max(1, CPU_BATCH_TOKENS // length)
            for start in range(0, len(group), rows):
                batch = torch.from_numpy(np.stack(group[start : start + rows]).astype(np.int64))
                self.card.base_model(input_ids=batch, use_cache=False)

    def tune_cross_encoder(self) -> None:
        """Find the batch size at which CrossEncoder is fastest, on a tenth of the prefixes."""
        sample = self.prefixes[::10]
        times = {size: timed(lambda size=size: self._encode(sample, size))[0] for size in BATCH_SIZES}
        self.batch_size = min(times, key=times.__getitem__)

    def _encode(self, prefixes: Sequence[list[dict[str, str]]], batch_size: int) -> list[float]:
        # Cut before the answer's own opening token, so that a pair has the tokens of the whole.
        pairs = []
        for prefix in prefixes:
            text = self.tokenizer.apply_chat_template(prefix, tokenize=False)
            cut = text.rindex("<|im_start|>")
            pairs.append((text[:cut], text[cut:]))
        scores: list[float] = self.encoder.predict(
            pairs, batch_size=batch_size, show_progress_bar=False
        ).tolist()
        return scores


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and what came back."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def furthest(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest difference between two lists of scores, relative to max(1, |score|)."""
    return max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(ours, theirs, strict=True))


def main() -> None:
    options = peers.options(__doc__.splitlines()[0] if __doc__ else "")
    lines = peers.sharegpt(options.data)
    peers.importable(
        "sentence-transformers==6.2.0", "scikit-learn", "scipy", "joblib", "threadpoolctl", "narwhals"
    )
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = random_model(Path(temporary))
        model = LocalRewardModel(find_model(str(folder)))
        chosen = conversations(lines, model)
        contenders = Contenders(folder, model, chosen)
        contenders.tune_cross_encoder()
        seconds: dict[str, list[float]] = defaultdict(list)
        for _ in range(ROUNDS):
            results = {}
            for name in ("loop", "cross_encoder", "assay", "ceiling"):
                spent, results[name] = timed(getattr(contenders, name))
                seconds[name].append(spent)
    tokens = sum(len(ids) for ids in contenders.passes)
    ratio = {
        name: statistics.median(t / a for t, a in zip(seconds[name], seconds["assay"], strict=True))
        for name in seconds
    }
    figures = {
        "vs_loop": ratio["loop"],
        "vs_cross_encoder": ratio["cross_encoder"],
        "of_ceiling": ratio["ceiling"],
        "cross_encoder_batch_size": contenders.batch_size,
        "largest_difference_from_loop": furthest(results["assay"], results["loop"]),
    }
    rows = [
        ("conversations, turns, tokens", f"{len(chosen)}, {len(contenders.prefixes)}, {tokens}"),
        ("padding in the engine's batches", f"{padding(model, contenders.passes):.1%}"),
        *(
            (f"{name.replace('_', ' ')}, CPU seconds", " ".join(f"{one:.1f}" for one in seconds[name]))
            for name in seconds
        ),
        ("vs_loop", f"{figures['vs_loop']:.2f} x (at least 2.5 wanted)"),
        (
            "vs_cross_encoder",
            f"{figures['vs_cross_encoder']:.2f} x, batch size {contenders.batch_size} (2.5)",
        ),
        ("of_ceiling", f"{figures['of_ceiling']:.3f} (0.9)"),
        ("largest difference from the loop", f"{figures['largest_difference_from_loop']:.1e} (1e-5)"),
        (
            "largest difference, cross encoder",
            f"{furthest(results['cross_encoder'], results['loop']):.1e}",
        ),
    ]
    peers.report("Every turn of ShareGPT, one CPU thread", rows, figures, options.json)
    sys.stdout.flush()


def padding(model: LocalRewardModel, passes: Sequence[Any]) -> float:
    """The share of a batch's tokens that is padding."""
    from assay.rewards.batching import budgeted

    lengths = [len(ids) for ids in passes]
    batches = budgeted(lengths, max_tokens=model._budget.max_tokens)
    return 1 - sum(lengths) / sum(len(batch) * lengths[batch[0]] for batch in batches)


if __name__ == "__main__":
    main()
