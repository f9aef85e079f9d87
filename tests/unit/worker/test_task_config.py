"""A task's spec, its image and its node make one container; registry logins are read as Docker's."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from swarm.base.errors import InvalidArgument
from swarm.model.container import DNSConfig, Driver, Privileges, SeccompOpts
from swarm.model.objects import Task
from swarm.model.specs import ContainerSpec, TaskSpec
from swarm.model.types import (
    DiscreteGenericResource,
    GenericResource,
    Mount,
    NamedGenericResource,
    NetworkAttachment,
    ResourceRequirements,
    Resources,
)
from swarm.worker.images.image import ImageConfig
from swarm.worker.images.login import registry_login
from swarm.worker.task_config import Base, NodeFacts, container_config, resolvers

NODE = NodeFacts(hostname="h7", architecture="x86_64", nameservers=("10.0.0.53",))
IMAGE = ImageConfig(env=("A=image",), cmd=("serve",), user="web", working_dir="/srv", volumes=("/data",))
TASK = Task(
    id="t" * 25,
    service_id="s" * 25,
    service_name="web",
    service_labels={"tier": "front"},
    slot=3,
    node_id="n" * 25,
    attachments=(NetworkAttachment(network_id="x", addresses=("10.0.0.9/20",)),),
)


def config(resources=None, log_driver=None, task=TASK, **container):
    spec = TaskSpec(
        container_spec=ContainerSpec(image="web", **container), resources=resources, log_driver=log_driver
    )
    base = Base(image=IMAGE, lower_dirs=(), netns=None)
    return container_config(replace(task, spec=spec), base, NODE)


def test_what_the_spec_leaves_open_the_image_and_the_node_say():
    made = config()
    assert (made.args, made.user, made.cwd, made.image_volumes) == (("serve",), "web", "/srv", ("/data",))
    assert (made.hostname, made.nameservers) == ("t" * 12, ("10.0.0.53",))
    assert made.hosts == (("10.0.0.9", "t" * 12),)
    assert made.limits.pids == 4096
    assert (made.init, made.privileged, made.seccomp.mode) == (False, False, "")


def test_templates_are_expanded_for_this_task_on_this_node():
    made = config(
        hostname="{{.Service.Name}}-{{.Task.Slot}}",
        env=("WHERE={{.Node.Hostname}}/{{.Node.Platform.OS}}", "TIER={{.Service.Labels.tier}}"),
        mounts=(Mount(source="data-{{.Task.Slot}}", target="/{{.Node.ID}}"),),
    )
    assert made.hostname == "web-3"
    assert made.env[-2:] == ("WHERE=h7/linux", "TIER=front")
    assert (made.mounts[0].source, made.mounts[0].target) == ("data-3", "/" + "n" * 25)
    everywhere = config(task=replace(TASK, slot=0), env=("SLOT={{.Task.Slot}}",))
    assert everywhere.env[-1] == "SLOT=" + "n" * 25
    with pytest.raises(InvalidArgument, match="expanding env"):
        config(env=("X={{.Service.Labels.nope}}",))


def test_generic_resources_are_told_in_the_environment():
    named = [NamedGenericResource(kind="gpu", value=value) for value in ("a", "b")]
    resources = (
        *(GenericResource(named_resource_spec=one) for one in named),
        GenericResource(discrete_resource_spec=DiscreteGenericResource(kind="ssd", value=2)),
    )
    env = config(task=replace(TASK, assigned_generic_resources=resources)).env
    assert "DOCKER_RESOURCE_GPU=a,b" in env
    assert "DOCKER_RESOURCE_SSD=2" in env


def test_swap_needs_a_memory_limit_and_minus_one_leaves_swappiness_alone():
    limits = Resources(memory_bytes=1 << 26)
    made = config(ResourceRequirements(limits=limits, swap_bytes=1 << 20, memory_swappiness=-1))
    assert (made.swap_bytes, made.swappiness) == (1 << 20, None)
    with pytest.raises(InvalidArgument, match="--limit-memory"):
        config(ResourceRequirements(swap_bytes=1 << 20))


def test_hosts_names_servers_and_the_log():
    dns = DNSConfig(nameservers=("9.9.9.9",), search=("example.org",), options=("ndots:2",))
    driver = Driver(name="local", options={"max-size": "1m", "max-file": "7"})
    made = config(hosts=("1.2.3.4 db db.local",), dns_config=dns, log_driver=driver)
    assert made.hosts[1:] == (("1.2.3.4", "db"), ("1.2.3.4", "db.local"))
    assert (made.nameservers, made.dns_search, made.dns_options) == (
        ("9.9.9.9",),
        ("example.org",),
        ("ndots:2",),
    )
    assert (made.log.max_bytes, made.log.max_files) == (1 << 20, 7)


def test_a_task_with_names_asks_the_hosts_name_server_which_asks_the_others():
    node = replace(NODE, resolvers=("127.0.0.53",))
    dns = DNSConfig(nameservers=("9.9.9.9",), search=("example.org",))
    base = Base(image=IMAGE, lower_dirs=(), netns=None, resolver="127.0.0.11")
    named = replace(TASK, spec=replace(TASK.spec, container_spec=ContainerSpec(image="web", dns_config=dns)))
    made = container_config(named, base, node)
    assert (made.nameservers, made.dns_search) == (("127.0.0.11",), ("example.org",))
    assert made.dns_options == ("ndots:0",)
    assert resolvers(named, node) == ("9.9.9.9",)
    assert resolvers(TASK, node) == ("127.0.0.53",)


def test_our_labels_and_privileges_meet_in_one_place():
    labels = {
        "swarm.privileged": "true",
        "swarm.device": "/dev/fuse:/dev/f:r",
        "swarm.security-opt": "no-new-privileges,seccomp=unconfined",
        "swarm.shm-size": "128m",
        "swarm.pid": "host",
    }
    made = config(labels=labels, privileges=Privileges(seccomp=SeccompOpts(mode="default")))
    assert (made.privileged, made.pid_host, made.ipc_host) == (True, True, False)
    assert made.shm_bytes == 128 << 20
    assert made.devices[0].container == "/dev/f"
    assert (made.no_new_privileges, made.seccomp.mode) == (True, "unconfined")


def encoded(**fields):
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")


def test_logins():
    login = registry_login(encoded(username="me", password="p?>", serveraddress="r"))
    assert login is not None
    assert (login.username, login.password.reveal()) == ("me", "p?>")
    packed = registry_login(encoded(auth=base64.b64encode(b"me:a:b").decode()))
    assert packed is not None
    assert (packed.username, packed.password.reveal()) == ("me", "a:b")
    token = registry_login(encoded(identitytoken="t"))
    assert token is not None
    assert token.identity_token is not None
    for nothing in ("", encoded()):
        assert registry_login(nothing) is None
    for broken in ("!", "W10", "bnVsbA"):
        with pytest.raises(InvalidArgument) as caught:
            registry_login(broken)
        assert broken not in str(caught.value)
