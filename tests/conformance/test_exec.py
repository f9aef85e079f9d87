"""Commands in containers, as `docker exec`, docker-py and `swarm service exec` run them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import docker as docker_py
import pytest

from tests.fakes.api_http import Http, serve, web_spec
from tests.fakes.fake_backend import FakeBackend

CONTAINER = "c" * 25
"""The fake engine's only one."""
PATIENCE_S = 10


@pytest.fixture
async def path(cluster: FakeBackend, tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "exec.sock"
    keeping = [asyncio.ensure_future(work) for work in (cluster.execs.run(), cluster.local_execs.keep())]
    async with serve(cluster, path):
        yield path
    for task in keeping:
        task.cancel()
    await asyncio.wait(keeping)
    assert all(process.closed.is_set() for process in cluster.exec_containers.processes)


async def created(http: Http, *args: str, **more) -> str:
    body = {"Cmd": list(args), "AttachStdout": True, "AttachStderr": True} | more
    status, found, _ = await http.ask("POST", f"/containers/{CONTAINER}/exec", body)
    assert status == 201, found
    return found["Id"]


class Raw:
    """A connection on which an exec has been started."""

    def __init__(self, path: Path, exec_id: str, *, upgrade: bool = True) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(str(path))
        body = json.dumps({"Detach": False, "Tty": False}).encode()
        head = f"POST /v1.50/exec/{exec_id}/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        head += "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
        self._socket.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.head = self._until(b"\r\n\r\n")

    def _until(self, end: bytes) -> bytes:
        found = b""
        while not found.endswith(end):
            piece = self._socket.recv(1)
            assert piece, found
            found += piece
        return found

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def end_sending(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def read(self) -> bytes:
        """Everything up to the end."""
        found = b""
        while piece := self._socket.recv(1 << 16):
            found += piece
        return found

    def close(self) -> None:
        self._socket.close()


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


@pytest.mark.parametrize("upgrade", [True, False])
async def test_half_closed_input_and_framed_output(http: Http, path: Path, upgrade: bool) -> None:
    exec_id = await created(http, "cat", AttachStdin=True)

    def talk() -> tuple[bytes, bytes]:
        raw = Raw(path, exec_id, upgrade=upgrade)
        raw.send(b"one\n")
        raw.end_sending()
        found = raw.head, raw.read()
        raw.close()
        return found

    head, out = await asyncio.to_thread(talk)
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n" if upgrade else b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: application/vnd.docker.multiplexed-stream\r\n" in head
    assert out == frame(1, b"one\n")
    state = await http.get(f"/exec/{exec_id}/json")
    assert (state["Running"], state["ExitCode"], state["ContainerID"]) == (False, 0, CONTAINER)


async def test_a_client_that_goes_away_takes_the_command_with_it(
    http: Http, path: Path, cluster: FakeBackend
) -> None:
    for args, half_closed in ((("sleep",), False), (("sleep",), True), (("yes",), False)):
        exec_id = await created(http, *args)
        cluster.exec_containers.started.clear()
        raw = await asyncio.to_thread(Raw, path, exec_id)
        if half_closed:
            raw.end_sending()
        await cluster.exec_containers.started.wait()
        process = cluster.exec_containers.processes[-1]
        assert (await http.get(f"/exec/{exec_id}/json"))["Running"]
        raw.close()
        async with asyncio.timeout(PATIENCE_S):
            await process.closed.wait()


async def test_a_client_that_reads_nothing_holds_the_command_up(
    http: Http, path: Path, cluster: FakeBackend
) -> None:
    raw = await asyncio.to_thread(Raw, path, await created(http, "yes"))
    await cluster.exec_containers.started.wait()
    taken = [0]
    async with asyncio.timeout(PATIENCE_S):
        while not taken[-1] or taken[-3:].count(taken[-1]) < 3:  # held up, it stands still
            await asyncio.sleep(0.1)
            taken.append(cluster.exec_containers.processes[-1].written)
    raw.close()
    assert taken[-1] < 100


async def test_a_terminal_is_raw_and_is_resized(http: Http, path: Path) -> None:
    exec_id = await created(http, "cat", Tty=True, AttachStdin=True, ConsoleSize=[10, 20])
    raw = await asyncio.to_thread(Raw, path, exec_id)
    status, _, _ = await http.ask("POST", f"/exec/{exec_id}/resize", params={"h": "24", "w": "80"})
    assert status == 200
    raw.end_sending()
    assert b"application/vnd.docker.raw-stream" in raw.head
    assert await asyncio.to_thread(raw.read) == b"20x10\n80x24\n"
    raw.close()


async def test_refusals(http: Http, path: Path) -> None:
    at = f"/containers/{CONTAINER}/exec"
    assert await http.refused("POST", at, {"Cmd": []}) == (400, "No exec command specified")
    assert (await http.refused("POST", at, {"Cmd": "ls"}))[0] == 400
    assert (await http.refused("POST", at, {"Cmd": ["ls"], "Privileged": True}))[0] == 501
    assert await http.refused("POST", "/containers/nope/exec", {"Cmd": ["ls"]}) == (
        404,
        "No such container: nope",
    )
    assert await http.refused("GET", "/exec/nope/json") == (404, "No such exec instance: nope")
    exec_id = await created(http, "exit", "0")
    for _ in range(2):
        raw = await asyncio.to_thread(Raw, path, exec_id)
        await asyncio.to_thread(raw.read)
        raw.close()
    assert b"400 Bad Request" in raw.head
    assert (await http.refused("POST", f"/exec/{exec_id}/resize", params={"h": "x", "w": "1"}))[0] == 400


async def test_an_answer_whose_connection_is_closed_says_so(http: Http, path: Path) -> None:
    """Else a client that keeps connections sends its next request into a closed one."""
    for _ in range(5):
        status, _, headers = await http.ask("POST", "/exec/nope/start", {"Detach": False})
        assert (status, headers["Connection"]) == (404, "close")
        assert await http.get("/version")


async def test_docker_py(path: Path) -> None:
    def check() -> None:
        client = docker_py.DockerClient(f"unix://{path}", timeout=PATIENCE_S)
        try:
            container = client.containers.get(CONTAINER)
            assert container.exec_run(["warn"], demux=True) == (3, (None, b"careful\n"))
            assert container.exec_run(["warn"], stderr=False) == (3, b"")
            code, out = container.exec_run(["nope"])
            assert (code, b"executable file not found" in out) == (127, True)
            code, out = container.exec_run(["exit", "4"], detach=True)
            assert (code in (None, 4), out) == (True, "")
            code, stream = container.exec_run(["cat"], stdin=True, socket=True)
            stream._sock.sendall(b"hello\n")
            stream._sock.shutdown(socket.SHUT_WR)
            assert stream.read(100) == frame(1, b"hello\n")
            stream._sock.close()
            stream.close()
        finally:
            client.close()

    await asyncio.to_thread(check)


async def docker(path: Path, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    environment = os.environ | {"DOCKER_HOST": f"unix://{path}", "HOME": str(path.parent)}
    process = await asyncio.create_subprocess_exec(
        "docker",
        *arguments,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate(stdin)
    return process.returncode or 0, out, err


@pytest.mark.docker_client
@pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker program")
async def test_the_docker_program(path: Path, cluster: FakeBackend) -> None:
    assert await docker(path, "exec", "-i", CONTAINER, "cat", stdin=b"in\n") == (0, b"in\n", b"")
    assert await docker(path, "exec", "-u", "7", "-w", "/srv", "-e", "A=1", CONTAINER, "warn") == (
        3,
        b"",
        b"careful\n",
    )
    code, _, err = await docker(path, "exec", CONTAINER, "nope")
    assert (code, b"executable file not found" in err) == (127, True)
    assert (await docker(path, "exec", "-d", CONTAINER, "exit", "0"))[0] == 0
    given = cluster.exec_containers.processes[1].config
    assert (given.user, given.cwd) == ("7", "/srv")


async def swarm(path: Path, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "swarm.cli.main", *arguments),
        env=os.environ | {"SWARM_HOST": f"unix://{path}", "FROM_HERE": "yes"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate(stdin)
    return process.returncode or 0, out, err


async def test_the_swarm_program(http: Http, path: Path, cluster: FakeBackend) -> None:
    await http.ask("POST", "/services/create", web_spec())
    assert await swarm(path, "service", "exec", "web", "ls") == (
        1,
        b"",
        b"service web has no running task: see swarm service ps web\n",
    )
    cluster.run_tasks("web", 2)
    assert await swarm(path, "service", "exec", "-i", "web", "cat", stdin=b"in\n") == (0, b"in\n", b"")
    command = ("service", "exec", "-u", "7", "-e", "FROM_HERE", "web", "--", "warn", "-x")
    assert await swarm(path, *command) == (3, b"", b"careful\n")
    given = cluster.exec_containers.processes[1].config
    assert (given.user, given.env, given.args) == ("7", ("FROM_HERE=yes",), ("warn", "-x"))
    code, _, err = await swarm(path, "service", "exec", "web", "nope")
    assert (code, b"executable file not found" in err) == (127, True)
    assert (await swarm(path, "service", "exec", "-it", "web", "cat"))[
        2
    ] == b"the input device is not a TTY\n"
    assert (await swarm(path, "service", "exec", "other", "ls"))[2] == b"no such task or service: other\n"
    assert (await swarm(path, "service", "exec", "-d", "web", "exit", "0"))[0] == 0


async def test_ctrl_c_takes_the_command_with_it(http: Http, path: Path, cluster: FakeBackend) -> None:
    await http.ask("POST", "/services/create", web_spec())
    cluster.run_tasks("web", 1)
    # Whoever runs the tests in the background has it ignored, and so has every child.
    heeding = ("env", "--default-signal=INT")
    process = await asyncio.create_subprocess_exec(
        *(*heeding, sys.executable, "-m", "swarm.cli.main", "service", "exec", "-i", "web", "sleep"),
        env=os.environ | {"SWARM_HOST": f"unix://{path}"},
        stdin=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        await cluster.exec_containers.started.wait()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        await cluster.exec_containers.processes[0].closed.wait()


async def test_a_terminal_of_the_user_s(http: Http, path: Path, cluster: FakeBackend) -> None:
    await http.ask("POST", "/services/create", web_spec())
    cluster.run_tasks("web", 1)
    ours, theirs = os.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "swarm.cli.main", "service", "exec", "-it", "web", "cat"),
        env=os.environ | {"SWARM_HOST": f"unix://{path}"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )

    def shown(end: bytes) -> bytes:
        found = b""
        while not found.endswith(end):
            found += os.read(ours, 1)
        return found

    async with asyncio.timeout(30):
        assert await asyncio.to_thread(shown, b"80x24\n") == b"80x24\n"
        assert (
            not termios.tcgetattr(theirs)[3] & termios.ECHO
        )  # raw: what is typed is echoed by the other side
        termios.tcsetwinsize(ours, (30, 100))
        process.send_signal(signal.SIGWINCH)
        assert await asyncio.to_thread(shown, b"100x30\n") == b"100x30\n"
        os.write(ours, b"\x03")
        assert await asyncio.to_thread(shown, b"\x03") == b"\x03"
        cluster.exec_containers.processes[0].kill()
        assert await process.wait() == 137
        assert termios.tcgetattr(theirs)[3] & termios.ECHO
    os.close(ours)
    os.close(theirs)
