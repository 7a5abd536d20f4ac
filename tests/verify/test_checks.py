"""Every check passes on a sound model of every family, and fails on what it is there for."""

from __future__ import annotations

import dataclasses
import gc
import json
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

import pytest
import safetensors.torch
import tiny
import tiny_families as families
import torch

from assay.core.errors import ModelFault, UserMistake
from assay.core.progress import SILENT
from assay.core.schema import Message
from assay.rewards import catalog
from assay.rewards.catalog import Entry, Published
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.local_spec import local_spec
from assay.rewards.options import ModelOptions
from assay.rewards.protocol import Request, TurnScore
from assay.rewards.spec import LocalSpec
from assay.verify import checks as verification
from assay.verify.checks import Check, check_golden, read_golden, record, verify
from assay.workers.cluster import ClusterOptions

pytestmark = pytest.mark.slow

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Here:
    """A cluster of workers that are this process."""

    def __init__(self, count: int) -> None:
        self._count = count

    def scheduler_info(self, n_workers: int) -> dict[str, dict[str, None]]:
        return {"workers": {f"worker-{number}": None for number in range(self._count)}}

    def submit(self, function: Callable[[*Ts], T], *arguments: *Ts, workers: list[str], pure: bool) -> T:
        return function(*arguments)

    def gather(self, results: T) -> T:
        return results


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    torch.set_num_threads(1)

    @contextmanager
    def here(options: ClusterOptions, *rest: object) -> Iterator[_Here]:
        yield _Here(options.workers or 1)

    monkeypatch.setattr(verification, "connected", here)


def verified(spec: LocalSpec) -> list[Check]:
    return verify(spec, cluster=ClusterOptions(workers=2), progress=SILENT)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_sound_model_of_every_family_passes(family: str, tmp_path: Path) -> None:
    checks = verified(families.FAMILIES[family](tmp_path / "model", "chatml").spec)
    assert [check for check in checks if check.passed is False] == []
    assert sum(check.passed is True for check in checks) >= 4


@pytest.mark.parametrize("template", ["chatml", "shows a field"])
def test_reasoning_moves_no_score_where_it_is_hidden_and_what_it_does_is_shown_where_not(
    template: str, tmp_path: Path
) -> None:
    shows = tiny.CHATML.replace("message.content", "message.reasoning_content or '' }}{{ message.content")
    source = tiny.CHATML if template == "chatml" else shows
    spec = tiny.spec(tiny.reward_model(tmp_path / "model", max_tokens=4096, template=source))

    def of_reasoning(*, hide: bool) -> dict[str, Check]:
        model = LocalRewardModel(spec)
        return {check.name: check for check in verification.reasoning_checks(model, spec, hide=hide)}

    hidden, shown = of_reasoning(hide=True), of_reasoning(hide=False)
    assert [check.passed for check in hidden.values()] == [True, True]
    assert [check.passed for check in shown.values()] == [None, None]
    in_field = shown["reasoning in a field"].measured
    assert in_field == "is not shown" if template == "chatml" else in_field.startswith("moves the score by ")
    assert shown["reasoning in the text"].measured.startswith("moves the score by ")


@pytest.mark.operated
def test_real_workers_give_the_same_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from assay.workers.cluster import connected

    monkeypatch.setattr(verification, "connected", connected)
    checks = verified(tiny.spec(tiny.reward_model(tmp_path / "model", max_tokens=4096)))
    assert checks[-1].name == "2 Dask workers"
    assert checks[-1].passed


@pytest.mark.slow
def test_this_process_lets_go_of_the_model_before_workers_load_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded() -> set[int]:
        return {id(one) for one in gc.get_objects() if type(one) is LocalRewardModel}

    @contextmanager
    def here(options: ClusterOptions, *rest: object) -> Iterator[_Here]:
        asked.append(options)
        left.append(loaded() - before)
        yield _Here(options.workers or 1)

    gc.collect()
    before, left, asked = loaded(), list[set[int]](), list[ClusterOptions]()
    monkeypatch.setattr(verification, "connected", here)
    spec = tiny.spec(tiny.reward_model(tmp_path / "model", max_tokens=4096, seed=11))
    verify(spec, cluster=ClusterOptions(workers=2, gpus_per_model=3), progress=SILENT)
    assert left == [set()]
    assert loaded() - before
    assert asked == [ClusterOptions(workers=2, gpus_per_model=3)]


def failed(checks: list[Check]) -> list[str]:
    return [check.name.split(",")[0] for check in checks if check.passed is False]


