"""The cluster's objects as Docker's clients read them. Pure.

In: stored objects and, where an answer needs more, the view. Out: JSON values with the keys that clients read
unguarded: `ContainerSpec`, `Mode.Replicated.Replicas`, `Labels`, `Resources`. Source: Docker Engine API 1.50.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swarm.api.backend import SwarmStatus
from swarm.api.network_json import driver_options, ipam_configs
from swarm.api.selection import ServiceCounts
from swarm.model.docker_json import Json, encode, timestamp
from swarm.model.objects import (
    Cluster,
    Config,
    JoinTokens,
    Network,
    Node,
    Payload,
    Secret,
    Service,
    Task,
    TaskStatus,
    payload_id,
)
from swarm.model.task_state import TaskState
from swarm.model.types import EndpointSpec, Meta, NetworkAttachment, PortConfig, TLSInfo
from swarm.model.view import ClusterView

ENGINE_PLUGINS = [
    {"Type": "Log", "Name": "json-file"},
    {"Type": "Network", "Name": "overlay"},
    {"Type": "Volume", "Name": "local"},
]


def _meta(object_id: str, meta: Meta) -> Json:
    return {
        "ID": object_id,
        "Version": {"Index": meta.version.index},
        "CreatedAt": timestamp(meta.created_at),
        "UpdatedAt": timestamp(meta.updated_at),
    }


def service_json(service: Service, counts: ServiceCounts | None = None) -> Json:
    found = _meta(service.id, service.meta) | {"Spec": encode(service.spec)}
    if service.previous_spec is not None:
        found["PreviousSpec"] = encode(service.previous_spec)
    found["Endpoint"] = _endpoint(service)
    if service.update_status is not None:
        found["UpdateStatus"] = encode(service.update_status)
    if service.job_status is not None:
        found["JobStatus"] = encode(service.job_status)
    if counts is not None:
        found["ServiceStatus"] = {
            "RunningTasks": counts.running,
            "DesiredTasks": counts.desired,
            "CompletedTasks": counts.completed,
        }
    return found


def _endpoint(service: Service) -> Json:
    endpoint = service.endpoint
    if not endpoint.ports and not endpoint.virtual_ips:
        return {"Spec": encode(service.spec.endpoint_spec or EndpointSpec())}
    asked = service.spec.endpoint_spec or endpoint.spec
    found: Json = {
        "Spec": {"Mode": asked.mode or "vip"} | encode(asked),
        "Ports": _allocated(endpoint.ports),
    }
    if endpoint.virtual_ips:
        found["VirtualIPs"] = encode(endpoint.virtual_ips)
    return found


def _allocated(ports: Sequence[PortConfig]) -> list[Json]:
    return [encode(port) | {"PublishedPort": port.published_port} for port in ports]


def task_json(task: Task, networks: Mapping[str, Network]) -> Json:
    """`networks` holds at least those that the task is attached to."""
    found = _meta(task.id, task.meta) | {
        "Labels": {},
        "Spec": encode(task.spec),
        "ServiceID": task.service_id,
    }
    if task.slot:
        # Docker counts the slots of a job from 0, and its client waits for slot 0.
        found["Slot"] = task.slot - (task.job_iteration is not None)
    if task.node_id:
        found["NodeID"] = task.node_id
    found["Status"] = _task_status(task.status)
    is_job = task.job_iteration is not None and task.desired_state is TaskState.RUNNING
    found["DesiredState"] = (TaskState.COMPLETE if is_job else task.desired_state).word
    if task.job_iteration is not None:
        found["JobIteration"] = encode(task.job_iteration)
    if task.assigned_generic_resources:
        found["GenericResources"] = encode(task.assigned_generic_resources)
    attachments = [_attachment(a, networks) for a in task.attachments if a.network_id in networks]
    if attachments:
        found["NetworksAttachments"] = attachments
    return found


def _task_status(status: TaskStatus) -> Json:
    found: Json = {
        "Timestamp": timestamp(status.timestamp),
        "State": status.state.word,
        "Message": status.message,
        "PortStatus": {"Ports": _allocated(status.ports)} if status.ports else {},
    }
    if status.err:
        found["Err"] = status.err
    if status.container is not None:
        found["ContainerStatus"] = encode(status.container)
    return found


def _attachment(attachment: NetworkAttachment, networks: Mapping[str, Network]) -> Json:
    network = networks[attachment.network_id]
    spec: Json = {
        "Name": network.spec.name,
        "Labels": dict(network.spec.labels),
        "DriverConfiguration": {"Name": network.spec.driver},
        "Scope": "swarm",
    }
    for name in ("ingress", "internal", "attachable"):
        if getattr(network.spec, name):
            spec[name.capitalize()] = True
    return {
        "Network": _meta(network.id, network.meta)
        | {
            "Spec": spec,
            "DriverState": {"Name": network.spec.driver, "Options": driver_options(network)},
            "IPAMOptions": {"Driver": {"Name": "default"}, "Configs": ipam_configs(network)},
        },
        "Addresses": list(attachment.addresses),
    }


def node_json(node: Node, status: SwarmStatus, *, is_reachable: bool = True) -> Json:
    description = encode(node.description)
    platform = description["Platform"]
    description["Platform"] = {"Architecture": platform.get("Architecture", ""), "OS": platform.get("OS", "")}
    resources = node.description.resources
    description["Resources"] = encode(resources) | {
        "NanoCPUs": resources.nano_cpus,
        "MemoryBytes": resources.memory_bytes,
    }
    description["Engine"] = description["Engine"] | {"Plugins": ENGINE_PLUGINS}
    found = _meta(node.id, node.meta) | {
        "Spec": encode(node.spec),
        "Description": description,
        "Status": {"State": node.status.state.value, "Addr": node.status.addr},
    }
    if node.status.message:
        found["Status"]["Message"] = node.status.message
    if node.manager_status is not None:
        found["ManagerStatus"] = {
            "Reachability": "reachable" if is_reachable else "unreachable",
            "Addr": node.manager_status.addr,
        }
        if node.id == status.leader_id and is_reachable:
            found["ManagerStatus"]["Leader"] = True
    return found


def secret_json(secret: Secret) -> Json:
    """Without the data: there is no way to ask for it."""
    return _meta(secret.id, secret.meta) | {"Spec": encode(secret.spec)}


def config_json(view: ClusterView, config: Config) -> Json:
    """With the data of the current version."""
    payload = view.get(Payload, payload_id(config.id, config.current))
    spec = encode(config.spec) | {"Data": encode(payload.data if payload is not None else b"")}
    return _meta(config.id, config.meta) | {"Spec": spec}


def cluster_json(cluster: Cluster, tls: TLSInfo, tokens: JoinTokens | None = None) -> Json:
    """`tokens` are the whole texts; without them as `info` shows a cluster."""
    found = _meta(cluster.id, cluster.meta) | {
        "Spec": cluster_spec_json(cluster),
        "TLSInfo": {
            "TrustRoot": tls.trust_root,
            "CertIssuerSubject": encode(tls.cert_issuer_subject),
            "CertIssuerPublicKey": encode(tls.cert_issuer_public_key),
        },
        "RootRotationInProgress": cluster.root_ca.rotation is not None,
        "DefaultAddrPool": list(cluster.default_address_pools),
        "SubnetSize": cluster.subnet_size,
        "DataPathPort": cluster.data_path_port,
    }
    if tokens is not None:
        found["JoinTokens"] = {"Worker": tokens.worker, "Manager": tokens.manager}
    return found


def cluster_spec_json(cluster: Cluster) -> Json:
    """Docker's shape. `Raft` holds what clients expect to read; etcd keeps its own."""
    spec = cluster.spec
    return {
        "Name": spec.name,
        "Labels": dict(spec.labels),
        "Orchestration": {"TaskHistoryRetentionLimit": spec.task_history_retention_limit},
        "Raft": dict(RAFT),
        "Dispatcher": {"HeartbeatPeriod": encode(spec.heartbeat_period)},
        "CAConfig": {"NodeCertExpiry": encode(spec.node_cert_expiry)}
        | ({"ForceRotate": spec.force_rotate} if spec.force_rotate else {}),
        "TaskDefaults": {},
        "EncryptionConfig": {"AutoLockManagers": spec.auto_lock_managers},
    }


RAFT = {
    "SnapshotInterval": 10000,
    "KeepOldSnapshots": 0,
    "LogEntriesForSlowFollowers": 500,
    "ElectionTick": 10,
    "HeartbeatTick": 1,
}
