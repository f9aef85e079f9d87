"""One compose file, interpolated, in; its sections with every value in one form out. Pure.

What is read but has no effect in a swarm leaves a notice that says why. Source: compose v3.13 and the Compose
Specification; which keys Docker's `stack deploy` leaves out.
"""

from __future__ import annotations

from typing import Any

from swarm.stack.read_deploy import read_deploy
from swarm.stack.read_values import (
    absolute,
    read_attachments,
    read_dependencies,
    read_env_files,
    read_extends,
    read_file_references,
    read_health_test,
    read_host_only,
    read_hosts,
    read_ports,
    read_restart,
    read_sysctls,
    read_tmpfs,
    read_ulimits,
    read_volumes,
)
from swarm.stack.readers import (
    Reader,
    Scope,
    boolean,
    choice,
    command,
    cpus,
    duration,
    entries_of,
    fields,
    integer,
    items_of,
    labels,
    pairs,
    size,
    text,
    text_or_texts,
    texts,
    unknown,
)
from swarm.stack.yaml_nodes import Map, Node, Scalar, Sequence, plain_of, wrong

Json = dict[str, Any]

_LIMITS = "use deploy.resources.limits"
_BY_NAME = "services of a network reach each other by name, on all ports"
_OWN_NAMESPACE = "every container has a namespace of its own"
_UNHONOURED: dict[str, str] = {
    "annotations": "use labels",
    "attach": "use service logs -f",
    "blkio_config": "disks are not limited here",
    "build": "images are not built here: build it, push it, and name it by image",
    "cgroup": "the runtime places containers",
    "cgroup_parent": "the runtime places containers",
    "cgroupns_mode": _OWN_NAMESPACE,
    "container_name": "tasks have names of their own, as there may be several",
    "cpu_count": _LIMITS,
    "cpu_percent": _LIMITS,
    "cpu_period": _LIMITS,
    "cpu_quota": _LIMITS,
    "cpu_rt_period": _LIMITS,
    "cpu_rt_runtime": _LIMITS,
    "cpu_shares": _LIMITS,
    "cpuset": _LIMITS,
    "credential_spec": "it is for Windows",
    "develop": "it is for development on one machine",
    "device_cgroup_rules": "use devices",
    "domainname": "write it into hostname",
    "expose": _BY_NAME,
    "external_links": _BY_NAME,
    "gpus": "use deploy.resources.reservations.generic_resources",
    "isolation": "it is for Windows",
    "label_file": "use labels",
    "links": _BY_NAME,
    "mac_address": "interfaces get their addresses from the network",
    "mem_swappiness": _LIMITS,
    "memswap_limit": _LIMITS,
    "models": "models are not run here",
    "network_mode": "a service is attached to networks: use networks",
    "oom_kill_disable": "it endangers the node",
    "platform": "use deploy.placement.constraints with node.platform.os or node.platform.arch",
    "post_start": "use a service of its own, or the image's entrypoint",
    "pre_stop": "use stop_signal and stop_grace_period",
    "provider": "nothing is provided outside the swarm",
    "pull_policy": "nodes pull what they do not have",
    "runtime": "all nodes run containers by crun",
    "storage_opt": "the size of a container's layer is not limited",
    "use_api_socket": "it would give the container the swarm",
    "userns_mode": _OWN_NAMESPACE,
    "uts": _OWN_NAMESPACE,
    "volume_driver": "name the driver at the top-level volume",
    "volumes_from": "name the volumes",
}
_HEALTHCHECK: dict[str, Reader] = {
    "test": read_health_test,
    "interval": duration,
    "timeout": duration,
    "start_period": duration,
    "start_interval": duration,
    "retries": integer(0, 2**31 - 1),
    "disable": boolean,
}
SERVICE: dict[str, Reader] = {
    "image": text,
    "command": command,
    "entrypoint": command,
    "environment": pairs,
    "env_file": read_env_files,
    "labels": labels,
    "deploy": read_deploy,
    "ports": read_ports,
    "networks": read_attachments,
    "volumes": read_volumes,
    "tmpfs": read_tmpfs,
    "secrets": read_file_references,
    "configs": read_file_references,
    "depends_on": read_dependencies,
    "healthcheck": fields(_HEALTHCHECK),
    "logging": fields({"driver": text, "options": labels}),
    "extra_hosts": read_hosts,
    "dns": text_or_texts,
    "dns_search": text_or_texts,
    "dns_opt": text_or_texts,
    "ulimits": read_ulimits,
    "sysctls": read_sysctls,
    "cap_add": texts,
    "cap_drop": texts,
    "group_add": texts,
    "user": text,
    "working_dir": text,
    "hostname": text,
    "stop_signal": text,
    "stop_grace_period": duration,
    "oom_score_adj": integer(-1000, 1000),
    "tty": boolean,
    "stdin_open": boolean,
    "read_only": boolean,
    "init": boolean,
    "restart": read_restart,
    "privileged": boolean,
    "devices": texts,
    "security_opt": texts,
    "shm_size": size,
    "pid": read_host_only,
    "ipc": read_host_only,
    "scale": integer(0, 2**31 - 1),
    "cpus": cpus,
    "mem_limit": size,
    "mem_reservation": size,
    "pids_limit": integer(-1, 2**31 - 1),
    "profiles": texts,
    "extends": read_extends,
}


