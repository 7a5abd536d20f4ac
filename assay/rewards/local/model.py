"""Hugging Face reward models in this process."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from assay.core.errors import DeviceLost, ModelFault
from assay.rewards import families
from assay.rewards.batch_reports import batch_done
from assay.rewards.fingerprint import fingerprint
from assay.rewards.local import allocation, attention, batching, differences, opening, sharing
from assay.rewards.local.network import Network, code_of_its_own, placed
from assay.rewards.local.out_of_memory import unless_out_of_memory
from assay.rewards.protocol import OUT_OF_MEMORY, Remark, Request, TurnScore
from assay.rewards.rendering import PairRenderer, Pass, Renderer
from assay.rewards.spec import LocalSpec
from assay.rewards.tokenizer import load
from assay.workers.environment import EXPECTS_CUDA

#: Budgeted tokens of a batch. On a CPU more than this only leaves the cache (measured, on models 128 to 448
#: wide: 2,048 is 4 to 8% faster than 4,096, and no slower than 1,024); a GPU is to be kept busy.
CPU_BATCH_TOKENS = 2048
CUDA_BATCH_TOKENS = 4096
#: On CUDA the budget is found by trying, from ``CUDA_BATCH_TOKENS`` up to this. One as large as a shard
#: leaves its lengths no room to be sorted in: of 2**18 tokens of ShareGPT, batches of as many make 57%
#: padding, batches of a quarter 20%, and with ``CUDA_BUSY_TOKENS`` 6.5% (counted).
CUDA_MOST_BATCH_TOKENS = 1 << 16
#: Tokens that a GPU computes for longer than it takes to launch a pass. An estimate: not measured on a GPU.
CUDA_BUSY_TOKENS = 8192
#: The length of the rows that are tried: what most conversations stay below.
_TRIED_LENGTH = 1024

_UNFIT = OUT_OF_MEMORY + ": {tokens} tokens do not fit into memory, not even alone"


class LocalRewardModel:
    """A loaded model that scores every requested turn of a conversation in one pass.

    Several threads may ask for scores: while one has the device, another renders and tokenizes.
    """

    def __init__(
        self, spec: LocalSpec, *, device: str = "cpu", batch_tokens: int | None = None, loaded: Any = None
    ) -> None:
        """``loaded``: a model of transformers to be used in place of the one in the spec's folder."""
        self.spec = spec
        self.attributes = spec.attributes
        self.fingerprint = spec.fingerprint
        self.tokens_seen = 0
        """Tokens put through the model so far, padding not counted."""
        self._call = threading.local()
        where = torch.device(device)
        on_gpu = where.type == "cuda"
        self._budget = batching.TokenBudget(
            batch_tokens or (CUDA_BATCH_TOKENS if on_gpu else CPU_BATCH_TOKENS),
            CUDA_BUSY_TOKENS if on_gpu else None,
        )
        with code_of_its_own(spec):
            self.renderer = _renderer(spec, families.FAMILIES[spec.family])
        self.network = Network(spec, where, loaded=loaded)
        self._device = threading.Lock()
        if isinstance(self.renderer, Renderer):
            self.renderer.vocabulary = self.network.vocabulary
            if spec.read_at == families.AS_TRANSFORMERS:
                self.renderer.passed_over = self.network.text_config.pad_token_id
        with code_of_its_own(spec):
            opening.check_positions(self.network)
            opening.check_against_transformers(self.network)
            self.sharing = opening.sharing(self.network)
            self.differences = differences.found(self.network, self.renderer)

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """One for each other way to read this model that gives another number, unless somebody chose."""
        return tuple(Remark(one.text, one.settled_by) for one in self.differences if not one.is_settled)

    @property
    def device_name(self) -> str:
        """What it computes on."""
        return self.network.device_name

    @property
    def busy_seconds(self) -> float:
        """How long the device worked for the last ``score`` of this thread."""
        seconds: float = getattr(self._call, "busy_seconds", 0.0)
        return seconds

    @property
    def shares_no_beginnings_because(self) -> str | None:
        """Why sequences that begin alike are still put through whole; None where they share a beginning."""
        return self.sharing.refused_because

    def score(self, requests: Sequence[Request]) -> list[list[TurnScore]]:
        """An outcome a requested turn, in the order of the requests and their turns."""
        rendered = self.renderer.render(requests)
        outcomes: list[dict[int, TurnScore]] = [
            {turn: TurnScore(None, reason) for turn, reason in item.refused.items()} for item in rendered
        ]
        waiting = [(number, one) for number, item in enumerate(rendered) for one in item.passes]
        with self._device, torch.inference_mode():
            began = time.monotonic()
            while waiting:
                waiting = self._put_through(waiting, outcomes)
            self._call.busy_seconds = time.monotonic() - began
        return [
            [by_turn[turn] for turn in request.turns]
            for request, by_turn in zip(requests, outcomes, strict=True)
        ]

    def _put_through(
        self, owned: Sequence[tuple[int, Pass]], outcomes: Sequence[dict[int, TurnScore]]
    ) -> list[tuple[int, Pass]]:
        """Score (request, pass) pairs; return those to retry without their last turn.

        Where memory does not suffice for a pass alone, that is the reason for its last turn only. A turn's
        score must not depend on whether a longer conversation was read for its sake.
        """
        passes = [one for _, one in owned]
        lengths = [len(one.token_ids) for one in passes]
        shorter: list[tuple[int, Pass]] = []
        scores: dict[int, torch.Tensor] = {}
        whole = self._score_shared(passes, lengths, scores)

        def forward(batch: list[int]) -> batching.BatchOutcome:
            values = unless_out_of_memory(lambda: self._forward([passes[whole[place]] for place in batch]))
            if values is None:
                return batching.BatchOutcome.OUT_OF_MEMORY
            scores.update(zip((whole[place] for place in batch), values, strict=True))
            return batching.BatchOutcome.DONE

        for batch, outcome in batching.run([lengths[index] for index in whole], self._budget, forward):
            if outcome is batching.BatchOutcome.OUT_OF_MEMORY:
                owner, unfit = owned[whole[batch[0]]]
                *earlier, last = unfit.reads
                outcomes[owner][last.turn] = TurnScore(None, _UNFIT.format(tokens=len(unfit.token_ids)))
                if earlier:
                    beginning = unfit.token_ids[: earlier[-1].position + 1]
                    shorter.append((owner, Pass(beginning, tuple(earlier))))
            else:
                members = [whole[place] for place in batch]
                self._note_batch(members, passes, sum(lengths[member] for member in members))
        for index, rows in _fetched(scores):
            for read, row in zip(passes[index].reads, rows, strict=True):
                # An encoder is read at its first token, and has seen them all.
                seen = lengths[index] if self.network.family.pair else read.position + 1 + read.behind
                outcomes[owned[index][0]][read.turn] = _outcome(row, seen, passes[index].tokens_cut)
        return shorter

    def _note_batch(self, members: Sequence[int], passes: Sequence[Pass], tokens: int) -> None:
        """Count the tokens of what was put through, and report its turns."""
        self.tokens_seen += tokens
        batch_done(sum(len(passes[member].reads) for member in members), tokens)

    def _forward(self, batch: Sequence[Pass]) -> tuple[torch.Tensor, ...]:
        """Per pass float32 ``[reads, attributes]``, left on the device: fetching them would mean waiting."""
        # Padding is on the right, where no token of a causal model sees it: no mask is needed, and any token
        # will do. An encoder sees it, and gets a mask.
        token_ids = self.network.padded([one.token_ids for one in batch])
        mask = None
        if self.network.family.pair:
            lengths = np.array([len(one.token_ids) for one in batch])
            mask = self.network.on_device(np.arange(token_ids.shape[1]) < lengths[:, None]).long()
        hidden = self.network.hidden(token_ids, mask)
        # A model that is spread over several devices ends on another one than it begins on.
        rows = placed(np.array([row for row, one in enumerate(batch) for _ in one.reads]), hidden.device)
        return self._read_all(batch, lambda positions: hidden[rows, placed(positions, hidden.device)])

    def _read_all(
        self, batch: Sequence[Pass], states_at: Callable[[np.ndarray], torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """Per pass float32 ``[reads, attributes]``; ``states_at`` takes a position for each read."""
        reads = [read for one in batch for read in one.reads]
        states = states_at(np.array([read.position for read in reads]))
        gates = states_at(np.array([read.gate for read in reads])) if self.network.family.gated else None
        return torch.split(self.network.read(states, gates), [len(one.reads) for one in batch])

    def _score_shared(
        self, passes: Sequence[Pass], lengths: Sequence[int], scores: dict[int, torch.Tensor]
    ) -> list[int]:
        """The passes to be put through whole; those worth sharing a beginning have their ``scores``."""
        if self.shares_no_beginnings_because is not None:
            return list(range(len(passes)))
        groups = sharing.shared_beginnings([one.token_ids for one in passes])
        whole = set(range(len(passes))).difference(*(group.members for group in groups))

        def forward(batch: list[sharing.Shared]) -> batching.BatchOutcome:
            values = unless_out_of_memory(lambda: self._forward_shared(passes, lengths, batch))
            if values is None:
                return batching.BatchOutcome.OUT_OF_MEMORY
            scores.update(values)
            return batching.BatchOutcome.DONE

        cost = self.sharing.cached_token_cost
        for batch, outcome in sharing.run(groups, lengths, self._budget, forward, cached_token_cost=cost):
            for group in batch:
                if outcome is batching.BatchOutcome.OUT_OF_MEMORY:
                    whole.update(group.members)
                else:
                    rests = sum(lengths[member] - group.tokens for member in group.members)
                    self._note_batch(group.members, passes, group.tokens + rests)
        return sorted(whole)

    def _forward_shared(
        self, passes: Sequence[Pass], lengths: Sequence[int], batch: Sequence[sharing.Shared]
    ) -> dict[int, torch.Tensor]:
        """``[reads, attributes]`` of every member of every group, beginnings put through the model once."""
        begun = self.network.begin([passes[group.members[0]].token_ids[: group.tokens] for group in batch])
        values: dict[int, torch.Tensor] = {}
        for rows in sharing.continuations(
            batch, lengths, self._budget, cached_token_cost=self.sharing.cached_token_cost
        ):
            members = [passes[row.member] for row in rows]
            starts = np.array([batch[row.beginning].tokens for row in rows])
            owners = np.array([row.beginning for row in rows])
            rests = [one.token_ids[start:] for one, start in zip(members, starts, strict=True)]
            hidden = begun.continued(self.network.on_device(owners), self.network.padded(rests))
            of_read = np.array([number for number, one in enumerate(members) for _ in one.reads])

            def states_at(
                positions: np.ndarray,
                hidden: torch.Tensor = hidden,
                of_read: np.ndarray = of_read,
                starts: np.ndarray = starts[of_read],
                owners: np.ndarray = owners[of_read],
            ) -> torch.Tensor:
                behind = positions >= starts
                place = partial(placed, device=hidden.device)
                states = hidden[place(of_read), place(np.where(behind, positions - starts, 0))]
                early = np.flatnonzero(~behind)
                if len(early):
                    states[place(early)] = begun.hidden[place(owners[early]), place(positions[early])]
                return states

            values.update(zip((row.member for row in rows), self._read_all(members, states_at), strict=True))
        return values

    @property
    def batch_tokens(self) -> int:
        """Budgeted tokens of a batch, as ``batching.cost`` counts them."""
        return self._budget.max_tokens

    @batch_tokens.setter
    def batch_tokens(self, tokens: int) -> None:
        self._budget.max_tokens = tokens

    @torch.inference_mode()
    def calibrate(self, *, ceiling: int) -> None:
        """Find the batch budget: put batches through the model, smaller and smaller, until one fits.

        Rows of a usual length are tried, and rows as long as the budget or the model takes.
        """

        def fits(tokens: int) -> bool:
            usual = min(_TRIED_LENGTH, self.spec.max_tokens)
            longest = max(
                length
                for length in (usual, *range(usual, self.spec.max_tokens + 1, usual))
                if length == usual or batching.cost(1, length) <= tokens
            )
            return all(
                self._fits(max(1, tokens // batching.cost(1, length)), length) for length in (usual, longest)
            )

        self._budget.max_tokens = batching.largest_fitting(
            fits, first=self._budget.max_tokens, ceiling=ceiling
        )
        if self.network.device.type == "cuda":
            torch.cuda.empty_cache()

    def _fits(self, rows: int, length: int) -> bool:
        token_ids = torch.zeros((rows, length), dtype=torch.int64, device=self.network.device)
        mask = self.network.all_seen(token_ids)
        return unless_out_of_memory(lambda: self.network.hidden(token_ids, mask)) is not None


def open_model(spec: LocalSpec) -> LocalRewardModel:
    """The loaded model, on this process's GPU if it sees one, on one CPU thread otherwise."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    if torch.cuda.is_available():
        attention.use_cudnn(False)
        model = LocalRewardModel(spec, device="cuda")
        model.calibrate(ceiling=CUDA_MOST_BATCH_TOKENS)
    elif os.environ.get(EXPECTS_CUDA):
        raise ModelFault(
            f"a GPU is here (CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}), and torch "
            f"{torch.__version__} on {socket.gethostname()} cannot use it: install its CUDA build and a "
            "driver that fits, or set CUDA_VISIBLE_DEVICES= to score on the CPU"
        )
    else:
        torch.set_num_threads(1)
        allocation.keep_freed_memory()
        model = LocalRewardModel(spec)
    _check_unchanged(spec)
    return model


def _check_unchanged(spec: LocalSpec) -> None:
    """Raise ``ModelFault`` where the folder does not hold what ``spec`` was made from.

    Checked after loading: the folder may have been written to since the run began. On another machine the
    same path may hold other files, and the libraries may be other versions.
    """
    found = fingerprint(
        Path(spec.folder),
        family=spec.family,
        attributes=spec.attributes,
        dtype=spec.dtype,
        max_tokens=spec.max_tokens,
        over_length=spec.over_length,
        remote_code=spec.remote_code,
        digest_cache=None if spec.digest_cache is None else Path(spec.digest_cache),
        read_at=spec.read_at,
        add_bos=spec.add_bos,
        adapter=None if spec.adapter is None else Path(spec.adapter),
    )
    if found != spec.fingerprint:
        raise ModelFault(
            f"model {spec.name}: {spec.folder} on {socket.gethostname()} is not what the run began with: "
            "other files, or another version of transformers or tokenizers. Scores would be kept under "
            "the wrong model's name; run again once it is the same everywhere"
        )


def _renderer(spec: LocalSpec, family: families.Family) -> Renderer | PairRenderer:
    tokenizer = load(spec.shown_by, whose=f"model {spec.name}", remote_code=spec.remote_code)
    if family.pair:
        return PairRenderer(tokenizer, max_tokens=spec.max_tokens, over_length=spec.over_length)
    return Renderer(
        tokenizer,
        max_tokens=spec.max_tokens,
        over_length=spec.over_length,
        appended_token_id=spec.appended_token_id,
        gated=family.gated,
        add_bos=bool(spec.add_bos),
    )


def _fetched(scores: Mapping[int, torch.Tensor]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each key with its numbers, all copied from the device at once."""
    if scores:
        together = unless_out_of_memory(lambda: torch.cat(tuple(scores.values())).cpu().numpy())
        if together is None:
            raise DeviceLost("the GPU has no memory left to hand over the scores")
        ends = np.cumsum([len(rows) for rows in scores.values()])
        yield from zip(scores, np.split(together, ends[:-1]), strict=True)


def _outcome(row: np.ndarray, tokens_seen: int, tokens_cut: int) -> TurnScore:
    values = tuple(float(value) for value in row)
    tokens = tokens_seen + tokens_cut
    if all(math.isfinite(value) for value in values):
        return TurnScore(values, tokens_cut=tokens_cut, tokens=tokens)
    return TurnScore(None, f"not_finite: the model gave {values}", tokens_cut, tokens)
