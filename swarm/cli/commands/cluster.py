"""init, join and leave."""

from __future__ import annotations

import click

from swarm.base.errors import InvalidArgument
from swarm.cli.commands.join_token import print_join_command
from swarm.cli.commands.lock import print_unlock_key
from swarm.cli.options import NO_EXTERNAL_CA, RAFT, Json, Parsed, connect, refused
from swarm.cli.values import parse_integer, parse_positive_duration, parse_unsigned

_AVAILABILITY = click.Choice(["active", "pause", "drain"])
_DURATION = Parsed("duration", parse_positive_duration)
_UNSIGNED = Parsed("uint", parse_unsigned)
_DEFAULT_LISTEN = "0.0.0.0:2377"


@click.command(epilog="Example: swarm init --advertise-addr 192.168.1.10")
@click.option("--advertise-addr", default="", metavar="IP|IF[:PORT]", help="Address the other nodes use")
@click.option("--listen-addr", default=_DEFAULT_LISTEN, show_default=True, help="Address to listen on")
@click.option("--data-path-addr", default="", metavar="IP|IF", help="Address for the services' traffic")
@click.option(
    "--data-path-port", type=_UNSIGNED, default=0, metavar="PORT", help="Its UDP port (default 4789)"
)
@click.option("--availability", type=_AVAILABILITY, default="active", show_default=True)
@click.option("--task-history-limit", type=Parsed("int", parse_integer), help="Old tasks kept (default 5)")
@click.option("--dispatcher-heartbeat", type=_DURATION, help="Period of the nodes' heartbeats (default 1s)")
@click.option("--cert-expiry", type=_DURATION, help="Life of nodes' certificates (default 2160h)")
@click.option("--default-addr-pool", multiple=True, metavar="CIDR", help="Address pool of the networks")
@click.option(
    "--default-addr-pool-mask-length",
    type=_UNSIGNED,
    help="Size of each network taken from --default-addr-pool (default 24)",
)
@click.option("--autolock", is_flag=True, help="A manager that restarts waits for the unlock key")
@click.option("--etcd-endpoints", default="", metavar="URL,...", help="Keep the state in this etcd cluster")
@click.option("--etcd-cacert", default="", metavar="FILE", help="CA of that etcd, a file on this host")
@click.option("--etcd-cert", default="", metavar="FILE", help="Certificate to show to that etcd")
@click.option("--etcd-key", default="", metavar="FILE", help="Key of that certificate")
@click.option("--force-new-cluster", is_flag=True, help="Recover from a lost quorum: this manager alone")
@refused({"external-ca": NO_EXTERNAL_CA, "max-snapshots": RAFT, "snapshot-interval": RAFT})
@click.pass_context
def init(ctx: click.Context, /, **flags: object) -> None:
    """Initialize a swarm: this node becomes its first manager."""
    orchestration: Json = {}
    if flags["task_history_limit"] is not None:
        orchestration["TaskHistoryRetentionLimit"] = flags["task_history_limit"]
    dispatcher: Json = {}
    if flags["dispatcher_heartbeat"] is not None:
        dispatcher["HeartbeatPeriod"] = flags["dispatcher_heartbeat"]
    pools = flags["default_addr_pool"]
    assert isinstance(pools, tuple)
    if flags["default_addr_pool_mask_length"] and not pools:
        raise InvalidArgument("--default-addr-pool-mask-length goes with --default-addr-pool")
    request = {
        "ListenAddr": flags["listen_addr"],
        "AdvertiseAddr": flags["advertise_addr"],
        "DataPathAddr": flags["data_path_addr"],
        "DataPathPort": flags["data_path_port"],
        "ForceNewCluster": flags["force_new_cluster"],
        "Etcd": {
            "Endpoints": [part for part in str(flags["etcd_endpoints"]).split(",") if part],
            "CACert": flags["etcd_cacert"],
            "Cert": flags["etcd_cert"],
            "Key": flags["etcd_key"],
        },
        "Spec": {
            "Labels": None,
            "Orchestration": orchestration,
            "Raft": {"ElectionTick": 0, "HeartbeatTick": 0},
            "Dispatcher": dispatcher,
            "CAConfig": {"NodeCertExpiry": flags["cert_expiry"] or 0},
            "TaskDefaults": {},
            "EncryptionConfig": {"AutoLockManagers": flags["autolock"]},
        },
        "AutoLockManagers": flags["autolock"],
        "Availability": flags["availability"],
        "DefaultAddrPool": list(pools),
        "SubnetSize": flags["default_addr_pool_mask_length"] or 24,
    }
    with connect(ctx) as client:
        node_id = client.post("/swarm/init", request)
        click.echo(f"Swarm initialized: current node ({node_id}) is now a manager.\n")
        node = client.get(f"/nodes/{node_id}")
        tokens = client.get("/swarm")["JoinTokens"]
        print_join_command("worker", tokens["Worker"], node["ManagerStatus"]["Addr"])
        click.echo(
            "To add a manager to this swarm, run 'swarm join-token manager' and follow the instructions."
        )
        if flags["autolock"]:
            click.echo()
            print_unlock_key(client.get("/swarm/unlockkey")["UnlockKey"])


@click.command(epilog="Example: swarm join --token SWMTKN-1-... 192.168.1.10:2377")
@click.argument("remote", metavar="HOST:PORT")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", hidden=True)
@click.option("--token", default="", help="Token that `swarm init` or `swarm join-token` printed")
@click.option("--advertise-addr", default="", metavar="IP|IF[:PORT]", help="Address the other nodes use")
@click.option("--listen-addr", default=_DEFAULT_LISTEN, show_default=True, help="Address to listen on")
@click.option("--data-path-addr", default="", metavar="IP|IF", help="Address for the services' traffic")
@click.option("--availability", type=_AVAILABILITY, default="active", show_default=True)
@click.pass_context
def join(ctx: click.Context, /, remote: str, labels: tuple[str, ...], **flags: str) -> None:
    """Join a swarm as a node; the token says as what.

    A node whose certificate has expired is let in again, and stays the node it was.
    """
    if labels:
        raise InvalidArgument(
            "a node does not choose its own labels, since tasks and their secrets are placed by them: "
            f"make a token that gives them, with `swarm join-token --label {labels[0]} worker` on a manager"
        )
    if not flags["token"]:
        raise InvalidArgument("--token is required: `swarm join-token worker` on a manager prints it")
    request = {
        "ListenAddr": flags["listen_addr"],
        "AdvertiseAddr": flags["advertise_addr"],
        "DataPathAddr": flags["data_path_addr"],
        "RemoteAddrs": [remote],
        "JoinToken": flags["token"],
        "Availability": flags["availability"],
    }
    with connect(ctx) as client:
        client.post("/swarm/join", request)
        swarm = client.get("/info")["Swarm"]
        is_manager = swarm.get("ControlAvailable")
    click.echo(f"This node joined a swarm as a {'manager' if is_manager else 'worker'}.")
    if is_manager and swarm["Cluster"]["Spec"]["EncryptionConfig"]["AutoLockManagers"]:
        click.echo(
            "\nManagers of this swarm are locked when they restart: keep the key that unlocks them, which "
            "`swarm unlock-key` prints."
        )


@click.command()
@click.option("-f", "--force", is_flag=True, help="Leave even if this is a manager")
@click.pass_context
def leave(ctx: click.Context, /, force: bool) -> None:
    """Leave the swarm: this node's tasks are stopped and its swarm state is erased."""
    with connect(ctx) as client:
        client.post("/swarm/leave", force=force or None)
    click.echo("Node left the swarm.")
