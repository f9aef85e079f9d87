from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from swarm.worker.images.errors import ImageNotFound, InvalidImage
from swarm.worker.images.image import parse_image
from swarm.worker.images.manifest import Index, Manifest, Platform, choose, parse_manifest, platform_of

DIGEST = "sha256:" + "ab" * 32
AMD = Platform(os="linux", architecture="amd64")


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def descriptor(**changes: object) -> dict[str, object]:
    return {"mediaType": "t", "digest": DIGEST, "size": 3, **changes}


def config(**changes: object) -> bytes:
    return encoded({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [DIGEST]}, **changes})


def test_a_full_configuration_is_read() -> None:
    image = parse_image(
        config(
            created="2025-01-02T03:04:05.123456789Z",
            config={
                "Env": ["A=1"],
                "Cmd": ["run"],
                "Entrypoint": None,
                "User": "1000:1000",
                "Labels": {"a": "b"},
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "Volumes": {"/data": {}},
                "StopSignal": "SIGQUIT",
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_500_000_000, "Retries": 3},
            },
        )
    )
    assert image.created == datetime(2025, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)
    assert image.config.exposed_ports == ("53/udp", "80/tcp")
    assert (image.config.cmd, image.config.entrypoint) == (("run",), ())
    assert image.config.healthcheck
    assert image.config.healthcheck.interval == timedelta(seconds=1.5)
    assert image.layers == (DIGEST,)


def test_what_is_missing_has_dockers_defaults() -> None:
    image = parse_image(config())
    assert image.config.env == ()
    assert image.config.healthcheck is None
    assert image.created.year == 1970


@pytest.mark.parametrize(
    "content",
    [
        b"no json",
        b"[]",
        b"[" * 100_000,
        config(config=[]),
        config(config={"Env": "A=1"}),
        config(config={"Env": ["A=\0"]}),
        config(config={"Cmd": [1]}),
        config(config={"ExposedPorts": {"../../x": {}}}),
        config(config={"Labels": {"a": 1}}),
        config(config={"Healthcheck": {"Test": ["NONE"], "Interval": -1}}),
        config(rootfs={"diff_ids": ["sha256:../../../etc"]}),
        config(rootfs={"diff_ids": [DIGEST] * 200}),
        config(architecture=7),
    ],
)
def test_malformed_configurations_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidImage, match=r"^invalid image configuration"):
        parse_image(content)


def test_manifests_and_indexes_are_told_apart() -> None:
    manifest = parse_manifest(encoded({"schemaVersion": 2, "config": descriptor(), "layers": [descriptor()]}))
    index = parse_manifest(encoded({"schemaVersion": 2, "manifests": [descriptor()]}))
    assert isinstance(manifest, Manifest)
    assert isinstance(index, Index)


@pytest.mark.parametrize(
    "document",
    [
        {"schemaVersion": 1, "fsLayers": []},
        {"schemaVersion": 2},
        {"schemaVersion": 2, "manifests": [], "layers": [], "config": descriptor()},
        {"schemaVersion": 2, "mediaType": "application/x", "config": descriptor(), "layers": []},
        {"schemaVersion": 2, "config": descriptor(), "layers": "x"},
        {"schemaVersion": 2, "config": descriptor(digest="sha256:../../x"), "layers": []},
        {"schemaVersion": 2, "config": descriptor(digest=f"{DIGEST}\n"), "layers": []},
        {"schemaVersion": 2, "config": descriptor(size=-1), "layers": []},
        {"schemaVersion": 2, "config": descriptor(size=True), "layers": []},
        {"schemaVersion": 2, "config": descriptor(), "layers": [descriptor()] * 200},
    ],
)
def test_malformed_manifests_are_refused(document: object) -> None:
    with pytest.raises(InvalidImage, match=r"^invalid manifest"):
        parse_manifest(encoded(document))


def entry(letter: str, architecture: str, variant: str = "") -> dict[str, object]:
    platform = {"os": "linux", "architecture": architecture, "variant": variant}
    return descriptor(digest="sha256:" + letter * 64, platform=platform)


def test_the_hosts_platform_is_chosen() -> None:
    entries = [
        entry("a", "arm64", "v8"),
        entry("b", "amd64"),
        entry("c", "arm", "v6"),
        entry("d", "arm", "v7"),
    ]
    index = parse_manifest(encoded({"schemaVersion": 2, "manifests": entries}))
    assert isinstance(index, Index)
    chosen = {
        m: choose(index, platform_of(m), "x").digest[7] for m in ("x86_64", "aarch64", "armv7l", "armv6l")
    }
    assert chosen == {"x86_64": "b", "aarch64": "a", "armv7l": "d", "armv6l": "c"}
    with pytest.raises(
        ImageNotFound, match="no matching manifest for linux/386 in the manifest list entries"
    ):
        choose(index, platform_of("i686"), "x")
