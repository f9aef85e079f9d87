"""One service of a checked project as the body of POST /services/create. Pure.

Fields that say nothing are left out; order and names are those that Docker's `stack deploy` sends.
What Docker's leaves out and we do travels as labels (docs/services.md). Source: the requests of docker 28.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarm.model.quantities import parse_bytes, parse_cpus, parse_duration
from swarm.stack.project import IMAGE_LABEL, NAMESPACE_LABEL

Json = dict[str, Any]
_CONDITIONS = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}
_RESTARTS = {"no": "none", "always": "any", "unless-stopped": "any", "on-failure": "on-failure"}
FILE_MODE = 0o444


class Names:
    """Names in the cluster of what the file names."""

    def __init__(self, stack: str, project: Json) -> None:
        self.stack = stack
        self._project = project

    def scoped(self, key: str) -> str:
        return f"{self.stack}_{key}"

    def of(self, section: str, key: str) -> str:
        """`section` is networks, volumes, secrets or configs."""
        body = self.body(section, key)
        external = body.get("external")
        if isinstance(external, dict):
            return str(external.get("name") or body.get("name") or key)
        return str(body.get("name") or (key if external else self.scoped(key)))

    def body(self, section: str, key: str) -> Json:
        found: Json = self._project.get(section, {}).get(key) or {}
        return found

    def labels(self, labels: Mapping[str, str] | None) -> dict[str, str]:
        return {**(labels or {}), NAMESPACE_LABEL: self.stack}


def said(**values: object) -> Json:
    """The fields that say something; `_` ends a name that Python has for itself."""
    return {key: value for key, value in values.items() if value not in (None, "", 0, [], {}, False)}


def given(**values: object) -> Json:
    """The fields that have a value, also when it is 0 or false: it is not the default."""
    return {key: value for key, value in values.items() if value is not None}


def service_body(key: str, service: Json, names: Names) -> Json:
    deploy: Json = service.get("deploy", {})
    labels = names.labels(deploy.get("labels")) | {IMAGE_LABEL: service["image"]}
    depends_on = _depends_on(service, names)
    if depends_on:
        labels = {"swarm.depends-on": depends_on} | labels
    template = {
        "ContainerSpec": _container(key, service, names),
        "Resources": _resources(service),
        **said(RestartPolicy=_restart_policy(service), LogDriver=_log_driver(service)),
        "Placement": _placement(deploy.get("placement", {})),
        "Networks": _networks(key, service, names),
    }
    return {
        "Name": names.scoped(key),
        "Labels": labels,
        "TaskTemplate": template,
        "Mode": _mode(service),
        **said(
            UpdateConfig=_update_config(deploy.get("update_config")),
            RollbackConfig=_update_config(deploy.get("rollback_config")),
        ),
        "EndpointSpec": said(Mode=deploy.get("endpoint_mode"), Ports=_ports(service)),
    }


def _depends_on(service: Json, names: Names) -> str:
    return ",".join(
        f"{names.scoped(other)}:{_CONDITIONS[each['condition']]}"
        for other, each in sorted(service.get("depends_on", {}).items())
    )


def _container(key: str, service: Json, names: Names) -> Json:
    dns = said(
        Nameservers=service.get("dns"), Search=service.get("dns_search"), Options=service.get("dns_opt")
    )
    return said(
        Image=with_tag(service["image"]),
        Labels=names.labels(_option_labels(service) | service.get("labels", {})),
        Command=service.get("entrypoint"),
        Args=service.get("command"),
        Hostname=service.get("hostname"),
        Env=_environment(service.get("environment", {})),
        Dir=service.get("working_dir"),
        User=service.get("user"),
        Groups=service.get("group_add"),
        StopSignal=service.get("stop_signal"),
        TTY=service.get("tty"),
        OpenStdin=service.get("stdin_open"),
        ReadOnly=service.get("read_only"),
        Mounts=[_mount(volume, names) for volume in service.get("volumes", ())] + _tmpfs(service),
        Healthcheck=_healthcheck(service.get("healthcheck")),
        Hosts=[_host_line(host) for host in service.get("extra_hosts", ())],
        DNSConfig=dns,
        Secrets=_references("secrets", "Secret", service, names),
        Configs=_references("configs", "Config", service, names),
        Sysctls=service.get("sysctls"),
        CapabilityAdd=_capabilities(service.get("cap_add", ())),
        CapabilityDrop=_capabilities(service.get("cap_drop", ())),
        Ulimits=[_ulimit(name, limit) for name, limit in sorted(service.get("ulimits", {}).items())],
        OomScoreAdj=service.get("oom_score_adj"),
    ) | given(Init=service.get("init"), StopGracePeriod=_time(service.get("stop_grace_period")))


def with_tag(image: str) -> str:
    """`image`, with the tag `latest` when it has neither tag nor digest."""
    return image if "@" in image or ":" in image.rsplit("/", 1)[-1] else f"{image}:latest"


def _option_labels(service: Json) -> dict[str, str]:
    """What Swarm's containers may have if the swarm allows it."""
    size = service.get("shm_size")
    found = {
        "swarm.privileged": "true" if service.get("privileged") else "",
        "swarm.device": ",".join(service.get("devices", ())),
        "swarm.security-opt": ",".join(
            each.replace(":", "=", 1) if "=" not in each else each for each in _security(service)
        ),
        "swarm.shm-size": size or "",
        "swarm.pid": "host" if service.get("pid") == "host" else "",
        "swarm.ipc": "host" if service.get("ipc") == "host" else "",
    }
    return {key: value for key, value in found.items() if value}


