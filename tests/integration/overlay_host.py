"""One host of the overlay tests: a `DataPath` driven by JSON lines on stdin, answers on stdout.

Run it inside the network namespace that plays the host, by `nsenter --net=...`.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

from swarm.base import log
from swarm.base.errors import SwarmError
from swarm.model.dataplane import (
    Backend,
    DataPlane,
    NetworkService,
    OverlayEndpoint,
    OverlayNetwork,
    PublishedPort,
    ServiceBackend,
    TaskNetwork,
    TunnelPeer,
)
from swarm.model.types import Encryption, NetworkAttachment, PortConfig, Protocol, PublishMode, TunnelKey
from swarm.overlay.data_path import DataPath


def data_plane(given: dict) -> DataPlane:
    return DataPlane(
        networks=tuple(
            OverlayNetwork(**{**n, "endpoints": tuple(OverlayEndpoint(**e) for e in n["endpoints"])})
            for n in given["networks"]
        ),
        encryption=Encryption(**given.get("encryption", {})),
        peers=tuple(
            TunnelPeer(host=p["host"], keys=tuple(TunnelKey(**key) for key in p["keys"]))
            for p in given.get("peers", ())
        ),
        ports=tuple(
            PublishedPort(
                protocol=Protocol(p["protocol"]),
                published_port=p["published_port"],
                target_port=p["target_port"],
                preserves_source=p.get("preserves_source", False),
                proxy_protocol=p.get("proxy_protocol", False),
                backends=tuple(Backend(**b) for b in p["backends"]),
            )
            for p in given["ports"]
        ),
        services=tuple(
            NetworkService(**{**s, "backends": tuple(ServiceBackend(**b) for b in s["backends"])})
            for s in given.get("services", ())
        ),
    )


def task_network(given: dict) -> TaskNetwork:
    return TaskNetwork(
        task_id=given["task_id"],
        attachments=tuple(
            NetworkAttachment(network_id=n, addresses=tuple(addresses))
            for n, *addresses in given["attachments"]
        ),
        host_ports=tuple(
            PortConfig(
                protocol=Protocol(protocol),
                published_port=published,
                target_port=target,
                publish_mode=PublishMode.HOST,
            )
            for protocol, published, target in given.get("host_ports", ())
        ),
        names_on=tuple(given.get("names_on", ())),
        nameservers=tuple(given.get("nameservers", ())),
    )


async def perform(path: DataPath, command: str, given: dict) -> object:
    match command:
        case "start":
            return await path.start()
        case "apply":
            return await path.apply(data_plane(given))
        case "attach":
            link = await path.attach(task_network(given))
            return {
                "netns": str(link.netns),
                "address": link.address,
                "gateway": link.gateway_address,
                "host_ports": [p.published_port for p in link.host_ports],
            }
        case "keys":
            return [{"generation": k.generation, "public_key": k.public_key} for k in path.tunnel_keys]
        case "detach":
            return await path.detach(given["task_id"])
        case "verify":
            return await path.verify()
        case "close":
            return await path.close(remove=given["remove"])
    raise ValueError(command)


def cpu_s() -> float:
    """What this process and the programs that it ran have taken of the processor."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


async def main(local_address: str, run_dir: str, gateway_subnet: str) -> None:
    log.configure(level="error")
    path = DataPath(local_address=local_address, run_dir=Path(run_dir), gateway_subnet=gateway_subnet)
    while line := await asyncio.to_thread(sys.stdin.readline):
        request = json.loads(line)
        began = cpu_s()
        try:
            answer = {"result": await perform(path, request["command"], request.get("given", {}))}
        except (SwarmError, OSError) as error:
            answer = {"error": str(error)}
        answer["cpu_ms"] = round((cpu_s() - began) * 1000, 2)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
