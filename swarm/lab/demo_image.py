"""Small OCI images made from programs of this machine: for trying the lab, for tests and for benches.

In: the name of a recipe (`busybox`, `web`, `nginx`) and a path. Out: one OCI archive (tar), which
`swarm image load` and `skopeo copy oci-archive:` read. No network is used.

Invariant: the same programs give the same bytes (no times, no random order), hence the same digests;
`web` and `nginx` start with the very layer of `busybox`, so nodes share it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import platform
import re
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from swarm.base.errors import InvalidArgument, NotFound

_BUSYBOX = Path("/bin/busybox")
_NGINX = Path("/usr/sbin/nginx")
_CREATED = "2025-01-01T00:00:00Z"
_LDD_LIMIT_S = 10
_FOLDERS = (
    *("bin", "dev", "etc", "home", "proc", "root", "run", "sbin", "sys", "tmp"),
    *("usr", "usr/bin", "usr/sbin", "var", "var/log", "var/tmp"),
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}

_ACCOUNTS = """root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/www:/bin/false
nobody:x:65534:65534:nobody:/:/bin/false
"""
_GROUP = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"

# The shell stays process 1: there the kernel drops signals without a handler, and httpd has none for SIGTERM.
_WEB_START = """#!/bin/sh
name=$(hostname)
echo "$name" > /www/index.html
httpd -f -p "${PORT:-80}" -h /www &
server=$!
trap 'kill $server; echo "web: $name stopped"; exit 0' TERM INT
echo "web: $name listens on ${PORT:-80}"
wait $server
"""
_WEB_CLIENT = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "hostname=$(hostname)"
echo "task=${TASK_NAME:-}"
client=${REMOTE_ADDR#'[::ffff:'}
echo "client=${client%]}"
"""
_NGINX_CONF = """daemon off;
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr warn;
events { worker_connections 4096; }
http {
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000;
    server {
        listen 80 backlog=4096;
        listen [::]:80 backlog=4096;
        location / { return 200 "$hostname\\n"; }
    }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of a layer; a directory when `content` and `link` are both None."""

    path: str
    content: bytes | None = None
    link: str | None = None
    mode: int = 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    layers: tuple[tuple[Entry, ...], ...]
    cmd: tuple[str, ...]
    ports: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"


def build(name: str, out: Path, *, tag: str | None = None) -> str:
    """Write the image `name` to `out` and return its reference (`web:latest` unless `tag` is given)."""
    reference = tag or f"{name}:latest"
    write_archive(recipe(name), reference, out)
    return reference


def recipe(name: str) -> Recipe:
    base = _busybox_layer()
    if name == "busybox":
        return Recipe(layers=(base,), cmd=("sh",))
    if name == "web":
        return Recipe(layers=(base, _web_layer()), cmd=("/start",), ports=("80/tcp",))
    if name == "nginx":
        return Recipe(
            layers=(base, _nginx_layer()), cmd=("/usr/sbin/nginx",), ports=("80/tcp",), stop_signal="SIGQUIT"
        )
    raise InvalidArgument(f"no demo image is called {name}: choose busybox, web or nginx")


def write_archive(recipe_: Recipe, reference: str, out: Path) -> None:
    """Write an OCI layout as one tar; the image's name is in the annotations that loaders look for."""
    diff_ids: list[str] = []
    blobs: dict[str, bytes] = {}
    layers: list[dict[str, object]] = []
    for entries in recipe_.layers:
        plain = layer_tar(entries)
        diff_ids.append(_digest(plain))
        packed = gzip.compress(plain, compresslevel=6, mtime=0)
        layers.append(_blob(blobs, packed, "application/vnd.oci.image.layer.v1.tar+gzip"))
    config = _blob(blobs, _json(_config(recipe_, diff_ids)), "application/vnd.oci.image.config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": layers,
    }
    descriptor = _blob(blobs, _json(manifest), "application/vnd.oci.image.manifest.v1+json")
    repository, _, version = reference.rpartition(":")
    full = reference if "/" in repository else f"docker.io/library/{reference}"
    descriptor["annotations"] = {
        "io.containerd.image.name": full,
        "org.opencontainers.image.ref.name": version,
    }
    index = {"schemaVersion": 2, "manifests": [descriptor]}
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    files |= {f"blobs/sha256/{name.removeprefix('sha256:')}": blob for name, blob in blobs.items()}
    out.write_bytes(
        layer_tar(Entry(path=path, content=content, mode=0o644) for path, content in files.items())
    )


