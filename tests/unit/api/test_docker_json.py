from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.base.errors import InvalidArgument
from swarm.model.container import DNSConfig, Privileges
from swarm.model.docker_json import decode, encode, json_name, read_service_spec, timestamp, with_defaults
from swarm.model.specs import (
    ContainerSpec,
    GlobalMode,
    NodeSpec,
    ReplicatedMode,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.types import (
    BindOptions,
    EndpointSpec,
    Mount,
    MountType,
    Placement,
    Platform,
    PortConfig,
    Protocol,
    PublishMode,
    ResourceRequirements,
    Resources,
    RestartCondition,
    RestartPolicy,
    TmpfsOptions,
    VolumeOptions,
)


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("id", "ID"),
        ("nano_cpus", "NanoCPUs"),
        ("memory_bytes", "MemoryBytes"),
        ("pids", "Pids"),
        ("tls_info", "TLSInfo"),
        ("global_", "Global"),
        ("virtual_ips", "VirtualIPs"),
        ("network_id", "NetworkID"),
        ("os", "OS"),
        ("addr", "Addr"),
    ],
)
def test_names(field: str, key: str) -> None:
    assert json_name(field) == key


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
spans = st.integers(0, 10**9).map(lambda us: timedelta(microseconds=us))
resources = st.builds(
    Resources, nano_cpus=st.integers(0, 2**62), memory_bytes=st.integers(0, 2**62), pids=st.integers(0)
)
mounts = st.builds(
    Mount,
    type=st.sampled_from(MountType),
    source=texts,
    target=texts,
    read_only=st.booleans(),
    bind_options=st.none() | st.builds(BindOptions, propagation=texts, non_recursive=st.booleans()),
    volume_options=st.none() | st.builds(VolumeOptions, no_copy=st.booleans()),
    tmpfs_options=st.none()
    | st.builds(TmpfsOptions, size_bytes=st.integers(0, 2**62), mode=st.integers(0, 4095)),
)
containers = st.builds(
    ContainerSpec,
    image=texts,
    labels=st.dictionaries(texts, texts, max_size=2),
    command=st.lists(texts, max_size=2).map(tuple),
    env=st.lists(texts, max_size=2).map(tuple),
    mounts=st.lists(mounts, max_size=2).map(tuple),
    stop_grace_period=st.none() | spans,
)
ports = st.builds(
    PortConfig,
    protocol=st.sampled_from(Protocol),
    target_port=st.integers(0, 65535),
    published_port=st.integers(0, 65535),
    publish_mode=st.sampled_from(PublishMode),
)
specs = st.builds(
    ServiceSpec,
    name=texts,
    labels=st.dictionaries(texts, texts, max_size=2),
    task_template=st.builds(
        TaskSpec,
        container_spec=containers,
        resources=st.none()
        | st.builds(ResourceRequirements, limits=resources.filter(lambda r: r.pids < 2**62)),
        restart_policy=st.none()
        | st.builds(RestartPolicy, condition=st.sampled_from(RestartCondition), delay=spans, window=spans),
        placement=st.none()
        | st.builds(
            Placement,
            constraints=st.lists(texts, max_size=2).map(tuple),
            platforms=st.just((Platform(architecture="amd64", os="linux"),)),
        ),
    ),
    mode=st.builds(ReplicatedMode, replicas=st.integers(0, 10**6)).map(lambda r: ServiceMode(replicated=r))
    | st.just(ServiceMode(global_=GlobalMode())),
    endpoint_spec=st.none() | st.builds(EndpointSpec, ports=st.lists(ports, max_size=2).map(tuple)),
)


@given(specs)
def test_a_spec_survives_the_way_out_and_in(spec: ServiceSpec) -> None:
    assert read_service_spec(encode(spec)) == spec


def test_fields_that_clients_read_unguarded_are_always_there() -> None:
    found = encode(ServiceSpec())
    assert found == {
        "Name": "",
        "Labels": {},
        "TaskTemplate": {"ContainerSpec": {}, "ForceUpdate": 0},
        "Mode": {"Replicated": {"Replicas": 1}},
    }


@pytest.mark.parametrize("mode", [None, {}, {"Replicated": {}}, {"Replicated": {"Replicas": None}}])
def test_no_mode_is_one_replica(mode: object) -> None:
    assert read_service_spec({"Mode": mode}).mode == ServiceMode(replicated=ReplicatedMode(replicas=1))


