from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from swarm.base.errors import InvalidArgument
from swarm.model.specs import ContainerSpec, GlobalMode, ReplicatedMode, ServiceMode, ServiceSpec, TaskSpec
from swarm.model.types import (
    BindOptions,
    EndpointSpec,
    Mount,
    MountType,
    Placement,
    PortConfig,
    Protocol,
    PublishMode,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    TmpfsOptions,
)
from swarm.model.validation import validate_service_spec

GOOD = ServiceSpec(name="web", task_template=TaskSpec(container_spec=ContainerSpec(image="web:1")))


def with_container(**fields) -> ServiceSpec:
    return replace(GOOD, task_template=TaskSpec(container_spec=ContainerSpec(**{"image": "web:1"} | fields)))


def with_task(**fields) -> ServiceSpec:
    return replace(GOOD, task_template=replace(GOOD.task_template, **fields))


def with_ports(*ports: PortConfig, mode: str = "vip") -> ServiceSpec:
    return replace(GOOD, endpoint_spec=EndpointSpec(mode=mode, ports=ports))


def bind(source: str, target: str = "/x", **more) -> ServiceSpec:
    return with_container(mounts=(Mount(type=MountType.BIND, source=source, target=target, **more),))


@pytest.mark.parametrize(
    "spec",
    [
        GOOD,
        replace(GOOD, name="a" * 63),
        replace(GOOD, name="stack_web-1"),
        replace(GOOD, mode=ServiceMode(global_=GlobalMode())),
        replace(GOOD, mode=ServiceMode(replicated=ReplicatedMode(replicas=0))),
        with_container(env=("A=1", "B", "LINES=a\nb"), user="www:www", dir="/srv", hostname="h.example"),
        with_container(mounts=(Mount(target="/anonymous"), Mount(source="data", target="/data"))),
        bind("/etc/../x".replace("/..", "")),
        with_container(stop_signal="SIGRTMIN+3", stop_grace_period=timedelta(0)),
        with_ports(PortConfig(target_port=53, published_port=53), PortConfig(target_port=54)),
        with_ports(PortConfig(target_port=80, publish_mode=PublishMode.HOST), mode="dnsrr"),
        with_task(resources=ResourceRequirements(limits=Resources(nano_cpus=10**6, memory_bytes=4 << 20))),
    ],
)
def test_good_specs(spec: ServiceSpec) -> None:
    validate_service_spec(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(GOOD, name="-web"), "name must be valid as a DNS name component"),
        (replace(GOOD, name="a.b"), "name must be valid as a DNS name component"),
        (replace(GOOD, name="web\n"), "name must be valid as a DNS name component"),
        (replace(GOOD, name="a" * 64), "name must be 63 characters or fewer"),
        (
            replace(GOOD, mode=ServiceMode(replicated=ReplicatedMode(replicas=-1))),
            "invalid number of replicas -1",
        ),
        (with_container(image=""), "ContainerSpec: image reference must be provided"),
        (with_container(image="UPPER"), 'ContainerSpec: "UPPER" is not a valid repository/tag'),
        (with_container(env=("=x",)), "invalid environment variable: =x"),
        (with_container(env=("A\nB=x",)), "control characters in its name"),
        (with_container(hostname="a\nb"), "invalid hostname 'a\\nb'"),
        (with_container(user="root\nx"), "invalid user"),
        (with_container(dir="srv"), "the working directory 'srv' is invalid"),
        (with_container(stop_signal="KILL ME"), "invalid signal: KILL ME"),
        (with_container(stop_signal="SIGFOO"), "invalid signal: SIGFOO"),
        (with_container(stop_grace_period=timedelta(seconds=-1)), "invalid stop grace period"),
        (replace(GOOD, labels={"": "x"}), "the key must not be empty"),
        (replace(GOOD, labels={"a\nb": "x"}), "control characters"),
        (with_container(mounts=(Mount(target=""),)), "field Target must not be empty"),
        (with_container(mounts=(Mount(target="x"),)), "mount path must be absolute"),
        (with_container(mounts=(Mount(target="/"),)), "destination can't be '/'"),
        (with_container(mounts=(Mount(target="/a/../b"),)), "'..' is not allowed"),
        (with_container(mounts=(Mount(target="/a"), Mount(target="/a/"))), "duplicate mount point"),
        (
            with_container(mounts=(Mount(source="../x", target="/a"),)),
            "invalid characters for a local volume name",
        ),
        (with_container(mounts=(Mount(source="v", target="/a"),)), "too short"),
        (bind("etc"), "invalid mount source 'etc'"),
        (bind(""), "field Source must not be empty"),
        (bind("/a", bind_options=BindOptions(propagation="both")), "invalid propagation mode: both"),
        (bind("/a", tmpfs_options=TmpfsOptions()), "field TmpfsOptions must not be specified"),
        (
            with_container(mounts=(Mount(type=MountType.TMPFS, source="x", target="/a"),)),
            "field Source must not be specified",
        ),
        (
            with_task(resources=ResourceRequirements(limits=Resources(nano_cpus=999_999))),
            "Must be at least 0.001",
        ),
        (
            with_task(resources=ResourceRequirements(reservations=Resources(memory_bytes=1024))),
            "invalid memory value 1024: Must be at least 4MiB",
        ),
        (
            with_task(
                resources=ResourceRequirements(
                    limits=Resources(memory_bytes=4 << 20), reservations=Resources(memory_bytes=8 << 20)
                )
            ),
            "must not exceed the limit",
        ),
        (with_task(restart_policy=RestartPolicy(delay=timedelta(-1))), "restart-delay cannot be negative"),
        (with_task(placement=Placement(max_replicas=-1)), "must not be negative"),
        (
            replace(with_task(placement=Placement(max_replicas=1)), mode=ServiceMode(global_=GlobalMode())),
            "replicas-max-per-node can only be used",
        ),
        (with_ports(PortConfig(target_port=0)), "invalid target port 0"),
        (with_ports(PortConfig(target_port=1, published_port=65536)), "invalid published port 65536"),
        (with_ports(PortConfig(target_port=80), mode="dnsrr"), "can't be used with dnsrr mode"),
        (with_ports(mode="lb"), 'invalid endpoint mode "lb"'),
        (with_ports(PortConfig(target_port=80, published_port=2378)), "port 2378/tcp is the swarm's own"),
        (
            with_ports(
                PortConfig(
                    target_port=80,
                    published_port=4789,
                    protocol=Protocol.UDP,
                    publish_mode=PublishMode.HOST,
                )
            ),
            "port 4789/udp is the swarm's own",
        ),
        (with_ports(*(PortConfig(target_port=port) for port in range(1, 62))), "at most 60"),
        (
            with_ports(
                PortConfig(target_port=1, published_port=9), PortConfig(target_port=2, published_port=9)
            ),
            "duplicate published ports",
        ),
    ],
)
def test_bad_specs(spec: ServiceSpec, message: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        validate_service_spec(spec)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
