"""The network commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from swarm.api.client import ApiError
from swarm.base.errors import SwarmError
from swarm.cli.network_flags import ipam_configs
from swarm.cli.options import (
    FILTER,
    FORMAT_HELP,
    Json,
    Parsed,
    connect,
    filters_of,
    for_each,
    inspect_each,
    listing,
)
from swarm.cli.render import render
from swarm.cli.rows import NETWORK_USE, NETWORKS, network_rows, network_use_rows
from swarm.cli.service_values import parse_label

LABEL = Parsed("key=value", parse_label)
PRUNE_WARNING = "WARNING! This will remove all custom networks not used by at least one container."


@click.group()
def network() -> None:
    """Manage networks."""


@network.command()
@listing(quiet="Only display network IDs")
@click.option("--usage", is_flag=True, help="Show tasks, and addresses used of those there are")
@click.pass_context
def ls(ctx: click.Context, /, filters: tuple[tuple[str, str], ...], template: str, **flags: bool) -> None:
    """List networks."""
    with connect(ctx) as client:
        found = client.get("/networks", filters=filters_of(filters))
    table, rows = (NETWORK_USE, network_use_rows) if flags["usage"] else (NETWORKS, network_rows)
    shown = rows(found, trunc=not flags["no_trunc"])
    click.echo(render(table, shown, template=template, quiet=flags["quiet"]), nl=False)


@network.command()
@click.argument("names", metavar="NETWORK...", nargs=-1, required=True)
@click.option("-f", "--format", "template", default="", metavar="FORMAT", help=FORMAT_HELP)
@click.option("-v", "--verbose", is_flag=True, help="With the services and their tasks")
@click.pass_context
def inspect(ctx: click.Context, /, names: tuple[str, ...], template: str, verbose: bool) -> None:
    """Show networks in detail."""
    with connect(ctx) as client:
        inspect_each(
            ctx, names, lambda name: client.get(f"/networks/{name}", verbose=verbose or None), template
        )


def _split(texts: Sequence[str]) -> list[str]:
    """Several in one flag are separated by commas."""
    return [part.strip() for text in texts for part in text.split(",")]


@network.command(
    epilog="Examples: swarm network create --subnet 10.20.0.0/16 backend. On each node: swarm network create "
    "--config-only --subnet 192.168.7.0/24 --ip-range 192.168.7.64/27 -o parent=eth1 lan; then: swarm "
    "network create -d macvlan --config-from lan wire"
)
@click.argument("name", metavar="NETWORK")
@click.option(
    "-d", "--driver", default="overlay", show_default=True, help="overlay; macvlan with --config-from"
)
@click.option("--attachable", is_flag=True, help="Let single containers be attached")
@click.option("--internal", is_flag=True, help="Nothing leads out of it")
@click.option("--ingress", is_flag=True, help="The network that published ports are served through")
@click.option("--subnet", "subnets", multiple=True, metavar="CIDR", help="Default: of the address pools")
@click.option("--ip-range", "ranges", multiple=True, metavar="CIDR", help="Give addresses of this part only")
@click.option("--gateway", "gateways", multiple=True, metavar="IP", help="Default: the subnet's first")
@click.option("--aux-address", "auxiliary", multiple=True, type=LABEL, help="NAME=IP that no task is to get")
@click.option("-o", "--opt", "options", multiple=True, type=LABEL, help="Option of the driver")
@click.option("--label", "labels", multiple=True, type=LABEL, help="Label of the network")
@click.option("--config-only", is_flag=True, help="Settings of this node only, for --config-from")
@click.option("--config-from", default="", metavar="NETWORK", help="Take each node's settings of that name")
@click.option("--scope", default="", help="swarm; local goes with --config-only")
@click.option("--ipv6", is_flag=True, help="IPv6 addresses beside those of IPv4")
@click.option("--ipam-driver", default="default", hidden=True)
@click.pass_context
def create(ctx: click.Context, /, name: str, **flags: Any) -> None:  # noqa: ANN401 - values of many types
    """Create a network."""
    configs = ipam_configs(
        _split(flags["subnets"]), _split(flags["ranges"]), _split(flags["gateways"]), flags["auxiliary"]
    )
    body: Json = {
        "Name": name,
        "Driver": flags["driver"],
        "Scope": flags["scope"],
        "EnableIPv6": flags["ipv6"],
        "Internal": flags["internal"],
        "Attachable": flags["attachable"],
        "Ingress": flags["ingress"],
        "ConfigOnly": flags["config_only"],
        "Options": dict(flags["options"]),
        "Labels": dict(flags["labels"]),
        "IPAM": {"Driver": flags["ipam_driver"], "Config": configs},
    }
    if flags["config_from"]:
        body["ConfigFrom"] = {"Network": flags["config_from"]}
    with connect(ctx) as client:
        click.echo(client.post("/networks/create", body)["Id"])


@network.command()
@click.argument("names", metavar="NETWORK...", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Do not fail when a network is not there")
@click.pass_context
def rm(ctx: click.Context, /, names: tuple[str, ...], force: bool) -> None:
    """Remove networks; what still stops keeps its network until it is gone."""
    with connect(ctx) as client:

        def remove(name: str) -> None:
            try:
                client.delete(f"/networks/{name}")
            except ApiError as error:
                if force and error.status == 404:
                    return
                raise
            click.echo(name)

        for_each(ctx, names, remove)


@network.command()
@click.option("--filter", "filters", type=FILTER, multiple=True, help="label=KEY[=VALUE], or label!=...")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.pass_context
def prune(ctx: click.Context, /, filters: tuple[tuple[str, str], ...], force: bool) -> None:
    """Remove all networks that no service uses."""
    if not force and not click.confirm(f"{PRUNE_WARNING}\nAre you sure you want to continue?"):
        raise SwarmError("network prune has been cancelled")
    with connect(ctx) as client:
        removed = client.post("/networks/prune", {}, filters=filters_of(filters))["NetworksDeleted"]
    if removed:
        click.echo("Deleted Networks:\n" + "\n".join(removed) + "\n")