def higher(one: TurnScore, *, by: float) -> TurnScore:
    assert one.values is not None
    return dataclasses.replace(one, values=tuple(value + by for value in one.values))


def test_a_score_that_moves_with_its_neighbours_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = LocalRewardModel.score

    def moved(self: LocalRewardModel, requests: Sequence[Request]) -> list[list[TurnScore]]:
        shift = 1e-3 * (len(requests) > 1)
        return [[higher(one, by=shift) for one in outcomes] for outcomes in score(self, requests)]

    monkeypatch.setattr(LocalRewardModel, "score", moved)
    checks = verified(tiny.spec(tiny.reward_model(tmp_path / "model", max_tokens=4096, seed=3)))
    assert failed(checks) == ["all in one batch", "batch budgets of 1", "2 Dask workers"]


def test_a_turn_whose_score_depends_on_what_follows_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = LocalRewardModel.score

    def foreseeing(self: LocalRewardModel, requests: Sequence[Request]) -> list[list[TurnScore]]:
        return [
            [higher(one, by=1e-3 * len(request.messages)) for one in outcomes]
            for request, outcomes in zip(requests, score(self, requests), strict=True)
        ]

    monkeypatch.setattr(LocalRewardModel, "score", foreseeing)
    checks = verified(tiny.spec(tiny.reward_model(tmp_path / "model", max_tokens=4096, seed=4)))
    assert "every turn from a text that ends there" in failed(checks)


@pytest.mark.parametrize(("off", "passed"), [(0.0, True), (0.01, False)])
def test_a_published_score_is_held_to_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: float, passed: bool
) -> None:
    folder = tiny.reward_model(tmp_path / "model", max_tokens=4096, seed=5)
    talk = (Message("user", "What is 1+1?"), Message("assistant", "1+1=2"))
    ((one,),) = LocalRewardModel(tiny.spec(folder)).score([Request(talk, (0,))])
    assert one.values is not None
    right, _ = one.values
    example = Published(talk, {"helpfulness": right + off}, "float32")
    entry = Entry(str(folder), published=(example,))
    monkeypatch.setitem(catalog.CATALOG, "mine", entry)
    (check, *_) = verified(dataclasses.replace(tiny.spec(folder), name="mine"))
    assert check.passed is passed
    assert "the card has" in check.measured


def test_golden_rows_distinguish_the_same_model_from_another(tmp_path: Path) -> None:
    spec = tiny.spec(tiny.reward_model(tmp_path / "model", max_tokens=4096))
    golden = tmp_path / "golden.json"
    assert record(spec, golden) == 14
    fingerprint, versions, weights, scores = check_golden(spec, read_golden(golden))
    assert (fingerprint.measured, versions.measured) == ("the recorded one", "as recorded")
    assert (weights.passed, scores.passed) == (True, True)
    other = tiny.spec(tiny.reward_model(tmp_path / "other", max_tokens=4096, seed=9))
    fingerprint, _, weights, scores = check_golden(other, read_golden(golden))
    assert "recorded with" in fingerprint.measured
    assert (weights.passed, scores.passed) == (False, False)
    with pytest.raises(UserMistake, match="the golden rows hold helpfulness, correctness"):
        check_golden(dataclasses.replace(spec, attributes=("reward",)), read_golden(golden))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("[" * 50_000, "not JSON", id="50,000 brackets"),
        pytest.param('{"golden": ' + "9" * 5000 + "}", "not JSON", id="5,000 digits"),
        pytest.param(
            '{"golden": 1, "model": "m", "fingerprint": "f", "attributes": ["a"], "dtype": "float32", '
            '"versions": {}, "rows": [{"messages": [], "scores": [[' + "9" * 400 + "]]}]}",
            "missing or altered",
            id="a score of 400 digits",
        ),
    ],
)
def test_a_file_that_is_no_golden_rows_is_refused_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "golden.json"
    path.write_text(text)
    with pytest.raises(UserMistake, match=said):
        read_golden(path)


def test_a_template_that_leaves_out_messages_or_writes_unknown_marks_is_reported(tmp_path: Path) -> None:
    def checks(template: str) -> list[Check]:
        folder = tiny.reward_model(tmp_path / str(len(template)), template=template, max_tokens=4096)
        return [
            check
            for check in verified(tiny.spec(folder))
            if "template" in check.name or "text is" in check.name
        ]

    seen, marks = checks(tiny.CHATML)
    assert (seen.passed, marks.passed) == (True, True)
    seen, marks = checks(tiny.MOVING_SYSTEM.replace("<|eos|>", "<|end_of_turn|>"))
    assert (seen.passed, marks.passed) == (None, None)
    assert "leaves out later system messages, tool messages" in seen.measured
    assert "<|end_of_turn|> is " in marks.measured


