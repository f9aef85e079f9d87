"""`inspect --pretty`: an object of the API in, the text that Docker prints for it out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from swarm.cli.rows import mode_of
from swarm.cli.values import binary_size, format_duration, go_time, human_duration, parse_time

Json = Mapping[str, Any]


def pretty_service(service: Json, now: datetime, networks: Sequence[str] = ()) -> str:
    spec = service["Spec"]
    template = spec["TaskTemplate"]
    lines = ["", f"ID:\t\t{service['ID']}", f"Name:\t\t{spec['Name']}"]
    if spec.get("Labels"):
        lines += ["Labels:", *_pairs(spec["Labels"], " ")]
    lines += _mode(service)
    lines += _update_status(service.get("UpdateStatus") or {}, now)
    lines += _placement(template.get("Placement") or {})
    lines += _update_config("UpdateConfig", spec.get("UpdateConfig"))
    lines += _update_config("RollbackConfig", spec.get("RollbackConfig"))
    lines += _container(template["ContainerSpec"])
    lines += _mounts(template["ContainerSpec"].get("Mounts") or ())
    lines += _references(template["ContainerSpec"], "Config")
    lines += _references(template["ContainerSpec"], "Secret")
    lines += _log_driver(template.get("LogDriver"))
    lines += _resources(template.get("Resources") or {})
    lines += [f"Networks: {' '.join(networks)} "] if networks else []
    lines += _endpoint(service)
    lines += _health(template["ContainerSpec"].get("Healthcheck"))
    return "\n".join(lines) + "\n\n"


def _mode(service: Json) -> list[str]:
    """Docker's own text says nothing after the colon for jobs."""
    mode, word = service["Spec"]["Mode"], mode_of(service)
    lines = [f"Service Mode:\t{word.replace('-', ' ').capitalize()}"]
    if "Replicated" in mode:
        lines.append(f" Replicas:\t{mode['Replicated'].get('Replicas', 1)}")
    if "ReplicatedJob" in mode:
        lines.append(f" Max Concurrent: {mode['ReplicatedJob'].get('MaxConcurrent', 1)}")
        lines.append(f" Total Completions: {mode['ReplicatedJob'].get('TotalCompletions', 1)}")
    return lines


def _pairs(labels: Mapping[str, str], prefix: str) -> list[str]:
    return [f"{prefix}{key}={value}" if value else f"{prefix}{key}" for key, value in sorted(labels.items())]


def _update_status(status: Json, now: datetime) -> list[str]:
    if not status.get("State"):
        return []
    lines = ["UpdateStatus:", f" State:\t\t{status['State']}"]
    for key, name in (("StartedAt", "Started:"), ("CompletedAt", "Completed:")):
        if status.get(key):
            age = human_duration((now - parse_time(status[key])).total_seconds()).lower()
            lines.append(f" {name}\t{age} ago")
    return [*lines, f" Message:\t{status.get('Message', '')}"]


def _placement(placement: Json) -> list[str]:
    lines = ["Placement:"]
    if placement.get("Constraints"):
        lines.append(f" Constraints:\t[{' '.join(placement['Constraints'])}]")
    if placement.get("Preferences"):
        spread = " ".join(f"spread={each['Spread']['SpreadDescriptor']}" for each in placement["Preferences"])
        lines.append(f" Preferences:   [{spread}]")
    if placement.get("MaxReplicas"):
        lines.append(f" Max Replicas Per Node:   {placement['MaxReplicas']}")
    return lines


def _update_config(title: str, config: Json | None) -> list[str]:
    if not config:
        return []
    lines = [f"{title}:", f" Parallelism:\t{config.get('Parallelism', 0)}"]
    if config.get("Delay"):
        lines.append(f" Delay:\t\t{format_duration(config['Delay'])}")
    lines.append(f" On failure:\t{config.get('FailureAction', 'pause')}")
    if config.get("Monitor"):
        lines.append(f" Monitoring Period: {format_duration(config['Monitor'])}")
    lines.append(f" Max failure ratio: {config.get('MaxFailureRatio', 0):g}")
    if title == "UpdateConfig" or config.get("Order"):
        noun = "Update" if title == "UpdateConfig" else "Rollback"
        lines.append(f"{f' {noun} order:':20}{config.get('Order', 'stop-first')}")
    return lines


