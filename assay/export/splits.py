"""Which side of a split a conversation is on: a prompt, or a group, is always on one side, whatever else the
data hold."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from assay.core.digests import digest_of_bytes
from assay.core.errors import UserMistake
from assay.core.schema import Message

#: The side that holds what no named side does.
TRAIN = "train"
#: ``--split`` with NeMo-Aligner's own way to divide OpenAssistant's trees.
NEMO_OASST = "nemo-oasst"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
# preprocess_openassistant_data.py, main: seed=10, proportion_of_train=0.95; val.jsonl holds the rest.
_NEMO_SEED = 10
_NEMO_SHARE_OF_TRAIN = 0.95
_NEMO_VALIDATION = "val"
#: The first digits of a digest that make a number from 0 to 1.
_DIGITS = 13


@dataclass(frozen=True, slots=True)
class Split:
    """How the rows of every file are divided."""

    shares: tuple[tuple[str, float], ...] = ()
    """The named sides with their shares, 0 to 1; the rest is ``train``."""
    seed: int = 0
    nemo_oasst: bool = False
    """By tree, in NeMo-Aligner's order, in place of the above."""

    @property
    def sides(self) -> tuple[str, ...]:
        """The names of all sides."""
        if self.nemo_oasst:
            return TRAIN, _NEMO_VALIDATION
        return (TRAIN, *(name for name, _ in self.shares))

    def side_of(self, messages: Sequence[Message]) -> str:
        """The side of a conversation: by a hash of its messages through the first user message.

        >>> hello = [Message("user", "Hello")]
        >>> split = Split((("val", 0.5),), seed=1)
        >>> split.side_of(hello) == split.side_of([*hello, Message("assistant", "Hi")])
        True
        """
        return self._side(self.digest_of_prompt(messages))

    def digest_of_prompt(self, messages: Sequence[Message]) -> str:
        """The digest of the messages through the first of a user, of all where there is none."""
        end = next((place + 1 for place, message in enumerate(messages) if message.role == "user"), None)
        said = [text for message in messages[:end] for text in (message.role, message.content)]
        return self._digest(*said)

    def _digest(self, *texts: str) -> str:
        return digest_of_bytes(b"split", b"%d" % self.seed, *(text.encode() for text in texts))

    def _side(self, digest: str) -> str:
        place, below = int(digest[:_DIGITS], 16) / 16**_DIGITS, 0.0
        for name, share in self.shares:
            below += share
            if place < below:
                return name
        return TRAIN


@dataclass(frozen=True, slots=True)
class SplitByGroup(Split):
    """The same, where a record that has the group's field goes by its value.

    A class of its own, since results of a split without a group are known by its fields alone.
    """

    group: str = ""
    """``row.FIELD``, as in ``--group``."""

    def side_of_group(self, value: str) -> str:
        """The side of a group: by a hash of its value, as JSON.

        >>> by_group = SplitByGroup((("val", 0.5),), seed=1, group="row.id")
        >>> sorted({by_group.side_of_group(str(value)) for value in range(20)})
        ['train', 'val']
        """
        # No message has this role.
        return self._side(self._digest("group", value))


@dataclass(frozen=True, slots=True)
class TreeOrder:
    """NeMo-Aligner's order of a file's trees, and the side of each."""

    ranks: Mapping[int, int]
    """Of each line the place of its tree."""
    train: int
    """How many of the first trees are for training."""

    @classmethod
    def of(cls, lines: int) -> TreeOrder:
        """The order of a file of so many trees, a line each."""
        order = list(range(lines))
        random.Random(_NEMO_SEED).shuffle(order)
        ranks = {tree + 1: rank for rank, tree in enumerate(order)}
        return cls(ranks, int(lines * _NEMO_SHARE_OF_TRAIN))

    def side_of(self, line: int) -> str:
        """The side of the tree of this line."""
        return TRAIN if self.ranks[line] < self.train else _NEMO_VALIDATION


def parse_splits(texts: Sequence[str], seed: int, group: str | None = None) -> Split | None:
    """The split that ``--split`` asks for; None without; UserMistake where it cannot be.

    Sides go by ``group`` where one is named; NeMo-Aligner's own split goes by tree all the same.

    >>> parse_splits(["val=0.05", "test=0.01"], 7)
    Split(shares=(('val', 0.05), ('test', 0.01)), seed=7, nemo_oasst=False)
    """
    if not texts:
        return None
    if NEMO_OASST in texts:
        if len(texts) > 1:
            raise UserMistake(f"--split {NEMO_OASST}: divides the data by itself; leave out the others")
        return Split(nemo_oasst=True)
    shares: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            share = float(number)
        except ValueError:
            share = 0.0
        if not _NAME.fullmatch(name) or not 0 < share < 1:
            raise UserMistake(
                f"--split {text!r}: write a name and a share between 0 and 1, as val=0.05, or {NEMO_OASST}"
            )
        if name == TRAIN or name in shares:
            what = "is what the other sides leave" if name == TRAIN else "is given twice"
            raise UserMistake(f"--split {text!r}: {name} {what}")
        shares[name] = share
    if sum(shares.values()) >= 1:
        raise UserMistake(
            f"--split {' '.join(texts)}: the shares add up to 1 or more, and leave nothing to train"
        )
    if group is not None:
        return SplitByGroup(tuple(shares.items()), seed, group=group)
    return Split(tuple(shares.items()), seed)


def file_of_side(file: str, side: str) -> str:
    """The name of a side's file.

    >>> file_of_side("trl/preference.jsonl", "val")
    'trl/preference-val.jsonl'
    """
    path = PurePosixPath(file)
    return str(path.with_name(f"{path.stem}-{side}{path.suffix}"))
