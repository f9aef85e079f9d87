"""The flags of `service create`: what is posted, and what is refused before any request."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.cli.mounts import parse_mount
from swarm.cli.service_edit import edit_ports
from swarm.model.publish import parse_publish, parse_unpublish
from tests.fakes.fake_api import FakeApi
from tests.unit.cli.conftest import Run


def port(target: int, published: int = 0, protocol: str = "tcp", mode: str = "ingress") -> dict[str, Any]:
    found = {"Protocol": protocol, "TargetPort": target, "PublishMode": mode}
    return found | ({"PublishedPort": published} if published else {})


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [port(80)]),
        ("8080:80", [port(80, 8080)]),
        ("53:53/udp", [port(53, 53, "udp")]),
        ("8080-8081:80-81", [port(80, 8080), port(81, 8081)]),
        ("8080-8081:80", [port(80, 8080), port(80, 8081)]),
        ("published=8080,target=80", [port(80, 8080)]),
        ("published=53,target=53,protocol=udp,mode=host", [port(53, 53, "udp", "host")]),
        ("target=80", [port(80)]),
        ("published=80,target=80,source=preserve", [port(80, 80) | {"source": "preserve"}]),
        ("published=80,target=80,proxy-protocol=v2", [port(80, 80) | {"proxy-protocol": "v2"}]),
    ],
)
def test_publish(text: str, ports: list[dict[str, Any]]) -> None:
    assert parse_publish(text) == ports


@pytest.mark.parametrize(
    ("flags", "section", "count"),
    [
        (("-p", "80:80", "-p", "80:81"), ("EndpointSpec", "Ports"), 2),
        (("-p", "80:80", "-p", "80:80"), ("EndpointSpec", "Ports"), 1),
        (
            ("--mount", "source=va,target=/x", "--mount", "source=vb,target=/x"),
            ("TaskTemplate", "ContainerSpec", "Mounts"),
            2,
        ),
        (("--env", "A=1", "--env", "A=2"), ("TaskTemplate", "ContainerSpec", "Env"), 1),
    ],
)
def test_two_of_one_place_are_left_to_the_manager_to_refuse(
    run: Run, api: FakeApi, flags: tuple[str, ...], section: tuple[str, ...], count: int
) -> None:
    run("service", "create", "-d", "--name", "x", *flags, "img")
    found = next(r for r in api.requests if r.path == "/services/create").body
    for key in section:
        found = found[key]
    assert len(found) == count


def test_a_ports_source_becomes_a_label_and_goes_with_the_port() -> None:
    spec: dict[str, Any] = {"Labels": {"a": "b"}}
    edit_ports(spec, [port(80, 8080) | {"source": "preserve"}, port(53, 53, "udp")], ())
    label = "swarm.port.8080/tcp.source"
    assert spec["Labels"] == {"a": "b", label: "preserve"}
    assert spec["EndpointSpec"]["Ports"] == [port(80, 8080), port(53, 53, "udp")]
    edit_ports(spec, [port(81, 8080) | {"source": "masquerade"}], ())
    assert spec["Labels"][label] == "masquerade"
    spec["Labels"]["swarm.port.8080.source"] = "preserve"  # the short name, as another client may set it
    edit_ports(spec, None, parse_unpublish("53/udp"))
    assert spec["Labels"] == {"a": "b", label: "masquerade", "swarm.port.8080.source": "preserve"}
    edit_ports(spec, None, parse_unpublish("81"))
    assert spec["Labels"] == {"a": "b"}


def test_a_port_that_goes_takes_all_its_options_along() -> None:
    spec: dict[str, Any] = {}
    edit_ports(spec, [port(80, 8080) | {"proxy-protocol": "v2"}, port(81, 8081)], ())
    assert spec["Labels"] == {"swarm.port.8080/tcp.proxy-protocol": "v2"}
    spec["Labels"] |= {"swarm.port.8081.proxy-protocol": "v2", "swarm.port.8081.source": "masquerade"}
    edit_ports(spec, None, parse_unpublish("81"))
    assert spec["Labels"] == {"swarm.port.8080/tcp.proxy-protocol": "v2"}


def test_a_proxy_protocol_needs_a_known_version_and_a_port_of_every_host() -> None:
    with pytest.raises(ValueError, match=r"invalid proxy-protocol value \(v2 or none\): v1"):
        parse_publish("published=80,target=80,proxy-protocol=v1")
    with pytest.raises(ValueError, match="proxy-protocol needs a published port in ingress mode"):
        parse_publish("target=80,proxy-protocol=v2")


@pytest.mark.parametrize(
    "text", ["target=80,source=preserve", "target=80,published=8080,mode=host,source=preserve"]
)
def test_a_source_needs_a_port_that_every_host_answers_on(text: str) -> None:
    with pytest.raises(ValueError, match="source needs a published port in ingress mode"):
        parse_publish(text)


def test_mounts() -> None:
    assert parse_mount("source=v,target=/v,ro,volume-label=a=b,volume-nocopy") == {
        "Type": "volume",
        "Source": "v",
        "Target": "/v",
        "ReadOnly": True,
        "VolumeOptions": {"Labels": {"a": "b"}, "NoCopy": True},
    }
    assert parse_mount("type=bind,src=/a,dst=/b,bind-propagation=rslave") == {
        "Type": "bind",
        "Source": "/a",
        "Target": "/b",
        "BindOptions": {"Propagation": "rslave"},
    }
    assert parse_mount("type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770") == {
        "Type": "tmpfs",
        "Target": "/t",
        "TmpfsOptions": {"SizeBytes": 64 << 20, "Mode": 0o1770},
    }


FULL = (
    "--name full --replicas 3 -p 8080:80 -p published=53,target=53,protocol=udp,mode=host -e A=1 -e HOME "
    "-e NOPE -l a=b -l c --constraint node.role==worker --replicas-max-per-node 2 --limit-cpu 0.5 "
    "--limit-memory 512m --limit-pids 5 --reserve-cpu 1 --reserve-memory 1g --restart-condition on-failure "
    "--restart-delay 1m30s --restart-max-attempts 4 -u u:g -w /w --mount type=volume,source=v,target=/v,ro "
    "--stop-grace-period 20s --stop-signal SIGINT --container-label x=y --entrypoint sh img:1 a -b"
)


def test_every_flag_reaches_the_spec(run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.delenv("NOPE", raising=False)
    outcome = run("service", "create", "-d", *FULL.split())
    assert outcome.status == 0, outcome.err
    assert outcome.out == "n" * 25 + "\n"
    assert api.requests[-1].body == {
        "Name": "full",
        "Labels": {"a": "b", "c": ""},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "img:1",
                "Labels": {"x": "y"},
                "Command": ["sh"],
                "Args": ["a", "-b"],
                "Env": ["A=1", "HOME=/root", "NOPE"],
                "Dir": "/w",
                "User": "u:g",
                "StopSignal": "SIGINT",
                "StopGracePeriod": 20_000_000_000,
                "Mounts": [{"Type": "volume", "Source": "v", "Target": "/v", "ReadOnly": True}],
            },
            "Resources": {
                "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 512 << 20, "Pids": 5},
                "Reservations": {"NanoCPUs": 1_000_000_000, "MemoryBytes": 1 << 30},
            },
            "RestartPolicy": {"Condition": "on-failure", "Delay": 90_000_000_000, "MaxAttempts": 4},
            "Placement": {"Constraints": ["node.role==worker"], "MaxReplicas": 2},
            "ForceUpdate": 0,
        },
        "Mode": {"Replicated": {"Replicas": 3}},
        "EndpointSpec": {"Mode": "vip", "Ports": [port(80, 8080), port(53, 53, "udp", "host")]},
    }


def test_what_was_not_asked_for_is_not_set(run: Run, api: FakeApi) -> None:
    assert run("service", "create", "-d", "--mode", "global", "img", "--name", "x").status == 0
    body = api.requests[-1].body
    assert body["TaskTemplate"]["ContainerSpec"] == {"Image": "img:latest", "Args": ["--name", "x"]}
    assert body["Mode"] == {"Global": {}}
    assert "Name" not in body
    assert "RestartPolicy" not in body["TaskTemplate"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--limit-memory 5x", 'invalid argument "5x" for "--limit-memory" flag: invalid suffix: \'x\''),
        ("--limit-cpu abc", '"--limit-cpu" flag: failed to parse abc as a rational number'),
        ("--restart-delay 5", '"--restart-delay" flag: time: missing unit in duration "5"'),
        ("--replicas abc", '"--replicas" flag: strconv.ParseUint: parsing "abc": invalid syntax'),
        ("--replicas-max-per-node -1", "invalid syntax"),
        ("--mode foo", "Unknown mode: foo, only replicated, global, replicated-job and global-job supported"),
        ("--mode global --replicas 3", "replicas can only be used with replicated or replicated-job mode"),
        ("-p 80:80:80:80", '"-p, --publish" flag: hostip is not supported'),
        ("-p 8080-8081:80-82", "invalid ranges specified for container and host Ports: 80-82 and 8080-8081"),
        ("-p published=80", "missing mandatory field 'target'"),
        ("-p target=80,foo=1", "invalid field key: foo"),
        ("-p target=80,mode=x", "invalid publish mode value"),
        ("-p abc", "invalid containerPort: abc"),
        ("-p 70000:80", "invalid hostPort: 70000"),
        ("-p 0:80", "invalid hostPort: 0"),
        ("-p :", "no port specified"),
        ("-p 8080:80/foo", "invalid proto: foo"),
        ("--mount type=foo,target=/x", "invalid mount type 'foo'"),
        ("--mount type=bind,target=/x", "source is required"),
        ("--mount type=volume,source=a", "target is required"),
        ("--mount type=volume,source=a,target=/x,tmpfs-size=3", "cannot mix 'tmpfs-*' options"),
        ("--mount bogus=a,target=/x", "unexpected key 'bogus' in 'bogus=a'"),
        ('--mount "x', "fields are separated by commas, and quoted whole or not at all"),
        ('--secret "x=y', "fields are separated by commas, and quoted whole or not at all"),
        ("--mount bogus", "invalid field 'bogus' must be a key=value pair"),
        ("-l =x", "invalid label '=x': empty name"),
        ("--env =x", "invalid environment variable: =x"),
        ("--constraint foo", "constraint expected one operator from ==, !="),
        ("--stop-grace-period 1x", 'time: unknown unit "x" in duration "1x"'),
        ("--restart-condition foo", "'foo' is not one of"),
        ("--bogus", "No such option '--bogus'"),
    ],
)
def test_a_malformed_flag_is_one_line_and_no_request(
    run: Run, api: FakeApi, flags: str, message: str
) -> None:
    outcome = run("service", "create", *flags.split(), "img")
    assert outcome.status != 0
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert api.requests == []


def test_an_image_that_nobody_has_is_refused_before_anything_is_created(run: Run, api: FakeApi) -> None:
    outcome = run("service", "create", "-d", "nope")
    assert outcome.status == 1
    assert outcome.err.startswith("image nope:latest is neither on this manager nor in its registry")
    assert not [r for r in api.requests if r.path == "/services/create"]
    assert run("service", "create", "-d", "--no-resolve-image", "nope").status == 0


def test_a_refusal_comes_alone(run: Run, api: FakeApi) -> None:
    api.put("GET /distribution/.+/json", (500, {"message": "no such host"}))
    api.put("POST /services/create", (503, {"message": "This node is not a swarm manager."}))
    outcome = run("service", "create", "-d", "other:1")
    assert outcome.err == "Error response from daemon: This node is not a swarm manager.\n"


def test_a_registry_that_cannot_be_asked_is_no_reason_to_refuse(run: Run, api: FakeApi) -> None:
    api.put("GET /distribution/.*/json", (503, {"message": "no route to host"}))
    outcome = run("service", "create", "-d", "nope")
    assert outcome.status == 0
    assert "its registry cannot be asked: no route to host" in outcome.err
