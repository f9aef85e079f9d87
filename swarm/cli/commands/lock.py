"""update, unlock and unlock-key: settings of the swarm, and the lock on its managers' keys."""

from __future__ import annotations

import sys

import click

from swarm.api.client import JsonValue
from swarm.base.errors import SwarmError
from swarm.cli.options import NO_EXTERNAL_CA, RAFT, Parsed, connect, refused
from swarm.cli.updating import Seen
from swarm.cli.values import parse_duration, parse_integer

ALLOW_LABEL = "swarm.allow"
_DURATION = Parsed("duration", parse_duration)
_INTEGER = Parsed("int", parse_integer)
_SETTINGS = {
    "autolock": ("EncryptionConfig", "AutoLockManagers"),
    "cert_expiry": ("CAConfig", "NodeCertExpiry"),
    "dispatcher_heartbeat": ("Dispatcher", "HeartbeatPeriod"),
    "task_history_limit": ("Orchestration", "TaskHistoryRetentionLimit"),
}
"""Where each flag's setting is in the API's `Spec`."""


def print_unlock_key(key: str) -> None:
    click.echo(
        "To unlock a swarm manager after it restarts, run the `swarm unlock`\n"
        "command and provide the following key:\n\n"
        f"    {key}\n\n"
        "Remember to store this key in a password manager, since without it you\n"
        "will not be able to restart the manager."
    )


def read_secret(prompt: str) -> str:
    """A line from the terminal, unseen, or from whatever stdin is."""
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass(prompt).strip()
    return sys.stdin.readline().strip()


@click.command()
@click.pass_context
def unlock(ctx: click.Context, /) -> None:
    """Unlock this manager: its keys have been locked since it restarted."""
    with connect(ctx) as client:
        state = client.get("/info")["Swarm"]["LocalNodeState"]
        if state == "inactive":
            raise SwarmError("Error: This node is not part of a swarm")
        if state != "locked":
            raise SwarmError("Error: swarm is not locked")
        client.post("/swarm/unlock", {"UnlockKey": read_secret("Enter unlock key: ")})
        swarm = client.get("/info")["Swarm"]
        if swarm.get("Error"):
            click.echo(f"Unlocked, but this manager does not serve yet: {swarm['Error']}", err=True)


@click.command(name="unlock-key")
@click.option("-q", "--quiet", is_flag=True, help="Only display the key")
@click.option("--rotate", is_flag=True, help="Make a new key: managers lock their keys with it at once")
@click.pass_context
def unlock_key(ctx: click.Context, /, quiet: bool, rotate: bool) -> None:
    """Print the key that unlocks the managers of this swarm."""
    with connect(ctx) as client:
        if rotate:
            swarm = client.get("/swarm")
            if not swarm["Spec"]["EncryptionConfig"]["AutoLockManagers"]:
                raise SwarmError("cannot rotate because autolock is not turned on")
            Seen.of("/swarm", swarm).update(client, swarm["Spec"], rotateManagerUnlockKey=True)
            if not quiet:
                click.echo("Successfully rotated manager unlock key.\n")
        key = client.get("/swarm/unlockkey")["UnlockKey"]
        if not key:
            raise SwarmError("no unlock key is set")
        if quiet:
            click.echo(key)
        else:
            print_unlock_key(key)


@click.command(epilog="Example: swarm update --cert-expiry 720h")
@click.option(
    "--autolock",
    type=bool,
    is_flag=False,
    flag_value=True,
    metavar="[=true|false]",
    help="Lock the managers' keys and state on disk",
)
@click.option("--cert-expiry", type=_DURATION, help="Life of nodes' certificates, at least 1h")
@click.option("--dispatcher-heartbeat", type=_DURATION, help="Period of nodes' heartbeats, at least 500ms")
@click.option("--task-history-limit", type=_INTEGER, help="Old tasks kept; all of them if negative")
@click.option(
    "--allow",
    metavar="OPTION,...",
    help="What containers may ask for: device, ipc-host, pid-host, privileged, security-opt, shm-size; "
    "an empty text allows none of them",
)
@refused({"external-ca": NO_EXTERNAL_CA, "max-snapshots": RAFT, "snapshot-interval": RAFT})
@click.pass_context
def update(ctx: click.Context, /, allow: str | None, **flags: JsonValue) -> None:
    """Change settings of the swarm."""
    given = {name: value for name, value in flags.items() if value is not None}
    if not given and allow is None:
        click.echo(ctx.get_help())
        return
    with connect(ctx) as client:
        swarm = client.get("/swarm")
        seen, spec = Seen.of("/swarm", swarm), swarm["Spec"]
        was_locked = spec["EncryptionConfig"]["AutoLockManagers"]
        for name, value in given.items():
            section, key = _SETTINGS[name]
            spec[section][key] = value
        if allow is not None:
            others = {key: value for key, value in (spec.get("Labels") or {}).items() if key != ALLOW_LABEL}
            spec["Labels"] = others | ({ALLOW_LABEL: allow} if allow else {})
        seen.update(client, spec)
        click.echo("Swarm updated.")
        if given.get("autolock") and not was_locked:
            click.echo()
            print_unlock_key(client.get("/swarm/unlockkey")["UnlockKey"])
