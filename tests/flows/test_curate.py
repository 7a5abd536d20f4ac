"""The main job from its command line: results, reruns, refusals, and what Prefect's pages show."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import fakes
import polars as pl
import pytest
from curate_runs import Ran, figures_of, line
from places import ROOT
from planted import Bomb

from assay.core.digests import digest_of_bytes
from assay.core.errors import Resumable
from assay.export.folder import OutputFolder, is_page
from assay.score.scoring import SCORE, ToScore
from assay.storage.manifests import Scored
from assay.storage.stage import RunContext
from flows.curate import prepare
from tasks import score as task_module

STAGES = ["ingest", "convert", "score", "filter", "export", "report"]


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """Twelve records: ten good ones, a repetition, a line that is no JSON."""
    path = tmp_path / "chats.jsonl"
    lines = [line(f"question {n}", f"answer {n}") for n in range(10)]
    path.write_text("\n".join([*lines, lines[0], "{no json"]) + "\n")
    return path


def calls(tmp_path: Path) -> int:
    return len(fakes.calls(tmp_path / "model"))


def test_a_run_accounts_for_every_record_and_shows_it_in_prefect(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path
) -> None:
    ran = curate("--input", chats, "--export", "steerlm", "messages")
    assert ran.code == 0, ran.err
    manifest = ran.manifest
    assert manifest["rows"] == {"read": 12, "kept": 11, "dropped": 0, "quarantined": 1}
    assert manifest["turns"] == {"scored": 10, "reused": 1, "failed": 0}
    assert manifest["complete"] is True
    assert set(manifest["seconds"]) >= {"ingest", "convert", "score", "filter", "export", "report"}
    assert manifest["report"] == "report.html"
    assert is_page(ran.output / "report.html")
    assert set(ran.files()) == {
        "README.md",
        "labeled.jsonl",
        "messages.jsonl",
        "quarantine.jsonl",
        "decisions.parquet",
        "scores.parquet",
    }
    assert calls(tmp_path) == 10
    assert "kept" in ran.out
    assert "Traceback" not in ran.err
    assert ran.task_states() == dict.fromkeys(STAGES, "Completed")
    artifacts = {key.rpartition("-out-")[0]: one for key, one in ran.artifacts().items()}
    assert {"scoring", "shards", "flow", "scores-helpfulness", "summary"} <= set(artifacts)
    assert float(artifacts["scoring"].data) == 100.0
    assert sum(row["turns"] for row in json.loads(artifacts["shards"].data)) == 10
    assert "Records" in artifacts["summary"].data


def test_the_same_again_computes_nothing_and_prefect_shows_cached(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path
) -> None:
    first = curate("--input", chats)
    files = first.files()
    again = curate("--input", chats)
    assert again.code == 0
    assert again.files() == files
    assert again.manifest["turns"] == {"scored": 0, "reused": 11, "failed": 0}
    assert calls(tmp_path) == 10
    cached = dict.fromkeys(["convert", "score", "filter", "export"], "Cached")
    assert again.task_states() == {"ingest": "Completed", **cached, "report": "Completed"}
    assert again.err.count("cached") == 4


def test_a_changed_rule_only_filters(curate: Callable[..., Ran], chats: Path, tmp_path: Path) -> None:
    curate("--input", chats)
    changed = curate("--input", chats, "--keep", "helpfulness > 100")
    assert changed.manifest["rows"] == {"read": 12, "kept": 0, "dropped": 11, "quarantined": 1}
    assert calls(tmp_path) == 10
    states = changed.task_states()
    assert (states["convert"], states["score"], states["filter"]) == ("Cached", "Cached", "Completed")


def test_another_output_is_written_from_what_is_known(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path
) -> None:
    first = curate("--input", chats)
    second = curate("--input", chats, output="second")
    assert second.files() == first.files()
    assert second.task_states()["export"] == "Completed"
    assert calls(tmp_path) == 10


@pytest.mark.parametrize("stage", ["convert", "score", "filter"])
@pytest.mark.parametrize("harm", ["gone", "altered"])
def test_a_stage_whose_files_are_not_as_written_runs_again(
    curate: Callable[..., Ran], chats: Path, assay_home: Path, stage: str, harm: str
) -> None:
    files = curate("--input", chats).files()
    victim = sorted((assay_home / "artifacts" / stage).rglob("*.parquet"))[-1]
    data = victim.read_bytes()
    if harm == "gone":
        victim.unlink()
    else:
        victim.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    again = curate("--input", chats)
    assert again.code == 0, again.err
    assert again.files() == files
    assert f"{stage}: files of an earlier run are missing or altered" in again.err
    assert again.task_states()[stage] == "Completed"
    assert victim.read_bytes() == data


@pytest.mark.parametrize("strike", ["a pickle", "cut", "flipped"])
def test_kept_files_that_are_all_struck_are_not_loaded_and_change_no_result(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path, assay_home: Path, strike: str
) -> None:
    first = curate("--input", chats)
    kept = [path for path in assay_home.rglob("*") if path.is_file() and path.name != ".lock"]
    places = {path.relative_to(assay_home).parts[0] for path in kept}
    assert places >= {"artifacts", "manifests", "scores", "plans"}
    for path in kept:
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(
            {
                "a pickle": pickle.dumps(Bomb(tmp_path / "ran")),
                "cut": data[:-7],
                "flipped": data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :],
            }[strike]
        )
    again = curate("--input", chats)
    assert again.code == 0, again.err
    assert "Traceback" not in again.err
    for told in ("convert: ", "score: ", "filter: ", "score store: segment "):
        assert any(line.startswith(told) for line in again.err.splitlines()), told
    assert again.files() == first.files()
    assert not (tmp_path / "ran").exists()


def test_what_a_run_makes_is_for_its_user_alone(
    curate: Callable[..., Ran], chats: Path, assay_home: Path
) -> None:
    before = os.umask(0)
    try:
        ran = curate("--input", chats, output="new/out")
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert ran.code == 0, ran.err
    made = [assay_home, *assay_home.rglob("*"), ran.output, ran.output.parent]
    assert [str(path) for path in made if path.stat().st_mode & 0o077] == []
    assert (assay_home / "manifests").is_dir()


def test_a_result_that_someone_changed_is_written_again(curate: Callable[..., Ran], chats: Path) -> None:
    first = curate("--input", chats)
    files = first.files()
    (first.output / "labeled.jsonl").write_text("changed\n")
    again = curate("--input", chats)
    assert again.files() == files
    assert again.task_states()["export"] == "Completed"


def test_a_dry_run_writes_nothing_to_the_output(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path
) -> None:
    ran = curate("--input", chats, "--dry-run")
    assert ran.code == 0, ran.err
    assert not ran.output.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"assay-home", "chats.jsonl", "model"}
    figures = figures_of(ran)
    assert figures["records"] == "12"
    assert figures["turns"] == "11"
    assert figures["left to score"] == "10"
    assert calls(tmp_path) == 0
    curate("--input", chats)
    figures = figures_of(curate("--input", chats, "--dry-run"))
    assert (figures["of these already scored by fake"], figures["left to score"]) == ("10", "0")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of comma-separated values, named by mistake."""
    path = tmp_path / "table.jsonl"
    path.write_text("id,prompt,answer\nx1,\x1b[2Jhello,world\nx2,a,b\nx3,c,d\n")
    return path


