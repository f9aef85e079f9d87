"""Files that compose files name are read inside the project's folder, as regular files of a sensible size."""

from __future__ import annotations

import os

import pytest

from swarm.stack.files import MAX_SIZE
from tests.unit.stack.compose import load, mistake

SERVICE = "services:\n  web:\n    image: x\n"
OUTSIDE = {
    SERVICE + "    env_file: /etc/passwd\n": "4:15: services.web.env_file: /etc/passwd",
    SERVICE
    + "    env_file: {}\n".format("../" * 20 + "etc/passwd"): "4:15: services.web.env_file: /etc/passwd",
    SERVICE + "    extends: {file: /etc/passwd, service: x}\n": "4:14: /etc/passwd",
    "include: [/etc/passwd]\n" + SERVICE: "1:11: /etc/passwd",
    SERVICE + "secrets:\n  s: {file: /etc/passwd}\n": "5:13: secrets.s.file: /etc/passwd",
    SERVICE + "configs:\n  s: {file: ./link}\n": "5:13: configs.s.file: FOLDER/link",
    SERVICE + "configs:\n  s: {file: ~/x}\n": "5:13: configs.s.file: /root/x",
}


@pytest.mark.parametrize("text", OUTSIDE)
def test_nothing_outside(text, tmp_path):
    os.symlink("/etc/passwd", tmp_path / "link")
    found = mistake(text, tmp_path, environment={"HOME": "/root"}).replace(str(tmp_path), "FOLDER")
    assert found == (
        OUTSIDE[text] + " lies outside the project's folder FOLDER: allow that with --allow-outside"
    )


def test_outside_when_allowed(tmp_path):
    inner = tmp_path / "project"
    inner.mkdir()
    (tmp_path / "secret").write_text("hello")
    text = SERVICE + "secrets:\n  s: {file: ../secret}\n"
    assert "lies outside" in mistake(text, inner)
    stack = load(text, inner, is_outside_allowed=True)
    assert stack.secrets[0].body["Data"] == "aGVsbG8="


def test_only_regular_files_of_a_sensible_size(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "big").write_bytes(b"x" * (MAX_SIZE + 1))
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary.env").write_bytes(b"A=1\n\xff\n")

    def secret(name):
        return mistake(SERVICE + f"secrets:\n  s: {{file: {name}}}\n", tmp_path).replace(f"{tmp_path}/", "")

    assert secret("pipe") == "5:13: secrets.s.file: pipe is not a regular file"
    assert secret("big") == f"5:13: secrets.s.file: big is too large: at most {MAX_SIZE} bytes"
    assert secret("folder").startswith("5:13: secrets.s.file: ")
    found = mistake(SERVICE + "    env_file: binary.env\n", tmp_path)
    assert found.endswith("binary.env:2: not UTF-8: is it a text file?")


def test_secrets_and_configs_have_their_content(tmp_path):
    (tmp_path / "binary").write_bytes(b"\x00\xff")
    text = SERVICE + (
        "secrets: {a: {file: binary}, b: {environment: VAR}}\nconfigs: {c: {content: 'port = ${VAR}'}}\n"
    )
    stack = load(text, tmp_path, environment={"VAR": "v"})
    assert [each.body["Data"] for each in stack.secrets] == ["AP8=", "dg=="]
    assert stack.configs[0].body["Data"] == "cG9ydCA9IHY="
