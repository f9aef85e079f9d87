"""The part of the API that stacks use, with a memory: what is created is listed, changed and gone again.

Services run at once. `refuse` names the requests that fail, `busy` the services whose tasks never run.
"""

from __future__ import annotations

import copy
import json
import re
from datetime import timedelta
from typing import Any

from tests.fakes.cluster_objects import meta, node, stamp
from tests.fakes.fake_api import FakeApi, Request

Json = dict[str, Any]
KINDS = ("networks", "secrets", "configs", "services")


class StackApi(FakeApi):
    def __init__(self, now) -> None:
        super().__init__()
        self.now = now
        self.refuse: dict[str, str] = {}
        self.busy: set[str] = set()
        self.objects: dict[str, dict[str, Json]] = {kind: {} for kind in KINDS}
        self._last = 0
        self._data: dict[str, list[str]] = {}
        self._current: dict[str, int] = {}
        self.routes = {
            "GET /nodes": [node(1, now)],
            "GET /tasks": self._tasks,
            "GET /images/.*": (404, {"message": "No such image"}),
            "GET /distribution/.*": self._distribution,
            "GET /services/[^/]+/explain": {"Findings": [{"Text": "no suitable node"}]},
        }
        for kind in ("secrets", "configs"):
            self.routes |= {
                f"GET /{kind}/[^/]+/versions": lambda r, k=kind: self._history(k, r),
                f"POST /{kind}/[^/]+/versions": lambda r, k=kind: self._add_version(k, r),
                f"POST /{kind}/[^/]+/rollback": lambda r, k=kind: self._roll_back(k, r),
            }
        for kind in KINDS:
            self.routes |= {
                f"GET /{kind}": lambda r, k=kind: [o for o in self.objects[k].values() if _has(o, r)],
                f"POST /{kind}/create": lambda r, k=kind: self._create(k, r),
                f"POST /{kind}/[^/]+/update": lambda r, k=kind: self._update(k, r),
                f"GET /{kind}/[^/]+": lambda r, k=kind: self._find(k, r.path.split("/")[2]),
                f"DELETE /{kind}/[^/]+": lambda r, k=kind: self._delete(k, r),
            }

    def answer(self, request: Request):
        reason = self.refuse.get(f"{request.method} {request.path}")
        name = request.body.get("Name") if isinstance(request.body, dict) else None
        reason = reason or self.refuse.get(f"{request.method} {name}")
        if reason:
            self.requests.append(request)
            return 500, {"message": reason}
        return super().answer(request)

    def sent(self) -> list[str]:
        """The requests that change something, in short; not the questions whether a secret is the same."""
        return [
            f"{r.method} {r.path.removesuffix('/create')} {(r.body or {}).get('Name', '')}".strip()
            for r in self.requests
            if r.method != "GET" and not re.fullmatch("/secrets/.*/update", r.path)
        ]

    def names(self) -> set[str]:
        return {f"{kind} {_name(o)}" for kind in KINDS for o in self.objects[kind].values()}

    def named(self, kind: str, name: str) -> Json:
        return next(o for o in self.objects[kind].values() if _name(o) == name)

    def _create(self, kind: str, request: Request):
        self._last += 1
        id = f"{kind[:3]}{self._last:022d}"
        body = copy.deepcopy(request.body)
        if kind == "networks":
            self.objects[kind][id] = body | {"Id": id, "Created": stamp(self.now), "Scope": "swarm"}
            return 201, {"Id": id, "Warning": ""}
        if kind in ("secrets", "configs"):
            self._data[id], self._current[id] = [body["Data"]], 1
        if kind == "secrets":
            del body["Data"]
        status = {"RunningTasks": 2, "DesiredTasks": 2, "CompletedTasks": 0}
        counts = {"ServiceStatus": status} if kind == "services" else {}
        self.objects[kind][id] = meta(id, self._last, stamp(self.now)) | {"Spec": body} | counts
        return 201, {"ID": id}

    def _update(self, kind: str, request: Request):
        found = self.objects[kind][request.path.split("/")[2]]
        if request.query["version"] != str(found["Version"]["Index"]):
            return 409, {"message": "update out of sequence"}
        spec = copy.deepcopy(request.body)
        if request.query.get("rollback") == "previous":
            spec = found["PreviousSpec"]
        if kind in ("secrets", "configs"):
            data = self._data[found["ID"]][self._current[found["ID"]] - 1]
            if spec.pop("Data", data) != data:
                return 400, {"message": "only updates to Labels are allowed"}
            spec |= {"Data": data} if kind == "configs" else {}
        if spec != found["Spec"]:
            self._last += 1
            found["Version"] = {"Index": self._last}
            found["PreviousSpec"], found["Spec"] = found["Spec"], spec
        return 200, {"Warnings": None}

    def content(self, kind: str, name: str) -> str:
        id = self.named(kind, name)["ID"]
        return self._data[id][self._current[id] - 1]

    def _history(self, kind: str, request: Request):
        id = self._find(kind, request.path.split("/")[2])[1]["ID"]
        numbers = range(len(self._data[id]), 0, -1)
        return [{"Version": n, "Current": n == self._current[id]} for n in numbers]

    def _add_version(self, kind: str, request: Request):
        item = self._find(kind, request.path.split("/")[2])[1]
        self._data[item["ID"]].append(request.body["Data"])
        return self._make_current(kind, item, len(self._data[item["ID"]]))

    def _roll_back(self, kind: str, request: Request):
        item = self._find(kind, request.path.split("/")[2])[1]
        return self._make_current(kind, item, int(request.query["to"]))

    def _make_current(self, kind: str, item: Json, number: int):
        """Which changes the object, and every service."""
        self._current[item["ID"]] = number
        if kind == "configs":
            item["Spec"]["Data"] = self._data[item["ID"]][number - 1]
        for changed in (item, *self.objects["services"].values()):
            self._last += 1
            changed["Version"] = {"Index": self._last}
        return 201, {"Version": number}

    def _find(self, kind: str, reference: str):
        for id, item in self.objects[kind].items():
            if reference in (id, _name(item)):
                return 200, item
        return 404, {"message": f"{kind[:-1]} {reference} not found"}

    def _delete(self, kind: str, request: Request):
        status, found = self._find(kind, request.path.split("/")[2])
        if status != 200:
            return status, found
        del self.objects[kind][found.get("ID") or found["Id"]]
        return (200 if kind == "services" else 204), None

    def _tasks(self, request: Request) -> list[Json]:
        found = []
        for service in self.objects["services"].values():
            if not _has(service, request):
                continue
            mode = service["Spec"]["Mode"]
            running = "pending" if _name(service) in self.busy else "running"
            for slot in range(1, mode["Replicated"].get("Replicas", 1) + 1):
                id = f"{service['ID'][15:]}{slot:015d}"
                status = {"State": running, "Timestamp": stamp(self.now - timedelta(minutes=5))}
                found.append(
                    meta(id, 1, stamp(self.now))
                    | {"ServiceID": service["ID"], "Slot": slot, "Spec": service["Spec"]["TaskTemplate"]}
                    | {"DesiredState": "running", "Status": status, "NodeID": node(1, self.now)["ID"]}
                )
        return found

    def _distribution(self, request: Request):
        if "gone" in request.path:
            return 404, {"message": "manifest unknown"}
        return {
            "Descriptor": {"digest": "sha256:" + "ab" * 32},
            "Platforms": [{"architecture": "amd64", "os": "linux"}],
        }


def _name(item: Json) -> str:
    return item.get("Name") or item["Spec"]["Name"]


def _has(item: Json, request: Request) -> bool:
    """Whether the object has all labels that the request filters by."""
    labels = item.get("Labels") or item.get("Spec", {}).get("Labels") or {}
    wanted = json.loads(request.query.get("filters", "{}")).get("label", {})
    pairs = (text.partition("=") for text in wanted)
    return all(key in labels and value in ("", labels[key]) for key, _, value in pairs)