def test_another_template_fails_on_golden_rows_and_one_without_texts_is_refused(tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "model", max_tokens=4096, seed=12)
    golden = tmp_path / "golden.json"
    record(tiny.spec(folder), golden)
    (folder / "chat_template.jinja").write_text(tiny.LLAMA3)
    checks = {check.name: check for check in check_golden(tiny.spec(folder), read_golden(golden))}
    assert checks["recorded scores"].passed is False
    assert "recorded with" in checks["fingerprint"].measured
    (folder / "chat_template.jinja").write_text("{% for m in messages %}<|im_start|>{{ m.text }}{% endfor %}")
    with pytest.raises(UserMistake, match="does not show the whole text of message 1"):
        tiny.spec(folder)


def test_golden_rows_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    spec = tiny.spec(tiny.reward_model(tmp_path / "model", max_tokens=4096))
    golden = tmp_path / "golden" / "rows.json"
    record(spec, golden)
    before = golden.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(UserMistake, match="the golden rows cannot be written"):
            record(spec, golden)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert golden.read_bytes() == before
    assert list(golden.parent.iterdir()) == [golden]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.pop("rows"), "is missing or altered"),
        (lambda data: data.update(golden=99), "no golden rows of this version"),
        (lambda data: data["rows"][0].update(scores=[]), "do not match their turns"),
        (lambda data: data["rows"][0].update(scores=[[float("nan")] * 2]), "do not match their turns"),
        (lambda data: data["rows"][0].update(scores="much"), "missing or altered"),
        (lambda data: data.update(fingerprint="0" * 32), "altered after they were recorded"),
        (lambda data: data["rows"][0]["scores"][0].__setitem__(0, 1.5), "altered after they were recorded"),
    ],
)
def test_golden_rows_that_are_none_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    spec = tiny.spec(tiny.reward_model(tmp_path / "model", max_tokens=4096))
    golden = tmp_path / "golden.json"
    record(spec, golden)
    data = json.loads(golden.read_text())
    change(data)
    golden.write_text(json.dumps(data))
    with pytest.raises(UserMistake, match=words):
        read_golden(golden)
    with pytest.raises(UserMistake, match="cannot be read"):
        read_golden(tmp_path / "nowhere.json")


# What must not pass.


def test_a_number_that_could_be_another_fails_until_somebody_chooses(tmp_path: Path) -> None:
    folder = families.classifier(tmp_path / "model", "moving-system", pad="eos").spec.folder
    assert failed(verified(local_spec(folder))) == ["transformers' own head"]
    for way in ("last-token", "transformers"):
        checks = verified(local_spec(folder, ModelOptions(read_at=way)))
        assert failed(checks) == []
        assert [check.passed for check in checks if check.name == "transformers' own head"] == [None]


def test_a_chat_model_is_not_verified(tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "model", family="first-token-logit", max_tokens=4096)
    with pytest.raises(UserMistake, match="no head in its folder gives a score"):
        verified(tiny.spec(folder))


def test_a_head_of_noise_is_not_verified(tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "model", max_tokens=4096)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    del weights["score.weight"]
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFault, match=r"lack score\.weight.*every score would be noise"):
        verified(tiny.spec(folder))


def test_a_weight_that_was_altered_since_is_found_where_no_recorded_score_shows_it(tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "model", max_tokens=4096)
    golden = tmp_path / "golden.json"
    record(tiny.spec(folder), golden)
    assert failed(check_golden(tiny.spec(folder), read_golden(golden))) == []
    file = folder / "model.safetensors"
    weights = safetensors.torch.load_file(file)
    # The embedding of a token that no probe conversation holds.
    weights["model.embed_tokens.weight"][-1] += 1
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    checks = {check.name: check for check in check_golden(tiny.spec(folder), read_golden(golden))}
    assert checks["recorded scores"].passed is True
    assert checks["weights"].passed is False
    assert checks["weights"].measured == "model.safetensors: not the recorded ones"


def test_golden_rows_of_before_are_still_read(tmp_path: Path) -> None:
    spec = tiny.spec(tiny.reward_model(tmp_path / "model", max_tokens=4096))
    golden = tmp_path / "golden.json"
    record(spec, golden)
    data = json.loads(golden.read_text())
    del data["weights"], data["digest"]
    golden.write_text(json.dumps(data))
    assert [check.name for check in check_golden(spec, read_golden(golden))] == [
        "fingerprint",
        "versions",
        "recorded scores",
    ]
