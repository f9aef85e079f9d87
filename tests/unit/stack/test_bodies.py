"""What services, networks, secrets and configs are sent as, beyond what the comparison with docker shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm.stack.load import load_stack, resolved_config
from swarm.stack.project import LoadOptions
from tests.unit.stack.compose import load, service

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted(path.parent.name for path in ROOT.glob("examples/*/compose.yml"))


def notices(text: str) -> list[str]:
    indented = "\n".join("    " + line for line in text.splitlines())
    return [str(each) for each in load(f"services:\n  web:\n    image: x\n{indented}\n").notices]


def test_dependencies_travel_as_a_label_and_order_the_services():
    stack = load("""
        services:
          a: {image: x, depends_on: {c: {condition: service_healthy}, b: }}
          b: {image: x, depends_on: {c: {condition: service_completed_successfully}}}
          c: {image: x}
    """)
    assert [each.key for each in stack.services] == ["c", "b", "a"]
    a = stack.services[-1]
    assert a.depends_on == ("st_b", "st_c")
    assert a.body["Labels"]["swarm.depends-on"] == "st_b:started,st_c:healthy"
    assert stack.services[1].body["Labels"]["swarm.depends-on"] == "st_c:completed"


def test_what_docker_leaves_out_travels_as_labels():
    body = service(
        "privileged: true\ndevices: [/dev/a, '/dev/b:/dev/c:r']\nshm_size: 64m\npid: host\nipc: host\n"
        "security_opt: ['no-new-privileges:true', 'seccomp:unconfined']\nlabels: {mine: x}\n"
    )
    assert body["TaskTemplate"]["ContainerSpec"]["Labels"] == {
        "swarm.privileged": "true",
        "swarm.device": "/dev/a,/dev/b:/dev/c:r",
        "swarm.security-opt": "no-new-privileges,seccomp=unconfined",
        "swarm.shm-size": "67108864",
        "swarm.pid": "host",
        "swarm.ipc": "host",
        "mine": "x",
        "com.docker.stack.namespace": "st",
    }


def test_limits_of_the_compose_specification():
    body = service(
        "cpus: 0.5\nmem_limit: 64m\nmem_reservation: 32m\npids_limit: 9\nscale: 3\ngroup_add: [audio]"
    )
    assert body["TaskTemplate"]["Resources"] == {
        "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20, "Pids": 9},
        "Reservations": {"MemoryBytes": 32 << 20},
    }
    assert body["Mode"] == {"Replicated": {"Replicas": 3}}
    assert body["TaskTemplate"]["ContainerSpec"]["Groups"] == ["audio"]


@pytest.mark.parametrize(
    ("restart", "mode", "policy"),
    [
        ("always", "replicated", {"Condition": "any"}),
        ("unless-stopped", "global", {"Condition": "any"}),
        ("on-failure:4", "replicated", {"Condition": "on-failure", "MaxAttempts": 4}),
        ('"no"', "replicated", {"Condition": "none"}),
        ('"no"', "replicated-job", None),
    ],
)
def test_restart_stands_in_for_a_restart_policy(restart, mode, policy):
    body = service(f"restart: {restart}\ndeploy: {{mode: {mode}}}")
    assert body["TaskTemplate"].get("RestartPolicy") == policy
    given = service(f"restart: {restart}\ndeploy: {{restart_policy: {{delay: 1s}}}}")
    assert given["TaskTemplate"]["RestartPolicy"] == {"Delay": 1_000_000_000}


def test_zero_is_not_the_default():
    body = service("stop_grace_period: 0s\ninit: false\ndeploy: {replicas: 0, restart_policy: {delay: 0s}}")
    assert body["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] == 0
    assert body["TaskTemplate"]["ContainerSpec"]["Init"] is False
    assert body["TaskTemplate"]["RestartPolicy"] == {"Delay": 0}
    assert body["Mode"] == {"Replicated": {"Replicas": 0}}


def test_mounts():
    stack = load(
        """
        services:
          web:
            image: x
            tmpfs: ['/run:size=64k,mode=1770,ro', /tmp]
            volumes:
              - ../a:/a:ro
              - ~/b:/b
              - {type: bind, source: c, target: /c, bind: {create_host_path: true}}
              - {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 01777}}
        """,
        "/srv/project",
        environment={"HOME": "/home/me"},
    )
    assert stack.services[0].body["TaskTemplate"]["ContainerSpec"]["Mounts"] == [
        {"Type": "bind", "Source": "/srv/a", "Target": "/a", "ReadOnly": True},
        {"Type": "bind", "Source": "/home/me/b", "Target": "/b"},
        {
            "Type": "bind",
            "Source": "/srv/project/c",
            "Target": "/c",
            "BindOptions": {"CreateMountpoint": True},
        },
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777}},
        {
            "Type": "tmpfs",
            "Target": "/run",
            "ReadOnly": True,
            "TmpfsOptions": {"SizeBytes": 65536, "Mode": 0o1770},
        },
        {"Type": "tmpfs", "Target": "/tmp"},
    ]


def test_environment_from_files(tmp_path):
    (tmp_path / "a.env").write_text('A=1\nB="two" # c\nC\nD\n')
    spec = (
        "services: {web: {image: x, environment: {A: 9, E: }, "
        "env_file: [a.env, {path: no.env, required: false}]}}"
    )

    def env(text):
        stack = load(text, tmp_path, environment={"C": "client", "E": "e"})
        return stack.services[0].body["TaskTemplate"]["ContainerSpec"]["Env"]

    assert env(spec) == ["A=9", "B=two", "C=client", "E=e"]
    assert env("version: '3.9'\n" + spec) == ["A=9", 'B="two" # c', "C=client", "E=e"]


def test_notices_say_why():
    assert notices("build: .\ncontainer_name: c\nexpose: [80]\nnetwork_mode: host") == [
        "<stdin>:4:5: services.web.build is ignored: images are not built here: "
        "build it, push it, and name it by image",
        "<stdin>:5:5: services.web.container_name is ignored: tasks have names of their own, "
        "as there may be several",
        "<stdin>:6:5: services.web.expose is ignored: services of a network reach each other by name, "
        "on all ports",
        "<stdin>:7:5: services.web.network_mode is ignored: a service is attached to networks: use networks",
    ]
    assert notices("ports: ['127.0.0.1:80:80']") == [
        "<stdin>:4:13: services.web.ports[0] is published on every node's addresses: the address is ignored"
    ]


def test_unused_networks_are_not_made():
    stack = load("""
        services: {web: {image: x, networks: {a: , out: }}}
        networks:
          a:
            name: mine
            ipam: {config: [{subnet: 10.7.0.0/24, gateway: 10.7.0.9, aux_addresses: {x: 10.7.0.8}}]}
          b:
          out: {external: true}
    """)
    assert [(each.name, each.external) for each in stack.networks] == [("mine", False), ("out", True)]
    assert stack.networks[0].body["IPAM"] == {
        "Config": [{"Subnet": "10.7.0.0/24", "Gateway": "10.7.0.9", "AuxiliaryAddresses": {"x": "10.7.0.8"}}]
    }
    assert stack.services[0].networks == ("mine", "out")
    default = load("services: {web: {image: x}}\nnetworks: {default: {attachable: true}}").networks
    assert [(each.name, each.body["Attachable"]) for each in default] == [("st_default", True)]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_sent_as_recorded(example, request):
    folder = ROOT / "examples" / example
    options = LoadOptions(environment={"REGISTRY": "registry.lab:5000"}, directory=str(folder))
    stack = load_stack("demo", ["compose.yml"], options)
    bodies = {
        kind: [each.body for each in objects]
        for kind, objects in {
            "networks": stack.networks,
            "secrets": stack.secrets,
            "configs": stack.configs,
            "services": stack.services,
        }.items()
    } | {"notices": [str(notice) for notice in stack.notices]}
    found = json.dumps(bodies, indent=1, sort_keys=True).replace(str(folder), "FOLDER") + "\n"
    golden = Path(__file__).parent / "golden" / f"{example}.json"
    if request.config.getoption("--rewrite", default=False):
        golden.write_text(found)
    assert found == golden.read_text()


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_resolved_text_of_an_example_says_the_same(example):
    folder = str(ROOT / "examples" / example)
    options = LoadOptions(environment={"REGISTRY": "registry.lab:5000"}, directory=folder)
    text, _ = resolved_config(["compose.yml"], options)
    again = LoadOptions(stdin=text, directory=folder)
    assert load_stack("st", ["-"], again) == load_stack("st", ["compose.yml"], options)
    assert resolved_config(["-"], again)[0] == text
