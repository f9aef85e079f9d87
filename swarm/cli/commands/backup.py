"""system backup and system restore: the swarm's whole state as one encrypted file."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path

import click

from swarm.api.client import Client
from swarm.base.errors import InvalidArgument, SwarmError
from swarm.cli.commands.lock import read_secret
from swarm.cli.options import Json, connect

_PASSPHRASE_FILE = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File whose first line is the passphrase",
)
_PIECE = 1 << 16
_LONGEST_LINE = 64
_BY_UNLOCK_KEY = b" unlock-key\n"


@click.command(epilog="Example: swarm system backup --passphrase-file pass.txt swarm.backup")
@click.argument("file", type=click.Path(path_type=Path))
@_PASSPHRASE_FILE
@click.option("--unlock-key", "by_unlock_key", is_flag=True, help="Encrypt with the swarm's unlock key")
@click.pass_context
def backup(ctx: click.Context, /, file: Path, passphrase_file: Path | None, by_unlock_key: bool) -> None:
    """Save all of the swarm's state to FILE, encrypted, while the swarm goes on."""
    with connect(ctx) as client:
        passphrase = "" if by_unlock_key else _new_passphrase(client, passphrase_file)
        body = io.BytesIO(json.dumps({"Passphrase": passphrase}).encode())
        headers = {"Content-Type": "application/json"}
        part = file.with_name(f".{file.name}.part")
        try:
            with client.stream("POST", "/swarm/backup", body, headers) as answer:
                descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
                with os.fdopen(descriptor, "wb") as output:
                    while piece := answer.read1(_PIECE):
                        output.write(piece)
                    output.flush()
                    os.fsync(output.fileno())
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    opener = "the swarm's unlock key" if not passphrase else "the passphrase"
    click.echo(f"Backup written to {file}: it opens with {opener}.")


@click.command(epilog="Example: swarm system restore --advertise-addr 192.168.1.10 swarm.backup")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_PASSPHRASE_FILE
@click.option("--advertise-addr", default="", metavar="IP|IF[:PORT]", help="Address the other nodes use")
@click.option("--listen-addr", default="0.0.0.0:2377", show_default=True, help="Address to listen on")
@click.option("--data-path-addr", default="", metavar="IP|IF", help="Address for the services' traffic")
@click.pass_context
def restore(ctx: click.Context, /, file: Path, passphrase_file: Path | None, **flags: str) -> None:
    """Start the swarm of a backup again, with this host as its only manager.

    Do not do that while managers of the swarm still run elsewhere: there would be two.
    """
    with connect(ctx) as client, file.open("rb") as archive:
        wanted = {
            "Key": _opening_key(archive.readline(_LONGEST_LINE), passphrase_file),
            "AdvertiseAddr": flags["advertise_addr"],
            "ListenAddr": flags["listen_addr"],
            "DataPathAddr": flags["data_path_addr"],
        }
        archive.seek(0)
        header = base64.urlsafe_b64encode(json.dumps(wanted).encode()).decode()
        headers = {"X-Swarm-Restore": header, "Content-Type": "application/octet-stream"}
        with client.stream("POST", "/swarm/restore", archive, headers) as answer:
            node_id = json.loads(answer.read())
        nodes: list[Json] = client.get("/nodes")
    click.echo(f"Swarm restored: current node ({node_id}) is now its only manager.\n")
    click.echo(
        f"{len(nodes) - 1} other nodes are known. Those that know this address come back by themselves; the "
        "others\ncount as down: have them leave and join again, then remove the old ones (swarm node rm)."
    )


def _new_passphrase(client: Client, file: Path | None) -> str:
    """Empty where the unlock key is to be used. Raises: InvalidArgument for an empty passphrase."""
    if file is not None:
        return _first_line(file)
    if client.get("/swarm/unlockkey")["UnlockKey"]:
        return ""
    passphrase = read_secret("Enter a passphrase for the backup: ")
    if not passphrase:
        raise InvalidArgument("the passphrase is empty: the backup holds the swarm's keys, so it needs one")
    return passphrase


def _opening_key(line: bytes, file: Path | None) -> str:
    if file is not None:
        return _first_line(file)
    is_key = line.endswith(_BY_UNLOCK_KEY)
    return read_secret("Enter unlock key: " if is_key else "Enter the passphrase of the backup: ")


def _first_line(file: Path) -> str:
    try:
        line = file.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SwarmError(f"{file} cannot be read: {error}") from error
    if not line:
        raise InvalidArgument(f"{file} holds no passphrase: its first line is empty")
    return line
