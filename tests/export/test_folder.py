from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import manifests
import msgspec
import pytest
from killing import killed_at

from assay.core.digests import digest_of_file
from assay.core.errors import AssayError, OutputRefused, UserMistake
from assay.export.folder import OutputFolder
from assay.storage.manifests import Counts
from assay.storage.private import private
from assay.storage.run_manifest import RUN_MANIFEST as MANIFEST
from assay.storage.run_manifest import ExportedFile, RunManifest, run_manifest_in

OLD = {"labeled.jsonl": b"old\n", "dropped-since.parquet": b"older"}
NEW = {"labeled.jsonl": b"new\n", "scores.parquet": b"newer"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "out"


def fill(staging: Path, contents: Mapping[str, bytes]) -> dict[str, ExportedFile]:
    for name, data in contents.items():
        (staging / name).parent.mkdir(exist_ok=True)
        (staging / name).write_bytes(data)
    return {
        name: ExportedFile(digest_of_file(staging / name), len(data), 1) for name, data in contents.items()
    }


def manifest(files: Mapping[str, ExportedFile], run: str = "run") -> RunManifest:
    return manifests.made(files=files, options={"output": "out", "run": run})


def export(path: Path, contents: Mapping[str, bytes], run: str = "run") -> dict[str, ExportedFile]:
    folder = OutputFolder(path)
    folder.check()
    with folder.held():
        folder.repair()
        staging = folder.staging()
        files = fill(staging, contents)
        folder.publish(staging, manifest(files, run))
    return files


def contents_of(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.name != MANIFEST and file.is_file()
    }


def beside(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir() if entry != path)


def refusal(path: str | Path) -> str:
    with pytest.raises(OutputRefused) as caught:
        OutputFolder(path).check()
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, UserMistake)
    return str(caught.value)


def test_a_new_folder_is_published_whole_and_private(out: Path) -> None:
    files = export(out, NEW)
    assert contents_of(out) == NEW
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert stat.S_IMODE(out.parent.stat().st_mode) == 0o700
    assert OutputFolder(out).holds(files)
    assert beside(out) == [".out.lock"]


def test_an_export_replaces_the_one_before_and_nothing_of_it_stays(out: Path) -> None:
    export(out, OLD)
    export(out, NEW)
    assert contents_of(out) == NEW
    assert beside(out) == [".out.lock"]


NESTED = {"messages.jsonl": b"new\n", "trl/sft.jsonl": b"sft\n", "trl/kto.jsonl": b"kto\n"}


def test_a_folder_a_trainer_is_published_and_replaced_with_the_rest(out: Path) -> None:
    export(out, {**NESTED, "axolotl/sft.jsonl": b"old\n"})
    files = export(out, NESTED)
    assert contents_of(out) == NESTED
    assert OutputFolder(out).holds(files)
    (out / "trl" / "kto.jsonl").write_bytes(b"KTO\n")
    assert not OutputFolder(out).holds(files)
    assert stat.S_IMODE((out / "trl").stat().st_mode) == stat.S_IMODE(out.stat().st_mode)
    (out / "trl" / ".DS_Store").touch()
    OutputFolder(out).check()


@pytest.mark.parametrize("foreign", ["trl/notes.txt", "trl/deeper/notes.txt", "thesis/a.tex", "openai"])
def test_what_no_run_wrote_into_a_trainers_folder_is_not_lost(out: Path, foreign: str) -> None:
    export(out, NESTED)
    (out / foreign).parent.mkdir(exist_ok=True)
    (out / foreign).write_bytes(b"mine")
    assert repr(
        "/".join(foreign.split("/")[:2] if foreign.startswith("trl") else foreign.split("/")[:1])
    ) in (refusal(out))
    assert (out / foreign).read_bytes() == b"mine"


def test_a_link_in_place_of_a_trainers_folder_is_not_looked_into(out: Path, tmp_path: Path) -> None:
    export(out, NESTED)
    shutil.rmtree(out / "trl")
    (out / "trl").symlink_to(tmp_path)
    assert "'trl'" in refusal(out)


def test_a_folder_that_existed_keeps_its_permissions(out: Path) -> None:
    out.mkdir(parents=True)
    out.chmod(0o750)
    export(out, NEW)
    assert stat.S_IMODE(out.stat().st_mode) == 0o750


