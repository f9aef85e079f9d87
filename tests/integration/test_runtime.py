"""Real containers: conmon, crun, overlayfs, cgroups."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest

from swarm.base.clock import SystemClock
from swarm.base.errors import AlreadyExists, Fatal, NotFound
from swarm.base.ids import new_id
from swarm.model.log_driver import LogPolicy
from swarm.model.types import BindOptions, Mount, MountType, Resources, TmpfsOptions
from swarm.worker.logs import LogRotator, read
from swarm.worker.runtime import cgroups
from swarm.worker.runtime.config import ContainerConfig, DeliveredFile
from swarm.worker.runtime.status import ContainerState
from tests.integration.runtime_host import (
    SHORT,
    descriptors,
    here,
    host,
    is_alive,
    layer,
    line_of,
    run_again_without_hybrid_cgroups,
    where_hybrid,
)

__all__ = ["host", "layer"]  # fixtures

pytestmark = pytest.mark.root


@where_hybrid
def test_the_module_without_hybrid_cgroups():
    run_again_without_hybrid_cgroups(__file__)


@here
async def test_a_container_runs_and_tells_its_exit_code(host, layer):
    status, lines = await host.run(layer, "echo out; echo err >&2; exit 3")
    assert (status.code, status.oom_killed, status.error) == (3, False, "")
    assert sorted(lines) == ["err", "out"]
    assert status.finished_at is not None


@here
async def test_the_baseline_of_isolation(host, layer):
    script = """grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status; cat /proc/interrupts | grep -c . ;
        ls /sys/firmware; echo x > /proc/sys/kernel/hostname; mount -t tmpfs x /tmp; unshare -U true;
        touch /sys/fs/cgroup/memory/x; ls /proc/1/fd; true"""
    for _ in range(2):
        # The second container gets the seccomp filter that the first one's start compiled.
        _, lines = await host.run(layer, script, no_new_privileges=True)
        assert "CapInh:\t0000000000000000" in lines
        assert "CapEff:\t00000000a80425fb" in lines
        assert "CapAmb:\t0000000000000000" in lines
        assert "NoNewPrivs:\t1" in lines
        assert "Seccomp:\t2" in lines
        text = "\n".join(lines)
        assert "can't create /proc/sys/kernel/hostname" in text
        assert "mount: permission denied" in text
        assert "unshare: unshare" in text.replace("unshare(0x10000000)", "unshare")
        # No line of /proc/interrupts, and no descriptor besides the three.
        assert [line for line in lines if line.isdecimal()] == ["0", "0", "1", "2"]


@here
async def test_user_directory_names_and_files(host, layer):
    _, lines = await host.run(
        layer,
        "id -u; id -g; id -G; echo $HOME; pwd; cat /etc/hostname; cat /etc/resolv.conf; grep web2 /etc/hosts",
        user="web",
        cwd="/made/for/me",
        hostname="box",
        hosts=(("10.1.2.3", "web2"),),
        nameservers=("127.0.0.11",),
    )
    assert lines[:6] == ["101", "102", "102 104", "/srv", "/made/for/me", "box"]
    assert "nameserver 127.0.0.11" in lines
    assert lines[-1] == "10.1.2.3\tweb2"


@here
@pytest.mark.parametrize(
    ("args", "message", "code"),
    [
        (("/nope",), 'exec: "/nope": executable file not found in $PATH', 127),
        (("nope",), 'exec: "nope": executable file not found in $PATH', 127),
        (("/etc/passwd",), 'exec: "/etc/passwd": permission denied', 126),
        (("/etc",), 'exec: "/etc": permission denied', 126),
    ],
)
async def test_a_command_that_cannot_run_is_fatal_in_dockers_words(host, layer, args, message, code):
    with pytest.raises(Fatal) as caught:
        await host.launch(layer, *args)
    assert str(caught.value) == message
    assert caught.value.exit_code == code
    assert host.traces() == []


@here
async def test_wrong_wishes_are_fatal_and_leave_nothing(host, layer):
    missing = Mount(type=MountType.BIND, source="/no/such/place", target="/x")
    for more, message in (
        ({"user": "nobody"}, "unable to find user nobody"),
        ({"mounts": (missing,)}, "bind source path does not exist: /no/such/place"),
        ({"mounts": (Mount(source="a/b", target="/x"),)}, "invalid characters for a local volume name"),
        ({"mounts": (Mount(source="vol", target="/proc/x"),)}, "invalid mount target"),
        ({"mounts": (Mount(source="vol", target="relative"),)}, "must be an absolute path"),
    ):
        with pytest.raises(Fatal, match=message):
            await host.launch(layer, "true", **more)
    assert host.traces() == []


@here
@pytest.mark.parametrize("name", ["dev", "proc", "sys", "etc"])
async def test_an_image_that_links_its_system_directories_elsewhere_is_refused(host, layer, tmp_path, name):
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / name).symlink_to("/tmp")
    config = ContainerConfig(id=new_id(), lower_dirs=(evil, layer), args=("/bin/true",))
    with pytest.raises(Fatal, match=f"/{name} is not a directory"):
        await host.containers.create(config)


@here
async def test_mounts(host, layer, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("bound\n")
    mounts = (
        Mount(type=MountType.BIND, source=str(source), target="/bound", read_only=True),
        Mount(
            type=MountType.BIND,
            source=str(tmp_path / "made"),
            target="/made",
            bind_options=BindOptions(create_mountpoint=True),
        ),
        Mount(source="named", target="/data"),
        Mount(target="/anonymous"),
        Mount(
            type=MountType.TMPFS, target="/ram", tmpfs_options=TmpfsOptions(size_bytes=1 << 20, mode=0o700)
        ),
    )
    script = """cat /bound/file /data/seed; touch /bound/x || echo read-only; touch /made/x /data/x;
        touch /anonymous/x /implied/x; mount | grep ' /ram '"""
    _, lines = await host.run(layer, script, mounts=mounts, image_volumes=("/data", "/implied"))
    assert lines[:2] == ["bound", "seed"]
    assert "read-only" in lines
    assert any("size=1024k,mode=700" in line for line in lines)
    assert (tmp_path / "made" / "x").exists()
    assert [volume.name for volume in host.volumes.list()] == ["named"]
    assert sorted(entry.name for entry in host.volumes.get("named").path.iterdir()) == ["seed", "x"]


FILES = (
    DeliveredFile(target="/run/secrets/a/b", data=b"one\n", uid=2000, gid=3000, mode=0o400),
    DeliveredFile(target="/etc/passwd", data=b"two\n"),
    DeliveredFile(target="/ram/x", data=b"three\n"),
    DeliveredFile(target="/large", data=bytes(500 * 1024 - 1), mode=0o4755),
)


@here
async def test_delivered_files(host, layer):
    script = """stat -c '%u:%g %a %s' /run/secrets/a/b /large; cat /run/secrets/a/b /etc/passwd /ram/x
        touch /etc/passwd || echo read-only; grep -c ' /large .*ro,nosuid,nodev,noexec' /proc/mounts"""
    ram = Mount(type=MountType.TMPFS, target="/ram")
    _, lines = await host.run(layer, script, files=FILES, mounts=(ram,), read_only=True)
    assert lines[:5] == ["2000:3000 400 4", "0:0 4755 511999", "one", "two", "three"]
    assert {"read-only", "1"} < set(lines[5:])  # what touch says comes by another pipe
    assert host.traces() == []


@here
async def test_delivered_files_lie_in_memory_only_and_go_when_the_container_has_ended(host, layer):
    container_id = await host.launch(layer, "sleep", "1000", files=FILES)
    (memory,) = [line for line in host.traces() if "/delivered tmpfs " in line]
    assert {"mode=700", "nosuid", "nodev", "noexec"} <= set(memory.split()[3].split(","))
    bundle = host.directory / "state" / "containers" / container_id
    assert all(b"three" not in f.read_bytes() for f in (bundle / "upper").rglob("*") if f.is_file())
    host.restart()
    await host.containers.adopt(known={container_id})
    assert any("/delivered tmpfs " in line for line in host.traces())
    await host.containers.stop(container_id, 15, SHORT)
    await host.containers.take_back(container_id)
    await host.containers.take_back(container_id)
    assert not any("/delivered" in line for line in host.traces())


@here
async def test_a_file_cannot_take_a_directorys_place(host, layer):
    config = host.config(layer, "/bin/true", files=(DeliveredFile(target="/etc", data=b"x"),))
    with pytest.raises(Fatal, match="cannot put a file at /etc: the image has a directory there"):
        await host.containers.create(config)
    assert host.traces() == []


@pytest.fixture
def submounted(tmp_path):
    """A folder with something mounted below it."""
    below = tmp_path / "source" / "below"
    below.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "below", str(below)], check=True, timeout=10)
    yield below.parent
    subprocess.run(["umount", "-l", str(below)], check=True, timeout=10)


@here
async def test_read_only_holds_for_what_is_mounted_below(host, layer, submounted):
    mounts = (Mount(type=MountType.BIND, source=str(submounted), target="/bound", read_only=True),)
    _, lines = await host.run(layer, "touch /bound/below/x || echo read-only", mounts=mounts)
    assert "read-only" in lines


@here
async def test_limits_bite(host, layer):
    status, _ = await host.run(
        layer, 'x=1; while true; do x="$x$x"; done', limits=Resources(memory_bytes=16 << 20)
    )
    assert (status.code, status.oom_killed) == (137, True)
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; echo done"
    _, lines = await host.run(layer, script, limits=Resources(pids=6))
    assert any("can't fork" in line for line in lines)


@here
async def test_a_childs_death_by_memory_is_not_the_containers(host, layer):
    script = """sh -c 'x=1; while true; do x="$x$x"; done'; exit 0"""
    status, _ = await host.run(layer, script, limits=Resources(memory_bytes=16 << 20))
    assert (status.code, status.oom_killed) == (0, False)


@here
async def test_the_processor_is_shared_out(host, layer):
    container_id = await host.launch(
        layer, "sh", "-c", "echo go; while true; do :; done", limits=Resources(nano_cpus=200_000_000)
    )
    await line_of(host, container_id, "go")
    before = host.containers.stats(container_id)
    started = SystemClock().monotonic()
    await host.containers.stop(container_id, signal.SIGCONT, timedelta(seconds=1))
    # The cgroup outlives the process, so its account can still be read.
    used = cgroups.read_stats(container_id).cpu_usage_ns - before.cpu_usage_ns
    assert 0 < used / 1e9 <= 0.35 * (SystemClock().monotonic() - started)
    assert before.pids == 1
    assert before.pids_limit == 4096


GENTLE = "trap 'exit 7' TERM; echo ready; while true; do sleep 0.05; done"
FIRM = "trap '' TERM; echo ready; while true; do sleep 0.05; done"


@here
async def test_stop_is_gentle_then_firm(host, layer):
    gentle = await host.launch(layer, "sh", "-c", GENTLE)
    await line_of(host, gentle, "ready")
    assert (await host.containers.stop(gentle, signal.SIGTERM, timedelta(seconds=20))).code == 7
    firm = await host.launch(layer, "sh", "-c", FIRM)
    await line_of(host, firm, "ready")
    assert (await host.containers.stop(firm, signal.SIGTERM, SHORT)).code == 137
    # Again is fine, and what has ended cannot be signalled.
    assert (await host.containers.stop(firm, signal.SIGTERM, SHORT)).code == 137
    with pytest.raises(NotFound):
        host.containers.signal(firm, signal.SIGTERM)
    unstarted = host.config(layer, "sleep", "100")
    await host.containers.create(unstarted)
    assert (await host.containers.stop(unstarted.id, signal.SIGTERM, timedelta(seconds=20))).code == 137


@here
async def test_create_start_and_remove_may_be_repeated(host, layer):
    config = host.config(layer, "sleep", "100")
    await host.containers.create(config)
    await host.containers.create(config)
    await host.containers.start(config.id)
    await host.containers.start(config.id)
    pid = host.containers.pid(config.id)
    await host.containers.create(config)
    assert host.containers.pid(config.id) == pid
    waiters = [asyncio.ensure_future(host.containers.wait(config.id)) for _ in range(3)]
    await host.containers.stop(config.id, signal.SIGKILL, SHORT)
    assert {(await waiter).code for waiter in waiters} == {137}
    with pytest.raises(AlreadyExists):
        await host.containers.create(config)
    await host.containers.remove(config.id)
    await host.containers.remove(config.id)
    with pytest.raises(NotFound):
        await host.containers.wait(config.id)


@here
async def test_an_ended_container_holds_no_descriptor(host, layer):
    before = descriptors()
    container_id = await host.launch(layer, "echo", "hello")
    await host.containers.wait(container_id)
    host.containers.let_go(container_id)
    assert descriptors() == before
    assert host.containers.has_log_ended(container_id)
    assert host.containers.pid(container_id) is None
    assert descriptors() == before
    await host.containers.remove(container_id)


@here
async def test_a_tree_without_end_goes_with_its_container(host, layer):
    nest = "for i in 1 2 3 4 5 6 7 8 9; do mkdir -p $(seq 1 200 | while read n; do printf d/; done); "
    nest += "cd $(seq 1 200 | while read n; do printf d/; done); done; echo done"
    _, lines = await host.run(layer, nest, cwd="/tmp")
    assert lines == ["done"]


@here
async def test_containers_are_adopted_after_a_restart(host, layer):
    running = await host.launch(layer, "sleep", "100")
    pid = host.containers.pid(running)
    ended = await host.launch(layer, "sh", "-c", "exit 5")
    await host.containers.wait(ended)
    ends_unseen = await host.launch(
        layer, "sh", "-c", "echo ready; while [ ! -e /go ]; do sleep 0.05; done; exit 6"
    )
    created = host.config(layer, "sleep", "100")
    await host.containers.create(created)
    unknown = await host.launch(layer, "sleep", "100")
    unknown_pid = host.containers.pid(unknown)
    half = host.directory / "state" / "containers" / new_id()
    (half / "upper").mkdir(parents=True)
    rootfs = host.directory / "state" / "containers" / ends_unseen / "rootfs"
    host.containers.close()
    (rootfs / "go").touch()
    host.restart()
    known = (running, ended, ends_unseen, created.id, half.name)
    adopted = {item.id: item for item in await host.containers.adopt(known)}
    assert adopted.keys() == {running, ended, ends_unseen, created.id}
    assert (adopted[running].state, adopted[running].pid) == (ContainerState.RUNNING, pid)
    assert (adopted[ended].state, adopted[ended].exit_status.code) == (ContainerState.EXITED, 5)
    assert (await host.containers.wait(ends_unseen)).code == 6
    assert adopted[created.id].state is ContainerState.CREATED
    await host.containers.start(created.id)
    assert not half.exists()
    assert not is_alive(unknown_pid)


@here
async def test_a_container_whose_supervisor_is_killed_is_killed(host, layer):
    lost = await host.launch(layer, "sleep", "100")
    pid = host.containers.pid(lost)
    os.kill(int((host.directory / "run" / "containers" / lost / "conmon.pid").read_text()), signal.SIGKILL)
    async with asyncio.timeout(5):
        status = await host.containers.wait(lost)
    assert (status.code, status.error) == (137, "supervisor lost")
    assert not is_alive(pid)


@here
async def test_a_power_cut_is_told_from_a_lost_supervisor(host, layer):
    container_id = await host.launch(layer, "sh", "-c", "exit 0")
    await host.containers.wait(container_id)
    host.containers.close()
    shutil.rmtree(host.directory / "run" / "containers")
    host.restart()
    (found,) = await host.containers.adopt((container_id,))
    assert found.exit_status.error == "the host restarted while the container ran"


@here
@pytest.mark.parametrize(("elsewhere", "survives"), [(("unshare", "--pid", "--fork"), True), ((), False)])
async def test_only_supervisors_of_this_daemon_are_strays(host, elsewhere, survives):
    """A lab's hosts have daemons with directories of the same names, in PID namespaces of their own."""
    waits, exits = "import time; print(1, flush=True); time.sleep(60)", host.directory / "run" / "exits"
    run = f"import os, sys; os.execv(sys.executable, ['conmon', '-c', {waits!r}, {str(exits)!r}])"
    process = await asyncio.create_subprocess_exec(
        *elsewhere, sys.executable, "-c", run, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        async with asyncio.timeout(10):
            await process.stdout.readline()
        await host.containers.adopt(())
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 0.5 if survives else 10)
        assert (process.returncode is None) is survives
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@here
async def test_a_cancelled_create_leaves_nothing(host, layer):
    for delay_s in (0.0, 0.002, 0.006, 0.012, 0.02):
        config = host.config(layer, "sleep", "100")
        creating = asyncio.ensure_future(host.containers.create(config))
        await asyncio.wait([creating], timeout=delay_s)
        creating.cancel()
        await asyncio.wait([creating])
        await host.containers.remove(config.id)
        assert host.traces() == []


