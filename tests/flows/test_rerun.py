"""A rerun with nothing to do: it needs no Prefect, and shows and writes what a run with Prefect would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from curate_runs import Ran, line
from places import ROOT

from assay.core.errors import ServerFault, StoreRefusal
from assay.storage.home import Home
from flows.command import launch as launching
from flows.command.console import HeldConsole
from flows.curate.run import Run
from flows.server.connection import may_name_a_server


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(f"{line(f'q{n}', f'a{n}')}\n" for n in range(7)) + '{"messages": []}\n')
    return path


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """A function. Once it is called, no setting names a server, and a command that starts one fails."""

    def refused(home: Home) -> None:
        raise ServerFault("this run has something to do")

    def close() -> None:
        for name in [name for name in os.environ if name.upper().startswith("PREFECT_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setattr(launching, "server_of_the_run", refused)

    return close


def without_times(text: str) -> str:
    return re.sub(r" +\d+\.\d s$|seconds .*", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "options", [(), ("--keep", "helpfulness >= 2"), ("--json",), ("--quiet",), ("--stop-after", "convert")]
)
def test_it_shows_and_writes_what_a_run_with_prefect_does(
    curate: Callable[..., Ran], chats: Path, no_server: Callable[[], None], options: tuple[str, ...]
) -> None:
    curate("--input", chats, *options)
    with_prefect = curate("--input", chats, *options)
    manifest = with_prefect.manifest
    no_server()
    alone = curate("--input", chats, *options)
    assert (alone.code, with_prefect.code) == (0, 0), alone.err
    assert alone.watched.flow_run_id is None
    assert without_times(alone.err) == without_times(with_prefect.err)
    assert alone.files() == with_prefect.files()
    again = alone.manifest
    for of_the_run in (manifest, again):
        del of_the_run["seconds"], of_the_run["digest"]
    assert again == manifest
    if "--json" in options:
        assert msgspec.json.decode(alone.out)["rows"] == msgspec.json.decode(with_prefect.out)["rows"]
    else:
        assert without_times(alone.out) == without_times(with_prefect.out)


def removed(folder: Path, pattern: str) -> None:
    for path in list(folder.glob(pattern)):
        path.unlink()


CHANGES: dict[str, Callable[[Path, Path, Path], object]] = {
    "a row more": lambda chats, out, home: chats.write_text(chats.read_text() + line("q", "a") + "\n"),
    "a result that was altered": lambda chats, out, home: (out / "labeled.jsonl").write_text("{}\n"),
    "a result that is gone": lambda chats, out, home: (out / "messages.jsonl").unlink(),
    "no results": lambda chats, out, home: (out / "manifest.json").unlink(),
    "no kept manifests": lambda chats, out, home: removed(home / "manifests", "*"),
    "a manifest that was cut": lambda chats, out, home: [
        one.write_bytes(one.read_bytes()[:-3]) for one in (home / "manifests").glob("filter-*")
    ],
    "a file of a stage that is gone": lambda chats, out, home: removed(
        home / "artifacts", "**/*.records.parquet"
    ),
    "scores that are gone": lambda chats, out, home: removed(home / "scores", "*/*.parquet"),
    "a swap that was stopped": lambda chats, out, home: (out.parent / f".{out.name}.old").mkdir(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_something_to_do_goes_to_prefect(
    curate: Callable[..., Ran],
    chats: Path,
    no_server: Callable[[], None],
    assay_home: Path,
    change: str,
) -> None:
    first = curate("--input", chats)
    CHANGES[change](chats, first.output, assay_home)
    no_server()
    then = curate("--input", chats)
    # Nothing is shown of the look for kept results.
    if change == "no results":
        assert "is not ours to replace" in then.err
    else:
        assert then.err == "error: this run has something to do\n"


@pytest.mark.parametrize(
    "options",
    [("--keep", "helpfulness >= 1"), ("--limit", "3"), ("--dry-run",), ("--preview",), ("--release",)],
)
def test_other_options_are_another_run(
    curate: Callable[..., Ran], chats: Path, no_server: Callable[[], None], options: tuple[str, ...]
) -> None:
    curate("--input", chats)
    no_server()
    assert curate("--input", chats, *options).err == "error: this run has something to do\n"


@pytest.mark.parametrize("is_new", [True, False])
def test_nothing_is_read_where_the_inputs_are_others_by_name_or_size(
    curate: Callable[..., Ran],
    chats: Path,
    tmp_path: Path,
    no_server: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    is_new: bool,
) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    chats.rename(folder / "a.jsonl")
    curate("--input", folder)
    (folder / ("b.jsonl" if is_new else "a.jsonl")).write_text(line("q", "a") + "\n")
    no_server()
    monkeypatch.setattr(Run, "written", lambda run: pytest.fail("the run was looked at"))
    assert curate("--input", folder).err == "error: this run has something to do\n"


def test_a_push_that_fails_is_not_tried_again_with_prefect(
    curate: Callable[..., Ran], chats: Path, no_server: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hub:
        pushes = 0

        def push(self, *given: object, **named: object) -> str:
            Hub.pushes += 1
            raise StoreRefusal("the Hub is closed")

    monkeypatch.setattr("flows.curate.prepare._hub_dataset", lambda *given, **named: Hub())
    first = curate("--input", chats, "--push-to-hub", "a/b")
    no_server()
    again = curate("--input", chats, "--push-to-hub", "a/b")
    assert (again.code, Hub.pushes) == (first.code, 2)
    assert again.err.splitlines()[-1] == "error: the Hub is closed"
    # The kept stages were shown before the error.
    assert "export   cached" in again.err
    assert "Results in" in again.out


def test_an_input_that_is_cut_short_is_reported_each_time(
    curate: Callable[..., Ran], tmp_path: Path, no_server: Callable[[], None]
) -> None:
    cut = tmp_path / "cut.json"
    cut.write_text(f"[{line('q', 'a')},\n{line('q2', 'a')}")
    first = curate("--input", cut)
    no_server()
    again = curate("--input", cut)
    assert (first.code, again.code) == (1, 1), again.err
    assert "exits with 1" in again.err


@pytest.mark.slow
def test_it_imports_neither_prefect_nor_torch(
    curate: Callable[..., Ran], chats: Path, tmp_path: Path
) -> None:
    """With the starter model, in a process of its own and from another folder, as a user runs it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    code = (
        "import sys\n"
        "from flows.command.curate import COMMAND\n"
        "from flows.command.launch import launch\n"
        f"code = launch(COMMAND, ['--input', {str(chats)!r}, '--output', 'out', '--workers', '1'])\n"
        "print('imported:', [name for name in ('prefect', 'torch', 'distributed') if name in sys.modules])\n"
        "sys.exit(code)\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**kept, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        for _ in range(2)
    ]
    imported = [run.stdout.splitlines()[-1] for run in runs]
    assert "'prefect'" in imported[0]
    assert imported[1] == "imported: []"


