"""A tokenizer, and a model's settings, out of files that are a stranger's."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import tiny

from assay.core.errors import ModelFault, UserMistake
from assay.rewards.local.model import LocalRewardModel


def nested(folder: Path, name: str, depth: int) -> Path:
    """A copy of the model's folder in which that file holds lists within lists."""
    copy = folder.with_name(f"{name} {depth}")
    shutil.copytree(folder, copy)
    content = (copy / name).read_text() if (copy / name).exists() else "{}"
    inner = '"deep": ' + "[" * depth + "]" * depth + "}"
    (copy / name).write_text(content.rstrip()[:-1] + ("," if len(content) > 2 else "") + inner)
    return copy


NESTED = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


@pytest.mark.parametrize("name", NESTED)
def test_a_file_that_is_nested_deep_is_reported_in_a_line(tmp_path: Path, name: str) -> None:
    folder = nested(tiny.reward_model(tmp_path / "model"), name, 100_000)
    with pytest.raises((UserMistake, ModelFault)) as caught:
        LocalRewardModel(tiny.spec(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "recursion" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "KeyError: 'added_tokens'"),
        ("[]", "the tokenizer in"),
        ('{"model": {"type": "No such model"}, "added_tokens": []}', "the tokenizer in"),
        ("no JSON", "JSONDecodeError"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_reported_in_a_line(tmp_path: Path, content: str, words: str) -> None:
    folder = tiny.reward_model(tmp_path / "model")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelFault) as caught:
        LocalRewardModel(tiny.spec(folder))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "auto_map", ["nonsense", {"AutoTokenizer": ["theirs.Theirs", None]}, [1], {"AutoTokenizer": 7}]
)
def test_a_tokenizers_own_code_does_not_run(tmp_path: Path, auto_map: object) -> None:
    folder = tiny.reward_model(tmp_path / "model")
    path = folder / "tokenizer_config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "auto_map": auto_map, "tokenizer_class": "Theirs"})
    )
    (folder / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Theirs: pass\n")
    # Where transformers cannot make sense of it, that is a line; else it takes tokenizer.json as it is.
    with pytest.raises(ModelFault, match="tokenizer in") if isinstance(auto_map, str) else nullcontext():
        LocalRewardModel(tiny.spec(folder))
    assert not (tmp_path / "ran").exists()
