from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from swarm.base.errors import Fatal
from swarm.model.container import SeccompOpts, Ulimit
from swarm.model.types import Resources
from swarm.worker.runtime.config import (
    ContainerConfig,
    check_config,
    hosts_file,
    process_args,
    process_env,
    resolv_conf,
)
from swarm.worker.runtime.exec_spec import ExecConfig, exec_process
from swarm.worker.runtime.resolved import ALL_CAPABILITIES, HostFacts, Resolved, ResolvedMount, User
from swarm.worker.runtime.rights import DEFAULT_CAPABILITIES
from swarm.worker.runtime.seccomp import seccomp_profile
from swarm.worker.runtime.spec import oci_spec

CONFIG = ContainerConfig(id="a" * 25, args=("/bin/true",))
HOST = HostFacts(architecture="x86_64", swap_limit=True)


def spec(config=CONFIG, user=User(), mounts=(), host=HOST, **more):  # noqa: B008 - frozen
    return oci_spec(config, Resolved(rootfs=Path("/r"), user=user, mounts=mounts), host, **more)


def test_args_compose_as_docker_composes_them():
    image = {"entrypoint": ("/entry",), "cmd": ("serve",)}
    assert process_args(command=(), args=(), **image) == ("/entry", "serve")
    assert process_args(command=(), args=("x",), **image) == ("/entry", "x")
    assert process_args(command=("/c",), args=(), **image) == ("/c",)
    assert process_args(command=("/c",), args=("x",), **image) == ("/c", "x")
    with pytest.raises(Fatal, match="no command specified"):
        process_args(command=(), args=(), entrypoint=(), cmd=())


def test_the_users_environment_wins_and_a_bare_key_removes():
    env = process_env(image=("PATH=/x", "A=1", "B=2"), user=("A=3", "B", "C="), hostname="h")
    assert env == ("PATH=/x", "HOSTNAME=h", "A=3", "C=")


def test_capabilities_are_never_inheritable_or_ambient():
    for user in (User(), User(uid=5, gid=6)):
        capabilities = spec(user=user)["process"]["capabilities"]
        assert capabilities["inheritable"] == []
        assert capabilities["ambient"] == []
        assert set(capabilities["bounding"]) == DEFAULT_CAPABILITIES
        assert bool(capabilities["effective"]) is (user.uid == 0)


def test_the_primary_group_is_among_the_additional_ones():
    user = spec(user=User(uid=5, gid=6, additional_gids=(7, 6)))["process"]["user"]
    assert user == {"uid": 5, "gid": 6, "additionalGids": [6, 7]}


def test_limits_become_cgroup_values_and_pids_are_always_limited():
    resources = spec()["linux"]["resources"]
    assert resources["pids"] == {"limit": 4096}
    assert "cpu" not in resources
    assert "memory" not in resources
    limits = Resources(nano_cpus=500_000_000, memory_bytes=1 << 24, pids=32)
    resources = spec(dataclasses.replace(CONFIG, limits=limits))["linux"]["resources"]
    assert resources["pids"] == {"limit": 32}
    assert resources["cpu"] == {"quota": 50_000, "period": 100_000}
    assert resources["memory"] == {"limit": 1 << 24, "swap": 1 << 24}
    without_swap = HostFacts(architecture="x86_64", swap_limit=False)
    resources = spec(dataclasses.replace(CONFIG, limits=limits), host=without_swap)["linux"]["resources"]
    assert resources["memory"] == {"limit": 1 << 24}


