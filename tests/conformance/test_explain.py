"""`service explain` through the API and the command."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.fakes.api_http import Http, serve, web_spec
from tests.fakes.fake_backend import FakeBackend


async def test_the_api_tells_what_runs_and_why_not_more(http: Http, cluster: FakeBackend) -> None:
    await http.ask("POST", "/services/create", web_spec())
    found = await http.get("/services/web/explain")
    assert found == {
        "Service": "web",
        "Running": 0,
        "Desired": 1,
        "Converged": False,
        "Findings": [
            {
                "Kind": "progress",
                "Text": "nothing holds it up: it is being worked on",
                "Advice": "",
                "Tasks": [],
                "Nodes": {},
            }
        ],
    }
    cluster.run_tasks("web", 1)
    assert (await http.get("/services/web/explain"))["Converged"]
    assert await http.refused("GET", "/services/nope/explain") == (404, "service nope not found")


async def test_the_command_says_it_and_ends_with_1_until_it_is_so(
    http: Http, cluster: FakeBackend, tmp_path: Path
) -> None:
    path = tmp_path / "explain.sock"

    async def run(*arguments: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "swarm.cli.main", "service", "explain", *arguments),
            env=os.environ | {"SWARM_HOST": f"unix://{path}"},
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
        return process.returncode, out.decode()

    await http.ask("POST", "/services/create", web_spec())
    async with serve(cluster, path):
        assert await run("web") == (
            1,
            "web has not converged: 0 of 1 tasks run\n- nothing holds it up: it is being worked on\n",
        )
        cluster.run_tasks("web", 1)
        assert await run("web") == (0, "web is as it should be: 1 of 1 tasks run\n")
        assert (await run("--format", "{{.Running}}/{{.Desired}}", "web"))[1] == "1/1\n"
