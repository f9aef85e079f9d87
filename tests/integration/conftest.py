"""What integration tests share: labs that are gone when the module is, whatever happened in it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from swarm.lab import demo_image
from swarm.lab.lab import Lab
from tests.integration.cluster import Cluster

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def lab() -> Iterator[Callable[..., Lab]]:
    """`lab(hosts=3)` makes a lab of its own name, with `Lab.up`'s arguments."""
    with ExitStack() as stack:

        def make(**options) -> Lab:
            made = stack.enter_context(Lab(f"t{os.getpid()}-{next(_numbers)}"))
            return made.up(**options)

        yield make


@pytest.fixture(scope="session")
def web_archive(tmp_path_factory) -> Path:
    """The demo image `web` (an HTTP server that answers its task's name, and busybox) as an OCI archive."""
    archive = tmp_path_factory.mktemp("images") / "web.tar"
    demo_image.build("web", archive)
    return archive


@pytest.fixture(scope="module")
def cluster(lab: Callable[..., Lab], web_archive: Path) -> Cluster:
    """Three hosts in a cluster, all with the image `web`. Each module has its own."""
    made = Cluster(lab(hosts=3))
    made.load(web_archive)
    made.found()
    return made
