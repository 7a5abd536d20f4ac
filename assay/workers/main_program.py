"""Dask's workers start without the program that starts them."""

from __future__ import annotations

from multiprocessing import spawn

#: The name that Dask gives the process of a worker (distributed.nanny, 2026.7).
_WORKER = "Dask Worker"
#: What a new process is asked to import of its parent (multiprocessing.spawn.get_preparation_data).
_MAIN = ("init_main_from_name", "init_main_from_path")

_prepared = spawn.get_preparation_data


def leave_main_program_out() -> None:
    """Have no worker import the main program, so that a script needs no ``if __name__ == "__main__":``.

    multiprocessing has each new process import the program of its parent again. A script that rates would
    then rate in each worker as well. Workers need nothing of it: what they run is imported by name.
    """
    spawn.get_preparation_data = _of_worker_without_main


def _of_worker_without_main(name: str) -> dict[str, object]:
    data = _prepared(name)
    if name.startswith(_WORKER):
        data = {field: value for field, value in data.items() if field not in _MAIN}
    return data
