"""Several files, extends, include and profiles: one project comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swarm.base.errors import InvalidArgument, NotFound
from swarm.stack.load import load_stack
from swarm.stack.project import LoadOptions, Stack
from tests.unit.stack.compose import load, mistake


def files(folder: Path, *names: str, **options: Any) -> Stack:
    settings = {"environment": {}, **options}
    return load_stack("st", names or ["a.yml"], LoadOptions(directory=str(folder), **settings))


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def body(stack: Stack, key: str = "web") -> dict[str, Any]:
    return next(service.body for service in stack.services if service.key == key)


def container(stack: Stack, key: str = "web") -> dict[str, Any]:
    found: dict[str, Any] = body(stack, key)["TaskTemplate"]["ContainerSpec"]
    return found


BASE = """
services:
  web:
    image: one
    command: [a, b]
    environment: {A: "1", B: "2"}
    ports: ["80:80", "90:90"]
    volumes: ["v:/v", "w:/w"]
    dns: [1.1.1.1]
    healthcheck: {test: [CMD, x], retries: 3}
    logging: {driver: json-file, options: {max-size: 1m}}
    deploy: {replicas: 2, labels: {a: "1"}}
volumes: {v: , w: }
"""
OVER = """
services:
  web:
    image: two
    command: c
    environment: [B=3, C=4]
    ports: ["80:8080", "91:91"]
    volumes: ["w:/v"]
    dns: 2.2.2.2
    healthcheck: {test: y}
    logging: {driver: none}
    deploy: {labels: {b: "2"}}
"""


def test_the_later_file_wins_key_by_key(tmp_path):
    write(tmp_path, a=BASE, b=OVER)
    stack = files(tmp_path, "a.yml", "b.yml")
    found = container(stack)
    assert found["Image"] == "two:latest"
    assert found["Args"] == ["c"]
    assert found["Env"] == ["A=1", "B=3", "C=4"]
    assert found["DNSConfig"] == {"Nameservers": ["1.1.1.1", "2.2.2.2"]}
    assert found["Healthcheck"] == {"Test": ["CMD-SHELL", "y"], "Retries": 3}
    assert [(mount["Source"], mount["Target"]) for mount in found["Mounts"]] == [
        ("st_w", "/v"),
        ("st_w", "/w"),
    ]
    ports = [(port["PublishedPort"], port["TargetPort"]) for port in body(stack)["EndpointSpec"]["Ports"]]
    assert ports == [(80, 8080), (90, 90), (91, 91)]
    assert body(stack)["TaskTemplate"]["LogDriver"] == {"Name": "none"}
    assert body(stack)["Mode"] == {"Replicated": {"Replicas": 2}}
    assert {"a", "b"} <= body(stack)["Labels"].keys()


def test_reset_and_override(tmp_path):
    write(
        tmp_path,
        a=BASE,
        b="services:\n  web:\n    ports: !override ['1:1']\n    environment: !reset null\n"
        "    dns: !reset []\n",
    )
    stack = files(tmp_path, "a.yml", "b.yml")
    assert [port["PublishedPort"] for port in body(stack)["EndpointSpec"]["Ports"]] == [1]
    assert "Env" not in container(stack)
    assert "DNSConfig" not in container(stack)


def test_an_error_of_a_later_file_names_it(tmp_path):
    write(tmp_path, a=BASE, b="services:\n  web:\n    networks: [n]\n")
    with pytest.raises(InvalidArgument, match=r"^b.yml:3:16: services.web.networks.n: undefined network"):
        files(tmp_path, "a.yml", "b.yml")


def test_extends_of_the_same_and_of_another_file(tmp_path):
    write(
        tmp_path,
        a="services:\n  web: {extends: mid, environment: {A: web}}\n"
        "  mid: {extends: {service: base, file: sub/b.yml}, image: mid}\n",
        sub__b="services:\n  base:\n    image: base\n    environment: {A: base, B: base}\n"
        "    volumes: ['./d:/d']\n    user: u\n",
    )
    found = container(files(tmp_path))
    assert found["Image"] == "mid:latest"
    assert found["Env"] == ["A=web", "B=base"]
    assert found["User"] == "u"
    assert found["Mounts"][0]["Source"] == str(tmp_path / "sub" / "d")


def test_circles_across_files(tmp_path):
    write(
        tmp_path,
        a="services:\n  web:\n    image: x\n    extends: {service: b, file: b.yml}\n",
        b="services:\n  b:\n    extends: {service: web, file: a.yml}\n",
        c="include: [d.yml]\nservices: {web: {image: x}}\n",
        d="include: [c.yml]\n",
    )
    with pytest.raises(
        InvalidArgument, match=r"^a.yml:4:14: services.web.extends: extends itself: web -> b -> web"
    ):
        files(tmp_path)
    with pytest.raises(InvalidArgument, match=r"^d.yml:1:11: c.yml includes itself"):
        files(tmp_path, "c.yml")


def test_include_has_its_own_folder_and_variables(tmp_path):
    write(
        tmp_path,
        a="include:\n  - sub/b.yml\nservices:\n  web: {image: 'web:${TAG:-none}', depends_on: [db]}\n",
        sub__b="services:\n  db: {image: 'db:$TAG', volumes: ['./d:/d']}\nnetworks: {n: }\n",
    )
    (tmp_path / "sub" / ".env").write_text("TAG=7\n")
    stack = files(tmp_path)
    assert container(stack)["Image"] == "web:none"
    assert container(stack, "db")["Image"] == "db:7"
    assert container(stack, "db")["Mounts"][0]["Source"] == str(tmp_path / "sub" / "d")
    assert [service.key for service in stack.services] == ["db", "web"]


def test_include_defines_nothing_twice(tmp_path):
    write(tmp_path, a="include: [b.yml]\nservices: {web: {image: x}}\n", b="services: {web: {image: y}}\n")
    with pytest.raises(
        InvalidArgument, match=r"^a.yml:1:11: includes services.web, which this file defines other"
    ):
        files(tmp_path)


def test_files_that_are_not_there(tmp_path):
    write(tmp_path, a="include: [no.yml]\n", b="services: {web: {extends: {service: x, file: no.yml}}}\n")
    with pytest.raises(InvalidArgument, match=r"^a.yml:1:11: file .*/no.yml not found$"):
        files(tmp_path)
    with pytest.raises(InvalidArgument, match=r"^b.yml:1:27: file .*/no.yml not found$"):
        files(tmp_path, "b.yml")
    with pytest.raises(NotFound, match=r"^file .*/c.yml not found$"):
        files(tmp_path, "c.yml")


PROFILES = """
services:
  web: {image: x, depends_on: {debug: {condition: service_started, required: false}}}
  debug: {image: x, profiles: [debug]}
  test: {image: x, profiles: [test, debug]}
