"""What integration tests share: labs that are gone when the module is, whatever happened in it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from swarm.lab.lab import Lab

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def lab() -> Iterator[Callable[..., Lab]]:
    """`lab(hosts=3)` makes a lab of its own name, with `Lab.up`'s arguments."""
    with ExitStack() as stack:

        def make(**options) -> Lab:
            made = stack.enter_context(Lab(f"t{os.getpid()}-{next(_numbers)}"))
            return made.up(**options)

        yield make
