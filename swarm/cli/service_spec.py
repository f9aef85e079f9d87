"""The flags of `service create` in, the ServiceSpec of the API out. Pure; only what was asked for is set."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from swarm.base.errors import InvalidArgument

Json = dict[str, Any]


def service_spec(
    image: str, arguments: Sequence[str], flags: Mapping[str, Any], environment: Mapping[str, str]
) -> Json:
    """The spec to post. `environment` is the client's, for `--env KEY`.

    Raises:
        InvalidArgument: flags that contradict each other.
    """
    template: Json = {
        "ContainerSpec": _container(image, arguments, flags, environment),
        "Resources": {
            "Limits": _resources(flags["limit_cpu"], flags["limit_memory"], flags["limit_pids"]),
            "Reservations": _resources(flags["reserve_cpu"], flags["reserve_memory"], None),
        },
        "Placement": _placement(flags),
        "ForceUpdate": 0,
    }
    restart = _restart(flags)
    if restart:
        template["RestartPolicy"] = restart
    spec: Json = {
        "Labels": labels_of(flags["label"]),
        "TaskTemplate": template,
        "Mode": _mode(flags),
        "EndpointSpec": {"Mode": "vip"},
    }
    if flags["name"]:
        spec["Name"] = flags["name"]
    ports = [port for group in flags["publish"] for port in group]
    if ports:
        spec["EndpointSpec"]["Ports"] = ports
    return spec


def with_tag(image: str) -> str:
    """`image`, with the tag `latest` when it has neither tag nor digest."""
    return image if "@" in image or ":" in image.rsplit("/", 1)[-1] else f"{image}:latest"


def parse_label(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not key:
        raise ValueError(f"invalid label '{text}': empty name")
    return key, value


def parse_env(text: str) -> str:
    if not text or text.startswith("="):
        raise ValueError(f"invalid environment variable: {text}")
    return text


def parse_command(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{error} in command") from None


def parse_constraint(text: str) -> str:
    if not re.search(r"==|!=|\sin\s*\(|exists$", text):  # whether it can be met, the manager says
        raise ValueError("constraint expected one operator from ==, !=")
    return text


def labels_of(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    return dict(pairs)


def _container(
    image: str, arguments: Sequence[str], flags: Mapping[str, Any], environment: Mapping[str, str]
) -> Json:
    env: dict[str, str] = {}
    for item in flags["env"]:
        key, equals, _ = item.partition("=")
        if equals:
            env[key] = item
        else:
            # A variable that this shell does not have is not set in the container either, but overrides.
            env[key] = f"{key}={environment[key]}" if key in environment else key
    chosen: Json = {
        "Image": with_tag(image),
        "Labels": labels_of(flags["container_label"]),
        "Command": flags["entrypoint"],
        "Args": list(arguments),
        "Env": list(env.values()),
        "Dir": flags["workdir"],
        "User": flags["user"],
        "StopSignal": flags["stop_signal"],
        "Mounts": list(flags["mount"]),
    }
    spec = {key: value for key, value in chosen.items() if value}
    if flags["stop_grace_period"] is not None:
        spec["StopGracePeriod"] = flags["stop_grace_period"]
    return spec


def _resources(nano_cpus: int | None, memory_bytes: int | None, pids: int | None) -> Json:
    found = {"NanoCPUs": nano_cpus, "MemoryBytes": memory_bytes, "Pids": pids}
    return {key: value for key, value in found.items() if value}


def _restart(flags: Mapping[str, Any]) -> Json:
    found = {
        "Condition": flags["restart_condition"],
        "Delay": flags["restart_delay"],
        "MaxAttempts": flags["restart_max_attempts"],
    }
    return {key: value for key, value in found.items() if value is not None}


def _placement(flags: Mapping[str, Any]) -> Json:
    placement: Json = {}
    if flags["constraint"]:
        placement["Constraints"] = list(flags["constraint"])
    if flags["replicas_max_per_node"]:
        placement["MaxReplicas"] = flags["replicas_max_per_node"]
    return placement


def _mode(flags: Mapping[str, Any]) -> Json:
    replicas = flags["replicas"]
    match flags["mode"]:
        case "replicated":
            return {"Replicated": {} if replicas is None else {"Replicas": replicas}}
        case "global":
            if replicas is not None:
                raise InvalidArgument("replicas can only be used with replicated mode")
            if flags["replicas_max_per_node"]:
                raise InvalidArgument("replicas-max-per-node can only be used with replicated mode")
            return {"Global": {}}
        case other:
            raise InvalidArgument(f"Unknown mode: {other}, only replicated and global supported")
