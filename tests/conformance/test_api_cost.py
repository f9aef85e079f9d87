"""Clients poll without pause: what one answer costs with 100 services or tasks, in time of the processor.

That includes the asking client, and nothing of what else the machine does meanwhile.
"""

from __future__ import annotations

import statistics
import time

from tests.fakes.api_http import Http, web_spec
from tests.fakes.fake_backend import FakeBackend

LIMIT_S = 0.005
ROUNDS = 40


async def median_time(http: Http, path: str) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        async with http.session.get("http://swarm" + path) as response:
            body = await response.read()
        times.append(time.process_time() - start)
        assert len(body) > 10_000
    return statistics.median(times)


async def test_lists_of_a_hundred(http: Http, cluster: FakeBackend) -> None:
    for number in range(100):
        status, _, _ = await http.ask("POST", "/services/create", web_spec(f"web{number}"))
        assert status == 201
    cluster.run_tasks("web0", 100)
    found = {path: await median_time(http, path) for path in ("/tasks", "/services", "/services?status=1")}
    print({path: f"{seconds * 1000:.2f} ms" for path, seconds in found.items()})
    assert max(found.values()) < LIMIT_S
