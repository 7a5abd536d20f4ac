"""How long tests wait for what is not promised within a time."""

from __future__ import annotations

import os

#: For a run, a server or a worker to do the next thing, on a machine that is busy with other things as well:
#: ten times what it takes on two free cores.
PATIENCE_SECONDS = 300.0
#: A test of a kind that waits several times in a row.
TEST_SECONDS = 1200
#: How often a run renews a lease, if it has one. RENEWAL_SECONDS=225 in the environment is what Prefect does.
RENEWAL_SECONDS = float(os.environ.get("RENEWAL_SECONDS", "6"))
