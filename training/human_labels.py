"""Human judgements of chat answers, read from OASST1 and HH-RLHF and split so that nothing leaks.

OASST1 (Apache-2.0, https://huggingface.co/datasets/OpenAssistant/oasst1): flat messages with labels from
0 to 1 by several people; the English ones of the validation split, as gzipped JSON lines. HH-RLHF (MIT,
https://github.com/anthropics/hh-rlhf): pairs of transcripts, of which a person preferred the first; the test
files of two of its folders, as they are.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.core.schema import Message

OASST_FILE = "oasst1/en-validation.messages.jsonl.gz"
HH_FILES = {
    "helpful": "hh-rlhf/helpful-base-test.jsonl.gz",
    "harmless": "hh-rlhf/harmless-base-test.jsonl.gz",
}

#: The first four of NeMo-Aligner's preprocessing of OASST, then helpfulness.
ATTRIBUTES = ("quality", "toxicity", "humor", "creativity", "helpfulness")
OASST_ROLES = {"prompter": "user", "assistant": "assistant"}
LABEL_SCALE = 4.0

#: Of 20 equal buckets of groups, those held out for the test and those for choices.
BUCKETS = 20
TEST_BUCKETS = range(0, 4)
DEV_BUCKETS = range(4, 7)
SPLITS = ("train", "dev", "test")

_HH_SPEAKER = re.compile(r"\n\n(Human|Assistant): ?")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Rated:
    """A conversation some of whose messages people have rated."""

    messages: tuple[Message, ...]
    ratings: dict[int, dict[str, float]]
    """By index into ``messages``; values on 0–4, and only the attributes that people gave."""
    group: str
    """The message tree it is a path of."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one conversation, the first of which a person preferred."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    subset: str
    """A key of ``HH_FILES``."""
    group: str
    """A digest of the opening message: conversations that begin alike stay in one split."""


@dataclass(frozen=True, slots=True)
class Judgements:
    """What one split holds."""

    rated: list[Rated]
    pairs: list[Pair]


def read_judgements(folder: Path) -> dict[str, Judgements]:
    """The judgements by split: OASST1 by tree, HH-RLHF by opening message."""
    splits = {name: Judgements([], []) for name in SPLITS}
    for rated in read_oasst(folder / OASST_FILE):
        splits[split_of(rated.group)].rated.append(rated)
    for subset, file in HH_FILES.items():
        for pair in read_hh(folder / file, subset):
            splits[split_of(pair.group)].pairs.append(pair)
    return splits


def split_of(group: str) -> str:
    """The split of a tree or prompt: a function of its name alone, so no order and no seed can move it."""
    bucket = int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest()) % BUCKETS
    if bucket in TEST_BUCKETS:
        return "test"
    return "dev" if bucket in DEV_BUCKETS else "train"


def read_oasst(path: Path) -> Iterator[Rated]:
    """Every rated message once: root-to-leaf paths, each cut after its last message not seen before."""
    messages = {row["message_id"]: row for row in _rows(path)}
    parents = {row["parent_id"] for row in messages.values()}
    seen: set[str] = set()
    for leaf in messages:
        if leaf in parents:
            continue
        way = _way_to_root(messages, leaf)
        if way is None:
            continue
        ratings = {
            index: labels
            for index, row in enumerate(way)
            if row["message_id"] not in seen and (labels := _labels(row))
        }
        if not ratings:
            continue
        seen.update(row["message_id"] for row in way)
        kept = way[: max(ratings) + 1]
        yield Rated(
            tuple(Message(OASST_ROLES[row["role"]], row["text"]) for row in kept),
            ratings,
            way[0]["message_tree_id"],
        )


def read_hh(path: Path, subset: str) -> Iterator[Pair]:
    """The pairs whose two transcripts differ in the last answer and in nothing else."""
    for row in _rows(path):
        chosen, rejected = transcript(row["chosen"]), transcript(row["rejected"])
        if chosen[:-1] != rejected[:-1] or not chosen[:-1] or chosen[-1] == rejected[-1]:
            continue
        if chosen[-1].role != "assistant" or rejected[-1].role != "assistant":
            continue
        yield Pair(
            tuple(chosen[:-1]),
            chosen[-1].content,
            rejected[-1].content,
            subset,
            _opening_digest(chosen[0].content),
        )


def transcript(text: str) -> list[Message]:
    """The messages of a transcript of ``\\n\\nHuman:`` and ``\\n\\nAssistant:`` paragraphs."""
    parts = _HH_SPEAKER.split(text)
    return [
        Message(_HH_ROLES[speaker], content.strip())
        for speaker, content in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rb") as lines:
        for line in lines:
            yield json.loads(line)


def _way_to_root(messages: dict[str, dict[str, Any]], leaf: str) -> list[dict[str, Any]] | None:
    """The rows from root to leaf; None where a parent is missing."""
    way: list[dict[str, Any]] = []
    step: str | None = leaf
    while step is not None:
        if step not in messages:
            return None
        way.append(messages[step])
        step = messages[step]["parent_id"]
    return way[::-1]


def _labels(row: dict[str, Any]) -> dict[str, float]:
    labels = row.get("labels") or {"name": [], "value": []}
    named = dict(zip(labels["name"], labels["value"], strict=True))
    return {name: LABEL_SCALE * named[name] for name in ATTRIBUTES if name in named}


def _opening_digest(text: str) -> str:
    words = " ".join(text.casefold().split())
    return hashlib.blake2b(words.encode(), digest_size=16).hexdigest()


def all_texts(judgements: Judgements) -> list[Sequence[Message]]:
    """Every conversation of a split once, a pair as two."""
    texts: list[Sequence[Message]] = [rated.messages for rated in judgements.rated]
    for pair in judgements.pairs:
        texts += [(*pair.prompt, Message("assistant", answer)) for answer in (pair.chosen, pair.rejected)]
    return texts
