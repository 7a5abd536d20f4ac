"""Train the starter reward model that ships in ``assay/rewards/starter``, measure it, and write its card.

    python training/starter.py DATA_DIR --out FOLDER [--minutes N]

DATA_DIR holds the files that ``human_labels`` names. On one thread, with the versions that the card states, a
run gives the shipped weights again: every random choice is seeded and nothing depends on the clock, unless
``--minutes`` cuts the run short, and then the card says so.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import torch
from human_labels import (
    ATTRIBUTES,
    HH_FILES,
    OASST_FILE,
    Judgements,
    Pair,
    Rated,
    all_texts,
    read_judgements,
)
from measures import Comparison, compare, over, pairwise_accuracy, spearman
from starter_card import Making, Measured, spread_of, write_card
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from assay.core.schema import Message

PAD, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

MAX_TOKENS = 8_192
READ_TOKENS = 1_024
"""Longer conversations lose their beginning in training; they are measured whole."""

#: What a pair of each subset says: (attribute, sign). The harmless answer is the less toxic one; whether it
#: is the more helpful one, its raters were not asked.
PREFERENCE_SAYS = {"helpful": ("helpfulness", 1.0), "harmless": ("toxicity", -1.0)}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every number that training depends on."""

    seed: int = 20_261_121
    vocabulary: int = 6_144
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 384
    warm_up_epochs: float = 2.0
    warm_up_rows: int = 8
    warm_up_row_tokens: int = 256
    warm_up_rate: float = 3e-3
    epochs: int = 2
    pairs_a_step: int = 16
    rated_a_step: int = 10
    rate: float = 1e-3
    weight_decay: float = 0.1
    dropout: float = 0.1
    user_weight: float = 0.5
    """Of ratings of users' messages, which are many and are not what the model is for."""
    preference_weight: float = 0.5
    preference_scale: float = 2.0
    """Log-odds of a preference for a margin of one standard deviation of the labels."""
    language_weight: float = 0.1
    averaging: float = 0.98
    """Decay a step of the averaged weights, which are the ones kept."""
    checks: int = 8
    """How often the dev split is looked at."""
    patience: int = 2
    """Looks at the dev split without a better one, after which tuning ends."""
    ridge: float = 1.0


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation as token ids, and where its messages end."""

    ids: list[int]
    ends: list[int]
    """Position of the last token of each message; negative where the beginning was cut off."""


@dataclass(slots=True)
class Clock:
    """Tells when the time is up, and remembers having said so."""

    minutes: float | None
    started: float = field(default_factory=time.monotonic)
    cut_short: bool = False

    def is_up(self) -> bool:
        """Whether the minutes allowed are over."""
        if self.minutes is not None and self.elapsed() > self.minutes:
            self.cut_short = True
        return self.cut_short

    def elapsed(self) -> float:
        """Minutes since the start."""
        return (time.monotonic() - self.started) / 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, write; 0 when done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, metavar="DATA_DIR", help="holds oasst1/ and hh-rlhf/")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="model, tokenizer, card")
    parser.add_argument("--minutes", type=float, help="stop training after this long; the card will say so")
    options = parser.parse_args(arguments)
    for file in (OASST_FILE, *HH_FILES.values()):
        if not (options.data / file).is_file():
            parser.error(f"{options.data / file} is missing; human_labels.py says what it is")
    train_and_write(options.data, options.out, Recipe(), Clock(options.minutes))
    return 0


def train_and_write(data: Path, out: Path, recipe: Recipe, clock: Clock) -> None:
    """A whole run: ``out`` holds the model, its tokenizer and its card afterwards."""
    make_repeatable(recipe.seed)
    splits = read_judgements(data)
    for name, split in splits.items():
        say(clock, f"{name}: {len(split.rated)} rated conversations, {len(split.pairs)} pairs")
    tokenizer = train_tokenizer(splits["train"], recipe)
    model = new_model(tokenizer, recipe)
    say(clock, f"{sum(p.numel() for p in model.parameters()):,} parameters")
    warm_up(model, tokenizer, splits["train"], recipe, clock)
    fit_head(model, tokenizer, splits["train"].rated, recipe)
    tuned = tune(model, tokenizer, splits, recipe, clock)
    stretch(tuned.model, tokenizer, splits, recipe)
    minutes = clock.elapsed()
    measured = measure(tuned.model, tokenizer, splits, recipe)
    for name, comparison in {**measured.attributes, **measured.pairs}.items():
        say(clock, f"test {name}: {comparison.model}, length only {comparison.length_only}")
    save(tuned.model, tokenizer, out)
    making = Making(
        recipe=asdict(recipe),
        parameters=sum(p.numel() for p in tuned.model.parameters()),
        best_step=tuned.best_step,
        steps=tuned.steps,
        minutes=minutes,
        cut_short=clock.cut_short,
    )
    write_card(out, measured, making)
    say(clock, f"written: {out}")


def make_repeatable(seed: int) -> None:
    """Seed everything, use one thread, and refuse operations whose result may vary."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)


