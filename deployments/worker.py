"""``python -m deployments.worker QUEUE``: the only worker of this queue.

When it starts, it ends the runs that an earlier worker of its queue left behind. None of them can be alive: a
queue has one worker, whose runs are processes beside it. While it works, it starts runs again that it took
but never began.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from assay.core.errors import AssayError, UserMistake
from deployments.never_begun import watch
from deployments.register import POOL, end_lost_runs, for_a_worker


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, where the worker does not start; else it takes over this process."""
    parser = argparse.ArgumentParser(prog="python -m deployments.worker")
    parser.add_argument("queue", help="The queue that it serves: cpu, or gpu on a machine that has GPUs.")
    queue = parser.parse_args(arguments).queue
    try:
        api_url = os.environ.get("PREFECT_API_URL")
        if not api_url:
            raise UserMistake("PREFECT_API_URL: name the server, such as http://127.0.0.1:4200/api")
        for name in end_lost_runs(api_url, queue=queue):
            print(f"the run {name} was under way when its worker ended; retry it to go on", file=sys.stderr)
    except AssayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    from tasks.server_answers import drop_results

    drop_results()
    os.environ.update(for_a_worker(os.environ))
    watch(api_url, POOL, [queue])
    from prefect.cli import app

    sys.argv = ["prefect", "worker", "start", "--pool", POOL, "--work-queue", queue, "--with-healthcheck"]
    app()
    return 0


if __name__ == "__main__":
    sys.exit(main())
