"""Commands in running containers: create, start, resize, inspect. On a manager, containers of every node.

In: Docker's requests; a container is named as `docker ps` shows it, or as a task. Out: a connection on which
the command's input and output go to and fro, framed unless it has a terminal.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from aiohttp import web

from swarm.api.backend import ExecRequest, ExecState, LogStream
from swarm.api.call import Call, Route, answer, done
from swarm.api.hijack import Answered, Duplex, Takeover
from swarm.api.logs import MULTIPLEXED, RAW
from swarm.api.routes.containers import find_anywhere
from swarm.base.aio import first_of
from swarm.base.errors import Fatal, InvalidArgument, SwarmError, Unsupported
from swarm.model.docker_json import Json
from swarm.model.execs import MAX_PIECE_BYTES, ExecConfig, ExecInput, ExecOutput, TerminalSize
from swarm.model.objects import Task
from swarm.model.view import find

_STREAM_NUMBER = {LogStream.STDOUT: 1, LogStream.STDERR: 2}
_WAITING_INPUTS = 16
_TYPED_SINCE = (1, 42)


class Inputs:
    """What goes to the commands that are attended here: from their connections, and from `resize`."""

    def __init__(self) -> None:
        self._queues: dict[str, asyncio.Queue[ExecInput]] = {}

    def open(self, exec_id: str) -> asyncio.Queue[ExecInput]:
        return self._queues.setdefault(exec_id, asyncio.Queue(_WAITING_INPUTS))

    def close(self, exec_id: str) -> None:
        self._queues.pop(exec_id, None)

    def resize(self, exec_id: str, size: TerminalSize) -> None:
        """Of a command that runs; a size that finds no room is followed by another."""
        queue = self._queues.get(exec_id)
        if queue is not None and not queue.full():
            queue.put_nowait(ExecInput(size=size))


_inputs = Inputs()


async def create_in_container(call: Call) -> web.Response:
    return await _create(call, find_anywhere(call, call.params["id"]).id)


async def create_in_task(call: Call) -> web.Response:
    return await _create(call, find(call.control().view, Task, call.params["id"]).id)


async def _create(call: Call, task_id: str) -> web.Response:
    request = read_request(task_id, await call.body())
    return answer({"Id": call.backend.execs.create(request)}, 201)


def read_request(task_id: str, body: Json) -> ExecRequest:
    """Raises: InvalidArgument, Unsupported."""
    for field in ("Privileged", "DetachKeys"):
        if body.get(field):
            raise Unsupported(f"{field} of a command in a container is not supported by this version")
    streams = frozenset(s for s in LogStream if body.get(f"Attach{s.value.capitalize()}", False))
    args = _texts(body, "Cmd")
    if not args:
        raise InvalidArgument("No exec command specified")
    config = ExecConfig(
        args=args,
        env=_texts(body, "Env"),
        user=str(body.get("User") or ""),
        working_dir=str(body.get("WorkingDir") or ""),
        tty=bool(body.get("Tty")),
        size=_size(body.get("ConsoleSize")),
        stdin=bool(body.get("AttachStdin")),
    )
    return ExecRequest(task_id=task_id, config=config, streams=streams)


def _texts(body: Json, field: str) -> tuple[str, ...]:
    found = body.get(field) or []
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise InvalidArgument(f"invalid {field}: expected a list of texts")
    return tuple(found)


def _size(value: object) -> TerminalSize | None:
    if not value:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(n, int) for n in value):
        raise InvalidArgument("invalid ConsoleSize: expected [height, width]")
    return TerminalSize(height=max(0, value[0]), width=max(0, value[1]))


async def inspect(call: Call) -> web.Response:
    return answer(_state_json(call.backend.execs.get(call.params["id"])))


def _state_json(state: ExecState) -> Json:
    config = state.request.config
    return {
        "ID": state.id,
        "Running": state.is_running,
        "ExitCode": state.exit_code,
        "ProcessConfig": {
            "tty": config.tty,
            "entrypoint": config.args[0],
            "arguments": list(config.args[1:]),
            "privileged": False,
            "user": config.user,
        },
        "OpenStdin": config.stdin,
        "OpenStderr": LogStream.STDERR in state.request.streams,
        "OpenStdout": LogStream.STDOUT in state.request.streams,
        "CanRemove": False,
        "ContainerID": state.request.task_id,
        "DetachKeys": "",
        "Pid": 0,
    }


async def resize(call: Call) -> web.Response:
    call.backend.execs.get(call.params["id"])
    height, width = call.text("h"), call.text("w")
    if not (height.isdecimal() and width.isdecimal()):
        raise InvalidArgument(f"invalid size {height!r} x {width!r}: h and w are numbers")
    _inputs.resize(call.params["id"], TerminalSize(height=int(height), width=int(width)))
    return done()


async def start(call: Call) -> web.StreamResponse:
    with Takeover(call.request) as takeover:
        return await _start(call, takeover)


async def _start(call: Call, takeover: Takeover) -> web.StreamResponse:
    body = _object(await takeover.body())
    state = call.backend.execs.get(call.params["id"])
    request = state.request
    if body.get("Detach"):
        await call.backend.execs.start_detached(state.id)
        return done()
    if state.is_started:
        raise InvalidArgument(f"Error: Exec command {state.id} has already run")
    size = _size(body.get("ConsoleSize")) or request.config.size
    config = replace(request.config, size=size)
    is_typed = not config.tty and call.version >= _TYPED_SINCE
    queue = _inputs.open(state.id)
    try:
        async with takeover.taken(MULTIPLEXED if is_typed else RAW) as duplex:
            outputs = _outputs(call, state, _Attended(config, queue, duplex))
            await first_of(outputs, _left(duplex), _stdin(duplex, queue, config))
    finally:
        _inputs.close(state.id)
    return Answered()


def _object(body: bytes) -> Json:
    try:
        found = json.loads(body) if body.strip() else {}
    except ValueError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidArgument("invalid JSON: expected an object")
    return found


@dataclass(frozen=True, slots=True)
class _Attended:
    config: ExecConfig
    inputs: asyncio.Queue[ExecInput]
    duplex: Duplex


async def _outputs(call: Call, state: ExecState, attended: _Attended) -> None:
    """Run the command, and write what it writes; an error is told as its last words."""
    writer, streams = attended.duplex.writer, state.request.streams
    framing = _raw if attended.config.tty else _framed
    running = call.backend.execs.start(state.id, attended.config, _read(attended.inputs))
    try:
        async with running as outputs:
            async for output in outputs:
                if framed := framing(output, streams):
                    writer.write(framed)
                    await writer.drain()
    except SwarmError as error:
        writer.write(framing(ExecOutput(stderr=_last_words(error)), frozenset(LogStream)))
    except ConnectionError:
        return


def _last_words(error: SwarmError) -> bytes:
    if isinstance(error, Fatal):
        return f"OCI runtime exec failed: {error}\r\n".encode()
    return f"{error}\r\n".encode()


def _framed(output: ExecOutput, streams: frozenset[LogStream]) -> bytes:
    found = b""
    for stream, data in ((LogStream.STDOUT, output.stdout), (LogStream.STDERR, output.stderr)):
        if data and stream in streams:
            found += struct.pack(">BxxxL", _STREAM_NUMBER[stream], len(data)) + data
    return found


def _raw(output: ExecOutput, _: frozenset[LogStream]) -> bytes:
    return output.stdout + output.stderr


async def _stdin(duplex: Duplex, queue: asyncio.Queue[ExecInput], config: ExecConfig) -> None:
    """The client's input; its end is not the command's. Never returns."""
    if config.stdin:
        try:
            while piece := await duplex.reader.read(MAX_PIECE_BYTES):
                await queue.put(ExecInput(stdin=piece))
        except ConnectionError:
            pass  # it has gone: that is noticed elsewhere
        await queue.put(ExecInput(is_stdin_end=True))
    await asyncio.Event().wait()


async def _left(duplex: Duplex) -> None:
    await duplex.gone.wait()


async def _read(queue: asyncio.Queue[ExecInput]) -> AsyncIterator[ExecInput]:
    while True:
        yield await queue.get()


ROUTES = (
    Route("POST", "/containers/{id}/exec", create_in_container),
    Route("POST", "/tasks/{id}/exec", create_in_task),
    Route("POST", "/exec/{id}/start", start),
    Route("POST", "/exec/{id}/resize", resize),
    Route("GET", "/exec/{id}/json", inspect),
)
