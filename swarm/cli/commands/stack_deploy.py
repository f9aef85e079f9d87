"""stack deploy and stack config."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swarm.api.client import JsonValue
from swarm.base.errors import InvalidArgument
from swarm.cli.options import TIMEOUT, F, connect

if TYPE_CHECKING:
    from swarm.stack.project import LoadOptions, Notice

_COMPOSE = [
    click.option(
        "-c", "--compose-file", "files", multiple=True, metavar="FILE", help="A compose file, or - for stdin"
    ),
    click.option(
        "--env-file", "env_files", multiple=True, metavar="FILE", help="Variables, in place of .env"
    ),
    click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Services of this profile too"),
    click.option(
        "--allow-outside", is_flag=True, help="Files outside of the compose file's folder may be read"
    ),
]


def compose_options(function: F) -> F:
    """What `deploy` and `config` are told of compose files."""
    for option in reversed(_COMPOSE):
        function = option(function)
    return function


def named_files(files: Sequence[str]) -> tuple[str, ...]:
    """Several in one option are divided by commas, as Docker has it.

    Raises:
        InvalidArgument: none.
    """
    found = tuple(name for each in files for name in each.split(",") if name)
    if not found:
        raise InvalidArgument("specify a Compose file (with --compose-file)")
    return found


def load_options(files: Sequence[str], given: dict[str, JsonValue], *, interpolate: bool) -> LoadOptions:
    from swarm.stack.project import LoadOptions

    return LoadOptions(
        environment=dict(os.environ),
        directory=str(Path.cwd()),
        env_files=given["env_files"],
        profiles=given["profiles"],
        is_outside_allowed=given["allow_outside"],
        is_interpolated=interpolate,
        stdin=_standard_input() if "-" in files else None,
    )


def _standard_input() -> str:
    from swarm.stack.yaml_parse import MAX_LENGTH

    try:
        return sys.stdin.buffer.read(4 * MAX_LENGTH).decode()  # a longer one is refused by its length
    except UnicodeDecodeError:
        raise InvalidArgument("<stdin>: not UTF-8: is it a text file?") from None


@click.command(epilog="Example: swarm stack deploy -c compose.yml shop")
@click.argument("name", metavar="[STACK]", required=False)
@compose_options
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing")
@click.option(
    "--prune", is_flag=True, help="Remove services, networks, secrets and configs that are no longer named"
)
@click.option(
    "--resolve-image",
    type=click.Choice(["always", "changed", "never"]),
    default="always",
    show_default=True,
    help="When to ask the registry for the digests of images",
)
@click.option("--with-registry-auth", is_flag=True, help="Send this client's registry logins to the nodes")
@click.option("--rollback-on-failure", is_flag=True, help="Restore what was, if anything fails; waits")
@click.option(
    "-d", "--detach/--wait", default=None, help="Whether to wait for the services (default: on a terminal)"
)
@click.option(
    "--timeout", type=TIMEOUT, default="10m", show_default=True, help="How long to wait; 0: for ever"
)
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.pass_context
def deploy(
    ctx: click.Context, /, name: str | None, files: tuple[str, ...], dry_run: bool, **given: JsonValue
) -> None:
    """Deploy a stack, or bring it to what its compose files say.

    Its name may be left out where the files have a `name:`. Networks, secrets and configs come first, then
    services, each after those that it depends on. What is as wanted already is left alone.
    """
    from swarm.cli.stack_deployment import Deployment, DeployOptions, plan_lines
    from swarm.stack.load import load_stack
    from swarm.stack.plan import Resolve

    wait = _waits(given["detach"], restores=given["rollback_on_failure"])
    chosen = named_files(files)
    stack = load_stack(name, chosen, load_options(chosen, given, interpolate=True))
    _warn(stack.notices)
    options = DeployOptions(
        prune=given["prune"],
        resolve=Resolve(given["resolve_image"]),
        with_registry_auth=given["with_registry_auth"],
        wait=wait,
        timeout_s=given["timeout"],
        rollback_on_failure=given["rollback_on_failure"],
        quiet=given["quiet"],
    )
    with connect(ctx) as client:
        deployment = Deployment(client, stack, options)
        steps = deployment.plan()
        if dry_run:
            click.echo("\n".join(plan_lines(steps)))
            return
        _until_interrupted(stack.name, lambda: deployment.run(steps))


@click.command(epilog="Example: swarm stack config -c compose.yml -c compose.production.yml")
@compose_options
@click.option("--skip-interpolation", is_flag=True, help="Leave variables as they are written")
def config(files: tuple[str, ...], skip_interpolation: bool, **given: JsonValue) -> None:
    """Show what compose files come to: merged, with variables filled in, as one file."""
    from swarm.stack.load import resolved_config

    chosen = named_files(files)
    text, notices = resolved_config(chosen, load_options(chosen, given, interpolate=not skip_interpolation))
    _warn(notices)
    click.echo(text, nl=False)


def _warn(notices: Iterable[Notice]) -> None:
    for notice in notices:
        click.echo(f"WARNING: {notice}", err=True)


def _waits(detach: bool | None, *, restores: bool) -> bool:
    if restores and detach:
        raise InvalidArgument("--rollback-on-failure has to wait for the outcome: leave --detach out")
    return restores or (sys.stdout.isatty() if detach is None else not detach)


def _until_interrupted(name: str, act: Callable[[], None]) -> None:
    try:
        act()
    except KeyboardInterrupt:
        click.echo(f"\nInterrupted; what was sent goes on. See `swarm stack ps {name}`.", err=True)
        raise