def _security(service: Json) -> list[str]:
    options: list[str] = service.get("security_opt", [])
    return ["no-new-privileges" if each in _NO_NEW_PRIVILEGES else each for each in options]


_NO_NEW_PRIVILEGES = ("no-new-privileges:true", "no-new-privileges=true")


def _environment(variables: Mapping[str, str | None]) -> list[str]:
    return [key if value is None else f"{key}={value}" for key, value in sorted(variables.items())]


def _host_line(host: str) -> str:
    name, _, address = host.partition(":")
    return f"{address} {name}"


def _capabilities(names: object) -> list[str]:
    assert isinstance(names, list | tuple)
    upper = {str(name).upper() for name in names}
    if "ALL" in upper:
        return ["ALL"]
    return sorted(name if name.startswith("CAP_") else f"CAP_{name}" for name in upper)


def _ulimit(name: str, limit: Any) -> Json:  # noqa: ANN401 - a number or a map
    soft, hard = (limit["soft"], limit["hard"]) if isinstance(limit, dict) else (limit, limit)
    return {"Name": name, "Hard": hard, "Soft": soft}


def _time(text: str | None) -> int | None:
    return None if text is None else parse_duration(text)


# --- files ----------------------------------------------------------------------------------------------


def _mount(volume: Json, names: Names) -> Json:
    mount: Json = {"Type": volume["type"], "Target": volume["target"]}
    if volume.get("read_only"):
        mount["ReadOnly"] = True
    match volume["type"]:
        case "bind":
            bind = volume.get("bind", {})
            options = said(Propagation=bind.get("propagation"), CreateMountpoint=bind.get("create_host_path"))
            return mount | {"Source": volume["source"]} | said(BindOptions=options)
        case "tmpfs":
            tmpfs = volume.get("tmpfs", {})
            return mount | said(TmpfsOptions=said(SizeBytes=tmpfs.get("size"), Mode=tmpfs.get("mode")))
        case _:
            return mount | _volume(volume, names)


def _volume(volume: Json, names: Names) -> Json:
    if "source" not in volume:
        return {}
    body, options = names.body("volumes", volume["source"]), volume.get("volume", {})
    found = said(NoCopy=options.get("nocopy"), Subpath=options.get("subpath"))
    if not body.get("external"):
        found["Labels"] = names.labels(body.get("labels"))
        driver = said(Name=body.get("driver"), Options=body.get("driver_opts"))
        found |= said(DriverConfig=driver)
    return {"Source": names.of("volumes", volume["source"]), "VolumeOptions": found}


def _tmpfs(service: Json) -> list[Json]:
    return [_tmpfs_mount(text) for text in service.get("tmpfs", ())]


def _tmpfs_mount(text: str) -> Json:
    """`/run` or `/run:size=64m,mode=1777`, as checked before."""
    target, _, options = text.partition(":")
    values = dict(option.split("=", 1) for option in options.split(",") if "=" in option)
    size = parse_bytes(values["size"]) if "size" in values else 0
    mode = int(values["mode"], 8) if "mode" in values else 0
    mount: Json = {"Type": "tmpfs", "Target": target}
    if "ro" in options.split(","):
        mount["ReadOnly"] = True
    return mount | said(TmpfsOptions=said(SizeBytes=size, Mode=mode))


def _references(section: str, word: str, service: Json, names: Names) -> list[Json]:
    found = []
    for each in service.get(section, ()):
        file = {
            "Name": each.get("target") or each["source"],
            "UID": each.get("uid", "0"),
            "GID": each.get("gid", "0"),
            "Mode": each.get("mode", FILE_MODE),
        }
        found.append({"File": file, f"{word}Name": names.of(section, each["source"])})
    return sorted(found, key=lambda reference: str(reference[f"{word}Name"]))


