"""The flags of `service create` and `service update`, by group: what each is called, reads and changes.

A flag that takes a list is `--env` on create and `--env-add` and `--env-rm` on update. Flags that Docker does
not have are marked; flags of Docker's that make no sense here are refused by name, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import click

from swarm.cli.mounts import parse_mount
from swarm.cli.options import Parsed
from swarm.cli.payloads import reference_parser, removal_parser
from swarm.cli.service_edit import (
    CONTAINER,
    PLACEMENT,
    RESOURCES,
    RESTART,
    UPDATE,
    Edit,
    capability,
    edit_hosts,
    edit_ports,
    env_key,
    items_at,
    option_label,
    pairs_at,
    same,
    setting_at,
    value_at,
)
from swarm.cli.service_networks import PATH, network_target, parse_network
from swarm.cli.service_values import (
    parse_address,
    parse_command,
    parse_constraint,
    parse_env,
    parse_host,
    parse_label,
    parse_oom_score,
    parse_preference,
    parse_ratio,
    parse_resource,
    parse_search_domain,
    parse_sysctl,
    parse_ulimit,
    resource_kind,
)
from swarm.cli.values import (
    parse_bytes,
    parse_cpus,
    parse_integer,
    parse_positive_duration,
    parse_unsigned,
)
from swarm.model.publish import parse_publish, parse_unpublish

CPUS = Parsed("decimal", parse_cpus)
BYTES = Parsed("bytes", parse_bytes)
DURATION = Parsed("duration", parse_positive_duration)
UNSIGNED = Parsed("uint", parse_unsigned)
INTEGER = Parsed("int", parse_integer)
RATIO = Parsed("float", parse_ratio)
LABEL = Parsed("key=value", parse_label)
COMMAND = Parsed("command", parse_command)
CAPABILITY = Parsed("capability", capability)
SWITCH = "switch"
"""A flag that is on or off: `--init`, `--no-init`, `--init=false`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    name: str
    help: str
    edit: Edit = same
    type: click.ParamType[Any] | str | None = None
    """None reads a text."""
    short: str = ""
    many: bool = False
    removed: click.ParamType[Any] | None = None
    """What `-rm` reads, where that is not a plain text."""
    ours: bool = False
    on: str = ""
    """The one command that has it; empty for both."""
    metavar: str | None = None


class _More(TypedDict, total=False):
    type: click.ParamType[Any] | str | None
    short: str
    many: bool
    metavar: str


def _value(name: str, text: str, *path: str, **more: Unpack[_More]) -> Flag:
    return Flag(name=name, help=text, edit=value_at(*path), **more)


def _policy(kind: str, section: str, names: tuple[str, ...]) -> tuple[Flag, ...]:
    """The six flags of an update's or a rollback's policy."""
    fields: tuple[tuple[str, str, str, click.ParamType[Any] | None], ...] = (
        ("parallelism", "Parallelism", f"Tasks {kind} at a time; 0: all (default 1)", UNSIGNED),
        ("delay", "Delay", "Pause between them (default 0s)", DURATION),
        ("monitor", "Monitor", "A task that fails so soon after its start counts (default 5s)", DURATION),
        ("max-failure-ratio", "MaxFailureRatio", "Share of tasks that may fail (default 0)", RATIO),
        (
            "order",
            "Order",
            "stop-first (default) or start-first",
            click.Choice(["stop-first", "start-first"]),
        ),
        ("failure-action", "FailureAction", f"{', '.join(names)} (default pause)", click.Choice(names)),
    )
    prefix = section.removesuffix("Config").lower()
    return tuple(
        Flag(name=f"{prefix}-{name}", help=text, type=type, edit=setting_at(section, field, defaults=UPDATE))
        for name, field, text, type in fields
    )


def _container_option(name: str, text: str, **more: Unpack[_More]) -> Flag:
    edit = option_label(*CONTAINER, "Labels", key=name)
    return Flag(name=name, help=text, edit=edit, ours=True, **more)


def _service_option(name: str, text: str, key: str = "", **more: Unpack[_More]) -> Flag:
    return Flag(name=name, help=text, edit=option_label("Labels", key=key or name), ours=True, **more)


def _restart(name: str, text: str, field: str, type: click.ParamType[Any]) -> Flag:
    edit = setting_at("TaskTemplate", "RestartPolicy", field, defaults=RESTART)
    return Flag(name=f"restart-{name}", help=text, edit=edit, type=type)


