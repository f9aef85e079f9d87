"""service explain: why a service is not as it was asked for."""

from __future__ import annotations

from typing import Any

import click

from swarm.cli.options import OBJECT_FORMAT_HELP, connect

Json = dict[str, Any]


@click.command(epilog="Example: swarm service explain web")
@click.argument("name", metavar="SERVICE")
@click.option("--format", "template", default="", metavar="FORMAT", help=OBJECT_FORMAT_HELP)
@click.pass_context
def explain(ctx: click.Context, /, name: str, template: str) -> None:
    """Say why a service is not as it should be, and what can be done.

    Ends with status 1 while the service is not converged.
    """
    with connect(ctx) as client:
        found = client.get(f"/services/{name}/explain")
    if template:
        from swarm.cli.inspect import render_object

        click.echo(render_object("{{json .}}" if template == "json" else template, found))
    else:
        click.echo("\n".join(lines_of(found)))
    ctx.exit(0 if found["Converged"] else 1)


def lines_of(found: Json) -> list[str]:
    """The explanation as text: a summary, then each reason with its nodes and what to do."""
    state = "is as it should be" if found["Converged"] else "has not converged"
    lines = [f"{found['Service']} {state}: {found['Running']} of {found['Desired']} tasks run"]
    for finding in found["Findings"]:
        lines.append(f"- {finding['Text']}")
        width = max(map(len, finding["Nodes"]), default=0)
        lines += [f"    {node:{width}}  {reason}" for node, reason in finding["Nodes"].items()]
        if finding["Advice"]:
            lines.append(f"    > {finding['Advice']}")
    return lines
