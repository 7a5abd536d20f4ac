"""How fast every turn is scored, against what people do today and against what the hardware allows.

One CPU thread, random weights with one label, every assistant turn of a sample of ShareGPT: each
thousandth conversation that has one, as they come. The model is one layer of Qwen2.5-0.5B at half its
width (448, an MLP of 2,432, heads of 64), so that matrices do most of the work, as in models that people
use. In each round, one after the other, and by CPU time; the fastest round of each counts:

loop           transformers as model cards show it: one turn prefix at a time, no batches
cross encoder  sentence-transformers' CrossEncoder over the same prefixes, at its best batch size
assay          this engine, rendering and tokenizing included
ceiling        the bare forward pass over the very token ids that the engine puts through the model, in
               batches of equal length and thus without padding, nothing rendered and nothing read

The first two run in a process beside this one, where memory is managed as Python and glibc come: the
engine tells glibc to keep what is freed when it opens a model, and the ceiling has that too.

distilabel 1.5.3 runs once between two rounds, in an environment of its own (its RewardModelScore does not
run on transformers 5), over every prefix and over whole conversations, the last turn alone, in batches of
8 in the order of the input. Its default is 50 a batch, which pads more.

Best of 8: eight answers of about 200 tokens to a prompt of about 500, by this engine, whose way is to
compute the prompt once, against this engine putting all eight through whole.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

os.environ.update(TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")

import numpy as np
import peers
import torch
import transformers

from assay.core.schema import Conversation, Message, turn_positions
from assay.rewards.local.model import CPU_BATCH_TOKENS, LocalRewardModel, open_model
from assay.rewards.local.opening import Sharing
from assay.rewards.local_spec import local_spec
from assay.rewards.protocol import Request

ROUNDS = 3
EVERY = 1000
BATCH_SIZES = (1, 2, 4, 8, 16)
SHAPE = {
    "hidden_size": 448,
    "intermediate_size": 2432,
    "num_hidden_layers": 1,
    "num_attention_heads": 7,
    "num_key_value_heads": 1,
}

#: 4.57 is the last line of transformers on which distilabel 1.5.3 scores; it needs no torch by itself.
DISTILABEL = ("distilabel==1.5.3", "transformers==4.57.6")
DISTILABEL_BATCH_SIZE = 8

BEST_OF, PROMPT_TOKENS, ANSWER_TOKENS, PROMPTS = 8, 500, 200, 4


def random_model(folder: Path) -> Path:
    """A folder with a seeded random Qwen2, one label, and the tokenizer and template of the starter."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(local_spec("starter").folder)
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
    # What transformers 4 calls otherwise, so that both load the same folder.
    for name, said in (
        ("config.json", {"rope_theta": config.rope_parameters["rope_theta"]}),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**settings, **said}))
    # transformers 5 splits text for this architecture in its own way, whatever tokenizer.json says.
    split = transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer
    split.save(str(folder / "tokenizer.json"))
    return folder


class Sample(NamedTuple):
    """The conversations that are scored, and what the whole file is like."""

    conversations: list[Conversation]
    prefix_ratio: float
    """Characters of all turn prefixes by characters of all conversations, in the whole file."""


def sample(lines: Path, model: LocalRewardModel) -> Sample:
    """Of the conversations that have a turn, each ``EVERY``-th from the middle of the first ``EVERY``."""
    roles = {"human": "user", "user": "user", "system": "system"}
    chosen: list[Conversation] = []
    everything: list[tuple[int, int]] = []
    number = 0
    for line in lines.open(encoding="utf-8"):
        turns = json.loads(line)["conversations"]
        messages = tuple(Message(roles.get(one["from"], "assistant"), one["value"]) for one in turns)
        positions = turn_positions(messages)
        if not positions:
            continue
        everything.append(text_lengths(messages))
        if number % EVERY == EVERY // 2:
            (rendered,) = model.renderer.render([Request(messages, tuple(range(len(positions))))])
            if not rendered.refused:
                chosen.append(messages)
        number += 1
    return Sample(chosen, prefix_ratio(everything))


class Ours:
    """The engine, and its ceiling."""

    def __init__(self, model: LocalRewardModel, chosen: Sequence[Conversation]) -> None:
        self.model = model
        self.requests = [Request(one, tuple(range(len(turn_positions(one))))) for one in chosen]
        self.prefixes = [
            [{"role": m.role, "content": m.content} for m in one[: position + 1]]
            for one in chosen
            for position in turn_positions(one)
        ]
        self.passes = [one.token_ids for r in model.renderer.render(self.requests) for one in r.passes]

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
                self.model.network.backbone(input_ids=batch, use_cache=False)


