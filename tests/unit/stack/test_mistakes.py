"""The usual mistakes: each one line, with the place and the way out."""

from __future__ import annotations

import textwrap

import pytest

from tests.unit.stack.compose import mistake

SERVICE = "services:\n  web:\n    image: x\n"
IN_SERVICE = {
    "imagee: y": "4:5: services.web: unknown key 'imagee': did you mean 'image'?",
    "deploy:\n  replica: 3": "5:7: services.web.deploy: unknown key 'replica': did you mean 'replicas'?",
    "deploy:\n  resources:\n    limits:\n      zzz: 1": (
        "7:11: services.web.deploy.resources.limits: unknown key 'zzz'"
    ),
    'ports: ["99999:80"]': (
        "4:13: services.web.ports[0]: invalid hostPort: 99999 "
        "('99999:80': a port is a number from 1 to 65535, as in 8080:80)"
    ),
    "ports: [80808]": (
        "4:13: services.web.ports[0]: invalid containerPort: 80808 "
        "('80808': a port is a number from 1 to 65535, as in 8080:80)"
    ),
    "ports:\n  - target: 70000": (
        "5:17: services.web.ports[0].target: 70000 is out of range: it is a number from 1 to 65535"
    ),
    "ports: [{published: 80}]": (
        "4:13: services.web.ports[0]: target is missing: the port inside the container"
    ),
    "ports: 80": "4:12: services.web.ports: expected a list, got a number",
    "ports: [{target: 80, protocol: http}]": (
        "4:36: services.web.ports[0].protocol: invalid value 'http': choose tcp or udp or sctp"
    ),
    "stop_grace_period: 10": (
        '4:24: services.web.stop_grace_period: time: missing unit in duration "10" '
        '(write 10s, 1m30s or 500ms)'
    ),
    "deploy: {resources: {limits: {memory: 50MBs}}}": (
        "4:43: services.web.deploy.resources.limits.memory: invalid suffix: 'MBs' (write 512m, 1g or 1.5GiB)"
    ),
    "deploy: {resources: {limits: {cpus: half}}}": (
        "4:41: services.web.deploy.resources.limits.cpus: invalid number of CPUs 'half': "
        "failed to parse half as a rational number (write 0.5)"
    ),
    "deploy: {replicas: many}": "4:24: services.web.deploy.replicas: expected a whole number, got 'many'",
    "deploy: {replicas: -1}": (
        "4:24: services.web.deploy.replicas: -1 is out of range: it is a number from 0 to 2147483647"
    ),
    "deploy: {mode: global, replicas: 2}": (
        "4:38: services.web.deploy.replicas: replicas can only be used with replicated mode"
    ),
    "deploy: {mode: global-job, update_config: {}}": (
        "4:47: services.web.deploy.update_config: jobs may not have an update config"
    ),
    "deploy: {update_config: {max_failure_ratio: nan}}": (
        "4:49: services.web.deploy.update_config.max_failure_ratio: nan is out of range: "
        "it is a number from 0 to 1"
    ),
    "deploy: {update_config: {order: first}}": (
        "4:37: services.web.deploy.update_config.order: invalid value 'first': "
        "choose stop-first or start-first"
    ),
    "read_only: yes": "4:16: services.web.read_only: expected true or false, got 'yes'",
    "networks: [front]": (
        "4:16: services.web.networks.front: undefined network \"front\": "
        "declare it below the top-level 'networks:'"
    ),
    "secrets: [s]": (
        "4:15: services.web.secrets[s]: undefined secret \"s\": declare it below the top-level 'secrets:'"
    ),
    'volumes: ["data:/x"]': (
        "4:15: services.web.volumes[/x]: undefined volume \"data\": declare it below the top-level 'volumes:'"
    ),
    'volumes: ["/a:/x:rp"]': "4:15: services.web.volumes[0]: unknown option 'rp' of a bind",
    'volumes: [":/x"]': (
        "4:15: services.web.volumes[0]: invalid spec: :/x: expected [SOURCE:]TARGET[:OPTIONS]"
    ),
    'volumes: ["/a:/x", "/b:/x"]': "4:24: services.web.volumes[/x]: duplicate mount point: /x",
    "volumes: [{type: tmpfs, source: a, target: /x}]": (
        "4:15: services.web.volumes[0]: invalid tmpfs source, source must be empty"
    ),
    "tmpfs: /run:sise=5": (
        "4:12: services.web.tmpfs: '/run:sise=5': unknown option 'sise=5': size=64m, mode=1777, ro"
    ),
    "depends_on: [db]": '4:18: services.web.depends_on.db: undefined service "db"',
    "depends_on: [web]": "4:18: services.web.depends_on.web: depends on itself: web -> web",
    "extends: web": "4:14: services.web.extends: extends itself: web -> web",
    "extends: base": '4:14: services.web.extends: undefined service "base" in <stdin>',
    "restart: never": (
        "4:14: services.web.restart: invalid restart policy 'never': "
        "no, always, unless-stopped or on-failure[:N]"
    ),
    'extra_hosts: ["x:host-gateway"]': (
        "4:18: services.web.extra_hosts: 'x:host-gateway' is not NAME:ADDRESS with an IP address"
    ),
    'command: "echo \'x"': "4:14: services.web.command: the quote ' has no end",
    "command: echo $(date)": (
        '4:14: invalid interpolation format: "echo $(date)": you may need to escape any $ with another $'
    ),
    "cap_add: [~]": "4:15: services.web.cap_add[0]: expected a text, got nothing",
    "environment: [[A]]": "4:19: services.web.environment[0]: expected a text, got a list",
    "environment: {A: {}}": "4:22: services.web.environment.A: expected a text, got a map",
    "healthcheck: {test: [curl, x]}": (
        "4:25: services.web.healthcheck.test: a test begins with NONE, CMD or CMD-SHELL, not 'curl'"
    ),
    "ulimits: {nofile: {soft: 5}}": "4:23: services.web.ulimits.nofile: expected soft and hard",
    "hostname: a b": (
        "3:5: services.web: invalid hostname 'a b': letters, digits, '-' and '.', at most 63"
    ),
    "deploy: {placement: {constraints: [node.role=manager]}}": (
        "4:40: services.web.deploy.placement.constraints[0]: "
        "constraint expected one operator from ==, !=: 'node.role=manager'"
    ),
    "deploy: {placement: {constraints: [node.rol == manager]}}": (
        "3:5: services.web: constraint key 'node.rol' is unknown, use one of node.id, node.hostname, "
        "node.role, node.ip, node.platform.os, node.platform.arch, node.labels.KEY, engine.labels.KEY"
    ),
    "deploy: {placement: {preferences: [{spread: zone}]}}": (
        "3:5: services.web: placement preference spread=zone is not possible: "
        "spread over node.labels.KEY or engine.labels.KEY"
    ),
    "cap_add: [FLY]": (
        "3:5: services.web: invalid capability: 'CAP_FLY': see capabilities(7)"
    ),
    "deploy: {resources: {limits: {memory: 1m}}}": (
        "3:5: services.web: invalid memory value 1048576: Must be at least 4MiB"
    ),
    "hostname: '{{.Env.HOME}}'": (
        "3:5: services.web: expanding hostname '{{.Env.HOME}}' failed: template: :1:6: "
        "executing \"\" at <.Env.HOME>: can't evaluate field Env in type template.Context"
    ),
    "deploy: {labels: {swarm.exclusive: maybe}}": (
        "3:5: services.web: invalid swarm.exclusive 'maybe': expected true or false"
    ),
    "env_file: nope.env": "4:15: services.web.env_file: file /nope.env not found",
}  # fmt: skip
WHOLE = {
    "": "no service is defined: a compose file has them below 'services:'",
    "hello\n": "1:1: a compose file is a map: it begins with 'services:'",
    "service:\n  web: {image: x}\n": "1:1: unknown key 'service': did you mean 'services'?",
    "web:\n  image: x\n": "1:1: unknown key 'web' (services stand below 'services:')",
    "services:\n  - web\n": "2:3: services: expected a map, got a list",
    "services:\n  web:\n": "2:7: services.web: expected a map, got nothing",
    "services:\n  web:\n    build: .\n": (
        "3:5: services.web: image is missing: a swarm runs images and builds none"
    ),
    'version: "2.4"\nservices: {web: {image: x}}\n': (
        "1:10: unsupported Compose file version: 2.4: use 3.0 to 3.13, or leave it out"
    ),
    'version: "3.14"\nservices: {web: {image: x}}\n': (
        "1:10: unsupported Compose file version: 3.14: use 3.0 to 3.13, or leave it out"
    ),
    "services:\n  web: {image: x, networks: [fron]}\nnetworks:\n  front:\n": (
        "2:30: services.web.networks.fron: undefined network \"fron\": did you mean 'front'?"
    ),
    "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: {c: }}\n"
    "  c: {image: x, depends_on: [a]}\n": (
        "2:30: services.a.depends_on.b: depends on itself: a -> b -> c -> a"
    ),
    "services:\n  a:\n    extends: b\n  b:\n    extends: {service: a}\n": (
        "3:14: services.a.extends: extends itself: a -> b -> a"
    ),
    'services:\n  a: {image: x, ports: ["80:80"]}\n  b: {image: x, ports: ["80:81"]}\n': (
        "3:24: services.b.ports: port 80/tcp is published by service a too"
    ),
    SERVICE + "volumes:\n  v: {external: true, driver: local}\n": (
        '5:31: volumes.v.driver: conflicting parameters "external" and "driver" specified for volume "v"'
    ),
    SERVICE + "    networks: [n]\nnetworks:\n  n: {driver: bridge}\n": (
        '6:6: networks.n: network driver "bridge" is not there: overlay, and macvlan with --config-from, are'
    ),
    SERVICE + "    networks: [n]\nnetworks:\n  n: {ipam: {config: [{subnet: 10.0.0.0/99}]}}\n": (
        "6:6: networks.n: ipam configuration: invalid subnet 10.0.0.0/99"
    ),
    SERVICE + "configs:\n  my config: {content: x}\n": (
        "5:14: configs.my config: invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, "
        "and the start and end character must be [a-zA-Z0-9]"
    ),
    SERVICE + "secrets:\n  s: {}\n": (
        "5:6: secrets.s: needs one of file, environment, content, or external: true; got none of them"
    ),
    SERVICE + "secrets:\n  s: {environment: NO}\n": (
        '5:20: secrets.s.environment: the variable "NO" is not set'
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", IN_SERVICE)
def test_mistakes_in_a_service(text):
    assert mistake(SERVICE + textwrap.indent(text, "    ")) == IN_SERVICE[text]


@pytest.mark.parametrize("text", WHOLE)
def test_mistakes_in_a_file(text):
    assert mistake(text) == WHOLE[text]


def test_what_is_quoted_stays_one_short_line():
    line = mistake(SERVICE + f'    restart: "a\\nb{"c" * 900}"')
    assert line.startswith("4:14: services.web.restart: invalid restart policy 'a\\nbccc")
    assert len(line) < 450
