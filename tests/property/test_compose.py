"""The compose loader under random texts: it answers, or it refuses with the place, and nothing else."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.base.errors import InvalidArgument
from swarm.stack.interpolate import expand
from swarm.stack.load import load_stack, resolved_config
from swarm.stack.project import LoadOptions
from swarm.stack.read_project import SERVICE
from swarm.stack.yaml_nodes import plain_of
from swarm.stack.yaml_parse import parse_yaml
from swarm.stack.yaml_write import write_yaml

FOLDER = "/nonexistent/project"
PLACE = re.compile(r"<stdin>:\d+:\d+: ")
TOP = ("version", "name", "services", "networks", "volumes", "secrets", "configs", "include", "x-a")
NAMES = st.sampled_from(["a", "b", "default", "web"])
PIECES = st.sampled_from([
    "services:", "  web:", "    image: x", "\n", "\n  ", "\n    ", "\n      - ", "- ", ": ", "[",
    "]", "{", "}", ",", "'", '"', "&a ", "*a", "<<: ", "|", ">-", "#", "\t", "!reset ", "$", "${",
    "}", ":-", "80:80", "1m", "x", "~", "\\", "---\n", "?", "%", "\u00e9", "\U0001f600",
])  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, width=32)
    | TEXTS
    | st.sampled_from([
        "yes", "no", "on", "null", "~", "1", "1.5", "0x1f", "0o7", "012", "1_000", "1e3", ".inf",
        "22:22", "a: b", "a #b", "- a", "2001-12-14", "<<", "=", "!x", "&x", "*x", "x\ny\n", " x ", "",
        "'", '"', "\x85", "\ufeff", "{{.Node.ID}}", "a,b", "80:80", "1m30s", "50M", "./a:/b:ro", "${A}",
        "$$", "on-failure:3", "host", "service_healthy",
    ])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES | st.sampled_from(sorted(SERVICE)) | TEXTS, inner, max_size=3)
    ),
    max_leaves=8,
)
GOOD: dict[str, list[object]] = {
    "command": ["a b", ["x", "$$y"], "'q w'"],
    "environment": [{"A": 1, "B": None, "C": "x: y"}, ["A=1", "B", "C=a=b"]],
    "labels": [{"a": ""}, ["a=b", "c"]],
    "deploy": [
        {"mode": "global", "resources": {"limits": {"cpus": "0.5", "memory": "50M"}}},
        {"replicas": 3, "update_config": {"delay": "1m"}, "placement": {"constraints": ["a==b"]}},
        {"mode": "replicated-job", "restart_policy": {"window": "90s", "condition": "none"}},
    ],
    "ports": [["80"], ["90/udp", {"target": 5, "mode": "host"}], ["3000-3001:5000-5001"]],
    "networks": [["n"], {"n": {"aliases": ["z"]}, "default": None}],
    "volumes": [["v:/a", "./b:/b:ro", "/c"], [{"type": "tmpfs", "target": "/t", "tmpfs": {"size": "1k"}}]],
    "tmpfs": ["/run", ["/run:size=1m"]],
    "secrets": [["s"], [{"source": "s", "target": "/x", "mode": "0400"}]],
    "configs": [["c"], [{"source": "c", "uid": "1"}]],
    "depends_on": [["base"], {"base": {"condition": "service_healthy"}}, {"none": {"required": False}}],
    "healthcheck": [{"test": "x", "interval": "1.5s"}, {"disable": True}, {"test": ["CMD", "a"]}],
    "logging": [{"driver": "json-file", "options": {"max-size": "1m"}}],
    "extra_hosts": [["a:1.2.3.4"], {"b": "::1"}],
    "ulimits": [{"nofile": 5, "nproc": {"soft": 1, "hard": 2}}],
    "sysctls": [{"net.a": 1}, ["net.b=2"]],
    "stop_grace_period": ["90s", "0s"],
    "hostname": ["{{.Node.ID}}"],
    "restart": ["no", "on-failure:2", "always"],
    "build": ["."],
    "shm_size": ["64m"],
    "read_only": [True, "false"],
}  # fmt: skip
WILD = st.none() | st.tuples(st.sampled_from(sorted(SERVICE)), VALUES)
SERVICES = st.fixed_dictionaries(
    {"image": st.sampled_from(["x", "a/b:c"])},
    optional={key: st.sampled_from(values) for key, values in GOOD.items()},
)


def project(service, wild, rest):
    return {
        "services": {"web": service | dict([wild] if wild else []), "base": {"image": "y"}},
        "networks": {"n": {"attachable": True}},
        "volumes": {"v": None},
        "secrets": {"s": {"content": "$$x"}},
        "configs": {"c": {"external": True, "name": "d"}},
    } | rest


PROJECTS = st.builds(
    project, SERVICES, WILD, st.dictionaries(st.sampled_from(TOP), VALUES, max_size=1) | st.just({})
)
QUICK = settings(max_examples=150)


def attempt(text: str) -> None:
    """Loads it, or is refused as a user should be."""
    options = LoadOptions(stdin=text, directory=FOLDER, environment={"A": "1"})
    try:
        stack = load_stack("st", ["-"], options)
    except InvalidArgument as error:
        message = str(error)
        assert "\n" not in message
        assert PLACE.match(message) or message.startswith("no service is"), message
        return
    again = LoadOptions(stdin=resolved_config(["-"], options)[0], directory=FOLDER)
    repeated = load_stack("st", ["-"], again)
    assert (repeated.services, repeated.networks) == (stack.services, stack.networks)


@QUICK
@given(st.lists(PIECES, max_size=30).map("".join))
def test_random_texts(text):
    attempt(text)


@QUICK
@given(st.text(max_size=60))
def test_random_characters(text):
    attempt(text)


@settings(QUICK, max_examples=400)
@given(PROJECTS)
def test_random_projects(found):
    attempt(write_yaml(found))


@QUICK
@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_what_is_written_is_read_again(value):
    assert plain_of(parse_yaml(write_yaml(value), "f")) == (value or {})


@QUICK
@given(st.text("$${}:-?+AB_ 1x", max_size=30))
def test_random_variables(text):
    try:
        found = expand(text, {"A": "1", "B": ""}, lambda name: None)
    except ValueError:
        assert "$" in text
    else:
        assert "$" in text or found == text