def test_zero_replicas_stay_zero() -> None:
    found = read_service_spec({"Mode": {"Replicated": {"Replicas": 0}}})
    assert found.mode.replicated == ReplicatedMode(replicas=0)


def test_what_the_docker_client_sends_in_passing_is_accepted() -> None:
    found = read_service_spec(
        {
            "Labels": None,
            "TaskTemplate": {
                "ContainerSpec": {
                    "DNSConfig": {},
                    "Init": False,
                    "Isolation": "default",
                    "Privileges": {"CredentialSpec": None, "SELinuxContext": None},
                    "Secrets": [],
                    "Configs": None,
                },
                "Runtime": "container",
                "Networks": [],
                "LogDriver": None,
            },
            "UpdateConfig": None,
        }
    )
    said = ContainerSpec(dns_config=DNSConfig(), init=False, privileges=Privileges())
    assert found == ServiceSpec(task_template=TaskSpec(container_spec=said))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"Name": 1}, "invalid Name: expected a text, got number"),
        ({"Labels": {"a": 1}}, "invalid Labels.a: expected a text, got number"),
        ({"Labels": []}, "invalid Labels: expected an object of texts, got list"),
        ([], "invalid request body: expected an object, got list"),
        ({"Mode": {"Plugin": {}}}, "Mode.Plugin is not supported by this version"),
        ({"Mode": {"Global": {}, "Replicated": {}}}, "cannot specify more than one service mode"),
        ({"TaskTemplate": {"Runtime": "plugin"}}, "TaskTemplate.Runtime is not supported by this version"),
        (
            {"TaskTemplate": {"ContainerSpec": {"Mounts": [{"Type": "npipe"}]}}},
            'invalid TaskTemplate.ContainerSpec.Mounts[0].Type: "npipe": must be one of volume, bind, tmpfs',
        ),
        (
            {"TaskTemplate": {"Resources": {"Limits": {"NanoCPUs": True}}}},
            "invalid TaskTemplate.Resources.Limits.NanoCPUs: expected a whole number, got boolean",
        ),
        (
            {"TaskTemplate": {"Resources": {"Limits": {"NanoCPUs": 2**63}}}},
            f"invalid TaskTemplate.Resources.Limits.NanoCPUs: {2**63} is out of range",
        ),
        (
            {"TaskTemplate": {"ContainerSpec": {"Env": ["A=\0"]}}},
            "invalid TaskTemplate.ContainerSpec.Env[0]: a text must not contain NUL",
        ),
        ({"Name": "\ud800"}, "invalid Name: not valid Unicode"),
    ],
)
def test_refusals_name_the_place(spec: object, message: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_service_spec(spec)
    assert str(refused.value) == message


def test_keys_are_read_in_any_case() -> None:
    found = read_service_spec({"Mode": {"replicated": {"Replicas": 3}}})
    assert found.mode.replicated == ReplicatedMode(replicas=3)


def test_durations_are_nanoseconds() -> None:
    found = decode(ContainerSpec, {"StopGracePeriod": 1_500_000_000})
    assert found.stop_grace_period == timedelta(seconds=1.5)
    assert encode(found)["StopGracePeriod"] == 1_500_000_000


def test_node_spec_keeps_what_clients_send() -> None:
    assert encode(decode(NodeSpec, {"Labels": {}, "Role": "worker", "Availability": "drain"})) == {
        "Labels": {},
        "Role": "worker",
        "Availability": "drain",
    }


def test_times_have_nine_digits_and_a_t() -> None:
    assert timestamp(datetime(2026, 11, 21, 7, 4, 10, 5, tzinfo=UTC)) == "2026-11-21T07:04:10.000005000Z"
    assert timestamp(datetime(2026, 11, 21, tzinfo=UTC)) == "2026-11-21T00:00:00.000000000Z"
    assert timestamp(None) == "0001-01-01T00:00:00Z"


def test_defaults_go_into_a_copy_only() -> None:
    stored = {"ID": "x", "Spec": encode(ServiceSpec(endpoint_spec=EndpointSpec(mode="dnsrr")))}
    found = with_defaults(stored)
    assert found["Spec"]["RollbackConfig"]["Parallelism"] == 1
    assert found["Spec"]["TaskTemplate"]["RestartPolicy"]["Condition"] == "any"
    assert found["Spec"]["EndpointSpec"]["Mode"] == "dnsrr"
    assert "RollbackConfig" not in stored["Spec"]
    assert "RestartPolicy" not in stored["Spec"]["TaskTemplate"]
