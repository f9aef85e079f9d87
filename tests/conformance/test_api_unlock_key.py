"""`GET /swarm/unlockkey`: who has got a fresh key has made it the managers' only one."""

from __future__ import annotations

import pytest

from swarm.base.errors import Unavailable
from swarm.model.objects import Cluster
from tests.fakes.api_http import Http
from tests.fakes.fake_backend import FakeBackend


def keys(backend: FakeBackend) -> tuple[str, str]:
    (cluster,) = backend.store.view.list(Cluster)
    return cluster.unlock_key, cluster.next_unlock_key


async def change(http: Http, *, locked: bool = True, **query: str) -> None:
    swarm = await http.get("/swarm")
    spec = swarm["Spec"] | {"EncryptionConfig": {"AutoLockManagers": locked}}
    query["version"] = str(swarm["Version"]["Index"])
    status, found, _ = await http.ask("POST", "/swarm/update", spec, params=query)
    assert status == 200, found


async def test_the_first_and_the_next_key_count_once_they_were_read(http: Http, cluster: FakeBackend) -> None:
    await change(http)
    first = keys(cluster)[1]
    assert keys(cluster) == ("", first)
    assert await http.get("/swarm/unlockkey") == {"UnlockKey": first}
    assert (await http.get("/swarm/unlockkey"), keys(cluster)) == ({"UnlockKey": first}, (first, ""))
    await change(http, rotateManagerUnlockKey="true")
    second = keys(cluster)[1]
    assert keys(cluster) == (first, second)
    assert first != second
    assert await http.get("/swarm/unlockkey") == {"UnlockKey": second}
    await http.get("/version")  # on the same connection: the request before it is over
    assert keys(cluster) == (second, "")
    await change(http, locked=False)
    assert await http.get("/swarm/unlockkey") == {"UnlockKey": ""}


async def test_an_answer_that_cannot_be_noted_is_an_answer(
    http: Http, cluster: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: str) -> None:
        raise Unavailable("no quorum")

    await change(http)
    with monkeypatch.context() as patch:
        patch.setattr(cluster.control, "confirm_unlock_key", fail, raising=False)
        assert await http.get("/swarm/unlockkey") == {"UnlockKey": keys(cluster)[1]}
    assert keys(cluster)[0] == ""
    await http.get("/swarm/unlockkey")
    await http.get("/version")
    assert keys(cluster)[1] == ""
