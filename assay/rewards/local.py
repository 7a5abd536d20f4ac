"""Hugging Face reward models in this process."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import transformers

from assay.errors import DeviceLost, ModelFault
from assay.rewards import allocation, batching, continuing, families, heads, sharing
from assay.rewards.fingerprint import fingerprint
from assay.rewards.protocol import OUT_OF_MEMORY, ModelSpec, Request, TurnScore
from assay.rewards.rendering import PairRenderer, Pass, Rendered, Renderer

#: Budgeted tokens of a batch. On a CPU more than this only leaves the cache (measured, on models 128 to 448
#: wide: 2,048 is 4 to 8% faster than 4,096, and no slower than 1,024); a GPU is to be kept busy.
CPU_BATCH_TOKENS = 2048
CUDA_BATCH_TOKENS = 4096
#: On CUDA the budget is found by trying, from ``CUDA_BATCH_TOKENS`` up to this.
CUDA_MOST_BATCH_TOKENS = 1 << 18
#: The length of the rows that are tried: what most conversations stay below.
_TRIED_LENGTH = 1024

#: How far the engine may be from transformers' own forward pass when a model is opened, relative to the
#: score (or to one, for smaller ones). The 16-bit types carry 8 to 11 bits of mantissa.
_OPENING_TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}

#: How torch names the failure on a CPU, where it raises no OutOfMemoryError (c10/core/CPUAllocator.cpp).
_CPU_ALLOCATOR = "DefaultCPUAllocator: "

#: How the text of every other failure of CUDA begins (c10/cuda/CUDAException.cpp).
_CUDA_ERROR = "CUDA error: "

_UNFIT = OUT_OF_MEMORY + ": {tokens} tokens do not fit into memory, not even alone"

Worked = TypeVar("Worked")


class LocalRewardModel:
    """A loaded model that scores every requested turn of a conversation in one pass."""

    def __init__(self, spec: ModelSpec, *, device: str = "cpu", batch_tokens: int | None = None) -> None:
        self.spec = spec
        self.attributes = spec.attributes
        self.fingerprint = spec.fingerprint
        self.tokens_seen = 0
        """Tokens put through the model so far, padding not counted."""
        self.beyond_trained = 0
        """Conversations so far that were longer than any that the model was trained on."""
        self._device = torch.device(device)
        default = CUDA_BATCH_TOKENS if self._device.type == "cuda" else CPU_BATCH_TOKENS
        self._budget = batching.TokenBudget(batch_tokens or default)
        self._family = families.FAMILIES[spec.family]
        self._renderer = _renderer(spec, self._family)
        self._model = _load(spec, self._device).eval()
        self._backbone = self._model.base_model
        self._head = heads.HEADS[spec.family](self._model, spec)
        if isinstance(self._renderer, Renderer):
            self._renderer.vocabulary = self._model.get_input_embeddings().num_embeddings
        self._check_positions()
        self._check_against_transformers()
        self._cached_token_cost = 0.0
        self.shares_no_beginnings_because = self._why_no_sharing()
        """Why sequences that begin alike are nevertheless put through whole; None where they are not."""

    @torch.inference_mode()
    def score(self, requests: Sequence[Request]) -> list[list[TurnScore]]:
        """An outcome a requested turn, in the order of the requests and their turns."""
        rendered = self._renderer.render(requests)
        outcomes: list[dict[int, TurnScore]] = [
            {turn: TurnScore(None, reason) for turn, reason in item.refused.items()} for item in rendered
        ]
        self.beyond_trained += sum(self._is_beyond_trained(item) for item in rendered)
        waiting = [(number, one) for number, item in enumerate(rendered) for one in item.passes]
        while waiting:
            waiting = self._put_through(waiting, outcomes)
        return [
            [by_turn[turn] for turn in request.turns]
            for request, by_turn in zip(requests, outcomes, strict=True)
        ]

    def _put_through(
        self, owned: Sequence[tuple[int, Pass]], outcomes: Sequence[dict[int, TurnScore]]
    ) -> list[tuple[int, Pass]]:
        """Score the passes, each told with its request; what is to be tried again, shorter.

        Where memory does not suffice for a pass alone, that is the reason for its last turn only. What a
        turn is worth must not depend on whether a longer conversation was read for its sake.
        """
        passes = [one for _, one in owned]
        lengths = [len(one.token_ids) for one in passes]
        shorter: list[tuple[int, Pass]] = []

        def keep(index: int, rows: np.ndarray) -> None:
            for read, row in zip(passes[index].reads, rows, strict=True):
                outcomes[owned[index][0]][read.turn] = _outcome(row, passes[index].tokens_cut)

        whole = self._score_shared(passes, lengths, keep)

        def forward(batch: list[int]) -> batching.Outcome:
            values = _unless_out_of_memory(lambda: self._forward([passes[whole[place]] for place in batch]))
            if values is None:
                return batching.Outcome.OUT_OF_MEMORY
            for place, rows in zip(batch, values, strict=True):
                keep(whole[place], rows)
            return batching.Outcome.DONE

        for batch, outcome in batching.run([lengths[index] for index in whole], self._budget, forward):
            if outcome is batching.Outcome.OUT_OF_MEMORY:
                owner, unfit = owned[whole[batch[0]]]
                *earlier, last = unfit.reads
                outcomes[owner][last.turn] = TurnScore(None, _UNFIT.format(tokens=len(unfit.token_ids)))
                if earlier:
                    beginning = unfit.token_ids[: earlier[-1].position + 1]
                    shorter.append((owner, Pass(beginning, tuple(earlier))))
            else:
                self.tokens_seen += sum(lengths[whole[place]] for place in batch)
        return shorter

    def _forward(self, batch: Sequence[Pass]) -> list[np.ndarray]:
        """Per pass a float32 array ``[reads, attributes]``."""
        # Padding stands on the right, where no token of a causal model can see it: no mask is needed,
        # and which token it is makes no difference. An encoder sees it, and is given a mask.
        token_ids = self._padded([one.token_ids for one in batch])
        mask = None
        if self._family.pair:
            lengths = np.array([len(one.token_ids) for one in batch])
            mask = self._on_device(np.arange(token_ids.shape[1]) < lengths[:, None]).long()
        hidden = self._hidden(token_ids, mask)
        rows = np.array([row for row, one in enumerate(batch) for _ in one.reads])
        return self._read_all(batch, lambda positions: hidden[rows, positions])

    def _read_all(
        self, batch: Sequence[Pass], states_at: Callable[[np.ndarray], torch.Tensor]
    ) -> list[np.ndarray]:
        """Per pass a float32 array ``[reads, attributes]``; ``states_at`` takes a position for each read."""
        reads = [read for one in batch for read in one.reads]
        states = states_at(np.array([read.position for read in reads]))
        if self._family.gated:
            states = torch.cat([states, states_at(np.array([read.gate for read in reads]))], dim=-1)
        scores = self._head(states).float().cpu().numpy()
        ends = np.cumsum([len(one.reads) for one in batch])
        return np.split(scores, ends[:-1])

    def _score_shared(
        self, passes: Sequence[Pass], lengths: Sequence[int], keep: Callable[[int, np.ndarray], None]
    ) -> list[int]:
        """Score the passes that are worth sharing a beginning; the others, to be put through whole."""
        if self.shares_no_beginnings_because is not None:
            return list(range(len(passes)))
        groups = sharing.shared_beginnings([one.token_ids for one in passes])
        whole = set(range(len(passes))).difference(*(group.members for group in groups))

        def forward(batch: list[sharing.Shared]) -> batching.Outcome:
            values = _unless_out_of_memory(lambda: self._forward_shared(passes, lengths, batch))
            if values is None:
                return batching.Outcome.OUT_OF_MEMORY
            for index, rows in values.items():
                keep(index, rows)
            return batching.Outcome.DONE

        cost = self._cached_token_cost
        for batch, outcome in sharing.run(groups, lengths, self._budget, forward, cached_token_cost=cost):
            for group in batch:
                if outcome is batching.Outcome.OUT_OF_MEMORY:
                    whole.update(group.members)
                else:
                    rests = sum(lengths[member] - group.tokens for member in group.members)
                    self.tokens_seen += group.tokens + rests
        return sorted(whole)

    def _forward_shared(
        self, passes: Sequence[Pass], lengths: Sequence[int], batch: Sequence[sharing.Shared]
    ) -> dict[int, np.ndarray]:
        """``[reads, attributes]`` of every member of every group, beginnings put through the model once."""
        begun = self._begin([passes[group.members[0]].token_ids[: group.tokens] for group in batch])
        values: dict[int, np.ndarray] = {}
        for rows in sharing.continuations(
            batch, lengths, max_tokens=self._budget.max_tokens, cached_token_cost=self._cached_token_cost
        ):
            members = [passes[row.member] for row in rows]
            starts = np.array([batch[row.beginning].tokens for row in rows])
            owners = np.array([row.beginning for row in rows])
            rests = [one.token_ids[start:] for one, start in zip(members, starts, strict=True)]
            hidden = begun.continued(self._on_device(owners), self._padded(rests))
            of_read = np.array([number for number, one in enumerate(members) for _ in one.reads])

            def states_at(
                positions: np.ndarray,
                hidden: torch.Tensor = hidden,
                of_read: np.ndarray = of_read,
                starts: np.ndarray = starts[of_read],
                owners: np.ndarray = owners[of_read],
            ) -> torch.Tensor:
                behind = positions >= starts
                states = hidden[of_read, np.where(behind, positions - starts, 0)]
                early = np.flatnonzero(~behind)
                states[early] = begun.hidden[owners[early], positions[early]]
                return states

            for row, scores in zip(rows, self._read_all(members, states_at), strict=True):
                values[row.member] = scores
        return values

    def _begin(self, beginnings: Sequence[np.ndarray]) -> continuing.Beginnings:
        lengths = np.array([len(ids) for ids in beginnings])
        return continuing.Beginnings(self._backbone, self._padded(beginnings), self._on_device(lengths))

    def _padded(self, sequences: Sequence[np.ndarray]) -> torch.Tensor:
        """``[sequences, time]`` int64 on the device, padded on the right."""
        token_ids = np.zeros((len(sequences), max(map(len, sequences))), dtype=np.int64)
        for row, ids in enumerate(sequences):
            token_ids[row, : len(ids)] = ids
        return self._on_device(token_ids)

    def _on_device(self, numbers: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(numbers).to(self._device)

    @property
    def batch_tokens(self) -> int:
        """Budgeted tokens of a batch, as ``batching.cost`` counts them."""
        return self._budget.max_tokens

    @batch_tokens.setter
    def batch_tokens(self, tokens: int) -> None:
        self._budget.max_tokens = tokens

    def _is_beyond_trained(self, rendered: Rendered) -> bool:
        trained = self.spec.trained_tokens
        return trained is not None and any(
            len(one.token_ids) + one.tokens_cut > trained for one in rendered.passes
        )

    @torch.inference_mode()
    def calibrate(self, *, ceiling: int) -> None:
        """Find the batch budget by putting growing batches through the model until memory runs out.

        Tried are rows of a usual length and one row as long as fits the budget or the model.
        """

        def fits(tokens: int) -> bool:
            usual = min(_TRIED_LENGTH, self.spec.max_tokens)
            longest = max(
                length
                for length in (usual, *range(usual, self.spec.max_tokens + 1, usual))
                if length == usual or batching.cost(1, length) <= tokens
            )
            shapes = ((max(1, tokens // batching.cost(1, usual)), usual), (1, longest))
            return all(self._fits(rows, length) for rows, length in shapes)

        self._budget.max_tokens = batching.largest_fitting(
            fits, first=self._budget.max_tokens, ceiling=ceiling
        )
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _fits(self, rows: int, length: int) -> bool:
        token_ids = torch.zeros((rows, length), dtype=torch.int64, device=self._device)
        mask = self._all_seen(token_ids)
        return _unless_out_of_memory(lambda: self._hidden(token_ids, mask)) is not None

    @torch.inference_mode()
    def last_scores_padded_left(self, requests: Sequence[Request]) -> list[TurnScore] | None:
        """The last requested turn of each, all in one batch that is padded on the left, with a mask.

        It is how other tools feed such models, and is here to be compared with. None for an encoder.
        """
        if self._family.pair:
            return None
        passes = [item.passes[-1] for item in self._renderer.render(requests)]
        longest = max(len(one.token_ids) for one in passes)
        padding = torch.tensor([longest - len(one.token_ids) for one in passes])
        token_ids = torch.zeros((len(passes), longest), dtype=torch.int64)
        for row, one in enumerate(passes):
            token_ids[row, int(padding[row]) :] = torch.from_numpy(one.token_ids)
        mask = (torch.arange(longest) >= padding[:, None]).long()
        hidden = self._backbone(
            input_ids=token_ids.to(self._device),
            attention_mask=mask.to(self._device),
            position_ids=(mask.cumsum(1) - 1).clamp(min=0).to(self._device),
            use_cache=False,
        ).last_hidden_state
        rows = torch.arange(len(passes))
        reads = [one.reads[-1] for one in passes]
        ends = padding + torch.tensor([read.position for read in reads])
        gates = padding + torch.tensor([read.gate or 0 for read in reads])
        values = self._read(hidden[rows, ends], hidden[rows, gates]).cpu().numpy()
        return [_outcome(row, one.tokens_cut) for row, one in zip(values, passes, strict=True)]

    def _hidden(self, token_ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Last hidden states ``[batch, time, hidden]``. An encoder's ``mask`` is 0 where padding is."""
        options = {"use_cache": False} if mask is None else {"attention_mask": mask}
        hidden: torch.Tensor = self._backbone(input_ids=token_ids, **options).last_hidden_state
        return hidden

    def _check_positions(self) -> None:
        """Raise ``ModelFault`` where a longer neighbour, or a later turn, would move a turn's positions.

        Such an embedding keeps its angles up to the length that it was stretched from.
        """
        config = self._model.config.get_text_config()
        rope = continuing.length_dependent_rope(config)
        if rope is None:
            return
        still = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        if self.spec.max_tokens > still:
            raise ModelFault(
                f"model {self.spec.name}: beyond {still} tokens its position embedding "
                f"({rope['rope_type']}) changes with the length of what it is shown, so a turn's score would "
                f"depend on what goes with it; --max-tokens {still} keeps below that"
            )

    @torch.inference_mode()
    def _check_against_transformers(self) -> None:
        """Compare with the model's own forward pass, and see that no score depends on what stands after it.

        Raises ``ModelFault`` where this engine would not give the numbers that the model's card means. A
        gated model has no forward pass of its own that may run; its head is held to its card by tests.
        """
        ids = self._ids_to_check_with()
        half = ids.shape[1] // 2
        position = 0 if self._family.pair else -1
        hidden = self._hidden(ids, self._all_seen(ids))
        ours = self._read(hidden[:, position], hidden[:, half])
        if ours.shape[1] != len(self.attributes):
            raise self._not_as_told(ours)
        theirs = heads.own_call(self.spec.family, self._model, ids)
        if theirs is not None:
            theirs = theirs.float()
            if ours.shape != theirs.shape:
                raise self._not_as_told(theirs)
            if not self._agree(ours, theirs):
                raise ModelFault(
                    f"model {self.spec.name}: this engine reads {ours.tolist()} where transformers itself "
                    f"gives {theirs.tolist()}; its head does more than one linear layer and is not supported"
                )
        begun = ids[:, :half]
        alone = self._hidden(begun, self._all_seen(begun))[:, position]
        if self._family.pair:
            mask = (torch.arange(ids.shape[1], device=self._device) < half).long()[None]
            followed, why = self._hidden(ids, mask)[:, 0], "a score depends on the padding after a text"
        else:
            followed = hidden[:, half - 1]
            why = "a position's state depends on what follows it, so it is no causal model"
        if not self._agree(self._read(followed, followed), self._read(alone, alone)):
            raise ModelFault(f"model {self.spec.name}: {why}; such models are not supported")

    @torch.inference_mode()
    def _why_no_sharing(self) -> str | None:
        """The reason why beginnings are not shared: the kind of model, or scores that come out otherwise.

        Tries two beginnings of unequal length in one batch, and rests of unequal length behind them.
        """
        if self._family.pair:
            return "an encoder reads both ways"
        reason = continuing.why_not(self._backbone)
        if reason is not None:
            return reason
        (ids,) = self._ids_to_check_with().cpu().numpy()
        starts, owners = [len(ids) // 2, len(ids) // 4], [0, 1, 1]
        ends = [len(ids), len(ids), len(ids) * 3 // 8]
        begun = self._begin([ids[:start] for start in starts])
        rests = [ids[starts[owner] : end] for owner, end in zip(owners, ends, strict=True)]
        hidden = begun.continued(self._on_device(np.array(owners)), self._padded(rests))
        for row, (rest, end) in enumerate(zip(rests, ends, strict=True)):
            ours = hidden[row, len(rest) - 1][None]
            whole = self._hidden(self._padded([ids[:end]]))[:, -1]
            if not self._agree(self._read(ours, ours), self._read(whole, whole)):
                return "a sequence that continues a beginning is scored otherwise than whole"
        config = self._model.config.get_text_config()
        # A pass holds, for a token, about two rows of its MLP and four of the model's width at a time.
        width = config.hidden_size
        working = 2 * getattr(config, "intermediate_size", 4 * width) + 4 * width
        self._cached_token_cost = begun.values_a_token / working
        return None

    def _ids_to_check_with(self) -> torch.Tensor:
        """``[1, 32]`` different token ids, none of them the padding token, the appended token last."""
        text_config = self._model.config.get_text_config()
        drawn = np.random.default_rng(0).permutation(min(text_config.vocab_size, 4096))[:33]
        pad = text_config.pad_token_id
        ids = drawn[drawn != (-1 if pad is None else pad)][:32].astype(np.int64)
        if self.spec.appended_token_id is not None:
            ids[-1] = self.spec.appended_token_id
        return torch.from_numpy(ids[None]).to(self._device)

    def _all_seen(self, ids: torch.Tensor) -> torch.Tensor | None:
        return torch.ones_like(ids) if self._family.pair else None

    def _read(self, states: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """``[rows, attributes]`` from ``[rows, hidden]`` states; a gated family also reads ``gates``."""
        return self._head(torch.cat([states, gates], dim=-1) if self._family.gated else states).float()

    def _not_as_told(self, numbers: torch.Tensor) -> ModelFault:
        return ModelFault(
            f"model {self.spec.name}: it gives {numbers.shape[-1]} numbers, {len(self.attributes)} are "
            f"expected ({', '.join(self.attributes)})"
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
        model = LocalRewardModel(spec, device="cuda")
        model.calibrate(ceiling=CUDA_MOST_BATCH_TOKENS)
    else:
        torch.set_num_threads(1)
        allocation.keep_freed_memory()
        model = LocalRewardModel(spec)
    _check_unchanged(spec)
    return model


def _check_unchanged(spec: ModelSpec) -> None:
    """Raise ``ModelFault`` where the folder does not hold what ``spec`` was made from.

    Asked after loading: the folder may have been written to since the run began, and on another machine
    the same path, or the libraries, may be others.
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
    )
    if found != spec.fingerprint:
        raise ModelFault(
            f"model {spec.name}: {spec.folder} on {socket.gethostname()} is not what the run began with: "
            "other files, or another version of transformers or tokenizers. Scores would be kept under "
            "the wrong model's name; run again once it is the same everywhere"
        )


def _unless_out_of_memory(work: Callable[[], Worked]) -> Worked | None:
    """What ``work`` gives, None where memory did not suffice for it.

    Raises ``DeviceLost`` for any other error of CUDA: it is sticky, every later call would raise it too.
    """
    try:
        return work()
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:
        told = str(error)
        if _CPU_ALLOCATOR in told or (_CUDA_ERROR in told and "out of memory" in told):
            return None
        if _CUDA_ERROR in told:
            first_line = told.partition("\n")[0]
            raise DeviceLost(f"the GPU is lost to this process: {first_line}") from error
        raise


def _renderer(spec: ModelSpec, family: families.Family) -> Renderer | PairRenderer:
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        spec.folder, local_files_only=True, trust_remote_code=spec.remote_code
    )
    if family.pair:
        return PairRenderer(tokenizer, max_tokens=spec.max_tokens, over_length=spec.over_length)
    return Renderer(
        tokenizer,
        max_tokens=spec.max_tokens,
        over_length=spec.over_length,
        appended_token_id=spec.appended_token_id,
        gated=family.gated,
    )


def _load(spec: ModelSpec, device: torch.device) -> Any:
    """The model on its device, or laid over several where the spec has a device map."""
    kind: Any = getattr(transformers, families.FAMILIES[spec.family].auto_class)
    options: dict[str, Any] = {
        "dtype": getattr(torch, spec.dtype),
        "local_files_only": True,
        "trust_remote_code": spec.remote_code,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    if spec.device_map is not None:
        options["device_map"] = spec.device_map
    try:
        model, info = kind.from_pretrained(spec.folder, **options)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ModelFault(f"model {spec.name}: {' '.join(str(error).split())}") from error
    missing = [*info.get("missing_keys", ()), *info.get("mismatched_keys", ())]
    if missing:
        raise ModelFault(
            f"model {spec.name}: its weights lack {', '.join(map(str, sorted(missing)[:3]))}; "
            "transformers would fill them with random numbers, and every score would be noise"
        )
    return model if spec.device_map is not None else model.to(device)


def _outcome(row: np.ndarray, tokens_cut: int) -> TurnScore:
    values = tuple(float(value) for value in row)
    if all(math.isfinite(value) for value in values):
        return TurnScore(values, tokens_cut=tokens_cut)
    return TurnScore(None, f"not_finite: the model gave {values}", tokens_cut)
