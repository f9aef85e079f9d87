"""A command group that imports a command when it is run, and can list its commands without importing any."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

from swarm.cli.go_switches import GoGroup


class LazyGroup(GoGroup):
    """`table` maps a command's name to ("module:attribute", its line in the list of commands); `aliases` maps
    other names, which the list does not show, to it."""

    def __init__(
        self,
        name: str,
        *,
        table: Mapping[str, tuple[str, str]],
        aliases: Mapping[str, str] | None = None,
        **settings: object,
    ) -> None:
        super().__init__(name, **settings)  # type: ignore[arg-type]  # click's own keyword arguments
        self._table = table
        self._aliases = aliases or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = self._aliases.get(cmd_name, cmd_name)
        if name not in self._table:
            return None
        module, _, attribute = self._table[name][0].partition(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:  # click knows none of the names, and so nothing to suggest
            raise click.NoSuchCommand(error.command_name, possibilities=self._table, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._table[name][1]) for name in sorted(self._table)])