def test_a_run_that_could_use_nothing_replaces_nothing(
    curate: Callable[..., Ran], chats: Path, table: Path, tmp_path: Path
) -> None:
    good = curate("--input", chats).files()
    for attempt in range(2):
        ran = curate("--input", table)
        assert ran.code == 1, ran.err
        assert ran.files() == good
        assert f"{ran.output} stays as it was; what this run wrote is in {ran.output}.unusable" in ran.err
        assert "table.jsonl:1 (not_json): id,prompt,answer" in ran.err
        assert "table.jsonl:3 (not_json): x2,a,b" in ran.err
        assert "\x1b" not in ran.err
        assert f"Results in {ran.output}.unusable" in ran.out
        written = json.loads((tmp_path / "out.unusable/manifest.json").read_bytes())
        assert written["rows"] == {"read": 4, "kept": 0, "dropped": 0, "quarantined": 4}
        assert len((tmp_path / "out.unusable/quarantine.jsonl").read_bytes().splitlines()) == 4
        if attempt == 0:
            # What a run that was killed left of the folder beside is removed by the next one.
            (tmp_path / (".out.unusable.staging-" + "0" * 16)).mkdir()
    assert {path.name for path in tmp_path.iterdir()} >= {".out.lock", ".out.unusable.lock"}
    assert not [path.name for path in tmp_path.iterdir() if "staging" in path.name]


