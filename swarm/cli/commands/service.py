"""The group of service commands; each is imported when it runs."""

from __future__ import annotations

from swarm.cli.lazy import LazyGroup

_COMMANDS = "swarm.cli.commands"

service = LazyGroup(
    "service",
    table={
        "create": (f"{_COMMANDS}.service_create:create", "Create a new service"),
        "exec": (f"{_COMMANDS}.service_exec:exec_", "Run a command in a running task"),
        "explain": (f"{_COMMANDS}.service_explain:explain", "Say why a service is not as it should be"),
        "inspect": (f"{_COMMANDS}.service_show:inspect", "Show services in detail"),
        "logs": (f"{_COMMANDS}.service_logs:logs", "Fetch the logs of a service or task"),
        "ls": (f"{_COMMANDS}.service_list:ls", "List services"),
        "ps": (f"{_COMMANDS}.service_list:ps", "List the tasks of services"),
        "rebalance": (
            f"{_COMMANDS}.service_change:rebalance",
            "Spread a service's tasks evenly over its nodes",
        ),
        "rm": (f"{_COMMANDS}.service_change:rm", "Remove services"),
        "rollback": (f"{_COMMANDS}.service_update:rollback", "Go back to a service's previous spec"),
        "scale": (f"{_COMMANDS}.service_change:scale", "Scale replicated services"),
        "update": (f"{_COMMANDS}.service_update:update", "Change a service"),
    },
    help="Manage services.",
    no_args_is_help=True,
)
