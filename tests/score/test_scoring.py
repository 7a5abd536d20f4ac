"""Turns are paid for once, a killed run finishes its plan, and what is lost is only what was under way."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import fakes
import polars as pl
import psutil
import pytest
import stages
from handmade import Record
from places import TESTS
from running_dask import address_in
from scoring_runs import (
    TWO_WORKERS,
    Spawn,
    chat,
    convert,
    gone,
    records,
    score,
    store_files,
    values,
    wait,
)
from stage_runs import scored_in_this_process
from stages import Heard, context

from assay.core.digests import digest_of_file
from assay.rewards.protocol import Remark
from assay.rewards.spec import LocalSpec
from assay.score import remarks, scoring, ways
from assay.score.store import ScoreStore
from assay.storage.home import Home
from assay.storage.manifests import Converted
from assay.storage.sealed import sealed_json
from assay.storage.stage import RunContext
from assay.workers import cluster, dispatch
from assay.workers.cluster import ClusterOptions

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def model(tmp_path: Path) -> LocalSpec:
    return fakes.spec(tmp_path / "model")


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid() -> None:
        monkeypatch.setattr(ways, "workers_for", lambda *_, **__: pytest.fail("a cluster was started"))

    return forbid


@pytest.fixture
def workers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are scored in this process."""
    scored_in_this_process(monkeypatch.setattr)


@pytest.mark.usefixtures("workers_here")
def test_remarks_of_a_model_that_is_opened_are_shown_once_by_every_run(home: Home, model: LocalSpec) -> None:
    (Path(model.folder) / "remarks").write_text("1 here, 2 by transformers\n")
    remark = f"{model.name}: 1 here, 2 by transformers"
    converted, grown = convert(home, records(20)), convert(home, records(20), records(5, first=100))
    # The second finds all scores stored; the third opens the model again.
    for data, turns in ((converted, 40), (converted, 0), (grown, 10)):
        heard = Heard()
        _, work = score(data, model, home, heard=heard)
        assert work.turns_scored == turns
        assert work.remarks == (remark,)
        assert heard.lines.count(f"warning: {remark}") == 1
    # Scores of one fingerprint: who has chosen what is stored is told nothing.
    chosen = dataclasses.replace(model, read_at="last-token")
    _, work = score(converted, chosen, home)
    assert (work.turns_scored, work.remarks) == (0, ())


def test_a_remark_stays_until_its_option_has_another(home: Home, model: LocalSpec) -> None:
    pad, bos, later = Remark("pad 1, 2", "read_at"), Remark("bos 3, 4", "add_bos"), Remark("5, 6", "add_bos")
    for told, kept in (([pad, bos], (pad, bos)), ([pad], (bos, pad)), ([later], (pad, later))):
        remarks.keep(told, model, context(home))
        assert remarks.kept(model, context(home)) == kept


def test_remarks_of_an_earlier_release_are_read(home: Home, model: LocalSpec) -> None:
    entries = [{"told": "pad 1, 2", "settled_by": "read_at"}]
    folder = home.scores / model.fingerprint
    folder.mkdir(parents=True)
    content = sealed_json({"remarks": entries}, about=f"remarks of {model.fingerprint}")
    (folder / "remarks.json").write_bytes(content)
    assert remarks.kept(model, context(home)) == (Remark("pad 1, 2", "read_at"),)
    remarks.keep([Remark("pad 1, 2", "read_at")], model, context(home))
    assert (folder / "remarks.json").read_bytes() == content


def test_scoring_again_scores_nothing_and_starts_no_worker(
    home: Home, model: LocalSpec, no_cluster: Callable[[], None]
) -> None:
    converted = convert(home, records(20), records(5, first=100))
    first, work = score(converted, model, home)
    assert work.turns_scored == 50
    no_cluster()
    second, work = score(converted, model, home)
    assert work.turns_scored == 0
    assert second == first


