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


@BOTH
async def test_labels_are_updated_and_nothing_else(http: Http, cluster: FakeBackend, kind: str) -> None:
    await http.ask("POST", f"/{kind}s/create", SECRET)
    found = await http.get(f"/{kind}s/db_pass")
    path = f"/{kind}s/{found['ID']}/update?version={found['Version']['Index']}"
    assert await http.refused("POST", path, SECRET | {"Data": "b3RoZXI="}) == (
        400,
        "only updates to Labels are allowed",
    )
    status, answer, _ = await http.ask("POST", path, SECRET | {"Labels": {"c": "d"}})
    assert (status, answer) == (200, None)
    assert (await http.get(f"/{kind}s/db_pass"))["Spec"]["Labels"] == {"c": "d"}
    status, message = await http.refused("POST", path, SECRET)
    assert (status, message[-22:]) == (500, "update out of sequence")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"Name": ""}, "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed"),
    ({"Name": "a\0b"}, "a text must not contain NUL"),
    ({"Name": 5}, "invalid Name: expected a text"),
    ({"Data": "not base64!"}, "invalid Data: not base64"),
    ({"Data": ""}, "data must be larger than 0"),
    ({"Data": None}, "data must be larger than 0"),
    ({"Labels": {"": "x"}}, "invalid label: the key must not be empty"),
    ({"Templating": {"Name": "jinja"}}, "template driver 'jinja' is not supported"),
    ({"Bogus": 1}, "Bogus is not supported by this version"),
]


@BOTH
@pytest.mark.parametrize(("change", "sentence"), BAD, ids=lambda value: str(value)[:40])
async def test_bad_input_is_refused_and_nothing_is_stored(
    http: Http, cluster: FakeBackend, kind: str, change: dict[str, Any], sentence: str
) -> None:
    before = cluster.store.revision
    status, message = await http.refused("POST", f"/{kind}s/create", SECRET | change)
    assert (status, sentence in message) == (400, True), message
    assert DATA not in message
    assert cluster.store.revision == before


@BOTH
async def test_unknown_filters_are_refused(http: Http, cluster: FakeBackend, kind: str) -> None:
    status, message = await http.refused("GET", f"/{kind}s", params={"filters": '{"bogus":["1"]}'})
    assert (status, message) == (400, "invalid filter 'bogus'")
