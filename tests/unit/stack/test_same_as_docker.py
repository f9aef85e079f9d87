"""The same compose file through an unmodified `docker stack deploy` and our loader: the same is posted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from swarm.base.errors import InvalidArgument
from swarm.stack.load import load_stack, resolved_config
from swarm.stack.project import LoadOptions, Stack
from tests.fakes.fake_api import FakeApi, Request, serve

pytestmark = [
    pytest.mark.docker_client,
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker program"),
]

FULL = """
version: "3.13"
services:
  web:
    image: nginx:1
    command: echo "a b" $$HOME ${TAG:-none}
    entrypoint: [sh, -c]
    environment: {B: "2", A: 1, C: null, TAG: null, D: "${TAG}"}
    env_file: [one.env]
    labels: [l=m, q]
    hostname: '{{.Node.ID}}'
    user: u
    working_dir: /w
    stdin_open: true
    tty: true
    read_only: true
    init: true
    stop_signal: INT
    stop_grace_period: 1m30s
    sysctls: {net.core.somaxconn: 5}
    cap_add: [net_admin, CAP_CHOWN]
    cap_drop: [ALL]
    ulimits: {nofile: {soft: 1, hard: 2}, nproc: 7}
    dns: 1.1.1.1
    dns_search: [a.b]
    extra_hosts: ["a:1.2.3.4", "b:::1"]
    healthcheck:
      {test: curl x, interval: 1m30s, retries: 3, timeout: 2s, start_period: 3s, start_interval: 1s}
    logging: {driver: json-file, options: {max-size: 1m}}
    ports:
      - "8080:80"
      - "90"
      - "3000-3001:3000-3001/udp"
      - {target: 90, published: 99, mode: host, protocol: tcp}
    networks: {webnet: {aliases: [w2]}, ext: }
    volumes:
      - data:/d:ro,nocopy
      - ./x:/x:rshared
      - /anon
      - exv:/e
      - {type: tmpfs, target: /t, tmpfs: {size: 100}}
      - {type: volume, source: drv, target: /z, volume: {nocopy: true, subpath: s}}
      - {type: bind, source: /b, target: /bb, bind: {propagation: slave}, read_only: true}
    secrets: [s, {source: es, target: /tt, uid: "5", gid: "6", mode: 0440}]
    configs: [c, {source: ec, target: /cc, mode: 0400}]
    deploy:
      mode: replicated
      replicas: 3
      endpoint_mode: vip
      labels: {dl: x}
      update_config:
        parallelism: 2
        delay: 3s
        failure_action: rollback
        monitor: 4s
        max_failure_ratio: 0.5
        order: start-first
      rollback_config: {parallelism: 0, delay: 3s}
      resources:
        limits: {cpus: "0.5", memory: 50M, pids: 5}
        reservations:
          cpus: "0.1"
          memory: 32m
          generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 2m}
      placement:
        constraints: [node.role==manager]
        preferences: [{spread: node.labels.z}]
        max_replicas_per_node: 2
  db: {image: pg, restart: always, ports: ["127.0.0.1:5432:5432"]}
  g:
    image: "pg@sha256:0123456789012345678901234567890123456789012345678901234567890123"
    restart: "on-failure:3"
    deploy: {mode: global}
    healthcheck: {disable: true}
  j: {image: pg, restart: "no", deploy: {mode: replicated-job, replicas: 4}}
  k: {image: pg, deploy: {mode: global-job, endpoint_mode: dnsrr}, networks: {default: {aliases: [z]}}}
networks:
  webnet:
    driver: overlay
    driver_opts: {com.docker.network.driver.mtu: "1400"}
    attachable: true
    internal: true
    labels: {n: m}
    ipam: {driver: default, config: [{subnet: 10.9.0.0/24}]}
  ext: {external: true, name: outer}
  unused: {}
volumes:
  data:
  exv: {external: true, name: realv}
  drv: {driver: local, driver_opts: {type: nfs, o: addr=1.2.3.4, device: ":/x"}, labels: {z: y}, name: named}
secrets:
  s: {file: ./s.txt, labels: {a: b}, template_driver: golang}
  es: {external: true, name: outers}
configs:
  c: {file: ./s.txt}
  ec: {external: {name: outerc}}
"""
SECOND = """
version: "3.13"
services:
  web:
    environment: [B=9, E=5]
    labels: {l: n}
    command: [x]
    ports: ["91:91"]
    configs: [{source: d, target: /d2}]
  new: {image: a/b:c, networks: [webnet]}
