"""Values that hold where a spec says nothing, each with where it comes from."""

from __future__ import annotations

from datetime import timedelta

from swarm.model.types import Protocol, RestartPolicy

RESTART_POLICY = RestartPolicy()
"""any, 5 s, no limit (SwarmKit api/defaults/service.go)."""

UPDATE_MONITOR = timedelta(seconds=5)
"""SwarmKit api/defaults/service.go."""

STOP_GRACE_PERIOD = timedelta(seconds=10)
"""SwarmKit api/defaults/service.go."""

PIDS_LIMIT = 4096
"""A fork bomb must stay in its task; Swarm has no default (CIS Docker Benchmark 5.29 asks for one)."""

HEARTBEATS_MISSED = 4
"""A node silent for this many heartbeat periods is down (1 s each: 4 s; SwarmKit: 5 s and 3)."""

DYNAMIC_PORTS = range(30000, 32768)
"""Ingress ports given to a service that names none (SwarmKit allocator/portallocator.go)."""

FIRST_VNI = 4096
"""libnetwork's ovmanager starts here too."""

JOIN_PORT = 2377
CLUSTER_PORT = 2378
ETCD_PEER_PORT = 2381
ETCD_CLIENT_PORT = 2382
DATA_PATH_PORT = 4789
ENCRYPTION_PORTS = (2383, 2384)
"""WireGuard's, one for each of two generations of keys."""

CLUSTER_PORTS = {
    Protocol.TCP: frozenset({JOIN_PORT, CLUSTER_PORT, ETCD_PEER_PORT, ETCD_CLIENT_PORT}),
    Protocol.UDP: frozenset({DATA_PATH_PORT, *ENCRYPTION_PORTS}),
}
"""A service that published one of these would answer in the cluster's own place, on every host."""
