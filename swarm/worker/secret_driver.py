"""Secrets whose values come from a program on this host, over a socket; one value for each task.

In: which secret is for which task. Out: its value. The driver NAME listens at
`/run/swarm/secret-drivers/NAME.sock`. On each connection it gets one line of JSON and answers with one:
`{"Value": "<base64>"}` or `{"Err": "<why not>"}`. Nothing is kept here: each task asks anew.
Invariant: an answer is bounded in size and time. Source: the fields are those of Docker's secret provider
plugins (SwarmKit drivers/secrets.go), where managers ask and a value may be shared.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path

from swarm.base.errors import Fatal
from swarm.model.objects import Payload
from swarm.model.payload_rules import SECRET_LIMIT_BYTES
from swarm.model.task_template import TemplateContext

TIMEOUT_S = 10.0
_LINE_BYTES = SECRET_LIMIT_BYTES * 2
_SHOWN = 200


class SecretDrivers:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def value(self, name: str, payload: Payload, context: TemplateContext) -> bytes:
        """The secret `name` for one task. Raises: Fatal."""
        driver = payload.driver
        assert driver is not None, "the caller has looked"
        whose = f"secret driver {driver.name}"
        try:
            async with asyncio.timeout(TIMEOUT_S):
                line = await self._ask(driver.name, _request(name, payload, context))
        except TimeoutError:
            raise Fatal(f"{whose} did not answer within {TIMEOUT_S:g} s, asked for secret {name}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "its answer is too long"
            raise Fatal(
                f"{whose} cannot be asked on this node ({reason}): {self._socket(driver.name)}"
            ) from None
        return _read(whose, name, line)

    async def _ask(self, driver: str, request: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self._socket(driver), limit=_LINE_BYTES)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.readline()
        finally:
            writer.close()

    def _socket(self, driver: str) -> str:
        return str(self._directory / f"{driver}.sock")


def _request(name: str, payload: Payload, context: TemplateContext) -> bytes:
    assert payload.driver is not None
    wanted: dict[str, str | Mapping[str, str]] = {
        "SecretName": name,
        "SecretLabels": dict(payload.labels),
        "DriverOptions": dict(payload.driver.options),
        "ServiceID": context.service_id,
        "ServiceName": context.service_name,
        "ServiceLabels": dict(context.service_labels),
        "TaskID": context.task_id,
        "TaskName": context.task_name,
        "TaskSlot": context.task_slot,
        "NodeID": context.node_id,
        "NodeHostname": context.node_hostname,
    }
    return json.dumps(wanted).encode() + b"\n"


def _read(whose: str, name: str, line: bytes) -> bytes:
    try:
        found = json.loads(line)
        refusal = str(found.get("Err") or "")
        value = base64.b64decode(found.get("Value") or "", validate=True)
    except (ValueError, AttributeError, TypeError, binascii.Error):
        raise Fatal(f"{whose} gave no answer that can be read, asked for secret {name}") from None
    if refusal:
        shown = " ".join(refusal.split())[:_SHOWN]
        raise Fatal(f"{whose} refused secret {name}: {shown}")
    if not 0 < len(value) < SECRET_LIMIT_BYTES:
        raise Fatal(f"{whose} gave {len(value)} bytes for secret {name}: "
                    f"it must be more than 0 and less than {SECRET_LIMIT_BYTES}")  # fmt: skip
    return value