# --- how it runs ----------------------------------------------------------------------------------------


def _healthcheck(check: Json | None) -> Json:
    if check is None:
        return {}
    if check.get("disable"):
        return {"Test": ["NONE"]}
    return said(
        Test=check.get("test"),
        Interval=_time(check.get("interval")),
        Timeout=_time(check.get("timeout")),
        StartPeriod=_time(check.get("start_period")),
        StartInterval=_time(check.get("start_interval")),
        Retries=check.get("retries"),
    )


def _log_driver(service: Json) -> Json:
    logging = service.get("logging", {})
    return said(Name=logging.get("driver"), Options=logging.get("options"))


def _resources(service: Json) -> Json:
    resources = service.get("deploy", {}).get("resources", {})
    limits, reserved = resources.get("limits", {}), resources.get("reservations", {})
    cpus, memory = limits.get("cpus", service.get("cpus")), limits.get("memory", service.get("mem_limit"))
    least = reserved.get("memory", service.get("mem_reservation"))
    generic = [
        {"DiscreteResourceSpec": {"Kind": spec["kind"], "Value": spec["value"]}}
        for spec in (each["discrete_resource_spec"] for each in reserved.get("generic_resources", ()))
    ]
    pids = limits.get("pids", service.get("pids_limit", 0))
    return said(
        Limits=said(NanoCPUs=_cpus(cpus), MemoryBytes=_bytes(memory), Pids=max(pids, 0)),
        Reservations=said(
            NanoCPUs=_cpus(reserved.get("cpus")), MemoryBytes=_bytes(least), GenericResources=generic
        ),
    )


def _cpus(text: str | None) -> int:
    return parse_cpus(text) if text else 0


def _bytes(text: str | None) -> int:
    return parse_bytes(text) if text else 0


def _restart_policy(service: Json) -> Json:
    policy = service.get("deploy", {}).get("restart_policy")
    if policy is not None:
        return said(
            Condition=policy.get("condition"),
            MaxAttempts=policy.get("max_attempts"),
            Window=_time(policy.get("window")),
        ) | given(Delay=_time(policy.get("delay")))
    word, _, attempts = service.get("restart", "").partition(":")
    if not word or (word == "no" and _is_job(service)):
        return {}
    return said(Condition=_RESTARTS[word], MaxAttempts=int(attempts or 0))


def _is_job(service: Json) -> bool:
    return str(service.get("deploy", {}).get("mode", "")).endswith("-job")


def _placement(placement: Json) -> Json:
    return said(
        Constraints=placement.get("constraints"),
        Preferences=[
            {"Spread": {"SpreadDescriptor": each["spread"]}}
            for each in placement.get("preferences", ())
            if "spread" in each
        ],
        MaxReplicas=placement.get("max_replicas_per_node"),
    )


def _mode(service: Json) -> Json:
    deploy = service.get("deploy", {})
    replicas = deploy.get("replicas", service.get("scale"))
    match deploy.get("mode", "replicated"):
        case "global":
            return {"Global": {}}
        case "global-job":
            return {"GlobalJob": {}}
        case "replicated-job":
            count = {} if replicas is None else {"MaxConcurrent": replicas, "TotalCompletions": replicas}
            return {"ReplicatedJob": count}
        case _:
            return {"Replicated": {} if replicas is None else {"Replicas": replicas}}


def _update_config(config: Json | None) -> Json | None:
    if config is None:
        return None
    return {"Parallelism": config.get("parallelism", 1)} | said(
        Delay=_time(config.get("delay")),
        FailureAction=config.get("failure_action"),
        Monitor=_time(config.get("monitor")),
        MaxFailureRatio=config.get("max_failure_ratio"),
        Order=config.get("order"),
    )


def _networks(key: str, service: Json, names: Names) -> list[Json]:
    attached = service.get("networks") or {"default": {}}
    found = [
        {"Target": names.of("networks", name), "Aliases": [*each.get("aliases", ()), key]}
        | said(DriverOpts=each.get("driver_opts"))
        for name, each in attached.items()
    ]
    return sorted(found, key=lambda network: str(network["Target"]))


def _ports(service: Json) -> list[Json]:
    found = [
        said(
            Name=port.get("name"),
            Protocol=port["protocol"],
            TargetPort=port["target"],
            PublishedPort=port.get("published"),
            PublishMode=port["mode"],
        )
        for port in service.get("ports", ())
    ]
    return sorted(found, key=lambda port: int(port.get("PublishedPort", 0)))
