"""`/swarm`: init, join, leave, inspect, and rotation of join tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from aiohttp import web

from swarm.api.backend import ExternalStore, InitRequest, JoinRequest, NodeMembership
from swarm.api.call import Call, Route, answer, done
from swarm.api.present import RAFT, cluster_json
from swarm.base.errors import AlreadyExists, InvalidArgument, SwarmError
from swarm.base.failpoint import failpoint
from swarm.base.log import Secret, get_logger
from swarm.model.docker_json import Json, decode
from swarm.model.options import allowed
from swarm.model.rotate import Authority, Rotate
from swarm.model.specs import ClusterSpec
from swarm.model.types import Availability
from swarm.model.validation import validate_labels

_log = get_logger("api")
_MIN_CERT_EXPIRY = timedelta(hours=1)
_MIN_HEARTBEAT = timedelta(milliseconds=500)
"""A busy host may be late by that much; one that misses four is taken for dead."""
_CA_FIELDS = {"NodeCertExpiry", "ForceRotate", "SigningCACert", "SigningCAKey"}


async def inspect(call: Call) -> web.Response:
    cluster = call.control().cluster()
    swarm = call.backend.swarm
    return answer(cluster_json(cluster, swarm.tls_info(cluster), swarm.join_tokens(cluster)))


async def init(call: Call) -> web.Response:
    body = await call.body()
    wanted = body.get("Spec") or {}
    if not isinstance(wanted, dict):
        raise InvalidArgument("invalid Spec: expected an object")
    spec = read_cluster_spec(wanted, ClusterSpec())
    if _authority(wanted) is not None:
        raise InvalidArgument("a swarm starts with a root CA of its own: replace it with swarm ca --rotate")
    if _scalar(body, "AutoLockManagers", "Flag").flag:
        spec = replace(spec, auto_lock_managers=True)
    node_id = await call.backend.swarm.init(
        InitRequest(
            listen_addr=_text(body, "ListenAddr"),
            advertise_addr=_text(body, "AdvertiseAddr"),
            data_path_addr=_text(body, "DataPathAddr"),
            data_path_port=_number(body, "DataPathPort"),
            default_address_pools=decode(_Pools, {"Pools": body.get("DefaultAddrPool") or []}).pools,
            subnet_size=_number(body, "SubnetSize"),
            availability=_availability(body),
            force_new_cluster=bool(body.get("ForceNewCluster")),
            external_store=_external_store(body),
            spec=spec,
        )
    )
    return answer(node_id)


def _external_store(body: Json) -> ExternalStore | None:
    """Ours: `{"Etcd": {"Endpoints": [...], "CACert": path, "Cert": path, "Key": path}}`."""
    section = _section(body, "Etcd", {"Endpoints", "CACert", "Cert", "Key"})
    endpoints = decode(_Pools, {"Pools": section.get("Endpoints") or []}).pools
    if not endpoints:
        if any(section.values()):
            raise InvalidArgument("etcd's certificate files need --etcd-endpoints")
        return None
    ca, cert, key = (_text(section, name) for name in ("CACert", "Cert", "Key"))
    return ExternalStore(endpoints=endpoints, ca_file=ca, cert_file=cert, key_file=key)


async def join(call: Call) -> web.Response:
    body = await call.body()
    remotes = decode(_Pools, {"Pools": body.get("RemoteAddrs") or []}).pools
    if not remotes:
        raise InvalidArgument("at least 1 RemoteAddr is required to join")
    token = _text(body, "JoinToken")
    if not token:
        raise InvalidArgument("invalid join token: it is empty")
    await call.backend.swarm.join(
        JoinRequest(
            listen_addr=_text(body, "ListenAddr"),
            advertise_addr=_text(body, "AdvertiseAddr"),
            data_path_addr=_text(body, "DataPathAddr"),
            remote_addrs=remotes,
            token=Secret(token),
            availability=_availability(body),
        )
    )
    return done()


async def leave(call: Call) -> web.Response:
    await call.backend.swarm.leave(force=call.flag("force"))
    return done()


async def update(call: Call) -> web.Response:
    control = call.control()
    body = await call.body()
    rotate = Rotate(
        worker_token=call.flag("rotateWorkerToken"),
        manager_token=call.flag("rotateManagerToken"),
        unlock_key=call.flag("rotateManagerUnlockKey"),
        authority=_authority(body),
    )
    spec = read_cluster_spec(body, control.cluster().spec)
    await control.update_cluster(call.object_version(), spec, rotate)
    return done()


def _authority(body: Json) -> Authority | None:
    """The root that `CAConfig` brings, in the fields of Docker's clients."""
    ca = _section(body, "CAConfig", _CA_FIELDS)
    cert, key = _text(ca, "SigningCACert"), _text(ca, "SigningCAKey")
    if not cert and not key:
        return None
    if not cert or not key:
        raise InvalidArgument("a root CA certificate and its key must be given together")
    return Authority(cert_pem=cert.encode(), key_pem=key.encode())


