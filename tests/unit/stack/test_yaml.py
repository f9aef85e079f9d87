"""YAML 1.2 texts and what they mean; what is refused, and where."""

from __future__ import annotations

import pytest

from swarm.base.errors import InvalidArgument
from swarm.stack.yaml_nodes import MAX_WEIGHT, Map, Scalar, plain_of
from swarm.stack.yaml_parse import MAX_LENGTH, parse_yaml

MEANINGS = {
    "a: 1\nb: [1, 2, {c: d, e: \"f\\n\"}]\n": {"a": 1, "b": [1, 2, {"c": "d", "e": "f\n"}]},
    "- a\n- b: c\n  d: e\n-\n  - x\n  - - y\n    - z\n": ["a", {"b": "c", "d": "e"}, ["x", ["y", "z"]]],
    "a:\n- 1\n- b:\n  - 2\nc: 3\n": {"a": [1, {"b": [2]}], "c": 3},
    "a: yes\nb: no\nc: 22:22\nd: 0o17\ne: 012\nf: True\n": {
        "a": "yes", "b": "no", "c": "22:22", "d": 15, "e": 12, "f": True,
    },
    "a:\nb: ~\nc: \"\"\nd: 'null'\ne: null\n": {"a": None, "b": None, "c": "", "d": "null", "e": None},
    "a: 1.5\nb: 1e3\nc: .inf\nd: 1.2.3\ne: 0x1F\n": {
        "a": 1.5, "b": 1000.0, "c": float("inf"), "d": "1.2.3", "e": 31,
    },
    "a: |\n  x\n   y\n\n  z\n\nb: 1\n": {"a": "x\n y\n\nz\n", "b": 1},
    "a: >-\n  x\n  y\n\n  z\n   k\n  l\n": {"a": "x y\nz\n k\nl"},
    "a: |+\n  x\n\n\nb: |2\n    x\n": {"a": "x\n\n\n", "b": "  x\n"},
    "a: |\n  # no comment\n  x\n # a comment\nb: 1\n": {"a": "# no comment\nx\n", "b": 1},
    "a: foo\n  bar\n\n  baz\n": {"a": "foo bar\nbaz"},
    'a: "x\n  y\\\n  z"\nb: \'it\'\'s\'\n': {"a": "x yz", "b": "it's"},
    'a: "\\x41\\u00e9\\U0001F600\\t\\""\n': {"a": 'Aé😀\t"'},
    "a: b # c\n# d\nc: a#b\n": {"a": "b", "c": "a#b"},
    "a: [x # one\n  , y,\n]\nb: {\n  k: v\n}\n": {"a": ["x", "y"], "b": {"k": "v"}},
    '{"a":1,"b":[],}\n': {"a": 1, "b": []},
    "x: &a\n  k: v\n  l: w\ny:\n  <<: *a\n  l: z\nw: *a\n": {
        "x": {"k": "v", "l": "w"}, "y": {"k": "v", "l": "z"}, "w": {"k": "v", "l": "w"},
    },
    "a: &a {k: 1}\nb: &b {k: 2, l: 3}\nc: {<<: [*a, *b]}\n": {
        "a": {"k": 1}, "b": {"k": 2, "l": 3}, "c": {"k": 1, "l": 3},
    },
    "a: http://x:80/y\nb: x y:z\nc: !!str 5\n": {"a": "http://x:80/y", "b": "x y:z", "c": "5"},
    "\ufeff%YAML 1.2\n---\na: b\n...\n": {"a": "b"},
    "a: b\r\nc:\r\n  - d\r\n": {"a": "b", "c": ["d"]},
    "# nothing\n": None,
    "a: -1\nb: - \n".replace("b: - \n", "b: -x\n"): {"a": -1, "b": "-x"},
}  # fmt: skip

