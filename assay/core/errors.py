"""Every error a user can see.

AssayError                  says what is wrong, where, and what to do; printed without a traceback
├── UserMistake     exit 2  found before any work: an option, a path, a rule, a model's name
│   └── OutputRefused       the output folder is not ours to replace, or is in use
├── InputFault      exit 1  an input was changed meanwhile, or --strict met a record to quarantine
├── ModelFault      exit 1  the reward model cannot be loaded, or does not do what it says
│   └── DeviceLost          its device gives nothing but errors until this process ends
├── ClusterFault    exit 1  workers do not start, do not come, or are gone
├── StoreFault      exit 1  a store on S3 does not answer
│   └── StoreRefusal        it answers with a no: no such bucket, no right to do that
├── ServerFault     exit 1  Prefect's server cannot be reached or started
└── Resumable       exit 75 stopped before the end; the same command goes on from there
"""

from __future__ import annotations


class AssayError(Exception):
    """An error whose message is all that its reader needs."""

    exit_code = 1


class UserMistake(AssayError):
    """Something asked for that cannot be done, found before any work."""

    exit_code = 2


class OutputRefused(UserMistake):
    """The output folder holds something that is not ours, or another run holds it."""


class InputFault(AssayError):
    """An input that was changed while it was read, or a record to quarantine that a run is to stop at."""


class ModelFault(AssayError):
    """A reward model that cannot be loaded or breaks its own contract."""


class DeviceLost(ModelFault):
    """A GPU error after which every call from this process fails; a new process gets a sound device."""


class ClusterFault(AssayError):
    """The workers are gone, never came, or could not be started."""


class StoreFault(AssayError):
    """S3 does not answer, or breaks off."""


class StoreRefusal(StoreFault):
    """S3 refuses: there is no such bucket, or these credentials may not use it."""


class ServerFault(AssayError):
    """Prefect's server cannot be reached, or did not start in time."""


class Resumable(AssayError):
    """The run stopped early and the same command resumes it."""

    exit_code = 75