def test_results_have_the_rights_that_their_user_gives_to_new_files(out: Path) -> None:
    out.mkdir(parents=True)
    before = os.umask(0o027)
    try:
        with private():
            export(out, NEW)
            export(out, OLD)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o640}


def test_a_link_to_a_folder_stays_a_link(out: Path, tmp_path: Path) -> None:
    real = tmp_path / "disk" / "real"
    real.mkdir(parents=True)
    out.parent.mkdir()
    out.symlink_to(real)
    export(out, NEW)
    assert out.is_symlink()
    assert contents_of(real) == NEW


def test_checking_changes_nothing(out: Path, tmp_path: Path) -> None:
    OutputFolder(out).check()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_refused(out: Path) -> None:
    out.parent.mkdir()
    out.write_text("precious")
    assert "is a file" in refusal(out)


def test_a_path_through_a_file_is_refused(out: Path) -> None:
    out.parent.mkdir()
    out.write_text("precious")
    assert "cannot be written" in refusal(out / "below")


@pytest.mark.parametrize(
    "planted",
    [
        "{}",
        "[]",
        "not json",
        '{"assay": 1}',
        '{"name": "an npm package"}',
        '{"assay": "1", "files": []}',
        pytest.param('{"assay": ' + "[" * 50_000, id="nested"),
    ],
)
def test_a_folder_that_is_not_ours_is_refused(out: Path, planted: str) -> None:
    out.mkdir(parents=True)
    (out / MANIFEST).write_text(planted)
    assert "not ours to replace ('manifest.json'" in refusal(out)


def test_a_folder_with_other_peoples_files_is_refused_by_name(out: Path) -> None:
    out.mkdir(parents=True)
    for name in "thesis.tex", "b", "c", "d\x1b[2J":
        (out / name).touch()
    assert "('b', 'c', 'd\\x1b[2J' and 1 more;" in refusal(out)


def test_an_export_to_which_somebody_added_a_file_is_not_thrown_away(out: Path) -> None:
    export(out, OLD)
    (out / "notes.md").touch()
    assert "holds something that no run wrote and that would be lost ('notes.md')" in refusal(out)


def test_what_a_file_browser_left_stands_in_nobodys_way(out: Path) -> None:
    export(out, OLD)
    (out / ".DS_Store").touch()
    export(out, NEW)
    assert contents_of(out) == NEW


def test_the_root_and_names_that_are_too_long_are_refused(tmp_path: Path) -> None:
    assert "root of the file system" in refusal("/")
    assert "Shorten it" in refusal(tmp_path / ("x" * 240))


def test_the_folder_for_what_could_not_be_used_lies_beside(out: Path, tmp_path: Path) -> None:
    export(out, OLD)
    beside = OutputFolder(f"{out}/").unusable()
    assert beside.path == out.parent / "out.unusable"
    assert beside.shown == f"{out}.unusable"
    link = tmp_path / "link"
    link.symlink_to(out)
    assert OutputFolder(link).unusable().path == beside.path
    assert OutputFolder(link).unusable().shown == str(beside.path), "beside the folder, not beside the link"
    OutputFolder("x" * 220).unusable().check()


def test_a_link_in_the_place_of_the_folder_beside_is_not_followed(out: Path, tmp_path: Path) -> None:
    export(out, OLD)
    (tmp_path / "elsewhere").mkdir()
    (out.parent / "out.unusable").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputRefused, match="is a link, which is not followed"):
        OutputFolder(out).unusable().check()


@pytest.mark.parametrize(
    ("counts", "holds"),
    [
        (Counts(1, {}, {"not_json": 1}), True),
        (Counts(0, {"rule: quality > 3": 1}, {"not_json": 1}), True),
        (Counts(0, {"no_answer": 1}, {"not_json": 1}), False),
        (Counts(), False),
    ],
)
def test_results_hold_records_unless_their_manifest_says_that_none_could_be_used(
    out: Path, counts: Counts, holds: bool
) -> None:
    out.mkdir(parents=True)
    assert not OutputFolder(out).holds_records()
    (out / MANIFEST).write_bytes(msgspec.json.encode(manifests.of_counts(counts)))
    assert OutputFolder(out).holds_records() is holds


