"""The group of stack commands; each is imported when it runs."""

from __future__ import annotations

from swarm.cli.lazy import LazyGroup

_COMMANDS = "swarm.cli.commands"

stack = LazyGroup(
    "stack",
    table={
        "config": (f"{_COMMANDS}.stack_deploy:config", "Show what compose files come to"),
        "deploy": (f"{_COMMANDS}.stack_deploy:deploy", "Deploy a stack, or change it"),
        "ls": (f"{_COMMANDS}.stack_list:ls", "List stacks"),
        "ps": (f"{_COMMANDS}.stack_list:ps", "List the tasks of a stack"),
        "rm": (f"{_COMMANDS}.stack_remove:rm", "Remove stacks"),
        "services": (f"{_COMMANDS}.stack_list:services", "List the services of a stack"),
    },
    aliases={"down": "rm", "list": "ls", "remove": "rm", "up": "deploy"},
    help="Manage stacks: what a compose file describes, under one name.",
    no_args_is_help=True,
)