@here
async def test_no_line_is_lost_while_the_log_rotates(host, layer):
    count = 100_000
    script = "i=0; while [ $i -lt 100 ]; do seq $((i*1000+1)) $((i*1000+1000)); sleep 0.01; i=$((i+1)); done"
    policy = LogPolicy(max_bytes=300_000, max_files=100)
    container_id = await host.launch(layer, "sh", "-c", script, log=policy)
    rotator = LogRotator(host.containers.directory, SystemClock())
    path = host.containers.log_path(container_id)

    @asynccontextmanager
    async def rotating():
        async with asyncio.TaskGroup() as group:
            task = group.create_task(keep_rotating())
            yield
            task.cancel()

    async def keep_rotating():
        while True:
            rotator.rotate_all()
            await asyncio.sleep(0.002)

    expected = [str(number) for number in range(1, count + 1)]
    containers = host.containers
    async with asyncio.timeout(60), rotating():
        followed = [
            line.data.decode()
            async for line in read(
                path, follow=True, has_ended=lambda: containers.has_log_ended(container_id)
            )
        ]
    assert followed == expected
    assert len(list(path.parent.glob("log*"))) > 5
    assert [line.data.decode() async for line in read(path)] == expected
    assert [line.data.decode() async for line in read(path, tail=12_345)] == expected[-12_345:]
