"""Other ways to read the same model that give another number: found, and both reported, when it is opened.

Neither number is wrong by itself: the model's card says which one is meant, and a person chooses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch

from assay.core.errors import ModelFault
from assay.core.schema import Message
from assay.rewards.families import AS_TRANSFORMERS, HEAD_IN_WEIGHTS, SEQUENCE_CLASSIFICATION
from assay.rewards.local import heads
from assay.rewards.local.network import Network
from assay.rewards.local.opening import agree
from assay.rewards.protocol import Request
from assay.rewards.rendering import PairRenderer, Read, Renderer

#: What both numbers are computed from.
_EXAMPLE = (Message("user", "What is 1+1?"), Message("assistant", "1+1=2"))


class Difference(NamedTuple):
    """Two ways to read a model that give two numbers."""

    name: str
    text: str
    """Both numbers, and how to choose one."""
    settled_by: Literal["read_at", "add_bos"]
    """The field of ``LocalSpec`` with which somebody chooses."""
    is_settled: bool
    """Whether somebody has chosen."""


@torch.inference_mode()
def found(network: Network, renderer: Renderer | PairRenderer) -> tuple[Difference, ...]:
    """What differs on a short example; nothing for a model that does not take the example.

    Raises ``ModelFault`` where the model is to be read as transformers does, and the numbers differ.
    """
    if isinstance(renderer, PairRenderer):
        return ()
    (rendered,) = renderer.render([Request(_EXAMPLE, (0,))])
    if not rendered.passes or rendered.passes[0].tokens_cut:
        return ()
    (shown,) = rendered.passes
    ids = shown.token_ids
    if network.spec.appended_token_id is None:
        ids = renderer.token_ids(_EXAMPLE)
    (read,) = shown.reads
    return (
        *_of_transformers(network, ids, read),
        *_of_padding_within(network, ids, read),
        *_of_bos(network, renderer, ids, read),
    )


def _of_transformers(network: Network, ids: np.ndarray, read: Read) -> Iterator[Difference]:
    """Yield what transformers' own head gives, where it passes over padding at the end of a text."""
    spec = network.spec
    pad = network.text_config.pad_token_id
    if spec.family != SEQUENCE_CLASSIFICATION or pad is None or ids[-1] != pad:
        return
    last = _read_at(network, ids, Read(read.turn, len(ids) - 1))
    theirs = heads.own_call(spec.family, network.model, network.on_device(ids[None].astype(np.int64)))
    assert theirs is not None
    as_read = _read_at(network, ids, read)
    if spec.read_at == AS_TRANSFORMERS and not agree(network, as_read, theirs.float()):
        raise ModelFault(
            f"model {spec.name}: --read-at {AS_TRANSFORMERS}: this engine reads {_shown(as_read)} where "
            f"transformers itself gives {_shown(theirs)}"
        )
    yield Difference(
        "transformers' own head",
        "its template ends in the padding token, which transformers' own head passes over: "
        f"{_shown(last)} at the last token, {_shown(theirs)} by transformers (of {_EXAMPLE[-1].content!r}). "
        "Say which is meant: --read-at last-token or --read-at transformers",
        "read_at",
        spec.read_at is not None,
    )


def _of_padding_within(network: Network, ids: np.ndarray, read: Read) -> Iterator[Difference]:
    """Yield what INF-ORM's, Qwen's and Decision-Tree-Reward's own code gives for a text with padding in it.

    That code does not run here. It reads before the first padding token of a text, as transformers 4.45 does.
    """
    pad = network.text_config.pad_token_id
    if network.spec.family != HEAD_IN_WEIGHTS or pad is None or pad not in ids:
        return
    before = int(np.flatnonzero(ids == pad)[0]) - 1
    theirs = _read_at(network, ids, Read(read.turn, before % len(ids)))
    last = _read_at(network, ids, read)
    yield Difference(
        "padding within a text",
        "its template writes the padding token, and code that looks for the end of a text by it reads an "
        f"earlier token: {_shown(last)} at the last token, {_shown(theirs)} before the first padding token "
        f"(of {_EXAMPLE[-1].content!r}). If the last token is meant, say --read-at last-token",
        "read_at",
        network.spec.read_at is not None,
    )


def _of_bos(network: Network, renderer: Renderer, ids: np.ndarray, read: Read) -> Iterator[Difference]:
    """Yield what a text gives that begins with the tokenizer's own first token."""
    spec = network.spec
    if not renderer.lacks_bos:
        if spec.add_bos and not renderer.tokenizers_bos:
            yield Difference(
                "BOS",
                "its tokenizer puts no token before a text: --add-bos changes nothing",
                "add_bos",
                True,
            )
        return
    bos = np.array(renderer.tokenizers_bos, dtype=ids.dtype)
    if renderer.adds_bos:
        ids, read = ids[len(bos) :], _moved(read, -len(bos))
    without = _read_at(network, ids, read)
    with_bos = _read_at(network, np.concatenate([bos, ids]), _moved(read, len(bos)))
    yield Difference(
        "BOS",
        f"its tokenizer puts {renderer.decoded(bos)!r} before a text and its template writes none: "
        f"{_shown(without)} without it, {_shown(with_bos)} with it (of {_EXAMPLE[-1].content!r}). If the "
        "model's card calls tokenizer(text), say --add-bos, and --no-add-bos otherwise",
        "add_bos",
        spec.add_bos is not None,
    )


def _moved(read: Read, by: int) -> Read:
    gate = None if read.gate is None else read.gate + by
    return Read(read.turn, read.position + by, gate, read.behind)


def _read_at(network: Network, ids: np.ndarray, read: Read) -> torch.Tensor:
    """float32 ``[1, attributes]``"""
    hidden = network.hidden(network.on_device(ids[None].astype(np.int64)))
    gates = None if read.gate is None else hidden[:, read.gate]
    return network.read(hidden[:, read.position], gates)


def _shown(numbers: torch.Tensor) -> str:
    return ", ".join(f"{number:.6g}" for number in numbers.flatten().tolist())
