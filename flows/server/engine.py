"""``python -m flows.server.engine``: Prefect's engine, in a process that does one run of a deployment.

It differs from ``python -m prefect.engine``, which it hands over to, in three ways:

- It drops the result of every state that the server sends, from the first answer on
  (``tasks.server_answers``).
- Every request waits for a server that is away. Prefect's own clients give up at once if their first request
  meets no server, and an engine makes several clients. So a run that started during a restart failed.
- The garbage collector is off while Prefect is imported: it takes a sixth of the time until the run begins.
"""

from __future__ import annotations

import gc
import runpy


def wait_for_servers() -> None:
    """Make every Prefect client of this process try again for about a minute if no server answers."""
    from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient

    # Prefect sets this attribute once a client has met its server. There is no setting for it.
    always = property(lambda client: True, lambda client, value: None)
    for client in (PrefectHttpxAsyncClient, PrefectHttpxSyncClient):
        setattr(client, "_has_connected", always)  # noqa: B010 - a property stands in for an attribute


def main() -> None:
    """Do the run that PREFECT__FLOW_RUN_ID names."""
    gc.disable()
    # This imports all of Prefect except prefect.engine, which runs below as the program.
    import prefect.flows  # noqa: F401

    from tasks.server_answers import drop_results

    # Later collections skip the objects that exist now.
    gc.freeze()
    gc.enable()
    drop_results()
    wait_for_servers()
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
