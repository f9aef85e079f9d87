"""The record of a lab survives the way through its file, and its locks exclude."""

from __future__ import annotations

import fcntl
from ipaddress import IPv4Network

import pytest

from swarm.base.errors import Unavailable
from swarm.lab import record
from swarm.lab.record import Record

LAB = Record(
    name="lab",
    subnet=IPv4Network("10.213.0.0/24"),
    hosts=("h1", "h2", "h3"),
    daemon=("swarmd",),
    cuts=frozenset({("h1", "h2")}),
)


def test_round_trip():
    assert record.decode(record.encode(LAB)) == LAB


def test_a_cut_has_no_direction():
    assert LAB.with_cut("h2", "h1") == LAB
    assert LAB.peers_cut_from("h1") == ("h2",)
    assert LAB.peers_cut_from("h2") == ("h1",)
    assert LAB.peers_cut_from("h3") == ()


def test_heal_undoes_one_cut_or_all():
    cut = LAB.with_cut("h3", "h1")
    assert cut.without_cuts(("h2", "h1")).cuts == {("h1", "h3")}
    assert cut.without_cuts(None).cuts == frozenset()
    assert cut.without_cuts(("h2", "h3")) == cut


def test_write_leaves_no_half_file(tmp_path):
    record.write_atomically(tmp_path / "deep" / "file", "one")
    record.write_atomically(tmp_path / "deep" / "file", "two")
    assert [path.read_text() for path in (tmp_path / "deep").iterdir()] == ["two"]


def test_a_held_lock_is_said_to_be_busy(tmp_path):
    path = tmp_path / "lock"
    with (
        record.locked(path, what="lab lab"),
        pytest.raises(Unavailable, match="lab lab is busy"),
        record.locked(path, what="lab lab", timeout_s=0),
    ):
        pass


def test_a_lock_file_may_be_removed_by_its_holder(tmp_path):
    path = tmp_path / "lab" / "lock"
    with record.locked(path, what="lab lab"):
        path.unlink()
        path.parent.rmdir()
    with (
        record.locked(path, what="lab lab", timeout_s=0),
        path.open() as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
