"""`/nodes`."""

from __future__ import annotations

from aiohttp import web

from swarm.api.call import Call, Route, answer, done
from swarm.api.present import node_json
from swarm.api.selection import NODE_FILTERS, select_nodes
from swarm.model.docker_json import Json, decode
from swarm.model.objects import Node
from swarm.model.specs import NodeSpec
from swarm.model.view import find


async def list_nodes(call: Call) -> web.Response:
    nodes = select_nodes(call.control().view, call.filters(NODE_FILTERS))
    return answer([_present(call, node) for node in nodes])


async def inspect(call: Call) -> web.Response:
    node = find(call.control().view, Node, call.params["id"])
    return answer(_present(call, node))


def _present(call: Call, node: Node) -> Json:
    is_reachable = node.manager_status is not None and call.control().is_reachable(node.id)
    return node_json(node, call.backend.swarm.status(), is_reachable=is_reachable)


async def update(call: Call) -> web.Response:
    control = call.control()
    version = call.object_version()
    await control.update_node(call.params["id"], version, decode(NodeSpec, await call.body()))
    return done()


async def remove(call: Call) -> web.Response:
    await call.control().remove_node(call.params["id"], force=call.flag("force"))
    return done()


ROUTES = (
    Route("GET", "/nodes", list_nodes),
    Route("GET", "/nodes/{id}", inspect),
    Route("POST", "/nodes/{id}/update", update),
    Route("DELETE", "/nodes/{id}", remove),
)
