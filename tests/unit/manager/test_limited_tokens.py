"""Join tokens that end: by time, by uses, by removal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from swarm.base.errors import InvalidArgument, NotFound
from swarm.base.ids import NodeID, SequentialIds
from swarm.manager.ca.tokens import TOKENS_LIMIT, add_token, find_token, remove_token, use_token
from swarm.model.objects import JoinTokens, RootCA
from swarm.model.rotate import TokenRequest
from swarm.model.types import NodeRole

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = RootCA(join_tokens=JoinTokens(worker="lasting-worker", manager="lasting-manager"))
IDS = SequentialIds("x")
ONE, TWO, THREE = NodeID("n1"), NodeID("n2"), NodeID("n3")


def made(root_ca=ROOT, **limits):
    root_ca = add_token(root_ca, TokenRequest(**({"role": NodeRole.WORKER} | limits)), IDS, NOW)
    return root_ca, root_ca.limited_tokens[-1]


def test_tokens_are_found_by_their_secret_alone():
    root_ca, token = made(role=NodeRole.MANAGER, uses=1)
    assert find_token(root_ca, token.secret) == token
    assert find_token(root_ca, token.id) is None
    assert find_token(root_ca, "") is None
    for secret, role in (("lasting-worker", NodeRole.WORKER), ("lasting-manager", NodeRole.MANAGER)):
        lasting = find_token(root_ca, secret)
        assert lasting.role is role
        assert use_token(root_ca, lasting, ONE, NOW) == root_ca, "a lasting token is not counted"


def test_each_node_counts():
    root_ca, token = made(uses=2)
    root_ca = use_token(root_ca, token, ONE, NOW)
    root_ca = use_token(root_ca, find_token(root_ca, token.secret), TWO, NOW)
    used_up = find_token(root_ca, token.secret)
    assert used_up.used_by == (ONE, TWO)
    with pytest.raises(InvalidArgument, match="could be used 2 times and has been"):
        use_token(root_ca, used_up, THREE, NOW)


def test_a_token_ends_at_its_time():
    root_ca, token = made(ttl=timedelta(hours=1))
    assert use_token(root_ca, token, ONE, NOW + timedelta(minutes=59)) != root_ca
    with pytest.raises(InvalidArgument, match="expired at 2026-01-01 01:00:00 UTC"):
        use_token(root_ca, token, ONE, NOW + timedelta(hours=1))


def test_a_removed_token_lets_nobody_in():
    root_ca, token = made(uses=5)
    root_ca = remove_token(root_ca, token.id)
    assert find_token(root_ca, token.secret) is None
    with pytest.raises(NotFound):
        remove_token(root_ca, token.id)


def test_ended_tokens_make_room_and_others_do_not():
    root_ca = ROOT
    for _ in range(TOKENS_LIMIT):
        root_ca, token = made(root_ca, uses=1)
    with pytest.raises(InvalidArgument, match="swarm join-token rm"):
        made(root_ca, uses=1)
    root_ca = use_token(root_ca, token, ONE, NOW)
    root_ca, newest = made(root_ca, uses=1)
    assert find_token(root_ca, token.secret) is None
    assert find_token(root_ca, newest.secret) == newest


@pytest.mark.parametrize(
    "limits",
    [{"ttl": timedelta(0)}, {"ttl": -timedelta(1)}, {"uses": -1}, {"uses": 10**6}, {"labels": {"": "x"}}],
)
def test_limits_that_make_no_sense_are_refused(limits):
    with pytest.raises(InvalidArgument):
        made(**limits)
