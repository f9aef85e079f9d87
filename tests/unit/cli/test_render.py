"""Columns as Go's tabwriter makes them, and the listings' formats."""

from __future__ import annotations

import pytest

from swarm.base.errors import InvalidArgument
from swarm.cli.render import Table, align, render
from swarm.cli.rows import published_ports

TABLE = Table(type_name="*x.y", columns=("ID", "Name"), headers={"ID": "ID", "Name": "NAME"})
ROWS = [{"ID": "1", "Name": "a-long-name", "_hidden": 1}, {"ID": "22", "Name": "<b>"}]


def test_columns_are_at_least_ten_wide_and_three_apart() -> None:
    assert align("a\tb\tc\n") == "a         b         c\n"
    assert align("aaaaaaaaaa\tb\n1\t2\n") == "aaaaaaaaaa   b\n1            2\n"


def test_a_line_without_a_cell_ends_the_column() -> None:
    assert align("aaaaaaaaaaaa\tb\nplain\n1\t2\n") == "aaaaaaaaaaaa   b\nplain\n1         2\n"


def test_width_counts_characters() -> None:
    assert align("ééééééééé\tx\n") == "ééééééééé   x\n"


def test_formats() -> None:
    assert render(TABLE, ROWS) == "ID        NAME\n1         a-long-name\n22        <b>\n"
    assert render(TABLE, ROWS, quiet=True) == "1\n22\n"
    assert render(TABLE, [], template="table {{.Name}}") == "NAME\n"
    assert render(TABLE, ROWS, template="{{.ID}}-{{.Name}}") == "1-a-long-name\n22-<b>\n"
    assert render(TABLE, ROWS, template="table {{lower .Name}}\\t{{.ID}}") == (
        "NAME          ID\na-long-name   1\n<b>           22\n"
    )
    assert render(TABLE, ROWS, template="json") == (
        '{"ID":"1","Name":"a-long-name"}\n{"ID":"22","Name":"\\u003cb\\u003e"}\n'
    )


def test_a_wrong_template_names_the_field() -> None:
    with pytest.raises(InvalidArgument, match=r"can't evaluate field Foo in type \*x\.y"):
        render(TABLE, ROWS, template="{{.Foo}}")


def test_neighbouring_ports_join_into_ranges() -> None:
    def port(published: int, target: int, protocol: str = "tcp") -> dict[str, object]:
        return {
            "PublishedPort": published,
            "TargetPort": target,
            "Protocol": protocol,
            "PublishMode": "ingress",
        }

    assert (
        published_ports([port(8081, 81), port(8080, 80), port(8083, 83)])
        == "*:8080-8081->80-81/tcp, *:8083->83/tcp"
    )
    assert published_ports([port(8080, 80), port(8081, 80)]) == "*:8080-8081->80/tcp"
    assert published_ports([port(53, 53, "udp"), port(53, 53)]) == "*:53->53/tcp, *:53->53/udp"
    assert published_ports([{**port(80, 80), "PublishMode": "host"}]) == ""
