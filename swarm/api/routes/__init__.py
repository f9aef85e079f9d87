"""Every path of the API, by subject."""

from __future__ import annotations

from swarm.api.call import Route
from swarm.api.routes import (
    absent,
    backup,
    containers,
    diagnosis,
    events,
    execs,
    images,
    join_tokens,
    networks,
    nodes,
    payload_versions,
    payloads,
    services,
    system,
    tasks,
)
from swarm.api.routes import swarm as swarm_routes


def all_routes() -> tuple[Route, ...]:
    return (
        *system.ROUTES,
        *diagnosis.ROUTES,
        *swarm_routes.ROUTES,
        *join_tokens.ROUTES,
        *backup.ROUTES,
        *services.ROUTES,
        *tasks.ROUTES,
        *events.ROUTES,
        *execs.ROUTES,
        *nodes.ROUTES,
        *networks.ROUTES,
        *payloads.ROUTES,
        *payload_versions.ROUTES,
        *images.ROUTES,
        *containers.ROUTES,
        *absent.ROUTES,
    )
