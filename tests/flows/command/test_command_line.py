"""The command line has every option of its model, reads well, and answers before anything heavy loads."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE_SECONDS
from places import ROOT
from running_process import running

from assay.config.options import RunOptions, option_name
from assay.config.settings import Settings
from assay.core.errors import UserMistake
from assay.workers import cluster
from flows.command.options import parse
from flows.curate.prepare import prepare

pytestmark = pytest.mark.slow

HEAVY = ("prefect", "torch", "transformers", "distributed", "dask")


def parsed(*arguments: str) -> RunOptions:
    return parse(RunOptions, arguments, program="curate", summary="Rate.", examples="examples:\n  none")


def said_of(*arguments: str) -> str:
    with pytest.raises(UserMistake) as refused:
        parsed(*arguments)
    return str(refused.value)


@pytest.fixture
def help_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as left:
        parsed("--help")
    assert left.value.code == 0
    return capsys.readouterr().out


def test_help_shows_every_option_with_what_the_model_says_of_it(help_text: str) -> None:
    flat = " ".join(help_text.split())
    for name, field in RunOptions.model_fields.items():
        assert option_name(name) in help_text or f"--[no-]{option_name(name)[2:]}" in help_text
        assert field.description is not None
        assert field.description in flat
    assert "Default: starter." in flat
    assert "Default: messages, and rows labelled 0-4 where the model rates such attributes." in flat
    assert "One of: messages, steerlm, " in flat


def test_help_fits_a_terminal_of_80_columns(help_text: str) -> None:
    assert max(map(len, help_text.splitlines())) <= 80


def test_lists_are_given_by_repeating_or_by_several_words() -> None:
    options = parsed("--input", "a", "b", "--input", "c", "--output", "o", "--keep", "x > 1", "--keep=y < 2")
    assert options.input == ["a", "b", "c"]
    assert options.keep == ["x > 1", "y < 2"]


def test_how_a_model_is_read_can_be_said_declined_and_left_open(tmp_path: Path) -> None:
    plain = parsed("--input", "a", "--output", "o")
    assert (plain.family, plain.read_at, plain.add_bos) == (None, None, None)
    path = tmp_path / "run.yaml"
    path.write_text("input: a\noutput: o\nfamily: first-token-logit\nread-at: transformers\nadd-bos: true\n")
    filed = parsed("--config", str(path))
    assert (filed.family, filed.read_at, filed.add_bos) == ("first-token-logit", "transformers", True)
    assert parsed("--config", str(path), "--no-add-bos").add_bos is False
    said = said_of("--input", "a", "--output", "o", "--family", "first-token")
    assert "--family 'first-token': should be one of" in said
    assert "did you mean 'first-token-logit'" in said


def test_what_a_file_turns_on_can_be_turned_off(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("input: a\noutput: o\nstrict: true\nlimit: 5\n")
    assert parsed("--config", str(file)).strict
    options = parsed("--config", str(file), "--no-strict", "--limit", "7")
    assert not options.strict
    assert options.limit == 7


def test_mistakes_are_reported_with_the_nearest_option() -> None:
    assert said_of("--input", "a", "--outptu", "o") == "unknown option '--outptu'; did you mean '--output'?"
    assert said_of("--input", "a", "--zzz") == "unknown option '--zzz'; see --help"
    assert said_of("stray", "--input", "a") == "'stray' follows no option that takes it; see --help"
    assert said_of("--input", "a", "--limit") == "argument --limit: expected one argument"
    assert said_of("--input", "a") == "--output is required; see --help"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, ""),
        (["--input", "absent.jsonl", "--output", "o"], 2, "error: absent.jsonl: there is no such file"),
        (["--input", ".", "--output", "o", "--model", "absent"], 2, "error: "),
        (["--input", ".", "--output", "o", "--keep", "helpfulnes > 1"], 2, "error: "),
        (["--input", ".", "--output", "o", "--keep", "helpfulness >"], 2, "error: "),
        (["--input", ".", "--output", "."], 2, "error: .: "),
    ],
)
def test_help_and_mistakes_are_answered_before_anything_heavy_is_imported(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    (tmp_path / "theirs.txt").write_text("not ours")
    script = (
        "import sys; from flows.command.launch import launch; from flows.command.curate import COMMAND; "
        f"code = launch(COMMAND, {arguments!r}); "
        f"assert not set({HEAVY!r}) & set(sys.modules), set({HEAVY!r}) & set(sys.modules); sys.exit(code)"
    )
    environment = {"PYTHONPATH": str(ROOT), "ASSAY_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) <= 6
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("settings", "arguments", "said"),
    [
        ({"ASSAY_SCHEDULER_ADDRESS": "localhost"}, [], "ASSAY_SCHEDULER_ADDRESS is localhost"),
        ({"ASSAY_SCHEDULER_ADDRESS": "localhost"}, ["--dry-run"], "ASSAY_SCHEDULER_ADDRESS is localhost"),
        ({"ASSAY_GPUS_PER_MODEL": "4"}, [], "ASSAY_GPUS_PER_MODEL is 4, but this machine shows 2 GPUs"),
    ],
)
def test_workers_that_cannot_be_had_are_a_mistake_found_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(cluster, "visible_devices", lambda: ["0", "1"])
    monkeypatch.setattr(cluster, "packages_are_here", lambda: True)
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "chats.jsonl").write_text("")
    options = parsed("--input", str(tmp_path / "chats.jsonl"), "--output", str(tmp_path / "o"), *arguments)
    with pytest.raises(UserMistake, match=said):
        prepare(options, Settings.read())
    converted = options.model_copy(update={"stop_after": "convert"})
    assert prepare(converted, Settings.read()), "a run without workers needs none"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shard-size", "999kB"], "--shard-size '999kB': is less than 1MB"),
        (["--shard-size", "inf"], "--shard-size 'inf': write a number of bytes with its unit"),
        (["--split", "nemo-oasst", "--export", "verl-sft"], "orders lines, and verl-sft is a table"),
        (["--split", "val=2"], "--split 'val=2': write a name and a share"),
        (["--split", "val=0.1", "--group", "prompt_id"], "--group prompt_id: write a field of the input row"),
    ],
)
def test_files_that_cannot_be_written_so_are_a_mistake_found_before_a_model_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    options = parsed("--input", "no such", "--output", str(tmp_path / "o"), "--model", "no such", *arguments)
    with pytest.raises(UserMistake, match=said):
        prepare(options, Settings.read())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--threshold", "; did you mean '--keep'?"),
        ("--modle", "; did you mean '--model'?"),
        ("--temperature", "; see --help"),
    ],
)
def test_an_option_that_is_not_here_suggests_what_is_meant_or_nothing(option: str, meant: str) -> None:
    with pytest.raises(UserMistake) as refused:
        parse(RunOptions, [option, "3"], program="assay curate", summary="", examples="")
    assert str(refused.value) == f"unknown option {option!r}{meant}"


#: A command whose library takes any exception for another one, while it is imported.
IMPORTS = """
import sys, time
from flows.command import main

