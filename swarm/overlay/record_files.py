"""Task records on disk, one small file per task, so that they survive the process.

In and out: `TaskRecord`s. The files lie beside the namespaces they describe (/run): both go at a reboot.

Invariant: a record is on disk before anything is made from it, so a crash leaks neither address nor port.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from swarm.base.failpoint import failpoint
from swarm.model.types import NetworkAttachment, PortConfig, Protocol, PublishMode
from swarm.overlay.records import MacvlanLink, TaskRecord


class RecordFiles:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self) -> dict[str, TaskRecord]:
        """Every record, oldest first. Files are put in place whole, and a power cut empties /run."""
        paths = sorted(self._directory.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        records = (_decode(path.read_text()) for path in paths)
        return {record.task_id: record for record in records}

    def users_of(self, config: str) -> list[str]:
        """The tasks that have an address from this node's settings of that name. From any thread."""
        found = []
        for path in self._directory.glob("*.json"):
            with suppress(FileNotFoundError):
                record = _decode(path.read_text())
                found += [record.task_id for link in record.macvlans if link.config == config]
        return sorted(found)

    def save(self, record: TaskRecord) -> None:
        path = self._directory / f"{record.task_id}.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(_encode(record))
        failpoint("network.record.written")
        os.replace(temporary, path)

    def delete(self, task_id: str) -> None:
        (self._directory / f"{task_id}.json").unlink(missing_ok=True)


def _encode(record: TaskRecord) -> str:
    return json.dumps(
        {
            "task": record.task_id,
            "gateway_address": record.gateway_address,
            "attachments": [
                [a.network_id, list(a.addresses), list(a.subnets), a.internal] for a in record.attachments
            ],
            "host_ports": [[p.protocol, p.published_port, p.target_port, p.name] for p in record.host_ports],
            "slot": record.slot,
            "internal": record.is_internal,
            "names_on": record.names_on,
            "nameservers": record.nameservers,
            "macvlans": [asdict(link) for link in record.macvlans],
        }
    )


def _decode(text: str) -> TaskRecord:
    stored = json.loads(text)
    return TaskRecord(
        task_id=stored["task"],
        gateway_address=stored["gateway_address"],
        attachments=tuple(
            NetworkAttachment(
                network_id=network_id,
                addresses=tuple(addresses),
                subnets=tuple(more[0] if more else ()),
                internal=bool(more[1] if more else False),
            )
            for network_id, addresses, *more in stored["attachments"]
        ),
        host_ports=tuple(
            PortConfig(
                name=name,
                protocol=Protocol(protocol),
                published_port=published,
                target_port=target,
                publish_mode=PublishMode.HOST,
            )
            for protocol, published, target, name in stored["host_ports"]
        ),
        slot=stored.get("slot", ""),
        names_on=tuple(stored.get("names_on", ())),
        nameservers=tuple(stored.get("nameservers", ())),
        is_internal=stored.get("internal", False),
        macvlans=tuple(MacvlanLink(**link) for link in stored.get("macvlans", ())),
    )
