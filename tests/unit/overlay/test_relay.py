"""The relay's two halves on this machine's loopback: clients on ::1, targets on 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import pytest

from swarm.overlay.relay import datagrams
from swarm.overlay.relay.__main__ import Relays, listen
from swarm.overlay.relay.datagrams import DatagramRelay
from swarm.overlay.relay.streams import StreamRelay

TIMEOUT_S = 5.0


@contextlib.asynccontextmanager
async def web(name: bytes) -> AsyncIterator[tuple[str, int]]:
    """Says its name, then all that it hears once its client has said everything."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(name)
            writer.write(await reader.read())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


async def say(port: int, text: bytes = b"") -> bytes:
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection("::1", port)
        try:
            writer.write(text)
            writer.write_eof()
            return await reader.read()
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def streams(*targets: tuple[str, int], header: bool = False) -> AsyncIterator[tuple[StreamRelay, int]]:
    opened = listen(socket.SOCK_STREAM, 0)
    relay = await StreamRelay.start(opened, targets, header=header)
    try:
        yield relay, opened.getsockname()[1]
    finally:
        relay.close()


async def test_connections_take_turns_and_each_side_hears_the_others_end() -> None:
    async with web(b"one ") as one, web(b"two ") as two, streams(one, two) as (_, port):
        assert [await say(port, b"x") for _ in range(4)] == [b"one x", b"two x"] * 2


async def test_much_arrives_whole() -> None:
    much = bytes(range(256)) * 20_000
    async with web(b"") as target, streams(target) as (_, port):
        assert await say(port, much) == much


async def test_another_target_answers_for_one_that_is_gone() -> None:
    async with web(b"one") as one, web(b"two") as two:
        pass
    async with web(b"three") as three, streams(one, two, three) as (_, port):
        assert [await say(port) for _ in range(3)] == [b"three"] * 3


async def test_without_an_answering_target_a_client_is_reset() -> None:
    async with web(b"") as gone:
        pass
    async with streams(gone) as (_, port):
        with pytest.raises(ConnectionResetError):
            await say(port)


async def test_a_standing_connection_outlives_its_port_and_its_targets_turn() -> None:
    async with (
        web(b"hello") as one,
        web(b"") as two,
        streams(one) as (relay, port),
        asyncio.timeout(TIMEOUT_S),
    ):
        reader, writer = await asyncio.open_connection("::1", port)
        assert await reader.readexactly(5) == b"hello"
        relay.lead_to((two,))
        relay.close()
        writer.write(b"on")
        writer.write_eof()
        assert await reader.read() == b"on"
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await say(port)


async def test_targets_that_expect_it_are_told_their_clients() -> None:
    async with (
        web(b"") as gone,
        web(b"") as target,
        streams(gone, target, header=True) as (relay, port),
        asyncio.timeout(TIMEOUT_S),
    ):
        reader, writer = await asyncio.open_connection("::1", port)
        own = writer.get_extra_info("sockname")[1]
        writer.write(b"hello")
        writer.write_eof()
        heard = await reader.read()
        writer.close()
        loopback = bytes(15) + b"\x01"
        assert heard == (
            b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"  # as it is in the protocol's own words
            b"\x21\x21\x00\x24" + loopback + loopback + struct.pack("!HH", own, port) + b"hello"
        )
        relay.lead_to((target,))
        assert await say(port, b"plain") == b"plain"


class Peer(asyncio.DatagramProtocol):
    """Answers with its name, or keeps what it hears."""

    def __init__(self, name: bytes = b"") -> None:
        self._name = name
        self.heard: asyncio.Queue[tuple[bytes, tuple]] = asyncio.Queue()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple) -> None:
        if self._name:
            self.transport.sendto(self._name + data, addr)
        self.heard.put_nowait((data, addr))

    async def ask(self, port: int) -> bytes:
        self.transport.sendto(b"?", ("::1", port))
        async with asyncio.timeout(TIMEOUT_S):
            data, (host, answered, *_) = await self.heard.get()
        assert (host, answered) == ("::1", port)
        return data


