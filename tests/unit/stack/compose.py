"""Compose texts in, stacks and errors out: what the tests of the loader share."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from swarm.base.errors import InvalidArgument
from swarm.stack.load import load_stack
from swarm.stack.project import LoadOptions, Stack


def load(text: str, folder: Path | str = "/", **options: Any) -> Stack:
    """`text` as standard input, in `folder`."""
    settings = {"environment": {}, **options}
    return load_stack("st", ["-"], LoadOptions(stdin=dedent(text), directory=str(folder), **settings))


def service(text: str, **options: Any) -> dict[str, Any]:
    """The body of the only service, whose keys `text` has."""
    indented = "\n".join("    " + line for line in dedent(text).strip("\n").splitlines())
    (only,) = load(f"services:\n  web:\n    image: x\n{indented}\n", **options).services
    return only.body


def mistake(text: str, folder: Path | str = "/", **options: Any) -> str:
    """The one line that refuses it, without `<stdin>:`."""
    with pytest.raises(InvalidArgument) as caught:
        load(text, folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix("<stdin>:")