def test_added_rows_are_scored_and_no_others(home: Home, model: LocalSpec) -> None:
    score(convert(home, records(10)), model, home)
    before = fakes.calls(Path(model.folder))
    _, work = score(convert(home, records(10), records(3, first=50)), model, home)
    assert work.turns_scored == 6
    assert len(fakes.calls(Path(model.folder))) == len(before) + 6


def test_a_shared_beginning_is_scored_once(home: Home, model: LocalSpec) -> None:
    branches = [Record(n + 1, chat("Hi", "Hello", f"then {n}", f"answer {n}")) for n in range(10)]
    scored, work = score(convert(home, branches), model, home)
    calls = fakes.calls(Path(model.folder))
    assert len(calls) == len(set(calls)) == 11 == work.turns_scored
    assert (scored.turns, scored.distinct_turns) == (20, 11)
    frame = values(scored, home)
    assert frame.filter(pl.col("turn") == 0)["helpfulness"].n_unique() == 1
    assert frame["helpfulness"].null_count() == 0


def test_a_conversation_that_grew_is_read_in_its_longest_form(home: Home, model: LocalSpec) -> None:
    grown = [Record(n, chat(*[f"text {k}" for k in range(2 * n)])) for n in (1, 2, 3)]
    preview = scoring.preview(convert(home, grown), model, home=home)
    assert (preview.turns, preview.distinct_turns, preview.planned_records) == (6, 3, 1)


def test_preview_says_what_is_stored_and_writes_nothing(home: Home, model: LocalSpec) -> None:
    converted = convert(home, records(4))
    fresh = scoring.preview(converted, model, home=home)
    assert (fresh.records, fresh.turns, fresh.stored_turns) == (4, 8, 0)
    assert not home.scores.exists()
    assert not home.plans.exists()
    score(converted, model, home)
    assert scoring.preview(converted, model, home=home).stored_turns == 8


