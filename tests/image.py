"""The image of ``deployments/Dockerfile`` without an engine: its steps, in a copy of this machine.

The steps run in a mount namespace, where they see the machine's own folders and write to memory only. They
run as they are written: as root, in their folders, with their variables. Python, and the packages that pip
would download, are those that run the tests.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from places import ROOT

_PYTHON = "/opt/image"
_PACKAGES = "/opt/packages"
#: Commands that packages bring, and that the image has on its path.
_COMMANDS = ("prefect", "dask")


def why_not_here() -> str | None:
    """Why no image can be made here; None if one can."""
    if os.getuid() != 0:
        return "only root may make a namespace of mounts"
    missing = [name for name in ("unshare", "nsenter", "chroot", "mount") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    tried = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    return None if tried.returncode == 0 else "mounting is not allowed here"


@dataclass(frozen=True, slots=True)
class Step:
    """An instruction of a Dockerfile and its arguments."""

    name: str
    rest: str


def steps_of(text: str) -> list[Step]:
    r"""The instructions, without comments, each joined into one line.

    >>> steps_of("# why\nENV A=1 \\\n    B=2\nUSER 1:1\n")
    [Step(name='ENV', rest='A=1     B=2'), Step(name='USER', rest='1:1')]
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "")
    return [Step(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


@dataclass
class Image:
    """An image: its files as the steps left them, and the way to start a process in a container of it."""

    _namespace: int
    _root: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"

    def carry_out(self, step: Step) -> None:
        """Carry out the instruction."""
        match step.name:
            case "ARG":
                name, _, value = step.rest.partition("=")
                self.environment.setdefault(name, value.strip('"'))
            case "ENV":
                self.environment |= dict(one.split("=", 1) for one in shlex.split(step.rest))
            case "WORKDIR":
                self.folder = step.rest
                self.do(["mkdir", "-p", step.rest], folder="/")
            case "COPY":
                *sources, target = step.rest.split()
                self._copy(sources, target)
            case "RUN":
                self.do(["/bin/sh", "-c", step.rest])
            case "USER":
                self.user = step.rest
                found = self.do(["getent", "passwd", step.rest.partition(":")[0]]).split(":")
                self.environment["HOME"] = found[5]
            case "FROM":
                assert step.rest.startswith("python:3.")
            case _:
                raise AssertionError(f"no test knows what {step.name} does")

    def _copy(self, sources: Sequence[str], target: str) -> None:
        for source in sources:
            listed = subprocess.run(
                ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", source],
                cwd=ROOT,
                capture_output=True,
                check=True,
            )
            for name in filter(None, listed.stdout.decode().split("\0")):
                is_file = (ROOT / source).is_file()
                to = f"{target}/{name}" if is_file else f"{target}/{Path(name).relative_to(source)}"
                self.do(["mkdir", "-p", str(Path(to).parent)])
                self.do(["/bin/sh", "-c", f"cat > {shlex.quote(to)}"], given=(ROOT / name).read_bytes())

    def command(
        self,
        words: Sequence[str],
        environment: Mapping[str, str] = {},
        *,
        folder: str | None = None,
        user: str | None = None,
    ) -> list[str]:
        """The command line that runs ``words`` in a container, with the image's and these variables alone."""
        variables = {
            "PATH": f"{_PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            **self.environment,
            **environment,
        }
        return [
            *("nsenter", "--target", str(self._namespace), "--mount", "--"),
            *("chroot", f"--userspec={user or self.user}", "--groups=", str(self._root)),
            *("/usr/bin/env", "-i", f"--chdir={folder or self.folder}"),
            *(f"{name}={value}" for name, value in variables.items()),
            *words,
        ]

    def do(
        self,
        words: Sequence[str],
        environment: Mapping[str, str] = {},
        *,
        folder: str | None = None,
        user: str | None = None,
        given: bytes = b"",
    ) -> str:
        """The output of a command in a container. Fails if the command does."""
        command = self.command(words, environment, folder=folder, user=user)
        done = subprocess.run(command, input=given, capture_output=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout.decode()}{done.stderr.decode()}"
        return done.stdout.decode()

    def mount(self, *words: str) -> None:
        """Mount something in the namespace. ``{root}`` stands for the root of the image."""
        told = [word.replace("{root}", str(self._root)) for word in words]
        subprocess.run(
            ["nsenter", "--target", str(self._namespace), "--mount", "--", "mount", *told],
            check=True,
            capture_output=True,
        )


@contextmanager
def image(folder: Path) -> Iterator[Image]:
    """Yield a newly made image, which is gone when this context ends."""
    root = folder / "root"
    root.mkdir()
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo up; exec sleep infinity"],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        made = Image(holder.pid, root)
        # Write to a tmpfs: an overlay cannot write to another overlay, and this machine's root may be one.
        made.mount("-t", "tmpfs", "none", str(folder))
        inside = ["nsenter", "--target", str(holder.pid), "--mount", "--", "mkdir"]
        places = [str(folder / name) for name in ("upper", "work", "root")]
        subprocess.run([*inside, *places], check=True)
        layers = f"lowerdir=/,upperdir={places[0]},workdir={places[1]}"
        made.mount("-t", "overlay", "none", "-o", layers, "{root}")
        made.mount("--rbind", "/dev", "{root}/dev")
        made.mount("-t", "proc", "none", "{root}/proc")
        _have_python(made)
        for step in steps_of((ROOT / "deployments/Dockerfile").read_text()):
            made.carry_out(step)
        yield made
    finally:
        holder.kill()
        holder.wait()


def _have_python(made: Image) -> None:
    """Give the image a Python that every user may run, with the packages of this one except Assay."""
    made.environment["PYTHONNOUSERSITE"] = "1"
    base = Path(os.path.realpath(sys.executable))
    # This Python may lie in root's home.
    for parent in list(base.parents)[:-1]:
        made.do(["chmod", "o+rx", str(parent)])
    made.do([str(base), "-m", "venv", "--without-pip", _PYTHON])
    packages = Path(sysconfig.get_paths()["purelib"])
    made.do(["mkdir", "-p", _PACKAGES])
    made.mount("--bind", str(packages), f"{{root}}{_PACKAGES}")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = f"{_PYTHON}/lib/{version}/site-packages/packages.pth"
    # Python reads no .pth file in a folder added so, so it does not find the Assay under test.
    made.do(["/bin/sh", "-c", f"echo {_PACKAGES} > {found}"])
    # Builds Assay with the build tools that are installed, so it needs no network.
    commands = {"pip": b'#!/bin/sh\nshift\nexec python -m pip install --no-build-isolation "$@"\n'}
    for name in _COMMANDS:
        script = (Path(sys.executable).parent / name).read_text()
        commands[name] = re.sub(r"\A#!.*\n", f"#!{_PYTHON}/bin/python\n", script).encode()
    for name, script_bytes in commands.items():
        path = f"{_PYTHON}/bin/{name}"
        made.do(["/bin/sh", "-c", f"cat > {path} && chmod 755 {path}"], given=script_bytes)
