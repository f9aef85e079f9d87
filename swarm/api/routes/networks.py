"""`/networks`: the cluster's networks. Outside of a swarm there is none."""

from __future__ import annotations

from aiohttp import web

from swarm.api.call import Call, Route, answer
from swarm.api.present import network_json
from swarm.api.selection import NETWORK_FILTERS, select_networks
from swarm.base.errors import NotFound
from swarm.model.objects import Network
from swarm.model.view import find


async def list_networks(call: Call) -> web.Response:
    filters = call.filters(NETWORK_FILTERS)
    control = call.backend.control
    if control is None:
        return answer([])
    return answer([network_json(network) for network in select_networks(control.view, filters)])


async def inspect(call: Call) -> web.Response:
    control = call.backend.control
    if control is None:
        raise NotFound("network", call.params["id"])
    found = network_json(find(control.view, Network, call.params["id"]))
    return answer(found | {"Containers": {}})


ROUTES = (
    Route("GET", "/networks", list_networks),
    Route("GET", "/networks/{id}", inspect),
)
