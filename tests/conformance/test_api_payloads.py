"""`/secrets` and `/configs` over HTTP: Docker's answers, and data that stays in."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.fakes.api_http import Http
from tests.fakes.fake_backend import FakeBackend

DATA = base64.b64encode(b"s3cr3t").decode()
SECRET = {"Name": "db_pass", "Labels": {"a": "b"}, "Data": DATA}
SERVICE: dict[str, Any] = {
    "Name": "web2",
    "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}},
}
BOTH = pytest.mark.parametrize("kind", ["secret", "config"])


def reference(kind: str, object_id: str, name: str, **file: Any) -> dict[str, Any]:
    prefix = kind.capitalize()
    place = {"Name": name, "UID": "0", "GID": "0", "Mode": 0o444} | file
    return {"File": place, f"{prefix}ID": object_id, f"{prefix}Name": name}


def service_with(kind: str, *references: dict[str, Any], name: str = "web2") -> dict[str, Any]:
    container = {"Image": "busybox", f"{kind.capitalize()}s": list(references)}
    return {"Name": name, "TaskTemplate": {"ContainerSpec": container}}


@BOTH
async def test_create_inspect_list_remove(http: Http, cluster: FakeBackend, kind: str) -> None:
    status, created, _ = await http.ask("POST", f"/{kind}s/create", SECRET)
    assert status == 201
    found = await http.get(f"/{kind}s/db_pass")
    assert found["ID"] == created["ID"]
    assert found["Spec"] == {"Name": "db_pass", "Labels": {"a": "b"}} | (
        {"Data": DATA} if kind == "config" else {}
    )
    assert await http.get(f"/{kind}s/{created['ID'][:20]}") == found
    assert await http.get(f"/{kind}s", filters='{"name":["db_"],"label":["a=b"]}') == [found]
    assert await http.get(f"/{kind}s", filters='{"name":{"other":true}}') == []
    assert await http.refused("POST", f"/{kind}s/create", SECRET) == (409, f"{kind} db_pass already exists")
    assert (await http.ask("DELETE", f"/{kind}s/db_pass"))[0] == 204
    assert await http.refused("GET", f"/{kind}s/db_pass") == (404, f"{kind} db_pass not found")
    assert await http.get(f"/{kind}s") == []


@BOTH
async def test_a_service_uses_it(http: Http, cluster: FakeBackend, kind: str) -> None:
    _, created, _ = await http.ask("POST", f"/{kind}s/create", SECRET)
    spec = service_with(kind, reference(kind, created["ID"], "db_pass"))
    status, made, _ = await http.ask("POST", "/services/create", spec)
    assert status == 201
    found = await http.get(f"/services/{made['ID']}")
    assert found["Spec"]["TaskTemplate"]["ContainerSpec"][f"{kind.capitalize()}s"] == [
        reference(kind, created["ID"], "db_pass")
    ]
    assert await http.refused("DELETE", f"/{kind}s/db_pass") == (
        400,
        f"{kind} 'db_pass' is in use by the following service: web2",
    )
