"""Runs programs, each in a fork of this process, so that what they import is imported once.

A line of input is ``{"program", "arguments", "folder"}``. The program runs in the folder, and writes its
``stdout`` and ``stderr`` there. A line of output is its exit code.
"""

import ast
import contextlib
import importlib
import json
import os
import pathlib
import runpy
import sys
import traceback


def import_what_is_named_in(program):
    """Import the modules that the program imports anywhere; one that fails will fail the program as well."""
    for node in ast.walk(ast.parse(pathlib.Path(program).read_text())):
        with contextlib.suppress(Exception):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    getattr(module, alias.name)


def run(program, arguments, folder):
    """Run the program in this process, and end it."""
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if "datasets" in sys.modules:
        # Its cache knows a folder by its last name and its card, and would take another with both for it.
        sys.modules["datasets"].config.HF_DATASETS_CACHE = os.path.join(folder, "cache")
    sys.argv = [program, arguments]
    code = 1
    try:
        runpy.run_path(program, run_name="__main__")
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it dies of is what the test is shown
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


answers = os.fdopen(os.dup(1), "w")
# What imports print is no answer.
os.dup2(2, 1)
for line in sys.stdin:
    given = json.loads(line)
    import_what_is_named_in(given["program"])
    child = os.fork()
    if child == 0:
        run(given["program"], given["arguments"], given["folder"])
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