def _dns(name: str, text: str, field: str, type: click.ParamType[Any] | None = None) -> Flag:
    return Flag(name=name, help=text, edit=items_at(*CONTAINER, "DNSConfig", field), type=type, many=True)


def _resource(name: str, text: str, part: str, field: str, type: click.ParamType[Any]) -> Flag:
    return _value(name, text, *RESOURCES, part, field, type=type)


def _payloads(name: str, kind: str, place: str) -> Flag:
    return Flag(
        name=name,
        help=f"NAME, or source=NAME[,target=PATH][,uid=0][,gid=0][,mode=0444]; a file at {place}",
        edit=items_at(*CONTAINER, f"{kind}s", key_of=repr),
        type=Parsed(name, reference_parser(kind)),
        many=True,
        removed=Parsed("name", removal_parser(kind)),
    )


_PORT = Parsed("port", parse_publish)
_PREFERENCE = Parsed("pref", parse_preference)

GROUPS: tuple[tuple[str, tuple[Flag, ...]], ...] = (
    (
        "Name and mode",
        (
            Flag(name="name", help="Name (default: two words)", on="create", edit=value_at("Name")),
            Flag(
                name="mode",
                help="replicated (default), global, replicated-job or global-job",
                on="create",
                metavar="MODE",
            ),
            Flag(name="replicas", help="Number of tasks; of a job, of completions", type=UNSIGNED),
            Flag(name="max-concurrent", help="Tasks of a job at a time (default: all)", type=UNSIGNED),
            Flag(
                name="label", help="Service label", edit=pairs_at("Labels"), type=LABEL, short="l", many=True
            ),
            _service_option("exclusive", "Never two running copies of a slot", type=SWITCH),
            _service_option(
                "autoscale",
                "Let load choose the replicas",
                metavar="min=N,max=N,cpu=N%[,memory=N%][,cooldown=30s]",
            ),
            _service_option(
                "depends-on",
                "Start after it is started, healthy or completed",
                many=True,
                metavar="SERVICE[:WHEN]",
            ),
        ),
    ),
    (
        "Jobs on a schedule",
        (
            _service_option("schedule", "When to run the job, such as '*/5 * * * *'", metavar="CRON"),
            _service_option("timezone", "Of the schedule (default UTC)", "schedule.timezone"),
            _service_option(
                "concurrency-policy",
                "While the last run goes on: allow, forbid (default) or replace",
                "schedule.concurrency",
                metavar="POLICY",
            ),
            _service_option(
                "history", "Runs whose tasks are kept (default 3)", "schedule.history", metavar="N"
            ),
        ),
    ),
    (
        "Image and process",
        (
            Flag(name="image", help="Image of the tasks", on="update"),
            Flag(
                name="args",
                help="Arguments of the command",
                on="update",
                type=COMMAND,
                edit=value_at(*CONTAINER, "Args"),
            ),
            _value("entrypoint", "Replace the image's entrypoint", *CONTAINER, "Command", type=COMMAND),
            _value("user", "NAME|UID[:GROUP|GID]", *CONTAINER, "User", short="u"),
            Flag(
                name="group",
                help="Further group of the process",
                edit=items_at(*CONTAINER, "Groups"),
                many=True,
            ),
            _value("workdir", "Working directory inside the container", *CONTAINER, "Dir", short="w"),
            _value("hostname", "Host name of the container", *CONTAINER, "Hostname"),
            _value("tty", "Allocate a pseudo-TTY", *CONTAINER, "TTY", short="t", type=SWITCH),
            Flag(
                name="init",
                help="Run an init that reaps and forwards signals",
                edit=setting_at(*CONTAINER, "Init"),
                type=SWITCH,
            ),
            _value("stop-signal", "Signal that stops the container", *CONTAINER, "StopSignal"),
            Flag(
                name="stop-grace-period",
                help="Wait before SIGKILL (default 10s)",
                edit=setting_at(*CONTAINER, "StopGracePeriod"),
                type=DURATION,
            ),
            Flag(
                name="container-label",
                help="Container label",
                edit=pairs_at(*CONTAINER, "Labels"),
                type=LABEL,
                many=True,
            ),
            Flag(name="no-resolve-image", help="Do not ask the registry for the image's digest", type=SWITCH),
            Flag(
                name="with-registry-auth", help="Send this client's registry login to the nodes", type=SWITCH
            ),
        ),
    ),
    (
        "Environment",
        (
            Flag(
                name="env",
                help="KEY=VALUE, or KEY of here",
                edit=items_at(*CONTAINER, "Env", key_of=env_key),
                type=Parsed("env", parse_env),
                short="e",
                many=True,
            ),
            Flag(name="env-file", help="Read variables from a file", on="create", many=True, metavar="FILE"),
        ),
    ),
    (
        "Resources",
        (
            _resource("limit-cpu", "Limit CPUs, such as 0.5", "Limits", "NanoCPUs", CPUS),
            _resource("limit-memory", "Limit memory, such as 512m", "Limits", "MemoryBytes", BYTES),
            _resource(
                "limit-pids", "Limit the number of processes (default 4096)", "Limits", "Pids", INTEGER
            ),
            _resource("reserve-cpu", "Reserve CPUs", "Reservations", "NanoCPUs", CPUS),
            _resource("reserve-memory", "Reserve memory", "Reservations", "MemoryBytes", BYTES),
            Flag(
                name="generic-resource",
                help="Reserve so many of what nodes have, such as gpu=2",
                edit=items_at(*RESOURCES, "Reservations", "GenericResources", key_of=resource_kind),
                type=Parsed("kind=n", parse_resource),
                many=True,
            ),
            Flag(
                name="ulimit",
                help="NAME=SOFT[:HARD]",
                edit=items_at(*CONTAINER, "Ulimits", key_of=lambda item: item["Name"]),
                type=Parsed("ulimit", parse_ulimit),
                many=True,
            ),
            _value(
                "oom-score-adj",
                "Which process dies when memory is short: -1000 to 1000",
                *CONTAINER,
                "OomScoreAdj",
                type=Parsed("int", parse_oom_score),
            ),
            _container_option("shm-size", "Size of /dev/shm, such as 64m", metavar="BYTES"),
        ),
    ),
    (
        "Placement",
        (
            Flag(
                name="constraint",
                help="Where tasks may run, such as node.role==worker",
                edit=items_at(*PLACEMENT, "Constraints"),
                type=Parsed("constraint", parse_constraint),
                many=True,
            ),
            Flag(
                name="placement-pref",
                help="Spread tasks over a label's values: spread=node.labels.zone",
                edit=items_at(*PLACEMENT, "Preferences", key_of=repr),
                type=_PREFERENCE,
                many=True,
                removed=Parsed("pref", lambda text: repr(parse_preference(text))),
            ),
            _value(
                "replicas-max-per-node", "Most tasks on one node", *PLACEMENT, "MaxReplicas", type=UNSIGNED
            ),
            _service_option(
                "placement-strategy", "spread (default) or binpack", "placement.strategy", metavar="STRATEGY"
            ),
            _service_option("rebalance", "Tasks that may be moved at a time to even nodes out", metavar="N"),
        ),
    ),
    (
        "Health",
        (
            Flag(name="health-cmd", help="Shell line that tells whether a task is well"),
            Flag(name="health-interval", help="Time between two checks (default 30s)", type=DURATION),
            Flag(name="health-timeout", help="Longest a check may take (default 30s)", type=DURATION),
            Flag(
                name="health-retries", help="Failures in a row that mean unhealthy (default 3)", type=INTEGER
            ),
            Flag(name="health-start-period", help="Failures at the start that do not count", type=DURATION),
            Flag(
                name="health-start-interval",
                help="Time between checks at the start (default 5s)",
                type=DURATION,
            ),
            Flag(name="no-healthcheck", help="No check, whatever the image says", type=SWITCH),
        ),
    ),
    (
        "Restart",
        (
            _restart(
                "condition",
                "none, on-failure or any (default any)",
                "Condition",
                click.Choice(["none", "on-failure", "any"]),
            ),
            _restart("delay", "Delay between restarts (default 5s)", "Delay", DURATION),
            _restart("max-attempts", "Restarts before giving up; 0: no limit", "MaxAttempts", UNSIGNED),
            _restart("window", "Attempts older than this do not count; 0: all do", "Window", DURATION),
            _service_option(
                "restart-max-delay",
                "Double the delay with each failure up to this",
                "restart.max-delay",
                metavar="DURATION",
            ),
            _service_option(
                "restart-overlap",
                "Start a replacement while the old task stops",
                "restart.overlap",
                type=SWITCH,
            ),
        ),
    ),
    (
        "Update",
        (
            *_policy("updated", "UpdateConfig", ("pause", "continue", "rollback")),
            _service_option(
                "progress-deadline",
                "An update that gets nowhere for so long has failed; 0: never (default 10m)",
                "update.progress-deadline",
                metavar="DURATION",
            ),
        ),
    ),
    ("Rollback", _policy("rolled back", "RollbackConfig", ("pause", "continue"))),
    (
        "Network",
        (
            Flag(
                name="network",
                help="NETWORK, or name=NETWORK,alias=NAME,...",
                edit=items_at(*PATH, key_of=network_target),
                type=Parsed("network", parse_network),
                many=True,
            ),
            Flag(
                name="publish",
                help="[PUBLISHED:]TARGET[/PROTOCOL], or "
                "published=,target=,protocol=,mode=ingress|host,source=masquerade|preserve,proxy-protocol=v2",
                edit=edit_ports,
                type=_PORT,
                short="p",
                many=True,
                removed=Parsed("port", parse_unpublish),
            ),
            Flag(
                name="endpoint-mode",
                help="vip (default) or dnsrr",
                edit=value_at("EndpointSpec", "Mode"),
                type=click.Choice(["vip", "dnsrr"]),
            ),
            _dns("dns", "DNS server", "Nameservers", Parsed("ip", parse_address)),
            _dns("dns-search", "DNS search domain", "Search", Parsed("domain", parse_search_domain)),
            _dns("dns-option", "DNS option", "Options"),
            Flag(
                name="host",
                help="NAME:ADDRESS for /etc/hosts",
                edit=edit_hosts,
                type=Parsed("host:ip", parse_host),
                many=True,
            ),
        ),
    ),
    (
        "Files",
        (
            Flag(
                name="mount",
                help="type=volume|bind|tmpfs,source=...,target=...[,readonly]",
                edit=items_at(*CONTAINER, "Mounts", key_of=lambda item: item.get("Target"), last_wins=False),
                type=Parsed("mount", parse_mount),
                many=True,
            ),
            _payloads("secret", "Secret", "/run/secrets/NAME"),
            _payloads("config", "Config", "/NAME"),
            _value(
                "read-only", "The root file system cannot be written to", *CONTAINER, "ReadOnly", type=SWITCH
            ),
            _container_option("device", "Device of the host", many=True, metavar="HOST[:CONTAINER[:rwm]]"),
        ),
    ),
    (
        "Security",
        (
            Flag(name="cap-add", help="Capability beyond the default ones", type=CAPABILITY, many=True),
            Flag(name="cap-drop", help="Capability to go without", type=CAPABILITY, many=True),
            Flag(
                name="sysctl",
                help="NAME=VALUE of the container's kernel settings",
                edit=pairs_at(*CONTAINER, "Sysctls"),
                type=Parsed("sysctl", parse_sysctl),
                many=True,
            ),
            _container_option("privileged", "All capabilities and devices", type=SWITCH),
            _container_option("security-opt", "Such as no-new-privileges or seccomp=unconfined", many=True),
            _container_option("pid", "host: see the host's processes", metavar="host"),
            _container_option("ipc", "host: share the host's IPC", metavar="host"),
        ),
    ),
    (
        "Logging",
        (
            Flag(name="log-driver", help="json-file (default), local or none"),
            Flag(name="log-opt", help="Option of the log driver", type=LABEL, many=True),
        ),
    ),
    (
        "This command",
        (
            Flag(name="force", help="Replace all tasks even if nothing changes", on="update", type=SWITCH),
            Flag(name="rollback", help="Go back to the previous spec", on="update", type=SWITCH),
            Flag(
                name="resume",
                help="Go on with an update that has paused",
                on="update",
                type=SWITCH,
                ours=True,
            ),
            Flag(name="detach", help="Do not wait until the service has converged", short="d", type=SWITCH),
            Flag(name="quiet", help="Suppress progress output", short="q", type=SWITCH),
        ),
    ),
)
"""In the order of the help."""

AS_ON_CREATE = frozenset({"cap-add", "cap-drop", "log-opt", "depends-on", "device", "security-opt"})
"""Lists that update takes under the same name: each says there what it does."""

_WINDOWS = "is for Windows containers, and tasks here are Linux ones"
REFUSED: dict[str, dict[str, str]] = {
    "create": {
        "credential-spec": _WINDOWS,
        "isolation": _WINDOWS,
    },
    "update": {
        "credential-spec": _WINDOWS,
        "isolation": _WINDOWS,
    },
}
"""Flags of Docker's that this command refuses, and why."""

FLAGS: dict[str, Flag] = {flag.name: flag for _, flags in GROUPS for flag in flags}
