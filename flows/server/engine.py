"""``python -m flows.server.engine``: Prefect's engine, in a process that does one run of a deployment.

It differs from ``python -m prefect.engine``, which it hands over to, in three ways:

- No result of a state comes in, not even by the first answers of the server (``tasks.server_answers``).
- A server that is away is waited for, by the first request of a client too. Prefect's clients give up at once
  if their first request meets no server, and an engine makes several clients. So a run that started while the
  server restarted ended at once.
- Prefect is imported without the garbage collector, which takes a sixth of the time until the run begins.
"""

from __future__ import annotations

import gc
import runpy


def wait_for_servers() -> None:
    """Have every Prefect client of this process try again, about a minute long, where no server answers."""
    from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient

    # Prefect notes here that a client has met its server. There is no setting for it.
    always = property(lambda client: True, lambda client, value: None)
    for client in (PrefectHttpxAsyncClient, PrefectHttpxSyncClient):
        setattr(client, "_has_connected", always)  # noqa: B010 - a property stands in for an attribute


def main() -> None:
    """Do the run that PREFECT__FLOW_RUN_ID names."""
    gc.disable()
    # All of Prefect but prefect.engine, which is the program.
    import prefect.flows  # noqa: F401

    from tasks.server_answers import drop_results

    # Later collections pass over what is there by now.
    gc.freeze()
    gc.enable()
    drop_results()
    wait_for_servers()
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
