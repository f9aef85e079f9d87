"""Options of a container that are refused when a service is created, and how the others are read."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from swarm.base.errors import InvalidArgument
from swarm.model import container_rules as rules
from swarm.model.container import AppArmorOpts, Driver, HealthConfig, Privileges, SeccompOpts, Ulimit
from swarm.model.container_rules import Device, read_device, read_host, read_security_options
from swarm.model.log_driver import LogPolicy, log_policy
from swarm.model.mount_rules import validate_mount
from swarm.model.options import ContainerOptions
from swarm.model.specs import ContainerSpec
from swarm.model.task_template import check_templates
from swarm.model.types import Mount, VolumeOptions


def refused(check, *args, **more):
    with pytest.raises(InvalidArgument) as caught:
        check(*args, **more)
    return str(caught.value)


def test_only_namespaced_sysctls_and_the_reason_for_the_others():
    rules.check_sysctls(
        {"net.core.somaxconn": "1", "net/ipv4/x": "1", "kernel.sem": "1 2", "fs.mqueue.y": "1"}
    )
    assert "it is the whole node's" in refused(rules.check_sysctls, {"vm.swappiness": "1"})
    assert "is not allowed" in refused(rules.check_sysctls, {"kernel.hostname": "x"})
    assert "host's ipc" in refused(rules.check_sysctls, {"kernel.sem": "1"}, is_ipc_host=True)
    for name, value in (
        ("net..x", "1"),
        ("net", "1"),
        ("net.x y", "1"),
        ("net.x", "1\n2"),
        ("../net.x", "1"),
    ):
        assert "invalid sysctl" in refused(rules.check_sysctls, {name: value})


def test_capabilities_and_ulimits():
    assert rules.capability("net_admin") == rules.capability("CAP_NET_ADMIN") == "CAP_NET_ADMIN"
    assert rules.capability("all") == "ALL"
    assert "invalid capability" in refused(rules.check_capabilities, ["CAP_EVERYTHING"])
    rules.check_ulimits([Ulimit(name="nofile", soft=1, hard=2), Ulimit(name="core", soft=-1, hard=-1)])
    assert "nofiles" in refused(rules.check_ulimits, [Ulimit(name="nofiles", soft=1, hard=1)])
    for soft, hard in ((2, 1), (-1, 1)):
        assert "soft limit" in refused(rules.check_ulimits, [Ulimit(name="nofile", soft=soft, hard=hard)])


def test_hosts():
    assert read_host("10.0.0.1 a b") == (("10.0.0.1", "a"), ("10.0.0.1", "b"))
    assert read_host("fe80::1 a") == (("fe80::1", "a"),)
    for line in ("", "a 10.0.0.1", "10.0.0.1", "10.0.0.1 a#b"):
        assert "invalid hosts entry" in refused(rules.check_hosts, [line])


@pytest.mark.parametrize(
    "check",
    [
        HealthConfig(test=("SHELL", "x")),
        HealthConfig(test=("CMD",)),
        HealthConfig(test=("CMD-SHELL", "a", "b")),
        HealthConfig(test=("CMD", "a\0")),
        HealthConfig(interval=timedelta(microseconds=5)),
        HealthConfig(retries=-1),
    ],
)
def test_health_checks_that_make_no_sense(check):
    refused(rules.check_health, check)


def test_health_checks_that_do():
    for test in ((), ("NONE",), ("CMD", "a"), ("CMD-SHELL", "a b")):
        rules.check_health(HealthConfig(test=test))


def test_profiles():
    custom = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "x", "action": "a"}]})
    rules.check_privileges(Privileges(seccomp=SeccompOpts(mode="custom", profile=custom.encode())))
    rules.check_privileges(Privileges(app_armor=AppArmorOpts(mode="disabled")))
    for seccomp in (
        SeccompOpts(mode="odd"),
        SeccompOpts(mode="custom"),
        SeccompOpts(mode="default", profile=b"{}"),
        SeccompOpts(mode="custom", profile=b"no"),
        SeccompOpts(mode="custom", profile=b"{}"),
        SeccompOpts(mode="custom", profile=b'{"defaultAction": "x", "syscalls": [{}]}'),
    ):
        refused(rules.check_privileges, Privileges(seccomp=seccomp))
    refused(rules.check_privileges, Privileges(app_armor=AppArmorOpts(mode="mine")))


def test_devices_and_security_options():
    assert read_device("/dev/a") == Device(host="/dev/a", container="/dev/a")
    assert read_device("/dev/a:rw") == Device(host="/dev/a", container="/dev/a", access="rw")
    assert read_device("/dev/a:/dev/b:m") == Device(host="/dev/a", container="/dev/b", access="m")
    for text in ("a", "/etc/passwd", "/dev/../etc", "/dev/a:/etc/b", "/dev/a:/dev/b:x", "/dev/a:/dev/b:r:w"):
        refused(rules.check_container_options, ContainerOptions(devices=(text,)))
    found = read_security_options(("no-new-privileges:true", "apparmor=unconfined", "systempaths=unconfined"))
    assert (found.no_new_privileges, found.are_system_paths_open, found.is_seccomp_unconfined) == (
        True,
        True,
        False,
    )
    assert "choose from" in refused(read_security_options, ["label=disable"])


def test_log_drivers():
    assert log_policy(None) == log_policy(Driver()) == log_policy(Driver(name="local")) == LogPolicy()
    assert not log_policy(Driver(name="none")).is_kept
    sized = log_policy(Driver(name="json-file", options={"max-size": "64k", "max-file": "1"}))
    assert (sized.max_bytes, sized.max_files) == (64 << 10, 1)
    assert "json-file, local, none" in refused(log_policy, Driver(name="syslog"))
    assert "unknown log opt 'tag'" in refused(log_policy, Driver(name="local", options={"tag": "x"}))
    assert "takes none" in refused(log_policy, Driver(name="none", options={"max-size": "1m"}))
    for key, value in (("max-size", "-1"), ("max-size", "1"), ("max-file", "0"), ("max-file", "x")):
        assert f"invalid {key}" in refused(log_policy, Driver(options={key: value}))


def test_templates_are_tried_with_an_imagined_task():
    spec = ContainerSpec(
        hostname="{{.Node.Hostname}}", env=("A={{.Task.Name}}", "B={{.Service.Labels.x}}"), mounts=(Mount(),)
    )
    assert check_templates(spec, {"x": "y"}).env == ("A=service.1.taskid", "B=y")
    for text in ("{{.Task.Nope}}", "{{.Service.Labels.x}}", "{{.Task.Slot", "{{.Env.PATH}}"):
        assert "expanding env" in refused(check_templates, ContainerSpec(env=(f"A={text}",)))


def test_options_of_the_local_volume_driver():
    def mount(**options):
        driver = Driver(options=options)
        return Mount(source="vol", target="/v", volume_options=VolumeOptions(driver_config=driver))

    validate_mount(mount(type="nfs", o="addr=10.0.0.1", device=":/x"))
    validate_mount(mount())
    assert "knows device, o and type" in refused(validate_mount, mount(size="1", device="x"))
    assert '"device"' in refused(validate_mount, mount(type="tmpfs"))
    assert "control characters" in refused(validate_mount, mount(device="a\nb"))
