"""Several models of one run: their names, and options that are for one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assay.config.options import RunOptions, options_from, read_config_file
from assay.core.errors import UserMistake
from flows.command.curate import CommandOptions
from flows.command.options import parse

REQUIRED = {"input": ["a.jsonl"], "output": "out"}


def typed(*arguments: str) -> RunOptions:
    words = ["--input", "a.jsonl", "--output", "out", *arguments]
    return parse(CommandOptions, words, program="assay curate", summary="", examples="").of_the_run()


def test_each_of_several_models_has_its_own_options_and_those_for_all() -> None:
    options = typed(
        *("--model", "judge=/models/a=b", "--model", "safety=team/guard"),
        *("--dtype", "judge:bfloat16", "--max-tokens", "512", "--max-tokens", "safety:128"),
        *("--revision", "safety:v2", "--over-length", "left-truncate", "--family", "judge:appended-token"),
        *("--attributes", "judge:helpfulness", "judge:depth", "--weights", "judge:depth=0.5"),
    )
    judge, safety = options.chosen_models()
    assert (judge.alias, judge.name) == ("judge", "/models/a=b")
    assert (safety.alias, safety.name) == ("safety", "team/guard")
    assert (judge.options.dtype, safety.options.dtype) == ("bfloat16", None)
    assert (judge.options.max_tokens, safety.options.max_tokens) == (512, 128)
    assert (judge.options.revision, safety.options.revision) == (None, "v2")
    assert (judge.options.over_length, safety.options.over_length) == ("left-truncate", "left-truncate")
    assert (judge.options.attributes, safety.options.attributes) == (("helpfulness", "depth"), ())
    assert (judge.options.family, safety.options.family) == ("appended-token", None)
    assert (judge.options.factors, safety.options.factors) == ({"depth": 0.5}, None)


def test_one_model_needs_no_name_and_options_stay_as_they_were() -> None:
    options = typed("--model", "starter", "--dtype", "float32", "--dtype", "bfloat16", "--max-tokens", "9")
    (one,) = options.chosen_models()
    assert (one.alias, one.name, one.options.dtype, one.options.max_tokens) == (
        None,
        "starter",
        "bfloat16",
        9,
    )
    assert options.model_dump(mode="json")["model"] == "starter"
    assert RunOptions.model_validate(REQUIRED).model == "starter"


def test_one_model_may_have_a_name_and_a_folder_may_look_like_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert typed("--model", "judge=x").chosen_models()[0].alias == "judge"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1e-5").mkdir()
    (one,) = typed("--model", "lr=1e-5").chosen_models()
    assert (one.alias, one.name) == (None, "lr=1e-5")
    assert typed("--model", "runs/lr=1e-5/last").chosen_models()[0].name == "runs/lr=1e-5/last"


def test_a_file_names_several_models_too(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "input: a.jsonl\noutput: out\nmodel: [judge=a, safety=b]\ndtype: [judge:bfloat16, float32]\n"
    )
    options = options_from(RunOptions, typed={}, filed=read_config_file(str(file), RunOptions))
    assert [one.options.dtype for one in options.chosen_models()] == ["bfloat16", "float32"]
    assert RunOptions.model_validate(options.model_dump(mode="json")) == options


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": ["a", "b"]}, "needs a name of its own, such as --model judge=a"),
        ({"model": ["judge=a", "b"]}, "--model b: of several models each needs a name"),
        ({"model": ["judge=a", "judge=b"]}, "another model is called judge already"),
        (
            {"model": ["judge=a", "safety=b"], "dtype": "jugde:float32"},
            "is called jugde; did you mean 'judge'",
        ),
        (
            {"model": ["judge=a", "safety=b"], "dtype": "judge:float8"},
            "--dtype 'float8': should be 'float32'",
        ),
        ({"model": ["judge=a", "safety=b"], "max_tokens": "safety:0"}, "--max-tokens '0'"),
        ({"model": "starter", "max_tokens": "judge:9"}, "--max-tokens"),
    ],
)
def test_a_name_or_a_value_that_no_model_takes_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserMistake) as caught:
        options_from(RunOptions, typed=REQUIRED | given).chosen_models()
    assert words in str(caught.value)
