"""Task templates compared by what they mean: a default that one of them leaves open is no difference.

Two templates or endpoints in, whether a task made from the one could as well be made from the other out.
Invariant: what a task's container gets to see is compared; how its image is fetched (pull options) is not.
Source: SwarmKit manager/orchestrator/task.go (IsTaskDirty).
"""

from __future__ import annotations

from dataclasses import replace

from swarm.model.defaults import RESTART_POLICY, STOP_GRACE_PERIOD
from swarm.model.specs import TaskSpec
from swarm.model.types import EndpointSpec, Placement, ResourceRequirements


def same_template(one: TaskSpec, other: TaskSpec) -> bool:
    return one == other or _spelt_out(one) == _spelt_out(other)


def same_but_for_placement(one: TaskSpec, other: TaskSpec) -> bool:
    return same_template(one, replace(other, placement=one.placement))


def same_endpoint(one: EndpointSpec | None, other: EndpointSpec | None) -> bool:
    return _spelt_out_endpoint(one) == _spelt_out_endpoint(other)


def _spelt_out(template: TaskSpec) -> TaskSpec:
    container = template.container_spec
    grace = container.stop_grace_period
    return replace(
        template,
        container_spec=replace(
            container,
            stop_grace_period=STOP_GRACE_PERIOD if grace is None else grace,
            pull_options=None,
        ),
        resources=template.resources or ResourceRequirements(),
        restart_policy=template.restart_policy or RESTART_POLICY,
        placement=template.placement or Placement(),
    )


def _spelt_out_endpoint(endpoint: EndpointSpec | None) -> EndpointSpec:
    endpoint = endpoint or EndpointSpec()
    return replace(endpoint, mode=endpoint.mode or "vip")
