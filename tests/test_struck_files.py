"""Whatever befalls a file under ASSAY_HOME between two runs, it is noticed, and the results stay the same.

A finished home is made once; every case strikes one file of a copy of it, and runs again. The runs are of the
stages as they are, without a Prefect server. What Prefect keeps of them: ``tasks/test_stage.py``; its
database: ``flows/server/test_run_history.py``; all files of a whole run at once: ``flows/test_curate.py``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fakes
import polars as pl
import pytest
import stages
from converting import line
from stage_runs import Run, model_of, run, scored_in_this_process
from stages import context, take_inventory

from assay.core.errors import AssayError
from assay.read.convert import CONVERT, ToConvert
from assay.rewards.protocol import Remark
from assay.score import plan, remarks, scoring
from assay.score.shard import requested
from assay.select.decide import DECIDE, ToDecide
from assay.select.rules import Rules
from assay.storage.artifacts import read_artifact
from assay.storage.home import Artifact, Home
from assay.storage.private import private
from assay.storage.sealed import Altered, sealed_json, unsealed
from assay.verify.checks import Check
from assay.verify.kept import keep_checks, measured_of

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    scored_in_this_process(monkeypatch.setattr)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A folder with two runs' home, inputs and model, and what the first came to.

    The second is of other inputs: what is another's is its.
    """
    root = tmp_path_factory.mktemp("finished")
    (root / "model").mkdir()
    (root / "model" / "model.safetensors").write_bytes(b"weights" * 100)
    for name, mark in (("chats", "one"), ("others", "two")):
        (root / name).mkdir()
        lines = [line(f"question {n}", f"answer {n} of {mark}", "more", f"more {n}") for n in range(12)]
        (root / name / "a.jsonl").write_bytes(b"\n".join([*lines, b"{no json"]))
    with pytest.MonkeyPatch.context() as patch:
        scored_in_this_process(patch.setattr)
        first = run(root)
        run(root, "others")
    assert first.turns_scored == 24
    assert first.said == []
    return root, first


@pytest.fixture
def root(finished: tuple[Path, Run], tmp_path: Path) -> Path:
    """A copy of the finished folder. Inputs and model stay where they are, for they are not struck."""
    copy = tmp_path / "root"
    copy.mkdir()
    shutil.copytree(finished[0] / "home", copy / "home", copy_function=shutil.copy2)
    for name in ("chats", "others", "model"):
        (copy / name).symlink_to(finished[0] / name)
    return copy


@dataclass(frozen=True)
class Kind:
    """A kind of file: where it is, and what is said where it is not as it was written."""

    pattern: str
    told: str | None
    """None: nothing is said here. The stage that made it says it, in ``run_stage``."""
    loses: str | None = None
    """Files that are gone too, because only then the file is looked at."""


KINDS = {
    "digests of weights": Kind("model-digests.json", "model-digests.json: is damaged"),
    "a segment": Kind("scores/*/*.parquet", "is damaged; moved to"),
    "a lock": Kind("scores/*/.lock", None),
    "a plan's seal": Kind(
        "plans/*/*/plan.json", "the plan of an earlier run cannot be used", loses="scores/*/*.parquet"
    ),
    "a plan": Kind(
        "plans/*/*/members.parquet", "the plan of an earlier run cannot be used", loses="scores/*/*.parquet"
    ),
    "a shard's manifest": Kind("artifacts/convert/*/manifest.json", "manifest of its conversion is damaged"),
    "records": Kind("artifacts/convert/*/0000.records.parquet", "is gone or altered; converting it again"),
    "turns": Kind("artifacts/convert/*/0000.turns.parquet", "is gone or altered; converting it again"),
    "scores of a piece": Kind("artifacts/score/*/piece-00000.parquet", None),
    "decisions": Kind("artifacts/filter/*/decisions-000000.parquet", None),
}

Strike = Callable[[Path, Path], object]
"""What is done to a file; the second is the same kind of file of the other run."""


