"""service exec: a command in a running task, on whichever host it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import click

from swarm.api.client import ApiError, Client
from swarm.base.errors import SwarmError
from swarm.cli.options import connect
from swarm.cli.resolve import find
from swarm.cli.service_values import resolve_env

Json = dict[str, Any]

_PARSING = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command("exec", context_settings=_PARSING, epilog="Example: swarm service exec -it web -- sh")
@click.argument("name", metavar="SERVICE|TASK")
@click.argument("command", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-i", "--interactive", is_flag=True, help="Pass this command's input on")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal")
@click.option("-d", "--detach", is_flag=True, help="Start it and do not wait")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Run as this user")
@click.option("-w", "--workdir", default="", metavar="PATH", help="Run in this directory")
@click.option("-e", "--env", multiple=True, metavar="KEY[=VALUE]", help="Set a variable")
@click.pass_context
def exec_(ctx: click.Context, /, name: str, command: tuple[str, ...], **options: str | bool) -> None:
    """Run a command in a running task, wherever it runs.

    Of a service, the first running task is taken; name a task to choose another. Ends with the command's
    exit status. Whoever leaves ends the command, unless it is detached.
    """
    if options["tty"] and options["interactive"] and not sys.stdin.isatty():
        raise SwarmError("the input device is not a TTY")
    with connect(ctx) as client:
        task_id = _running_task(client, name)
        exec_id = client.post(f"/tasks/{task_id}/exec", _request(command, options))["Id"]
        if options["detach"]:
            client.post(f"/exec/{exec_id}/start", {"Detach": True})
            return
        _attend(client, exec_id, is_tty=bool(options["tty"]), interactive=bool(options["interactive"]))
        ctx.exit(client.get(f"/exec/{exec_id}/json")["ExitCode"] or 0)


def _request(command: tuple[str, ...], options: Mapping[str, Any]) -> Json:
    return {
        "Cmd": command[1:] if command[0] == "--" else command,
        "Env": resolve_env(options["env"], os.environ),
        "User": options["user"],
        "WorkingDir": options["workdir"],
        "Tty": options["tty"],
        "AttachStdin": options["interactive"] and not options["detach"],
        "AttachStdout": True,
        "AttachStderr": True,
    }


def _running_task(client: Client, name: str) -> str:
    service = find(client, f"/services/{name}")
    if service is None:
        task = find(client, f"/tasks/{name}")
        if task is None:
            raise SwarmError(f"no such task or service: {name}")
        return str(task["ID"])
    tasks = client.get("/tasks", filters={"service": [service["ID"]], "desired-state": ["running"]})
    running = [task for task in tasks if task["Status"]["State"] == "running"]
    if not running:
        raise SwarmError(f"service {name} has no running task: see swarm service ps {name}")
    return str(min(running, key=lambda task: (task.get("Slot", 0), task["ID"]))["ID"])


def _attend(client: Client, exec_id: str, *, is_tty: bool, interactive: bool) -> None:
    from swarm.cli.terminal import (
        raw_terminal,
        send_input,
        show_output,
        size_of_terminal,
        when_resized,
    )

    body: Json = {"Detach": False, "Tty": is_tty}
    if is_tty and (size := size_of_terminal()):
        body["ConsoleSize"] = size

    def resize() -> None:
        size = size_of_terminal()
        if size:
            try:
                with Client(client.host) as other:
                    other.post(f"/exec/{exec_id}/resize", h=size[0], w=size[1])
            except ApiError:
                return  # it has just ended

    with client.upgraded(f"/exec/{exec_id}/start", body) as (connection, answer):
        if interactive:
            send_input(connection)
        with ExitStack() as stack:
            if is_tty and interactive:
                stack.enter_context(raw_terminal())
            if is_tty:
                stack.enter_context(when_resized(resize))
            show_output(answer, is_raw=is_tty)
