"""Users, signals, runtime choice and error texts."""

from __future__ import annotations

import signal

import pytest

from swarm.base.errors import FailedPrecondition, Fatal, InvalidArgument, Temporary
from swarm.model.signals import parse_signal
from swarm.worker.runtime.cgroups import in_container
from swarm.worker.runtime.crun import explain
from swarm.worker.runtime.host import CgroupMode, cgroup_mode, choose_runtime
from swarm.worker.runtime.resolved import User
from swarm.worker.runtime.users import resolve_user

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:Web:/srv:/bin/false\nbroken\nhuge:x:99999999999:1::/:\n"
)
GROUP = b"root:x:0:\nwww:x:102:\nlog:x:104:web,other\nhuge:x:99999999999:web\n"


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(home="/root")),
        ("web", User(uid=101, gid=102, additional_gids=(104,), home="/srv")),
        ("101", User(uid=101, gid=102, additional_gids=(104,), home="/srv")),
        ("web:log", User(uid=101, gid=104, home="/srv")),
        ("web:7", User(uid=101, gid=7, home="/srv")),
        ("1000", User(uid=1000)),
        ("1000:1001", User(uid=1000, gid=1001)),
    ],
)
def test_a_user_is_looked_up_in_the_image(text, user):
    assert resolve_user(text, passwd=PASSWD, group=GROUP) == user


def test_without_files_numbers_and_root_work():
    assert resolve_user("", passwd=b"", group=b"") == User()
    assert resolve_user("5:6", passwd=b"\xff", group=b"") == User(uid=5, gid=6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("web:none", "unable to find group none: no matching entries in group file"),
        ("huge", "must be in range"),
        ("4294967295", "must be in range"),
    ],
)
def test_unknown_users_and_groups(text, message):
    with pytest.raises(Fatal, match=message):
        resolve_user(text, passwd=PASSWD, group=GROUP)


def test_signals():
    assert parse_signal("SIGTERM") == parse_signal("term") == parse_signal("15") == 15
    assert parse_signal("SIGRTMIN+3") == signal.SIGRTMIN + 3
    for wrong in ("", "SIGNOPE", "0", "99", "RTMIN+99", "-9"):
        with pytest.raises(InvalidArgument, match="invalid signal"):
            parse_signal(wrong)


V1 = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
HYBRID = V1 + "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
V2 = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"


def test_cgroup_modes():
    assert cgroup_mode(V1) is CgroupMode.V1
    assert cgroup_mode(HYBRID) is CgroupMode.HYBRID
    assert cgroup_mode(V2) is CgroupMode.V2
    assert cgroup_mode("proc /proc proc rw 0 0\n") is CgroupMode.NONE


def choose(mode, crun="/b/crun", runc="/b/runc", conmon="/b/conmon"):
    return choose_runtime(mode=mode, crun=crun, runc=runc, conmon=conmon)


def test_crun_is_preferred_and_runc_stands_in_with_the_reason():
    assert choose(CgroupMode.V1).name == "crun"
    assert choose(CgroupMode.V2).name == "crun"
    hybrid = choose(CgroupMode.HYBRID)
    assert hybrid.name == "runc"
    assert "unmount /sys/fs/cgroup/unified" in hybrid.reason
    assert choose(CgroupMode.V2, crun=None).reason == "crun is not installed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": CgroupMode.HYBRID, "runc": None}, "install the package runc"),
        ({"mode": CgroupMode.V2, "crun": None, "runc": None}, "install the package crun"),
        ({"mode": CgroupMode.V2, "conmon": None}, "install the package conmon"),
        ({"mode": CgroupMode.NONE}, "no cgroups"),
    ],
)
def test_what_is_missing_is_said(arguments, message):
    with pytest.raises(FailedPrecondition, match=message):
        choose(**arguments)


@pytest.mark.parametrize(
    ("message", "kind", "text", "code"),
    [
        (
            "2026-01-01T00:00:00.1Z: executable file `/x` not found in $PATH: No such file or directory",
            Fatal,
            'exec: "/x": executable file not found in $PATH',
            127,
        ),
        (
            '{"msg":"open executable: Permission denied","level":"error"}',
            Fatal,
            'exec: "cmd": permission denied',
            126,
        ),
        (
            'time="2026" level=error msg="runc create failed: unable to start container process: '
            'exec: \\"nope\\": executable file not found in $PATH"',
            Fatal,
            'exec: "nope": executable file not found in $PATH',
            127,
        ),
        ("fork: Resource temporarily unavailable", Temporary, "container runtime: fork: Resource", None),
        ("", Fatal, "container runtime: failed without a message", None),
    ],
)
def test_what_a_runtime_says_is_told_in_dockers_words(message, kind, text, code):
    error = explain(message, "cmd")
    assert type(error) is kind
    assert str(error).startswith(text)
    assert getattr(error, "exit_code", None) == code


def test_a_process_is_in_the_container_by_its_cgroup():
    assert in_container("9:pids:/swarm/abc\n", "abc")
    assert in_container("0::/x/swarm/abc/nested\n", "abc")
    assert not in_container("0::/swarm/abcd\n", "abc")
