"""The options of scenario commands in, specs and their parts out."""

from __future__ import annotations

from datetime import timedelta

from swarm.base.ids import SecretID
from swarm.model.constraint import check_placement
from swarm.model.generic_resources import parse_node_resources
from swarm.model.options import service_options
from swarm.model.specs import (
    ContainerSpec,
    FileTarget,
    GlobalJob,
    GlobalMode,
    ReplicatedJob,
    ReplicatedMode,
    SecretReference,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.types import (
    EndpointSpec,
    FailureAction,
    NetworkAttachmentConfig,
    Placement,
    PlacementPreference,
    Platform,
    PortConfig,
    Protocol,
    PublishMode,
    ResourceRequirements,
    Resources,
    RestartCondition,
    RestartPolicy,
    SpreadOver,
    UpdateConfig,
    UpdateOrder,
)

UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
Options = dict[str, list[str]]


def service_spec(name: str, options: Options) -> ServiceSpec:
    reserved = Resources(
        nano_cpus=nano(one(options, "reserve_cpu", "0")),
        memory_bytes=size(one(options, "reserve_memory", "0")),
        generic_resources=parse_node_resources(text.replace(":", "=") for text in options.get("generic", ())),
    )
    platform = one(options, "platform", "")
    placement = Placement(
        constraints=tuple(options.get("constraint", ())),
        preferences=tuple(
            PlacementPreference(spread=SpreadOver(spread_descriptor=text))
            for text in options.get("prefer", ())
        ),
        max_replicas=int(one(options, "max_per_node", "0")),
        platforms=(Platform(os="linux", architecture=platform),) if platform else (),
    )
    check_placement(placement)
    template = TaskSpec(
        container_spec=ContainerSpec(
            image=one(options, "image", f"{name}:1"),
            secrets=tuple(secret_reference(text) for text in options.get("secret", ())),
        ),
        resources=ResourceRequirements(reservations=reserved),
        restart_policy=RestartPolicy(
            condition=RestartCondition(one(options, "restart", "any")),
            delay=seconds(one(options, "delay", "5s")),
            max_attempts=int(one(options, "attempts", "0")),
            window=seconds(one(options, "window", "0s")),
        ),
        placement=placement,
        networks=tuple(NetworkAttachmentConfig(target=text) for text in options.get("network", ())),
    )
    ports = tuple(port(text) for text in options.get("publish", ()))
    return ServiceSpec(
        name=name,
        task_template=template,
        labels=option_labels(options),
        mode=service_mode(options),
        endpoint_spec=EndpointSpec(mode=one(options, "endpoint", ""), ports=ports),
        update_config=update_config(options, ""),
        rollback_config=update_config(options, "rollback_"),
    )


def secret_reference(text: str) -> SecretReference:
    """`db` follows the secret, `db@3` is held at a version."""
    name, _, version = text.partition("@")
    file = FileTarget(name=name)
    return SecretReference(
        secret_id=SecretID(f"{name}-id"), secret_name=name, file=file, version=int(version or 0)
    )


def update_config(options: Options, prefix: str) -> UpdateConfig | None:
    """`parallelism=2 wait=10s order=start-first …`, and `rollback_parallelism=2 …`."""
    names = {f"{prefix}{name}" for name in ("parallelism", "wait", "order", "monitor", "ratio", "on_failure")}
    if not names & options.keys():
        return None
    return UpdateConfig(
        parallelism=int(one(options, f"{prefix}parallelism", "1")),
        delay=seconds(one(options, f"{prefix}wait", "0s")),
        order=UpdateOrder(one(options, f"{prefix}order", "stop-first")),
        monitor=seconds(one(options, f"{prefix}monitor", "0s")),
        max_failure_ratio=float(one(options, f"{prefix}ratio", "0")),
        failure_action=FailureAction(one(options, f"{prefix}on_failure", "pause")),
    )


def service_mode(options: Options) -> ServiceMode:
    match one(options, "mode", "replicated"):
        case "global":
            return ServiceMode(global_=GlobalMode())
        case "global-job":
            return ServiceMode(global_job=GlobalJob())
        case "replicated-job":
            total = int(one(options, "replicas", "1"))
            concurrent = int(one(options, "concurrent", str(total)))
            return ServiceMode(
                replicated_job=ReplicatedJob(max_concurrent=concurrent, total_completions=total)
            )
        case _:
            return ServiceMode(replicated=ReplicatedMode(replicas=int(one(options, "replicas", "1"))))


def option_labels(options: Options) -> dict[str, str]:
    """`option=exclusive=true` is the label `swarm.exclusive=true`."""
    found = dict(text.split("=", 1) for text in options.get("option", ()))
    ours = {f"swarm.{key}": value for key, value in found.items()}
    service_options(ours)
    return ours


def one(options: Options, key: str, default: str) -> str:
    return options.get(key, [default])[-1]


def labels(options: Options) -> dict[str, str]:
    return dict(text.split(":", 1) for text in options.get("label", ()))


def nano(text: str) -> int:
    return int(float(text) * 1_000_000_000)


def size(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else int(text)


def seconds(text: str) -> timedelta:
    return timedelta(seconds=float(text.removesuffix("s")))


def port(text: str) -> PortConfig:
    """`8080:80`, `80` (published dynamically), with `/udp` or `/sctp`, and `/host` behind."""
    numbers, *flags = text.split("/")
    published, _, target = numbers.rpartition(":")
    return PortConfig(
        protocol=next((protocol for protocol in Protocol if protocol in flags), Protocol.TCP),
        target_port=int(target),
        published_port=int(published or 0),
        publish_mode=PublishMode.HOST if "host" in flags else PublishMode.INGRESS,
    )
