"""A reward model's layers on their device: token ids in, hidden states and scores out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import safetensors
import torch
import transformers

# transformers imports these only when it makes a model: see ``assay.score.open_model._imported``.
import transformers.generation.utils
import transformers.modeling_layers
import transformers.modeling_utils

from assay.core.errors import ModelFault
from assay.rewards import families
from assay.rewards.local import built_heads, continuing, heads, merging, unread
from assay.rewards.spec import LocalSpec


class Network:
    """A loaded model. It knows nothing of conversations."""

    def __init__(self, spec: LocalSpec, device: torch.device, *, loaded: Any = None) -> None:
        """``loaded``: a model of transformers to be used in place of the one in the spec's folder."""
        self.spec = spec
        self.family = families.FAMILIES[spec.family]
        self.device = device
        self.model = (_load(spec, device) if loaded is None else loaded).eval()
        self.backbone = self.model.base_model
        self._head = heads.HEADS[spec.family](self.model, spec)

    @property
    def text_config(self) -> Any:
        """The part of the model's config.json that is about text."""
        return self.model.config.get_text_config()

    @property
    def vocabulary(self) -> int:
        """Token ids that it has states for."""
        count: int = self.model.get_input_embeddings().num_embeddings
        return count

    @property
    def device_name(self) -> str:
        """What it computes on, such as ``CPU``, or ``GPU 2 (NVIDIA H100 80GB HBM3)``."""
        if self.device.type != "cuda":
            return self.device.type.upper()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or str(torch.cuda.current_device())
        # A worker of a group has them all to itself; any other sees its own GPU first.
        own = visible if self.spec.device_map is not None else visible.partition(",")[0]
        return f"GPU {own} ({torch.cuda.get_device_name()})"

    def hidden(self, token_ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Last hidden states ``[batch, time, hidden]``. An encoder's ``mask`` is 0 where padding is."""
        options = {"use_cache": False} if mask is None else {"attention_mask": mask}
        hidden: torch.Tensor = self.backbone(input_ids=token_ids, **options).last_hidden_state
        return hidden

    def read(self, states: torch.Tensor, gates: torch.Tensor | None = None) -> torch.Tensor:
        """float32 ``[rows, attributes]`` from ``[rows, hidden]``; a gated family also reads ``gates``."""
        if self.family.gated:
            assert gates is not None
            states = torch.cat([states, gates], dim=-1)
        return self._head(states).float()

    def begin(self, beginnings: Sequence[np.ndarray]) -> continuing.Beginnings:
        """The beginnings put through the model, their keys and values kept."""
        lengths = np.array([len(ids) for ids in beginnings])
        return continuing.Beginnings(self.backbone, self.padded(beginnings), self.on_device(lengths))

    def padded(self, sequences: Sequence[np.ndarray]) -> torch.Tensor:
        """``[sequences, time]`` int64 on the device, padded on the right."""
        token_ids = np.zeros((len(sequences), max(map(len, sequences))), dtype=np.int64)
        for row, ids in enumerate(sequences):
            token_ids[row, : len(ids)] = ids
        return self.on_device(token_ids)

    def on_device(self, numbers: np.ndarray) -> torch.Tensor:
        """The same numbers where the model takes its token ids."""
        return placed(numbers, self.device)

    def all_seen(self, token_ids: torch.Tensor) -> torch.Tensor | None:
        """The mask for sequences without padding; None for a causal model, which takes none."""
        return torch.ones_like(token_ids) if self.family.pair else None


def placed(numbers: np.ndarray, device: torch.device) -> torch.Tensor:
    """The same numbers, there. Nobody waits: out of pinned memory they go while the device computes."""
    tensor = torch.from_numpy(numbers)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


#: What code that was written for another version of a library comes to.
_MISTAKES = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


@contextmanager
def code_of_its_own(spec: LocalSpec) -> Iterator[None]:
    """Within, what the code of the model's repository raises is a ``ModelFault``, if it may run at all."""
    try:
        yield
    except _MISTAKES as error:
        if not spec.remote_code:
            raise
        raise ModelFault(
            f"model {spec.name}: the code of its repository fails with transformers "
            f"{transformers.__version__}: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


def _check_places(spec: LocalSpec, places: Mapping[str, object]) -> None:
    """Raise ``ModelFault`` where a part of the model lies on no GPU; ``places`` are accelerate's."""
    elsewhere = {"cpu", "disk"} & {str(place) for place in places.values()}
    if elsewhere:
        raise ModelFault(
            f"model {spec.name}: the GPUs that a worker has do not hold it, and parts of it would lie on "
            f"{' and '.join(sorted(elsewhere))}; give it more with ASSAY_GPUS_PER_MODEL"
        )


def _load(spec: LocalSpec, device: torch.device) -> Any:
    """The model on its device, or laid over several where the spec has a device map."""
    kind: Any = getattr(transformers, _auto_class(spec))
    options: dict[str, Any] = {
        "dtype": getattr(torch, spec.dtype),
        "local_files_only": True,
        "trust_remote_code": spec.remote_code,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    if spec.adapter is not None and spec.family == families.SEQUENCE_CLASSIFICATION:
        options["num_labels"] = len(spec.attributes)
    if (config := _config_of_another_name(spec)) is not None:
        options["config"] = config
    elif _pads_with_no_token(spec):
        options["pad_token_id"] = None
    if spec.device_map is not None:
        options["device_map"] = spec.device_map
    try:
        with code_of_its_own(spec):
            model, info = kind.from_pretrained(spec.folder, **options)
        model = model if spec.device_map is not None else model.to(device)
    except safetensors.SafetensorError as error:
        raise ModelFault(
            f"model {spec.name}: its weights in {spec.folder} are no whole safetensors ({error}); "
            "fetch them anew"
        ) from error
    except (OSError, ArithmeticError, *_MISTAKES) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise ModelFault(f"model {spec.name}: {what}") from error
    if device.type == "cuda":
        _check_places(spec, getattr(model, "hf_device_map", {}))
    missing = [*info.get("missing_keys", ()), *info.get("mismatched_keys", ())]
    if spec.adapter is not None:
        of_adapter = merging.tensors_of(spec)
        missing = [name for name in missing if str(name) not in of_adapter]
    if missing:
        raise ModelFault(
            f"model {spec.name}: its weights lack {', '.join(map(str, sorted(missing)[:3]))}; "
            "transformers would fill them with random numbers, and every score would be noise"
        )
    not_taken, head_files = _not_taken(spec, info)
    unread.check_all_taken(spec, not_taken, frozenset() if spec.adapter else head_files)
    return model if spec.adapter is None else merging.merged(model, spec)


def _auto_class(spec: LocalSpec) -> str:
    """The class of transformers that loads it: an adapter's tensors have the names of a whole model."""
    if spec.adapter is not None and spec.family in families.BY_TENSORS:
        return "AutoModelForCausalLM"
    return families.FAMILIES[spec.family].auto_class


def _not_taken(spec: LocalSpec, info: Mapping[str, Any]) -> tuple[set[str], frozenset[str]]:
    """The tensors that transformers had no layer for, without those that a built head accounts for, and the
    files that this head is read from."""
    names = set(map(str, info.get("unexpected_keys", ())))
    if spec.family in families.BY_TENSORS:
        head = built_heads.weights_head(spec)
        return {name for name in names if not head.holds(name)}, head.files
    if families.FAMILIES[spec.family].head_from_weights:
        return {name for name in names if name.startswith(built_heads.BACKBONE)}, frozenset()
    return names, frozenset()


#: Types of models in config.json that only code of their repositories knows → the type of transformers that
#: has the same fields: Qwen2RMConfig, of Qwen2.5-Math-RM and WorldPM, is Qwen2Config with another name (vLLM
#: loads these models as Qwen2: models/qwen2_rm.py).
_SAME_TYPE = {"qwen2_rm": "qwen2"}


def _config_of_another_name(spec: LocalSpec) -> Any:
    """The model's configuration as transformers knows it by another name; None where it needs no other."""
    settings = transformers.PreTrainedConfig.get_config_dict(spec.folder, local_files_only=True)[0]
    same = _SAME_TYPE.get(str(settings.get("model_type")))
    if same is None:
        return None
    kept = {name: value for name, value in settings.items() if name not in ("model_type", "auto_map")}
    if _pads_with_no_token(spec):
        kept["pad_token_id"] = None
    return transformers.AutoConfig.for_model(same, **kept)


def _pads_with_no_token(spec: LocalSpec) -> bool:
    """Whether config.json names a padding token that its embedding does not hold. None is needed here."""
    config = transformers.PreTrainedConfig.get_config_dict(spec.folder, local_files_only=True)[0]
    pad, count = config.get("pad_token_id"), config.get("vocab_size")
    return isinstance(pad, int) and isinstance(count, int) and pad >= count
