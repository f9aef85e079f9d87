"""What `swarm info` prints of the host."""

from __future__ import annotations

from swarm.cli.system_text import info_text


def test_labels_and_registries_as_docker_lists_them():
    config = {"InsecureRegistryCIDRs": ["127.0.0.0/8"], "IndexConfigs": {"r:5000": {"Secure": False}}}
    text = info_text({"Labels": ["rack=r1"], "RegistryConfig": config}, "1")
    assert " Labels:\n  rack=r1\n" in text
    assert " Insecure Registries:\n  r:5000\n  127.0.0.0/8\n" in text
    assert "Labels" not in info_text({"Labels": []}, "1")