configs: {d: {file: s.txt, name: dd}}
"""
SMALL = """
version: '3'
services: {web: {image: x, networks: [default]}}
networks: {default: {external: {name: out}}}
"""
REFUSED = [
    "services: {web: {image: Nginx}}",
    "services: {web: {image: x, imagee: y}}",
    "services: {web: {image: x, ports: ['99999:80']}}",
    "services: {web: {image: x, volumes: ['data:/x']}}",
    "services: {web: {image: x, networks: [n]}}",
    "services: {web: {image: x, secrets: [s]}}",
    "services: {web: {image: x, stop_grace_period: 10}}",
    "services: {web: {image: '${NO:?name it}'}}",
    "services: {web: {image: x, command: 'echo $('}}",
    "services: {web: {image: x, deploy: {mode: some}}}",
    "services: {web: {image: x, volumes: [{type: tmpfs, source: a, target: /b}]}}",
    "services: {web: {image: x}}\nvolumes: {v: {external: true, driver: x}}",
    "services:\n  web:\n    image: x\n    image: y",
    "services:\n\tweb: {image: x}",
    "version: '2'\nservices: {web: {image: x}}",
]


LINES = [
    "a b", "sh -c \"echo 'a \\\"b\\\" c' && x\"", "'--a=\"b c\"'", "a\\ b", '"a\\nb"', "x # y", "a#b;c|d > e",
    "echo `x`", 'a "" b', "a '' b", '"x\\\\y"', "'x\\y'", '\\"a\\"', "a  \t b\n", "\"a b\"c'd e'", "a\nb",
    "--a=/b/{{.Task.Slot}}", "-c 'exec \"$$0\"'", '"\\$$x"', "x=(1 2)", "a&b", '"it\'s"',
    "'say \"hi\"' \"x 'y' z\"", "a\\", '"open', "# all", "",
]  # fmt: skip


def docker(folder: Path, *files: str) -> tuple[int, dict[tuple[str, str], Any]]:
    """What `docker stack deploy` posts, by path and name, and how it ended."""

    def by_name(request: Request) -> list[dict[str, Any]]:
        names = json.loads(request.query["filters"])["name"]
        return [{"ID": f"id-{name}", "Spec": {"Name": name}} for name in names]

    api = FakeApi({
        "GET /info": {"Swarm": {"ControlAvailable": True, "LocalNodeState": "active"}},
        "GET /(networks|services)": [],
        "GET /networks/.*": {"Id": "n", "Name": "outer", "Scope": "swarm"},
        "GET /(secrets|configs)": by_name,
        "GET /(secrets|configs)/.*": (404, {"message": "not found"}),
        "POST /networks/create": (201, {"Id": "n"}),
        "POST /(secrets|configs|services)/create": (201, {"ID": "x"}),
    })  # fmt: skip
    with serve(api, folder / "s") as host:
        done = subprocess.run(
            ["docker", "-H", host, "stack", "deploy", "--resolve-image", "never", "-d"]
            + [word for file in files for word in ("-c", file)] + ["st"],
            cwd=folder, env={"PATH": os.environ["PATH"], "HOME": str(folder), "TAG": "t1"},
            capture_output=True, timeout=30, check=False,
        )  # fmt: skip
    (folder / "s").unlink()
    posted = [request for request in api.requests if request.method == "POST"]
    return done.returncode, {(each.path, each.body["Name"]): each.body for each in posted}


def ours(folder: Path, *files: str) -> Stack:
    return load_stack("st", files, LoadOptions(environment={"TAG": "t1"}, directory=str(folder)))


def said(value: Any) -> Any:
    """Without what says nothing, and without what differs on purpose."""
    if isinstance(value, dict):
        kept = {key: said(each) for key, each in value.items() if key not in ("SecretID", "ConfigID")}
        if "Mounts" in kept:
            kept["Mounts"].sort(key=lambda mount: mount["Target"])  # docker does when it merges files
        return {key: each for key, each in kept.items() if each not in (None, 0, "", False, [], {})}
    return [said(each) for each in value] if isinstance(value, list) else value


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "s.txt").write_text("hello\n")
    (tmp_path / "one.env").write_text('A=7\nF="x" # y\n# c\nTAG\n')
    for name, text in (("full.yml", FULL), ("second.yml", SECOND), ("small.yml", SMALL)):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("files", [["full.yml"], ["full.yml", "second.yml"], ["small.yml"]], ids=" ".join)
def test_the_same_is_posted(folder, files):
    code, theirs = docker(folder, *files)
    stack = ours(folder, *files)
    kinds = {
        "networks": stack.networks, "secrets": stack.secrets,
        "configs": stack.configs, "services": stack.services,
    }  # fmt: skip
    found = {
        (f"/{kind}/create", each.name): each.body
        for kind, objects in kinds.items()
        for each in objects
        if not getattr(each, "external", False)
    }
    assert code == 0
    assert said(found) == said(theirs)


@pytest.mark.parametrize("text", REFUSED)
def test_what_docker_refuses_is_refused(tmp_path, text):
    (tmp_path / "a.yml").write_text(text)
    code, posted = docker(tmp_path, "a.yml")
    assert code == 1
    assert not [path for path, _ in posted if path == "/services/create"]
    with pytest.raises(InvalidArgument, match=r"^a\.yml:\d+:\d+: "):
        ours(tmp_path, "a.yml")


def test_docker_reads_our_resolved_text(folder):
    _, theirs = docker(folder, "full.yml")
    text, _ = resolved_config(["full.yml"], LoadOptions(environment={"TAG": "t1"}, directory=str(folder)))
    (folder / "resolved.yml").write_text(text)
    code, again = docker(folder, "resolved.yml")
    assert code == 0
    assert again == theirs


def test_command_lines_are_split_as_docker_does(tmp_path):
    """Each line is refused by both, or both make the same words of it."""
    for line in LINES:
        text = f"version: '3'\nservices: {{web: {{image: x, command: {json.dumps(line)}}}}}\n"
        (tmp_path / "a.yml").write_text(text)
        code, posted = docker(tmp_path, "a.yml")
        if code:
            with pytest.raises(InvalidArgument, match=r"web\.command"):
                ours(tmp_path, "a.yml")
            continue
        theirs = posted["/services/create", "st_web"]["TaskTemplate"]["ContainerSpec"].get("Args", [])
        (web,) = ours(tmp_path, "a.yml").services
        assert web.body["TaskTemplate"]["ContainerSpec"].get("Args", []) == theirs, line
