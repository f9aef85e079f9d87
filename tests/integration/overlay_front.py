"""A network of users on all hosts of a `Site`, with the service `web` on it, as a manager would push them."""

from __future__ import annotations

import json
import sys
from collections import Counter

from swarm.model.embedded import embed
from tests.integration.overlay_site import OUTSIDE, ROOT, Host, Site, Task, fetch

FRONT = "front00000000000000000000"[:25]
VIRTUAL = "10.0.1.200"
SUBNET = "10.0.1.0/24"
IPV6_SUBNET = "fd00:1:2:3::/64"


class Front:
    """One overlay network on all hosts of a site, with the service `web` on it."""

    def __init__(self, site: Site, ipv6_subnet: str = "") -> None:
        self.site = site
        self.ipv6_subnet = ipv6_subnet
        self.tasks: list[Task] = []
        self.internal = False

    def attach(self, host: Host, number: int) -> Task:
        task = Task(task_id=f"front{number:020d}", address=f"10.0.1.{number}", host=host)
        link = host.ask(
            "attach",
            task_id=task.task_id,
            attachments=[[FRONT, f"{task.address}/24", *self._beside(task)]],
            names_on=[FRONT],
            nameservers=[] if self.internal else [OUTSIDE],
        )
        task.netns, task.gateway_address = link["netns"], link["address"]
        host.tasks.append(task)
        self.tasks.append(task)
        return task

    def ipv6(self, address: str) -> str:
        return embed(address, self.ipv6_subnet)

    def _beside(self, task: Task) -> list[str]:
        return [f"{self.ipv6(task.address)}/64"] if self.ipv6_subnet else []

    def apply(self, *backends: Task, suspects: tuple[Task, ...] = (), **more: object) -> None:
        for host in self.site.hosts:
            host.ask(
                "apply",
                networks=[self.network(host)],
                ports=[],
                services=[self.service(*backends, suspects=suspects, **more)],
            )

    def network(self, host: Host) -> dict:
        endpoints = [{"address": t.address, "host": t.host.address} for t in self.tasks]
        return {
            "id": FRONT,
            "name": "front",
            "vni": 4097,
            "subnets": (SUBNET,),
            "ipv6_subnet": self.ipv6_subnet,
            "internal": self.internal,
            "endpoints": endpoints,
        }

    def service(self, *backends: Task, suspects: tuple[Task, ...] = (), **more: object) -> dict:
        named = [
            {
                "address": t.address,
                "suspect": t in suspects,
                "names": (f"web.{n}.{t.task_id}", t.task_id[:12]),
            }
            for n, t in enumerate((*backends, *suspects), start=1)
        ]
        service = {
            "network_id": FRONT,
            "service_id": "webservice",
            "name": "web",
            "virtual_ip": VIRTUAL,
            "aliases": ("www",),
        }
        return service | {"backends": named} | more


def ask(task: Task, name: str, kind: str = "A", *more: str) -> tuple[str, list[str]]:
    script = str(ROOT / "tests/integration/dns_client.py")
    heard = json.loads(task.nsenter(sys.executable, script, "127.0.0.11", name, kind, *more))
    return heard["code"], sorted(heard["records"])


def requests(task: Task, times: int, address: str = VIRTUAL) -> Counter[str]:
    """Who answers, over IPv6 if the address is of that."""
    return fetch(task.nsenter, f"[{address}]" if ":" in address else address, times, number=80)