async def unlock_key(call: Call) -> web.Response:
    """A fresh key counts from the moment in which its answer has left: before, nobody can have it."""
    control = call.control()
    key = control.unlock_key()
    response = answer({"UnlockKey": key})
    await response.prepare(call.request)
    await response.write_eof()
    failpoint("lock.key.sent")
    try:
        await control.confirm_unlock_key(key)
    except SwarmError as error:  # the answer is out; the next one that reads the key confirms it
        _log.warning("unlock.key.unconfirmed", reason=str(error))
    return response


async def unlock(call: Call) -> web.Response:
    if call.backend.swarm.status().state is not NodeMembership.LOCKED:
        call.control()  # a worker, or a host outside of a swarm, says so
        raise AlreadyExists("swarm is not locked")
    await call.backend.swarm.unlock(Secret(_text(await call.body(), "UnlockKey")))
    return done()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pools:
    pools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scalar:
    text: str = ""
    number: int = 0
    flag: bool = False
    availability: Availability = Availability.ACTIVE


def _text(body: Json, key: str) -> str:
    return _scalar(body, key, "Text").text


def _number(body: Json, key: str) -> int:
    return _scalar(body, key, "Number").number


def _availability(body: Json) -> Availability:
    return _scalar(body, "Availability", "Availability").availability


def _scalar(body: Json, key: str, kind: str) -> _Scalar:
    try:
        return decode(_Scalar, {kind: body.get(key)})
    except InvalidArgument as error:
        raise InvalidArgument(str(error).replace(f"invalid {kind}", f"invalid {key}", 1)) from None


def read_cluster_spec(body: Json, current: ClusterSpec) -> ClusterSpec:
    """Docker's Spec: nothing or zero keeps `current`; what this version cannot set must be left alone.

    Raises:
        InvalidArgument: a wrong type, a value out of range, or a setting that is not supported.
    """
    orchestration = _section(body, "Orchestration", {"TaskHistoryRetentionLimit"})
    dispatcher = _section(body, "Dispatcher", {"HeartbeatPeriod"})
    ca = _section(body, "CAConfig", _CA_FIELDS)
    _section(body, "TaskDefaults", set())
    encryption = _section(body, "EncryptionConfig", {"AutoLockManagers"})
    for key, value in _section(body, "Raft", set(RAFT)).items():
        if value and value != RAFT[key]:
            raise InvalidArgument(f"Raft.{key} is not supported by this version: etcd keeps its own")
    labels = body.get("Labels")
    spec = ClusterSpec(
        name=_text(body, "Name") or current.name,
        labels=current.labels if labels is None else decode(ClusterSpec, {"Labels": labels}).labels,
        task_history_retention_limit=_limit(orchestration, current.task_history_retention_limit),
        heartbeat_period=_span(dispatcher, "HeartbeatPeriod", current.heartbeat_period),
        node_cert_expiry=_span(ca, "NodeCertExpiry", current.node_cert_expiry),
        force_rotate=_number(ca, "ForceRotate") or current.force_rotate,
        auto_lock_managers=_lock(encryption, current.auto_lock_managers),
    )
    validate_labels(spec.labels)
    allowed(spec.labels)
    if spec.name != "default":
        raise InvalidArgument('the swarm\'s name must be "default"')
    if spec.node_cert_expiry < _MIN_CERT_EXPIRY:
        raise InvalidArgument("minimum certificate expiry time is 1h0m0s")
    if spec.heartbeat_period < timedelta(0):
        raise InvalidArgument("heartbeat time period cannot be a negative duration")
    if spec.heartbeat_period < _MIN_HEARTBEAT:
        raise InvalidArgument("heartbeat time period must be at least 500ms")
    return spec


def _section(body: Json, key: str, known: set[str]) -> dict[str, Any]:
    section = body.get(key) or {}
    if not isinstance(section, dict):
        raise InvalidArgument(f"invalid {key}: expected an object")
    for name, value in section.items():
        if name not in known and value:
            raise InvalidArgument(f"{key}.{name} is not supported by this version")
    return section


def _limit(section: Json, current: int) -> int:
    if section.get("TaskHistoryRetentionLimit") is None:
        return current
    return _number(section, "TaskHistoryRetentionLimit")


def _lock(section: Json, current: bool) -> bool:
    if section.get("AutoLockManagers") is None:
        return current
    return _scalar(section, "AutoLockManagers", "Flag").flag


def _span(section: Json, key: str, current: timedelta) -> timedelta:
    nanoseconds = _number(section, key)
    return timedelta(microseconds=nanoseconds // 1000) if nanoseconds else current


ROUTES = (
    Route("GET", "/swarm", inspect),
    Route("POST", "/swarm/init", init),
    Route("POST", "/swarm/join", join),
    Route("POST", "/swarm/leave", leave),
    Route("POST", "/swarm/update", update),
    Route("GET", "/swarm/unlockkey", unlock_key),
    Route("POST", "/swarm/unlock", unlock),
)
