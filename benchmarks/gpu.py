"""How fast every turn is scored on a GPU, and how much of what the device can do that is.

Random weights in the shapes of Qwen2.5 with one label, in bfloat16, every assistant turn. Conversations
are ShareGPT's where its data folder is named, else made of random words with ShareGPT's numbers of turns
and lengths of messages. Needs torch, transformers and numpy, and this repository on PYTHONPATH; nothing
else of what the project depends on. In one run, by wall clock with the device waited for:

matrix rate    the best of several large matrix products, the yardstick of "share"
assay          this engine in shards on two threads, as a worker has it, rendering and tokenizing included
loop           transformers as model cards show it: one turn prefix at a time
cross encoder  all turn prefixes sorted by length, padded, with a mask, at its best batch size
fixed 8        all turn prefixes in batches of 8 as they come, padded, without a mask: what distilabel's step
               does (the scores of padded rows are wrong; its time is what counts here)
best of 8      eight answers to a prompt with the prompt computed once, against all eight whole
attention      the engine's batches without rendering, under each attention that works here; the engine keeps
               torch from cuDNN's, the peers run as torch comes
out of memory  the engine on a device that was filled up but for a little, against its other scores

The peers see a random part of the conversations; rates are in tokens of conversations a second, each
token counted once however often a peer computes it.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import transformers

from assay.core.schema import Conversation, Message, turn_positions
from assay.rewards.local import attention, batching
from assay.rewards.local.model import CUDA_MOST_BATCH_TOKENS, LocalRewardModel
from assay.rewards.local_spec import local_spec
from assay.rewards.protocol import Request
from assay.rewards.rendering import Pass

T = TypeVar("T")


class Shape(NamedTuple):
    """A model's widths, and how many conversations are enough for it."""

    hidden: int
    mlp: int
    layers: int
    heads: int
    key_value_heads: int
    conversations: int


#: config.json of Qwen/Qwen2.5-{0.5B,1.5B,7B}; ``tiny`` is for trying this file without a GPU.
SHAPES = {
    "0.5B": Shape(896, 4864, 24, 14, 2, 512),
    "1.5B": Shape(1536, 8960, 28, 12, 2, 256),
    "7B": Shape(3584, 18944, 28, 28, 4, 96),
    "tiny": Shape(64, 256, 2, 4, 2, 12),
}
VOCABULARY = 151_936

#: Twentieths of ShareGPT's 17,671 conversations: assistant turns, and characters of messages (without the
#: longest twentieth's tail).
TURNS = (1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 6, 6, 7, 8)
USER_CHARACTERS = (6, 12, 23, 30, 37, 43, 49, 56, 64, 72, 82, 94, 109, 128, 155, 192, 254, 356, 587, 1455)
ANSWER_CHARACTERS = (
    60, 113, 249, 402, 538, 668, 795, 915, 1029, 1139, 1245, 1351, 1460, 1579, 1708, 1860, 2039, 2283, 2624,
    3098,
)  # fmt: skip

#: The peers see one conversation in so many.
PEERS_SEE = 8
CROSS_ENCODER_SIZES = (8, 32, 128)
FIXED = 8
#: Tokens of a score shard, and how many shards a worker of a GPU has under way (assay/score/shard_size.py,
#: assay/workers/gpus.py, which need more packages than this benchmark may).
SHARD_TOKENS, WORKER_THREADS = 1 << 18, 2
BEST_OF, PROMPT_TOKENS, ANSWER_TOKENS, PROMPTS = 8, 500, 200, 16
#: What a filled-up device has left beside the weights, for the engine to run out of.
LEFT_BYTES = 1 << 28


