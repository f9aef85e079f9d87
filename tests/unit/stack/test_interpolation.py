"""Variables in texts, and the files that hold them."""

from __future__ import annotations

import pytest

from swarm.stack.env_files import read_env, read_raw
from swarm.stack.interpolate import expand
from tests.unit.stack.compose import load, mistake, service

VARIABLES = {"A": "1", "EMPTY": "", "DOLLAR": "$A ${A}"}


@pytest.mark.parametrize(
    ("text", "found"),
    {
        "$A": "1",
        "${A}x": "1x",
        "$$A": "$A",
        "$$$A": "$1",
        "${EMPTY:-d}": "d",
        "${EMPTY-d}": "",
        "${NO-d}": "d",
        "${NO:-${A}x}": "1x",
        "${NO:-${NEITHER:-${A}}}": "1",
        "${A:+y}": "y",
        "${EMPTY:+y}": "",
        "${EMPTY+y}": "y",
        "${NO+y}": "",
        "${A:?why}": "1",
        "${EMPTY?why}": "",
        "${A:-${NO:?not read}}": "1",
        "${NO:-}": "",
        "${NO:-a:b-c}": "a:b-c",
        "${DOLLAR}": "$A ${A}",
        "a$A b$$ c": "a1 b$ c",
    }.items(),
)
def test_forms(text, found):
    assert expand(text, VARIABLES, lambda name: None) == found


@pytest.mark.parametrize(
    ("text", "why"),
    {
        "${NO:?name it}": "required variable NO is missing a value: name it",
        "${EMPTY:?name ${A}}": "required variable EMPTY is missing a value: name 1",
        "${NO?}": "required variable NO is missing a value: it is not set",
        "${A": 'invalid interpolation format: "${A": you may need to escape any $ with another $',
        "$(date)": 'invalid interpolation format: "$(date)": you may need to escape any $ with another $',
        "$1": 'invalid interpolation format: "$1": you may need to escape any $ with another $',
        "a$": 'invalid interpolation format: "a$": you may need to escape any $ with another $',
        "${A:-" * 30: "variables are nested more than 20 deep",
    }.items(),
)
def test_wrong_forms(text, why):
    with pytest.raises(ValueError, match=r".") as caught:
        expand(text, {"EMPTY": "", "A": "1"} if "A" not in text[:5] else {}, lambda name: None)
    assert str(caught.value) == why


def test_unset_variables_are_told_once():
    stack = load("services: {web: {image: 'x$TAG', command: 'a $TAG'}}")
    assert [str(notice) for notice in stack.notices] == [
        '<stdin>:1:25: the variable "TAG" is not set: it defaults to a blank text'
    ]


def test_a_variable_may_be_a_number_but_never_null():
    body = service(
        "deploy: {replicas: '${N}'}\nenvironment: {A: $EMPTY}\nread_only: ${YES}",
        environment={"N": "4", "EMPTY": "", "YES": "true"},
    )
    assert body["Mode"] == {"Replicated": {"Replicas": 4}}
    assert body["TaskTemplate"]["ContainerSpec"]["Env"] == ["A="]
    assert body["TaskTemplate"]["ContainerSpec"]["ReadOnly"] is True


def test_a_required_variable_is_named_with_its_place():
    text = "services:\n  web:\n    image: ${IMAGE:?name one}\n"
    assert mistake(text) == "3:12: required variable IMAGE is missing a value: name one"


def test_values_grow_no_further_than_the_bound():
    text = "services: {web: {image: x, labels: [" + ", ".join(f"'{at}=$A'" for at in range(2000)) + "]}}"
    assert "once its variables are replaced" in mistake(text, environment={"A": "x" * 10_000})


def test_env_format():
    lines = [
        "A=1", 'export B="x $A\\n" # c', "# k", "C='$A'", "D=a b # c", "E", "F=", "G=a#b", "H: y",
        'I="two\nlines"', "J=${NO:-$B}",
    ]  # fmt: skip
    text = "\n".join(lines)
    assert read_env(text, {}) == {
        "A": "1", "B": "x 1\n", "C": "$A", "D": "a b", "E": None, "F": "", "G": "a#b", "H": "y",
        "I": "two\nlines", "J": "x 1\n",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("A=1\nB='x\n", "line 2: the text that begins with ' is never closed"),
        ('A="x" y\n', "line 1: unexpected text after the value of A"),
        ("=x\n", "line 1: expected KEY=value"),
        ("A=${B:?no}\n", "line 1: required variable B is missing a value: no"),
    ],
)
def test_wrong_env_files(text, why):
    with pytest.raises(ValueError, match=r"^line") as caught:
        read_env(text, {})
    assert str(caught.value) == why


def test_raw_env_format():
    assert read_raw('A="1" # x\n# c\n\n  B\nC=\n') == {"A": '"1" # x', "B": None, "C": ""}


def test_dot_env_and_env_files(tmp_path):
    (tmp_path / ".env").write_text("TAG=one\nOTHER=two\n")
    (tmp_path / "mine.env").write_text("TAG=three\n")
    text = "services: {web: {image: 'x:${TAG}-${OTHER:-none}'}}"

    def image(**options):
        return load(text, tmp_path, **options).services[0].body["TaskTemplate"]["ContainerSpec"]["Image"]

    assert image() == "x:one-two"
    assert image(environment={"TAG": "client"}) == "x:client-two"
    assert image(env_files=("mine.env",)) == "x:three-none"