@pytest.mark.parametrize("more", [{"rows": "many"}, {}])
def test_results_whose_manifest_does_not_say_are_taken_to_hold_records(
    out: Path, more: Mapping[str, str]
) -> None:
    out.mkdir(parents=True)
    (out / MANIFEST).write_bytes(msgspec.json.encode({"assay": "0.1.0", **more}))
    assert OutputFolder(out).holds_records()


def test_leftovers_of_a_killed_run_are_seen(out: Path) -> None:
    beside = OutputFolder(out).unusable()
    assert not beside.has_leftovers()
    export(out, OLD)
    assert not beside.has_leftovers()
    (out.parent / (".out.unusable.staging-" + "0" * 16)).mkdir()
    assert beside.has_leftovers()
    assert not OutputFolder(out).has_leftovers()


def test_a_mount_point_is_refused() -> None:
    assert "is a mount point" in refusal("/proc")


def test_a_stranger_in_the_place_of_the_old_export_is_refused(out: Path) -> None:
    stranger = out.parent / ".out.old"
    stranger.mkdir(parents=True)
    (stranger / "precious").touch()
    assert "Move it" in refusal(out)
    assert (stranger / "precious").exists()


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder to which every user can walk, unlike pytest's own."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def check_as_nobody(path: Path) -> str:
    """What user nobody, who owns nothing here, is told of ``path``; a child's work."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become user nobody")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        said = "accepted"
        try:
            OutputFolder(path).check()
        except OutputRefused as refused:
            said = str(refused)
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.parametrize(("folder_mode", "parent_mode"), [(0o755, 0o777), (0o777, 0o755)])
def test_a_folder_that_this_user_cannot_write_is_refused_before_any_work(
    open_place: Path, folder_mode: int, parent_mode: int
) -> None:
    out = open_place / "runs" / "out"
    out.mkdir(parents=True)
    out.chmod(folder_mode)
    out.parent.chmod(parent_mode)
    said = check_as_nobody(out)
    assert f"{out}: cannot be written (" in said
    assert "Permission denied" in said
    assert "\n" not in said


def test_a_new_folder_below_one_that_cannot_be_written_is_refused(open_place: Path) -> None:
    assert "Permission denied" in check_as_nobody(open_place / "a" / "b")


def test_a_folder_that_nobody_may_look_into_is_refused(open_place: Path) -> None:
    (open_place / "closed").mkdir(mode=0o700)
    assert "Permission denied" in check_as_nobody(open_place / "closed" / "out")


def test_a_folder_of_another_user_in_a_sticky_folder_is_refused(open_place: Path) -> None:
    out = open_place / "shared" / "out"
    out.mkdir(parents=True)
    out.chmod(0o777)
    out.parent.chmod(0o1777)
    assert "belongs to another user" in check_as_nobody(out)
    assert check_as_nobody(out.parent / "own") == "accepted"


@pytest.mark.slow
def test_a_second_run_is_told_who_holds_the_folder(out: Path) -> None:
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\nfrom assay.export.folder import OutputFolder\n"
            "with OutputFolder(sys.argv[1]).held():\n    print('held', flush=True)\n    sys.stdin.read()",
            str(out),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "held\n"
        for _ in range(2):  # a refused run leaves the holder's name for the next one
            with pytest.raises(OutputRefused) as caught, OutputFolder(out).held():
                pass
            assert f"is in use by process {child.pid} on {os.uname().nodename}" in str(caught.value)
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    with OutputFolder(out).held():  # the lock of a dead holder is nobody's
        pass


def test_the_same_process_cannot_hold_a_folder_twice(out: Path) -> None:
    with OutputFolder(out).held(), pytest.raises(OutputRefused, match=f"process {os.getpid()}"):  # noqa: SIM117
        with OutputFolder(out).held():
            pass


def test_nothing_is_changed_without_the_lock(out: Path, tmp_path: Path) -> None:
    folder = OutputFolder(out)
    for act in (
        folder.repair,
        folder.staging,
        lambda: folder.publish(tmp_path, manifest({})),
        lambda: folder.refresh(manifest({})),
    ):
        with pytest.raises(RuntimeError, match="without its lock"):
            act()


def test_a_failed_run_leaves_no_staging_folder_and_the_old_export(out: Path) -> None:
    export(out, OLD)
    folder = OutputFolder(out)

    def interrupted() -> None:
        with folder.held():
            fill(folder.staging(), NEW)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert contents_of(out) == OLD
    assert beside(out) == [".out.lock"]


@pytest.mark.parametrize("before", [None, OLD])
def test_what_is_put_into_the_folder_while_a_run_works_is_not_thrown_away(
    out: Path, before: Mapping[str, bytes] | None
) -> None:
    if before:
        export(out, before)
    folder = OutputFolder(out)
    folder.check()
    with folder.held():
        folder.repair()
        staging = folder.staging()
        files = fill(staging, NEW)
        out.mkdir(exist_ok=True)
        (out / "notes.md").write_text("precious")
        with pytest.raises(AssayError, match=r"'notes\.md'.* nothing was replaced") as caught:
            folder.publish(staging, manifest(files))
    assert caught.value.exit_code == 1
    assert contents_of(out) == {**(before or {}), "notes.md": b"precious"}
    (out / "notes.md").unlink()
    export(out, NEW)
    assert contents_of(out) == NEW


def test_refresh_replaces_the_manifest_alone(out: Path) -> None:
    files = export(out, NEW, run="first")
    folder = OutputFolder(out)
    before = out.stat().st_ino
    with folder.held():
        folder.refresh(manifest(files, run="second"))
    found = run_manifest_in(folder.path)
    assert found is not None
    assert found["options"]["run"] == "second"
    assert contents_of(out) == NEW
    assert out.stat().st_ino == before
    assert sorted(path.name for path in out.iterdir()) == sorted([*NEW, MANIFEST])


@pytest.mark.parametrize("fault", ["flip", "cut", "gone", "more", "fewer", "no manifest"])
def test_holds_notices_every_difference(out: Path, fault: str) -> None:
    files = export(out, NEW)
    path = out / "scores.parquet"
    if fault == "flip":
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    elif fault == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif fault == "gone":
        path.unlink()
    elif fault == "more":
        files["another"] = ExportedFile("0" * 32, 0, 0)
    elif fault == "fewer":
        del files["scores.parquet"]
    else:
        (out / MANIFEST).unlink()
    assert not OutputFolder(out).holds(files)


def whole(path: Path) -> dict[str, bytes]:
    """The contents of the export at ``path``, proved by its own manifest."""
    folder = OutputFolder(path)
    found = run_manifest_in(folder.path)
    assert found is not None
    files = {name: ExportedFile(**file) for name, file in found["files"].items()}
    assert folder.holds(files)
    return contents_of(path)


@pytest.mark.slow
@pytest.mark.parametrize("before", [OLD, None], ids=["over an old export", "first export"])
def test_kill_9_at_any_step_leaves_a_whole_export_after_repair(
    tmp_path: Path, before: Mapping[str, bytes] | None
) -> None:
    seen = []
    for number in range(1, 500):
        out = tmp_path / f"{number:03d}" / "out"
        if before:
            export(out, before)
        was_killed = killed_at(number, partial(export, out, NEW))
        if was_killed and out.exists() and (out / MANIFEST).exists():
            whole(out)  # I4: what has a manifest is whole, repaired or not
        folder = OutputFolder(out)
        folder.check()
        with folder.held():
            folder.repair()
            found = whole(out) if out.exists() else None
            assert found in (before, NEW)
        seen.append(found)
        assert beside(out) == [".out.lock"]
        export(out, NEW)  # and the rerun is as if nothing had happened
        assert whole(out) == NEW
        assert beside(out) == [".out.lock"]
        if not was_killed:
            break
    assert number > 10
    # What was published stays published: never old again after new.
    first_new = seen.index(NEW)
    assert all(found == NEW for found in seen[first_new:])


@pytest.mark.slow
def test_kill_9_at_any_step_of_a_repair_is_repaired(tmp_path: Path) -> None:
    def halfway(out: Path) -> None:
        """A folder as it is between the two renames."""
        export(out, OLD)
        out.rename(out.parent / ".out.old")
        staging = out.parent / (".out.staging-" + "0" * 16)
        staging.mkdir()
        files = fill(staging, NEW)
        (staging / MANIFEST).write_bytes(msgspec.json.encode(manifest(files)))

    def repair(out: Path) -> None:
        folder = OutputFolder(out)
        with folder.held():
            folder.repair()

    for number in range(1, 200):
        out = tmp_path / f"{number:03d}" / "out"
        halfway(out)
        was_killed = killed_at(number, partial(repair, out))
        repair(out)
        assert whole(out) == NEW
        assert beside(out) == [".out.lock"]
        if not was_killed:
            break
    assert number > 5


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name what is synced")
def test_the_manifest_is_named_when_all_else_is_on_the_disk(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut keeps what was synced; a manifest before that would vouch for files of zeros."""
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def named_sync(descriptor: int) -> None:
        steps.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    def named_replace(source: Path, target: Path) -> None:
        steps.append(f"named {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", named_sync)
    monkeypatch.setattr(os, "replace", named_replace)
    export(out, NEW)
    assert set(NEW) <= set(steps[: steps.index(f"named {MANIFEST}")])