def layer_tar(entries: Iterable[Entry]) -> bytes:
    """The entries as an uncompressed tar: owned by root, dated 1970, in the order of their paths."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in sorted(entries, key=lambda e: e.path):
            member = tarfile.TarInfo(entry.path)
            member.mode = entry.mode
            if entry.link is not None:
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, entry.link, 0o777
            elif entry.content is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(entry.content)
            tar.addfile(member, io.BytesIO(entry.content or b""))
    return buffer.getvalue()


def _config(recipe_: Recipe, diff_ids: list[str]) -> dict[str, object]:
    return {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": _CREATED,
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": list(recipe_.cmd),
            "WorkingDir": "/",
            "StopSignal": recipe_.stop_signal,
            "ExposedPorts": {port: {} for port in recipe_.ports},
            "Labels": {"org.opencontainers.image.title": "swarm demo"},
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": _CREATED, "created_by": "swarm.lab.demo_image"} for _ in diff_ids],
    }


def _busybox_layer() -> tuple[Entry, ...]:
    if not _BUSYBOX.exists():
        raise NotFound("program", f"{_BUSYBOX} (install busybox-static)")
    open_folders = {"tmp", "var/tmp"}
    applets = subprocess.run(  # a fixed program of this machine
        [str(_BUSYBOX), "--list"], capture_output=True, text=True, check=True, timeout=_LDD_LIMIT_S
    ).stdout.split()
    return (
        *(Entry(path=f, mode=0o1777 if f in open_folders else 0o755) for f in _FOLDERS),
        Entry(path="bin/busybox", content=_BUSYBOX.read_bytes()),
        *(Entry(path=f"bin/{applet}", link="busybox") for applet in applets if applet != "busybox"),
        Entry(path="usr/bin/env", link="/bin/busybox"),
        Entry(path="etc/passwd", content=_ACCOUNTS.encode(), mode=0o644),
        Entry(path="etc/group", content=_GROUP.encode(), mode=0o644),
    )


def _web_layer() -> tuple[Entry, ...]:
    return (
        Entry(path="start", content=_WEB_START.encode()),
        Entry(path="www"),
        Entry(path="www/cgi-bin"),
        Entry(path="www/cgi-bin/client", content=_WEB_CLIENT.encode()),
    )


def _nginx_layer() -> tuple[Entry, ...]:
    if not _NGINX.exists():
        raise NotFound("program", f"{_NGINX} (install nginx-light)")
    folders = {"etc/nginx", "var/lib", "var/lib/nginx", "var/log/nginx"}
    files = {"usr/sbin/nginx": _NGINX.read_bytes()}
    for library in _libraries(_NGINX):
        files[str(library).lstrip("/")] = library.read_bytes()
        folders |= {str(parent) for parent in library.relative_to("/").parents if str(parent) != "."}
    return (
        *(Entry(path=folder) for folder in sorted(folders)),
        *(Entry(path=path, content=content) for path, content in files.items()),
        Entry(path="etc/nginx/nginx.conf", content=_NGINX_CONF.encode(), mode=0o644),
    )


def _libraries(program: Path) -> list[Path]:
    """What the dynamic linker would load for `program`, itself included."""
    shown = subprocess.run(  # a fixed program of this machine
        ["ldd", str(program)], capture_output=True, text=True, check=True, timeout=_LDD_LIMIT_S
    ).stdout
    return sorted({Path(path) for path in re.findall(r"(/\S+) \(0x", shown)})


def _blob(blobs: dict[str, bytes], content: bytes, media_type: str) -> dict[str, object]:
    digest = _digest(content)
    blobs[digest] = content
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description="Build a demo image as an OCI archive.")
    parser.add_argument("name", choices=("busybox", "web", "nginx"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--tag", help="reference to give the image, such as web:2 (default NAME:latest)")
    options = parser.parse_args()
    print(f"{build(options.name, options.out, tag=options.tag)} written to {options.out}")


if __name__ == "__main__":
    main()