def flipped(place: float) -> Strike:
    def strike(path: Path, other: Path) -> None:
        data = bytearray(path.read_bytes())
        if data:
            data[int(place * (len(data) - 1))] ^= 4
        path.write_bytes(data)

    return strike


STRIKES: dict[str, Strike] = {
    "cut": lambda path, other: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path, other: path.write_bytes(b""),
    "flipped at the start": flipped(0),
    "flipped before the middle": flipped(0.4),
    "flipped after the middle": flipped(0.6),
    "flipped at the end": flipped(1),
    "gone": lambda path, other: path.unlink(),
    "another's": lambda path, other: path.write_bytes(other.read_bytes()),
    "no file of ours": lambda path, other: path.write_bytes(b'{"digest": "' + b"0" * 32 + b'"}'),
}


def struck(root: Path, kind: Kind, strike: Strike) -> None:
    """Strike the file of that kind that the first run made (the second's: the later one)."""
    found = sorted((root / "home").glob(kind.pattern), key=lambda path: path.stat().st_mtime_ns)
    path, other = found[0], found[-1]
    if kind.loses:
        for lost in (root / "home").glob(kind.loses):
            lost.unlink()
    strike(path, other)


@pytest.mark.parametrize("strike", STRIKES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_struck_file_is_noticed_and_changes_no_result(
    kind: str, strike: str, root: Path, finished: tuple[Path, Run], caplog: pytest.LogCaptureFixture
) -> None:
    _, unharmed = finished
    struck(root, KINDS[kind], STRIKES[strike])
    again = run(root)
    assert again.results == unharmed.results
    assert again.scored == unharmed.scored or KINDS[kind].loses
    told = "\n".join([*again.said, *caplog.messages])
    words = KINDS[kind].told
    has_no_other = kind in ("digests of weights", "a lock") and strike == "another's"
    # None of its values is one of this run's, so it is not verified: its turns are missing.
    has_no_other |= kind == "a segment" and strike == "another's"
    if words is not None and not has_no_other and (strike != "gone" or kind in ("records", "turns")):
        assert words in told
    if not kind.startswith(("a segment", "a plan")):
        assert again.turns_scored == 0
    once_more = run(root)
    assert once_more.results == unharmed.results
    assert (once_more.turns_scored, once_more.said) == (0, [])


@pytest.mark.parametrize("strike", STRIKES)
def test_damaged_remarks_are_reported_and_stop_nothing(strike: str, tmp_path: Path) -> None:
    home, said = Home(tmp_path / "home"), list[str]()
    model, other = fakes.spec(tmp_path / "model", "a" * 32), fakes.spec(tmp_path / "model", "b" * 32)
    remark = Remark("1 here, 2 by transformers", "read_at")
    for one in (model, other):
        remarks.keep([remark], one, context(home))
    path, others = (home.scores / one.fingerprint / "remarks.json" for one in (model, other))
    assert path.stat().st_mode & 0o777 == 0o600
    STRIKES[strike](path, others)
    assert scoring.former_remarks(model, context(home, said.append)) == ()
    assert len(said) == (strike != "gone")
    assert all(f"{path}: cannot be read, is damaged, or belongs to another model" in line for line in said)
    remarks.keep([remark], model, context(home))
    assert remarks.kept(model, context(home)) == (remark,)


@pytest.mark.parametrize("strike", STRIKES)
def test_damaged_checks_are_reported_and_none_of_them_is_believed(strike: str, tmp_path: Path) -> None:
    home, said = Home(tmp_path / "home"), list[str]()
    for fingerprint in ("a" * 32, "b" * 32):
        keep_checks([Check("batches", True, "0.0", "1e-05")], fingerprint, home)
    path, others = (home.scores / one / "checks.json" for one in ("a" * 32, "b" * 32))
    assert len(list(measured_of("a" * 32, context(home, said.append)))) == 2
    STRIKES[strike](path, others)
    assert list(measured_of("a" * 32, context(home, said.append))) == []
    assert len(said) == (strike != "gone")
    assert all(f"{path}: cannot be read, or is damaged" in line for line in said)


@pytest.mark.parametrize("strike", [name for name in STRIKES if name != "another's"])
@pytest.mark.parametrize("kind", ["records", "turns", "scores of a piece", "decisions"])
def test_a_cached_manifest_whose_file_was_struck_is_not_current(
    kind: str, strike: str, root: Path, finished: tuple[Path, Run]
) -> None:
    _, unharmed = finished
    home = Home(root / "home")
    inventory = take_inventory([str(root / "chats")])
    decided = ToDecide(unharmed.converted, unharmed.scored, Rules())

    def current() -> bool:
        return (
            CONVERT.is_current(ToConvert(inventory), unharmed.converted, home)
            and stages.scores_are_current(unharmed.converted, model_of(root), unharmed.scored, home)
            and DECIDE.is_current(decided, unharmed.filtered, home)
        )

    assert current()
    for path in home.root.glob(KINDS[kind].pattern):
        STRIKES[strike](path, path)
    assert not current()


def test_cached_scores_are_current_while_their_segments_are_there(
    root: Path, finished: tuple[Path, Run]
) -> None:
    _, unharmed = finished
    home, model = Home(root / "home"), model_of(root)
    segments = sorted(home.scores.glob("*/*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    segments[0].write_bytes(b"damaged, and not read")
    assert stages.scores_are_current(unharmed.converted, model, unharmed.scored, home)
    segments[0].unlink()
    assert not stages.scores_are_current(unharmed.converted, model, unharmed.scored, home)


def artifacts_of(done: Run) -> dict[str, tuple[Artifact, list[str]]]:
    """The first file of every stage, and columns of it that are read."""
    return {
        "records": (done.converted.pieces[0].records, ["row", "messages"]),
        "turns": (done.converted.pieces[0].turns, ["row", "turn", "key"]),
        "scores of a piece": (done.scored.pieces[0].scores, ["row", "helpfulness"]),
        "decisions": (done.filtered.pieces[0].decisions, ["row", "outcome"]),
    }


@pytest.mark.parametrize("kind", ["records", "turns", "scores of a piece", "decisions"])
def test_a_stage_that_meets_a_struck_file_ends_with_a_line_that_names_it(
    kind: str, root: Path, finished: tuple[Path, Run]
) -> None:
    home = Home(root / "home")
    artifact, columns = artifacts_of(finished[1])[kind]
    path = home.artifacts / artifact.path
    data = path.read_bytes()
    harms = [b"", data[:1], data[:-1], data + b"\0"]
    for n in range(0, len(data), len(data) // 20):
        harms += [data[:n], data[:n] + bytes([data[n] ^ 1 << n % 8]) + data[n + 1 :]]
    for harm in harms:
        path.write_bytes(harm)
        with pytest.raises(AssayError, match=rf"{path}: is gone or damaged .*Run again: it is made anew"):
            read_artifact(artifact, home, columns)
    path.unlink()
    with pytest.raises(AssayError, match="is gone or damaged"):
        read_artifact(artifact, home, columns)


def test_no_worker_scores_a_text_that_is_not_the_planned_one(root: Path, finished: tuple[Path, Run]) -> None:
    home, converted = Home(root / "home"), finished[1].converted
    for segment in home.scores.glob("*/*.parquet"):
        segment.unlink()
    model = model_of(root)
    written = plan.existing(converted, model, context(home))
    assert written is not None
    shard = next(scoring.shards_of(written.parts(), converted))
    whole = requested(shard, home)
    path = home.artifacts / converted.pieces[0].records.path
    records = pl.read_parquet(path)
    messages = pl.col("messages")
    harms = {
        "another text": records.with_columns(messages.str.replace("of one", "of none")),
        "another record's": records.with_columns(messages.shift(1).fill_null("[]")),
        "half a text": records.with_columns(messages.str.head(20)),
        "no text": records.with_columns(pl.lit("[]").alias("messages")),
        "no record": records.clear(),
    }
    for harm, frame in harms.items():
        frame.write_parquet(path)
        with pytest.raises(AssayError, match=rf"{path}: record \d+ is not the one that was planned"):
            pytest.fail(f"{harm}: {requested(shard, home)[0][0]}")
    records.write_parquet(path)
    assert requested(shard, home) == whole


def test_a_plan_of_other_records_is_not_finished(root: Path, finished: tuple[Path, Run]) -> None:
    home, model = Home(root / "home"), model_of(root)
    mine, others = sorted(home.plans.glob("*/*"), key=lambda path: path.stat().st_mtime_ns)
    for name in ("plan.json", "members.parquet"):
        shutil.copy2(others / name, mine / name)
    told: list[str] = []
    assert plan.existing(finished[1].converted, model, context(home, told.append)) is None
    assert "cannot be used (it is for other records or another model)" in told[0]


def test_no_flipped_bit_of_a_plans_seal_is_believed(root: Path, finished: tuple[Path, Run]) -> None:
    home, model = Home(root / "home"), model_of(root)
    path = min(home.plans.glob("*/*/plan.json"), key=lambda path: path.stat().st_mtime_ns)
    data = path.read_bytes()
    place = data.index(b'"shard_tokens": 20') + len(b'"shard_tokens": ')
    path.write_bytes(data[:place] + b"3" + data[place + 1 :])
    assert plan.existing(finished[1].converted, model, context(home)) is None


def test_an_earlier_versions_digests_of_weights_are_made_again(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = Home(root / "home")
    before = model_of(root).fingerprint
    weights = json.loads(home.model_digests.read_bytes())["digests of weights"]
    home.model_digests.write_text(json.dumps(dict.fromkeys(weights, "0" * 32)))
    assert model_of(root).fingerprint == before
    assert "or of an earlier version" in caplog.text


def test_no_flipped_bit_of_a_sealed_file_is_believed() -> None:
    content = {"lines": 3, "files": ["a", "b"], "share": 0.25, "none": None}
    data = sealed_json(content, about="x")
    assert unsealed(data, about="x") == content
    believed = 0
    for n in range(8 * len(data)):
        harmed = bytearray(data)
        harmed[n // 8] ^= 1 << n % 8
        try:
            assert unsealed(bytes(harmed), about="x") == content
            believed += 1
        except Altered:
            pass
    # A space that became another kind of space says the same.
    assert believed < 40
    for cut in range(len(data)):
        with pytest.raises(Altered):
            unsealed(data[:cut], about="x")
    with pytest.raises(Altered, match="digest"):
        unsealed(data, about="y")
    with pytest.raises(Altered, match="not JSON"):
        unsealed(b"[" * 100_000, about="x")


def test_all_that_a_run_makes_is_for_its_user_alone_whatever_the_umask(
    finished: tuple[Path, Run], tmp_path: Path
) -> None:
    for name in ("chats", "others", "model"):
        (tmp_path / name).symlink_to(finished[0] / name)
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    before = os.umask(0)
    try:
        run(tmp_path)
    finally:
        os.umask(before)
    made = [path for path in home.rglob("*") if path.name != ".lock"]
    assert {path.relative_to(home).parts[0] for path in made} >= {"scores", "plans", "artifacts"}
    open_to_others = [str(path) for path in home.rglob("*") if path.stat().st_mode & 0o077]
    assert open_to_others == []
    assert home.stat().st_mode & 0o777 == 0o777, "a folder that its user made keeps its rights"


def test_what_libraries_write_is_private_within_and_the_umask_comes_back(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        with private(), private():
            (tmp_path / "inner").write_text("")
            (tmp_path / "folder").mkdir()
        (tmp_path / "outer").write_text("")
    finally:
        os.umask(before)
    rights = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert rights == {"inner": 0o600, "folder": 0o700, "outer": 0o664}