def test_a_manifest_with_a_flipped_bit_vouches_for_no_export(out: Path) -> None:
    files = export(out, NEW)
    assert OutputFolder(out).holds(files)
    altered = (out / MANIFEST).read_bytes().replace(b'"run": "run"', b'"run": "ruo"')
    (out / MANIFEST).write_bytes(altered)
    assert not OutputFolder(out).holds(files)
    out.rename(out.parent / "aside")
    export(out, OLD)
    out.rename(out.parent / ".out.old")
    (out.parent / "aside").rename(out.parent / ".out.staging-0000000000000000")
    folder = OutputFolder(out)
    with folder.held():
        assert "the export before it is back in place" in str(folder.repair())
    assert contents_of(out) == OLD


def test_an_interrupted_swap_is_taken_back_where_the_new_export_is_damaged(out: Path) -> None:
    export(out, OLD)
    out.rename(out.parent / ".out.old")
    staging = out.parent / (".out.staging-" + "0" * 16)
    staging.mkdir()
    files = fill(staging, NEW)
    (staging / "scores.parquet").write_bytes(b"torn")
    (staging / MANIFEST).write_bytes(msgspec.json.encode(manifest(files)))
    folder = OutputFolder(out)
    with folder.held():
        assert "the export before it is back in place" in str(folder.repair())
    assert whole(out) == OLD
    assert beside(out) == [".out.lock"]


