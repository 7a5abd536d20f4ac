"""A stage's cache is used where its files are whole, and never believed where they are not."""

from __future__ import annotations

import errno
import json
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from planted import Bomb
from prefect import flow, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from stages import context

from assay.core.errors import ClusterFault, KillsWorkers, StoreFault, StoreRefusal, UserMistake
from assay.storage.artifacts import are_intact
from assay.storage.home import Artifact, Home
from assay.storage.kept_manifests import Finished, read
from assay.storage.old_artifacts import remove_old_artifacts
from assay.storage.sealed import Altered, sealed_json
from assay.storage.stage import Stage
from tasks.stage import run_stage

pytestmark = pytest.mark.usefixtures("prefect_api")


@dataclass(frozen=True)
class Made:
    """A manifest of one file."""

    file: Artifact
    words: tuple[str, ...]


class Maker:
    """Writes the file of a stage, and counts how often; fails as it is told."""

    def __init__(self, home: Home, *faults: Exception) -> None:
        self.home = home
        self.path = home.artifacts / "make" / "file"
        self.runs = 0
        self.faults = list(faults)

    def make(self) -> Made:
        self.runs += 1
        if self.faults:
            raise self.faults.pop(0)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("whole")
        return Made(Artifact.of(self.path, self.home), ("a", "b"))


@dataclass(frozen=True)
class ToMake:
    """What the stage is given: who makes it, and a key."""

    maker: Maker
    key: str


