"""An image as the rest of a node sees it, and its configuration read from untrusted bytes.

In: the bytes of an image configuration (OCI and Docker agree in what is used here). Out: a frozen `Image`.

Invariant: an `Image` holds only strings, numbers and tuples that were checked one by one; `id` is the digest
of the very bytes that were read.
Source: OCI image-spec config.md; Docker's HEALTHCHECK extension (times in nanoseconds).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from swarm.model.image_reference import is_digest
from swarm.worker.images.errors import InvalidImage

CONFIG_LIMIT = 8 << 20
LAYER_LIMIT = 128
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PORT = re.compile(r"[0-9]{1,5}(?:-[0-9]{1,5})?(?:/(?:tcp|udp|sctp))?")

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHealthcheck:
    """`test` as Docker writes it: `("CMD", ...)`, `("CMD-SHELL", line)`, `("NONE",)`. None: the default."""

    test: tuple[str, ...]
    interval: timedelta | None = None
    timeout: timedelta | None = None
    start_period: timedelta | None = None
    start_interval: timedelta | None = None
    retries: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What a container of this image runs with unless its spec says otherwise."""

    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    healthcheck: ImageHealthcheck | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """`size` counts the bytes of all its files, those of shared layers included."""

    id: str
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    created: datetime
    size: int = 0
    architecture: str
    variant: str = ""
    os: str
    author: str = ""
    config: ImageConfig
    layers: tuple[str, ...]

    @property
    def short_id(self) -> str:
        return self.id.removeprefix("sha256:")[:12]


def parse_image(content: bytes) -> Image:
    """Read an image configuration; names and size are the store's to add.

    Raises:
        InvalidImage: when it is not one, naming the field.
    """
    document = parse_json(content, "image configuration")
    rootfs = _object(document.get("rootfs"), "rootfs")
    layers = _strings(rootfs.get("diff_ids"), "rootfs.diff_ids")
    if not all(is_digest(layer) for layer in layers):
        raise InvalidImage(
            "invalid image configuration: rootfs.diff_ids holds something that is not a digest"
        )
    if len(layers) > LAYER_LIMIT:
        raise InvalidImage(f"invalid image configuration: more than {LAYER_LIMIT} layers")
    return Image(
        id="sha256:" + hashlib.sha256(content).hexdigest(),
        created=_time(document.get("created")),
        architecture=_string(document.get("architecture"), "architecture"),
        variant=_string(document.get("variant"), "variant"),
        os=_string(document.get("os"), "os") or "linux",
        author=_string(document.get("author"), "author"),
        config=_config(_object(document.get("config"), "config")),
        layers=layers,
    )


def parse_json(content: bytes, what: str) -> Json:
    """A JSON object from untrusted bytes."""
    if len(content) > CONFIG_LIMIT:
        raise InvalidImage(f"invalid {what}: larger than {CONFIG_LIMIT} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidImage(f"invalid {what}: not JSON") from error
    if not isinstance(document, dict):
        raise InvalidImage(f"invalid {what}: not a JSON object")
    return document


def _config(config: Json) -> ImageConfig:
    env = _strings(config.get("Env"), "config.Env")
    ports = _keys(config.get("ExposedPorts"), "config.ExposedPorts")
    if any("\0" in text for text in env):
        raise InvalidImage("invalid image configuration: config.Env holds a zero byte")
    if not all(_PORT.fullmatch(port) for port in ports):
        raise InvalidImage(
            "invalid image configuration: config.ExposedPorts holds something that is not a port"
        )
    return ImageConfig(
        env=env,
        cmd=_strings(config.get("Cmd"), "config.Cmd"),
        entrypoint=_strings(config.get("Entrypoint"), "config.Entrypoint"),
        user=_string(config.get("User"), "config.User"),
        working_dir=_string(config.get("WorkingDir"), "config.WorkingDir"),
        labels=_labels(config.get("Labels")),
        exposed_ports=ports,
        volumes=_keys(config.get("Volumes"), "config.Volumes"),
        stop_signal=_string(config.get("StopSignal"), "config.StopSignal"),
        healthcheck=_healthcheck(config.get("Healthcheck")),
    )


def _healthcheck(value: object) -> ImageHealthcheck | None:
    check = _object(value, "config.Healthcheck")
    test = _strings(check.get("Test"), "config.Healthcheck.Test")
    if not test:
        return None
    return ImageHealthcheck(
        test=test,
        interval=_nanoseconds(check.get("Interval")),
        timeout=_nanoseconds(check.get("Timeout")),
        start_period=_nanoseconds(check.get("StartPeriod")),
        start_interval=_nanoseconds(check.get("StartInterval")),
        retries=_whole(check.get("Retries")) or None,
    )


def _nanoseconds(value: object) -> timedelta | None:
    number = _whole(value)
    return timedelta(microseconds=number // 1000) if number else None


def _whole(value: object) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise InvalidImage("invalid image configuration: config.Healthcheck holds a number out of range")
    return value


def _object(value: object, name: str) -> Json:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidImage(f"invalid image configuration: {name} is not an object")
    return value


def _keys(value: object, name: str) -> tuple[str, ...]:
    """Docker writes sets as objects with empty values."""
    return tuple(sorted(_object(value, name)))


def _string(value: object, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise InvalidImage(f"invalid image configuration: {name} is not a string")
    return value


def _strings(value: object, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidImage(f"invalid image configuration: {name} is not a list")
    return tuple(_string(item, name) for item in value)


def _labels(value: object) -> dict[str, str]:
    return {key: _string(item, "config.Labels") for key, item in _object(value, "config.Labels").items()}


def _time(value: object) -> datetime:
    """A missing or unreadable time is the epoch, as Docker shows it; it decides nothing."""
    if not isinstance(value, str):
        return _EPOCH
    try:
        # Python reads at most six digits of a second, Go writes up to nine.
        moment = datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", value))
    except ValueError:
        return _EPOCH
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
