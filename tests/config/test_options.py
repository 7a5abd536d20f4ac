"""A run's options have one definition, and a message names what is wrong and where."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from assay.config.options import ModelChoice, RunOptions, ScoringChoice, options_from, read_config_file
from assay.config.settings import Settings
from assay.config.verify_options import VerifyOptions
from assay.config.yaml_text import parsed_yaml
from assay.core.errors import UserMistake
from assay.export import EXPORTS
from assay.read.formats import FORMATS
from assay.rewards.options import ModelOptions
from assay.storage.home import Home

REQUIRED = {"input": ["a.jsonl"], "output": "out"}


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(**typed: object) -> str:
    with pytest.raises(UserMistake) as refused:
        options_from(RunOptions, typed={**REQUIRED, **typed})
    return str(refused.value)


def test_what_is_typed_overrides_the_config_file() -> None:
    filed = {"input": ["file.jsonl"], "output": "filed", "model": "filed", "strict": True}
    options = options_from(RunOptions, typed={"output": "typed", "strict": False}, filed=filed)
    assert (options.output, options.model, options.input) == ("typed", "filed", ["file.jsonl"])
    assert not options.strict


def test_one_value_stands_for_a_list_of_one(tmp_path: Path) -> None:
    path = written(tmp_path, "input: a.jsonl\noutput: out\nkeep: helpfulness > 2\nexport: messages\n")
    options = options_from(RunOptions, typed={}, filed=read_config_file(path, RunOptions))
    assert options.input == ["a.jsonl"]
    assert options.keep == ["helpfulness > 2"]
    assert options.export == ["messages"]


def test_a_config_key_may_be_spelled_like_the_option(tmp_path: Path) -> None:
    assert read_config_file(written(tmp_path, "shard-tokens: 9\n"), RunOptions) == {"shard_tokens": 9}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("outputt: x\n", "unknown option 'outputt'; did you mean 'output'?"),
        ("home: /elsewhere\n", "unknown option 'home'"),
        ("- a\n- b\n", "has no options"),
        ("input: [a\n", ":2: not YAML"),
        ("shard-tokens: 1\nshard_tokens: 2\n", "'shard_tokens' is given twice"),
        pytest.param("input:\n " + "- " * 50_000, "nested too deep", id="50,000 dashes"),
        pytest.param("input: " + "[" * 50_000 + "]" * 50_000, "nested too deep", id="50,000 brackets"),
        pytest.param("output: x\nlimit: " + "9" * 5000, ":2: not YAML: not a valid 'int'", id="5,000 digits"),
        pytest.param("limit: 0x" + "f" * 5000, ":1: not YAML: not a valid 'int'", id="20,000 bits"),
        pytest.param("? 0x" + "f" * 5000 + "\n: 1", "not YAML: not a valid 'int'", id="a long key"),
        ("output: 2026-13-45", ":1: not YAML: not a valid 'timestamp': month must be in 1..12"),
        ("strict: !!bool maybe", ":1: not YAML: not a valid 'bool'"),
        ("limit: !!int ''", ":1: not YAML: not a valid 'int'"),
        ("output: !!timestamp soon", ":1: not YAML: not a valid 'timestamp'"),
        ("model: a\0b", "not YAML: unacceptable character"),
        ("3: x", "unknown option 3"),
    ],
)
def test_a_wrong_config_file_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserMistake) as refused:
        read_config_file(path, RunOptions)
    assert path in str(refused.value)
    assert said in str(refused.value)


def test_a_missing_config_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=r"absent\.yaml: the config file cannot be read: No such file"):
        read_config_file(str(tmp_path / "absent.yaml"), RunOptions)


def test_a_yaml_tag_runs_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = written(tmp_path, f"output: !!python/object/apply:os.system ['touch {canary}']\n")
    with pytest.raises(UserMistake, match="not YAML"):
        read_config_file(path, RunOptions)
    assert not canary.exists()


def test_a_wrong_value_is_reported_with_its_option() -> None:
    assert refusal(limit="0") == "--limit '0': should be greater than or equal to 1"
    assert refusal(workers="many") == "--workers 'many': should be a valid integer"
    assert refusal(stop_after="filter") == "--stop-after 'filter': should be 'convert' or 'score'"
    assert refusal(format="shargpt").endswith("did you mean 'sharegpt'?")
    assert refusal(export=["steerml"]).endswith("did you mean 'steerlm'?")


@pytest.mark.parametrize("given", [{"input": ["caf\udce9"]}, {"output": "caf\udce9"}])
def test_bytes_that_are_no_text_are_refused(given: dict[str, Any]) -> None:
    (option,) = given
    assert refusal(**given) == f"--{option} 'caf\\udce9': is not UTF-8. Rename the file"


def test_a_wrong_value_in_a_file_is_reported_with_the_file() -> None:
    with pytest.raises(UserMistake, match=r"^run\.yaml: limit 'x': should be a valid integer$"):
        options_from(RunOptions, typed=REQUIRED, filed={"limit": "x"}, config_file="run.yaml")


def test_a_value_that_would_fill_the_screen_is_reported_in_short(tmp_path: Path) -> None:
    aliases = "".join(
        f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
        for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
    )
    found = parsed_yaml(f"a: &a [{','.join('x' * 9)}]\n{aliases}")
    assert isinstance(found, dict)
    for value in (found["k"], parsed_yaml("&a [*a]"), "x" * 100_000):
        with pytest.raises(UserMistake) as refused:
            options_from(RunOptions, typed=REQUIRED, filed={"limit": value}, config_file="run.yaml")
        assert len(str(refused.value)) < 2000


@pytest.mark.parametrize(("text", "said"), [('"a\\0b"', "holds a NUL"), ('"\\ud800"', "is not UTF-8")])
def test_a_name_that_no_file_can_have_is_refused_in_a_file_too(tmp_path: Path, text: str, said: str) -> None:
    filed = read_config_file(written(tmp_path, f"output: {text}\n"), RunOptions)
    with pytest.raises(UserMistake, match=f"^run.yaml: output .*{said}"):
        options_from(RunOptions, typed={"input": ["a"]}, filed=filed, config_file="run.yaml")


def test_a_number_that_counts_nothing_is_refused() -> None:
    assert refusal(limit="9" * 30).endswith("should be less than or equal to 1000000000000")
    message = refusal(limit="9" * 5000)
    assert "exceeded maximum size" in message
    assert len(message) < 500


def test_a_missing_option_is_named() -> None:
    with pytest.raises(UserMistake, match=r"^--output is required"):
        options_from(RunOptions, typed={"input": ["a"]})


def test_prefects_form_says_of_every_option_what_it_is() -> None:
    schema = RunOptions.model_json_schema()
    group = schema["properties"]["advanced"]["properties"]
    for name, field in {**schema["properties"], **group}.items():
        assert field.get("title"), name
        assert field.get("description"), name
        assert name in schema["required"] or "default" in field, name
    assert group["format"]["enum"] == ["auto", *FORMATS]
    assert schema["properties"]["export"]["items"]["enum"] == list(EXPORTS)
    assert schema["properties"]["export"]["default"] == []


def test_what_may_be_chosen_of_a_model_is_defined_once_for_all_commands() -> None:
    for name, field in ModelChoice.model_fields.items():
        if name != "model":  # verify takes it without its option too, and curate takes several
            assert repr(VerifyOptions.model_fields[name]) == repr(field), name
    for name, field in ScoringChoice.model_fields.items():
        if name != "model":
            several = RunOptions.model_fields[name]
            assert (several.title, several.description) == (field.title, field.description), name
            assert several.default == field.default, name


def test_options_come_in_the_order_of_what_they_are_about() -> None:
    data = ["input", "output", "release", "format", "map", "map_role", "limit", "export", "verify_inputs"]
    assert list(RunOptions.model_fields)[: len(data)] == data
    choice = list(ModelChoice.model_fields)
    assert list(RunOptions.model_fields)[len(data) :][: len(choice)] == choice
    assert list(VerifyOptions.model_fields)[: len(choice)] == choice


def of_one_model(options: RunOptions) -> ModelOptions:
    (chosen,) = options.chosen_models()
    return chosen.options


def test_every_option_of_a_model_reaches_it() -> None:
    chosen: dict[str, Any] = {
        "dtype": "bfloat16",
        "revision": "v2",
        "known_as": "nvidia/Qwen-2.5-Nemotron-32B-Reward",
        "family": "first-token-logit",
        "read_at": "transformers",
        "add_bos": False,
        "attributes": ("helpfulness", "depth"),
        "max_tokens": 512,
        "over_length": "left-truncate",
        "factors": {"helpfulness": 0.5},
    }
    asked_as = {"factors": "weights", "known_as": "as_"}
    given = {asked_as.get(name, name): value for name, value in chosen.items()}
    given["weights"] = ["helpfulness=0.5"]
    assert asdict(of_one_model(RunOptions.model_validate(REQUIRED | given))) == chosen
    reading = {name: given[name] for name in VerifyOptions.model_fields if name in given}
    meant = {name: chosen[name] for name in chosen if asked_as.get(name, name) in reading}
    expected = ModelOptions(**meant)
    assert VerifyOptions.model_validate({"model": "starter"} | reading).of_the_model() == expected
    assert of_one_model(RunOptions.model_validate(REQUIRED)) == ModelOptions()


@pytest.mark.parametrize(
    ("field", "words"),
    [("dtype", "float32, bfloat16, float16"), ("read_at", "last-token, transformers")],
)
def test_a_word_that_is_no_choice_is_refused_wherever_it_comes_from(field: str, words: str) -> None:
    option = "--" + field.replace("_", "-")
    unchecked: dict[str, Any] = {field: "int8"}
    with pytest.raises(UserMistake, match=f"^{option} int8: choose one of {words}$"):
        ModelOptions(**unchecked)


def test_no_run_can_choose_what_is_the_operators() -> None:
    assert not set(RunOptions.model_fields) & set(Settings.model_fields)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASSAY_HOME", "relative/home")
    monkeypatch.setenv("ASSAY_SCHEDULER_ADDRESS", "tls://host:8786")
    settings = Settings.read()
    assert settings.home == tmp_path / "relative/home"
    assert settings.scheduler_address == "tls://host:8786"
    assert settings.trust_remote_code is False


def test_a_setting_that_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASSAY_HOME", raising=False)
    usual = Settings.read().home
    monkeypatch.setenv("ASSAY_HOME", "")
    assert Settings.read().home == usual != Path.cwd()


def test_settings_come_from_a_file_that_the_environment_overrides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "assay.env"
    file.write_text(f"ASSAY_HOME={tmp_path}\nASSAY_SERVER_START_SECONDS=7\nOTHER=1\n")
    monkeypatch.setenv("ASSAY_SETTINGS_FILE", str(file))
    monkeypatch.setenv("ASSAY_SERVER_START_SECONDS", "9")
    settings = Settings.read()
    assert settings.home == tmp_path
    assert settings.server_start_seconds == 9


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ASSAY_SERVER_START_SECONDS", "soon", "ASSAY_SERVER_START_SECONDS 'soon': should be a valid number"),
        (
            "ASSAY_SCORE_STORE",
            "/srv/scores",
            "ASSAY_SCORE_STORE '/srv/scores': is not of the form s3://BUCKET/PREFIX",
        ),
        ("ASSAY_ARTIFACTS", "s3://", "ASSAY_ARTIFACTS 's3://': is not of the form s3://BUCKET/PREFIX"),
        ("ASSAY_SETTINGS_FILE", "/absent", "ASSAY_SETTINGS_FILE: there is no file /absent"),
    ],
)
def test_a_wrong_setting_is_reported_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserMistake) as refused:
        Settings.read()
    assert str(refused.value).startswith(said)


def test_a_score_store_on_s3_goes_with_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path))
    monkeypatch.setenv("ASSAY_SCORE_STORE", "s3://team/scores")
    assert Settings.read().opened_home() == Home(tmp_path, "s3://team/scores")
    monkeypatch.setenv("ASSAY_ARTIFACTS", "s3://team/stages")
    assert Settings.read().opened_home() == Home(tmp_path, "s3://team/scores", "s3://team/stages")
    monkeypatch.setenv("ASSAY_SCORE_STORE", "")
    monkeypatch.setenv("ASSAY_ARTIFACTS", "")
    assert Settings.read().opened_home() == Home(tmp_path)


def test_a_new_home_is_private(tmp_path: Path) -> None:
    opened = Settings.model_construct(home=tmp_path / "new" / "home").opened_home()
    for folder in (opened.root, opened.root.parent):
        assert folder.stat().st_mode & 0o777 == 0o700, folder


def test_what_an_earlier_version_left_open_in_a_home_is_closed_and_what_its_user_made_is_not(
    tmp_path: Path,
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "home" / "scores" / "model").mkdir(parents=True)
    (tmp_path / "home" / "mine").mkdir()
    elsewhere.mkdir()
    (tmp_path / "home" / "artifacts").symlink_to(elsewhere)
    (tmp_path / "home" / "model-digests.json").touch()
    for path in [*(tmp_path / "home").rglob("*"), tmp_path / "home", elsewhere]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    Settings.model_construct(home=tmp_path / "home").opened_home()
    rights = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "home").iterdir()}
    assert rights == {"scores": 0o700, "mine": 0o755, "artifacts": 0o755, "model-digests.json": 0o600}
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o755


def test_a_home_whose_folders_are_anothers_is_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scores").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "scores")
    with pytest.raises(UserMistake, match=r"scores belongs to another user, .*ASSAY_SCORE_STORE"):
        Settings.model_construct(home=tmp_path).opened_home()


def test_a_home_that_cannot_be_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings: Any = Settings.model_construct(home=tmp_path / "file" / "home")
    with pytest.raises(UserMistake, match=r"ASSAY_HOME: .* cannot be used"):
        settings.opened_home()