def test_what_could_not_be_used_is_written_to_the_output_where_nothing_is_there(
    curate: Callable[..., Ran], chats: Path, table: Path, tmp_path: Path
) -> None:
    for arguments in ([], ["--stop-after", "convert"], ["--stop-after", "score"]):
        ran = curate("--input", table, *arguments)
        assert ran.code == 1, ran.err
        assert ran.manifest["unusable"].startswith("No record could be used: not_json (4 of 4).")
        assert not (tmp_path / "out.unusable").exists()
    assert curate("--input", chats).code == 0
    assert ran.manifest["rows"]["kept"] == 11


def test_a_folder_of_somebody_elses_in_the_place_beside_is_not_touched(
    curate: Callable[..., Ran], chats: Path, table: Path, tmp_path: Path
) -> None:
    good = curate("--input", chats).files()
    (tmp_path / "out.unusable").mkdir()
    (tmp_path / "out.unusable/thesis.tex").touch()
    ran = curate("--input", table)
    assert ran.code == 1, ran.err
    assert "not ours to replace ('thesis.tex'" in ran.err
    assert "Traceback" not in ran.err
    assert ran.files() == good
    assert [path.name for path in (tmp_path / "out.unusable").iterdir()] == ["thesis.tex"]


def test_inputs_without_records_give_empty_files_and_replace_no_records(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    first = curate("--input", empty)
    assert first.code == 0, first.err
    assert first.files()["labeled.jsonl"] == b""
    good = curate("--input", chats).files()
    again = curate("--input", empty)
    assert again.code == 0, again.err
    assert again.files() == good
    assert f"what this run wrote is in {again.output}.unusable" in again.err
    assert (tmp_path / "out.unusable/labeled.jsonl").read_bytes() == b""


def test_turns_that_no_score_was_found_for_replace_nothing(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path
) -> None:
    good = curate("--input", chats).files()
    hopeless = tmp_path / "hopeless.jsonl"
    hopeless.write_text(line("hello", fakes.UNSCORABLE) + "\n")
    ran = curate("--input", hopeless)
    assert ran.code == 1, ran.err
    assert "hopeless.jsonl:1 (not_finite): " in ran.err
    assert ran.files() == good


def test_a_run_whose_files_can_hold_nothing_that_was_kept_replaces_nothing(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path
) -> None:
    good = curate("--input", chats).files()
    tools = tmp_path / "tools.jsonl"
    roles = ("user", "tool", "assistant")
    tools.write_text(json.dumps({"messages": [{"role": role, "content": role} for role in roles]}) + "\n")
    for arguments in (["--export", "steerlm"], ["--stop-after", "convert"]):
        ran = curate("--input", tools, *arguments)
        assert ran.code == 1, ran.err
        assert "tool_message (1 of 1)" in ran.err
        assert "tools.jsonl:1 (tool_message): " in ran.err
        assert ran.files() == good
        beside = json.loads((tmp_path / "out.unusable/manifest.json").read_bytes())
        assert beside["rows"]["kept"] == 1
        assert [written["left_out"] for written in beside["exports"].values()] == [{"tool_message": 1}]
    mixed = curate("--input", tools, "--input", chats)
    assert mixed.code == 0, mixed.err
    assert "left out: tool_message" in mixed.out
    assert mixed.manifest["rows"]["kept"] == mixed.manifest["exports"]["steerlm"]["rows"] + 1
    whole = curate("--input", tools)
    assert whole.code == 0, whole.err
    assert "labeled.jsonl will hold no row: its trainer takes none (tool_message: 1 of 1)" in whole.err
    assert whole.manifest["exports"]["messages"]["rows"] == 1


def test_other_pairs_of_the_same_answers_score_nothing(
    curate: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed = replace(
        fakes.spec(tmp_path / "model", digest_of_bytes(os.fsencode(tmp_path))),
        factors=(("helpfulness", 1.0),),
    )
    monkeypatch.setattr(prepare, "find_model", lambda name, *known, **options: weighed)
    path = tmp_path / "candidates.jsonl"
    rows = [
        {"prompt": f"q{q}", "all_generated_responses": [f"answer {q}.{n}" for n in range(5)]}
        for q in range(2)
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    asked = ("--input", path, "--export", "trl-preference", "messages")
    first = curate(*asked)
    assert first.code == 0, first.err
    assert first.manifest["pairs"]["pairs"] == 2
    assert len((first.output / "trl/preference.jsonl").read_bytes().splitlines()) == 2
    second = curate(*asked, "--pairs", "all", "--min-margin", "0.1")
    assert second.code == 0, second.err
    assert second.manifest["turns"]["scored"] == 0
    pairs = second.manifest["pairs"]["pairs"]
    assert pairs > 2
    assert len((second.output / "trl/preference.jsonl").read_bytes().splitlines()) == pairs
    refused = curate("--input", path, "--export", "trl-kto")
    assert refused.code == 2
    assert "trl-kto is refused: No record is one side of a pair" in refused.err
    refused = curate("--input", path, "--desirable", "helpfulness >= 2", "--export", "messages")
    assert refused.code == 2
    assert "no export of this run holds such verdicts" in refused.err
    judged = curate("--input", path, "--export", "trl-kto", "--desirable", "helpfulness >= 2")
    assert judged.code == 0, judged.err
    assert judged.manifest["exports"]["trl-kto"]["rows"] == 10
    assert judged.manifest["turns"]["scored"] == 0
    assert (judged.output / "trl/kto.jsonl").exists()


def test_rules_that_keep_nothing_replace_what_was_there_and_are_warned_of(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path
) -> None:
    curate("--input", chats)
    ran = curate("--input", chats, "--keep", "helpfulness > 99")
    assert ran.code == 0, ran.err
    assert ran.manifest["rows"]["kept"] == 0
    assert "The rules keep no record: helpfulness > 99 drops 11 of 12." in ran.out
    # On standard error too: with --quiet nothing else says it.
    assert "warning: no record is kept, so the files for training hold no row" in ran.err
    assert not (tmp_path / "out.unusable").exists()


def test_a_dry_run_that_could_use_nothing_says_so_and_exits_as_the_run_would(
    curate: Callable[..., Ran], table: Path, tmp_path: Path
) -> None:
    ran = curate("--input", table, "--dry-run")
    assert ran.code == 1, ran.err
    assert "table.jsonl:1 (not_json): id,prompt,answer" in ran.err
    assert not ran.output.exists()


def test_a_release_of_nothing_that_could_be_used_is_none(
    curate: Callable[..., Ran], table: Path, chats: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        ran = curate("--input", table, "--release", output="nightly")
        assert ran.code == 1, ran.err
        (beside,) = [path for path in ran.output.iterdir() if not path.name.startswith(".")]
        assert beside.name.endswith(".unusable")
        assert f"{ran.output} stays as it was; what this run wrote is in {beside}" in ran.err
    ran = curate("--input", table, chats, "--release", output="nightly")
    assert ran.code == 0, ran.err
    (release,) = [path for path in ran.output.iterdir() if not path.name.startswith((".", beside.name))]
    manifest = json.loads((release / "manifest.json").read_bytes())
    assert manifest["rows"]["read"] == 4 + 12, "its inputs are new until a release holds them"


def test_a_run_can_stop_after_convert_or_score(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path
) -> None:
    converted = curate("--input", chats, "--stop-after", "convert", output="converted")
    assert converted.code == 0, converted.err
    assert "converted.jsonl" in converted.files()
    assert set(converted.task_states()) == {"ingest", "convert", "filter", "export", "report"}
    assert converted.manifest["rows"] == {"read": 12, "kept": 11, "dropped": 0, "quarantined": 1}
    assert calls(tmp_path) == 0
    scored = curate("--input", chats, "--stop-after", "score", output="scored")
    assert scored.manifest["rows"]["dropped"] == 0
    assert set(scored.files()) == {"quarantine.jsonl", "decisions.parquet", "scores.parquet"}


def test_a_run_that_stops_early_refuses_what_it_would_not_use(
    curate: Callable[..., Ran], chats: Path
) -> None:
    for stage in ("convert", "score"):
        asked = ("--keep", "helpfulness > 2", "--export", "messages")
        ran = curate("--input", chats, "--stop-after", stage, *asked)
        assert ran.code == 2
        assert ran.err == (
            f"error: --stop-after {stage} stops before --keep 'helpfulness > 2' and --export messages would "
            "be used. Leave out the one or the other.\n"
        )


def test_names_in_errors_cannot_command_the_terminal(curate: Callable[..., Ran], tmp_path: Path) -> None:
    ran = curate("--input", tmp_path / "a\x1b]0;x\x07.jsonl")
    assert ran.code == 2
    assert "a\ufffd]0;x\ufffd.jsonl: there is no such file" in ran.err


def test_an_input_that_was_cut_short_gives_its_whole_records_and_exit_1(
    curate: Callable[..., Ran], tmp_path: Path
) -> None:
    path = tmp_path / "cut.jsonl.gz"
    text = "".join(line(f"q{n}", os.urandom(200).hex()) + "\n" for n in range(50))
    path.write_bytes(gzip.compress(text.encode())[:-3000])
    damaged = tmp_path / "damaged.parquet"
    rows = [f"row {n}" for n in range(30)]
    pl.DataFrame({"prompt": rows, "response": rows}).write_parquet(damaged, row_group_size=10)
    data = bytearray(damaged.read_bytes())
    data[4:40] = bytes(36)
    damaged.write_bytes(data)
    inputs = ("--input", path, "--input", damaged)
    for ran in (curate(*inputs, "--dry-run"), curate(*inputs)):
        assert ran.code == 1
        err = " ".join(ran.err.split())
        assert (
            "cut.jsonl.gz is cut short: the gzip data end in the middle; 1 record of it is in quarantine"
            in err
        )
        assert "damaged.parquet is damaged: row group 1 of 3 cannot be read (" in err
        assert "10 records of it are in quarantine" in err
        assert "Traceback" not in ran.err
    assert ran.manifest["complete"] is False
    assert 40 < ran.manifest["rows"]["kept"] < 70
    quarantined = [json.loads(each) for each in ran.files()["quarantine.jsonl"].splitlines()]
    told = Counter((entry["file"], entry["reason"].partition(":")[0]) for entry in quarantined)
    assert told == {(str(path), "cut_short"): 1, (str(damaged), "damaged_row_group"): 10}
    assert [one["quarantined"] for one in ran.manifest["shortfalls"]] == [1, 10]


def test_strict_stops_at_the_first_bad_record_with_its_place(curate: Callable[..., Ran], chats: Path) -> None:
    ran = curate("--input", chats, "--strict")
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith(f"error: {chats}:12: not_json")
    assert "Traceback" not in ran.err
    assert not ran.output.exists()


def test_strict_stops_for_a_turn_that_cannot_be_scored_too(
    curate: Callable[..., Ran], tmp_path: Path
) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(f"{line('q', 'a')}\n\n{line('q', fakes.UNSCORABLE)}\n")
    ran = curate("--input", path, "--strict")
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith(f"error: {path}:3: ")
    assert not ran.output.exists()
    assert curate("--input", path).manifest["rows"]["quarantined"] == 1


def test_a_run_does_not_read_what_the_run_before_it_wrote(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    chats.rename(tmp_path / "data" / "chats.jsonl")
    first, again = (
        curate("--input", tmp_path / "data", "--export", "messages", output="data/out") for _ in range(2)
    )
    assert (first.code, again.code) == (0, 0), again.err
    assert "out: holds the results of a run, which are not read" in again.err
    assert again.manifest["inputs"] == first.manifest["inputs"]
    messages = again.output / "messages.jsonl"
    before = messages.read_bytes()
    refused = curate("--input", messages, output="data/out")
    assert refused.code == 2
    assert "lies in the output folder" in refused.err
    assert messages.read_bytes() == before


def test_a_mistake_that_only_ingest_finds_is_one_line_and_exit_2(
    curate: Callable[..., Ran], tmp_path: Path
) -> None:
    (tmp_path / "archive.jsonl").write_bytes(b"PK\x03\x04 and so on")
    ran = curate("--input", tmp_path / "archive.jsonl")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("error: ")
    assert "zip" in ran.err
    assert "Traceback" not in ran.err
    assert not ran.output.exists()


def test_an_output_that_another_run_holds_is_refused_with_who_holds_it(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path
) -> None:
    with OutputFolder(tmp_path / "out").held():
        ran = curate("--input", chats)
    assert ran.code == 2
    assert f"process {os.getpid()}" in ran.err
    assert curate("--input", chats).code == 0


def test_a_resumable_stop_is_exit_75(
    curate: Callable[..., Ran], chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(given: ToScore, context: RunContext) -> NoReturn:
        raise Resumable("the service asks to wait an hour; the same command goes on from there")

    monkeypatch.setattr(task_module, "SCORE", dataclasses.replace(SCORE, run=stopped))
    ran = curate("--input", chats)
    assert ran.code == 75
    assert ran.err.splitlines()[-1].startswith("error: the service asks")


def test_of_several_models_each_keeps_its_scores_where_another_fails(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first model fails; the second is still asked, and what it gave is not asked for again."""
    specs = {
        name: fakes.spec(tmp_path / name, digest_of_bytes(os.fsencode(tmp_path / name)))
        for name in ("judge", "guard")
    }
    monkeypatch.setattr(prepare, "find_model", lambda name, *known, **options: specs[name])
    run = SCORE.run

    def stopped(given: ToScore, context: RunContext) -> Scored:
        if given.model is specs["judge"]:
            raise Resumable("the judge asks to wait; the same command goes on from there")
        return run(given, context)

    asked = ("--input", chats, "--model", "a=judge", "--model", "b=guard", "--export", "messages")
    with monkeypatch.context() as failing:
        failing.setattr(task_module, "SCORE", dataclasses.replace(SCORE, run=stopped))
        ran = curate(*asked)
    assert ran.code == 75, ran.err
    assert "error: a: the judge asks to wait" in ran.err
    assert [len(fakes.calls(tmp_path / name)) for name in specs] == [0, 10]

    ran = curate(*asked, "--by", "a.helpfulness", "--keep", "rank(a.helpfulness) == 1 and b.verbosity >= 0")
    assert ran.code == 0, ran.err
    assert [len(fakes.calls(tmp_path / name)) for name in specs] == [10, 10]
    manifest = ran.manifest
    assert manifest["model"] is None
    assert {alias: one["fingerprint"] for alias, one in manifest["models"].items()} == {
        "a": specs["judge"].fingerprint,
        "b": specs["guard"].fingerprint,
    }
    assert manifest["turns"] == {"scored": 10, "reused": 12, "failed": 0}
    assert manifest["rows"]["kept"] == 11
    assert set(manifest["seconds"]) >= {"score a", "score b"}
    rated = [json.loads(row) for row in (ran.output / "messages.jsonl").read_text().splitlines()]
    scores = pl.read_parquet(ran.output / "scores.parquet")
    attributes = [f"{alias}.{name}" for alias in "ab" for name in ("helpfulness", "verbosity")]
    assert set(attributes) < set(scores.columns)
    assert [row["score"] for row in rated] == [row["scores"][-1]["a.helpfulness"] for row in rated]
    assert scores["score"].to_list() == scores["a.helpfulness"].to_list()
    card = (ran.output / "README.md").read_text()
    assert specs["judge"].fingerprint in card
    assert specs["guard"].fingerprint in card
    dry = curate(*asked, "--dry-run")
    assert "fake" in dry.out

    refused = curate("--input", chats, "--model", "a=judge", "--model", "b=guard", "--export", "steerlm")
    assert refused.code == 2
    assert "a.helpfulness and b.helpfulness, " in refused.err


def test_a_rerun_loads_neither_dask_nor_torch(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path, prefect_api: str, assay_home: Path
) -> None:
    first = curate("--input", chats)
    script = (
        "import sys, fake_curate; "
        "from flows.curate import prepare; prepare.find_model = fake_curate.fake_model; "
        "from flows.command import launch, curate; code = launch.launch(curate.COMMAND, sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'distributed', 'dask', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(code)"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "flows"))),
        "FAKE_MODEL": str(tmp_path / "model"),
        "FAKE_FINGERPRINT": digest_of_bytes(os.fsencode(tmp_path)),
        "PREFECT_API_URL": prefect_api,
    }
    done = subprocess.run(
        [sys.executable, "-c", script, "--input", str(chats), "--output", str(first.output)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "score    cached" in done.stderr


def test_hidden_reasoning_is_kept_and_what_was_rated_without_it_is_not_rated_again(
    curate: Callable[..., Ran], tmp_path: Path
) -> None:
    call = {"type": "function", "function": {"name": "tide", "arguments": {}}}
    asked = {"role": "user", "content": "High water?"}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    said = {"role": "assistant", "content": "At six."}
    reasoned = {**said, "content": "<think>Hm.</think>At six.", "weight": 0}
    rows: list[dict[str, Any]] = [
        {"messages": [asked, said]},
        {"messages": [asked, reasoned]},
        {"messages": [asked, called, {"role": "tool", "content": "6"}, said], "tools": [call]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    shown = curate("--input", path, "--export", "messages")
    assert shown.code == 0, shown.err
    assert shown.manifest["turns"] == {"scored": 3, "reused": 0, "failed": 0}
    assert shown.manifest["reasoning_turns"] == 1
    assert "1 turn holds reasoning, of which the model was shown what its chat template" in shown.out
    hidden = curate("--input", path, "--export", "messages", "--hide-reasoning")
    assert hidden.code == 0, hidden.err
    assert hidden.manifest["turns"] == {"scored": 0, "reused": 3, "failed": 0}
    assert hidden.manifest["reasoning_turns"] == 1
    assert "1 turn holds reasoning, which the model was not shown." in hidden.out
    for ran in (shown, hidden):
        lines = [json.loads(one) for one in ran.files()["messages.jsonl"].splitlines()]
        assert [[message["content"] for message in one["messages"]] for one in lines] == [
            [message["content"] for message in row["messages"]] for row in rows
        ]
        assert [json.loads(one["tools"]) for one in lines] == [[], [], [call]]
    config = tmp_path / "hidden.yaml"
    config.write_text("hide-reasoning: true\n")
    again = curate("--input", path, "--export", "messages", "--config", config)
    assert again.files() == hidden.files()
    assert again.task_states()["convert"] == "Cached"