class Theirs:
    """What people do today, over every turn prefix; each gives a score a prefix, in order."""

    def __init__(self, folder: Path, prefixes: Sequence[list[dict[str, str]]]) -> None:
        importable()
        self.prefixes = prefixes
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.card = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        from sentence_transformers import CrossEncoder

        # Of a model with a chat template it would make a query and a document, in roles of its own.
        bare = folder.with_name("without-template")
        shutil.copytree(folder, bare)
        (bare / "chat_template.jinja").unlink()
        self.encoder = CrossEncoder(
            str(bare), device="cpu", max_length=8192, activation_fn=torch.nn.Identity()
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

    def tune_cross_encoder(self) -> int:
        """The batch size at which CrossEncoder is fastest, on a third of the prefixes."""
        sample = self.prefixes[::3]
        times = {size: timed(lambda size=size: self._encode(sample, size))[0] for size in BATCH_SIZES}
        self.batch_size = min(times, key=times.__getitem__)
        return self.batch_size

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


def serve(connection: Connection, folder: Path, prefixes: Sequence[list[dict[str, str]]]) -> None:
    """Answer names of methods of ``Theirs`` with CPU seconds and results, until None comes."""
    quiet()
    theirs = Theirs(folder, prefixes)
    while (name := connection.recv()) is not None:
        connection.send(timed(getattr(theirs, name)))


def quiet() -> None:
    """One thread, no progress bars."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)


def importable() -> None:
    """Have sentence-transformers."""
    peers.importable(
        "sentence-transformers==6.2.0", "scikit-learn", "scipy", "joblib", "threadpoolctl", "narwhals"
    )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and what came back."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def furthest(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest difference between two lists of scores, relative to max(1, |score|)."""
    return max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(ours, theirs, strict=True))