def importing(arguments, program):
    print("now", flush=True)
    while True:
        try:
            time.sleep(60)
        except BaseException as error:
            raise ImportError("a library that does not know Ctrl-C") from error

main.COMMANDS["curate"] = importing
sys.argv = ["assay", "curate"]
main.{entry}
"""


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGINT, "stopped by Ctrl-C\n"),
        (signal.SIGTERM, "stopped by SIGTERM\n"),
        (signal.SIGHUP, "stopped by SIGHUP\n"),
    ],
)
@pytest.mark.parametrize("entry", ["main()", "run_module('curate')"])
def test_a_signal_while_a_command_is_imported_is_a_line(
    number: signal.Signals, said: str, entry: str
) -> None:
    code = IMPORTS.replace("{entry}", entry)
    with running([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, err) == (128 + number, said)


def test_next_to_nothing_is_imported_before_signals_are_heard() -> None:
    code = "import sys; before = {*sys.modules}; import flows.command.main; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, text=True, check=True)
    assert {*done.stdout.split()} <= {"flows", "flows.command", "flows.command.main", "gc"}


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell in which ``$ASSAY`` begins a command."""
    assay = f"{sys.executable} -c 'from flows.command.main import main; main()'"
    return subprocess.run(
        ["bash", "-c", line.replace("$ASSAY", assay)], capture_output=True, cwd=ROOT, text=True, timeout=120
    )


