"""Every option of a container, seen from inside a real one."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest

from swarm.base.errors import Fatal
from swarm.model.container import Driver, SeccompOpts, Ulimit
from swarm.model.container_rules import CAPABILITIES, Device
from swarm.model.log_driver import LogPolicy
from swarm.model.types import BindOptions, Mount, MountType, Resources, VolumeOptions
from swarm.worker.logs import read
from swarm.worker.runtime import cgroups
from swarm.worker.runtime.host import detect_facts
from tests.integration.runtime_host import (
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
CHOWN, NET_ADMIN, MKNOD = 1 << 0, 1 << 12, 1 << 27


@where_hybrid
def test_the_module_without_hybrid_cgroups():
    run_again_without_hybrid_cgroups(__file__)


async def lines_of(host, layer, script, **options):
    status, lines = await host.run(layer, script, **options)
    return [*lines, f"exit {status.code}"]


async def capabilities(host, layer, **options):
    lines = await lines_of(host, layer, "grep CapBnd /proc/self/status", **options)
    return int(lines[0].split()[1], 16)


async def refused(host, layer, match, **options):
    config = host.config(layer, "true", **options)
    with pytest.raises(Fatal, match=match):
        await host.containers.create(config)


@here
async def test_groups_go_by_name_and_number(host, layer):
    lines = await lines_of(host, layer, "id -u; id -G", user="web", groups=("log", "4711"))
    assert lines == ["101", "102 104 4711", "exit 0"]
    await refused(host, layer, "unable to find group nope", groups=("nope",))


@here
async def test_a_terminal_is_one(host, layer):
    container_id = await host.launch(layer, "sh", "-c", "tty; test -t 1 && echo both; echo $TERM", tty=True)
    async with asyncio.timeout(20):
        await host.containers.wait(container_id)
    lines = [line.data.decode() async for line in read(host.containers.log_path(container_id))]
    assert [line.strip() for line in lines] == ["/dev/pts/0", "both", "xterm"]
    assert await lines_of(host, layer, "tty") == ["not a tty", "exit 1"]


@here
async def test_an_open_input_is_waited_for_and_a_closed_one_is_not(host, layer):
    assert await lines_of(host, layer, "cat; echo end") == ["end", "exit 0"]
    container_id = await host.launch(layer, "cat", open_stdin=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await host.containers.wait(container_id)


@here
async def test_a_read_only_root_has_no_writable_file_but_on_mounts(host, layer):
    script = "touch /x; echo a >> /etc/hosts; touch /dev/shm/y && echo shm; touch /t/z && echo tmpfs"
    mounts = (Mount(type=MountType.TMPFS, target="/t"),)
    lines = await lines_of(host, layer, script, read_only=True, mounts=mounts)
    assert [line for line in lines if "Read-only" not in line] == ["shm", "tmpfs", "exit 0"]
    assert sum("Read-only" in line for line in lines) == 2


@here
async def test_names_and_name_servers_are_as_asked(host, layer):
    options = {
        "hosts": (("10.9.8.7", "db"), ("10.9.8.7", "db.local")),
        "nameservers": ("10.1.1.1", "10.1.1.2"),
        "dns_search": ("example.org",),
        "dns_options": ("ndots:3",),
    }
    lines = await lines_of(host, layer, "cat /etc/hosts /etc/resolv.conf", **options)
    assert "10.9.8.7\tdb.local" in lines
    assert lines[-5:-1] == [  # the whole of /etc/resolv.conf
        "search example.org",
        "nameserver 10.1.1.1",
        "nameserver 10.1.1.2",
        "options ndots:3",
    ]


@here
async def test_sysctls_are_the_containers_own(host, layer):
    before = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    sysctls = {
        "net.ipv4.ip_unprivileged_port_start": "81",
        "kernel.msgmax": "4096",
        "net/ipv4/ip_forward": "1",
    }
    script = "cd /proc/sys; cat net/ipv4/ip_unprivileged_port_start kernel/msgmax net/ipv4/ip_forward"
    assert await lines_of(host, layer, script, sysctls=sysctls) == ["81", "4096", "1", "exit 0"]
    assert Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text() == before


@here
async def test_capabilities_are_added_and_dropped(host, layer):
    default = await capabilities(host, layer)
    assert default & (CHOWN | MKNOD | NET_ADMIN) == CHOWN | MKNOD
    more = await capabilities(host, layer, capability_add=("CAP_NET_ADMIN",), capability_drop=("CAP_MKNOD",))
    assert more == (default | NET_ADMIN) & ~MKNOD
    assert await capabilities(host, layer, capability_drop=("ALL",), capability_add=("CAP_CHOWN",)) == CHOWN
    own = sum(1 << CAPABILITIES.index(name[4:]) for name in detect_facts().capabilities)
    but_one = await capabilities(host, layer, capability_add=("ALL",), capability_drop=("CAP_CHOWN",))
    assert but_one == own & ~CHOWN
    if not own >> 24 & 1:
        await refused(host, layer, "CAP_SYS_RESOURCE cannot be added", capability_add=("CAP_SYS_RESOURCE",))


@here
async def test_ulimits_and_oom_score(host, layer):
    ulimits = (Ulimit(name="nofile", soft=100, hard=200), Ulimit(name="core", soft=0, hard=0))
    script = "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj"
    lines = await lines_of(host, layer, script, ulimits=ulimits, oom_score_adj=500)
    assert lines == ["100", "200", "0", "500", "exit 0"]


@here
async def test_seccomp_is_default_off_or_the_users(host, layer):
    script = "grep Seccomp: /proc/self/status; mkdir /tmp/a && echo made"
    assert await lines_of(host, layer, script) == ["Seccomp:\t2", "made", "exit 0"]
    lines = await lines_of(host, layer, script, seccomp=SeccompOpts(mode="unconfined"))
    assert lines == ["Seccomp:\t0", "made", "exit 0"]
    denied = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    unmet = {"names": ["chdir"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_ADMIN"]}}
    profile = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [denied, unmet]}).encode()
    custom = SeccompOpts(mode="custom", profile=profile)
    lines = await lines_of(host, layer, f"exec 2>&1; {script}; cd /tmp && echo there", seccomp=custom)
    assert lines == [
        "Seccomp:\t2",
        "mkdir: can't create directory '/tmp/a': Operation not permitted",
        "there",
        "exit 0",
    ]
    # And the next container gets the default again.
    assert await lines_of(host, layer, script) == ["Seccomp:\t2", "made", "exit 0"]


@here
async def test_no_new_privileges(host, layer):
    lines = await lines_of(host, layer, "grep NoNewPrivs /proc/self/status", no_new_privileges=True)
    assert lines == ["NoNewPrivs:\t1", "exit 0"]


@here
async def test_swap_and_swappiness(host, layer):
    root = Path("/sys/fs/cgroup/memory")
    limits = Resources(memory_bytes=64 << 20)
    config = host.config(layer, "sleep", "100", limits=limits, swap_bytes=32 << 20, swappiness=10)
    if not root.exists():
        with pytest.raises(Fatal, match="memory-swappiness cannot be set"):
            await host.containers.create(config)
        return
    await host.containers.create(config)
    group = root / "swarm" / config.id
    assert (group / "memory.limit_in_bytes").read_text().strip() == str(64 << 20)
    assert (group / "memory.memsw.limit_in_bytes").read_text().strip() == str(96 << 20)
    assert (group / "memory.swappiness").read_text().strip() == "10"


@here
async def test_an_init_reaps_and_forwards(host, layer):
    if shutil.which("catatonit") is None:
        pytest.skip("catatonit is not installed")
    lines = await lines_of(host, layer, "cat /proc/1/comm; echo $$", init=True)
    assert lines[0] == "docker-init"
    assert lines[1] != "1"
    container_id = await host.launch(layer, "sh", "-c", "echo up; sleep 100", init=True)
    await line_of(host, container_id, "up")
    status = await host.containers.stop(container_id, 15, timedelta(seconds=10))
    assert status.code == 143
    status, _ = await host.run(layer, "exit 7", init=True)
    assert status.code == 7


@here
async def test_privileged_has_all_but_the_hosts_namespaces(host, layer):
    script = """grep -E 'Seccomp:' /proc/self/status; mount -t tmpfs x /tmp && echo mounted
        echo named > /proc/sys/kernel/domainname; ls -d /dev/kmsg /proc/interrupts"""
    lines = await lines_of(host, layer, script, privileged=True)
    assert lines[:2] == ["Seccomp:\t0", "mounted"]
    assert lines[-1] == "exit 0" or not Path("/dev/kmsg").exists()
    assert not [line for line in lines if "Read-only" in line]


@here
async def test_devices(host, layer):
    script = "dd if=/dev/noise of=/dev/null bs=1 count=1 2>/dev/null && echo read; stat -c %t:%T /dev/noise"
    device = Device(host="/dev/urandom", container="/dev/noise", access="r")
    assert await lines_of(host, layer, script, devices=(device,)) == ["read", "1:9", "exit 0"]
    await refused(host, layer, "no such file", devices=(Device(host="/dev/nope", container="/dev/nope"),))
    await refused(host, layer, "not a device node", devices=(Device(host="/dev/shm", container="/dev/x"),))


@here
async def test_shared_memory_and_the_hosts_namespaces(host, layer):
    lines = await lines_of(host, layer, "grep /dev/shm /proc/mounts", shm_bytes=128 << 20)
    assert "size=131072k" in lines[0]
    links = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "ipc", "uts")}
    script = "ls -l /proc/self/ns"
    own = "\n".join(await lines_of(host, layer, script))
    assert not any(link in own for link in links.values())
    shared = "\n".join(await lines_of(host, layer, script, pid_host=True, ipc_host=True))
    assert [kind for kind, link in links.items() if link in shared] == ["pid", "ipc"]


@here
async def test_with_the_hosts_pids_nothing_outlives_the_container(host, layer):
    container_id = await host.launch(layer, "sh", "-c", "sleep 3600 & sleep 0.2", pid_host=True)
    async with asyncio.timeout(20):
        await host.containers.wait(container_id)
    assert [pid for pid in cgroups.processes(container_id) if is_alive(pid)] == []


@here
async def test_output_that_is_not_kept(host, layer):
    container_id = await host.launch(layer, "sh", "-c", "echo a; exit 3", log=LogPolicy(is_kept=False))
    async with asyncio.timeout(20):
        assert (await host.containers.wait(container_id)).code == 3
    assert not host.containers.log_path(container_id).exists()


@pytest.fixture
def shared_folder():
    """A mount that propagates, as /mnt does on an ordinary host."""
    folder = Path(tempfile.mkdtemp(prefix="swarm-shared-"))
    subprocess.run(["mount", "-t", "tmpfs", "x", str(folder)], check=True)
    subprocess.run(["mount", "--make-shared", str(folder)], check=True)
    (folder / "below").mkdir()
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-R", str(folder)], check=True)
        folder.rmdir()


def mount_below(folder):
    subprocess.run(["mount", "-t", "tmpfs", "x", str(folder / "below")], check=True)


@here
@pytest.mark.parametrize(("propagation", "seen"), [("rslave", True), ("shared", True), ("rprivate", False)])
async def test_a_binds_propagation(host, layer, shared_folder, propagation, seen):
    options = BindOptions(propagation=propagation)
    mount = Mount(type=MountType.BIND, source=str(shared_folder), target="/s", bind_options=options)
    script = "while [ ! -e /s/go ]; do sleep 0.05; done; ls /s/below"
    container_id = await host.launch(layer, "sh", "-c", script, mounts=(mount,))
    mount_below(shared_folder)
    (shared_folder / "below" / "later").touch()
    (shared_folder / "go").touch()
    async with asyncio.timeout(20):
        await host.containers.wait(container_id)
    lines = [line.data.decode() async for line in read(host.containers.log_path(container_id))]
    assert lines == (["later"] if seen else [])


@here
@pytest.mark.parametrize(
    ("options", "writable_below"),
    [
        (BindOptions(), False),
        (BindOptions(read_only_non_recursive=True), True),
        (BindOptions(read_only_force_recursive=True), False),
    ],
)
async def test_how_far_a_read_only_bind_reaches(host, layer, shared_folder, options, writable_below):
    mount_below(shared_folder)
    mount = Mount(
        type=MountType.BIND, source=str(shared_folder), target="/s", read_only=True, bind_options=options
    )
    script = "touch /s/a 2>/dev/null && echo top; touch /s/below/b 2>/dev/null && echo below"
    lines = await lines_of(host, layer, script, mounts=(mount,))
    assert lines[:-1] == (["below"] if writable_below else [])


@here
async def test_a_part_of_a_volume(host, layer):
    volume = host.volumes.create("data-1")
    (volume.path / "a" / "b").mkdir(parents=True)
    (volume.path / "a" / "b" / "file").write_text("inner")
    (volume.path / "out").symlink_to("/etc")
    part = Mount(source="data-1", target="/part", volume_options=VolumeOptions(subpath="a/b"))
    one = Mount(source="data-1", target="/one", volume_options=VolumeOptions(subpath="a/b/file"))
    lines = await lines_of(host, layer, "ls /part; cat /one; echo; echo x > /part/new", mounts=(part, one))
    assert lines == ["file", "inner", "exit 0"]
    assert (volume.path / "a" / "b" / "new").read_text() == "x\n"
    assert (volume.path / "a" / "b" / "file").exists()
    away = dataclasses.replace(part, volume_options=VolumeOptions(subpath="out"))
    await refused(host, layer, "cannot access path out of volume data-1", mounts=(away,))
    assert (volume.path / "a" / "b" / "file").exists()


@here
async def test_a_volume_with_options_is_mounted_and_let_go(host, layer, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "kept").write_text("kept")
    bind = Driver(name="local", options={"type": "none", "o": "bind", "device": str(source)})
    options = VolumeOptions(labels={"a": "b"}, driver_config=bind)
    mount = Mount(source="outside", target="/v", volume_options=options)
    assert await lines_of(host, layer, "cat /v/kept; touch /v/new", mounts=(mount,)) == ["kept", "exit 0"]
    assert sorted(entry.name for entry in source.iterdir()) == ["kept", "new"]
    assert host.volumes.get("outside").labels == {"a": "b"}
    memory = Driver(options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=700"})
    mount = Mount(source="fast", target="/v", volume_options=VolumeOptions(driver_config=memory))
    lines = await lines_of(host, layer, "grep ' /v ' /proc/mounts", mounts=(mount,))
    assert lines[0].startswith("tmpfs /v tmpfs rw")
    assert "size=1024k,mode=700" in lines[0]
    wrong = Driver(options={"type": "nosuchfs", "device": "none"})
    mount = Mount(source="broken", target="/v", volume_options=VolumeOptions(driver_config=wrong))
    await refused(host, layer, "failed to mount local volume broken: special device none", mounts=(mount,))


@here
async def test_the_image_is_not_copied_where_that_is_not_wanted(host, layer):
    mount = Mount(source="empty", target="/data", volume_options=VolumeOptions(no_copy=True))
    assert await lines_of(host, layer, "ls /data", mounts=(mount,)) == ["exit 0"]
    mount = Mount(source="full", target="/data")
    assert await lines_of(host, layer, "ls /data", mounts=(mount,)) == ["seed", "exit 0"]
