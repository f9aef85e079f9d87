"""The same objects through an unmodified `docker` and through our command: the same bytes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.docker_client,
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker program"),
]

SAME = [
    ("node", "ls"),
    ("node", "ls", "--format", "json"),
    ("node", "ls", "-q"),
    ("node", "inspect", "self"),
    ("node", "inspect", "--pretty", "self"),
    ("node", "inspect", "--pretty", "h2"),
    ("node", "ps"),
    ("node", "rm", "h2", "h3"),
    ("service", "ls"),
    ("service", "ls", "-q"),
    ("service", "ls", "--format", "json"),
    ("service", "ls", "--format", "table {{.ID}}\\t{{upper .Name}}"),
    ("service", "ls", "--format", '{{json .Name}} {{.Image | upper}} {{printf "%10s|%-8s" .Name .Mode}}'),
    ("service", "ls", "--format", "{{.Foo}}"),
    ("service", "ls", "--format", "{{.ID"),
    ("service", "ps", "web"),
    ("service", "ps", "--no-trunc", "web", "agent"),
    ("service", "ps", "--format", "json", "web"),
    ("service", "ps", "nope"),
    ("service", "inspect", "--pretty", "web"),
    ("service", "inspect", "--pretty", "agent"),
    (
        "service",
        "inspect",
        "--format",
        '{{.Spec.Name}} {{.Spec.Labels}} {{index .Spec.Labels "tier"}}',
        "web",
    ),
    (
        "service",
        "inspect",
        "--format",
        "{{range .Endpoint.Ports}}{{.TargetPort}}/{{.Protocol}} {{end}}",
        "agent",
    ),
    ("service", "logs", "web"),
    ("service", "logs", "--raw", "web"),
    ("service", "logs", "--details", "web"),
    ("service", "scale", "web=x"),
    ("image", "ls"),
    ("image", "rm", "web:demo"),
    ("container", "ls"),
    ("secret", "ls"),
    ("secret", "ls", "-q", "--filter", "name=db"),
    ("secret", "ls", "--format", "{{.Name}} {{.Driver}} {{.UpdatedAt}}"),
    ("secret", "inspect", "db_pass", "nope"),
    ("secret", "inspect", "--pretty", "db_pass"),
    ("secret", "inspect", "-f", "{{.Spec.Name}}", "api_key"),
    ("secret", "rm", "old", "db_pass"),
    ("secret", "create", "x", "/etc/hostname"),
    ("config", "ls"),
    ("config", "ls", "--format", "json"),
    ("config", "ls", "--format", "{{.Name}} {{.Labels}}"),
    ("config", "inspect", "nginx.conf"),
    ("config", "inspect", "--pretty", "nginx.conf"),
    ("config", "create", "x", "/etc/hostname"),
    ("network", "ls"),
    ("network", "ls", "--format", "json"),
    ("network", "inspect", "ingress", "nope"),
]


def _run(program: list[str], arguments: tuple[str, ...], host: str) -> tuple[int, str, str]:
    env = os.environ | {"DOCKER_HOST": host, "SWARM_HOST": host}
    done = subprocess.run([*program, *arguments], env=env, capture_output=True, text=True, timeout=30)
    # Both are run at nearly the same moment: their ages may differ by a second.
    out = re.sub(r"\d+ seconds ago *", "N seconds ago", done.stdout)
    return done.returncode, out, done.stderr


@pytest.mark.parametrize("arguments", SAME, ids=" ".join)
def test_same_bytes(arguments: tuple[str, ...], host: str) -> None:
    ours = _run([sys.executable, "-m", "swarm.cli.main"], arguments, host)
    assert ours == _run(["docker"], arguments, host)
