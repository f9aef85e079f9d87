"""`swarm lab`: several hosts on this machine, to try the cluster out and to test on.

In: the command line. Out: calls of `swarm.lab.lab.Lab`, and tables. Every error is one line and exit
status 1; only `exec` has the exit status of the program it runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from swarm.base.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from swarm.lab.lab import HostStatus, Lab

Command = TypeVar("Command", bound=Callable[..., Any])


def _named(command: Command) -> Command:
    option = click.option("--name", default="lab", show_default=True, metavar="NAME", help="Name of the lab.")
    return option(command)


def _lab(name: str) -> Lab:
    from swarm.lab.lab import Lab

    return Lab(name)


@click.group(name="lab")
def lab() -> None:
    """Make a cluster of hosts on this machine, each running swarmd."""


@lab.command()
@_named
@click.option("--hosts", type=int, default=3, show_default=True, metavar="K", help="Number of hosts.")
@click.option(
    "--subnet", metavar="CIDR", help="Their network; the first free /24 of 10.213.0.0/16 if not set."
)
@click.option(
    "--insecure-registry",
    "registries",
    multiple=True,
    metavar="HOST[:PORT]|CIDR",
    help="Registry without TLS that the hosts may pull from.",
)
@click.option("--no-daemon", is_flag=True, hidden=True)
def up(name: str, hosts: int, subnet: str | None, registries: tuple[str, ...], no_daemon: bool) -> None:
    """Boot hosts h1 to hK and wait until swarmd answers on each."""
    from swarm.lab.lab import SWARMD

    flags = (word for registry in registries for word in ("--insecure-registry", registry))
    made = _lab(name).up(hosts=hosts, subnet=subnet, daemon=() if no_daemon else (*SWARMD, *flags))
    statuses = made.ls()
    click.echo(_table(statuses, with_lab=False))
    click.echo(
        f"\nTo make h1 a manager:\n\n    swarm lab exec{_name_flag(name)} h1 --"
        f" swarm init --advertise-addr {statuses[0].address}\n"
    )


@lab.command()
@click.option("--name", metavar="NAME", help="Name of the lab; all labs if not set.")
@click.option("--format", "form", metavar="json", help='"json" prints a list of objects instead of a table.')
def ls(name: str | None, form: str | None) -> None:
    """List the hosts."""
    from swarm.lab.lab import list_hosts

    if form not in (None, "json", "table"):
        raise InvalidArgument(f'unknown format "{form}": use json or table')
    statuses = list_hosts() if name is None else _lab(name).ls()
    with_lab = name is None and len({status.lab for status in statuses}) > 1
    click.echo(_as_json(statuses, with_lab) if form == "json" else _table(statuses, with_lab))


@lab.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_named
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def exec(name: str, host: str, command: tuple[str, ...]) -> None:
    """Run a command on a host: swarm lab exec h1 -- swarm node ls."""
    from swarm.lab.enter import enter
    from swarm.lab.host import environment

    argv = command[1:] if command[:1] == ("--",) else command
    if not argv:
        raise InvalidArgument(f"say what to run on {host}: swarm lab exec {host} -- COMMAND")
    entry = _lab(name).entry(host, argv)
    try:
        enter(entry.groups, entry.argv, environment())
    except OSError as error:  # its power was cut in this moment
        raise FailedPrecondition(f"cannot enter host {host}: {error.strerror}, see `swarm lab ls`") from error


@lab.command()
@_named
@click.argument("host")
def kill(name: str, host: str) -> None:
    """Cut a host's power: every process dies at once, the disk stays."""
    _lab(name).kill(host)
    click.echo(host)


@lab.command()
@_named
@click.argument("host")
def start(name: str, host: str) -> None:
    """Boot a host that is off."""
    _lab(name).start(host)
    click.echo(host)


@lab.command()
@_named
@click.argument("a")
@click.argument("b")
def cut(name: str, a: str, b: str) -> None:
    """Drop all traffic between two hosts."""
    _lab(name).cut(a, b)


@lab.command()
@_named
@click.argument("a", required=False)
@click.argument("b", required=False)
def heal(name: str, a: str | None, b: str | None) -> None:
    """Undo the cut between two hosts, or all cuts."""
    if a is not None and b is None:
        raise InvalidArgument(f"heal needs two hosts or none: swarm lab heal {a} OTHER")
    _lab(name).heal(a, b)


@lab.command()
@_named
def down(name: str) -> None:
    """Remove the lab: its processes, disks and networks."""
    existed = _lab(name).down()
    click.echo(name if existed else f"no lab {name}: nothing to remove")


def _name_flag(name: str) -> str:
    return "" if name == "lab" else f" --name {name}"


def _as_json(statuses: Sequence[HostStatus], with_lab: bool) -> str:
    rows = [{"name": s.name, "address": str(s.address), "state": s.state} for s in statuses]
    if with_lab:
        rows = [{"lab": s.lab, **row} for s, row in zip(statuses, rows, strict=True)]
    return json.dumps(rows, indent=2)


def _table(statuses: Sequence[HostStatus], with_lab: bool) -> str:
    rows = [("LAB", "NAME", "ADDRESS", "STATE")]
    rows += [(s.lab, s.name, str(s.address), s.state) for s in statuses]
    if not with_lab:
        return "\n".join(f"{row[1]:<8}{row[2]:<18}{row[3]}" for row in rows)
    return "\n".join(f"{row[0]:<15}{row[1]:<8}{row[2]:<18}{row[3]}" for row in rows)
