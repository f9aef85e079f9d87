"""stack rm."""

from __future__ import annotations

import click

from swarm.cli.options import TIMEOUT, connect, for_each


@click.command(epilog="Example: swarm stack rm shop")
@click.argument("names", metavar="STACK...", nargs=-1, required=True)
@click.option("-d", "--detach/--wait", default=False, help="Do not wait until everything is gone")
@click.option(
    "--timeout", type=TIMEOUT, default="5m", show_default=True, help="How long to wait; 0: for ever"
)
@click.pass_context
def rm(ctx: click.Context, /, names: tuple[str, ...], detach: bool, timeout: float) -> None:
    """Remove stacks: services, and when their tasks have ended, secrets, configs and networks.

    When this has ended, a stack of the same name can be deployed at once.
    """
    from swarm.cli.stack_removal import Removal

    with connect(ctx) as client:
        for_each(ctx, names, lambda name: Removal(client, name, timeout).run(wait=not detach))
