"""ca: the root certificate of the swarm, and its replacement."""

from __future__ import annotations

import time
from pathlib import Path

import click

from swarm.api.client import Client
from swarm.base.errors import InvalidArgument
from swarm.cli.options import NO_EXTERNAL_CA, Json, Parsed, connect, refused
from swarm.cli.root_rotation import root_progress
from swarm.cli.updating import Seen
from swarm.cli.values import parse_positive_duration

_POLL_S = 0.2
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(epilog="Example: swarm ca --rotate")
@click.option("--rotate", is_flag=True, help="Replace the root CA: by a new one if no certificate is given")
@click.option("--ca-cert", type=_FILE, help="PEM file of the root CA certificate to move to")
@click.option("--ca-key", type=_FILE, help="PEM file of its key")
@click.option(
    "--cert-expiry", type=Parsed("duration", parse_positive_duration), help="Life of nodes' certificates"
)
@click.option("-d", "--detach", is_flag=True, help="Do not wait until every node has moved")
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@refused({"external-ca": NO_EXTERNAL_CA})
@click.pass_context
def ca(ctx: click.Context, /, rotate: bool, detach: bool, quiet: bool, **flags: object) -> None:
    """Print the root CA certificate; with --rotate, replace it."""
    given = {name: value for name, value in flags.items() if value is not None}
    if given and not rotate:
        flag = f"--{next(iter(given)).replace('_', '-')}"
        raise InvalidArgument(f"`{flag}` flag requires the `--rotate` flag to update the CA")
    if ("ca_cert" in given) != ("ca_key" in given):
        raise InvalidArgument("the --ca-cert and --ca-key flags must be given together")
    with connect(ctx) as client:
        swarm = client.get("/swarm")
        if not rotate:
            click.echo(swarm["TLSInfo"]["TrustRoot"].strip())
            return
        Seen.of("/swarm", swarm).update(client, _spec(swarm["Spec"], given))
        if not detach:
            _watch(client, quiet=quiet)


def _spec(spec: Json, given: dict[str, object]) -> Json:
    authority: Json = spec["CAConfig"]
    if "cert_expiry" in given:
        authority["NodeCertExpiry"] = given["cert_expiry"]
    cert, key = given.get("ca_cert"), given.get("ca_key")
    if isinstance(cert, Path) and isinstance(key, Path):
        authority |= {"SigningCACert": cert.read_text(), "SigningCAKey": key.read_text()}
    else:
        authority["ForceRotate"] = authority.get("ForceRotate", 0) + 1
    return spec


def _watch(client: Client, *, quiet: bool) -> None:
    """Until every node has moved; each line is printed when it says something new."""
    shown: set[str] = set()
    try:
        while True:
            swarm = client.get("/swarm")
            progress = root_progress(swarm, client.get("/nodes"))
            for line in progress.lines:
                if line not in shown and not quiet:
                    click.echo(line)
                shown.add(line)
            if progress.done:
                if not quiet:
                    click.echo(swarm["TLSInfo"]["TrustRoot"].strip())
                return
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        click.echo("\nOperation continuing in background.\nUse `swarm node ls --format "
                   "'{{.Hostname}} {{.TLSStatus}}'` to check progress.")  # fmt: skip