#: Ways to name a server: variables, and files by path below the folder of the command and of the user.
NAMED: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "a variable": ({"PREFECT_API_URL": "http://s/api"}, {}),
    "a variable in small letters": ({"prefect_api_url": "http://s/api"}, {}),
    "a .env file": ({}, {".env": "PREFECT_API_URL=http://s/api\n"}),
    "prefect.toml": ({}, {"prefect.toml": '[api]\nurl = "http://s/api"\n'}),
    "prefect.toml, dotted": ({}, {"prefect.toml": 'api.url = "http://s/api"\n'}),
    "pyproject.toml": ({}, {"pyproject.toml": '[tool.prefect.api]\nurl = "http://s/api"\n'}),
    "pyproject.toml, otherwise": (
        {},
        {"pyproject.toml": '[ tool . "prefect" ]\napi = {url = "http://s/api"}\n'},
    ),
    "a profile": (
        {},
        {".prefect/profiles.toml": 'active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://s/api"\n'},
    ),
    "profiles elsewhere": (
        {"PREFECT_PROFILES_PATH": "p.toml"},
        {"p.toml": 'active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://s/api"\n'},
    ),
    "profiles elsewhere, by prefect.toml": (
        {},
        {
            "prefect.toml": 'profiles_path = "p.toml"\n',
            "p.toml": 'active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://s/api"\n',
        },
    ),
    "a home of Prefect elsewhere": (
        {"PREFECT_HOME": "h"},
        {"h/profiles.toml": 'active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://s/api"\n'},
    ),
}
SILENT: dict[str, dict[str, str]] = {
    "nothing": {},
    "a project that depends on Prefect": {"pyproject.toml": '[project]\ndependencies = ["prefect>=3"]\n'},
    "variables of others": {".env": "HF_HOME=x\n"},
    "a profile without a server": {".prefect/profiles.toml": 'active = "a"\n[profiles.a]\n'},
}


def written(files: dict[str, str], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def found_by_prefect(folder: Path, more: dict[str, str]) -> str:
    """The server that Prefect itself finds in this folder with these variables."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("PREFECT_")}
    asked = "from prefect.settings import get_current_settings as found; print(found().api.url)"
    return subprocess.run(
        [sys.executable, "-c", asked],
        cwd=folder,
        env={**kept, "HOME": str(folder), **more},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("way", NAMED)
def test_wherever_prefect_finds_a_server_it_is_asked(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables, files = NAMED[way]
    written(files, tmp_path)
    assert found_by_prefect(tmp_path, variables) == "http://s/api"
    placed(tmp_path, monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert may_name_a_server()


@pytest.mark.parametrize("place", SILENT)
def test_where_nothing_speaks_of_a_server_prefect_is_not_asked(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(SILENT[place], tmp_path)
    placed(tmp_path, monkeypatch)
    assert not may_name_a_server()


def placed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)


def test_what_a_console_holds_is_shown_in_its_order_or_never(capsys: pytest.CaptureFixture[str]) -> None:
    for released in (False, True):
        console = HeldConsole()
        console.say("one")
        with console.stage("convert") as stage:
            stage.note = "two"
        console.show("three", "four\n")
        assert capsys.readouterr() == ("", "")
        if released:
            console.release()
            console.release()
            console.say("five")
    shown = capsys.readouterr()
    assert [text.split()[0] for text in shown.err.splitlines()] == ["one", "convert", "five"]
    assert shown.out == "four\n"
