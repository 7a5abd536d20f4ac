"""Where another way to the same model gives another number: found when it is opened, told with both.

Neither number is wrong by itself: which one is meant, its card says, and a person chooses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch

from assay.core.errors import ModelFault
from assay.core.schema import Message
from assay.rewards.families import AS_TRANSFORMERS, SEQUENCE_CLASSIFICATION
from assay.rewards.local import heads
from assay.rewards.local.network import Network
from assay.rewards.local.opening import agree
from assay.rewards.protocol import Request
from assay.rewards.rendering import PairRenderer, Read, Renderer

#: What both numbers are computed of.
_EXAMPLE = (Message("user", "What is 1+1?"), Message("assistant", "1+1=2"))


class Difference(NamedTuple):
    """Two ways to a score that do not come to the same."""

    name: str
    told: str
    """Both numbers, and how to choose one."""
    settled_by: Literal["read_at", "add_bos"]
    """The field of ``ModelSpec`` with which somebody chooses."""
    is_settled: bool
    """Whether somebody has chosen."""


@torch.inference_mode()
def found(network: Network, renderer: Renderer | PairRenderer) -> tuple[Difference, ...]:
    """What differs on a short example; nothing of a model that does not take it.

    Raises ``ModelFault`` where a model that is to be read as transformers reads it comes to another number.
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
    return (*_of_transformers(network, ids, read), *_of_bos(network, renderer, ids, read))


def _of_transformers(network: Network, ids: np.ndarray, read: Read) -> Iterator[Difference]:
    """Yield the number of transformers' own head, where it passes over padding that a text ends in."""
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
            f"model {spec.name}: --read-at {AS_TRANSFORMERS}: this engine reads {_told(as_read)} where "
            f"transformers itself gives {_told(theirs)}"
        )
    yield Difference(
        "transformers' own head",
        f"its template ends in the padding token, which transformers' own head passes over: {_told(last)} at "
        f"the last token, {_told(theirs)} by transformers (of {_EXAMPLE[-1].content!r}). Say which is meant: "
        "--read-at last-token or --read-at transformers",
        "read_at",
        spec.read_at is not None,
    )


def _of_bos(network: Network, renderer: Renderer, ids: np.ndarray, read: Read) -> Iterator[Difference]:
    """Yield the number of a text that begins with what its tokenizer puts before it."""
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
        f"{_told(without)} without it, {_told(with_bos)} with it (of {_EXAMPLE[-1].content!r}). If the "
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


def _told(numbers: torch.Tensor) -> str:
    return ", ".join(f"{number:.6g}" for number in numbers.flatten().tolist())
