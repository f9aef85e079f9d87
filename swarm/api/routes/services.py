"""`/services`."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from swarm.api.backend import LogSelector
from swarm.api.call import Call, Route, answer, done
from swarm.api.logs import read_options, stream_logs
from swarm.api.present import service_json
from swarm.api.selection import SERVICE_FILTERS, count_tasks, select_services
from swarm.base.errors import InvalidArgument, NotManager
from swarm.model.container import PullOptions
from swarm.model.docker_json import read_service_spec, with_defaults
from swarm.model.objects import Service
from swarm.model.specs import ServiceSpec
from swarm.model.view import find


async def list_services(call: Call) -> web.Response:
    view = call.control().view
    with_counts = call.flag("status")
    return answer(
        [
            service_json(service, count_tasks(view, service) if with_counts else None)
            for service in select_services(view, call.filters(SERVICE_FILTERS))
        ]
    )


async def inspect(call: Call) -> web.Response:
    found = service_json(find(call.control().view, Service, call.params["id"]))
    return answer(with_defaults(found) if call.flag("insertDefaults") else found)


async def create(call: Call) -> web.Response:
    control = call.control()
    service = await control.create_service(await _posted_spec(call))
    return answer({"ID": service.id, "Warnings": []}, 201)


async def update(call: Call) -> web.Response:
    control = call.control()
    reference, version, rollback = call.params["id"], call.object_version(), call.text("rollback")
    if rollback not in ("", "none", "previous"):
        raise InvalidArgument(f"unrecognized rollback option {rollback}")
    if rollback == "previous":
        await control.rollback_service(reference, version)
    elif call.flag("resume"):
        await control.resume_service(reference, version)
    else:
        spec = await _posted_spec(call)
        await control.update_service(reference, version, spec, call.text("registryAuthFrom"))
    return answer({"Warnings": None})


async def _posted_spec(call: Call) -> ServiceSpec:
    """The spec, with the registry login that came beside it: nodes pull with it, and nobody is shown it."""
    spec = read_service_spec(await call.body())
    if call.registry_auth() is None:
        return spec
    login = PullOptions(registry_auth=call.request.headers["X-Registry-Auth"])
    template = spec.task_template
    container = replace(template.container_spec, pull_options=login)
    return replace(spec, task_template=replace(template, container_spec=container))


async def rebalance(call: Call) -> web.Response:
    return answer({"Moved": await call.control().rebalance_service(call.params["id"])})


async def remove(call: Call) -> web.Response:
    await call.control().remove_service(call.params["id"])
    return done()


async def explain(call: Call) -> web.Response:
    found = call.control().explain_service(call.params["id"])
    return answer(
        {
            "Service": found.service_name,
            "Running": found.running,
            "Desired": found.desired,
            "Converged": found.is_converged,
            "Findings": [
                {
                    "Kind": finding.kind,
                    "Text": finding.text,
                    "Advice": finding.advice,
                    "Tasks": list(finding.tasks),
                    "Nodes": dict(finding.nodes),
                }
                for finding in found.findings
            ],
        }
    )


async def logs(call: Call) -> web.StreamResponse:
    service = find(call.control().view, Service, call.params["id"])
    options = read_options(call)
    if call.backend.logs is None:
        raise NotManager(in_cluster=True)
    async with call.backend.logs.read(LogSelector(service_id=service.id), options) as messages:
        is_terminal = service.spec.task_template.container_spec.tty
        return await stream_logs(call, messages, is_terminal=is_terminal)


ROUTES = (
    Route("GET", "/services", list_services),
    Route("POST", "/services/create", create),
    Route("GET", "/services/{id}", inspect),
    Route("POST", "/services/{id}/update", update),
    Route("POST", "/services/{id}/rebalance", rebalance),
    Route("DELETE", "/services/{id}", remove),
    Route("GET", "/services/{id}/explain", explain),
    Route("GET", "/services/{id}/logs", logs),
)
