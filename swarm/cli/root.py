"""The top of the command tree; here alone an error becomes a line on stderr and an exit status."""

from __future__ import annotations

import os
import sys

import click

from swarm.api.client import host_from_environment
from swarm.base.errors import SwarmError
from swarm.cli.lazy import LazyGroup

_COMMANDS = "swarm.cli.commands"

root = LazyGroup(
    "swarm",
    table={
        "init": (f"{_COMMANDS}.cluster:init", "Initialize a swarm"),
        "join": (f"{_COMMANDS}.cluster:join", "Join a swarm as a node"),
        "join-token": (f"{_COMMANDS}.join_token:join_token", "Manage join tokens"),
        "ca": (f"{_COMMANDS}.authority:ca", "Display and rotate the root CA"),
        "leave": (f"{_COMMANDS}.cluster:leave", "Leave the swarm"),
        "unlock": (f"{_COMMANDS}.lock:unlock", "Unlock this manager"),
        "unlock-key": (f"{_COMMANDS}.lock:unlock_key", "Manage the key that unlocks managers"),
        "update": (f"{_COMMANDS}.lock:update", "Change settings of the swarm"),
        "info": (f"{_COMMANDS}.system:info", "Display what this node knows of itself and the swarm"),
        "version": (f"{_COMMANDS}.system:version", "Show the versions of the command and the daemon"),
        "system": (f"{_COMMANDS}.system:system", "Look after the swarm's store and this node"),
        "node": (f"{_COMMANDS}.node:node", "Manage nodes"),
        "service": (f"{_COMMANDS}.service:service", "Manage services"),
        "stack": (f"{_COMMANDS}.stack:stack", "Manage stacks"),
        "task": (f"{_COMMANDS}.task:task", "Look at tasks"),
        "image": (f"{_COMMANDS}.image:image", "Manage images of this node"),
        "container": (f"{_COMMANDS}.container:container", "Look at containers of this node"),
        "secret": (f"{_COMMANDS}.payload:secret", "Manage secrets"),
        "config": (f"{_COMMANDS}.payload:config", "Manage configs"),
        "network": (f"{_COMMANDS}.network:network", "Look at networks"),
        "events": (f"{_COMMANDS}.events:events", "Show what happens in the swarm"),
        "lab": (f"{_COMMANDS}.lab:lab", "Run a cluster of several hosts on this machine"),
    },
    help="A cluster orchestrator with Docker Swarm's commands.\n\nStart with `swarm init`; "
    "try it on one machine with `swarm lab up`.",
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[
        click.Option(
            ["-H", "--host"],
            metavar="unix://PATH",
            help="Socket of the daemon (default: $SWARM_HOST or unix:///run/swarm/swarm.sock)",
        ),
        click.Option(["-v", "--version"], is_flag=True, help="Print the version and exit"),
    ],
    invoke_without_command=True,
    no_args_is_help=True,
)


@click.pass_context
def _start(ctx: click.Context, /, host: str | None, version: bool) -> None:
    if version:
        from swarm import __version__

        click.echo(f"swarm version {__version__}")
        ctx.exit(0)
    ctx.obj = host or host_from_environment()


root.callback = _start


def run(arguments: list[str]) -> int:
    """Run the command line `arguments`; every failure is one line on stderr and a status that is not 0."""
    try:
        status = root.main(args=arguments, prog_name="swarm", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        return _report(error)
    except click.Abort:
        click.echo(err=True)  # behind the question that got no answer
        return 130
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has left; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SwarmError as error:
        click.echo(str(error), err=True)
        return 1
    except UnicodeEncodeError:
        click.echo("an argument or a variable is not UTF-8 text", err=True)
        return 1
    except OSError as error:
        click.echo(f"{error.filename or 'swarm'}: {error.strerror or error}", err=True)
        return 1


def _report(error: click.ClickException) -> int:
    """Tell of a wrong command line in one line; a group without a command shows its help."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message())
        return 0
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    about = f" (see '{ctx.command_path} --help')" if ctx is not None else ""
    click.echo(error.format_message().rstrip(".") + about, err=True)
    return error.exit_code
