"""`/secrets` and `/configs`. A secret's data comes in and never goes out; a config's is shown."""

from __future__ import annotations

from aiohttp import web

from swarm.api.call import Call, Route, answer, done
from swarm.api.present import config_json, secret_json
from swarm.api.selection import CONFIG_FILTERS, SECRET_FILTERS, select_payloads
from swarm.model.docker_json import decode
from swarm.model.objects import Config, Secret
from swarm.model.specs import ConfigSpec, SecretSpec
from swarm.model.view import find


async def list_secrets(call: Call) -> web.Response:
    view = call.control().view
    return answer([secret_json(s) for s in select_payloads(view, Secret, call.filters(SECRET_FILTERS))])


async def inspect_secret(call: Call) -> web.Response:
    return answer(secret_json(find(call.control().view, Secret, call.params["id"])))


async def create_secret(call: Call) -> web.Response:
    control = call.control()
    secret = await control.payloads.create_secret(decode(SecretSpec, await call.body()))
    return answer({"ID": secret.id}, 201)


async def update_secret(call: Call) -> web.Response:
    control, version = call.control(), call.object_version()
    spec = decode(SecretSpec, await call.body())
    await control.payloads.relabel_secret(call.params["id"], version, spec)
    return done()


async def remove_secret(call: Call) -> web.Response:
    await call.control().payloads.remove(Secret, call.params["id"])
    return done(204)


async def list_configs(call: Call) -> web.Response:
    view = call.control().view
    return answer([config_json(view, c) for c in select_payloads(view, Config, call.filters(CONFIG_FILTERS))])


async def inspect_config(call: Call) -> web.Response:
    view = call.control().view
    return answer(config_json(view, find(view, Config, call.params["id"])))


async def create_config(call: Call) -> web.Response:
    control = call.control()
    config = await control.payloads.create_config(decode(ConfigSpec, await call.body()))
    return answer({"ID": config.id}, 201)


async def update_config(call: Call) -> web.Response:
    control, version = call.control(), call.object_version()
    spec = decode(ConfigSpec, await call.body())
    await control.payloads.relabel_config(call.params["id"], version, spec)
    return done()


async def remove_config(call: Call) -> web.Response:
    await call.control().payloads.remove(Config, call.params["id"])
    return done(204)


ROUTES = (
    Route("GET", "/secrets", list_secrets),
    Route("POST", "/secrets/create", create_secret),
    Route("GET", "/secrets/{id}", inspect_secret),
    Route("POST", "/secrets/{id}/update", update_secret),
    Route("DELETE", "/secrets/{id}", remove_secret),
    Route("GET", "/configs", list_configs),
    Route("POST", "/configs/create", create_config),
    Route("GET", "/configs/{id}", inspect_config),
    Route("POST", "/configs/{id}/update", update_config),
    Route("DELETE", "/configs/{id}", remove_config),
)