@pytest.mark.parametrize("command", ["--help", "--version", "models", "formats", "exports"])
@pytest.mark.parametrize("buffered", ["PYTHONUNBUFFERED= ", "PYTHONUNBUFFERED=1 "])
def test_a_reader_that_is_gone_or_a_full_disk_is_no_traceback(command: str, buffered: str) -> None:
    gone = shell(f"({buffered}$ASSAY {command}; echo $? >&2) | true")
    assert gone.stderr in ("141\n", "0\n")  # 0 where all was written before the reader had gone
    full = shell(f"{buffered}$ASSAY {command} > /dev/full")
    assert (full.returncode, full.stderr) == (1, "error: standard output: No space left on device\n")


SHOWS = """
from flows.command import main
from flows.command.console import Console, Showing
from flows.command.endings import exit_code_of

def shows(arguments, program):
    console = Console()
    console.showing = Showing(as_json=arguments[0] == "json")
    def show():
        text = "x" * int(arguments[1])
        console.show(text, None if arguments[0] == "table" else text)
        console.show_data(text)
        return 0
    return exit_code_of(show, goes_on=False)

main.COMMANDS["curate"] = shows
main.run_module("curate")
"""


@pytest.mark.parametrize("kind", ["json", "plain", "table"])
@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("buffered", ["PYTHONUNBUFFERED= ", "PYTHONUNBUFFERED=1 "])
def test_results_that_cannot_be_written_end_a_command_in_one_way(
    kind: str, size: int, buffered: str, tmp_path: Path
) -> None:
    (tmp_path / "code.py").write_text(SHOWS)
    command = f"PYTHONPATH={ROOT} {buffered}{sys.executable} {tmp_path / 'code.py'} {kind} {size}"
    gone = shell(f"(sleep 0.2; {command}; echo $? >&2) | true")
    assert gone.stderr == "141\n"
    full = shell(f"{command} > /dev/full")
    assert (full.returncode, full.stderr) == (1, "error: standard output: No space left on device\n")


@pytest.mark.parametrize("buffered", ["PYTHONUNBUFFERED= ", "PYTHONUNBUFFERED=1 "])
@pytest.mark.parametrize(("command", "code"), [("curate --input missing.jsonl --output {out}", 2)])
def test_an_error_that_cannot_be_said_keeps_its_exit_code(
    command: str, code: int, buffered: str, tmp_path: Path
) -> None:
    line = f"{buffered}$ASSAY {command.replace('{out}', str(tmp_path / 'out'))}"
    assert shell(f"{line} 2> /dev/full").returncode == code
    assert (
        shell(f"(sleep 0.2; {line} 2>&1 > /dev/null; echo $? > {tmp_path / 'code'}) | true").returncode == 0
    )
    assert (tmp_path / "code").read_text() == f"{code}\n"


SAYS = """
from flows.command import main
from flows.command.console import Console
from flows.command.endings import exit_code_of

def says(arguments, program):
    console = Console()
    def say():
        for number in range(3):
            console.say("a line " * 1000)
        console.show("a table", "the results\\n")
        return 0
    return exit_code_of(say, goes_on=False)

main.COMMANDS["curate"] = says
main.run_module("curate")
"""


@pytest.mark.parametrize("buffered", ["PYTHONUNBUFFERED= ", "PYTHONUNBUFFERED=1 "])
def test_a_command_goes_on_though_nobody_reads_what_it_says(buffered: str, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(SAYS)
    command = f"PYTHONPATH={ROOT} {buffered}{sys.executable} {tmp_path / 'code.py'}"
    shell(f"(sleep 0.2; {command} 2>&1 > {tmp_path / 'out'}; echo $? > {tmp_path / 'code'}) | true")
    assert (tmp_path / "code").read_text() == "0\n"
    assert (tmp_path / "out").read_text() == "the results\n"


OPENS = """
import os, sys
from flows.command import main

def opens(arguments, program):
    with open("{path}", "w") as file:
        file.write("mine")
        file.flush()
        print("a result")
        print("čaj", file=sys.stderr, flush=True)
        os.write(2, b"a library's word")
        sys.stdout.flush()
        assert sys.stdin.read() == ""
    return 0

main.COMMANDS["curate"] = opens
main.run_module("curate")
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_of_closed_streams_no_file_takes_the_place(closed: str, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(OPENS.replace("{path}", str(tmp_path / "file")))
    ascii_alone = "LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0"
    done = shell(
        f"{ascii_alone} PYTHONPATH={ROOT} {sys.executable} {tmp_path / 'code.py'} < /dev/null {closed}"
    )
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "mine"
