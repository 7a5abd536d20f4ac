"""A tokenizer from a folder, whatever lies there."""

from __future__ import annotations

from typing import Any

from assay.core.errors import ModelFault


def load(folder: str, *, whose: str, remote_code: bool = False) -> Any:
    """The tokenizer of transformers in that folder; ``ModelFault``, which names ``whose``, where none can be.

    Its files are a stranger's. Read in whatever way, they make transformers raise whatever it comes to, and
    ``tokenizers`` either an ``Exception`` of no further kind or a panic, which is none.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    try:
        return transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=remote_code
        )
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        what = f"the tokenizer in {folder} cannot be loaded"
        if remote_code:
            what = f"the code of its repository fails with transformers {transformers.__version__}, or {what}"
        raise ModelFault(
            f"{whose}: {what}: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
        ) from error
