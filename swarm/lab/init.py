"""The first process of a lab's host.

In: argv as host.py writes it (name, disk, hosts file, cgroup hierarchies, the daemon's argv), on stdin the
word `go` when the network is ready. Out: on stdout the pid as the machine counts it, then `ready`; the log
is stderr, inherited by the daemon, which is started again whenever it ends, as systemd's Restart=always
does. Invariants: no mount made here is seen by the machine; no process of the host outlives pid 1, by the
kernel's rule for pid namespaces; nothing starts when the one who boots the host dies before `go`.

Runs as a script (python -I -S) and imports little: a host costs the memory of one bare interpreter.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2

STATE_DIR = "/var/lib/swarm"
CGROUP_ROOT = "/sys/fs/cgroup"
FIRST_DELAY_S, MAX_DELAY_S, STEADY_S = 0.1, 5.0, 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: object) -> None:
    """A call of libc that says by -1 that it failed."""
    plain = [a.encode() if isinstance(a, str) else a for a in arguments]
    if getattr(_libc, function)(*plain) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}{arguments}: {os.strerror(number)}")


def mount(
    source: str | None, target: str, kind: str | None, flags: int = 0, options: str | None = None
) -> None:
    call("mount", source, target, kind, ctypes.c_ulong(flags), options)


def join(group: str) -> None:
    with open(f"{group}/cgroup.procs", "w", encoding="ascii") as procs:
        procs.write("0")


def boot(groups: list[str]) -> None:
    """Join the host's cgroups, then leave the machine's namespaces. Returns in pid 1 of the host only."""
    for group in groups:
        join(group)
    call(
        "unshare",
        CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWCGROUP,
    )
    pid = os.fork()
    if pid:
        os.write(1, f"{pid}\n".encode())
        os._exit(0)
    os.setsid()


def detach_machine_mounts() -> None:
    """Let go of what the machine has mounted where the host has its own, to keep nothing there busy."""
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        points = [line.split()[4] for line in lines]
    for point in reversed(points):
        if point.startswith((f"{STATE_DIR}/", "/run/", "/sys/")) or point in (STATE_DIR, "/run"):
            try:
                call("umount2", point, MNT_DETACH)
            except OSError as error:  # it went together with the mount below it
                say(str(error))


def mount_root(disk: str, hosts_file: str, cgroups: list[list[str]]) -> None:
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount(hosts_file, "/etc/hosts", None, MS_BIND)
    detach_machine_mounts()
    mount(disk, STATE_DIR, None, MS_BIND)
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    os.mkdir("/run/swarm", 0o755)
    os.mkdir("/run/lock")
    os.chmod("/run/lock", 0o1777)  # noqa: S103 - as on every Debian
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")  # noqa: S108 - the host's own
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount_cgroups(cgroups)


def mount_cgroups(cgroups: list[list[str]]) -> None:
    """Mounted in the new cgroup namespace, each hierarchy's root is the host's own group."""
    if [options for _, options, _ in cgroups] == [""]:
        mount("cgroup2", CGROUP_ROOT, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        join(
            f"{CGROUP_ROOT}/init"
        )  # so that the host's own root group may have child groups with controllers
        return
    mount("tmpfs", CGROUP_ROOT, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755")
    for point, options, _ in cgroups:
        os.mkdir(point)
        mount("cgroup", point, "cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
        for controller in options.split(","):  # cpu -> cpu,cpuacct, as distributions have it
            name = f"{CGROUP_ROOT}/{controller.removeprefix('name=')}"
            if not os.path.lexists(name):
                os.symlink(os.path.basename(point), name)


def say(text: str) -> None:
    os.write(2, f"lab: {text}\n".encode())


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def start(argv: list[str]) -> int | None:
    try:
        return os.posix_spawnp(argv[0], argv, os.environ, setsid=True, setsigmask=[])
    except OSError as error:
        say(f"cannot start {argv[0]}: {error.strerror}")
        return None


def next_delay(delay_s: float, ran_s: float) -> float:
    """How long to wait before the next start, when the last wait was `delay_s` and the daemon ran `ran_s`."""
    return FIRST_DELAY_S if ran_s >= STEADY_S else min(delay_s * 2, MAX_DELAY_S)


def supervise(argv: list[str]) -> None:
    """Reap whatever ends in the host, and keep `argv` running. Never returns."""
    child: int | None = None
    started = start_at = now()
    delay = FIRST_DELAY_S / 2
    while True:
        if argv and child is None and now() >= start_at:
            started, child = now(), start(argv)
            if child is None:
                delay = next_delay(delay, 0)
                start_at = started + delay
        idle = child is not None or not argv
        signal.sigtimedwait([signal.SIGCHLD], 3600 if idle else max(0.0, start_at - now()))
        for pid, status in reaped():
            if pid == child:
                delay = next_delay(delay, now() - started)
                child, start_at = None, now() + delay
                code = os.waitstatus_to_exitcode(status)
                say(f"{argv[0]} ended with status {code}, starts again in {delay:.1f} s")


def reaped() -> list[tuple[int, int]]:
    ended = []
    try:
        while (result := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(result)
    except ChildProcessError:
        pass  # no children at all
    return ended


def main() -> None:
    split = sys.argv.index("--")
    name, disk, hosts_file, *specs = sys.argv[1:split]
    cgroups = [spec.split(":") for spec in specs]  # mount:options:group
    boot([group for _, _, group in cgroups])
    # Pid 1 takes no signal but from outside; nothing inside may end the host by accident.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if sys.stdin.readline() != "go\n":
        os._exit(1)
    call("sethostname", name, len(name))
    mount_root(disk, hosts_file, cgroups)
    os.chdir("/")
    os.write(1, b"ready\n")
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    supervise(sys.argv[split + 1 :])


if __name__ == "__main__":
    main()
