"""The same flags through an unmodified `docker` and through our command: the same spec is posted."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any

import pytest

from swarm.cli.commands.service_create import create
from swarm.cli.commands.service_update import update
from tests.fakes.cluster_objects import reference
from tests.fakes.fake_api import FakeApi

pytestmark = [
    pytest.mark.docker_client,
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker program"),
]

OURS = [sys.executable, "-m", "swarm.cli.main"]
EVERY_FLAG = (
    "--name full --cap-add NET_ADMIN --cap-add CAP_SYS_TIME --cap-drop all "
    "--constraint 'node.role == worker' --container-label a=b --dns 1.2.3.4 --dns-option ndots:1 "
    "--dns-search ex.org --endpoint-mode dnsrr "
    "--entrypoint \"sh -c 'x y'\" -e A=1 -e SET_HERE -e NOPE --generic-resource gpu=2 "
    "--generic-resource ssd=1 --group 5 --health-cmd 'curl x' --health-interval 3s "
    "--health-retries 4 --health-start-interval 1s "
    "--health-start-period 9s --health-timeout 2s --host a.b:1.2.3.4 --host v6:::1 --hostname h1 --init "
    "-l x=y --limit-cpu 0.5 --limit-memory 512m --limit-pids 9 --log-driver json-file --log-opt max-size=1m "
    "--mount type=volume,src=v,dst=/v,volume-driver=local,volume-opt=a=b,volume-label=l=m,volume-nocopy,"
    "volume-subpath=s --mount type=bind,src=/a,dst=/b,bind-propagation=rslave,bind-recursive=disabled "
    "--mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770 --oom-score-adj 5 "
    "--placement-pref spread=node.labels.z -p published=80,target=80,mode=host --read-only --replicas 4 "
    "--replicas-max-per-node 2 --reserve-cpu 0.1 --reserve-memory 10m --restart-condition on-failure "
    "--restart-delay 1s --restart-max-attempts 2 --restart-window 4s --rollback-delay 1s "
    "--rollback-failure-action continue --rollback-max-failure-ratio 0.1 --rollback-monitor 3s "
    "--rollback-order start-first --rollback-parallelism 0 --stop-grace-period 3s --stop-signal INT "
    "--sysctl net.core.somaxconn=5 -t --ulimit nofile=5:6 --ulimit nproc=7 --update-delay 1s "
    "--update-failure-action rollback --update-max-failure-ratio 0.2 --update-monitor 2s "
    "--update-order start-first --update-parallelism 3 -u u:g -w /w"
)
CREATES = [
    "",
    EVERY_FLAG,
    "--mode global -p 8080-8081:80-81/udp",
    "--mode replicated-job",
    "--mode replicated-job --replicas 5",
    "--mode replicated-job --replicas 5 --max-concurrent 2",
    "--mode global-job --restart-condition on-failure",
    "--no-healthcheck --init=false --read-only=false",
    "--health-interval 5s",
    "--env-file ENV_FILE -e A=9",
    "--cap-add ALL --cap-drop ALL",
    "--cap-add a --cap-drop a --cap-drop b",
    "--restart-window 3s",
    "--update-order start-first",
    "--rollback-parallelism 0",
    "--limit-pids 5",
    "--mount type=bind,src=/a,dst=/b,bind-recursive=readonly,ro,bind-propagation=rprivate",
    "--mount type=bind,src=/a,dst=/b,bind-recursive=writable,ro",
    "--secret db_pass --config nginx.conf",
    "--secret source=db_pass,target=password,uid=2000,gid=3000,mode=0400 --secret api_key",
    "--config src=nginx.conf,target=/etc/nginx/nginx.conf,mode=0440",
    "--secret source=db_pass,mode=400",
]
REFUSED_CREATES = [
    "--mode global-job --replicas 2",
    "--mode global --max-concurrent 2",
    "--mode global --replicas-max-per-node 2",
    "--mode replicated-job --update-delay 1s",
    "--health-cmd a --no-healthcheck",
    "--secret nope",
    "--config nope",
    "--secret db_pass --secret source=api_key,target=db_pass",
]
SPEC: dict[str, Any] = {
    "Name": "rich",
    "Labels": {"x": "y", "k": "v"},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "img:1",
            "Labels": {"a": "b"},
            "Command": ["sh", "-c", "x y"],
            "Args": ["a", "b"],
            "Hostname": "h",
            "Env": ["E1=1", "SET_HERE=bar", "A=1"],
            "Dir": "/w",
            "User": "u:g",
            "Groups": ["5", "wheel"],
            "Init": True,
            "StopSignal": "INT",
            "TTY": True,
            "ReadOnly": True,
            "Mounts": [
                {"Type": "volume", "Source": "v", "Target": "/v"},
                {"Type": "bind", "Source": "/a", "Target": "/b"},
            ],
            "StopGracePeriod": 3_000_000_000,
            "Healthcheck": {"Test": ["CMD-SHELL", "curl x"], "Interval": 3_000_000_000, "Retries": 4},
            "Hosts": ["1.2.3.4 a.b c", "::1 v6"],
            "DNSConfig": {"Nameservers": ["1.2.3.4"], "Search": ["ex.org"], "Options": ["ndots:1"]},
            "Sysctls": {"net.core.somaxconn": "5"},
            "CapabilityAdd": ["CAP_NET_ADMIN", "CAP_SYS_TIME"],
            "CapabilityDrop": ["CAP_CHOWN"],
            "Ulimits": [{"Name": "nofile", "Hard": 6, "Soft": 5}, {"Name": "nproc", "Hard": 7, "Soft": 7}],
            "OomScoreAdj": 5,
            "Secrets": [reference("Secret", "s", "db_pass", "password")],
            "Configs": [reference("Config", "c", "nginx.conf", "/etc/nginx.conf")],
        },
        "Resources": {
            "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 512 << 20, "Pids": 9},
            "Reservations": {
                "NanoCPUs": 100_000_000,
                "MemoryBytes": 10 << 20,
                "GenericResources": [
                    {"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}},
                    {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 1}},
                ],
            },
        },
        "RestartPolicy": {
            "Condition": "on-failure",
            "Delay": 1_000_000_000,
            "MaxAttempts": 2,
            "Window": 4_000_000_000,
        },
        "Placement": {
            "Constraints": ["node.role == worker", "node.labels.a==b"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.z"}}],
            "MaxReplicas": 2,
        },
        "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
        "ForceUpdate": 3,
    },
    "Mode": {"Replicated": {"Replicas": 4}},
    "UpdateConfig": {
        "Parallelism": 3,
        "Delay": 1_000_000_000,
        "FailureAction": "rollback",
        "Monitor": 2_000_000_000,
        "MaxFailureRatio": 0.25,
        "Order": "start-first",
    },
    "EndpointSpec": {
        "Mode": "vip",
        "Ports": [
            {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
            {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 53, "PublishMode": "host"},
        ],
    },
}
JOB = copy.deepcopy(SPEC) | {"Mode": {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 4}}}
del JOB["UpdateConfig"]
UPDATES = [
    "--args \"x 'y z'\"",
    '--args ""',
    "--cap-add CHOWN",
    "--cap-add NET_ADMIN",
    "--cap-drop NET_ADMIN",
    "--cap-drop NET_ADMIN --cap-add NET_ADMIN",
    "--cap-drop NET_ADMIN --cap-add ALL",
    "--cap-drop ALL",
    "--cap-add RESET",
    "--constraint-add node.labels.c==b --constraint-rm 'node.role == worker'",
    "--constraint-rm node.role==worker",
    "--container-label-add a=c --container-label-add d --container-label-rm a",
    "--dns-add 9.9.9.9 --dns-rm 1.2.3.4 --dns-option-add a --dns-option-rm ndots:1 --dns-search-add q.org "
    "--dns-search-rm ex.org",
    "--endpoint-mode dnsrr",
    '--entrypoint "a b"',
    "--env-add A=2 --env-add Z=1 --env-add SET_HERE --env-add NOPE --env-rm E1",
    "--env-rm NOT_THERE",
    "--env-rm A --env-add A=5",
    "--force",
    "--generic-resource-add gpu=5 --generic-resource-rm ssd",
    "--group-add 7 --group-rm 5",
    "--health-cmd 'x y'",
    "--health-interval 1s --health-retries 9",
    "--no-healthcheck",
    "--host-add new:5.6.7.8 --host-rm v6:::1",
    "--host-rm a.b",
    "--host-rm c:1.2.3.4",
    "--hostname q",
    "--image new:2 --no-resolve-image",
    "--init=false",
    "--label-add x=z --label-rm k",
    "--limit-cpu 1",
    "--limit-memory 0",
    "--limit-pids 0",
    "--reserve-memory 0 --reserve-cpu 2",
    "--log-driver none",
    "--log-driver json-file --log-opt a=b",
    "--replicas 7",
    "--mount-add type=volume,src=w,dst=/v --mount-rm /b",
    "--mount-add type=volume,src=w,dst=/zz",
    "--oom-score-adj 0",
    "--placement-pref-add spread=node.labels.q --placement-pref-rm spread=node.labels.z",
    "--publish-add 9090:80 --publish-rm 80",
    "--publish-rm 80/tcp",
    "--publish-rm 8080:80",
    "--publish-rm published=53,target=53,protocol=udp,mode=host",
    "--publish-add 8080:80",
    "--read-only=false",
    "--replicas-max-per-node 0",
    "--restart-condition none",
    "--restart-delay 0s --restart-max-attempts 0 --restart-window 0s",
    "--rollback-delay 3s",
    "--rollback-parallelism 0",
    "--stop-grace-period 0s",
    '--stop-signal ""',
    "--sysctl-add a=b --sysctl-rm net.core.somaxconn",
    "-t=false",
    "--ulimit-add nofile=1:2 --ulimit-rm nproc",
    "--update-delay 1s --update-order stop-first",
    "--update-max-failure-ratio 0",
    "--update-parallelism 0",
    '-u "" -w ""',
    "--secret-rm db_pass --secret-add source=api_key,target=password,mode=0400",
    "--secret-add api_key",
    "--secret-rm db_pass --config-rm nginx.conf",
    "--secret-rm not_there --config-add source=nginx.conf,target=/other",
]


def canonical(value: Any) -> Any:
    """Order counts in commands only: docker's client sorts other lists. What says nothing is left out."""
    if isinstance(value, dict):
        found = {
            key: item if key in ("Command", "Args", "Test") else canonical(item)
            for key, item in value.items()
        }
        kept = (
            "Mode",
            "Limits",
            "Reservations",
            "Placement",
            "Labels",
            "Global",
            "GlobalJob",
            "Replicated",
            "ReplicatedJob",
        )
        return {
            key: item
            for key, item in found.items()
            if item not in ({}, [], 0, False, None) or (key in kept and item == {})
        }
    if isinstance(value, list):
        return sorted((canonical(item) for item in value), key=json.dumps)
    return value