def _container(spec: Json) -> list[str]:
    lines = ["ContainerSpec:", f" Image:\t\t{spec.get('Image', '')}"]
    for key, name in (("Command", "Command"), ("Args", "Args"), ("Env", "Env")):
        if spec.get(key):
            lines.append(f" {name}:\t\t" + "".join(f"{word} " for word in spec[key]))
    if spec.get("Dir"):
        lines.append(f" Dir:\t\t{spec['Dir']}")
    if spec.get("Init") is not None:
        lines.append(f" Init:\t\t{str(spec['Init']).lower()}")
    if spec.get("User"):
        lines.append(f" User: {spec['User']}")
    return lines + _rights(spec)


def _rights(spec: Json) -> list[str]:
    lines = []
    add, drop = spec.get("CapabilityAdd") or (), spec.get("CapabilityDrop") or ()
    if add or drop:
        lines.append("Capabilities:")
    lines += [f" Add: {', '.join(add)}"] if add else []
    lines += [f" Drop: {', '.join(drop)}"] if drop else []
    if spec.get("Sysctls"):
        lines += ["SysCtls:", *(f" {key}: {value}" for key, value in sorted(spec["Sysctls"].items()))]
    if spec.get("Ulimits"):
        limits = sorted((each["Name"], f"{each['Soft']}:{each['Hard']}") for each in spec["Ulimits"])
        lines += ["Ulimits:", *(f" {name}: {value}" for name, value in limits)]
    return lines


def _log_driver(driver: Json | None) -> list[str]:
    if not driver:
        return []
    lines = ["Log Driver:", f" Name:\t\t{driver.get('Name', '')}"]
    if driver.get("Options"):
        lines += [
            " LogOpts:",
            *(f"  {key}:       {value}" for key, value in sorted(driver["Options"].items())),
        ]
    return [*lines, ""]


def _health(check: Json | None) -> list[str]:
    if not check:
        return []
    lines = [
        " Healthcheck:",
        f"  Interval = {format_duration(check.get('Interval', 0))}",
        f"  Retries = {check.get('Retries', 0)}",
        f"  StartPeriod =\t{format_duration(check.get('StartPeriod', 0))}",
        f"  Timeout =\t{format_duration(check.get('Timeout', 0))}",
    ]
    if check.get("Test"):
        lines += ["  Tests:", *(f"\t Test = {word}" for word in check["Test"])]
        lines[-1] += " "
    return lines


def _mounts(mounts: Sequence[Json]) -> list[str]:
    lines = ["Mounts:"] if mounts else []
    for mount in mounts:
        lines.append(f" Target:\t{mount['Target']}")
        lines.append(f"  Source:\t{mount.get('Source', '')}")
        lines.append(f"  ReadOnly:\t{str(mount.get('ReadOnly', False)).lower()}")
        lines.append(f"  Type:\t\t{mount['Type']}")
    return lines


def _references(container: Json, kind: str) -> list[str]:
    found = container.get(f"{kind}s") or ()
    lines = [f"{kind}s:"] if found else []
    for reference in found:
        lines.append(f" Target:\t{(reference.get('File') or {}).get('Name', '')}")
        lines.append(f"  Source:\t{reference[f'{kind}Name']}")
    return lines


def _resources(resources: Json) -> list[str]:
    lines = ["Resources:"]
    for key in ("Reservations", "Limits"):
        found = resources.get(key) or {}
        if found:
            lines.append(f" {key}:")
        if found.get("NanoCPUs"):
            lines.append(f"  CPU:\t\t{found['NanoCPUs'] / 1e9:g}")
        if found.get("MemoryBytes"):
            lines.append(f"  Memory:\t{binary_size(found['MemoryBytes'])}")
        if found.get("Pids"):
            lines.append(f"  PIDs:\t\t{found['Pids']}")
    return lines