def made_up(count: int) -> list[Conversation]:
    """Conversations of random words, as long as ShareGPT's."""
    chosen = random.Random(0)
    letters = "etaoinshrdlu"
    words = ["".join(chosen.choices(letters, k=chosen.randint(2, 9))) for _ in range(2000)]

    def text(lengths: Sequence[int]) -> str:
        return " ".join(chosen.choices(words, k=1 + chosen.choice(lengths) // 6))

    return [
        tuple(
            message
            for _ in range(chosen.choice(TURNS))
            for message in (
                Message("user", text(USER_CHARACTERS)),
                Message("assistant", text(ANSWER_CHARACTERS)),
            )
        )
        for _ in range(count)
    ]


def sharegpt(lines: Path, count: int) -> list[Conversation]:
    """``count`` conversations drawn from ShareGPT's JSON lines, those with a turn."""
    roles = {"human": "user", "user": "user", "system": "system"}
    drawn = lines.read_text(encoding="utf-8").split("\n")[:-1]
    random.Random(0).shuffle(drawn)
    found = (
        tuple(
            Message(roles.get(one["from"], "assistant"), one["value"])
            for one in json.loads(line)["conversations"]
        )
        for line in drawn
    )
    return list(itertools.islice((one for one in found if turn_positions(one)), count))


def model_of(shape: Shape, device: str) -> LocalRewardModel:
    """The engine over random weights that are made on the device, with the starter's tokenizer."""
    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=8192,
        num_labels=1,
        pad_token_id=VOCABULARY - 1,
    )

    spec = dataclasses.replace(local_spec("starter"), dtype="bfloat16", attributes=("reward",))
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            weights = transformers.AutoModelForSequenceClassification.from_config(
                config, dtype=torch.bfloat16
            )
    finally:
        torch.set_default_dtype(before)
    model = LocalRewardModel(spec, device=device, loaded=weights)
    if device.startswith("cuda"):
        attention.use_cudnn(False)
        model.calibrate(ceiling=CUDA_MOST_BATCH_TOKENS)
    return model


class Bench:
    """One model, its conversations, and the ways to score them."""

    def __init__(self, shape: Shape, device: str, conversations: Sequence[Conversation]) -> None:
        self.shape = shape
        self.device = torch.device(device)
        self.model = model_of(shape, device)
        self.requests = [Request(one, tuple(range(len(turn_positions(one))))) for one in conversations]
        self.rendered = [one for r in self.model.renderer.render(self.requests) for one in r.passes]
        part = self.model.renderer.render(self.requests[::PEERS_SEE])
        self.part = [one for r in part for one in r.passes]
        self.prefixes = [one.token_ids[: read.position + 1] for one in self.part for read in one.reads]
        self.part_tokens = tokens_of(self.part)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], Any], times: int = 2) -> tuple[float, Any]:
        """The fastest of ``times`` runs, and what the last one gave."""
        spent = []
        for _ in range(times):
            self.wait()
            start = time.perf_counter()
            result = work()
            self.wait()
            spent.append(time.perf_counter() - start)
        return min(spent), result

    def matrix_rate(self) -> float:
        """Operations a second of a large bfloat16 matrix product."""
        size, times = (8192, 20) if self.device.type == "cuda" else (256, 3)
        one = torch.randn(size, size, device=self.device, dtype=torch.bfloat16)
        best = min(self.seconds(lambda: [one @ one for _ in range(times)])[0] for _ in range(3))
        return 2 * size**3 * times / best

    def operations(self, passes: Sequence[Pass]) -> float:
        """What the forward pass must compute: matrices two a weight and token, attention's causal half."""
        shape = self.shape
        size = shape.hidden // shape.heads
        weights = shape.layers * (
            2 * shape.hidden**2
            + 2 * shape.hidden * shape.key_value_heads * size
            + 3 * shape.hidden * shape.mlp
        )
        lengths = np.array([len(one.token_ids) for one in passes], dtype=np.float64)
        return float(2 * weights * lengths.sum() + 2 * shape.layers * shape.hidden * (lengths**2).sum())

    def assay(self) -> None:
        with ThreadPoolExecutor(WORKER_THREADS) as threads:
            list(threads.map(self.model.score, self.in_shards(self.requests)))

    def in_shards(self, things: Sequence[T]) -> list[Sequence[T]]:
        """The requests, or their passes, in as many runs of equal length as a worker has shards of them."""
        count = max(WORKER_THREADS, -(-tokens_of(self.rendered) // SHARD_TOKENS))
        size = -(-len(things) // count)
        return [things[first : first + size] for first in range(0, len(things), size)]

    @torch.inference_mode()
    def loop(self) -> list[float]:
        ids = (torch.from_numpy(one.astype(np.int64))[None].to(self.device) for one in self.prefixes)
        return [float(self.model.network.model(input_ids=one).logits[0][0]) for one in ids]

    @torch.inference_mode()
    def padded(self, order: Sequence[int], size: int, *, masked: bool = True) -> list[float]:
        """Batches of ``size`` in that order, logits read as transformers does."""
        scores = [0.0] * len(self.prefixes)
        pad = self.model.network.model.config.pad_token_id
        for first in range(0, len(order), size):
            members = order[first : first + size]
            lengths = [len(self.prefixes[index]) for index in members]
            ids = np.full((len(members), max(lengths)), pad, dtype=np.int64)
            for row, index in enumerate(members):
                ids[row, : lengths[row]] = self.prefixes[index]
            batch = torch.from_numpy(ids).to(self.device)
            mask = {"attention_mask": (batch != pad).long()} if masked else {}
            logits = self.model.network.model(input_ids=batch, **mask).logits
            for index, score in zip(members, logits[:, 0].tolist(), strict=True):
                scores[index] = score
        return scores

    def cross_encoder(self) -> tuple[float, int]:
        """Seconds at the best batch size that fits, and that size."""
        order = sorted(range(len(self.prefixes)), key=lambda index: -len(self.prefixes[index]))
        spent = []
        for size in CROSS_ENCODER_SIZES:
            try:
                spent.append((self.seconds(partial(self.padded, order, size))[0], size))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
        if not spent:
            raise SystemExit(
                "not even the smallest batches of the cross encoder fit into this device's memory"
            )
        return min(spent)

    def fixed(self) -> float:
        return self.seconds(lambda: self.padded(range(len(self.prefixes)), FIXED, masked=False))[0]

    def engine_scores_of_part(self) -> list[float]:
        outcomes = self.model.score(self.requests[::PEERS_SEE])
        return [turn.values[0] if turn.values else float("nan") for one in outcomes for turn in one]

    def best_of(self) -> float:
        """How many times faster eight answers to a prompt are with the prompt computed once."""
        drawn = np.random.default_rng(0)
        read = self.part[0].reads[-1:]
        last = PROMPT_TOKENS + ANSWER_TOKENS - 1
        passes = []
        for _ in range(PROMPTS):
            prompt = drawn.integers(10, 4000, PROMPT_TOKENS, dtype=np.int32)
            for _ in range(BEST_OF):
                answer = drawn.integers(10, 4000, ANSWER_TOKENS, dtype=np.int32)
                ids = np.concatenate([prompt, answer])
                passes.append(Pass(ids, (dataclasses.replace(read[0], position=last),)))
        lengths = [len(one.token_ids) for one in passes]

        def shared() -> list[int]:
            return self.model._score_shared(passes, lengths, {})

        with torch.inference_mode():
            together, left = self.seconds(shared)
            assert not left, "nothing was shared"
            return self.seconds(lambda: self.forward(passes))[0] / together

    def forward(self, passes: Sequence[Pass]) -> dict[int, float]:
        """First scores by pass, through the engine's batches without rendering."""
        lengths = [len(one.token_ids) for one in passes]
        scores: dict[int, torch.Tensor] = {}
        for batch in self.batches(lengths):
            rows = self.model._forward([passes[index] for index in batch])
            scores.update(zip(batch, (row[0, 0] for row in rows), strict=True))
        return dict(zip(scores, torch.stack(tuple(scores.values())).tolist(), strict=True))

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Batches of indices, as the engine makes them of each shard."""
        budget = self.model._budget
        for shard in self.in_shards(range(len(lengths))):
            for batch in batching.budgeted(
                [lengths[index] for index in shard],
                max_tokens=budget.max_tokens,
                busy_tokens=budget.busy_tokens,
            ):
                yield [shard[place] for place in batch]

    @torch.inference_mode()
    def packed(self, passes: Sequence[Pass]) -> None:
        """The same passes one behind the other in one row, without padding, told apart by positions."""
        lengths = [len(one.token_ids) for one in passes]
        for batch in self.batches(lengths):
            ids = np.concatenate([passes[index].token_ids for index in batch]).astype(np.int64)
            positions = np.concatenate([np.arange(lengths[index]) for index in batch])
            self.model.network.backbone(
                input_ids=torch.from_numpy(ids)[None].to(self.device),
                position_ids=torch.from_numpy(positions)[None].to(self.device),
                use_cache=False,
            )

    @torch.inference_mode()
    def attentions(self) -> Iterator[tuple[str, float | None, str]]:
        """By name: tokens a second (None where it does not run), and how far from sdpa, or why not."""
        passes = self.rendered[: max(8, len(self.rendered) // 4)]
        total = tokens_of(passes)
        told = self.model.network.model.config._attn_implementation
        spent, expected = self.seconds(lambda: self.forward(passes))
        yield "sdpa", total / spent, ""
        if self.device.type == "cuda":
            attention.use_cudnn(True)
            spent, scores = self.seconds(lambda: self.forward(passes))
            furthest = max(abs(scores[index] - expected[index]) for index in expected)
            yield "sdpa, cuDNN", total / spent, f"{furthest:.1e} from sdpa, shapes seen before"
            attention.use_cudnn(False)
        for name in ("flash_attention_2", "flash_attention_3"):
            try:
                self.model.network.model.set_attn_implementation(name)
                spent, scores = self.seconds(lambda: self.forward(passes))
            except (ImportError, ValueError, RuntimeError, TypeError, AttributeError) as error:
                yield name, None, " ".join(str(error).split())[:90]
                continue
            furthest = max(abs(scores[index] - expected[index]) for index in expected)
            yield name, total / spent, f"{furthest:.1e} from sdpa"
            if name.startswith("flash"):
                spent, _ = self.seconds(lambda: self.packed(passes))
                yield f"{name}, packed", total / spent, "not read"
        self.model.network.model.set_attn_implementation(told)

    def out_of_memory(self) -> str:
        """What became of a budget far too large on a device with little memory left."""
        if self.device.type != "cuda":
            return "not tried: no CUDA device"
        expected = self.engine_scores_of_part()
        before = self.model.batch_tokens
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(self.device)
        filler = torch.empty(max(0, free - LEFT_BYTES), dtype=torch.uint8, device=self.device)
        self.model.batch_tokens = 1 << 24
        scores = self.engine_scores_of_part()
        after, self.model.batch_tokens = self.model.batch_tokens, before
        del filler
        torch.cuda.empty_cache()
        missing = sum(score != score for score in scores)
        furthest = max(abs(a - b) for a, b in zip(scores, expected, strict=True) if a == a)
        return f"budget {1 << 24} -> {after}, {missing} turns without a score, {furthest:.1e} from the others"


def tokens_of(passes: Sequence[Pass]) -> int:
    return sum(len(one.token_ids) for one in passes)


def measure(name: str, device: str, conversations: Sequence[Conversation]) -> dict[str, float | str]:
    """Every figure for one shape, printed as it comes."""
    bench = Bench(SHAPES[name], device, conversations)
    figures: dict[str, float | str] = {}

    def tell(key: str, value: float | str, words: str) -> None:
        figures[f"{name}_{key}"] = value
        print(f"  {key.replace('_', ' '):<28} {words}", flush=True)

    total = tokens_of(bench.rendered)
    lengths = [len(one.token_ids) for one in bench.rendered]
    print(f"\nQwen2.5-{name} shape, bfloat16, {device}", flush=True)
    tell("batch_tokens", bench.model.batch_tokens, f"{bench.model.batch_tokens:,}")
    padded = sum(len(b) * max(lengths[i] for i in b) for b in bench.batches(lengths)) / total - 1
    tell("padding", padded, f"{padded:.1%}")
    tell("conversations", len(conversations), f"{len(conversations)}, {total} tokens")
    rate = bench.matrix_rate()
    tell("matrix_tflops", rate / 1e12, f"{rate / 1e12:.1f} T operations a second")
    bench.engine_scores_of_part()
    spent, _ = bench.seconds(bench.assay)
    engine = total / spent
    tell("tokens_per_second", engine, f"{engine:,.0f}")
    share = bench.operations(bench.rendered) / spent / rate
    tell("share_of_matrix_rate", share, f"{share:.1%} (rendering and tokenizing included)")
    with torch.inference_mode():
        bare, _ = bench.seconds(lambda: bench.forward(bench.rendered))
    share = bench.operations(bench.rendered) / bare / rate
    tell("share_without_rendering", share, f"{share:.1%}")
    ours = [score for score in bench.engine_scores_of_part() if not math.isnan(score)]
    attention.use_cudnn(True)
    bench.loop()
    spent, scores = bench.seconds(bench.loop, times=1)
    tell("vs_loop", engine * spent / bench.part_tokens, f"{engine * spent / bench.part_tokens:.2f} x")
    furthest = max(abs(a - b) for a, b in zip(ours, scores, strict=True))
    tell(
        "difference_from_loop",
        furthest,
        f"{furthest:.1e} (scores' standard deviation {statistics.pstdev(scores):.1e})",
    )
    spent, size = bench.cross_encoder()
    ratio = engine * spent / bench.part_tokens
    tell("vs_cross_encoder", ratio, f"{ratio:.2f} x, batches of {size}")
    ratio = engine * bench.fixed() / bench.part_tokens
    tell("vs_fixed_8", ratio, f"{ratio:.2f} x")
    attention.use_cudnn(False)
    ratio = bench.best_of()
    tell("best_of_8", ratio, f"{ratio:.2f} x")
    for kernel, one, words in bench.attentions():
        key = f"attention_{kernel.replace(', ', '_')}"
        tell(key, words if one is None else one, words if one is None else f"{one:,.0f} tokens/s {words}")
    if bench.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        tell("peak_gib", peak, f"{peak:.1f} GiB (the peers counted)")
    words = bench.out_of_memory()
    tell("out_of_memory", words, words)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, action="append", help="one or several (default: all real)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sharegpt", type=Path, help="sharegpt.jsonl, as get_sharegpt.py writes it")
    parser.add_argument("--json", type=Path, help="write the figures to this file as one flat object")
    chosen = parser.parse_args()
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        print("not measured: no CUDA device")
        sys.exit(0)
    transformers.utils.logging.set_verbosity_error()
    where = torch.cuda.get_device_name() if chosen.device.startswith("cuda") else "CPU"
    print(f"{where}, torch {torch.__version__}, transformers {transformers.__version__}")
    figures: dict[str, float | str] = {"device": where}
    for name in chosen.shape or ("0.5B", "1.5B", "7B"):
        count = SHAPES[name].conversations
        source = sharegpt(chosen.sharegpt, count) if chosen.sharegpt else made_up(count)
        figures.update(measure(name, chosen.device, source))
        if chosen.json:
            chosen.json.write_text(json.dumps(figures, indent=1) + "\n")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
