"""A hundred random values in every place that takes a secret: nowhere do they come to lie open.

In use, after failures, kills and removal; each value is looked for as it is and in base64. The places:
the hosts' disks (etcd, journals, logs, layers, a backup), arguments and environments of all their processes,
`/run/swarm`, swarmd's log, and what the API answers.
"""

from __future__ import annotations

import base64
import json
import secrets

import pytest

from tests.chaos.secrecy import planted, search, secrets_of
from tests.integration.cluster import Cluster

pytestmark = pytest.mark.root

SECRETS, CONFIGS, VARIABLES, LOGINS = 40, 35, 5, 10
IN_MEMORY = "/delivered/"
"""The files that containers see, on a file system in memory."""


@pytest.fixture(scope="module")
def values(cluster) -> dict[str, str]:
    """Name -> value of everything secret, made and in use."""
    cluster.swarm("h1", "update", "--autolock=true")
    found = {f"{kind}{n}": secrets.token_hex(16) for kind, n in kinds()}
    with cluster.client() as client:
        ids = {}
        for name, value in found.items():
            if not name.startswith("login"):
                path = "configs" if name.startswith("config") else "secrets"
                data = base64.b64encode(value.encode()).decode()
                ids[name] = client.post(f"/{path}/create", {"Name": name, "Data": data})["ID"]
        references = {kind: [reference(kind, n, i) for n, i in ids.items()] for kind in ("Secret", "Config")}
        container = {
            "Image": "web",
            "Command": ["sh", "-c", "cat /run/secrets/* /config* > /dev/null; exec sleep 1000"],
            "StopGracePeriod": 10**9,
            "Secrets": [r for r in references["Secret"] if r],
            "Configs": [r for r in references["Config"] if r],
        }
        create(client, "uses", container, {})
        failing = container | {"Command": ["sh", "-c", "ulimit -c unlimited; kill -SEGV $$"]}
        create(client, "fails", failing, {})
        for n in range(LOGINS):
            login = {"username": "u", "password": found[f"login{n}"], "serveraddress": "registry.invalid"}
            header = base64.urlsafe_b64encode(json.dumps(login).encode()).decode()
            create(
                client,
                f"login{n}",
                {"Image": "web", "Command": ["sleep", "1000"]},
                {"X-Registry-Auth": header},
            )
    token = cluster.swarm("h1", "join-token", "-q", "--ttl", "1h", "worker").strip()
    found["limited token"] = token.rsplit("-", 1)[1]
    found |= secrets_of(cluster)
    cluster.wait_running("uses", 3)
    return found


def kinds():
    counts = {"secret": SECRETS, "config": CONFIGS, "variable": VARIABLES, "login": LOGINS}
    return [(kind, n) for kind, count in counts.items() for n in range(count)]


def reference(kind, name, object_id):
    """None for one of the other kind."""
    if (kind == "Config") != name.startswith("config"):
        return None
    target = f"env:{name}" if name.startswith("variable") else f"/{name}" if kind == "Config" else name
    file = {"Name": target, "UID": "0", "GID": "0", "Mode": 0o444}
    return {f"{kind}ID": object_id, f"{kind}Name": name, "File": file}


def create(client, name, container, headers):
    template = {"ContainerSpec": container, "RestartPolicy": {"Condition": "any", "Delay": 10**10}}
    client.post(
        "/services/create", {"Name": name, "TaskTemplate": template, "Mode": {"Global": {}}}, headers=headers
    )


def needles(values):
    """As they are and in base64, but for what is looked for by a word of its own."""
    plain = [value for name, value in values.items() if name != "a private key"]
    return [*plain, *(base64.b64encode(value.encode()).decode().rstrip("=") for value in plain)]


def found_open(cluster: Cluster, values) -> list[str]:
    return [
        f"{host}: {place}" for host in cluster.hosts for place in search(cluster, host, needles(values))
    ] + [f"{host}'s log" for host in cluster.hosts if says_one(cluster.lab.log(host), values)]


def says_one(text: str, values) -> bool:
    return any(needle in text for needle in needles(values))


def of_variables(place: str) -> bool:
    """A variable is in its container's environment, and in what the runtime reads, on a tmpfs."""
    return place.endswith(("/environ", "/config.json")) and "/var/" not in place


def assert_hidden(cluster: Cluster, values, when: str) -> None:
    """While containers run, their own memory holds what they were given; nothing else does."""
    open_places = [place for place in found_open(cluster, values) if IN_MEMORY not in place]
    hidden = {name: value for name, value in values.items() if not name.startswith("variable")}
    others = [place for place in open_places if not of_variables(place)]
    assert not others, when
    if open_places:
        rest = [p for p in found_open(cluster, hidden) if IN_MEMORY not in p]
        assert not rest, when


def test_what_is_planted_is_found(cluster):
    for host in cluster.hosts:
        assert len(planted(cluster, host)) == 2


def test_in_use(cluster, values):
    assert len(values) > 90
    assert any(IN_MEMORY in place for place in found_open(cluster, values)), (
        "the search sees containers' files"
    )
    assert_hidden(cluster, values, "in use")


def test_no_answer_of_the_api_tells_one(cluster, values):
    told = [
        cluster.get(path)
        for path in (
            "/secrets",
            "/services",
            "/tasks",
            "/nodes",
            "/info",
            "/system/info",
            "/containers/json",
        )
    ]
    told += [cluster.get(f"/secrets/{s['ID']}") for s in cluster.get("/secrets")]
    told += [cluster.get(f"/secrets/{s['ID']}/versions") for s in cluster.get("/secrets")]
    told += [cluster.get(f"/tasks/{t['ID']}") for t in cluster.get("/tasks")]
    assert not says_one(json.dumps(told), values)
    events = cluster.run("h1", "sh", "-c", "swarm events --since 1h --until 0s --format json").stdout
    assert "secret0" in events
    assert not says_one(events, values)


def test_after_kills_a_new_key_and_a_backup(cluster, values):
    for host in ("h2", "h3"):
        cluster.kill_daemon(host)
        cluster.wait_daemon(host)
    tasks = cluster.wait_running("uses", 3)
    task = next(t for t in tasks if cluster.hosts_of([t]) == ["h2"])
    pid = cluster.output("h2", "cat", f"/run/swarm/containers/{task['ID']}/pid").strip()
    cluster.output("h2", "kill", "-9", pid)
    cluster.swarm("h1", "system", "rotate-data-key", "-q", timeout=60)
    cluster.swarm("h1", "system", "backup", "/var/lib/swarm/backup-of-canaries")
    assert_hidden(cluster, values, "after kills")


def test_after_removal(cluster, values):
    for name in ("uses", "fails", *(f"login{n}" for n in range(LOGINS))):
        cluster.swarm("h1", "service", "rm", name)
    cluster.wait_until(lambda: not cluster.get("/tasks"), "no task is left", 30)
    for kind in ("secret", "config"):
        cluster.swarm("h1", kind, "rm", *(item["Spec"]["Name"] for item in cluster.get(f"/{kind}s")))
    cluster.wait_until(lambda: not found_open(cluster, values), "nothing is left", 20)
