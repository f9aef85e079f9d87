"""A lab's hosts are hosts: their own name, disk, /run, cgroups and network; and nothing of them stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from swarm.base.clock import SystemClock
from swarm.base.errors import AlreadyExists, FailedPrecondition, NotFound, SwarmError
from swarm.lab import host, names, record
from swarm.lab.lab import Lab, list_hosts

pytestmark = pytest.mark.root
BUSYBOX = "/bin/busybox"

# A daemon that answers /_ping and leaves a child behind, as conmon is left behind by swarmd.
DAEMON = """
import os, socket
server = socket.socket(socket.AF_UNIX)
server.bind(f"/run/swarm/{os.getpid()}")
os.rename(f"/run/swarm/{os.getpid()}", "/run/swarm/swarm.sock")
server.listen()
if os.fork() == 0:
    server.close()
    os.setsid()
    os.execvp("sleep", ["sleep", "1000"])
open("/run/daemon.pid", "w").write(str(os.getpid()))
while True:
    client, _ = server.accept()
    client.recv(1000)
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nOK")
    client.close()
"""


def output(lab, name, *argv, **options):
    done = lab.exec(name, argv, **options)
    assert done.returncode == 0, done
    return done.stdout


def reaches(lab, a, b):
    return lab.exec(a, [BUSYBOX, "ping", "-c", "1", "-W", "1", lab.address(b)]).returncode == 0


def until(condition, what, timeout_s=10.0):
    clock = SystemClock()
    deadline = clock.monotonic() + timeout_s
    while not (value := condition()):
        assert clock.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        time.sleep(0.01)
    return value


def traces(name):
    """Whatever there is of lab `name` on this machine."""
    found = [path for path in (record.run_dir(name), record.disk_dir(name)) if path.exists()]
    found += [path for path in Path("/sys/class/net").iterdir() if path.name == names.uplink_name(name)]
    found += Path("/sys/fs/cgroup").glob(f"*/{names.cgroup_path(name)}")
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    found += [line for line in tables.splitlines() if line.endswith(f" {names.nat_table(name)}")]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"/{name}/" in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + (process / "cgroup").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"/{name}/".encode() in words:
            found.append(process)
    return found


@pytest.fixture(scope="module")
def two(lab):
    """Two labs side by side, of two hosts each, without a daemon."""
    return lab(hosts=2, daemon=()), lab(hosts=2, daemon=())


@pytest.fixture(scope="module")
def one(two):
    return two[0]


# --- what a host is ------------------------------------------------------------------------------------


def test_hosts_have_their_names_and_addresses(one):
    assert [(s.name, s.state) for s in one.ls()] == [("h1", "running"), ("h2", "running")]
    for name in ("h1", "h2"):
        assert output(one, name, "hostname").strip() == name
        shown = output(one, name, "ip", "address", "show", "eth0")
        assert f"inet {one.address(name)}/24" in shown
        assert f"inet6 {one.ipv6_address(name)}/120" in shown


def test_labs_side_by_side_have_different_networks(two):
    assert two[0].address("h1") != two[1].address("h1")
    assert reaches(two[0], "h1", "h2")
    assert reaches(two[1], "h2", "h1")


def test_http_between_hosts_by_name_and_from_the_machine(one):
    output(one, "h2", "mkdir", "-p", "/run/www")
    output(one, "h2", "tee", "/run/www/index.html", feed="hello from h2")
    output(one, "h2", BUSYBOX, "httpd", "-p", "80", "-h", "/run/www")
    assert output(one, "h1", BUSYBOX, "wget", "-q", "-O", "-", "http://h2/") == "hello from h2"
    url = f"http://{one.address('h2')}/"
    here = subprocess.run([BUSYBOX, "wget", "-q", "-O", "-", url], capture_output=True, text=True, timeout=10)
    assert here.stdout == "hello from h2"


def test_a_host_reaches_the_machine(one):
    gateway = output(one, "h1", "ip", "route", "show", "default").split()[2]
    assert one.exec("h1", [BUSYBOX, "ping", "-c", "1", "-W", "1", gateway]).returncode == 0


def test_disk_and_run_are_the_hosts_own(one):
    output(one, "h1", "touch", "/var/lib/swarm/mine", "/run/mine")
    for directory in ("/var/lib/swarm", "/run"):
        assert "mine" not in output(one, "h2", "ls", directory).split()
        assert not Path(directory, "mine").exists()
    assert Path("/run/swarm-lab", one.name).is_dir()
    assert "swarm-lab" not in output(one, "h1", "ls", "/run").split()


def test_mounts_of_a_host_are_not_seen_outside(one):
    output(
        one, "h1", "mkdir", "-p", "/var/lib/swarm/a", "/var/lib/swarm/b", "/var/lib/swarm/c", "/run/merged"
    )
    layers = "lowerdir=/var/lib/swarm/a,upperdir=/var/lib/swarm/b,workdir=/var/lib/swarm/c"
    output(one, "h1", "mount", "-t", "overlay", "overlay", "-o", layers, "/run/merged")
    output(one, "h1", "touch", "/run/merged/file")
    assert output(one, "h1", "ls", "/var/lib/swarm/b").split() == ["file"]
    assert "/run/merged" not in Path("/proc/self/mountinfo").read_text()


def test_the_cgroups_are_rooted_at_the_host(one):
    paths = output(one, "h1", "cat", "/proc/self/cgroup").split()
    assert {line.split(":")[2] for line in paths} <= {"/", "/init"}
    assert not output(one, "h1", "ls", "/sys/fs/cgroup").split().count("unified")


def test_this_installations_programs_come_first(one):
    assert output(one, "h1", "python", "-c", "import sys; print(sys.executable)").startswith(
        str(Path(sys.executable).parent)
    )


def test_docker_clients_inside_meet_the_hosts_own_daemon(one):
    assert output(one, "h1", "sh", "-c", "echo $DOCKER_HOST") == "unix:///run/swarm/swarm.sock\n"


# --- entering ------------------------------------------------------------------------------------------


def test_exec_passes_the_status_the_input_and_the_errors(one):
    done = one.exec("h1", ["sh", "-c", "cat; echo wrong >&2; exit 7"], feed="given")
    assert (done.returncode, done.stdout, done.stderr) == (7, "given", "wrong\n")
    assert one.exec("h1", ["no-such-program"]).returncode == 127


def test_exec_that_takes_too_long_is_ended_inside_too(one):
    with pytest.raises(subprocess.TimeoutExpired):
        one.exec("h1", ["sleep", "4321"], timeout=0.3)
    until(lambda: "4321" not in output(one, "h1", "ps", "-eo", "args"), "sleep has ended")


def test_wrong_names_are_said_so(one):
    with pytest.raises(NotFound, match=r"host h9 of lab .* not found"):
        one.exec("h9", ["true"])
    with pytest.raises(NotFound, match="lab nowhere"):
        Lab("nowhere").ls()
    with pytest.raises(AlreadyExists, match="is up already"):
        Lab(one.name).up()
    with pytest.raises(FailedPrecondition, match="overlaps"):
        Lab("t-overlap").up(subnet=f"{one.address('h1').rpartition('.')[0]}.0/25")
    assert not traces("t-overlap")


def test_the_command_line(one):
    command = [sys.executable, "-m", "swarm.cli.main", "lab"]
    run = {"capture_output": True, "text": True, "timeout": 20}
    listed = subprocess.run([*command, "ls", "--name", one.name, "--format", "json"], **run)
    assert json.loads(listed.stdout) == [
        {"name": name, "address": one.address(name), "state": "running"} for name in ("h1", "h2")
    ]
    every = json.loads(subprocess.run([*command, "ls", "--format", "json"], **run).stdout)
    assert {"lab": one.name, "name": "h1", "address": one.address("h1"), "state": "running"} in every
    inside = ["exec", "--name", one.name, "h1", "--", "sh", "-c", "cat; hostname; exit 3"]
    done = subprocess.run([*command, *inside], input="in ", **run)
    assert (done.returncode, done.stdout) == (3, "in h1\n")
    wrong = subprocess.run([*command, "kill", "--name", one.name, "h9"], **run)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert wrong.stderr.startswith("host h9 of lab")


def test_a_lab_that_goes_while_all_are_listed_is_off(monkeypatch):
    gone = record.Record(name="gone", subnet=IPv4Network("10.255.0.0/24"), hosts=("h1",), daemon=())
    monkeypatch.setattr(record, "list_all", lambda: (gone,))
    assert [(status.name, status.state) for status in list_hosts()] == [("h1", "off")]


# --- faults --------------------------------------------------------------------------------------------


def test_a_cut_is_both_ways_survives_a_power_cut_and_heals(one):
    assert reaches(one, "h1", "h2")
    assert one.exec("h1", [BUSYBOX, "ping", "-c", "1", "-W", "1", one.ipv6_address("h2")]).returncode == 0
    one.cut("h1", "h2")
    assert not reaches(one, "h1", "h2")
    assert not reaches(one, "h2", "h1")
    assert one.exec("h1", [BUSYBOX, "ping", "-c", "1", "-W", "1", one.ipv6_address("h2")]).returncode != 0
    one.kill("h2")
    one.start("h2")
    assert not reaches(one, "h2", "h1")
    one.heal("h2", "h1")
    assert reaches(one, "h1", "h2")


def test_a_power_cut_ends_everything_and_keeps_the_disk(one):
    output(one, "h2", "tee", "/var/lib/swarm/kept", feed="kept")
    output(one, "h2", "touch", "/run/lost")
    output(one, "h2", "setsid", "--fork", "sh", "-c", "exec sleep 7654 >/dev/null 2>&1")
    one.kill("h2")
    assert [s.state for s in one.ls()] == ["running", "off"]
    assert "7654" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    with pytest.raises(FailedPrecondition, match="h2 is off"):
        one.exec("h2", ["true"])
    one.kill("h2")  # once more is fine
    one.start("h2")
    assert output(one, "h2", "cat", "/var/lib/swarm/kept") == "kept"
    assert "lost" not in output(one, "h2", "ls", "/run").split()
    assert reaches(one, "h1", "h2")
    with pytest.raises(FailedPrecondition, match="running already"):
        one.start("h2")


# --- containers ----------------------------------------------------------------------------------------


def bundle(directory, argv, resources):
    """A minimal bundle: busybox alone, the host's cgroups and network."""
    root = directory / "rootfs"
    (root / "bin").mkdir(parents=True)
    (root / "proc").mkdir()
    (root / "dev").mkdir()
    (root / "bin" / "busybox").write_bytes(Path(BUSYBOX).read_bytes())
    (root / "bin" / "busybox").chmod(0o755)
    spec = {
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": argv, "env": ["PATH=/bin"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")],
            "cgroupsPath": f"/swarm/{directory.name}",
            "resources": resources,
        },
    }
    (directory / "config.json").write_text(json.dumps(spec))


