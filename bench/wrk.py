"""One run of wrk on a host: what came through per second.

In: where it runs (words before `wrk`, such as `nsenter`), what it asks for. Out: requests and bytes.
Invariant: answers that are no answers are an error, not a figure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.cluster import Cluster
from swarm.base.errors import SwarmError

CONNECTIONS = 16
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
CLOSE = ("-H", "Connection: close")
"""Each request on a connection of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Per second."""

    requests: float
    megabytes: float


def ask(
    cluster: Cluster,
    host: str,
    target: str,
    *,
    inside: Sequence[str] = (),
    more: Sequence[str] = (),
    connections: int = CONNECTIONS,
) -> Load:
    """Ask `target` (`address:port/path`) for a second. Raises: SwarmError."""
    argv = (*inside, "wrk", "-t", "1", "-c", str(connections), "-d", "1s", *more, f"http://{target}")
    said = cluster.run(host, *argv)
    requests = re.search(r"Requests/sec:\s*([\d.]+)", said)
    transfer = re.search(r"Transfer/sec:\s*([\d.]+)([KMG]?)B", said)
    if requests is None or transfer is None or "Non-2xx" in said:
        raise SwarmError(f"wrk against {target} from {host}: {said}")
    return Load(requests=float(requests[1]), megabytes=float(transfer[1]) * _UNITS[transfer[2]] / 1_000_000)
