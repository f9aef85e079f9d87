"""A small cluster as the API returns it: three nodes, two services, their tasks, an image, a network."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.fakes.fake_api import FakeApi, Raw, Request, by_id_or_name, frame

Json = dict[str, Any]

WEB = "5egzc5ovc2n2dxg38uvw3o4ss"
AGENT = "mw1c0n7kzq2vjbwm6d0wq2vf4"
NODES = ("00fw8wbyxb52ufgzxtrjdwv3r", "1j5twn0ydo3ujvbvtxm7z8cqg", "5z3vm2f9unqy9ddtp3mz4ynkd")
SELF = NODES[0]


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"


def meta(id: str, index: int, when: str) -> Json:
    return {"ID": id, "Version": {"Index": index}, "CreatedAt": when, "UpdatedAt": when}


def node(number: int, now: datetime, **status: str) -> Json:
    created = stamp(now - timedelta(hours=3))
    found = meta(NODES[number - 1], 10 + number, created) | {
        "Spec": {"Labels": {"zone": "a"} if number == 1 else {}, "Role": "worker", "Availability": "active"},
        "Description": {
            "Hostname": f"h{number}",
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 2_000_000_000, "MemoryBytes": 4_131_299_328},
            "Engine": {"EngineVersion": "0.1.0", "Plugins": [{"Type": "Network", "Name": "overlay"}]},
            "TLSInfo": {"TrustRoot": "PEM", "CertIssuerSubject": "AA==", "CertIssuerPublicKey": "AA=="},
        },
        "Status": {"State": "ready", "Addr": f"10.7.0.{number}"} | status,
    }
    if number == 1:
        found["Spec"]["Role"] = "manager"
        found["ManagerStatus"] = {"Leader": True, "Reachability": "reachable", "Addr": "10.7.0.1:2377"}
    return found


def reference(kind: str, letter: str, name: str, target: str) -> Json:
    file = {"Name": target, "UID": "0", "GID": "0", "Mode": 0o444}
    return {"File": file, f"{kind}ID": letter * 25, f"{kind}Name": name}


def web(now: datetime) -> Json:
    port = {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}
    spec = {
        "Name": "web",
        "Labels": {"tier": "front"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "nginx:1.27@sha256:" + "ab" * 32,
                "Args": ["nginx", "-g", "daemon off;"],
                "Env": ["A=1", "B=two words"],
                "User": "www",
                "Dir": "/srv",
                "Isolation": "default",
                "Mounts": [{"Type": "volume", "Source": "pages", "Target": "/srv", "ReadOnly": True}],
                "Secrets": [reference("Secret", "s", "db_pass", "password")],
                "Configs": [reference("Config", "c", "nginx.conf", "/etc/nginx.conf")],
            },
            "Resources": {
                "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 134_217_728, "Pids": 64},
                "Reservations": {"MemoryBytes": 67_108_864},
            },
            "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000, "MaxAttempts": 3},
            "Placement": {"Constraints": ["node.labels.zone==a", "node.role==manager"], "MaxReplicas": 4},
            "ForceUpdate": 0,
            "Runtime": "container",
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "EndpointSpec": {"Mode": "vip", "Ports": [port]},
    }
    return meta(WEB, 40, stamp(now - timedelta(minutes=5))) | {
        "Spec": spec,
        "Endpoint": {"Spec": spec["EndpointSpec"], "Ports": [port], "VirtualIPs": []},
        "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 2, "CompletedTasks": 0},
    }


def agent(now: datetime) -> Json:
    def port(proto: str, target: int, published: int, mode: str = "ingress") -> Json:
        return {"Protocol": proto, "TargetPort": target, "PublishedPort": published, "PublishMode": mode}

    ports = [
        port("tcp", 81, 9001),
        port("tcp", 80, 9000),
        port("udp", 53, 5353),
        port("tcp", 7000, 7000, "host"),
        port("tcp", 443, 9443),
    ]
    spec = {
        "Name": "agent",
        "Labels": {},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "localhost:5000/team/agent:2"},
            "Resources": {"Limits": {}, "Reservations": {}},
            "ForceUpdate": 0,
        },
        "Mode": {"Global": {}},
        "EndpointSpec": {"Mode": "vip", "Ports": ports},
    }
    return meta(AGENT, 41, stamp(now - timedelta(days=3))) | {
        "Spec": spec,
        "Endpoint": {"Spec": spec["EndpointSpec"], "Ports": ports, "VirtualIPs": []},
        "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 3, "CompletedTasks": 0},
    }


def task(id: str, slot: int, state: str, ago: timedelta, now: datetime, **more: Any) -> Json:
    """A task of `web`; `more` may hold desired, node, err, ports, container."""
    status: Json = {
        "Timestamp": stamp(now - ago),
        "State": state,
        "Message": "started",
        "PortStatus": {"Ports": more["ports"]} if "ports" in more else {},
    }
    if "err" in more:
        status["Err"] = more["err"]
    if state in ("running", "failed", "shutdown"):
        status["ContainerStatus"] = {"ContainerID": id, "PID": 100 + slot, "ExitCode": 0}
    service = web(now)
    return meta(id, 50 + slot, stamp(now - ago - timedelta(seconds=2))) | {
        "Labels": {},
        "Spec": service["Spec"]["TaskTemplate"],
        "ServiceID": more.get("service", WEB),
        "Slot": slot,
        "NodeID": more.get("node", NODES[slot % 3]),
        "Status": status,
        "DesiredState": more.get("desired", "running"),
    }


def tasks(now: datetime) -> list[Json]:
    seconds, minutes = timedelta(seconds=1), timedelta(minutes=1)
    port = {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8081, "PublishMode": "host"}
    long_error = "starting container failed: crun: executable file `/nope` not found in $PATH"
    return [
        task("aaaaaaaaaaaaaaaaaaaaaaaa2", 2, "running", 65 * seconds, now, ports=[port]),
        task("aaaaaaaaaaaaaaaaaaaaaaaa1", 1, "running", 10 * seconds, now),
        task("aaaaaaaaaaaaaaaaaaaaaaaa0", 1, "failed", 3 * minutes, now, desired="shutdown", err=long_error),
        task("aaaaaaaaaaaaaaaaaaaaaaaa9", 10, "pending", 90 * minutes, now, node="", err="no suitable node"),
    ]


def network(now: datetime) -> Json:
    return {
        "Name": "ingress",
        "Id": "9k0bw1ykuqxu9cmc0m8x8xjm3",
        "Created": stamp(now - timedelta(hours=3)),
        "Scope": "swarm",
        "Driver": "overlay",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1"}],
        },
        "Internal": False,
        "Attachable": False,
        "Ingress": True,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": None,
        "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4096"},
        "Labels": {},
    }


def image(now: datetime) -> Json:
    return {
        "Id": "sha256:" + "0123456789abcdef" * 4,
        "ParentId": "",
        "RepoTags": ["web:demo", "web:2"],  # of one repository: docker lists several in random order
        "RepoDigests": ["web@sha256:" + "cd" * 32],
        "Created": int((now - timedelta(days=2)).timestamp()),
        "Size": 1_234_567,
        "SharedSize": -1,
        "Labels": None,
        "Containers": -1,
    }


def container(now: datetime) -> Json:
    return {
        "Id": "aaaaaaaaaaaaaaaaaaaaaaaa1",
        "Names": ["/web.1.aaaaaaaaaaaaaaaaaaaaaaaa1"],
        "Image": "nginx:1.27",
        "ImageID": "sha256:" + "ab" * 32,
        "Command": "nginx -g 'daemon off;'",
        "Created": int((now - timedelta(seconds=12)).timestamp()),
        "Ports": [{"PrivatePort": 80, "PublicPort": 8080, "Type": "tcp", "IP": "0.0.0.0"}],
        "Labels": {"com.docker.swarm.service.name": "web"},
        "State": "running",
        "Status": "Up 10 seconds",
        "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {"Networks": {"ingress": {}}},
        "Mounts": [],
    }


def cluster(now: datetime) -> Json:
    return meta("cluster00000000000000000c", 9, stamp(now)) | {
        "Spec": {
            "Name": "default",
            "Labels": {},
            "Orchestration": {"TaskHistoryRetentionLimit": 5},
            "Raft": {
                "SnapshotInterval": 10000,
                "KeepOldSnapshots": 0,
                "HeartbeatTick": 1,
                "ElectionTick": 10,
            },
            "Dispatcher": {"HeartbeatPeriod": 5_000_000_000},
            "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000},
            "TaskDefaults": {},
            "EncryptionConfig": {"AutoLockManagers": False},
        },
        "TLSInfo": {"TrustRoot": "PEM", "CertIssuerSubject": "AA==", "CertIssuerPublicKey": "AA=="},
        "RootRotationInProgress": False,
        "DefaultAddrPool": ["10.0.0.0/8"],
        "SubnetSize": 24,
        "DataPathPort": 4789,
        "JoinTokens": {"Worker": "SWMTKN-1-w-w", "Manager": "SWMTKN-1-m-m"},
    }


def info(now: datetime) -> Json:
    member = {k: v for k, v in cluster(now).items() if k != "JoinTokens"}
    return {
        "ID": SELF,
        "Name": "h1",
        "ServerVersion": "0.1.0",
        "Containers": 2,
        "ContainersRunning": 2,
        "ContainersPaused": 0,
        "ContainersStopped": 0,
        "Images": 1,
        "Driver": "overlay2",
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2",
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "overlay"],
            "Authorization": None,
            "Log": ["json-file"],
        },
        "Runtimes": {"crun": {"path": "crun"}},
        "DefaultRuntime": "crun",
        "KernelVersion": "6.1.0",
        "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
        "OSType": "linux",
        "Architecture": "x86_64",
        "NCPU": 2,
        "MemTotal": 4_131_299_328,
        "DockerRootDir": "/var/lib/swarm",
        "Swarm": {
            "NodeID": SELF,
            "NodeAddr": "10.7.0.1",
            "LocalNodeState": "active",
            "ControlAvailable": True,
            "Error": "",
            "RemoteManagers": [{"NodeID": SELF, "Addr": "10.7.0.1:2377"}],
            "Nodes": 3,
            "Managers": 1,
            "Cluster": member,
        },
    }


def version() -> Json:
    details = {"ApiVersion": "1.50", "MinAPIVersion": "1.24", "Arch": "amd64", "Os": "linux", "GoVersion": ""}
    return {
        "Platform": {"Name": "Swarm"},
        "Components": [{"Name": "Engine", "Version": "0.1.0", "Details": details}],
        "Version": "0.1.0",
        "ApiVersion": "1.50",
        "MinAPIVersion": "1.24",
        "GitCommit": "abc",
        "GoVersion": "",
        "Os": "linux",
        "Arch": "amd64",
        "KernelVersion": "6.1.0",
        "BuildTime": "",
    }


def log_records() -> list[bytes]:
    def line(stream: int, text: str, slot: int) -> bytes:
        ids = (
            f"com.docker.swarm.node.id={NODES[slot % 3]},com.docker.swarm.service.id={WEB},"
            f"com.docker.swarm.task.id=aaaaaaaaaaaaaaaaaaaaaaaa{slot}"
        )
        more = ",tier=front,env=a%3Db" if slot == 2 else ""
        return frame(stream, f"{ids}{more} {text}\n")

    return [line(1, "hello", 1), line(2, "oops", 2), line(1, "", 1)]


def secrets(now: datetime) -> list[Json]:
    return [
        meta(letter * 25, 7, stamp(now - timedelta(hours=3))) | {"Spec": {"Name": name, "Labels": labels}}
        for letter, name, labels in (("s", "db_pass", {"app": "db", "x": ""}), ("t", "api_key", {}))
    ]


def configs(now: datetime) -> list[Json]:
    spec = {"Name": "nginx.conf", "Labels": {"app": "web"}, "Data": "bGlzdGVuIDgwOwo="}
    return [meta("c" * 25, 7, stamp(now - timedelta(hours=3))) | {"Spec": spec}]


def _is_named(item: Json, request: Request) -> bool:
    wanted = _filter(request, "name")
    return not wanted or any(item["Spec"]["Name"].startswith(name) for name in wanted)


def fake_cluster(now: datetime) -> FakeApi:
    """All of it behind an API."""
    services, nodes, all_tasks = [web(now), agent(now)], [node(i, now) for i in (2, 3, 1)], tasks(now)

    def create(request: Request) -> tuple[int, Json]:
        name = request.body.get("Name", "happy_brown")
        if any(s["Spec"]["Name"] == name for s in services):
            text = f"name conflicts with an existing object: service {name} already exists"
            return 409, {"message": f"rpc error: code = AlreadyExists desc = {text}"}
        created = meta("n" * 25, 99, stamp(now)) | {"Spec": copy.deepcopy(request.body) | {"Name": name}}
        services.append(created)
        return 201, {"ID": created["ID"]}

    def list_services(request: Request) -> list[Json]:
        return [s for s in services if _matches(s["ID"], s["Spec"]["Name"], request)]

    def list_tasks(request: Request) -> list[Json]:
        wanted = _filter(request, "service")
        return [t for t in all_tasks if not wanted or t["ServiceID"] in wanted]

    return FakeApi(
        {
            "GET /info": info(now),
            "GET /version": version(),
            "GET /swarm": cluster(now),
            "POST /swarm/init": SELF,
            "POST /swarm/(join|leave|update)": None,
            "GET /nodes": nodes,
            "GET /nodes/[^/]+": by_id_or_name(nodes, "node"),
            "POST /nodes/[^/]+/update": None,
            "DELETE /nodes/h3": (
                400,
                {"message": "rpc error: code = FailedPrecondition desc = node h3 is not down"},
            ),
            "DELETE /nodes/[^/]+": None,
            "GET /services": list_services,
            "POST /services/create": create,
            "GET /services/[^/]+": by_id_or_name(services, "service"),
            "POST /services/[^/]+/update": {"Warnings": None},
            "DELETE /services/web": None,
            "DELETE /services/[^/]+": (404, {"message": "service nope not found"}),
            "GET /services/[^/]+/logs": Raw(log_records(), "application/vnd.docker.multiplexed-stream"),
            "GET /tasks": list_tasks,
            "GET /tasks/[^/]+": by_id_or_name(all_tasks, "task"),
            "GET /tasks/[^/]+/logs": Raw(log_records(), "application/vnd.docker.multiplexed-stream"),
            "GET /secrets": lambda request: [s for s in secrets(now) if _is_named(s, request)],
            "GET /secrets/[^/]+": by_id_or_name(secrets(now), "secret"),
            "DELETE /secrets/old": None,
            "DELETE /secrets/[^/]+": (
                400,
                {"message": "secret 'db_pass' is in use by the following service: web"},
            ),
            "GET /configs": lambda request: [c for c in configs(now) if _is_named(c, request)],
            "GET /configs/[^/]+": by_id_or_name(configs(now), "config"),
            "POST /(secrets|configs)/create": (201, {"ID": "n" * 25}),
            "GET /networks": [network(now)],
            "GET /networks/ingress": network(now),
            "GET /images/json": [image(now)],
            "GET /images/(img|web)(:.*)?/json": image(now),
            "DELETE /images/web:demo": [
                {"Untagged": "web:demo"},
                {"Deleted": "sha256:" + "0123456789abcdef" * 4},
            ],
            "POST /images/load": Raw([b'{"stream":"Loaded image: web:demo\\n"}\r\n']),
            "POST /images/create": Raw(
                [
                    b'{"status":"Pulling from library/nginx","id":"1.27"}\r\n',
                    b'{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"aa"}\r\n',
                    b'{"status":"Status: Downloaded newer image for nginx:1.27"}\r\n',
                ]
            ),
            "GET /containers/json": [container(now)],
            "GET /distribution/.*": (404, {"message": "not found"}),
        }
    )


def _filter(request: Request, key: str) -> list[str]:
    import json

    return list(json.loads(request.query.get("filters", "{}")).get(key, []))


def _matches(id: str, name: str, request: Request) -> bool:
    ids, names = _filter(request, "id"), _filter(request, "name")
    return (
        any(id.startswith(i) for i in ids) if ids else (not names or any(name.startswith(n) for n in names))
    )