def crun(one, tmp_path, argv, resources):
    bundle(tmp_path, argv, resources)
    command = ["crun", "--cgroup-manager=cgroupfs", "run", "--bundle", str(tmp_path), tmp_path.name]
    return one.exec("h1", command)


def test_a_container_runs(one, tmp_path):
    done = crun(one, tmp_path, ["busybox", "echo", "hello"], {})
    assert (done.returncode, done.stdout) == (0, "hello\n"), done


def test_a_limit_on_processes_bites(one, tmp_path):
    script = "for i in 1 2 3 4 5 6 7 8 9; do busybox sleep 1 & done"
    done = crun(one, tmp_path, ["busybox", "sh", "-c", script], {"pids": {"limit": 4}})
    assert "can't fork" in done.stderr, done


def test_a_limit_on_memory_bites(one, tmp_path):
    argv = ["busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]
    done = crun(one, tmp_path, argv, {"memory": {"limit": 16 << 20}})
    assert done.returncode == 137, done


# --- the daemon ----------------------------------------------------------------------------------------


def test_the_daemon_is_waited_for_and_started_again_but_its_children_stay(lab):
    made = lab(hosts=1, daemon=(sys.executable, "-c", DAEMON))
    assert made.socket_path("h1").is_socket()
    first = output(made, "h1", "cat", "/run/daemon.pid")
    children = output(made, "h1", "pgrep", "-x", "sleep").split()
    output(made, "h1", "kill", "-9", first)
    until(lambda: output(made, "h1", "cat", "/run/daemon.pid") not in ("", first), "another daemon")
    host.wait_for_daemon(made.name, "h1", 5)
    assert set(children) < set(output(made, "h1", "pgrep", "-x", "sleep").split())
    assert "ended with status -9" in made.log("h1")
    assert "Z" not in output(made, "h1", "ps", "-eo", "stat=")
    made.kill("h1")
    made.start("h1")
    assert made.socket_path("h1").is_socket()


def test_a_daemon_that_does_not_answer_is_shown_and_nothing_stays():
    made = Lab(f"t{os.getpid()}-x")
    complaint = ("sh", "-c", "echo no such luck >&2; exit 1")
    with pytest.raises(SwarmError, match=r"(?s)h1 does not answer within 2 s:.*no such luck"):
        made.up(hosts=2, daemon=complaint, timeout_s=2)
    assert not traces(made.name)


# --- the end -------------------------------------------------------------------------------------------


def test_down_leaves_nothing_even_of_frozen_containers(tmp_path):
    with Lab(f"t{os.getpid()}-d") as made:
        made.up(hosts=2, daemon=())
        bundle(tmp_path, ["busybox", "sleep", "999"], {})
        run = ["crun", "--cgroup-manager=cgroupfs"]
        script = " ".join(
            [*run, "run", "--detach", "--bundle", str(tmp_path), "c1", ">/dev/null 2>&1 </dev/null"]
        )
        output(made, "h1", "sh", "-c", script)
        output(made, "h1", *run, "pause", "c1")
        assert traces(made.name)
    assert not traces(made.name)
    assert made.down() is False


MOMENTS = {
    "the record": lambda lab: record.run_dir(lab) / "lab.json",
    "the switch": lambda lab: Path("/sys/class/net") / names.uplink_name(lab),
    "a disk": lambda lab: record.disk_dir(lab) / "h1",
    "a first process": lambda lab: record.run_dir(lab) / "h1.pid",
    "the last process": lambda lab: record.run_dir(lab) / "h3.pid",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_down_after_up_was_killed_half_way_leaves_nothing(moment):
    name = f"t{os.getpid()}-k"
    code = f"from swarm.lab.lab import Lab; Lab({name!r}).up(hosts=3, daemon=())"
    with Lab(name), subprocess.Popen([sys.executable, "-c", code]) as up:
        until(MOMENTS[moment](name).exists, moment)
        up.send_signal(signal.SIGKILL)
    assert not traces(name)
    with Lab(name) as again:
        again.up(hosts=1, daemon=())
    assert not traces(name)
