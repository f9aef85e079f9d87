"""`POST /system/repair` tells its steps as they come."""

from __future__ import annotations

import json

from swarm.base.errors import FailedPrecondition, Unavailable
from tests.fakes.api_http import Http
from tests.fakes.fake_backend import FakeBackend

URL = "http://swarm/system/repair"


async def lines(http: Http) -> list[dict]:
    async with http.session.post(URL) as response:
        assert response.status == 200
        return [json.loads(line) for line in (await response.text()).splitlines()]


async def test_each_step_is_a_line(http: Http, cluster: FakeBackend) -> None:
    assert await lines(http) == [{"status": "asking"}, {"status": "filling"}]


async def test_what_is_refused_at_once_is_an_error_like_any_other(http: Http, cluster: FakeBackend) -> None:
    cluster.system.repair_steps = (FailedPrecondition("nothing to repair"),)
    assert await http.refused("POST", "/system/repair") == (400, "nothing to repair")


async def test_what_fails_later_is_the_last_line(http: Http, cluster: FakeBackend) -> None:
    cluster.system.repair_steps = ("asking", Unavailable("nobody answers"))
    told = {"errorDetail": {"message": "nobody answers"}, "error": "nobody answers"}
    assert await lines(http) == [{"status": "asking"}, told]
