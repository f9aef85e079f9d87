"""`/networks`: the cluster's networks, and the three that every host has."""

from __future__ import annotations

from aiohttp import web

from swarm.api.call import Call, Route, answer, done
from swarm.api.filters import has_labels
from swarm.api.network_json import detailed_network, network_json, read_network, with_usage
from swarm.api.selection import NETWORK_FILTERS, select_networks
from swarm.base.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unsupported
from swarm.manager.control.networks import unused_networks
from swarm.model.networks import PREDEFINED, find_network

PRUNE_FILTERS = frozenset({"label", "label!"})


async def list_networks(call: Call) -> web.Response:
    filters = call.filters(NETWORK_FILTERS)
    control = call.backend.control
    if control is None:
        return answer([network_json(network) for network in PREDEFINED.values()])
    return answer(with_usage(control.view, select_networks(control.view, filters)))


async def inspect(call: Call) -> web.Response:
    """`scope=swarm` finds the predefined networks too: services may name them."""
    reference, scope = call.params["id"], call.text("scope")
    if scope not in ("", "swarm", "local", "global"):
        raise InvalidArgument(f"invalid scope {scope}: expected swarm or local")
    control = call.backend.control
    network = PREDEFINED.get(reference)
    if network is not None:
        return answer(network_json(network, scope) | {"Containers": {}})
    if control is None or scope == "local":
        raise NotFound("network", reference)
    network = find_network(control.view, reference)
    node_id = call.backend.swarm.status().node_id
    return answer(detailed_network(control.view, network, node_id, verbose=call.flag("verbose")))


async def create(call: Call) -> web.Response:
    control = call.control()
    network = await control.create_network(read_network(await call.body()))
    return answer({"Id": network.id, "Warning": ""}, 201)


async def remove(call: Call) -> web.Response:
    reference = call.params["id"]
    if reference in PREDEFINED:
        raise PermissionDenied(f"{reference} is a pre-defined network and cannot be removed")
    await call.control().remove_network(reference)
    return done(204)


async def prune(call: Call) -> web.Response:
    """Remove what no service uses; those that came into use meanwhile stay."""
    control, filters = call.control(), call.filters(PRUNE_FILTERS)
    removed = []
    for network in unused_networks(control.view):
        labels = network.spec.labels
        if not has_labels(filters.get("label"), labels):
            continue
        if any(has_labels((text,), labels) for text in filters.get("label!", ())):
            continue
        try:
            await control.remove_network(network.id)
        except (FailedPrecondition, NotFound):
            continue
        removed.append(network.spec.name)
    return answer({"NetworksDeleted": removed})


async def connect(call: Call) -> web.Response:
    network = find_network(call.control().view, call.params["id"])
    if not network.spec.attachable:
        raise PermissionDenied(
            f"Could not attach to network {network.spec.name}: rpc error: code = PermissionDenied desc = "
            f"network {network.spec.name} not manually attachable"
        )
    raise Unsupported("containers outside of services are not supported by this version")


ROUTES = (
    Route("GET", "/networks", list_networks),
    Route("POST", "/networks/create", create),
    Route("POST", "/networks/prune", prune),
    Route("GET", "/networks/{id}", inspect),
    Route("DELETE", "/networks/{id}", remove),
    Route("POST", "/networks/{id}/connect", connect),
)
