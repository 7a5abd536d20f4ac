"""The real loaders' environments: ``make test-loaders`` builds one each in ``.loaders``.

python tests/loaders/venvs.py [NAME …]
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".loaders"

#: What pip is given, one command after the other. Several loaders' own requirements name CUDA packages that
#: their readers of data do not need: these come without dependencies, and what they do need beside them.
COMMANDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "datasets4": (("datasets==4.0.0",),),
    "datasets5": (("datasets>=5,<6",),),
    "trl": (("torch==2.13.0", "trl==1.16.0"),),
    "axolotl": (
        ("torch==2.13.0", "transformers>=5,<6", "datasets>=4", "pydantic>=2", "pyyaml", "addict", "colorama"),
        ("--no-deps", "axolotl==0.19.0"),
    ),
    "openrlhf": (
        ("torch==2.13.0", "transformers>=5,<6", "datasets>=4", "pylatexenc", "tqdm"),
        ("--no-deps", "openrlhf==0.11.2"),
    ),
    "llamafactory": (
        (
            "torch==2.13.0",
            "transformers>=5,<5.6",
            "datasets==4.0.0",
            "accelerate==1.11.0",
            "peft==0.18.1",
            "trl==0.24.0",
            "omegaconf",
            "tyro<0.9",
            "einops",
            "sentencepiece",
            "tiktoken",
            "protobuf",
        ),
        ("--no-deps", "llamafactory==0.9.5"),
    ),
    "verl": (
        (
            "torch==2.13.0",
            "transformers>=5,<5.6",
            "datasets==4.0.0",
            "pandas",
            "omegaconf",
            "hydra-core",
            "accelerate",
            "codetiming",
            "orjson",
            "pyvers",
            "cloudpickle",
            "pillow",
            "msgpack",
            "jsonschema",
            "click",
            "importlib_metadata",
        ),
        ("--no-deps", "verl==0.9.1", "ray", "tensordict<=0.10.0"),
    ),
}


def python_of(name: str) -> Path:
    """The interpreter of a loader's environment."""
    return FOLDER / name / "bin" / "python"


def build(name: str) -> None:
    """Build the environment, unless it was built whole before."""
    done = FOLDER / name / "built"
    if done.exists():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER / name)], check=True)
    for arguments in COMMANDS[name]:
        command = [str(python_of(name)), "-m", "pip", "install", "--quiet", *arguments]
        subprocess.run(command, check=True)
    done.touch()


def main(names: Sequence[str]) -> None:
    """Build the environments of these loaders; of all, where none is named."""
    for name in names or COMMANDS:
        print(f"{name} …", flush=True)
        build(name)


if __name__ == "__main__":
    main(sys.argv[1:])
