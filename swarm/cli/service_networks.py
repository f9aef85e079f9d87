"""`--network` of services: texts in, attachments of the API out, with ids for names, as Docker posts them."""

from __future__ import annotations

from typing import Any

from swarm.api.client import ApiError, Client
from swarm.base.errors import InvalidArgument

Json = dict[str, Any]
PATH = ("TaskTemplate", "Networks")


def parse_network(text: str) -> Json:
    """`NAME`, or `name=NAME,alias=ALIAS,driver-opt=KEY=VALUE`. Raises ValueError with Docker's words."""
    if "=" not in text:
        return {"Target": text}
    found: Json = {}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        value = value.strip()
        if not equals:
            raise ValueError(f"invalid field {field}")
        match key.strip().lower():
            case "name":
                found["Target"] = value
            case "alias":
                found.setdefault("Aliases", []).append(value)
            case "driver-opt":
                name, given, option = value.partition("=")
                if not given or not name.strip():
                    raise ValueError("invalid key value pair format in driver options")
                found.setdefault("DriverOpts", {})[name.strip()] = option.strip()
            case _:
                raise ValueError(f"invalid field key {key}")
    if not found.get("Target"):
        raise ValueError("network name/id is not specified")
    return found


def network_target(attachment: Json) -> object:
    return attachment.get("Target")


def resolve_attachments(client: Client, spec: Json) -> None:
    """The names in a new service's spec become ids."""
    for wanted in spec["TaskTemplate"].get("Networks") or ():
        wanted["Target"] = network_id(client, wanted["Target"])


def resolve_change(client: Client, spec: Json, given: Json) -> Json:
    """`given` of an update, with ids for names. Raises InvalidArgument for a network that it has."""
    added, removed = given.get("network"), given.get("network-rm", ())
    if added is None and not removed:
        return given
    ids = [network_id(client, name) for name in removed]
    resolved = [wanted | {"Target": network_id(client, wanted["Target"])} for wanted in added or ()]
    template = spec["TaskTemplate"]
    if spec.get("Networks") and not template.get("Networks"):
        template["Networks"] = spec.pop("Networks")  # where old clients put them
    staying = {network_target(item) for item in template.get("Networks") or ()} - set(ids)
    for wanted, original in zip(resolved, added or (), strict=True):
        if wanted["Target"] in staying:
            raise InvalidArgument(f"service is already attached to network {original['Target']}")
    found = given | {"network-rm": tuple(ids)}
    return found | {"network": tuple(resolved)} if added is not None else found


def network_id(client: Client, name: str) -> str:
    try:
        found = client.get(f"/networks/{name}", scope="swarm")
    except ApiError as error:
        if error.status == 404:
            raise InvalidArgument(f"network {name} not found") from None
        raise
    return str(found["Id"])
