"""How long a host whose network has many services takes to attach a task, and to make one change.

Run it in a network of its own: `unshare --net --mount python -m bench.many_services SERVICES TIMES` prints
the milliseconds of each time, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from swarm.base import log
from swarm.base.clock import SystemClock
from swarm.model.dataplane import (
    DataPlane,
    NetworkService,
    OverlayEndpoint,
    OverlayNetwork,
    ServiceBackend,
    TaskNetwork,
)
from swarm.model.types import NetworkAttachment
from swarm.overlay.data_path import DataPath

TASKS = 3
NETWORK = "n" * 25


def service(number: int, *, tasks: int = TASKS) -> NetworkService:
    names = (f"service-{number}.{n}.{number:025d}" for n in range(1, tasks + 1))
    return NetworkService(
        network_id=NETWORK,
        service_id=f"{number:025d}",
        name=f"service-{number}",
        virtual_ip=f"10.9.{number // 250}.{number % 250 + 1}",
        backends=tuple(
            ServiceBackend(address=_address(number, n), names=(name, name[-12:]))
            for n, name in enumerate(names)
        ),
    )


def _address(number: int, task: int) -> str:
    return f"10.9.{100 + number // 250 * TASKS + task}.{number % 250 + 1}"


def plane(services: list[NetworkService]) -> DataPlane:
    backends = (backend for each in services for backend in each.backends)
    endpoints = tuple(OverlayEndpoint(address=b.address, host="192.0.2.2") for b in backends)
    network = OverlayNetwork(id=NETWORK, name="many", vni=4097, subnets=("10.9.0.0/16",), endpoints=endpoints)
    return DataPlane(networks=(network,), services=tuple(services))


def task(number: int) -> TaskNetwork:
    attachment = NetworkAttachment(network_id=NETWORK, addresses=(f"10.9.200.{number + 1}/16",))
    return TaskNetwork(task_id=f"t{number:024d}", attachments=(attachment,), names_on=(NETWORK,))


async def _timed(act: Awaitable[object]) -> float:
    clock = SystemClock()
    began = clock.monotonic()
    await act
    return (clock.monotonic() - began) * 1000


async def main(count: int, times: int) -> None:
    log.configure(level="error")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # noqa: ASYNC221  # nothing else runs yet
    with TemporaryDirectory() as directory:
        path = DataPath(local_address="127.0.0.1", run_dir=Path(directory))
        await path.start()
        services = [service(number) for number in range(count)]
        try:
            await path.apply(plane(services))
            attached = [await _timed(path.attach(task(number))) for number in range(times)]
            changed = []
            for number in range(times):
                services[number] = replace(services[number], backends=services[number].backends[1:])
                changed.append(await _timed(path.apply(plane(services))))
            print(json.dumps({"attach": attached, "change": changed}))
        finally:
            await path.close(remove=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