MAKE: Stage[ToMake, Made] = Stage(
    "make",
    1,
    Made,
    lambda given: given.key,
    lambda given, made, home: are_intact([made.file], home),
    lambda given, context: given.maker.make(),
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def run(maker: Maker, *, key: str = "k" * 32, said: list[str] | None = None) -> tuple[Finished[Made], UUID]:
    """The stage in a flow run of its own, and that flow run's id."""

    @flow(name="one stage")
    def one_stage() -> tuple[Finished[Made], UUID]:
        heard = context(maker.home, (said if said is not None else []).append)
        finished = run_stage(MAKE, ToMake(maker, key), heard, retry_after_seconds=[0, 0])
        return finished, runtime.flow_run.id

    result: tuple[Finished[Made], UUID] = one_stage()
    return result


def states(flow_run: UUID, wanted: Callable[[list[str]], bool] = bool) -> list[str]:
    """The names of the states of the task runs, as the server shows them once they are ``wanted``."""
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
    deadline = time.monotonic() + 20
    with get_client(sync_client=True) as client:
        while True:
            runs = client.read_task_runs(flow_run_filter=chosen)
            names = [run.state_name or "" for run in runs]
            final = all(run.state is not None and run.state.is_final() for run in runs)
            if (final and wanted(names)) or time.monotonic() > deadline:
                return names
            time.sleep(0.1)


def test_what_is_cached_and_whole_is_shown_as_cached(home: Home) -> None:
    maker = Maker(home)
    first, first_run = run(maker)
    second, second_run = run(maker)
    assert maker.runs == 1
    assert not first.cached
    assert second.cached
    assert first.manifest == second.manifest == Made(first.manifest.file, ("a", "b"))
    assert states(first_run) == ["Completed"]
    assert states(second_run) == ["Cached"]


@pytest.mark.parametrize(
    "harm", [lambda path: path.write_text("wrong"), lambda path: path.unlink()], ids=["altered", "gone"]
)
def test_a_manifest_whose_file_is_not_as_written_is_not_believed(
    home: Home, harm: Callable[[Path], object]
) -> None:
    maker = Maker(home)
    run(maker)
    harm(maker.path)
    said: list[str] = []
    again, again_run = run(maker, said=said)
    assert maker.runs == 2
    assert not again.cached
    assert maker.path.read_text() == "whole"
    assert said == ["make: files of an earlier run are missing or altered, so this stage runs again"]
    assert states(again_run) == ["Completed"]
    assert run(maker)[0].cached


@pytest.mark.parametrize(
    "left", ["", '{"manifest": {"fi', '{"manifest": {}, "digest": "{}"}', "[]", "\udcff"]
)
def test_a_manifest_that_was_cut_short_is_made_again(home: Home, left: str) -> None:
    maker = Maker(home)
    run(maker)
    (kept,) = home.manifests.iterdir()
    kept.write_bytes(left.encode(errors="surrogateescape"))
    said: list[str] = []
    assert not run(maker, said=said)[0].cached
    assert f"make: {kept} is damaged, or of an earlier version" in said[0]
    assert maker.runs == 2
    assert run(maker)[0].cached


@pytest.mark.parametrize("way", ["a pickle", "a class named in JSON"])
def test_a_planted_result_runs_nothing(
    home: Home, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seal is right: whoever can write to the folder can also compute the seal."""
    maker = Maker(home)
    run(maker)
    (kept,) = home.manifests.iterdir()
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    if way == "a pickle":
        kept.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    else:
        manifest = {**json.loads(kept.read_bytes())["manifest"], "__class__": "planted.Thing", "data": {}}
        kept.write_bytes(sealed_json({"manifest": manifest}, about=kept.stem))
    assert run(maker)[0].manifest == Made(Artifact.of(maker.path, home), ("a", "b"))
    assert not (tmp_path / "ran").exists()


def test_no_flipped_bit_of_a_kept_manifest_is_believed(home: Home) -> None:
    """As it was seen: a digit of a manifest's counts, which is still JSON and names files that are whole."""
    made = run(Maker(home))[0].manifest
    (kept,) = home.manifests.iterdir()
    data = kept.read_bytes()
    refused = 0
    for n in range(8 * len(data)):
        harmed = bytearray(data)
        harmed[n // 8] ^= 1 << n % 8
        kept.write_bytes(harmed)
        try:
            assert read(kept, Made) == made
        except Altered:
            refused += 1
    # Some changes do no harm: a blank between two values may become another blank.
    assert refused > 7.5 * len(data)


def test_a_manifest_that_was_kept_for_another_key_is_not_believed(home: Home) -> None:
    maker = Maker(home)
    run(maker, key="a" * 32)
    one, other = (f"make-{MAKE.digest(ToMake(maker, letter * 32))}.json" for letter in "ab")
    (home.manifests / other).write_bytes((home.manifests / one).read_bytes())
    assert not run(maker, key="b" * 32)[0].cached


def test_a_manifest_that_is_used_stays_where_old_ones_are_removed(home: Home) -> None:
    maker = Maker(home)
    for key in ("a" * 32, "b" * 32):
        run(maker, key=key)
    long_ago = time.time() - 100 * 86_400
    for path in home.manifests.iterdir():
        os.utime(path, (long_ago, long_ago))
    assert run(maker, key="a" * 32)[0].cached
    assert remove_old_artifacts(home, 30).files == 1
    assert run(maker, key="a" * 32)[0].cached
    assert not run(maker, key="b" * 32)[0].cached


def test_another_key_is_another_result(home: Home) -> None:
    maker = Maker(home)
    run(maker, key="a" * 32)
    assert not run(maker, key="b" * 32)[0].cached
    assert run(maker, key="a" * 32)[0].cached


def test_what_is_kept_is_json_and_of_nothing_but_the_manifest(home: Home) -> None:
    run(Maker(home))
    (kept,) = home.manifests.iterdir()
    result = json.loads(kept.read_bytes())
    assert result.keys() == {"manifest", "digest"}
    assert result["manifest"].keys() == {"file", "words"}


def test_prefect_stores_no_result(home: Home, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: storage}):
        run(Maker(home))
    assert list(storage.rglob("*")) == []


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.EIO, "the disk was away"),
        ClusterFault("the workers were away"),
        StoreFault("S3 was away"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_fault_that_may_pass_is_tried_again(home: Home, fault: Exception) -> None:
    maker = Maker(home, fault)
    run(maker)
    assert maker.runs == 2


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "the disk is full"),
        UserMistake("a rule is wrong"),
        StoreRefusal("no such bucket"),
        KillsWorkers("no worker survives it"),
        ValueError("a bug"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_fault_that_will_not_pass_is_raised_as_it_was(home: Home, fault: Exception) -> None:
    maker = Maker(home, fault)
    with pytest.raises(type(fault)) as raised:
        run(maker)
    assert raised.value is fault
    assert maker.runs == 1
    assert not run(maker)[0].cached


@dataclass(frozen=True)
class ToMeasure:
    """What a second stage is given: what the first one made, among other things."""

    made: tuple[Made, ...]
    maker: Maker


MEASURE: Stage[ToMeasure, Made] = Stage(
    "measure",
    1,
    Made,
    lambda given: "measured",
    lambda given, made, home: True,
    lambda given, context: Made(given.made[0].file, ("c",)),
)


def test_the_graph_of_a_run_shows_which_stage_made_what_another_one_took(home: Home) -> None:
    maker = Maker(home)

    @flow(persist_result=False)
    def measured() -> str:
        made = run_stage(MAKE, ToMake(maker, "a"), context(home)).manifest
        run_stage(MAKE, ToMake(maker, "b"), context(home))
        run_stage(MEASURE, ToMeasure((made,), maker), context(home))
        return str(runtime.flow_run.id)

    for name in ("Completed", "Cached"):
        run_id = UUID(measured())
        deadline = time.monotonic() + 20
        with get_client(sync_client=True) as client:
            while True:
                runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
                if [run.state_name for run in runs] == [name] * 3:
                    break
                assert time.monotonic() < deadline, runs
                time.sleep(0.1)
        first, _ = sorted((run for run in runs if run.name == "make"), key=lambda run: str(run.start_time))
        (last,) = (run for run in runs if run.name == "measure")
        assert [getattr(one, "id", None) for one in last.task_inputs["wait_for"]] == [first.id]
        assert not first.task_inputs.get("wait_for")
