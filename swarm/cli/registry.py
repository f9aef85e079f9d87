"""This client's registry login, and the digest that a registry has for an image.

A login is what `docker login` keeps in `config.json`; it goes into `X-Registry-Auth` when that is asked for.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from swarm.api.client import ApiError, Client
from swarm.base.errors import SwarmError
from swarm.cli.service_edit import PLACEMENT, Json, section

_DOCKER_HUB = "docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
_NO_SUCH_IMAGE = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)


def auth_header(image: str) -> dict[str, str]:
    """The header that carries the login for the image's registry; `{}` inside where there is none.

    Raises:
        SwarmError: the login is kept by a helper program, or the file is not readable.
    """
    registry = registry_of(image)
    found = _login(registry)
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(found).encode()).decode()}


def registry_of(image: str) -> str:
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else _DOCKER_HUB


def _login(registry: str) -> Json:
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        return _login_in(json.loads(path.read_text()), registry, path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise SwarmError(f"cannot read the registry logins in {path}: {error}") from error


def _login_in(config: Json, registry: str, path: Path) -> Json:
    key = _HUB_KEY if registry == _DOCKER_HUB else registry
    if config.get("credsStore") or (config.get("credHelpers") or {}).get(registry):
        raise SwarmError(
            f"the login for {registry} is kept by a credential helper (see {path}), which is not supported: "
            "log in with a config.json without one"
        )
    entry = (config.get("auths") or {}).get(key) or {}
    name, _, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    if not name:
        return {}
    return {"username": name, "password": password, "serveraddress": key}


def pin_image(client: Client, spec: Json, headers: dict[str, str]) -> list[str]:
    """Write the digest of the image's tag into the spec, so that every node runs the same image.

    Returns what the user should hear if the manager takes the spec.

    Raises:
        SwarmError: nobody has the image.
    """
    container = spec["TaskTemplate"]["ContainerSpec"]
    warnings: list[str] = []
    pinned = ask_registry(
        client, container["Image"], headers, otherwise="--no-resolve-image", tell=warnings.append
    )
    if pinned is not None:
        container["Image"], platforms = pinned
        if platforms:
            section(spec, PLACEMENT)["Platforms"] = platforms
    return warnings


def ask_registry(
    client: Client, image: str, headers: dict[str, str], *, otherwise: str, tell: Callable[[str], None]
) -> tuple[str, list[Json]] | None:
    """The image with the digest of its tag, and the platforms it is for; None if nobody says.

    An image that was loaded here has no registry to ask. One that this manager does not have and that its
    registry does not know is refused. A registry that cannot be asked proves nothing: others may have it.
    `otherwise` is the flag that goes without the registry; `tell` is told of one that cannot be asked.

    Raises:
        SwarmError: nobody has the image.
    """
    try:
        local = client.get(f"/images/{image}/json")
    except ApiError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            return None  # the manager will say what is wrong with the name
        local = None
    if local is not None and not local.get("RepoDigests"):
        return None
    try:
        found = client.get(f"/distribution/{image}/json", headers=headers)
    except ApiError as error:
        if local is None and error.status in _NO_SUCH_IMAGE:
            raise SwarmError(
                f"image {image} is neither on this manager nor in its registry ({error.message}): correct "
                f"the name, load it (swarm image load), or give {otherwise} if other nodes have it"
            ) from error
        where = "" if local is not None else " is not on this manager, and"
        tell(f"image {image}{where or ':'} its registry cannot be asked: {error.message}")
        return None
    platforms = [
        {"Architecture": each.get("architecture", ""), "OS": each.get("os", "")}
        for each in found.get("Platforms") or ()
    ]
    return (image if "@" in image else f"{image}@{found['Descriptor']['digest']}"), platforms
