"""What all tests share: how properties are tried, and what swarmd does first of all for its own process.

`same`: each run tries the same examples, so that code that has passed passes again. `anew`, of `make chaos`:
other ones each time. Neither has a stopwatch, since the machine may be busy with other tests.
"""

from __future__ import annotations

import asyncio
import os
import sys

from hypothesis import HealthCheck, settings

# As in `swarm.cli.swarmd`: grpc's fork handlers and its threads can bring the process, or a child before its
# program runs, down; a thread that waits for a child can be told that it never was. grpc is not imported yet.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
if sys.version_info < (3, 12):
    asyncio.set_child_watcher(asyncio.PidfdChildWatcher())

settings.register_profile(
    "anew", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("same", settings.get_profile("anew"), derandomize=True)
settings.load_profile("same")
