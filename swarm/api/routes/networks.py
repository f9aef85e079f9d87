"""`/networks`: the cluster's networks, the three that every host has, and this node's config-only ones."""

from __future__ import annotations

from aiohttp import web

from swarm.api.call import Call, Route, answer, done
from swarm.api.filters import has_labels
from swarm.api.network_json import detailed_network, network_json, read_network, with_usage
from swarm.api.selection import NETWORK_FILTERS, select_networks
from swarm.base.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unsupported,
)
from swarm.manager.control.networks import unused_networks
from swarm.model.networks import PREDEFINED, find_network
from swarm.model.networks import list_networks as known_networks

PRUNE_FILTERS = frozenset({"label", "label!"})


async def list_networks(call: Call) -> web.Response:
    filters = call.filters(NETWORK_FILTERS)
    control = call.backend.control
    local = call.backend.engine.networks.list()
    if control is None and call.backend.swarm.status().is_manager:
        call.control()  # tells why it has no answer
    if control is None:
        return answer([network_json(network) for network in (*PREDEFINED.values(), *local)])
    return answer(with_usage(control.view, select_networks(control.view, filters, local)))


async def inspect(call: Call) -> web.Response:
    """`scope=swarm` finds the predefined networks too: services may name them."""
    reference, scope = call.params["id"], call.text("scope")
    if scope not in ("", "swarm", "local", "global"):
        raise InvalidArgument(f"invalid scope {scope}: expected swarm or local")
    control = call.backend.control
    network = PREDEFINED.get(reference)
    if network is not None:
        return answer(network_json(network, scope) | {"Containers": {}})
    network = None if scope == "swarm" else call.backend.engine.networks.find(reference)
    if network is not None:
        return answer(network_json(network) | {"Containers": {}})
    if control is None or scope == "local":
        raise NotFound("network", reference)
    network = find_network(control.view, reference)
    node_id = call.backend.swarm.status().node_id
    return answer(detailed_network(control.view, network, node_id, verbose=call.flag("verbose")))


async def create(call: Call) -> web.Response:
    """A config-only network is made on this node, which need not be a manager, nor in a swarm."""
    spec, local = read_network(await call.body()), call.backend.engine.networks
    if local.find(spec.name) is not None:
        raise AlreadyExists(f"network with name {spec.name} already exists")
    if spec.config_only:
        control = call.backend.control
        if control is not None and any(n.spec.name == spec.name for n in known_networks(control.view)):
            raise AlreadyExists(f"network with name {spec.name} already exists")
        network = local.create(spec)
    else:
        network = await call.control().create_network(spec)
    return answer({"Id": network.id, "Warning": ""}, 201)


async def remove(call: Call) -> web.Response:
    reference = call.params["id"]
    if reference in PREDEFINED:
        raise PermissionDenied(f"{reference} is a pre-defined network and cannot be removed")
    local = call.backend.engine.networks
    if local.find(reference) is not None:
        local.remove(reference)
    else:
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
