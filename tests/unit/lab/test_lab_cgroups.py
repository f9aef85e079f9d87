"""Which cgroup hierarchies a lab uses, read from the kernel's list of mounts."""

from __future__ import annotations

from pathlib import Path

from swarm.lab.cgroups import Hierarchy, parse_hierarchies

HYBRID = """\
22 1 0:20 / /sys rw,relatime - sysfs sysfs rw
30 22 0:25 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,release_agent=/lib/agent,name=systemd
33 30 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup rw
34 30 0:29 / /sys/fs/cgroup/pids rw,relatime shared:3 - cgroup cgroup rw,pids
35 1 0:29 / /var/elsewhere/pids rw,relatime shared:3 - cgroup cgroup rw,pids
"""
UNIFIED = """\
30 22 0:25 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
"""


def test_hybrid_uses_the_v1_hierarchies_only():
    assert [(str(h.mount), h.options) for h in parse_hierarchies(HYBRID)] == [
        ("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct"),
        ("/sys/fs/cgroup/systemd", "name=systemd"),
        ("/sys/fs/cgroup/pids", "pids"),
    ]
    assert not any(h.is_v2 for h in parse_hierarchies(HYBRID))


def test_unified_is_one_hierarchy():
    assert parse_hierarchies(UNIFIED) == (Hierarchy(mount=Path("/sys/fs/cgroup"), options=""),)
    assert parse_hierarchies(UNIFIED)[0].is_v2


def test_the_groups_name_the_lab():
    (hierarchy,) = parse_hierarchies(UNIFIED)
    assert hierarchy.group("lab", "h1") == Path("/sys/fs/cgroup/swarm-lab/lab/h1")
    assert hierarchy.group("lab") == Path("/sys/fs/cgroup/swarm-lab/lab")
