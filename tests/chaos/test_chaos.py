"""A short piece of the chaos harness with a fixed seed. `make chaos` runs the long one."""

from __future__ import annotations

import os
import random

import pytest

from tests.chaos import chaos_lab
from tests.chaos.failpoints import sweep
from tests.chaos.points import all_points, in_order
from tests.chaos.run import Campaign, soak, tidy
from tests.integration.cluster import Cluster
from tests.integration.conftest import web_archive  # noqa: F401 - a fixture

pytestmark = pytest.mark.root

SEED = 20261121
SECONDS = 10.0


def test_faults_and_clients_break_no_promise(web_archive, tmp_path):  # noqa: F811
    with chaos_lab.chaos_lab(f"c{os.getpid()}-soak") as lab:
        cluster = Cluster(lab)
        cluster.load(web_archive)
        chaos_lab.found(cluster, managers=3)
        campaign = Campaign(seed=SEED, seconds=SECONDS, directory=tmp_path, hold_s=(1.0, 3.0))
        assert soak(cluster, campaign) == []
        assert tidy(cluster) == []


def test_what_happens_at_a_failpoint_leaves_nothing_undone(web_archive, tmp_path):  # noqa: F811
    order = in_order(all_points(), random.Random(SEED))
    point = next(p for p in order if p.scenario == "services" and p.action == "kill9")
    said = []
    assert sweep(f"c{os.getpid()}-point", web_archive, [point], tmp_path, said.append) == []
    assert said[-1] == "  1 tried; not passed: none", said