def test_the_number_of_workers_changes_no_byte(home: Home, model: LocalSpec, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    one, _ = score(convert(home, records(30)), model, home, workers=ClusterOptions(workers=1))
    two, _ = score(convert(other, records(30)), model, other, workers=TWO_WORKERS)
    assert one == two
    assert store_files(home) == store_files(other)


@pytest.mark.faults
def test_several_hundred_turns_are_scored_by_all_workers_and_a_signal_keeps_what_is_finished(
    home: Home, model: LocalSpec
) -> None:
    model = fakes.weighing(model, 100_000_000)
    words = "words " * 60
    texts = [
        Record(n + 1, chat(f"question {n}", f"{words} {n}", "more?", f"{words} {n}")) for n in range(316)
    ]
    converted = convert(home, texts)

    def leave() -> None:
        if len(store_files(home)) >= 3:
            raise SystemExit(143)

    heard = Heard()
    with pytest.raises(SystemExit):
        stages.score(
            converted, model, home=home, cluster=TWO_WORKERS, progress=heard, leave_if_unwanted=leave
        )
    stored = pl.concat([pl.read_parquet(path) for path in home.scores.glob("*/*.parquet")])
    said = re.fullmatch(r"score: at least (\d+) of 632 turns are stored", heard.lines[-1])
    assert said is not None
    assert 632 > stored.height >= max(int(said[1]), 3 * 632 // 16)
    _, work = stages.score(converted, model, home=home, cluster=TWO_WORKERS, progress=heard)
    assert work.turns_scored == 632 - stored.height
    assert work.resumed_plan
    assert len({shard.worker for shard in work.shards}) == 2


def test_a_turn_without_a_score_keeps_its_reason_and_is_not_tried_again(
    home: Home, model: LocalSpec, no_cluster: Callable[[], None]
) -> None:
    converted = convert(home, [*records(2), *records(1, mark=fakes.UNSCORABLE, first=9)])
    scored, work = score(converted, model, home)
    assert scored.failed == {"not_finite": 2}
    assert work.turns_scored == 4
    assert values(scored, home)["helpfulness"].null_count() == 2
    no_cluster()
    assert score(converted, model, home)[0] == scored


@pytest.mark.faults
def test_a_turn_that_kills_every_worker_takes_no_other_with_it(home: Home, model: LocalSpec) -> None:
    shared = chat("Hi", "Hello there")
    grown = (*shared, *chat("and", f"now {fakes.POISON}"))
    converted = convert(home, [Record(1, shared), Record(2, grown), Record(3, chat("Other", "Yes"))])
    scored, _ = score(converted, model, home)
    frame = values(scored, home)
    assert frame.filter(pl.col("reason").is_not_null()).select("row", "turn").rows() == [(1, 1)]
    assert frame["helpfulness"].null_count() == 1


def test_a_turn_that_found_no_memory_is_reported_and_tried_again(home: Home, model: LocalSpec) -> None:
    converted = convert(home, [*records(2), *records(1, mark=fakes.TOO_LARGE, first=5)])
    scored, work = score(converted, model, home)
    assert scored.failed == {"out_of_memory": 2}
    assert work.turns_scored == 4
    assert not stages.scores_are_current(converted, model, scored, home)
    assert sum(pl.read_parquet(path).height for path in home.scores.glob("*/*.parquet")) == 4
    calls = len(fakes.calls(Path(model.folder)))
    assert score(converted, model, home)[0].failed == {"out_of_memory": 2}
    assert len(fakes.calls(Path(model.folder))) == calls + 2


def test_threads_of_one_worker_write_whole_segments(home: Home, model: LocalSpec) -> None:
    from distributed import LocalCluster

    converted = convert(home, records(40))
    with LocalCluster(
        n_workers=1, threads_per_worker=4, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    ) as running:
        address = ClusterOptions(scheduler_address=running.scheduler_address)
        scored, work = score(converted, model, home, workers=address)
    assert (work.turns_scored, scored.failed) == (80, {})
    assert stages.scores_are_current(converted, model, scored, home)


@pytest.mark.faults
def test_a_scheduler_that_is_lost_is_one_clear_line(
    home: Home, model: LocalSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from assay.core import errors

    found = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    where = ["--scheduler-file", str(found), "--host", "127.0.0.1", "--no-dashboard"]
    scheduler = subprocess.Popen(
        [*dask, "scheduler", *where, "--port", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        address = address_in(found)
        worker = subprocess.Popen(
            [*dask, "worker", *where],
            env=os.environ | {"PYTHONPATH": str(TESTS)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        monkeypatch.setattr(Heard, "advance", lambda *told, **details: scheduler.kill())
        there = ClusterOptions(scheduler_address=address)
        with pytest.raises(errors.ClusterFault, match="the Dask scheduler is gone"):
            score(convert(home, records(30, mark=fakes.SLOW)), model, home, workers=there)
    finally:
        scheduler.kill()
        scheduler.wait()
        worker.terminate()
        worker.wait(30)


@pytest.mark.parametrize("address", ["localhost", "http://127.0.0.1:8786", "tls://127.0.0.1:8786"])
def test_an_address_that_is_none_is_the_users_mistake(home: Home, model: LocalSpec, address: str) -> None:
    from assay.core import errors

    with pytest.raises(errors.AssayError, match=r"ASSAY_SCHEDULER_ADDRESS"):
        score(convert(home, records(1)), model, home, workers=ClusterOptions(scheduler_address=address))


@pytest.mark.faults
@pytest.mark.parametrize("harm", [fakes.POISON, fakes.HUNGRY])
def test_a_record_that_kills_every_worker_is_found_and_the_rest_is_scored(
    home: Home, model: LocalSpec, harm: str
) -> None:
    bad = records(1, mark=harm, first=7)
    converted = convert(home, [*records(7), *bad, *records(8, first=8)])
    heard = Heard()
    scored, work = score(converted, model, home, heard=heard)
    assert scored.failed == {"killed_workers": 2}
    assert work.turns_scored == 30
    frame = values(scored, home)
    assert frame.filter(pl.col("reason").is_not_null())["row"].to_list() == [7, 7]
    assert any("kills its worker" in line for line in heard.lines)
    assert not stages.scores_are_current(converted, model, scored, home), (
        "another day might do better: never taken from a cache"
    )


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["truncated", "emptied", "one bit"])
def test_a_damaged_segment_is_set_aside_and_its_turns_scored_again(
    home: Home, model: LocalSpec, damage: str
) -> None:
    converted = convert(home, records(20))
    scored, _ = score(converted, model, home)
    before = store_files(home)
    assert stages.scores_are_current(converted, model, scored, home)
    victim = sorted(home.scores.rglob("*.parquet"))[0]
    content = bytearray(victim.read_bytes())
    if damage == "one bit":
        content[len(content) // 2] ^= 4
    victim.write_bytes({"truncated": bytes(content[:-20]), "emptied": b"", "one bit": bytes(content)}[damage])
    assert stages.scores_are_current(converted, model, scored, home), "no value of it would be read"
    heard = Heard()
    again, work = score(converted, model, home, heard=heard)
    assert again == scored
    assert 0 < work.turns_scored < 40
    assert any("damaged" in line and victim.name in line for line in heard.lines)
    whole = {name: data for name, data in store_files(home).items() if data == before.get(name)}
    assert whole == before, "the plan that made the segment makes it again, to the byte"


def _score_in_child(converted: Converted, model: LocalSpec, home: Home) -> None:
    os.setpgid(0, 0)
    score(converted, model, home)


@pytest.mark.faults
def test_a_killed_driver_leaves_no_process_and_only_what_is_missing_is_scored(
    home: Home, model: LocalSpec, tmp_path: Path, spawn: Spawn
) -> None:
    conversations = records(40, mark=fakes.SLOW)
    converted = convert(home, conversations)
    for segments in (3, 7):
        child = spawn(_score_in_child, converted, model, home)
        wait(partial(_has_segments, home, segments))
        assert child.pid is not None
        family = psutil.Process(child.pid).children(recursive=True)
        child.kill()
        child.join()
        wait(partial(gone, family), 20)
    finished = {key.hex() for name in store_files(home) for key in _keys(home, name)}
    calls_before = len(fakes.calls(Path(model.folder)))
    scored, work = score(converted, model, home)
    assert work.resumed_plan
    new_calls = fakes.calls(Path(model.folder))[:]
    assert work.turns_scored == 80 - len(finished)
    assert len(new_calls) - calls_before == 80 - len(finished)

    undisturbed = Home(tmp_path / "undisturbed")
    reference, _ = score(convert(undisturbed, conversations), model, undisturbed)
    assert reference == scored
    assert store_files(undisturbed) == store_files(home)
    assert not list(home.root.rglob("*.tmp"))


def _has_segments(home: Home, count: int) -> bool:
    return len(store_files(home)) >= count


def _keys(home: Home, name: str) -> list[bytes]:
    (path,) = home.scores.glob(f"*/{name}")
    return pl.read_parquet(path)["key"].to_list()


@pytest.mark.faults
def test_a_killed_worker_costs_its_own_shard_only(home: Home, model: LocalSpec, spawn: Spawn) -> None:
    converted = convert(home, records(40, mark=fakes.SLOW))
    child = spawn(_score_in_child, converted, model, home)
    folder = Path(model.folder)
    wait(lambda: len(list(folder.glob("calls-*.log"))) >= 2)
    victim = int(sorted(folder.glob("calls-*.log"))[0].stem.removeprefix("calls-"))
    os.kill(victim, signal.SIGKILL)
    child.join(60)
    assert child.exitcode == 0
    calls = fakes.calls(folder)
    assert len(set(calls)) == 80
    assert len(calls) - len(set(calls)) <= 12, "more than the one shard under way ran again"
    _, work = score(converted, model, home)
    assert work.turns_scored == 0


@pytest.mark.faults
def test_two_runs_on_one_store_score_nothing_twice(home: Home, model: LocalSpec, spawn: Spawn) -> None:
    shared = records(20, mark=fakes.SLOW)
    first = convert(home, shared)
    child = spawn(_score_in_child, first, model, home)
    wait(lambda: (home.plans / model.fingerprint).exists())
    heard = Heard()
    wider, work = score(convert(home, [*shared, *records(2, first=60)]), model, home, heard=heard)
    child.join(60)
    calls = fakes.calls(Path(model.folder))
    assert len(calls) == len(set(calls)) == 44
    assert work.turns_scored == 4
    assert wider.failed == {}
    assert any("another run is scoring" in line for line in heard.lines)


@pytest.mark.faults
def test_a_worker_that_is_stopped_is_done_without_and_does_no_harm_when_it_goes_on(
    home: Home, model: LocalSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cluster._SETTINGS, "distributed.scheduler.worker-ttl", "2s")
    folder = Path(model.folder)
    held = Record(1, chat("question", f"answer that {fakes.HELD} released"))
    texts = [held, *records(30, mark=fakes.SLOW, first=1)]
    stopped: list[psutil.Process] = []

    def stop_one_for_a_while() -> None:
        wait(lambda: len(list(folder.glob("calls-*.log"))) >= 2)
        found = re.fullmatch(r"calls-(\d+)", sorted(folder.glob("calls-*.log"))[0].stem)
        assert found is not None
        stopped.append(psutil.Process(int(found[1])))
        stopped[0].suspend()
        wait(lambda: len(set(fakes.calls(folder))) == 60)
        # It is replaced, or has time for whatever it does late.
        with suppress(psutil.NoSuchProcess):
            stopped[0].resume()
            time.sleep(2)

    def stop_one_and_release_the_rest() -> None:
        try:
            stop_one_for_a_while()
        finally:
            (folder / "released").touch()

    with ThreadPoolExecutor() as threads:
        stopping = threads.submit(stop_one_and_release_the_rest)
        scored, _ = score(
            convert(home, texts), model, home, workers=ClusterOptions(workers=3), shard_tokens=1
        )
        stopping.result()
    assert scored.failed == {}
    keys = [key for name in store_files(home) for key in _keys(home, name)]
    assert len(keys) == len(set(keys)) == 61
    undisturbed = Home(tmp_path / "undisturbed")
    reference, _ = score(convert(undisturbed, texts), model, undisturbed, shard_tokens=1)
    assert reference == scored
    assert store_files(undisturbed) == store_files(home)
    wait(lambda: gone(stopped), 20)


@pytest.mark.faults
def test_of_two_runs_on_one_store_each_may_be_killed(
    home: Home, model: LocalSpec, tmp_path: Path, spawn: Spawn
) -> None:
    shared = records(30, mark=fakes.SLOW)
    first, second = convert(home, shared), convert(home, [*shared, *records(4, first=60)])
    killed = 0
    for segments in (2, 5):
        working = spawn(_score_in_child, first, model, home)
        wait(partial(_has_segments, home, segments))
        waiting = spawn(_score_in_child, second, model, home)
        time.sleep(1)
        for child in (working, waiting):
            assert child.pid is not None
            family = psutil.Process(child.pid).children(recursive=True)
            child.kill()
            child.join()
            wait(partial(gone, family), 20)
            killed += 1
    assert killed == 4
    both = [spawn(_score_in_child, converted, model, home) for converted in (first, second)]
    for child in both:
        child.join(120)
        assert child.exitcode == 0
    keys = [key for name in store_files(home) for key in _keys(home, name)]
    assert len(keys) == len(set(keys)) == 68
    undisturbed = Home(tmp_path / "undisturbed")
    for converted in (first, second):
        scored, work = score(converted, model, home)
        assert work.turns_scored == 0
        alone = convert(undisturbed, shared if converted is first else [*shared, *records(4, first=60)])
        reference, _ = score(alone, model, undisturbed)
        assert values(scored, home).equals(values(reference, undisturbed))
    assert not list(home.root.rglob("*.tmp"))


def test_a_run_that_waits_for_another_can_be_stopped(home: Home, model: LocalSpec) -> None:
    class Enough(Exception):
        pass

    def leave() -> None:
        raise Enough

    store = ScoreStore(home, model.fingerprint, model.attributes)
    heard = Heard()
    with (
        store.planning(RunContext(home, heard)),
        pytest.raises(Enough),
        store.planning(RunContext(home, heard, leave)),
    ):
        pytest.fail("two plan at once")
    assert len(heard.lines) == 1
    with store.planning(RunContext(home, heard, leave)):
        assert len(heard.lines) == 1


@pytest.mark.faults
def test_with_every_worker_gone_the_run_ends_within_the_stated_time(
    home: Home, model: LocalSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import LocalCluster

    from assay.core import errors

    monkeypatch.setattr(dispatch.dispatch, "__kwdefaults__", {"no_workers_seconds": 2.0})
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    ) as running:
        address = ClusterOptions(scheduler_address=running.scheduler_address)
        converted = convert(home, records(10, mark=fakes.SLOW))
        nanny = next(iter(running.workers.values()))

        def stop_all(self: Heard, count: int = 1, **details: object) -> None:
            running.scale(0)

        monkeypatch.setattr(Heard, "advance", stop_all)
        began = time.monotonic()
        with pytest.raises(errors.ClusterFault, match="all Dask workers are gone"):
            score(converted, model, home, workers=address)
        assert time.monotonic() - began < 30
        assert nanny.status.name in ("closed", "closing", "closing_gracefully")


def test_the_scheduler_is_asked_for_the_number_of_workers_now_and_then_and_never_for_a_list(
    home: Home, model: LocalSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    asked: list[dict[str, int]] = []
    ask = Client.scheduler_info

    def counted(self: Client, **options: int) -> object:
        asked.append(options)
        return ask(self, **options)

    monkeypatch.setattr(Client, "scheduler_info", counted)
    began = time.monotonic()
    _, work = score(convert(home, records(60)), model, home, shard_tokens=1)
    assert len(work.shards) == 60
    assert asked
    assert all(options == {"n_workers": 0} for options in asked)
    assert len(asked) <= 2 + time.monotonic() - began


def test_no_scheduler_at_the_address_is_one_clear_line(home: Home, model: LocalSpec) -> None:
    from assay.core import errors

    nowhere = ClusterOptions(scheduler_address="tcp://127.0.0.1:9")
    with pytest.raises(errors.ClusterFault, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        score(convert(home, records(1)), model, home, workers=nowhere)


def test_segments_older_than_a_column_are_read_with_newer_ones(
    home: Home, model: LocalSpec, no_cluster: Callable[[], None]
) -> None:
    first, more = records(3), records(5)
    old, _ = score(convert(home, first), model, home, workers=ClusterOptions(workers=1))
    for path in (home.scores / model.fingerprint).glob("*.parquet"):
        older = path.with_suffix(".older")
        pl.read_parquet(path).drop("tokens").write_parquet(older)
        path.unlink()
        older.rename(path.with_name(f"{digest_of_file(older)}.parquet"))
    calls = len(fakes.calls(Path(model.folder)))
    both, work = score(convert(home, more), model, home, workers=ClusterOptions(workers=1))
    assert work.turns_scored == 4
    assert len(fakes.calls(Path(model.folder))) == calls + 4, "what was paid for is not asked again"
    assert values(both, home).height == 10
    no_cluster()
    again, _ = score(convert(home, first), model, home)
    assert values(again, home).drop("tokens").equals(values(old, home).drop("tokens"))
