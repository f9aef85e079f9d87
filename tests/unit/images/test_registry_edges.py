from __future__ import annotations

import asyncio

import pytest

from swarm.base.errors import InvalidArgument, SwarmError, Temporary, Unavailable
from swarm.base.log import Secret
from swarm.model.image_reference import parse_reference
from swarm.worker.images.errors import ImageNotFound, InvalidImage
from swarm.worker.images.registry import InsecureRegistries, RegistryAuth
from swarm.worker.images.registry_errors import registry_error
from swarm.worker.images.single_flight import SingleFlight


def failed(message: str) -> str:
    line = f'msg="Error parsing image name \\"docker://r/web:1\\": {message}"'
    return f'time="2026-01-01T00:00:00Z" level=fatal {line}\n'


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (
            "reading manifest 1 in r/web: manifest unknown: manifest unknown",
            ImageNotFound,
            "manifest for r.io/web:1 not found: manifest unknown: manifest unknown",
        ),
        (
            "reading manifest 1 in r/web: errors:\\ndenied: requested access to the resource is denied",
            ImageNotFound,
            "pull access denied for r.io/web, repository does not exist or may require 'docker login': "
            "denied: requested access to the resource is denied",
        ),
        (
            'pinging container registry r: Get \\"http://r/v2/\\": '
            "dial tcp 127.0.0.1:1: connect: connection refused",
            Unavailable,
            'pulling r.io/web:1: Get "http://r/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
        ),
        (
            'pinging container registry r: Get \\"https://r/v2/\\": '
            "http: server gave HTTP response to HTTPS client",
            Unavailable,
            "(start swarmd with --insecure-registry to pull",
        ),
        ("writing blob: no space left on device", Temporary, "pulling r.io/web:1: no space left on device"),
        ("Digest did not match, expected a, got b", InvalidImage, "Digest did not match"),
        ("something new", Temporary, "something new"),
    ],
)
def test_skopeos_words_become_dockers(message: str, kind: type[SwarmError], text: str) -> None:
    error = registry_error(failed(message), parse_reference("r.io/web:1"))
    assert type(error) is kind
    assert text in str(error)
    assert "\n" not in str(error)


def test_plain_http_is_for_loopback_and_listed_private_places() -> None:
    insecure = InsecureRegistries(("10.1.0.0/16", "registry.lan:5000"))
    for domain in (
        "127.0.0.1:5000",
        "127.9.9.9",
        "[::1]:80",
        "localhost:5000",
        "10.1.2.3:5000",
        "registry.lan:5000",
    ):
        assert insecure.covers(domain), domain
    for domain in ("docker.io", "10.2.0.1", "registry.lan", "127.0.0.1.evil.example", "8.8.8.8:5000"):
        assert not insecure.covers(domain), domain
    with pytest.raises(InvalidArgument, match=r"8\.8\.8\.0/24 is a public address"):
        InsecureRegistries(("8.8.8.0/24",))


def test_a_login_tells_nothing() -> None:
    auth = RegistryAuth(username="u", password=Secret("hunter2"))
    assert "hunter2" not in repr(auth)
    assert auth.key() == RegistryAuth(username="u", password=Secret("hunter2")).key()
    assert auth.key() != RegistryAuth(username="u", password=Secret("other")).key()


async def test_the_same_work_is_done_once() -> None:
    flights: SingleFlight[int] = SingleFlight()
    release = asyncio.Event()
    runs: list[int] = []

    async def work() -> int:
        runs.append(1)
        await release.wait()
        return 7

    async with asyncio.TaskGroup() as group:
        first = group.create_task(flights.run("k", work))
        second = group.create_task(flights.run("k", work))
        await asyncio.sleep(0)
        release.set()
    assert (first.result(), second.result(), len(runs)) == (7, 7, 1)


async def test_a_cancelled_leader_is_followed_by_the_next() -> None:
    flights: SingleFlight[str] = SingleFlight()
    started, release = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        started.set()
        await release.wait()
        return "done"

    async with asyncio.TaskGroup() as group:
        leader = group.create_task(flights.run("k", work))
        await started.wait()
        follower = group.create_task(flights.run("k", work))
        await asyncio.sleep(0)
        started.clear()
        leader.cancel()
        await started.wait()
        release.set()
    assert follower.result() == "done"


async def test_waiters_share_the_error() -> None:
    flights: SingleFlight[None] = SingleFlight()
    release = asyncio.Event()

    async def work() -> None:
        await release.wait()
        raise Unavailable("no registry")

    tasks = [asyncio.ensure_future(flights.run("k", work)) for _ in range(3)]
    await asyncio.sleep(0)
    release.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(r) for r in results] == [Unavailable] * 3
