"""Every error a user can see.

AssayError                  says what is wrong, where, and what to do; printed without a traceback
├── UserMistake     exit 2  found before any work: an option, a path, a rule, a model's name
│   └── OutputRefused       the output folder is not ours to replace, or is in use
├── InputFault      exit 1  an input changed during the run, or --strict met a record to quarantine
├── ModelFault      exit 1  the reward model cannot be loaded, or does not do what it says
│   └── DeviceLost          every call on its GPU fails until this process ends
├── ClusterFault    exit 1  workers do not start, do not connect, or are gone
├── StoreFault      exit 1  S3 or the Hub does not answer
│   └── StoreRefusal        S3 or the Hub refuses: no such bucket or data set, or no right to use it
├── ServerFault     exit 1  Prefect's server cannot be reached or started
└── Resumable       exit 75 stopped before the end; the same command goes on from there
"""

from __future__ import annotations


class AssayError(Exception):
    """An error whose message says all that a user needs."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: the message says all."""
        return [f"{type(self).__name__}: {self}"]


class UserMistake(AssayError):
    """The user asks for something that cannot be done; found before any work."""

    exit_code = 2


class OutputRefused(UserMistake):
    """The output folder holds something that is not ours, or another run holds it."""


class InputFault(AssayError):
    """An input changed while it was read, or ``--strict`` met a record to quarantine."""


class ModelFault(AssayError):
    """A reward model cannot be loaded, or does not do what it promises."""


class DeviceLost(ModelFault):
    """After this GPU error every call from this process fails; a new process can use the GPU again."""


class ClusterFault(AssayError):
    """The workers could not be started, did not connect, or are gone."""


class KillsWorkers(ClusterFault):
    """A part of the work that no worker survives. The next attempt would kill them again."""


class StoreFault(AssayError):
    """S3 or the Hub does not answer, or breaks off in the middle of an answer."""


class StoreRefusal(StoreFault):
    """S3 or the Hub refuses: there is no such bucket or data set, or these credentials may not use it."""


class ServerFault(AssayError):
    """Prefect's server cannot be reached, or did not start in time."""


class Resumable(AssayError):
    """The run stopped early; the same command resumes it."""

    exit_code = 75