def _external(node: Node, scope: Scope) -> Any:  # noqa: ANN401 - a truth value or a map
    return fields({"name": text})(node, scope) if isinstance(node, Map) else boolean(node, scope)


def _path(node: Node, scope: Scope) -> str:
    return absolute(text(node, scope), scope)


_POOL = fields({"subnet": text, "gateway": text, "ip_range": text, "aux_addresses": labels})
_IPAM = fields(
    {"driver": choice("default"), "config": items_of(_POOL)},
    {"options": "the swarm's own addresses have none"},
)
_NETWORK = fields(
    {
        "name": text,
        "external": _external,
        "driver": text,
        "driver_opts": labels,
        "attachable": boolean,
        "internal": boolean,
        "labels": labels,
        "ipam": _IPAM,
        "enable_ipv6": boolean,
    },
    {"enable_ipv4": "networks have IPv4"},
)
_VOLUME = fields(
    {"name": text, "external": _external, "driver": text, "driver_opts": labels, "labels": labels},
    {"x-cluster-spec": "volumes of a cluster are not made here"},
)
_FILE: dict[str, Reader] = {
    "name": text,
    "external": _external,
    "labels": labels,
    "file": _path,
    "environment": text,
    "content": text,
    "template_driver": text,
}
_SECRET = fields({**_FILE, "driver": text, "driver_opts": labels})
_INCLUDE = fields({"path": text_or_texts, "project_directory": text, "env_file": text_or_texts})


def _read_include(node: Node, scope: Scope) -> Json:
    found: Json = {"path": [text(node, scope)]} if isinstance(node, Scalar) else _INCLUDE(node, scope)
    if not found.get("path"):
        raise scope.wrong(node, "path is missing: which file to include")
    return found


_SECTIONS: dict[str, Reader] = {
    "version": text,
    "name": text,
    "include": items_of(_read_include),
    "services": entries_of(fields(SERVICE, _UNHONOURED)),
    "networks": entries_of(_NETWORK, is_null_allowed=True),
    "volumes": entries_of(_VOLUME, is_null_allowed=True),
    "secrets": entries_of(_SECRET, is_null_allowed=True),
    "configs": entries_of(fields(_FILE), is_null_allowed=True),
}


def is_legacy(document: Node) -> bool:
    """It says a version 3.x, so it is written for `docker stack`. Raises: InvalidArgument for another one."""
    version = document.get("version") if isinstance(document, Map) else None
    if version is None:
        return False
    written = version.text if isinstance(version, Scalar) else ""
    minor = written.removeprefix("3").removeprefix(".")
    if written == "3" or (written.startswith("3.") and minor.isdecimal() and int(minor) <= 13):
        return True
    raise wrong(
        version.place, f"unsupported Compose file version: {written}: use 3.0 to 3.13, or leave it out"
    )


def read_project(document: Node, scope: Scope) -> Json:
    """Raises: InvalidArgument with the place of the first mistake."""
    if isinstance(document, Sequence) or (isinstance(document, Scalar) and not document.is_null):
        raise wrong(document.place, "a compose file is a map: it begins with 'services:'")
    found: Json = {}
    for key, value in document.items if isinstance(document, Map) else ():
        if key.text.startswith("x-"):
            found[key.text] = plain_of(value)
        elif key.text == "models":
            scope.at("models", value).notice(key.place, "is ignored: models are not run here")
        elif key.text not in _SECTIONS:
            hint = " (services stand below 'services:')" if isinstance(value, Map) else ""
            text = unknown(key.text, tuple(_SECTIONS))
            raise wrong(key.place, text if "did you mean" in text else text + hint)
        elif not (isinstance(value, Scalar) and value.is_null):
            found[key.text] = _SECTIONS[key.text](value, scope.at(key.text, value))
    return found