async def peer(name: bytes = b"", host: str = "127.0.0.1") -> Peer:
    loop = asyncio.get_running_loop()
    return (await loop.create_datagram_endpoint(lambda: Peer(name), (host, 0)))[1]


@contextlib.contextmanager
def relayed(*targets: Peer) -> Iterator[tuple[DatagramRelay, int]]:
    bound = listen(socket.SOCK_DGRAM, 0)
    relay = DatagramRelay(bound, tuple(places(*targets)))
    try:
        yield relay, bound.getsockname()[1]
    finally:
        relay.close()


def places(*targets: Peer) -> list[tuple[str, int]]:
    return [target.transport.get_extra_info("sockname") for target in targets]


@pytest.fixture
async def peers() -> AsyncIterator[list[Peer]]:
    """Two targets and two clients."""
    made = [await peer(b"one"), await peer(b"two"), await peer(host="::1"), await peer(host="::1")]
    yield made
    for each in made:
        each.transport.close()


async def test_a_client_keeps_its_target_and_moves_on_when_that_serves_no_more(peers: list[Peer]) -> None:
    one, two, client, other = peers
    with relayed(one, two) as (relay, port):
        assert [await client.ask(port) for _ in range(3)] == [b"one?"] * 3
        assert await other.ask(port) == b"two?"
        relay.lead_to(tuple(places(two)))
        assert await client.ask(port) == b"two?"


async def test_flows_are_bounded(peers: list[Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "FLOWS", 1)
    one, two, client, other = peers
    with relayed(one, two, two) as (_, port):
        answers = [await asked.ask(port) for asked in (client, client, other, client)]
        assert answers == [b"one?", b"one?", b"two?", b"two?"], "the client's first flow had to go"


async def test_the_flow_that_was_used_least_lately_makes_room(
    peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "FLOWS", 2)
    one, two, client, other = peers
    third = await peer(host="::1")
    with relayed(one, two, two, two) as (_, port):
        answers = [await asked.ask(port) for asked in (client, other, client, third, client)]
        assert answers == [b"one?", b"two?", b"one?", b"two?", b"one?"]
    third.transport.close()


async def test_unused_flows_end(peers: list[Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "IDLE_S", 0.3)
    one, two, client, _ = peers
    with relayed(one, two) as (_, port):
        assert await client.ask(port) == b"one?"
        await asyncio.sleep(0.8)  # the loop's timers fire in order, so it has swept by then
        assert await client.ask(port) == b"two?"


def led(*targets: tuple[str, int]) -> dict[str, object]:
    return {"targets": [list(target) for target in targets], "header": False}


async def test_ports_are_opened_kept_and_closed_as_ordered() -> None:
    relays = Relays()
    async with web(b"one") as one, web(b"two") as two:
        with listen(socket.SOCK_STREAM, 0) as free:
            port = free.getsockname()[1]
        assert await relays.obey({"ports": {f"tcp/{port}": led(one)}}) == {"failed": {}}
        assert await say(port) == b"one"
        assert await relays.obey({"ports": {f"tcp/{port}": led(two)}}) == {"failed": {}}
        assert await say(port) == b"two"
        assert await relays.obey({"ports": {}}) == {"failed": {}}
        with pytest.raises(ConnectionRefusedError):
            await say(port)


async def test_a_port_that_somebody_else_has_is_told() -> None:
    with listen(socket.SOCK_STREAM, 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        failed = (await Relays().obey({"ports": {f"tcp/{port}": led(("127.0.0.1", 1))}}))["failed"]
        assert failed == {f"tcp/{port}": "Address already in use"}


def test_ipv4_is_left_to_the_firewalls_table() -> None:
    with listen(socket.SOCK_DGRAM, 0) as relay, socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", relay.getsockname()[1]))