def test_an_empty_folder_made_meanwhile_does_not_hide_the_old_export(out: Path) -> None:
    export(out, OLD)
    out.rename(out.parent / ".out.old")
    out.mkdir()
    folder = OutputFolder(out)
    with folder.held():
        folder.repair()
    assert whole(out) == OLD


def test_repair_leaves_the_folders_of_other_outputs_alone(out: Path) -> None:
    export(out, OLD)
    neighbours = [".out.staging-b", ".out.staging-0000000000000000.lock", ".out2.staging-0000000000000000"]
    for name in neighbours:
        (out.parent / name).mkdir()
    folder = OutputFolder(out)
    with folder.held():
        assert folder.repair() is None
    assert beside(out) == sorted([".out.lock", *neighbours])


def test_a_failed_rename_puts_the_old_export_back(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(out, OLD)
    folder = OutputFolder(out)
    real = os.rename

    def failing(source: Path, target: Path) -> None:
        if "staging" in str(source):
            raise PermissionError(13, "Permission denied", str(source))
        real(source, target)

    with folder.held():
        staging = folder.staging()
        files = fill(staging, NEW)
        monkeypatch.setattr(os, "rename", failing)
        with pytest.raises(PermissionError):
            folder.publish(staging, manifest(files))
        monkeypatch.undo()
    assert whole(out) == OLD
    assert beside(out) == [".out.lock"]


def test_a_full_disk_is_named_and_the_old_export_stays(small_disk: Path) -> None:
    out = small_disk / "out"
    export(out, OLD)
    folder = OutputFolder(out)
    with folder.held():
        staging = folder.staging()
        files = fill(staging, NEW)
        ballast = small_disk / "ballast"
        with suppress(OSError):
            ballast.write_bytes(b"x" * (1 << 21))
        with pytest.raises(AssayError) as caught:
            folder.publish(staging, manifest(files))
        assert str(out) in str(caught.value)
        assert "No space left on device" in str(caught.value)
        assert caught.value.exit_code == 1
    assert whole(out) == OLD
    ballast.unlink()
    export(out, NEW)
    assert whole(out) == NEW
