"""`/images` and `/distribution`: this node's images, and what a registry says of a reference.

A pull and a load answer with JSON lines. Errors before the first line are normal answers, later ones a line
`{"errorDetail": ..., "error": ...}`, which makes the client fail.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from swarm.api.backend import Image, PullProgress
from swarm.api.call import Call, Route, answer
from swarm.api.filters import has_labels, is_one_of
from swarm.api.progress import Tell, answer_with_progress, json_line
from swarm.base.errors import InvalidArgument, Unsupported
from swarm.base.log import get_logger
from swarm.model.docker_json import Json, timestamp
from swarm.model.image_reference import parse_reference

IMAGE_FILTERS = frozenset({"dangling", "label", "reference"})
RESOLVE_TIMEOUT_S = 15.0
"""Docker's client waits for the answer before it creates a service."""
_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_log = get_logger("api")


def _summary(image: Image) -> Json:
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Created": int(image.created.timestamp()),
        "Size": image.size,
        "SharedSize": -1,
        "Labels": dict(image.config.labels) or None,
        "Containers": -1,
    }


def _details(image: Image) -> Json:
    config = image.config
    return {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": "",
        "Comment": "",
        "Created": timestamp(image.created),
        "Author": "",
        "Config": {
            "User": config.user,
            "Env": list(config.env),
            "Cmd": list(config.cmd) or None,
            "Entrypoint": list(config.entrypoint) or None,
            "WorkingDir": config.working_dir,
            "Labels": dict(config.labels) or None,
            "ExposedPorts": {port: {} for port in config.exposed_ports} or None,
            "Volumes": {volume: {} for volume in config.volumes} or None,
            "StopSignal": config.stop_signal,
        },
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "RootFS": {"Type": "layers", "Layers": list(image.layers)},
        "Metadata": {"LastTagTime": timestamp(None)},
    }


def _matches_reference(image: Image, wanted: tuple[str, ...] | None) -> bool:
    if not wanted:
        return True
    names = {*image.repo_tags, *(tag.rpartition(":")[0] for tag in image.repo_tags), *image.repo_digests}
    return any(text in names for text in wanted)


async def list_images(call: Call) -> web.Response:
    filters = call.filters(IMAGE_FILTERS)
    return answer(
        [
            _summary(image)
            for image in call.backend.engine.images.list()
            if _matches_reference(image, filters.get("reference"))
            and has_labels(filters.get("label"), image.config.labels)
            and is_one_of(filters.get("dangling"), "false" if image.repo_tags else "true")
        ]
    )


async def inspect(call: Call) -> web.Response:
    return answer(_details(call.backend.engine.images.get(call.params["name"])))


async def remove(call: Call) -> web.Response:
    removed = await call.backend.engine.images.remove(call.params["name"], force=call.flag("force"))
    return answer([{item.kind.capitalize(): item.name} for item in removed])


async def load(call: Call) -> web.StreamResponse:
    images = await call.backend.engine.images.load(call.request.content.iter_chunked(256 * 1024))
    lines = [
        json_line({"stream": f"Loaded image: {tag}\n" if tag else f"Loaded image ID: {image.id}\n"})
        for image in images
        for tag in image.repo_tags or ("",)
    ]
    return web.Response(body=b"".join(lines), content_type="application/json")


async def pull(call: Call) -> web.StreamResponse:
    reference = _pulled_reference(call)
    auth = call.registry_auth()

    async def work(tell: Tell) -> None:
        def told(progress: PullProgress) -> None:
            tell({"status": progress.status} | ({"id": progress.id} if progress.id else {}))

        image = await call.backend.engine.images.pull(reference, auth, told)
        _log.info("image.pulled", reference=reference, image_id=image.id)

    return await answer_with_progress(call, work)


def _pulled_reference(call: Call) -> str:
    name, tag = call.text("fromImage"), call.text("tag")
    if call.text("fromSrc"):
        raise Unsupported("importing images is not supported by this version: load an archive instead")
    if not name:
        raise InvalidArgument("invalid reference format: fromImage is empty")
    if tag:
        name += ("@" if tag.startswith("sha256:") else ":") + tag
    return str(parse_reference(name).with_default_tag())


async def distribution(call: Call) -> web.Response:
    async with asyncio.timeout(RESOLVE_TIMEOUT_S):
        found = await call.backend.engine.images.resolve(call.params["name"], call.registry_auth())
    return answer(
        {
            "Descriptor": {"mediaType": found.media_type, "digest": found.digest, "size": found.size},
            "Platforms": [
                {"architecture": _GO_ARCHITECTURES.get(p.architecture, p.architecture), "os": p.os}
                for p in found.platforms
            ],
        }
    )


ROUTES = (
    Route("GET", "/images/json", list_images),
    Route("POST", "/images/create", pull),
    Route("POST", "/images/load", load),
    Route("GET", "/images/{name*}/json", inspect),
    Route("DELETE", "/images/{name*}", remove),
    Route("GET", "/distribution/{name*}/json", distribution),
)
