"""Probes containers' health: one probe at a time in each, for as long as its caller waits.

Invariant: a probe ends with its time limit and with its caller's wait, and so does what it started.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from swarm.base.clock import Clock
from swarm.base.errors import SwarmError
from swarm.base.log import get_logger
from swarm.worker.health import Health, HealthPlan, Probe, Verdict, after_probe, pause_before_probe
from swarm.worker.logs import printable
from swarm.worker.runtime.containers import Containers
from swarm.worker.runtime.exec_spec import ExecConfig

OUTPUT_BYTES = 4096

log = get_logger("health")


class Prober:
    def __init__(self, containers: Containers, clock: Clock) -> None:
        self._containers = containers
        self._clock = clock
        self._verdicts: dict[str, Verdict] = {}

    def verdict(self, container_id: str) -> Verdict | None:
        """What the probes say now; None for a container that is not probed."""
        return self._verdicts.get(container_id)

    def forget(self, container_id: str) -> None:
        self._verdicts.pop(container_id, None)

    async def until(self, wanted: Health, container_id: str, plan: HealthPlan) -> Verdict:
        """Probe until the container is as `wanted`, or unhealthy.

        Waiting for anything but `healthy` takes up a container that is healthy.
        """
        began = self._clock.monotonic()
        verdict = Verdict(health=Health.STARTING if wanted is Health.HEALTHY else Health.HEALTHY)
        self._verdicts[container_id] = verdict
        while verdict.health not in (wanted, Health.UNHEALTHY):
            await asyncio.sleep(pause_before_probe(plan, verdict, self._since(began)).total_seconds())
            probe = await self._probe(container_id, plan)
            verdict = after_probe(plan, verdict, probe, self._since(began))
            self._verdicts[container_id] = verdict
            if not probe.is_good:
                log.info("health.probe", task_id=container_id, streak=verdict.streak, output=probe.output)
        return verdict

    def _since(self, began: float) -> timedelta:
        return timedelta(seconds=self._clock.monotonic() - began)

    async def _probe(self, container_id: str, plan: HealthPlan) -> Probe:
        try:
            async with asyncio.timeout(plan.timeout.total_seconds()):
                output, code = await self._run(container_id, plan.args)
        except TimeoutError:
            return Probe(is_good=False, output=f"Health check exceeded timeout ({_words(plan.timeout)})")
        except (SwarmError, OSError) as error:
            return Probe(is_good=False, output=printable(str(error).encode()))
        return Probe(is_good=code == 0, output=printable(output))

    async def _run(self, container_id: str, args: tuple[str, ...]) -> tuple[bytes, int]:
        """The start of what the program writes, and its exit code; the rest is read and dropped."""
        async with self._containers.exec(container_id, ExecConfig(args=args)) as program:
            output = b""
            while (chunk := await program.read()) is not None:
                output += chunk.data[: OUTPUT_BYTES - len(output)]
            return output, await program.wait()


def _words(time: timedelta) -> str:
    return f"{time.total_seconds():g}s"
