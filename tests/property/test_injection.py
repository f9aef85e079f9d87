"""No string of a user's becomes something else: another line, argument or rule, a path elsewhere.

Every string of a service's spec, wherever it is in the tree, is replaced by hostile text. Either the spec is
refused, or all that is made from it (hosts, resolv.conf, OCI configuration, names, firewall rules) reads back
as the same data.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.base.errors import SwarmError
from swarm.base.ids import ConfigID, SecretID, TaskID
from swarm.model.constraint import check_placement
from swarm.model.container import DNSConfig, Driver, HealthConfig, Privileges, SeccompOpts, Ulimit
from swarm.model.dataplane import (
    Backend,
    DataPlane,
    NetworkService,
    OverlayEndpoint,
    OverlayNetwork,
    PublishedPort,
    ServiceBackend,
    TaskNetwork,
)
from swarm.model.network_rules import validate_attachments, validate_network_spec
from swarm.model.objects import Task
from swarm.model.payload_rules import check_payload_spec, references, target_path
from swarm.model.specs import (
    ConfigReference,
    ContainerSpec,
    FileTarget,
    NetworkSpec,
    SecretReference,
    SecretSpec,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.types import (
    BindOptions,
    EndpointSpec,
    IPAMConfig,
    Mount,
    MountType,
    NetworkAttachment,
    NetworkAttachmentConfig,
    Placement,
    PlacementPreference,
    PortConfig,
    SpreadOver,
    VolumeOptions,
)
from swarm.model.validation import validate_service_spec
from swarm.overlay.balance import plan_rules, render_change, render_table
from swarm.overlay.dns.wire import pack_name
from swarm.overlay.guard import gateway_places, overlay_places, render_guard
from swarm.overlay.proxy_config import render_proxy
from swarm.overlay.records import plan_record
from swarm.overlay.virtual import plan_virtual, render_virtual
from swarm.worker.images.image import ImageConfig
from swarm.worker.runtime.config import check_config, hosts_file, resolv_conf
from swarm.worker.runtime.resolved import HostFacts, Resolved, ResolvedMount, User
from swarm.worker.runtime.spec import oci_spec
from swarm.worker.task_config import Base, NodeFacts, container_config

HOSTILE = (
    "x\nnameserver 6.6.6.6",
    "x\r\nY: z",
    "x\0y",
    "\0",
    "../../etc/shadow",
    "/../../etc/shadow",
    "x; add rule ip swarm input accept",
    'x" } accept',
    "10.0.0.1 evil.example\n10.0.0.2",
    "10.0.0.1 }; flush ruleset; #",
    "$(reboot)",
    "--privileged",
    "{{.Node.Hostname}}\n",
    "\u2028\u0085x",
    "\ud800",
    "a" * 300,
)
texts = st.sampled_from(HOSTILE) | st.text(max_size=20) | st.text(alphabet="a.-_/\n\0 :{}\"'=", max_size=12)

SPEC = ServiceSpec(
    name="web",
    labels={"tier": "front"},
    task_template=TaskSpec(
        container_spec=ContainerSpec(
            image="web:1",
            labels={"a": "b"},
            command=("/bin/web",),
            args=("-v",),
            hostname="h",
            env=("A=1",),
            dir="/srv",
            user="www:www",
            mounts=(
                Mount(
                    source="data",
                    target="/data",
                    volume_options=VolumeOptions(labels={"x": "y"}, subpath="s"),
                ),
                Mount(type=MountType.BIND, source="/src", target="/dst", bind_options=BindOptions()),
            ),
            stop_signal="SIGTERM",
            groups=("video",),
            privileges=Privileges(seccomp=SeccompOpts(mode="default")),
            healthcheck=HealthConfig(test=("CMD", "true")),
            hosts=("10.0.0.9 db",),
            dns_config=DNSConfig(nameservers=("10.0.0.53",), search=("example",), options=("ndots:1",)),
            sysctls={"net.ipv4.ip_forward": "1"},
            capability_add=("CAP_CHOWN",),
            capability_drop=("CAP_KILL",),
            ulimits=(Ulimit(name="nofile", soft=1, hard=1),),
            secrets=(
                SecretReference(secret_id=SecretID("s" * 25), secret_name="key", file=FileTarget(name="key")),
            ),
            configs=(
                ConfigReference(
                    config_id=ConfigID("c" * 25), config_name="cfg", file=FileTarget(name="/etc/cfg")
                ),
            ),
        ),
        placement=Placement(
            constraints=("node.role==worker",),
            preferences=(PlacementPreference(spread=SpreadOver(spread_descriptor="node.labels.az")),),
        ),
        log_driver=Driver(name="json-file", options={"max-size": "1m"}),
        networks=(NetworkAttachmentConfig(target="front", aliases=("www",)),),
    ),
    endpoint_spec=EndpointSpec(
        mode="vip", ports=(PortConfig(name="http", target_port=80, published_port=8080),)
    ),
)


def variants(value: Any, text: str) -> Iterator[Any]:
    """`value` with `text` in place of one string, for each string that is in it."""
    if isinstance(value, Enum):
        return
    if isinstance(value, str):
        yield text
    elif isinstance(value, Mapping):
        for key in value:
            rest = {k: v for k, v in value.items() if k != key}
            yield rest | {text: value[key]}
            yield from (rest | {key: other} for other in variants(value[key], text))
    elif isinstance(value, tuple):
        for at, item in enumerate(value):
            yield from ((*value[:at], other, *value[at + 1 :]) for other in variants(item, text))
    elif dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            for other in variants(getattr(value, each.name), text):
                yield dataclasses.replace(value, **{each.name: other})


def places(value: Any) -> int:
    return sum(1 for _ in variants(value, ""))


def one_of(value: Any, place: int, text: str) -> Any:
    return next(other for at, other in enumerate(variants(value, text)) if at == place)


def accepted(check: Callable[[], object]) -> bool:
    """Whether it is; a refusal is one of ours, and never a crash."""
    try:
        check()
    except SwarmError:
        return False
    return True


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from strings(key)
            yield from strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)


@given(place=st.integers(0, places(SPEC) - 1), text=texts)
def test_what_a_container_is_given_says_what_the_spec_says(place: int, text: str) -> None:
    check(one_of(SPEC, place, text))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_every_place(text: str) -> None:
    for spec in variants(SPEC, text):
        check(spec)


def check(spec: ServiceSpec) -> None:
    """Raises: AssertionError when it is accepted and says something else in the end."""

    def validate() -> None:
        validate_service_spec(spec)
        validate_attachments(spec)
        check_placement(spec.task_template.placement)

    if not accepted(validate):
        return
    attachment = NetworkAttachment(network_id="n", addresses=("10.0.0.5/24",))
    task = Task(
        id=TaskID("t" * 25),
        service_name=spec.name,
        slot=1,
        spec=spec.task_template,
        attachments=(attachment,),
    )
    base = Base(image=ImageConfig(), lower_dirs=(), netns=Path("/n"), resolver="127.0.0.11")
    node = NodeFacts(hostname="node", architecture="x86_64", nameservers=("10.0.0.53",))
    config = container_config(task, base, node)
    check_config(
        config
    )  # the node refuses nothing that was accepted, else the task would fail again and again
    own = [tuple(line.split("\t")) for line in hosts_file(config).removesuffix("\n").split("\n")][6:]
    assert own == [tuple(pair) for pair in config.hosts]
    assert len(hosts_file(config).splitlines()) == 6 + len(config.hosts)
    assert all(len(line.split()) == 2 for line in hosts_file(config).splitlines()[6:])
    said = [line.split(" ") for line in resolv_conf(config).splitlines()]
    assert [words[1] for words in said if words[0] == "nameserver"] == list(config.nameservers)
    assert [words[1:] for words in said if words[0] == "search"] == [list(config.dns_search)] * bool(
        config.dns_search
    )
    assert [words[1:] for words in said if words[0] == "options"] == [list(config.dns_options)]
    mounts = tuple(ResolvedMount(source=m.source or "/v", target=m.target) for m in config.mounts)
    given = oci_spec(
        config,
        Resolved(rootfs=Path("/r"), user=User(), mounts=mounts),
        HostFacts(architecture="x86_64", swap_limit=True),
    )
    read: Any = json.loads(json.dumps(given))
    assert tuple(read["process"]["args"]) == config.args
    assert set(config.env) <= set(read["process"]["env"])
    assert not [word for word in strings(read) if "\0" in word], "the runtime would cut it off there"
    assert all(".." not in mount["destination"].split("/") for mount in read["mounts"])
    assert all(
        ".." not in target_path(one).split("/") for one in references(task.spec.container_spec) if one.file
    )
    assert not [word for word in spec.task_template.container_spec.healthcheck.test if "\0" in word]
    for name in (spec.name, *(alias for at in spec.task_template.networks for alias in at.aliases)):
        pack_name(f"tasks.{name}")


NETWORK = NetworkSpec(
    name="front",
    labels={"a": "b"},
    options={"com.docker.network.driver.mtu": "1400"},
    ipam=(
        IPAMConfig(
            subnet="10.9.0.0/24",
            ip_range="10.9.0.0/25",
            gateway="10.9.0.1",
            auxiliary_addresses={"router": "10.9.0.2"},
        ),
    ),
)


@given(place=st.integers(0, places(NETWORK) - 1), text=texts)
def test_a_networks_words_are_names_and_addresses(place: int, text: str) -> None:
    spec = one_of(NETWORK, place, text)
    if accepted(lambda: validate_network_spec(spec)):
        pack_name(f"web.{spec.name}")
        for ipam in spec.ipam:
            for word in (ipam.subnet, ipam.ip_range, ipam.gateway, *ipam.auxiliary_addresses.values()):
                assert set(word) <= set("0123456789./"), word


@given(text=texts)
def test_a_secrets_name_is_no_path(text: str) -> None:
    if accepted(lambda: check_payload_spec(SecretSpec(name=text, data=b"x"))):
        assert "/" not in text
        assert text.isprintable()


PLANE = DataPlane(
    networks=(
        OverlayNetwork(
            id="n",
            name="front",
            vni=4097,
            subnets=("10.0.0.0/24",),
            host_address="10.0.0.2",
            endpoints=(OverlayEndpoint(address="10.0.0.6", host="192.0.2.2"),),
        ),
    ),
    ports=(
        PublishedPort(published_port=80, target_port=80, backends=(Backend(address="10.0.0.5"),)),
        PublishedPort(
            published_port=81, target_port=80, proxy_protocol=True, backends=(Backend(address="10.0.0.5"),)
        ),
    ),
    services=(
        NetworkService(
            network_id="n",
            service_id="s",
            name="web",
            aliases=("www",),
            virtual_ip="10.0.0.200",
            backends=(ServiceBackend(address="10.0.0.5", names=("web.1.t",)),),
        ),
    ),
)
TASK = TaskNetwork(
    task_id="t" * 25,
    attachments=(NetworkAttachment(network_id="n", addresses=("10.0.0.5/24",)),),
    host_ports=(PortConfig(target_port=80, published_port=9000),),
)


def rules(plane: DataPlane, task: TaskNetwork) -> list[str]:
    """Everything that is given to nft and HAProxy."""
    record = plan_record(task, {}, ipaddress.IPv4Network("172.18.0.0/16"))
    table = plan_rules(plane, [record], "172.18.0.0/16")
    bare = plan_rules(DataPlane(), [], "172.18.0.0/16")
    return [
        render_table(table),
        render_change(bare, table),
        render_change(table, bare),
        render_virtual(plan_virtual(plane.services)),
        render_guard("swg", gateway_places([record]), "172.18.0.1"),
        render_guard("p", overlay_places([record], "n")),
        render_proxy(plane, "172.18.0.0/16", Path("/run/swarm/proxy")),
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_string_becomes_a_rule(text: str) -> None:
    """Names do not get there at all; what should be an address is parsed, or nothing is made of it."""
    clean = [text.count("\n") for text in rules(PLANE, TASK)]
    made = 0
    for place in range(places(PLANE)):
        made += _is_harmless(one_of(PLANE, place, text), TASK, text, clean)
    for place in range(places(TASK)):
        made += _is_harmless(PLANE, one_of(TASK, place, text), text, clean)
    assert made > 5, "names and ids are not in the way"


def _is_harmless(plane: DataPlane, task: TaskNetwork, text: str, clean: list[int]) -> bool:
    try:
        found = rules(plane, task)
    except (ValueError, SwarmError):
        return False
    assert all(text not in each for each in found)
    assert all(each.count("\n") <= lines for each, lines in zip(found, clean, strict=True))
    return True


def test_every_string_of_the_spec_is_tried() -> None:
    """A field that is added later must have something in the example, or it would be left out."""
    empty = [
        f"{type(owner).__name__}.{each.name}"
        for owner in _dataclasses(SPEC)
        for each in dataclasses.fields(owner)
        if "str" in str(each.type) and getattr(owner, each.name) in ((), {})
    ]
    assert empty == ["NetworkAttachmentConfig.driver_opts"], "which no spec may have"


def _dataclasses(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for item in value:
            yield from _dataclasses(item)
    elif dataclasses.is_dataclass(value):
        yield value
        for each in dataclasses.fields(value):
            yield from _dataclasses(getattr(value, each.name))