def test_devices_are_denied_first():
    rules = spec()["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert {"allow": True, "type": "c", "major": 136, "access": "rwm"} in rules


def test_the_network_namespace_is_entered_by_path_or_new():
    assert {"type": "network"} in spec()["linux"]["namespaces"]
    config = dataclasses.replace(CONFIG, netns=Path("/run/netns/x"))
    assert {"type": "network", "path": "/run/netns/x"} in spec(config)["linux"]["namespaces"]


def test_inner_mounts_come_after_outer_ones():
    mounts = (ResolvedMount(target="/a/b"), ResolvedMount(target="/a"))
    targets = [mount["destination"] for mount in spec(mounts=mounts)["mounts"]]
    assert targets.index("/a") < targets.index("/a/b")
    assert targets[0] == "/proc"


def test_annotations_hold_the_compiled_filter_only():
    assert spec()["annotations"] == {}
    assert spec(seccomp_bpf="QQ==")["annotations"] == {"run.oci.seccomp_bpf_data": "QQ=="}


@pytest.mark.parametrize(
    "change",
    [
        {"args": ()},
        {"args": ("a\0b",)},
        {"env": ("A=\0",)},
        {"hostname": "a\nb"},
        {"hostname": "x" * 65},
        {"nameservers": ("1.1.1.1\noptions x",)},
        {"hosts": (("10.0.0.1", "a b"),)},
        {"dns_search": ("",)},
        {"cwd": "relative"},
        {"cwd": "/proc/self/fd/7"},
    ],
)
def test_text_that_would_mean_something_else_is_refused(change):
    with pytest.raises(Fatal):
        check_config(dataclasses.replace(CONFIG, **change))


def test_the_written_files():
    config = dataclasses.replace(CONFIG, hosts=(("10.0.0.5", "web"),), dns_search=("example.com",))
    check_config(config)
    assert hosts_file(config).endswith("10.0.0.5\tweb\n")
    assert resolv_conf(config) == "search example.com\nnameserver 127.0.0.11\noptions ndots:0\n"


def actions(profile):
    plain = {}
    for rule in profile["syscalls"]:
        if "args" not in rule:
            plain.update(dict.fromkeys(rule["names"], rule["action"]))
    return plain


def test_seccomp_refuses_what_is_dangerous_and_what_it_does_not_know():
    profile = seccomp_profile(capabilities=DEFAULT_CAPABILITIES, architecture="x86_64")
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert profile["defaultErrnoRet"] == 38
    known = actions(profile)
    for name in (
        "mount",
        "unshare",
        "setns",
        "bpf",
        "keyctl",
        "io_uring_setup",
        "kexec_load",
        "perf_event_open",
    ):
        assert known[name] == "SCMP_ACT_ERRNO"
    for name in ("read", "execve", "futex", "openat2", "chroot", "mknod"):
        assert known[name] == "SCMP_ACT_ALLOW"
    assert not {"clone", "clone3", "socket", "personality"} & known.keys()


def test_seccomp_follows_the_capabilities():
    more = seccomp_profile(capabilities=DEFAULT_CAPABILITIES | {"CAP_SYS_ADMIN"}, architecture="x86_64")
    assert actions(more)["mount"] == "SCMP_ACT_ALLOW"
    less = seccomp_profile(capabilities=frozenset(), architecture="x86_64")
    assert "chroot" not in actions(less)
    assert seccomp_profile(capabilities=DEFAULT_CAPABILITIES, architecture="vax") is None


def with_(**options):
    return dataclasses.replace(CONFIG, **options)


def capabilities(host=HOST, **options):
    return set(spec(with_(**options), host=host)["process"]["capabilities"]["bounding"])


def test_capabilities_are_added_to_and_taken_from_the_default():
    assert capabilities(capability_add=("NET_ADMIN",)) == DEFAULT_CAPABILITIES | {"CAP_NET_ADMIN"}
    assert capabilities(capability_drop=("CAP_CHOWN",)) == DEFAULT_CAPABILITIES - {"CAP_CHOWN"}
    assert capabilities(capability_drop=("ALL",), capability_add=("CAP_KILL",)) == {"CAP_KILL"}
    assert capabilities(capability_add=("ALL",), capability_drop=("BPF",)) == ALL_CAPABILITIES - {"CAP_BPF"}
    poor = dataclasses.replace(HOST, capabilities=frozenset({"CAP_CHOWN", "CAP_KILL"}))
    assert capabilities(poor) == capabilities(poor, capability_add=("ALL",)) == {"CAP_CHOWN", "CAP_KILL"}
    with pytest.raises(Fatal, match="CAP_NET_ADMIN cannot be added"):
        capabilities(poor, capability_add=("NET_ADMIN",))


def test_privileged_is_all_capabilities_and_devices_and_nothing_masked():
    made = spec(with_(privileged=True))
    linux = made["linux"]
    assert set(made["process"]["capabilities"]["bounding"]) == ALL_CAPABILITIES
    assert (linux["maskedPaths"], linux["readonlyPaths"], "seccomp" in linux) == ([], [], False)
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert not [m for m in made["mounts"] if "ro" in m["options"]]
    assert {n["type"] for n in linux["namespaces"]} >= {"pid", "ipc", "network"}


def test_a_custom_filter_takes_what_its_conditions_leave():
    calls = [
        {"names": ["a"], "action": "X"},
        {"names": ["b"], "action": "X", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["c"], "action": "X", "excludes": {"caps": ["CAP_CHOWN"]}},
        {"names": ["d"], "action": "X", "includes": {"arches": ["arm64"]}},
        {"names": ["e"], "action": "X", "errnoRet": 3, "includes": {"arches": ["amd64"]}},
    ]
    archs = [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}]
    document = {"defaultAction": "Y", "archMap": archs, "syscalls": calls}
    custom = SeccompOpts(mode="custom", profile=json.dumps(document).encode())
    made = spec(with_(seccomp=custom))["linux"]["seccomp"]
    assert made["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert [call["names"] for call in made["syscalls"]] == [["a"], ["e"]]
    assert made["syscalls"][1]["errnoRet"] == 3
    assert "seccomp" not in spec(with_(seccomp=SeccompOpts(mode="unconfined")))["linux"]


def test_swap_is_beside_memory():
    limits = Resources(memory_bytes=100)
    assert spec(with_(limits=limits, swap_bytes=50))["linux"]["resources"]["memory"]["swap"] == 150
    assert spec(with_(limits=limits, swap_bytes=-1))["linux"]["resources"]["memory"]["swap"] == -1
    assert spec(with_(swappiness=5))["linux"]["resources"]["memory"] == {"swappiness": 5}
    v2 = dataclasses.replace(HOST, swap_limit=False, swappiness=False)
    with pytest.raises(Fatal, match="does not count swap"):
        spec(with_(limits=limits, swap_bytes=50), host=v2)
    with pytest.raises(Fatal, match="cgroup v2 has no such setting"):
        spec(with_(swappiness=5), host=v2)


def test_what_this_node_cannot_give_is_refused():
    poor = dataclasses.replace(HOST, hard_limits={"nofile": 1000}, oom_score_adj=-5)
    assert spec(with_(ulimits=(Ulimit(name="nofile", soft=10, hard=1000),)), host=poor)
    for soft, hard in ((10, 1001), (-1, -1)):
        with pytest.raises(Fatal, match="the most on this node is 1000"):
            spec(with_(ulimits=(Ulimit(name="nofile", soft=soft, hard=hard),)), host=poor)
    assert spec(with_(oom_score_adj=-5), host=poor)["process"]["oomScoreAdj"] == -5
    with pytest.raises(Fatal, match="the least on this node is -5"):
        spec(with_(oom_score_adj=-6), host=poor)


def test_terminal_init_and_unlimited():
    process = spec(with_(tty=True, init=True, ulimits=(Ulimit(name="core", soft=-1, hard=-1),)))["process"]
    assert process["terminal"] is True
    assert "TERM=xterm" in process["env"]
    assert process["args"] == ["/sbin/docker-init", "--", "/bin/true"]
    assert process["rlimits"] == [{"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1}]


def test_a_program_beside_gets_what_the_container_has_and_no_more():
    process = spec(with_(env=("A=1", "HOME=/h"), capability_drop=("ALL",)))["process"]
    made = exec_process(process, ExecConfig(args=("x",), env=("A=2",)), None)
    assert (made["args"], made["env"], made["cwd"]) == (["x"], ["A=2", "HOME=/h"], "/")
    assert made["capabilities"]["bounding"] == []
    user = User(uid=5, gid=6, home="/five")
    made = exec_process(process, ExecConfig(args=("x",), tty=True, cwd="/w"), user)
    assert made["env"] == ["A=1", "HOME=/five", "TERM=xterm"]
    assert (made["user"]["uid"], made["cwd"], made["terminal"]) == (5, "/w", True)