"""


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({}, ["web"]),
        ({"profiles": ("test",)}, ["test", "web"]),
        ({"profiles": ("debug",)}, ["debug", "test", "web"]),
        ({"environment": {"COMPOSE_PROFILES": "a,test"}}, ["test", "web"]),
        ({"profiles": ("*",)}, ["debug", "test", "web"]),
    ],
)
def test_profiles(options, keys):
    stack = load(PROFILES, **options)
    assert [service.key for service in stack.services] == keys
    assert stack.services[-1].depends_on == (("st_debug",) if "debug" in keys else ())


def test_what_a_profile_leaves_out_is_missed():
    text = "services:\n  web: {image: x, depends_on: [db]}\n  db: {image: x, profiles: [p]}\n"
    assert mistake(text).startswith('2:32: services.web.depends_on.db: undefined service "db"')


def test_the_name_of_the_stack():
    options = LoadOptions(stdin="name: mine\nservices: {web: {image: x}}", directory="/")
    assert load_stack(None, ["-"], options).name == "mine"
    assert load_stack("st", ["-"], options).name == "st"
    with pytest.raises(InvalidArgument, match=r'^invalid stack name: "a/b"'):
        load_stack("a/b", ["-"], options)


def test_a_file_may_be_extended_often(tmp_path):
    services = "".join(f"  s{at}: {{extends: {{service: base, file: b.yml}}}}\n" for at in range(300))
    write(tmp_path, a="services:\n" + services, b="services:\n  base: {image: x, build: .}\n")
    stack = files(tmp_path)
    assert len(stack.services) == 300
    assert len(stack.notices) == 1


def test_what_is_included_is_bounded_together(tmp_path):
    for at in range(4):
        write(tmp_path, **{f"i{at}": f"networks: {{n{at}: }}\n#" + "x" * 600_000})
    write(tmp_path, a="include: [i0.yml, i1.yml, i2.yml, i3.yml]\nservices: {web: {image: x}}\n")
    with pytest.raises(InvalidArgument, match=r"^a.yml:1:35: more than 2097152 characters are included"):
        files(tmp_path)
