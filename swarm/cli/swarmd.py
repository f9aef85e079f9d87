"""The daemon: one per host, started by the host's service manager as root."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from swarm import __version__

if TYPE_CHECKING:
    from swarm.node.node import Host


_MIB = 1024 * 1024


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; containers run on. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="swarmd", description="The swarm daemon of one host.")
    parser.add_argument("--state-dir", type=Path, default=Path("/var/lib/swarm"), help="default: %(default)s")
    parser.add_argument("--run-dir", type=Path, default=Path("/run/swarm"), help="default: %(default)s")
    parser.add_argument(
        "--insecure-registry",
        action="append",
        default=[],
        metavar="HOST[:PORT]|CIDR",
        help="pull from it without a verified certificate, or by plain HTTP; may be repeated",
    )
    parser.add_argument(
        "--etcd-quota",
        type=_size,
        default=2048 * _MIB,
        metavar="SIZE",
        help="size of the store's database at which it takes no more writes, such as 512M (default: 2G)",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a label of this host, for constraints on engine.labels.KEY; may be repeated",
    )
    parser.add_argument(
        "--node-generic-resource",
        "--generic-resource",
        action="append",
        default=[],
        metavar="KIND=NAME|KIND=NUMBER",
        help="what this host has beyond CPU and memory, such as gpu=GPU-1 or licence=3; may be repeated",
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.add_argument("--version", action="version", version=f"swarmd {__version__}")
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("swarmd must be run as root: it makes containers and networks", file=sys.stderr)
        return 1
    # Before grpc is imported: it reads the variable then. Nothing of ours forks without exec.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o022)
    return _run(options)


def _size(text: str) -> int:
    """Bytes; with a suffix M or G, MiB or GiB."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("M", "G") else (text, "")
    if not number.isascii() or not number.isdigit() or int(number) == 0:
        raise argparse.ArgumentTypeError(
            f"invalid size {text}: it is a number of bytes, or such as 512M or 4G"
        )
    return int(number) * {"": 1, "M": _MIB, "G": 1024 * _MIB}[unit]


def _run(options: argparse.Namespace) -> int:
    from swarm.base import log
    from swarm.base.clock import SystemClock
    from swarm.base.errors import SwarmError
    from swarm.base.ids import new_id
    from swarm.model.generic_resources import parse_node_resources
    from swarm.model.host_offer import HostOffer, parse_labels
    from swarm.node.files import Paths
    from swarm.node.node import Host

    log.configure(level=options.log_level)
    paths = Paths(state=options.state_dir, run=options.run_dir)
    insecure = tuple(options.insecure_registry)
    status = 0
    if sys.version_info < (3, 12):  # later ones do so by themselves: otherwise each child costs a thread
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    try:
        offer = HostOffer(
            labels=parse_labels(options.label),
            generic_resources=parse_node_resources(options.node_generic_resource),
        )
        asyncio.run(_serve(Host(paths, SystemClock(), new_id, insecure, options.etcd_quota, offer)))
    except* SwarmError as errors:
        print(f"swarmd: {_first(errors)}", file=sys.stderr)
        status = 1
    return status


async def _serve(host: Host) -> None:
    loop = asyncio.get_running_loop()
    serving = asyncio.ensure_future(host.run())
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    stopping = asyncio.ensure_future(told.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if told.is_set():
        await host.announce_stop()
        serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


if __name__ == "__main__":
    sys.exit(main())