REFUSALS = {
    "a:\n\tb: c\n": "f:2:1: a tab cannot indent: use spaces",
    "a:\n  b: c\n d: e\n": "f:3:2: wrong indentation: this line begins at no column of the lines above it",
    "a: b\n c: d\n": "f:2:2: wrong indentation: this key stands inside the text that begins on line 1",
    "a: b\n  - c\n": "f:2:3: wrong indentation: this list item stands inside the text that begins on line 1",
    "- a\nb: c\n": "f:2:1: wrong indentation: this line begins at no column of the lines above it",
    "a: 1\nb: 2\na: 3\n": "f:3:1: duplicate key 'a': it stands on line 1 already",
    "a: {b: 1, b: 2}\n": "f:1:11: duplicate key 'b': it stands on line 1 already",
    "a: b: c\n": "f:1:4: a key and value cannot stand here: begin a new line, or quote the text",
    "a: - b\n": "f:1:4: a list begins on a line of its own",
    'a: "x" y\n': "f:1:7: unexpected 'y' after the value: quote the whole text",
    'a: "x\n': 'f:1:4: the text that begins with " here is never closed',
    'a: "\\q"\n': "f:1:4: unknown escape \\q: write \\\\ for a backslash, or use single quotes",
    "a: [b\n": "f:1:4: '[' is never closed by ']'",
    "a: {b: c d: e}\n": "f:1:11: expected ',' or '}' after an item of the '{' on line 1",
    "a: @x\n": "f:1:4: '@' cannot begin a text: quote it",
    "a: *x\n": "f:1:4: unknown alias *x: no anchor &x stands above (quote a text with *)",
    "a: &x [*x]\n": "f:1:8: unknown alias *x: no anchor &x stands above (quote a text with *)",
    "a: !!python/name:os.system x\n": "f:1:4: tag !!python/name:os.system is not supported: leave it out",
    "? a\n: b\n": "f:1:1: keys that begin with '?' are not supported: write 'key: value'",
    "a: 1\n---\nb: 2\n": "f:2:1: a second document begins here: a compose file is one document",
    "a: b\nc\n": "f:2:1: expected 'key: value', got 'c'",
    "a: x\x07\n": "f:1:5: control character '\\x07': this is no text file",
    "<<: 1\n": "f:1:5: << takes a map, or a list of maps",
}


@pytest.mark.parametrize("text", MEANINGS, ids=repr)
def test_meanings(text):
    assert plain_of(parse_yaml(text, "f")) == MEANINGS[text]


@pytest.mark.parametrize("text", REFUSALS, ids=repr)
def test_refusals_name_the_place(text):
    with pytest.raises(InvalidArgument) as caught:
        parse_yaml(text, "f")
    assert str(caught.value) == REFUSALS[text]


def test_every_node_knows_its_place():
    document = parse_yaml("services:\n  web:\n    ports:\n      - 80\n", "f")
    assert isinstance(document, Map)
    assert str(document.place) == "f:1:1"
    web = document.items[0][1]
    assert isinstance(web, Map)
    key, value = web.items[0]
    assert str(key.place) == "f:2:3"
    assert str(value.place) == "f:3:5"


def test_aliases_are_shared_and_counted():
    levels = "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
    )
    with pytest.raises(InvalidArgument, match=f"more than {MAX_WEIGHT} values"):
        parse_yaml("a: &a [x, x, x, x, x, x, x, x, x, x]\n" + levels, "f")


def test_long_texts_count_too():
    text = "x" * 100_000
    with pytest.raises(InvalidArgument, match=f"more than {MAX_WEIGHT} values"):
        parse_yaml(f"a: &a {text}\nb: [{', '.join(['*a'] * 60)}]\n", "f")


@pytest.mark.parametrize(
    "text", ["a: " + "[" * 60, "\n".join(" " * at + "a:" for at in range(60)), "- " * 60 + "a"]
)
def test_depth_is_bounded(text):
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        parse_yaml(text, "f")


def test_length_is_bounded():
    with pytest.raises(InvalidArgument, match="the file is too large"):
        parse_yaml("#" * (MAX_LENGTH + 1), "f")


def test_quoted_texts_are_not_plain():
    document = parse_yaml('a: "1"\n', "f")
    assert isinstance(document, Map)
    value = document.get("a")
    assert isinstance(value, Scalar)
    assert not value.is_plain
