"""`/swarm/jointokens`: join tokens that end by themselves. Not in Docker's API: the paths are ours."""

from __future__ import annotations

from aiohttp import web

from swarm.api.call import Call, Route, answer, done
from swarm.base.errors import InvalidArgument
from swarm.model.docker_json import Json, decode, timestamp
from swarm.model.objects import Cluster, LimitedToken
from swarm.model.rotate import TokenRequest


async def create(call: Call) -> web.Response:
    """`{"Role", "Ttl", "Uses", "Labels"}`: durations are nanoseconds. The answer alone holds the token."""
    control = call.control()
    body = await call.body()
    if body.get("Role") not in ("worker", "manager"):
        raise InvalidArgument("invalid Role of a join token: it is worker or manager")
    token = await control.create_token(decode(TokenRequest, body))
    text = call.backend.swarm.token_text(control.cluster(), token)
    return answer(_shown(token) | {"Token": text}, status=201)


async def list_tokens(call: Call) -> web.Response:
    cluster: Cluster = call.control().cluster()
    return answer([_shown(token) for token in cluster.root_ca.limited_tokens])


async def remove(call: Call) -> web.Response:
    await call.control().remove_token(call.params["id"])
    return done()


def _shown(token: LimitedToken) -> Json:
    """Without the secret."""
    return {
        "ID": token.id,
        "Role": token.role.value,
        "ExpiresAt": timestamp(token.expires_at) if token.expires_at else None,
        "Uses": token.uses,
        "UsedBy": list(token.used_by),
        "Labels": dict(token.labels),
    }


ROUTES = (
    Route("GET", "/swarm/jointokens", list_tokens),
    Route("POST", "/swarm/jointokens", create),
    Route("DELETE", "/swarm/jointokens/{id}", remove),
)