def say(clock: Clock, text: str) -> None:
    """Print a line of progress."""
    print(f"[{clock.elapsed():5.1f} min] {text}", file=sys.stderr, flush=True)


# --- tokenizer and model --------------------------------------------------------------------------


def train_tokenizer(split: Judgements, recipe: Recipe) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a ChatML template; it changes no text, not even by normalising it."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    contents = dict.fromkeys(m.content for messages in all_texts(split) for m in messages)
    headers = [f"{role}\n" for role in ("system", "user", "assistant", "tool")] * 100
    core.train_from_iterator(
        [*contents, *headers],
        trainers.BpeTrainer(
            vocab_size=recipe.vocabulary,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=[
                AddedToken(t, special=True, normalized=False) for t in (PAD, TURN_START, TURN_END)
            ],
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=TURN_END,
        model_max_length=MAX_TOKENS,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def new_model(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> LlamaForSequenceClassification:
    """An untrained model with one output an attribute.

    LLaMA, not Qwen2: transformers 5 loads a qwen2 folder with Qwen2's own tokenizer class whatever the folder
    says, and that class normalises text.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        intermediate_size=recipe.feed_forward,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads // 2,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        use_cache=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        id2label=dict(enumerate(ATTRIBUTES)),
        label2id={name: index for index, name in enumerate(ATTRIBUTES)},
        problem_type="regression",
    )
    return LlamaForSequenceClassification(config)


def save(model: LlamaForSequenceClassification, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write model and tokenizer so that transformers' Auto classes load them with nothing said."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    settings = out / "tokenizer_config.json"
    # The name that every version of transformers knows for "as tokenizer.json says".
    settings.write_text(settings.read_text().replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'))
    (out / "model.safetensors").chmod(0o644)


# --- conversations as tensors ---------------------------------------------------------------------


def encode(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], limit: int) -> Encoded:
    """The conversation's last ``limit`` tokens. Messages meet at added tokens, so each is encoded alone."""
    texts = [
        tokenizer.apply_chat_template([{"role": m.role, "content": m.content}], tokenize=False)
        for m in messages
    ]
    ids: list[int] = []
    ends = []
    for part in tokenizer(texts).input_ids:
        ids += part
        ends.append(len(ids) - 1)
    cut = max(0, len(ids) - limit)
    return Encoded(ids[cut:], [end - cut for end in ends])


def answers_of(pair: Pair, tokenizer: PreTrainedTokenizerFast, limit: int) -> tuple[Encoded, Encoded]:
    """Both conversations of a pair: the preferred one first."""
    chosen, rejected = (
        encode(tokenizer, (*pair.prompt, Message("assistant", answer)), limit)
        for answer in (pair.chosen, pair.rejected)
    )
    return chosen, rejected


def pad_id(model: LlamaForSequenceClassification) -> int:
    """The token that fills rows up; it occurs nowhere else."""
    assert model.config.pad_token_id is not None
    return model.config.pad_token_id


def hidden_states(model: LlamaForSequenceClassification, rows: Sequence[Encoded]) -> tuple[torch.Tensor, ...]:
    """Token ids (rows, longest) and hidden states (rows, longest, hidden).

    Padding stands on the right, where a causal model never looks from a real token: no mask is needed.
    """
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad_id(model))
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
    return ids, model.model(input_ids=ids, use_cache=False).last_hidden_state


def batches_of_alike(lengths: Sequence[int], size: int, chance: random.Random) -> list[list[int]]:
    """Indices in batches of rows of like length, themselves in random order; the last ones may be smaller."""
    order = list(range(len(lengths)))
    chance.shuffle(order)
    window = 8 * size
    batches = []
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=lengths.__getitem__)
        batches += [part[at : at + size] for at in range(0, len(part), size)]
    chance.shuffle(batches)
    return batches


@torch.no_grad()
def read_states(
    model: LlamaForSequenceClassification, rows: Sequence[Encoded], reads: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Hidden states (all reads, hidden) at ``reads[i]`` (message indices) of row i, in order."""
    model.eval()
    states: list[torch.Tensor | None] = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
    for start in range(0, len(order), 16):
        part = order[start : start + 16]
        _, hidden = hidden_states(model, [rows[index] for index in part])
        for row, index in enumerate(part):
            states[index] = hidden[row, [rows[index].ends[read] for read in reads[index]]].clone()
    return torch.cat([state for state in states if state is not None])


# --- training -------------------------------------------------------------------------------------


def warm_up(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    split: Judgements,
    recipe: Recipe,
    clock: Clock,
) -> None:
    """Teach the model to predict the next token of the training texts; embeddings are its output layer."""
    chance = random.Random(recipe.seed)
    texts = all_texts(split)
    row = recipe.warm_up_row_tokens
    stream: list[int] = []
    for _ in range(math.ceil(recipe.warm_up_epochs)):
        chance.shuffle(texts)
        stream += new_tokens(tokenizer, texts)
    stream = stream[: int(len(stream) * recipe.warm_up_epochs / math.ceil(recipe.warm_up_epochs))]
    rows = torch.tensor(stream[: len(stream) // row * row]).view(-1, row)
    steps = len(rows) // recipe.warm_up_rows
    optimiser, schedule = optimiser_for(model, recipe.warm_up_rate, recipe.weight_decay, steps)
    say(clock, f"warm-up: {steps} steps, {len(stream):,} tokens")
    model.train()
    losses = []
    for step, ids in enumerate(rows[: steps * recipe.warm_up_rows].split(recipe.warm_up_rows)):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        loss = language_loss(model, hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        take_step(model, loss, optimiser, schedule)
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            say(clock, f"warm-up {step + 1}/{steps}: {np.mean(losses[-50:]):.3f} nats a token")
        if clock.is_up():
            break


def new_tokens(tokenizer: PreTrainedTokenizerFast, texts: Sequence[Sequence[Message]]) -> list[int]:
    """The texts' token ids one after the other; what two neighbours share in front is not repeated."""
    stream: list[int] = []
    seen: set[tuple[Message, ...]] = set()
    for messages in texts:
        fresh = next((n for n in range(len(messages)) if tuple(messages[: n + 1]) not in seen), None)
        if fresh is None:
            continue
        seen.update(tuple(messages[: n + 1]) for n in range(fresh, len(messages)))
        before = max(0, fresh - 1)  # an answer is learnt with the question before it
        stream += encode(tokenizer, messages[before:], MAX_TOKENS).ids
    return stream


def language_loss(
    model: LlamaForSequenceClassification, states: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Mean cross entropy of ``targets`` (n) given hidden ``states`` (n, hidden)."""
    return functional.cross_entropy(states @ model.model.embed_tokens.weight.T, targets)


def optimiser_for(
    model: LlamaForSequenceClassification, rate: float, decay: float, steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW that decays matrices only; its rate rises for a twentieth of the steps, then falls to a tenth."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": decay}, {"params": gains, "weight_decay": 0.0}],
        lr=rate,
        betas=(0.9, 0.98),
    )
    rise = max(1, steps // 20)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def take_step(
    model: LlamaForSequenceClassification,
    loss: torch.Tensor,
    optimiser: torch.optim.AdamW,
    schedule: torch.optim.lr_scheduler.LambdaLR,
) -> None:
    """Go down the gradient of ``loss`` once."""
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    schedule.step()


def label_matrix(rated: Sequence[Rated], *, roles: Sequence[str]) -> torch.Tensor:
    """Labels (rated messages of these roles, attributes) on 0–4; NaN where people gave none."""
    return torch.tensor(
        [
            [ratings.get(name, math.nan) for name in ATTRIBUTES]
            for conversation in rated
            for index, ratings in conversation.ratings.items()
            if conversation.messages[index].role in roles
        ]
    )


def rated_turns(conversation: Rated) -> list[int]:
    """Indices of the assistant messages that people rated."""
    return [index for index in conversation.ratings if conversation.messages[index].role == "assistant"]


def fit_head(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    rated: Sequence[Rated],
    recipe: Recipe,
) -> None:
    """Start the head as a ridge regression on the warmed-up states, so that it starts at the mean label.

    The head has no bias; the direction in which all states at a turn's end agree serves as one.
    """
    rows = [encode(tokenizer, r.messages, MAX_TOKENS) for r in rated]
    states = read_states(model, rows, [rated_turns(r) for r in rated])
    labels = label_matrix(rated, roles=["assistant"])
    with torch.no_grad():
        for index in range(len(ATTRIBUTES)):
            known = ~labels[:, index].isnan()
            model.score.weight[index] = ridge(states[known], labels[known, index], recipe.ridge)


def ridge(states: torch.Tensor, targets: torch.Tensor, strength: float) -> torch.Tensor:
    """Weights (hidden) of a ridge regression; the strength is a share of a state's mean square."""
    wide = states.double()
    gram = wide.T @ wide
    penalty = strength * gram.trace() / len(gram) / 10
    # The common direction stands for the bias: without a penalty of its own.
    common = wide.mean(0)
    common = common / common.norm()
    identity = torch.eye(len(gram), dtype=torch.float64)
    shrunk = penalty * (identity - torch.outer(common, common)) + 1e-6 * penalty * identity
    return torch.linalg.solve(gram + shrunk, wide.T @ targets.double()).float()


@dataclass(slots=True)
class Feed:
    """What tuning reads, encoded once."""

    rated: list[Rated]
    rated_rows: list[Encoded]
    pairs: list[Pair]
    pair_rows: list[tuple[Encoded, Encoded]]
    spread: torch.Tensor
    """Standard deviation of each attribute's labels, by which errors are divided."""

    @classmethod
    def of(cls, split: Judgements, tokenizer: PreTrainedTokenizerFast) -> Feed:
        """The split's judgements, ready to read."""
        labels = label_matrix(split.rated, roles=["assistant"]).numpy()
        return cls(
            split.rated,
            [encode(tokenizer, r.messages, READ_TOKENS) for r in split.rated],
            split.pairs,
            [answers_of(p, tokenizer, READ_TOKENS) for p in split.pairs],
            torch.tensor(np.nanstd(labels, axis=0), dtype=torch.float32),
        )

    def pair_batches(self, size: int, chance: random.Random) -> list[list[int]]:
        """One epoch of pairs."""
        return batches_of_alike([len(a.ids) + len(b.ids) for a, b in self.pair_rows], size, chance)

    def rated_batches(self, size: int, chance: random.Random) -> Iterator[list[int]]:
        """Rated conversations, over and over."""
        while True:
            yield from batches_of_alike([len(row.ids) for row in self.rated_rows], size, chance)


class Tuned(NamedTuple):
    """What tuning gives."""

    model: LlamaForSequenceClassification
    best_step: int
    """After which the weights were as kept; 0 is before the first."""
    steps: int
    """Of the whole schedule; tuning may have ended earlier."""


def tune(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    splits: dict[str, Judgements],
    recipe: Recipe,
    clock: Clock,
) -> Tuned:
    """The averaged model of the step that did best on the dev split."""
    chance = random.Random(recipe.seed)
    feed = Feed.of(splits["train"], tokenizer)
    schedule_of_pairs = [
        batch for _ in range(recipe.epochs) for batch in feed.pair_batches(recipe.pairs_a_step, chance)
    ]
    steps = len(schedule_of_pairs)
    check_every = math.ceil(steps / recipe.checks)
    rated_batches = feed.rated_batches(recipe.rated_a_step, chance)
    optimiser, schedule = optimiser_for(model, recipe.rate, recipe.weight_decay, steps)
    averaged = copy.deepcopy(model)
    best, best_step, best_merit = copy.deepcopy(model), 0, merit(model, tokenizer, splits["dev"])
    say(clock, f"tuning: {steps} steps; dev merit before {best_merit:.4f}")
    losses, disappointments = [], 0
    for step, pair_batch in enumerate(schedule_of_pairs):
        model.train()
        loss = rating_loss(model, feed, next(rated_batches), recipe)
        loss = loss + preference_loss(model, feed, pair_batch, recipe)
        take_step(model, loss, optimiser, schedule)
        average(averaged, model, min(recipe.averaging, (step + 1) / (step + 10)))
        losses.append(loss.item())
        if (step + 1) % check_every == 0 or step + 1 == steps:
            now = merit(averaged, tokenizer, splits["dev"])
            say(
                clock,
                f"tuning {step + 1}/{steps}: loss {np.mean(losses[-check_every:]):.3f}, dev merit {now:.4f}",
            )
            disappointments += 1
            if now > best_merit:
                disappointments = 0
                best, best_step, best_merit = copy.deepcopy(averaged), step + 1, now
        if clock.is_up() or disappointments == recipe.patience:
            break
    return Tuned(best, best_step, steps)


def rating_loss(
    model: LlamaForSequenceClassification, feed: Feed, batch: Sequence[int], recipe: Recipe
) -> torch.Tensor:
    """Robust error of the ratings in units of their spread, plus a share of the language loss."""
    ids, hidden = hidden_states(model, [feed.rated_rows[index] for index in batch])
    where, labels, weights = [], [], []
    for row, index in enumerate(batch):
        conversation, ends = feed.rated[index], feed.rated_rows[index].ends
        for message, ratings in conversation.ratings.items():
            if ends[message] < 0:
                continue
            where.append((row, ends[message]))
            labels.append([ratings.get(name, math.nan) for name in ATTRIBUTES])
            weights.append(1.0 if conversation.messages[message].role == "assistant" else recipe.user_weight)
    rows, positions = torch.tensor(where).T
    scores = model.score(functional.dropout(hidden[rows, positions], recipe.dropout))
    wanted = torch.tensor(labels)
    known = ~wanted.isnan()
    errors = functional.huber_loss(
        scores / feed.spread, torch.where(known, wanted, scores.detach()) / feed.spread, reduction="none"
    )
    weight = torch.tensor(weights)[:, None] * known
    loss = (errors * weight).sum() / weight.sum()
    if recipe.language_weight:
        real = ids[:, 1:].ne(pad_id(model)).nonzero()
        rows, positions = real[torch.randperm(len(real))[:512]].T
        loss = loss + recipe.language_weight * language_loss(
            model, hidden[rows, positions], ids[rows, positions + 1]
        )
    return loss


def preference_loss(
    model: LlamaForSequenceClassification, feed: Feed, batch: Sequence[int], recipe: Recipe
) -> torch.Tensor:
    """Bradley–Terry: minus the mean log-probability that the preferred answers win."""
    rows = [answer for index in batch for answer in feed.pair_rows[index]]
    _, hidden = hidden_states(model, rows)
    states = hidden[torch.arange(len(rows)), torch.tensor([len(row.ids) - 1 for row in rows])]
    scores = model.score(functional.dropout(states, recipe.dropout)) / feed.spread
    margins = scores[0::2] - scores[1::2]
    said = [PREFERENCE_SAYS[feed.pairs[index].subset] for index in batch]
    columns = torch.tensor([ATTRIBUTES.index(attribute) for attribute, _ in said])
    signs = torch.tensor([sign for _, sign in said])
    wins = signs * margins[torch.arange(len(batch)), columns]
    return -recipe.preference_weight * functional.logsigmoid(recipe.preference_scale * wins).mean()


@torch.no_grad()
def average(
    into: LlamaForSequenceClassification, model: LlamaForSequenceClassification, decay: float
) -> None:
    """Move ``into`` a little towards ``model``."""
    for kept, new in zip(into.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


# --- measuring ------------------------------------------------------------------------------------


@torch.no_grad()
def score_turns(
    model: LlamaForSequenceClassification, tokenizer: PreTrainedTokenizerFast, rated: Sequence[Rated]
) -> np.ndarray:
    """Scores (rated turns, attributes) of whole conversations."""
    rows = [encode(tokenizer, r.messages, MAX_TOKENS) for r in rated]
    return model.score(read_states(model, rows, [rated_turns(r) for r in rated])).numpy()


@torch.no_grad()
def score_margins(
    model: LlamaForSequenceClassification, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair]
) -> np.ndarray:
    """By how much each preferred answer wins, on the attribute that its subset speaks of."""
    rows = [row for pair in pairs for row in answers_of(pair, tokenizer, MAX_TOKENS)]
    scores = model.score(read_states(model, rows, [[-1]] * len(rows))).numpy()
    margins = scores[0::2] - scores[1::2]
    said = [PREFERENCE_SAYS[pair.subset] for pair in pairs]
    return np.array(
        [sign * row[ATTRIBUTES.index(name)] for (name, sign), row in zip(said, margins, strict=True)]
    )


def merit(
    model: LlamaForSequenceClassification, tokenizer: PreTrainedTokenizerFast, split: Judgements
) -> float:
    """One number to choose by: the mean of five rank correlations and two accuracies as 2·accuracy - 1."""
    scores = score_turns(model, tokenizer, split.rated)
    labels = label_matrix(split.rated, roles=["assistant"]).numpy()
    margins = score_margins(model, tokenizer, split.pairs)
    figures = []
    for index in range(len(ATTRIBUTES)):
        known = ~np.isnan(labels[:, index])
        figures.append(spearman(scores[known, index], labels[known, index]))
    for subset in PREFERENCE_SAYS:
        mine = np.array([pair.subset == subset for pair in split.pairs])
        figures.append(2 * pairwise_accuracy(margins[mine]) - 1)
    return float(np.mean(figures))


def stretch(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    splits: dict[str, Judgements],
    recipe: Recipe,
) -> None:
    """Give the dev split's scores the mean and spread of the training labels; ranks stay as they are.

    A regression that knows little answers close to the mean, and a rule such as ``helpfulness >= 2`` would
    keep all or nothing. The price is a larger error, which the card states.
    """
    labels = label_matrix(splits["train"].rated, roles=["assistant"]).numpy()
    dev = splits["dev"].rated
    rows = [encode(tokenizer, r.messages, MAX_TOKENS) for r in dev]
    states = read_states(model, rows, [rated_turns(r) for r in dev])
    ones = ridge(states, torch.ones(len(states)), 1e-3 * recipe.ridge)
    with torch.no_grad():
        scores = model.score(states).numpy()
        for index in range(len(ATTRIBUTES)):
            gain = float(np.nanstd(labels[:, index]) / scores[:, index].std())
            shift = float(np.nanmean(labels[:, index]) - gain * scores[:, index].mean())
            model.score.weight[index] = gain * model.score.weight[index] + shift * ones


def answer_lengths(rated: Sequence[Rated]) -> np.ndarray:
    """Characters of every rated turn."""
    return np.array([len(r.messages[index].content) for r in rated for index in rated_turns(r)], dtype=float)


def length_margins(pairs: Sequence[Pair]) -> np.ndarray:
    """How many characters longer each preferred answer is."""
    return np.array([len(pair.chosen) - len(pair.rejected) for pair in pairs], dtype=float)


def direction(figure: float) -> float:
    """+1 or -1: what length says is taken from the training split, never from the one measured."""
    return 1.0 if figure >= 0 else -1.0


def measure(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    splits: dict[str, Judgements],
    recipe: Recipe,
) -> Measured:
    """The held-out figures, looked at once, at the end."""
    test = splits["test"]
    scores = score_turns(model, tokenizer, test.rated)
    labels = label_matrix(test.rated, roles=["assistant"]).numpy()
    attributes = compare_attributes(splits, scores, labels, recipe)
    pairs = compare_pairs(splits, score_margins(model, tokenizer, test.pairs), recipe)
    known = ~np.isnan(labels)
    return Measured(
        attributes=attributes,
        pairs=pairs,
        spreads={
            name: spread_of(scores[known[:, index], index], labels[known[:, index], index])
            for index, name in enumerate(ATTRIBUTES)
        },
        rated_turns={name: sum(len(rated_turns(r)) for r in s.rated) for name, s in splits.items()},
        preference_pairs={name: len(s.pairs) for name, s in splits.items()},
    )


def compare_attributes(
    splits: dict[str, Judgements], scores: np.ndarray, labels: np.ndarray, recipe: Recipe
) -> dict[str, Comparison]:
    """Rank correlation with people by attribute, beside that of the answer's length."""
    train, test = splits["train"].rated, splits["test"].rated
    lengths, train_lengths = answer_lengths(test), answer_lengths(train)
    train_labels = label_matrix(train, roles=["assistant"]).numpy()
    trees = np.array([r.group for r in test for _ in rated_turns(r)])
    found = {}
    for index, name in enumerate(ATTRIBUTES):
        known, train_known = ~np.isnan(labels[:, index]), ~np.isnan(train_labels[:, index])
        sign = direction(spearman(train_lengths[train_known], train_labels[train_known, index]))
        mine, people, long = scores[known, index], labels[known, index], sign * lengths[known]
        found[name] = compare(
            trees[known].tolist(),
            over(spearman, mine, people),
            over(spearman, long, people),
            seed=recipe.seed,
        )
    return found


def compare_pairs(
    splits: dict[str, Judgements], margins: np.ndarray, recipe: Recipe
) -> dict[str, Comparison]:
    """How often the preferred answer wins by subset, beside preferring the longer or the shorter one."""
    found = {}
    for subset in PREFERENCE_SAYS:
        train = [pair for pair in splits["train"].pairs if pair.subset == subset]
        mine = [index for index, pair in enumerate(splits["test"].pairs) if pair.subset == subset]
        pairs = [splits["test"].pairs[index] for index in mine]
        sign = direction(pairwise_accuracy(length_margins(train)) - 0.5)
        model, length = margins[mine], sign * length_margins(pairs)
        found[subset] = compare(
            [pair.group for pair in pairs],
            over(pairwise_accuracy, model),
            over(pairwise_accuracy, length),
            seed=recipe.seed,
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