def _endpoint(service: Json) -> list[str]:
    endpoint = service.get("Endpoint") or {}
    mode = (endpoint.get("Spec") or service["Spec"].get("EndpointSpec") or {}).get("Mode", "")
    lines = [f"Endpoint Mode:\t{mode}"] if mode else []
    ports = endpoint.get("Ports") or ()
    if ports:
        lines.append("Ports:")
    for port in ports:
        lines.append(f" PublishedPort = {port.get('PublishedPort', 0)}")
        lines.append(f"  Protocol = {port['Protocol']}")
        lines.append(f"  TargetPort = {port['TargetPort']}")
        lines.append(f"  PublishMode = {port.get('PublishMode', 'ingress')}")
    if ports:
        lines[-1] += " "
    return lines


def pretty_node(node: Json) -> str:
    spec, status, description = node["Spec"], node["Status"], node["Description"]
    platform = description.get("Platform") or {}
    lines = [f"ID:\t\t\t{node['ID']}"]
    if spec.get("Name"):
        lines.append(f"Name:\t\t\t{spec['Name']}")
    if spec.get("Labels"):
        lines += ["Labels:", *_pairs(spec["Labels"], " - ")]
    lines += [
        f"Hostname:              \t{description.get('Hostname', '')}",
        # Docker prints this one in lower case.
        f"Joined at:             \t{go_time(node['CreatedAt']).lower()}",
        "Status:",
        f" State:\t\t\t{status['State'].capitalize()}",
    ]
    if status.get("Message"):
        lines.append(f" Message:\t\t{status['Message'].capitalize()}")
    lines.append(f" Availability:         \t{spec['Availability'].capitalize()}")
    if status.get("Addr"):
        lines.append(f" Address:\t\t{status['Addr']}")
    lines += _manager(node.get("ManagerStatus"))
    lines += ["Platform:", f" Operating System:\t{platform.get('OS', '')}"]
    lines.append(f" Architecture:\t\t{platform.get('Architecture', '')}")
    lines += _node_resources(description.get("Resources") or {})
    lines += _engine(description.get("Engine") or {})
    lines += _tls(description.get("TLSInfo") or {})
    return "\n".join(lines) + "\n"


def _manager(manager: Json | None) -> list[str]:
    if manager is None:
        return []
    leader = "Yes" if manager.get("Leader") else "No"
    return [
        "Manager Status:",
        f" Address:\t\t{manager.get('Addr', '')}",
        f" Raft Status:\t\t{manager.get('Reachability', '').capitalize()}",
        f" Leader:\t\t{leader}",
    ]


def _node_resources(resources: Json) -> list[str]:
    return [
        "Resources:",
        f" CPUs:\t\t\t{resources.get('NanoCPUs', 0) // 1_000_000_000}",
        f" Memory:\t\t{binary_size(resources.get('MemoryBytes', 0))}",
    ]


def _engine(engine: Json) -> list[str]:
    plugins: dict[str, list[str]] = {}
    for plugin in engine.get("Plugins") or ():
        plugins.setdefault(plugin["Type"], []).append(plugin["Name"])
    lines = ["Plugins:"] if plugins else []
    lines += [f" {kind}:\t\t{', '.join(names)}" for kind, names in sorted(plugins.items())]
    lines.append(f"Engine Version:\t\t{engine.get('EngineVersion', '')}")
    if engine.get("Labels"):
        lines += ["Engine Labels:", *_pairs(engine["Labels"], " - ")]
    return lines


def _tls(tls: Json) -> list[str]:
    if not tls.get("TrustRoot"):
        return []
    return [
        "TLS Info:",
        " TrustRoot:",
        tls["TrustRoot"],
        f" Issuer Subject:\t{tls.get('CertIssuerSubject', '')}",
        f" Issuer Public Key:\t{tls.get('CertIssuerPublicKey', '')}",
    ]
