"""join-token: the tokens that let hosts in, lasting and limited ones."""

from __future__ import annotations

from typing import Any

import click

from swarm.api.client import Client
from swarm.base.clock import SystemClock
from swarm.base.errors import InvalidArgument
from swarm.cli.options import Json, Parsed, connect
from swarm.cli.render import Table, render
from swarm.cli.service_values import parse_label
from swarm.cli.updating import Seen
from swarm.cli.values import parse_positive_duration, parse_time, parse_unsigned

_ROLES = ("worker", "manager")
_TOKENS = Table(
    type_name="*swarm.joinTokenContext",
    columns=("ID", "Role", "Expires", "Used", "Labels"),
    headers={"ID": "ID", "Role": "ROLE", "Expires": "EXPIRES", "Used": "USED", "Labels": "LABELS"},
)


def print_join_command(role: str, token: str, address: str) -> None:
    click.echo(f"To add a {role} to this swarm, run the following command:\n")
    click.echo(f"    swarm join --token {token} {address}\n")


@click.command(
    name="join-token",
    epilog="Examples: swarm join-token -q worker; swarm join-token --ttl 1h --uses 1 --label zone=a worker",
)
@click.argument("what", metavar="worker|manager|ls|rm")
@click.argument("ids", metavar="[ID...]", nargs=-1)
@click.option("-q", "--quiet", is_flag=True, help="Only display the token")
@click.option("--rotate", is_flag=True, help="Make a new token: the old one lets nobody in any more")
@click.option("--ttl", type=Parsed("duration", parse_positive_duration), help="Make a token for this long")
@click.option("--uses", type=Parsed("uint", parse_unsigned), help="Make a token for this many nodes")
@click.option(
    "--label",
    "labels",
    type=Parsed("key=value", parse_label),
    multiple=True,
    help="Make a token whose nodes get this label",
)
@click.pass_context
def join_token(
    ctx: click.Context, /, what: str, ids: tuple[str, ...], quiet: bool, rotate: bool, **limits: object
) -> None:
    """Print the command that makes another host a worker or a manager of this swarm.

    With --ttl, --uses or --label it is one with a token of its own, which `ls` lists and `rm` removes.
    """
    if what not in (*_ROLES, "ls", "rm"):
        raise InvalidArgument(f"unknown role {what}: it is worker or manager")
    if bool(ids) != (what == "rm"):
        raise InvalidArgument("rm needs the IDs of limited tokens" if what == "rm" else f"{what} takes no ID")
    with connect(ctx) as client:
        if what == "ls":
            click.echo(render(_TOKENS, _rows(client.get("/swarm/jointokens")), quiet=quiet), nl=False)
        elif what == "rm":
            for token_id in ids:
                client.delete(f"/swarm/jointokens/{token_id}")
                click.echo(token_id)
        else:
            limited = _limits(limits)
            if limited and rotate:
                raise InvalidArgument(
                    "--rotate is for the lasting token: it goes without --ttl, --uses, --label"
                )
            token = _make(client, what, limited) if limited else _lasting(client, what, rotate, quiet)
            _show(client, what, token, quiet=quiet)


def _limits(limits: dict[str, object]) -> Json:
    labels = limits["labels"]
    assert isinstance(labels, tuple)
    wanted = {"Ttl": limits["ttl"], "Uses": limits["uses"], "Labels": dict(labels)}
    if limits["uses"] == 0:
        raise InvalidArgument("--uses must be at least 1")
    return {key: value for key, value in wanted.items() if value}


def _make(client: Client, role: str, limits: Json) -> str:
    return str(client.post("/swarm/jointokens", {"Role": role} | limits)["Token"])


def _lasting(client: Client, role: str, rotate: bool, quiet: bool) -> str:
    if rotate:
        swarm = client.get("/swarm")
        query: dict[str, Any] = {f"rotate{role.capitalize()}Token": True}
        Seen.of("/swarm", swarm).update(client, swarm["Spec"], **query)
        if not quiet:
            click.echo(f"Successfully rotated {role} join token.\n")
    return str(client.get("/swarm")["JoinTokens"][role.capitalize()])


def _show(client: Client, role: str, token: str, *, quiet: bool) -> None:
    if quiet:
        click.echo(token)
        return
    node = client.get(f"/nodes/{client.get('/info')['Swarm']['NodeID']}")
    print_join_command(role, token, node["ManagerStatus"]["Addr"])


def _rows(tokens: list[Json]) -> list[Json]:
    now = SystemClock().now()
    rows = []
    for token in tokens:
        expires = parse_time(token["ExpiresAt"]) if token["ExpiresAt"] else None
        text = "never" if expires is None else f"{expires:%Y-%m-%d %H:%M:%S} UTC"
        used = f"{len(token['UsedBy'])}/{token['Uses'] or 'any'}"
        rows.append(
            {
                "ID": token["ID"],
                "Role": token["Role"],
                "Expires": f"{text} (ended)" if expires is not None and expires <= now else text,
                "Used": used,
                "Labels": ",".join(f"{k}={v}" for k, v in sorted(token["Labels"].items())),
            }
        )
    return rows
