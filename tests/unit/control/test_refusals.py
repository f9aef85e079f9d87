"""Every rule that a service's spec can break: its sentence, and a store that stays as it was."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import SwarmError
from swarm.base.ids import SequentialIds
from swarm.manager.control import Control
from swarm.model.docker_json import read_service_spec
from swarm.model.objects import Cluster, Service
from tests.fakes.fake_store import FakeStore

START = datetime(2026, 1, 1, tzinfo=UTC)
CONTAINER = "TaskTemplate.ContainerSpec"
RESOURCES = "TaskTemplate.Resources"
JOB = {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}

REFUSED: list[tuple[str, Any, str]] = [
    ("Name", "a b", "name must be valid as a DNS name component"),
    ("Labels", {"swarm.bogus": "1"}, "unknown option label swarm.bogus"),
    ("Labels", {"swarm.exclusive": "yes"}, "invalid swarm.exclusive 'yes': expected true or false"),
    ("Labels", {"swarm.autoscale": "min=2"}, "min (at least 1) and max (at least min)"),
    ("Labels", {"swarm.schedule": "* * * * *"}, "schedule can only be used with replicated-job"),
    ("Labels", {"swarm.depends-on": "nobody"}, "depends on service nobody, which does not exist"),
    ("Labels", {"swarm.update.progress-deadline": "x"}, "expected a duration such as 30s"),
    ("Labels", {"swarm.placement.strategy": "x"}, "expected spread or binpack"),
    ("Mode", {"Replicated": {"Replicas": -1}}, "invalid number of replicas -1"),
    ("Mode", {"Replicated": {}, "Global": {}}, "cannot specify more than one service mode"),
    ("UpdateConfig", {"Delay": -1000}, "TaskSpec: update-delay cannot be negative"),
    ("UpdateConfig", {"Monitor": -1000}, "TaskSpec: update-monitor cannot be negative"),
    ("UpdateConfig", {"MaxFailureRatio": 2}, "update-maxfailureratio cannot be less than 0 or bigger than 1"),
    ("UpdateConfig", {"Order": "x"}, "must be one of stop-first, start-first"),
    ("UpdateConfig", {"FailureAction": "x"}, "must be one of pause, continue, rollback"),
    ("RollbackConfig", {"Delay": -1000}, "TaskSpec: rollback-delay cannot be negative"),
    ("RollbackConfig", {"FailureAction": "rollback"}, "invalid rollback failure action"),
    ("TaskTemplate.RestartPolicy", {"Delay": -1000}, "TaskSpec: restart-delay cannot be negative"),
    ("TaskTemplate.RestartPolicy", {"Window": -1000}, "TaskSpec: restart-window cannot be negative"),
    ("TaskTemplate.Placement", {"Constraints": ["bogus==1"]}, "bogus"),
    (
        "TaskTemplate.Placement",
        {"Constraints": ["node.role"]},
        "constraint expected one operator from ==, !=",
    ),
    ("TaskTemplate.LogDriver", {"Name": "splunk"}, "unknown log driver 'splunk'"),
    ("TaskTemplate.LogDriver", {"Name": "json-file", "Options": {"x": "1"}}, "unknown log opt 'x'"),
    (RESOURCES, {"Limits": {"NanoCPUs": 5}}, "invalid cpu value 5e-09: Must be at least 0.001"),
    (RESOURCES, {"Limits": {"MemoryBytes": 1024}}, "invalid memory value 1024: Must be at least 4MiB"),
    (RESOURCES, {"SwapBytes": -2}, "invalid memory-swap -2"),
    (RESOURCES, {"MemorySwappiness": 101}, "invalid memory-swappiness 101"),
    (
        RESOURCES,
        {"Reservations": {"GenericResources": [{"NamedResourceSpec": {"Kind": "gpu", "Value": "a"}}]}},
        "a service asks for a number of them",
    ),
    (f"{CONTAINER}.Image", "A:b:c", 'ContainerSpec: "A:b:c" is not a valid repository/tag'),
    (f"{CONTAINER}.Hostname", "-", "invalid hostname"),
    (f"{CONTAINER}.Hostname", "{{.Nope}}", "expanding hostname"),
    (f"{CONTAINER}.Env", ["A={{.Task.Nope}}"], "expanding env"),
    (f"{CONTAINER}.Env", ["=x"], "invalid environment variable: =x"),
    (f"{CONTAINER}.StopSignal", "NOPE", "NOPE"),
    (f"{CONTAINER}.Healthcheck", {"Test": ["RUN", "x"]}, "Unknown healthcheck type"),
    (f"{CONTAINER}.Healthcheck", {"Interval": 1000}, "Interval in Healthcheck cannot be less than 1ms"),
    (f"{CONTAINER}.Healthcheck", {"Retries": -1}, "Retries in Healthcheck cannot be negative"),
    (f"{CONTAINER}.CapabilityAdd", ["CAP_NOPE"], "invalid capability: 'CAP_NOPE'"),
    (f"{CONTAINER}.CapabilityDrop", ["CAP_NOPE"], "invalid capability: 'CAP_NOPE'"),
    (f"{CONTAINER}.Sysctls", {"kernel.panic": "1"}, "sysctl 'kernel.panic' is not allowed"),
    (f"{CONTAINER}.Ulimits", [{"Name": "x", "Soft": 1, "Hard": 1}], "invalid ulimit type: x"),
    (f"{CONTAINER}.Ulimits", [{"Name": "nofile", "Soft": 2, "Hard": 1}], "soft limit must be less than"),
    (f"{CONTAINER}.OomScoreAdj", 1001, "invalid OomScoreAdj value 1001"),
    (f"{CONTAINER}.Groups", ["a:b"], "invalid group 'a:b'"),
    (f"{CONTAINER}.Hosts", ["x y"], "'x' is not an IP address"),
    (f"{CONTAINER}.DNSConfig", {"Nameservers": ["x"]}, "invalid nameserver 'x'"),
    (f"{CONTAINER}.DNSConfig", {"Search": ["a b"]}, "invalid DNS search domain or option 'a b'"),
    (f"{CONTAINER}.Privileges", {"Seccomp": {"Mode": "x"}}, "invalid seccomp mode 'x'"),
    (f"{CONTAINER}.Isolation", "hyperv", "TaskTemplate.ContainerSpec.Isolation is not supported"),
    (f"{CONTAINER}.Mounts", [{"Type": "volume", "Target": "t"}], "mount path must be absolute"),
    (
        f"{CONTAINER}.Mounts",
        [{"Type": "volume", "Target": "/t", "VolumeOptions": {"DriverConfig": {"Name": "nfs"}}}],
        'volume driver "nfs" is not available',
    ),
    (
        f"{CONTAINER}.Mounts",
        [{"Type": "volume", "Target": "/t", "VolumeOptions": {"Subpath": "../x"}}],
        "invalid volume subpath",
    ),
    (
        f"{CONTAINER}.Mounts",
        [
            {
                "Type": "bind",
                "Source": "/s",
                "Target": "/t",
                "BindOptions": {"ReadOnlyForceRecursive": True},
            }
        ],
        "ReadOnlyForceRecursive goes with ReadOnly",
    ),
    (f"{CONTAINER}.Labels", {"swarm.privileged": "true"}, "privileged is not allowed in this swarm"),
    (f"{CONTAINER}.Labels", {"swarm.device": "/dev/kvm"}, "device is not allowed in this swarm"),
    (f"{CONTAINER}.Labels", {"swarm.shm-size": "x"}, "expected a size such as 64m"),
    (f"{CONTAINER}.Labels", {"swarm.exclusive": "true"}, "unknown option label swarm.exclusive"),
    ("EndpointSpec", {"Mode": "x"}, 'invalid endpoint mode "x"'),
    ("EndpointSpec", {"Mode": "dnsrr", "Ports": [{"TargetPort": 1}]}, "can't be used with dnsrr mode"),
    ("EndpointSpec", {"Ports": [{"TargetPort": 0}]}, "invalid target port 0"),
]
JOBS_REFUSED: list[tuple[str, Any, str]] = [
    ("UpdateConfig", {"Parallelism": 1}, "Jobs may not have an update config"),
    ("RollbackConfig", {"Parallelism": 1}, "Jobs may not have an update config"),
    ("Mode", {"ReplicatedJob": {"MaxConcurrent": -1}}, "Maximum concurrent jobs must not be negative"),
    ("Mode", {"ReplicatedJob": {"TotalCompletions": -1}}, "Total completed jobs must not be negative"),
    ("Labels", {"swarm.schedule": "x"}, "x"),
    ("Labels", {"swarm.autoscale": "max=2,cpu=50%"}, "autoscale can only be used with replicated mode"),
]


def spec_with(path: str, value: Any, **base: Any) -> dict[str, Any]:
    spec: dict[str, Any] = copy.deepcopy(
        {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "web:1"}}} | base
    )
    place = spec
    *sections, key = path.split(".")
    for section in sections:
        place = place.setdefault(section, {})
    place[key] = value
    return spec


@pytest.mark.parametrize(("path", "value", "message"), REFUSED)
async def test_of_a_service(path: str, value: Any, message: str) -> None:
    await check(spec_with(path, value), message, {})


@pytest.mark.parametrize(("path", "value", "message"), JOBS_REFUSED)
async def test_of_a_job(path: str, value: Any, message: str) -> None:
    await check(spec_with(path, value, **({} if path == "Mode" else {"Mode": JOB})), message, {"Mode": JOB})


async def check(spec: dict[str, Any], message: str, base: dict[str, Any]) -> None:
    clock = FakeClock(START)
    store = FakeStore(clock)
    store.put(Cluster(id="c" * 25))
    control = Control(store, clock, SequentialIds("id"), lambda _: True)
    good = {"Name": "old", "TaskTemplate": {"ContainerSpec": {"Image": "web:1"}}} | base
    service = await control.create_service(read_service_spec(good))
    before = (store.view.list(Service), store.view.list(Cluster))
    with pytest.raises(SwarmError) as refused:
        await control.create_service(read_service_spec(spec))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    changed = spec if spec["Name"] != "web" else spec | {"Name": "old"}
    with pytest.raises(SwarmError):
        await control.update_service(service.id, service.meta.version.index, read_service_spec(changed))
    assert (store.view.list(Service), store.view.list(Cluster)) == before
