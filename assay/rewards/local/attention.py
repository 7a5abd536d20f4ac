"""Which of CUDA's attention kernels torch chooses among."""

from __future__ import annotations

import torch


def use_cudnn(use: bool) -> None:
    """Let torch choose cuDNN's attention in this process, or forbid it.

    On Hopper and later torch prefers it (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp). It makes a
    plan for every new shape, which others measured at 23 to 37 ms of the host's time, keeps each for as
    long as the process lives (aten/src/ATen/native/cudnn/MHA.cpp), and was seen to fail for some shapes
    (github.com/pytorch/pytorch/issues/190321). A run has hundreds of shapes, and FlashAttention serves them
    all. For shapes seen before, cuDNN's was 2 to 7% faster on an H100 (docs/benchmarks.md).
    """
    torch.backends.cuda.enable_cudnn_sdp(use)
