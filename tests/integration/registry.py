"""A registry of its own for a test: Debian's docker-registry on an address of this machine."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER, PASSWORD = "ann", "open sesame"
_HASH = "$2b$04$YtPT84yThQ93PG1gcjpn5ey7dhRcqZAbqY4bQWZrc2exfY1itQdhW"


@contextmanager
def serving(folder: Path, address: str = "127.0.0.1", *, login: bool = False) -> Iterator[str]:
    """Its host and port; with `login`, for USER with PASSWORD only."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    folder.mkdir()
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "files")}},
        "http": {"addr": f"{address}:{port}"},
    }
    if login:
        (folder / "passwords").write_text(f"{USER}:{_HASH}\n")
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "passwords")}}
    (folder / "config.yml").write_text(json.dumps(config))
    command = ["docker-registry", "serve", str(folder / "config.yml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(address, port)
            yield f"{address}:{port}"
        finally:
            process.kill()


def push(archive: Path, reference: str, *, login: bool = False) -> None:
    """An OCI archive's image, as `HOST:PORT/NAME:TAG`."""
    credentials = ("--dest-creds", f"{USER}:{PASSWORD}") if login else ("--dest-no-creds",)
    flags = ("--quiet", "--dest-tls-verify=false", *credentials)
    subprocess.run(
        ["skopeo", "copy", *flags, f"oci-archive:{archive}", f"docker://{reference}"], check=True, timeout=30
    )


def _wait_for(address: str, port: int) -> None:
    deadline = time.monotonic() + 20  # noqa: TID251 - another program's start sends no event
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
            return
        assert time.monotonic() < deadline, "the registry does not start"  # noqa: TID251 - see above
        time.sleep(0.02)
