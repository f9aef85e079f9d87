"""`deploy:` of a service. Readers by key; the values are as `swarm.stack.readers` says. Pure.

Source: compose v3.13.
"""

from __future__ import annotations

import re
from typing import Any

from swarm.stack.readers import (
    Reader,
    Scope,
    choice,
    cpus,
    duration,
    fields,
    integer,
    items_of,
    labels,
    ratio,
    size,
    text,
)
from swarm.stack.yaml_nodes import Node

_OPERATOR = re.compile(r"==|!=|\sin\s*\(|exists$")
_COUNT = integer(0, 2**31 - 1)
_UPDATE: dict[str, Reader] = {
    "parallelism": _COUNT,
    "delay": duration,
    "failure_action": choice("pause", "continue", "rollback"),
    "monitor": duration,
    "max_failure_ratio": ratio,
    "order": choice("stop-first", "start-first"),
}


def _generic(node: Node, scope: Scope) -> dict[str, Any]:
    found: dict[str, Any] = fields({"discrete_resource_spec": fields({"kind": text, "value": _COUNT})})(
        node, scope
    )
    spec = found.get("discrete_resource_spec") or {}
    if not spec.get("kind") or "value" not in spec:
        raise scope.wrong(node, "expected discrete_resource_spec with kind and value")
    return found


def _constraint(node: Node, scope: Scope) -> str:
    """Whether it can be met, the manager says."""
    found = text(node, scope)
    if not _OPERATOR.search(found):
        raise scope.wrong(node, f"constraint expected one operator from ==, !=: '{found}'")
    return found


_LIMITS: dict[str, Reader] = {"cpus": cpus, "memory": size, "pids": integer(-1, 2**31 - 1)}
_RESERVATIONS: dict[str, Reader] = {"cpus": cpus, "memory": size, "generic_resources": items_of(_generic)}
_PLACEMENT: dict[str, Reader] = {
    "constraints": items_of(_constraint),
    "preferences": items_of(fields({"spread": text})),
    "max_replicas_per_node": _COUNT,
}
_RESTART: dict[str, Reader] = {
    "condition": choice("none", "on-failure", "any"),
    "delay": duration,
    "max_attempts": _COUNT,
    "window": duration,
}

read_deploy = fields(
    {
        "mode": choice("replicated", "global", "replicated-job", "global-job"),
        "replicas": _COUNT,
        "endpoint_mode": choice("vip", "dnsrr"),
        "labels": labels,
        "update_config": fields(_UPDATE),
        "rollback_config": fields(_UPDATE),
        "resources": fields(
            {
                "limits": fields(_LIMITS),
                "reservations": fields(
                    _RESERVATIONS, {"devices": "services ask for devices by generic_resources"}
                ),
            }
        ),
        "restart_policy": fields(_RESTART),
        "placement": fields(_PLACEMENT),
    }
)