def posted(api: FakeApi, host: str, program: list[str], arguments: list[str]) -> tuple[int, Any, Any]:
    environment = {key: value for key, value in os.environ.items() if key != "NOPE"}
    environment |= {"DOCKER_HOST": host, "SWARM_HOST": host, "SET_HERE": "bar"}
    api.requests.clear()
    done = subprocess.run(
        [*program, *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    posts = [request for request in api.requests if request.method == "POST"]
    if not posts:
        return done.returncode, None, done.stderr
    return done.returncode, canonical(posts[-1].body), posts[-1].query


@pytest.mark.parametrize("flags", CREATES)
def test_create(api: FakeApi, host: str, flags: str, tmp_path: Any) -> None:
    api.put("POST /services/create", (201, {"ID": "n" * 25}))
    env_file = tmp_path / "env"
    env_file.write_text("# a comment\nA=1\n\nSET_HERE\nNOPE_EITHER\n")
    words = [word.replace("ENV_FILE", str(env_file)) for word in shlex.split(flags)]
    arguments = ["service", "create", "-d", "--no-resolve-image", *words, "img:1", "-x", "--init=false"]
    theirs = posted(api, host, ["docker"], arguments)
    assert posted(api, host, OURS, arguments) == theirs
    assert theirs[0] == 0


@pytest.mark.parametrize("flags", REFUSED_CREATES)
def test_refused_create(api: FakeApi, host: str, flags: str) -> None:
    arguments = ["service", "create", "-d", "--no-resolve-image", *shlex.split(flags), "img:1"]
    status, body, text = posted(api, host, ["docker"], arguments)
    assert body is None
    assert posted(api, host, OURS, arguments) == (status, None, text)


def serve_spec(api: FakeApi, spec: dict[str, Any]) -> None:
    moment = "2026-01-01T00:00:00Z"
    service = {
        "ID": "r" * 25,
        "Version": {"Index": 7},
        "CreatedAt": moment,
        "UpdatedAt": moment,
        "Spec": spec,
    }
    api.put("GET /services/(rich|r{25})", lambda _: (200, copy.deepcopy(service)))


@pytest.mark.parametrize("flags", UPDATES)
def test_update(api: FakeApi, host: str, flags: str) -> None:
    serve_spec(api, SPEC)
    arguments = ["service", "update", "-d", *shlex.split(flags), "rich"]
    theirs = posted(api, host, ["docker"], arguments)
    assert posted(api, host, OURS, arguments) == theirs
    assert theirs[0] == 0


def ours(api: FakeApi, host: str, *flags: str) -> Any:
    posted(api, host, OURS, ["service", "update", "-d", *flags, "rich"])
    return [request for request in api.requests if request.method == "POST"][-1].body


def test_a_jobs_numbers_are_updated(api: FakeApi, host: str) -> None:
    """Docker's client refuses it, and can only scale a job."""
    serve_spec(api, JOB)
    mode = ours(api, host, "--replicas", "9", "--max-concurrent", "3")["Mode"]
    assert mode == {"ReplicatedJob": {"MaxConcurrent": 3, "TotalCompletions": 9}}


def test_a_published_port_gets_another_target(api: FakeApi, host: str) -> None:
    """Docker's client posts both, which the manager refuses."""
    serve_spec(api, SPEC)
    ports = ours(api, host, "--publish-add", "8080:81")["EndpointSpec"]["Ports"]
    assert [(port["PublishedPort"], port["TargetPort"]) for port in ports] == [(8080, 81), (53, 53)]


def test_the_short_form_removes_a_port_in_any_mode(api: FakeApi, host: str) -> None:
    """Docker's client leaves a host-mode port where it is, and says nothing."""
    serve_spec(api, SPEC)
    ports = ours(api, host, "--publish-rm", "53/udp")["EndpointSpec"]["Ports"]
    assert [port["TargetPort"] for port in ports] == [80]


def test_an_option_of_the_log_driver_alone_is_added(api: FakeApi, host: str) -> None:
    """Docker's client ignores it."""
    serve_spec(api, SPEC)
    driver = ours(api, host, "--log-opt", "max-file=3")["TaskTemplate"]["LogDriver"]
    assert driver == {"Name": "json-file", "Options": {"max-size": "1m", "max-file": "3"}}


def test_dropping_all_keeps_what_is_added(api: FakeApi, host: str) -> None:
    serve_spec(api, SPEC)
    container = ours(api, host, "--cap-drop", "all", "--cap-add", "chown")["TaskTemplate"]["ContainerSpec"]
    assert container["CapabilityDrop"] == ["ALL"]
    assert "CAP_CHOWN" in container["CapabilityAdd"]


def test_an_update_keeps_the_order_of_what_it_does_not_touch(api: FakeApi, host: str) -> None:
    """Docker's client sorts mounts on every update, which would replace tasks for a change of a label."""
    serve_spec(api, SPEC)
    assert ours(api, host, "--label-add", "a=b")["TaskTemplate"] == SPEC["TaskTemplate"]


@pytest.mark.parametrize("arguments", [("update", "-d", "--rollback", "rich"), ("rollback", "-d", "rich")])
def test_rollback(api: FakeApi, host: str, arguments: tuple[str, ...]) -> None:
    serve_spec(api, SPEC)
    theirs = posted(api, host, ["docker"], ["service", *arguments])
    mine = posted(api, host, OURS, ["service", *arguments])
    assert mine[:2] == theirs[:2]
    assert mine[2]["rollback"] == theirs[2]["rollback"] == "previous"


@pytest.mark.parametrize(("name", "command"), [("create", create), ("update", update)])
def test_every_flag_of_dockers_is_known(name: str, command: Any) -> None:
    """Ours, or refused by its name."""
    text = subprocess.run(
        ["docker", "service", name, "--help"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    theirs = set(re.findall(r"^\s+(?:-\w, )?(--[\w-]+)", text, re.MULTILINE))
    assert len(theirs) > 60
    known = {option for param in command.params for option in param.opts}
    assert theirs - known == set()
    assert set(re.findall(r"^\s+(-\w), ", text, re.MULTILINE)) - known == set()


def test_the_pretty_form_is_dockers(api: FakeApi, host: str) -> None:
    """But for the command, which Docker's leaves out."""
    spec = copy.deepcopy(SPEC) | {"RollbackConfig": SPEC["UpdateConfig"]}
    del spec["TaskTemplate"]["ContainerSpec"]["Command"]
    serve_spec(api, spec)
    environment = os.environ | {"DOCKER_HOST": host, "SWARM_HOST": host}
    texts = [
        subprocess.run(
            [*program, "service", "inspect", "--pretty", "rich"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        for program in (["docker"], OURS)
    ]
    assert texts[0] == texts[1]