def distilabel(folder: Path, ours: Ours, temporary: Path) -> dict[str, Any] | None:
    """By ``prefixes`` and ``last`` (turns alone): CPU seconds and scores; None where it cannot be had."""
    try:
        python = peers.environment("distilabel", *DISTILABEL)
    except subprocess.CalledProcessError as error:
        print(f"distilabel skipped: {' '.join(map(str, error.cmd))} ended with {error.returncode}")
        return None
    ends = itertools.accumulate(len(request.turns) for request in ours.requests)
    last = [ours.prefixes[end - 1] for end in ends]
    inputs = temporary / "conversations.json"
    inputs.write_text(json.dumps({"prefixes": ours.prefixes, "last": last}))
    script = Path(__file__).with_name("distilabel_rewards.py")
    command = [python, script, folder, inputs, str(DISTILABEL_BATCH_SIZE)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"distilabel skipped, it ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return None
    results: dict[str, Any] = json.loads(done.stdout)
    return results


def best_of_requests(ours: Ours) -> list[Request]:
    """Prompts and answers of about the lengths wanted, cut out of the sample's own text."""
    tokens = np.concatenate(ours.passes)
    texts = ours.model.renderer._tokenizer.decode(tokens, skip_special_tokens=True).split(" ")
    words_a_token = len(texts) / len(tokens)
    words = iter(texts)

    def text(count: int) -> str:
        return " ".join(itertools.islice(words, round(count * words_a_token)))

    requests = []
    for _ in range(PROMPTS):
        prompt = Message("user", text(PROMPT_TOKENS))
        for _ in range(BEST_OF):
            requests.append(Request((prompt, Message("assistant", text(ANSWER_TOKENS))), (0,)))
    return requests


class BestOf(NamedTuple):
    """What sharing a prompt gains, and on how many tokens."""

    ratio: float
    largest_difference: float
    prompt_tokens: float
    answer_tokens: float


def best_of(model: LocalRewardModel, requests: Sequence[Request]) -> BestOf:
    """How many times faster with shared prompts; the fastest of three runs of each counts."""
    whole = [len(one.token_ids) for r in model.renderer.render(requests) for one in r.passes]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    scores: dict[bool, list[float]] = {}
    seen = {}
    shared = model.sharing
    for sharing in (True, False) * 3:
        model.sharing = shared if sharing else Sharing("to compare")
        before = model.tokens_seen
        spent, outcomes = timed(lambda: model.score(requests))
        seconds[sharing].append(spent)
        seen[sharing] = model.tokens_seen - before
        scores[sharing] = [turn.values[0] for one in outcomes for turn in one if turn.values]
    model.sharing = shared
    prompt_tokens = (seen[False] - seen[True]) / (PROMPTS * (BEST_OF - 1))
    return BestOf(
        ratio=min(seconds[False]) / min(seconds[True]),
        largest_difference=furthest(scores[True], scores[False]),
        prompt_tokens=prompt_tokens,
        answer_tokens=sum(whole) / len(whole) - prompt_tokens,
    )


def main() -> None:
    options = peers.options(__doc__.splitlines()[0] if __doc__ else "")
    lines = peers.sharegpt(options.data)
    importable()
    quiet()
    with tempfile.TemporaryDirectory() as temporary:
        folder = random_model(Path(temporary) / "model")
        model = open_model(local_spec(str(folder)))
        chosen = sample(lines, model)
        ours = Ours(model, chosen.conversations)
        context = multiprocessing.get_context("spawn")
        connection, other_end = context.Pipe()
        process = context.Process(target=serve, args=(other_end, folder, ours.prefixes), daemon=True)
        process.start()
        other_end.close()

        def theirs(name: str) -> tuple[float, Any]:
            connection.send(name)
            answer: tuple[float, Any] = connection.recv()
            return answer

        _, batch_size = theirs("tune_cross_encoder")
        shared = best_of(model, best_of_requests(ours))
        seconds: dict[str, list[float]] = defaultdict(list)
        results: dict[str, Any] = {}
        peer: dict[str, Any] | None = None
        for number in range(ROUNDS):
            for name in ("loop", "assay", "ceiling", "cross_encoder"):
                run = getattr(ours, name, None)
                spent, results[name] = timed(run) if run else theirs(name)
                seconds[name].append(spent)
            if number == 0:
                peer = distilabel(folder, ours, Path(temporary))
        connection.send(None)
        process.join()
    fastest = {name: min(spent) for name, spent in seconds.items()}
    ratio = {name: spent / fastest["assay"] for name, spent in fastest.items()}
    tokens = sum(len(ids) for ids in ours.passes)
    figures = {
        "vs_loop": ratio["loop"],
        "vs_cross_encoder": ratio["cross_encoder"],
        "of_ceiling": ratio["ceiling"],
        "best_of_8": shared.ratio,
        "cross_encoder_batch_size": batch_size,
        "largest_difference_from_loop": furthest(results["assay"], results["loop"]),
        "conversations": len(chosen.conversations),
        "turns": len(ours.prefixes),
        "tokens": tokens,
    }
    wanted = {"vs_loop": 2.5, "vs_cross_encoder": 2.5, "of_ceiling": 0.9, "best_of_8": 1.6}
    if peer is not None:
        for name, least in (("prefixes", 5.0), ("last", 1.4)):
            figures[f"vs_distilabel_{name}"] = peer[name]["seconds"] / fastest["assay"]
            wanted[f"vs_distilabel_{name}"] = least
            seconds[f"distilabel_{name}"] = [peer[name]["seconds"]]
    rows = [
        ("conversations, turns, tokens", f"{figures['conversations']}, {figures['turns']}, {tokens}"),
        (
            "text of prefixes by text of conversations",
            f"{prefix_ratio(list(map(text_lengths, chosen.conversations))):.2f} "
            f"({chosen.prefix_ratio:.2f} in all of ShareGPT)",
        ),
        ("padding in the engine's batches", f"{padding(model, ours.passes):.1%}"),
        ("best of 8: tokens of prompt, answer", f"{shared.prompt_tokens:.0f}, {shared.answer_tokens:.0f}"),
        ("cross encoder's best batch size", f"{batch_size}"),
        *(
            (f"{name.replace('_', ' ')}, CPU seconds", " ".join(f"{one:.1f}" for one in seconds[name]))
            for name in seconds
        ),
        *((name, f"{figures[name]:.2f} (at least {least} wanted)") for name, least in wanted.items()),
        ("largest difference from the loop", f"{figures['largest_difference_from_loop']:.1e} (1e-5)"),
        ("  of the cross encoder", f"{furthest(results['cross_encoder'], results['loop']):.1e}"),
        ("  of best of 8, shared from whole", f"{shared.largest_difference:.1e}"),
    ]
    if peer is not None:
        rows.append(("  of distilabel", f"{furthest(peer['prefixes']['scores'], results['loop']):.1e}"))
    peers.report("Every turn of ShareGPT, one CPU thread", rows, figures, options.json)
    sys.stdout.flush()


def text_lengths(messages: Conversation) -> tuple[int, int]:
    """Characters of all turn prefixes, and of the conversation through its last turn."""
    ends = list(itertools.accumulate(len(message.content) for message in messages))
    positions = turn_positions(messages)
    return sum(ends[position] for position in positions), ends[positions[-1]]


def prefix_ratio(lengths: Sequence[tuple[int, int]]) -> float:
    """How many times the text of conversations the text of their turn prefixes is."""
    return sum(prefixes for prefixes, _ in lengths) / sum(whole for _, whole in lengths)


def padding(model: LocalRewardModel, passes: Sequence[Any]) -> float:
    """The share of a batch's tokens that is padding."""
    from assay.rewards.local.batching import budgeted

    lengths = [len(ids) for ids in passes]
    batches = budgeted(lengths, max_tokens=model._budget.max_tokens)
    return 1 - sum(lengths) / sum(len(batch) * lengths[batch[0]] for batch in batches)


if __name__ == "__main__":
    main()
