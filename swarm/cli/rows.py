"""Objects of the API in, table rows out: the columns of Docker's listings. Pure; `now` is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from swarm.cli.render import Row, Table
from swarm.cli.resolve import slot_of
from swarm.cli.root_rotation import tls_status
from swarm.cli.values import go_time, human_duration, human_size, natural_key, parse_time

Json = Mapping[str, Any]

SHORT_ID = 12
_ERROR_LENGTH = 30

NODES = Table(
    type_name="*node.nodeContext",
    columns=("_Marked", "Hostname", "Status", "Availability", "ManagerStatus", "EngineVersion"),
    headers={
        "_Marked": "ID  ",
        "ID": "ID",
        "Self": "",
        "Hostname": "HOSTNAME",
        "Status": "STATUS",
        "Availability": "AVAILABILITY",
        "ManagerStatus": "MANAGER STATUS",
        "EngineVersion": "ENGINE VERSION",
        "TLSStatus": "TLS STATUS",
    },
)
SERVICES = Table(
    type_name="*service.serviceContext",
    columns=("ID", "Name", "Mode", "Replicas", "Image", "Ports"),
    headers={k: k.upper() for k in ("ID", "Name", "Mode", "Replicas", "Image", "Ports")},
)
TASKS = Table(
    type_name="*task.taskContext",
    columns=("ID", "Name", "Image", "Node", "DesiredState", "CurrentState", "Error", "Ports"),
    headers={
        "ID": "ID",
        "Name": "NAME",
        "Image": "IMAGE",
        "Node": "NODE",
        "DesiredState": "DESIRED STATE",
        "CurrentState": "CURRENT STATE",
        "Error": "ERROR",
        "Ports": "PORTS",
    },
)
STACKS = Table(
    type_name="*formatter.stackContext",
    columns=("Name", "Services"),
    headers={"Name": "NAME", "Services": "SERVICES"},
)
IMAGES = Table(
    type_name="*formatter.imageContext",
    columns=("Repository", "Tag", "ID", "CreatedSince", "Size"),
    headers={
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "Digest": "DIGEST",
        "ID": "IMAGE ID",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
        "Containers": "CONTAINERS",
        "SharedSize": "SHARED SIZE",
        "UniqueSize": "UNIQUE SIZE",
        "VirtualSize": "SIZE",
    },
)
NETWORKS = Table(
    type_name="*network.networkContext",
    columns=("ID", "Name", "Driver", "Scope"),
    headers={
        "ID": "NETWORK ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "IPv4": "IPV4",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Labels": "LABELS",
        "CreatedAt": "CREATED AT",
    },
)
NETWORK_USE = Table(
    type_name=NETWORKS.type_name,
    columns=("ID", "Name", "Driver", "Tasks", "Addresses"),
    headers={**NETWORKS.headers, "Tasks": "TASKS", "Addresses": "ADDRESSES"},
)
CONTAINERS = Table(
    type_name="*formatter.ContainerContext",
    columns=("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"),
    headers={
        "ID": "CONTAINER ID",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "RunningFor": "CREATED",
        "CreatedAt": "CREATED AT",
        "Status": "STATUS",
        "State": "STATE",
        "Ports": "PORTS",
        "Names": "NAMES",
        "Labels": "LABELS",
        "Networks": "NETWORKS",
        "Mounts": "MOUNTS",
        "LocalVolumes": "LOCAL VOLUMES",
    },
)


def node_rows(nodes: Iterable[Json], self_id: str, desired: Json) -> list[Row]:
    """Sorted by host name; `desired` is the TLSInfo that every node is to have."""
    rows: list[Row] = []
    for node in sorted(nodes, key=lambda n: natural_key(n["Description"].get("Hostname", ""))):
        manager = node.get("ManagerStatus") or {}
        role = "Leader" if manager.get("Leader") else manager.get("Reachability", "").capitalize()
        is_self = node["ID"] == self_id
        rows.append(
            {
                "_Marked": f"{node['ID']} {'*' if is_self else ' '}",
                "ID": node["ID"],
                "Self": is_self,
                "Hostname": node["Description"].get("Hostname", ""),
                "Status": node["Status"]["State"].capitalize(),
                "Availability": node["Spec"]["Availability"].capitalize(),
                "ManagerStatus": role,
                "EngineVersion": (node["Description"].get("Engine") or {}).get("EngineVersion", ""),
                "TLSStatus": tls_status(node, desired),
            }
        )
    return rows


def service_rows(services: Iterable[Json]) -> list[Row]:
    """Sorted by name."""
    return [
        {
            "ID": service["ID"][:SHORT_ID],
            "Name": service["Spec"]["Name"],
            "Mode": mode_of(service),
            "Replicas": _replicas(service),
            "Image": familiar_image(service["Spec"]["TaskTemplate"]["ContainerSpec"].get("Image", "")),
            "Ports": published_ports((service.get("Endpoint") or {}).get("Ports") or ()),
        }
        for service in sorted(services, key=lambda s: natural_key(s["Spec"]["Name"]))
    ]


def mode_of(service: Json) -> str:
    """As users write it."""
    words = {"Global": "global", "ReplicatedJob": "replicated-job", "GlobalJob": "global-job"}
    return next((words[key] for key in service["Spec"]["Mode"] if key in words), "replicated")


def _replicas(service: Json) -> str:
    status = service.get("ServiceStatus") or {}
    desired, completed = status.get("DesiredTasks", 0), status.get("CompletedTasks", 0)
    text = f"{status.get('RunningTasks', 0)}/{desired}"
    if mode_of(service) == "replicated-job":
        total = service["Spec"]["Mode"]["ReplicatedJob"].get("TotalCompletions", 0)
        return f"{text} ({completed}/{total} completed)"
    if mode_of(service) == "global-job":
        return f"{text} ({completed}/{desired + completed} completed)"
    most = (service["Spec"]["TaskTemplate"].get("Placement") or {}).get("MaxReplicas", 0)
    return f"{text} (max {most} per node)" if most and mode_of(service) == "replicated" else text


def familiar_image(image: str) -> str:
    """Without the digest when there is a tag, and without the default registry and user."""
    name, _, digest = image.partition("@")
    for prefix in ("docker.io/library/", "docker.io/"):
        name = name.removeprefix(prefix)
    has_tag = ":" in name.rsplit("/", 1)[-1]
    return name if has_tag or not digest else f"{name}@{digest}"


def published_ports(ports: Sequence[Json]) -> str:
    """`*:8080-8082->80-82/tcp, *:53->53/udp`: ingress ports, neighbours joined into ranges."""
    ordered = sorted(ports, key=lambda p: (p["Protocol"], p.get("PublishedPort", 0)))
    ranges: list[list[Json]] = []
    for port in (p for p in ordered if p.get("PublishMode", "ingress") == "ingress"):
        if ranges and _continues(ranges[-1], port):
            ranges[-1].append(port)
        else:
            ranges.append([port])
    return ", ".join(
        f"*:{_span(run, 'PublishedPort')}->{_span(run, 'TargetPort')}/{run[0]['Protocol']}" for run in ranges
    )


def _continues(run: Sequence[Json], port: Json) -> bool:
    last = run[-1]
    published = port.get("PublishedPort", 0) - last.get("PublishedPort", 0)
    target = port["TargetPort"] - last["TargetPort"]
    is_range = last["TargetPort"] != run[0]["TargetPort"]
    same_target = target == 0 and not is_range
    return port["Protocol"] == last["Protocol"] and 0 <= published <= 1 and (target == 1 or same_target)


def _span(run: Sequence[Json], key: str) -> str:
    first, last = run[0].get(key, 0), run[-1].get(key, 0)
    return str(first) if first == last else f"{first}-{last}"


def task_name(task: Json, service_name: str) -> str:
    """`web.1`; a global service's task has its node's id instead of a slot."""
    return f"{service_name}.{slot_of(task) or task.get('NodeID', '')}"


def task_rows(
    tasks: Sequence[Json],
    names: Mapping[str, str],
    now: datetime,
    *,
    trunc: bool,
    indent: bool,
) -> list[Row]:
    """Sorted by name, newest first; older tasks of a slot are indented. `names` resolves ids."""
    named = [(task_name(t, names.get(t["ServiceID"], t["ServiceID"])), t) for t in tasks]
    named.sort(key=lambda pair: pair[1]["CreatedAt"], reverse=True)
    named.sort(key=lambda pair: natural_key(pair[0]))
    before = ["", *(name for name, _ in named)]
    rows: list[Row] = []
    for previous, (name, task) in zip(before, named, strict=False):
        status = task["Status"]
        age = human_duration((now - parse_time(status["Timestamp"])).total_seconds()).lower()
        image = task["Spec"].get("ContainerSpec", {}).get("Image", "")
        node_id = task.get("NodeID", "")
        rows.append(
            {
                "ID": task["ID"][:SHORT_ID] if trunc else task["ID"],
                "Name": f" \\_ {name}" if indent and previous == name else name,
                "Image": familiar_image(image) if trunc else image,
                "Node": names.get(node_id, node_id),
                "DesiredState": task["DesiredState"].capitalize(),
                "CurrentState": f"{status['State'].capitalize()} {age} ago",
                "Error": _quoted_error(status.get("Err", ""), trunc=trunc),
                "Ports": ",".join(
                    f"*:{p['PublishedPort']}->{p['TargetPort']}/{p['Protocol']}"
                    for p in (status.get("PortStatus") or {}).get("Ports") or ()
                ),
            }
        )
    return rows


def _quoted_error(error: str, *, trunc: bool) -> str:
    if trunc and len(error) > _ERROR_LENGTH:
        error = error[: _ERROR_LENGTH - 1] + "…"
    return f'"{error}"' if error else ""


def stack_rows(counts: Mapping[str, int]) -> list[Row]:
    """Sorted by name."""
    return [{"Name": name, "Services": str(counts[name])} for name in sorted(counts, key=natural_key)]


def image_rows(images: Iterable[Json], now: datetime, *, trunc: bool) -> list[Row]:
    """One row per tag, newest image first; `<none>` where an image has lost its name."""
    rows: list[Row] = []
    for image in sorted(images, key=lambda i: i["Created"], reverse=True):
        digests = {d.partition("@")[0]: d.partition("@")[2] for d in image.get("RepoDigests") or ()}
        plain = image["Id"].removeprefix("sha256:")[:SHORT_ID] if trunc else image["Id"]
        created = datetime.fromtimestamp(image["Created"], tz=now.tzinfo)
        tags = image.get("RepoTags") or [f"{next(iter(digests), '<none>')}:<none>"]
        for tagged in tags:
            repository, _, tag = tagged.rpartition(":")
            rows.append(
                {
                    "Repository": repository,
                    "Tag": tag,
                    "Digest": digests.get(repository, "<none>"),
                    "ID": plain,
                    "CreatedSince": human_duration((now - created).total_seconds()) + " ago",
                    "CreatedAt": created.strftime("%Y-%m-%d %H:%M:%S +0000 UTC"),
                    "Size": human_size(image["Size"]),
                    "Containers": "N/A",
                    "SharedSize": "N/A",
                    "UniqueSize": "N/A",
                    "VirtualSize": human_size(image["Size"], 4),
                }
            )
    return rows


def network_rows(networks: Iterable[Json], *, trunc: bool) -> list[Row]:
    return [
        {
            "ID": network["Id"][:SHORT_ID] if trunc else network["Id"],
            "Name": network["Name"],
            "Driver": network["Driver"],
            "Scope": network["Scope"],
            "IPv4": str(network.get("EnableIPv4", True)).lower(),
            "IPv6": str(network.get("EnableIPv6", False)).lower(),
            "Internal": str(network.get("Internal", False)).lower(),
            "Labels": _labels(network.get("Labels")),
            "CreatedAt": go_time(network["Created"]),
        }
        for network in sorted(networks, key=lambda n: natural_key(n["Name"]))
    ]


def network_use_rows(networks: Sequence[Json], *, trunc: bool) -> list[Row]:
    """With their tasks, and how many of their addresses are used."""
    usage = {network["Name"]: network.get("Usage") or {} for network in networks}
    return [{**row, **_use(usage[str(row["Name"])])} for row in network_rows(networks, trunc=trunc)]


def _use(usage: Json) -> Row:
    addresses = f"{usage['Addresses']}/{usage['Size']}" if "Size" in usage else ""
    return {"Tasks": str(usage.get("Tasks", 0)), "Addresses": addresses}


def container_rows(containers: Iterable[Json], now: datetime, *, trunc: bool) -> list[Row]:
    rows: list[Row] = []
    for container in containers:
        command, mounts = container.get("Command", ""), container.get("Mounts") or ()
        created = datetime.fromtimestamp(container["Created"], tz=now.tzinfo)
        rows.append(
            {
                "ID": container["Id"][:SHORT_ID] if trunc else container["Id"],
                "Image": container["Image"] or "<no image>",
                "Command": f'"{command[:19] + "…" if trunc and len(command) > 20 else command}"',
                "RunningFor": human_duration((now - created).total_seconds()) + " ago",
                "CreatedAt": created.strftime("%Y-%m-%d %H:%M:%S +0000 UTC"),
                "Status": container.get("Status", ""),
                "State": container.get("State", ""),
                "Ports": _container_ports(container.get("Ports") or ()),
                "Names": ",".join(name.removeprefix("/") for name in container.get("Names") or ()),
                "Labels": _labels(container.get("Labels")),
                "Mounts": ",".join(m.get("Name") or m.get("Source", "") for m in mounts),
                "LocalVolumes": str(sum(m.get("Driver") == "local" for m in mounts)),
                "Networks": ",".join((container.get("NetworkSettings") or {}).get("Networks") or ()),
            }
        )
    return rows


def _container_ports(ports: Sequence[Json]) -> str:
    ordered = sorted(ports, key=lambda p: (p["PrivatePort"], p.get("Type", "tcp")))
    shown = []
    for port in ordered:
        inner = f"{port['PrivatePort']}/{port.get('Type', 'tcp')}"
        shown.append(
            f"{port.get('IP', '')}:{port['PublicPort']}->{inner}" if port.get("PublicPort") else inner
        )
    return ", ".join(text for previous, text in pairwise(["", *shown]) if text != previous)


def _labels(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items()))
