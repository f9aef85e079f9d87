"""Programs run in real containers: streams, terminals, exit codes, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarm.base.errors import FailedPrecondition, Fatal, InvalidArgument, NotFound
from swarm.worker.runtime.exec_spec import ExecConfig
from tests.integration.runtime_host import (
    descriptors,
    here,
    host,
    is_alive,
    layer,
    run_again_without_hybrid_cgroups,
    where_hybrid,
)

__all__ = ["host", "layer"]  # fixtures

pytestmark = pytest.mark.root


@where_hybrid
def test_the_module_without_hybrid_cgroups():
    run_again_without_hybrid_cgroups(__file__)


@pytest.fixture
async def sleeper(host, layer):
    """A running container of its own user; its descriptors and children are counted before and after."""
    container_id = await host.launch(layer, "sleep", "1000", user="web")
    before = descriptors()
    yield container_id
    assert descriptors() == before
    assert list((host.directory / "run" / "containers" / container_id).glob("exec.*")) == []


@asynccontextmanager
async def running(host, container_id, *args, **more):
    config = ExecConfig(args=args, **more)
    async with asyncio.timeout(20), host.containers.exec(container_id, config) as program:
        yield program


async def output(program):
    found = {"stdout": b"", "stderr": b""}
    while (chunk := await program.read()) is not None:
        found[chunk.stream] += chunk.data
    return found["stdout"].decode(), found["stderr"].decode()


async def run(host, container_id, *args, **more):
    async with running(host, container_id, *args, **more) as program:
        out, err = await output(program)
        return out, err, await program.wait()


@here
async def test_streams_and_exit_codes(host, sleeper):
    assert await run(host, sleeper, "sh", "-c", "echo out; echo err >&2; exit 3") == ("out\n", "err\n", 3)
    assert (await run(host, sleeper, "sh", "-c", "kill -9 $$"))[2] == 137
    out, _, _ = await run(host, sleeper, "seq", "100000")
    assert out.count("\n") == 100_000


@here
async def test_user_variables_and_directory(host, sleeper):
    script = "id -u; id -g; echo $HOME $A $PATH; pwd"
    assert (await run(host, sleeper, "sh", "-c", script))[0] == "101\n102\n/srv /bin\n/\n"
    more = {"user": "0:log", "env": ("A=1", "PATH=/bin:/x"), "cwd": "/tmp"}
    assert (await run(host, sleeper, "sh", "-c", script, **more))[0] == "0\n104\n/root 1 /bin:/x\n/tmp\n"
    capabilities = "grep -E 'CapEff|CapInh|CapAmb' /proc/self/status"
    assert "CapEff:\t0000000000000000" in (await run(host, sleeper, "sh", "-c", capabilities))[0]
    as_root = (await run(host, sleeper, "sh", "-c", capabilities, user="root"))[0]
    assert "CapInh:\t0000000000000000" in as_root
    assert "CapEff:\t0000000000000000" not in as_root


@here
async def test_input_until_its_end(host, sleeper):
    async with running(host, sleeper, "cat", stdin=True) as program:
        sent = os.urandom(300_000).hex().encode()

        async def feed():
            await program.write(sent)
            program.close_input()

        async with asyncio.TaskGroup() as group:
            group.create_task(feed())
            out, _ = await output(program)
        assert out.encode() == sent
        assert await program.wait() == 0
    assert await run(host, sleeper, "cat") == ("", "", 0)


@here
async def test_writing_to_a_program_that_has_closed_its_input(host, sleeper):
    async with running(host, sleeper, "sh", "-c", "exec <&-; echo closed; sleep 0.2", stdin=True) as program:
        assert (await program.read()).data == b"closed\n"
        await program.write(b"x" * 100_000)
        await program.write(b"more")
        assert await program.wait() == 0


@here
async def test_a_terminal_has_a_size_and_one_stream(host, sleeper):
    script = "read x; stty size; tty; echo err >&2; exit 4"
    async with running(host, sleeper, "sh", "-c", script, tty=True, stdin=True) as program:
        program.resize(33, 101)
        await program.write(b"\n")
        out, err = await output(program)
        assert out.split() == ["33", "101", "/dev/pts/0", "err"]
        assert err == ""
        assert await program.wait() == 4


@here
async def test_what_cannot_be_run_says_so(host, layer, sleeper):
    for tty in (False, True):
        with pytest.raises(Fatal, match='exec: "nope": executable file not found') as caught:
            await run(host, sleeper, "nope", tty=tty)
        assert caught.value.exit_code == 127
    with pytest.raises(Fatal, match="permission denied") as caught:
        await run(host, sleeper, "/etc/passwd")
    assert caught.value.exit_code == 126
    with pytest.raises(Fatal, match="unable to find user ghost"):
        await run(host, sleeper, "true", user="ghost")
    with pytest.raises(InvalidArgument, match="No exec command"):
        await run(host, sleeper)
    with pytest.raises(InvalidArgument, match="absolute path"):
        await run(host, sleeper, "true", cwd="tmp")
    with pytest.raises(NotFound):
        await run(host, "0" * 25, "true")
    created = host.config(layer, "sleep", "100")
    await host.containers.create(created)
    with pytest.raises(FailedPrecondition, match="is not running"):
        await run(host, created.id, "true")
    await host.containers.remove(created.id)


@here
async def test_leaving_ends_the_program_and_its_children(host, sleeper):
    for tty in (False, True):
        script = "sleep 2345 & echo $$; sleep 2345"
        async with running(host, sleeper, "sh", "-c", script, tty=tty) as program:
            assert await program.read() is not None
            pids = [program.pid, *children(program.pid)]
            assert len(pids) >= 2
        async with asyncio.timeout(5):
            while any(map(is_alive, pids)):  # noqa: ASYNC110 - who is being killed by the kernel tells nobody
                await asyncio.sleep(0.01)


@here
async def test_a_reader_is_woken_when_the_program_is_killed(host, sleeper):
    async with running(host, sleeper, "sleep", "1000") as program:
        reading = asyncio.ensure_future(program.read())
        await asyncio.sleep(0)
        program.kill()
        assert await reading is None
        assert await program.wait() == 137


@here
async def test_a_program_does_not_outlive_its_container(host, layer):
    container_id = await host.launch(layer, "sleep", "1000")
    async with running(host, container_id, "sleep", "1000") as program:
        await host.containers.remove(container_id)
        assert await program.read() is None
        assert await program.wait() == 137


@here
async def test_children_that_keep_the_outputs_open_are_not_waited_for(host, sleeper):
    out, _, code = await run(host, sleeper, "sh", "-c", "sleep 5 & echo done")
    assert (out, code) == ("done\n", 0)


@here
async def test_a_slow_reader_holds_the_program_up(host, sleeper):
    async with running(host, sleeper, "sh", "-c", "while true; do seq 1000; done") as program:
        taken = [await program.read() for _ in range(100)]
        assert all(chunk is not None for chunk in taken)


@here
async def test_many_at_once_leave_nothing(host, sleeper):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(host, sleeper, "echo", str(number))) for number in range(40)]
    assert [task.result()[0] for task in tasks] == [f"{number}\n" for number in range(40)]


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
