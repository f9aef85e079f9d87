"""Secrets from a program on the host: an example driver, and what a bad one may say."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager

import pytest

from swarm.base.errors import Fatal
from swarm.model.container import Driver
from swarm.model.objects import Payload
from swarm.model.payload_rules import SECRET_LIMIT_BYTES
from swarm.model.specs import ContainerSpec, FileTarget, SecretReference
from swarm.model.task_template import EXAMPLE
from swarm.worker import secret_driver
from swarm.worker.payloads import Payloads
from swarm.worker.secret_driver import SecretDrivers

PAYLOAD = Payload(
    id="s1.1", driver=Driver(name="vault", options={"path": "db"}), labels={"team": "a"}, data=b""
)


@asynccontextmanager
async def driver(directory, answer):
    """The whole of a driver: one line of JSON in, one out. `answer` makes bytes of the request."""

    async def serve(reader, writer):
        request = json.loads(await reader.readline())
        writer.write(answer(request))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, directory / "vault.sock")
    try:
        yield SecretDrivers(directory)
    finally:
        server.close()
        await server.wait_closed()


def valued(value: bytes) -> bytes:
    return json.dumps({"Value": base64.b64encode(value).decode()}).encode() + b"\n"


async def test_each_task_gets_a_value_of_its_own(tmp_path):
    asked = []

    def answer(request):
        asked.append(request)
        return valued(f"for {request['TaskID']}".encode())

    async with driver(tmp_path, answer) as drivers:
        known = Payloads(drivers)
        known.hold({PAYLOAD.id: PAYLOAD})
        reference = SecretReference(secret_id="s1", secret_name="db", file=FileTarget(name="pass"), version=1)
        found = await known.delivery(ContainerSpec(secrets=(reference,)), EXAMPLE)
    assert [(file.target, file.data) for file in found.files] == [("/run/secrets/pass", b"for taskid")]
    assert asked == [
        {
            "SecretName": "db",
            "SecretLabels": {"team": "a"},
            "DriverOptions": {"path": "db"},
            "ServiceID": "serviceid",
            "ServiceName": "service",
            "ServiceLabels": {},
            "TaskID": "taskid",
            "TaskName": "service.1.taskid",
            "TaskSlot": "1",
            "NodeID": "nodeid",
            "NodeHostname": "node",
        }
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"Err": "sealed,\\nask again"}\n', "secret driver vault refused secret db: sealed, ask again"),
        (b"nonsense\n", "secret driver vault gave no answer that can be read, asked for secret db"),
        (b"[1]\n", "gave no answer that can be read"),
        (b'{"Value": 7}\n', "gave no answer that can be read"),
        (b'{"Value": "%%"}\n', "gave no answer that can be read"),
        (b"", "gave no answer that can be read"),
        (b"{}\n", "gave 0 bytes for secret db"),
        (valued(bytes(SECRET_LIMIT_BYTES)), f"gave {SECRET_LIMIT_BYTES} bytes for secret db"),
        (b"x" * 3 * SECRET_LIMIT_BYTES, "its answer is too long"),
    ],
)
async def test_what_a_bad_driver_says_is_refused(tmp_path, line, complaint):
    async with driver(tmp_path, lambda _: line) as drivers:
        with pytest.raises(Fatal, match=complaint):
            await drivers.value("db", PAYLOAD, EXAMPLE)


async def test_a_driver_that_is_not_there_is_named_with_its_place(tmp_path):
    with pytest.raises(
        Fatal, match=rf"vault cannot be asked on this node \(No such file.*{tmp_path}/vault.sock"
    ):
        await SecretDrivers(tmp_path).value("db", PAYLOAD, EXAMPLE)


async def test_a_driver_that_says_nothing_is_waited_for_no_longer_than_that(tmp_path, monkeypatch):
    monkeypatch.setattr(secret_driver, "TIMEOUT_S", 0.05)
    silent = asyncio.Event()

    async def serve(_, writer):
        await silent.wait()
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "vault.sock")
    try:
        with pytest.raises(Fatal, match=r"did not answer within 0\.05 s, asked for secret db"):
            await SecretDrivers(tmp_path).value("db", PAYLOAD, EXAMPLE)
    finally:
        silent.set()
        server.close()
        await server.wait_closed()
