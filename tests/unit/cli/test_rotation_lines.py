"""What `system rotate-data-key` says on its way."""

from __future__ import annotations

from swarm.cli.upkeep_text import rotation_lines

DOWN = {"ID": "n3", "Hostname": "h3", "State": "down"}


def test_who_is_down_is_named_with_the_way_out():
    up = {"ID": "n2", "Hostname": "h2", "State": "ready"}
    found = {"State": "distributing", "WaitsFor": [up, DOWN], "Left": 3, "Total": 3}
    assert rotation_lines(found) == [
        "every manager gets the new key",
        "waiting for h3: it is down (bring it back, or take the role from it with: swarm node demote n3)",
    ]


def test_progress_comes_in_tenths():
    assert rotation_lines({"State": "resealing", "Left": 34, "Total": 100}) == ["sealed anew: 60 %"]
    assert rotation_lines({"State": "resealing", "Left": 0, "Total": 0}) == ["sealed anew: 0 %"]
    assert rotation_lines({"State": "none", "Left": 0, "Total": 9}) == [
        "everything is sealed with the new key"
    ]
