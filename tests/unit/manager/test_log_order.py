"""Lines of several tasks in the order of their times."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.base.clock import SystemClock
from swarm.base.errors import Unavailable
from swarm.manager.log_order import FIRST_PATIENCE_S, PATIENCE_S, LogOrder
from swarm.manager.logbroker import LogLine
from swarm.model.objects import Node, NodeStatus, Task, TaskStatus
from swarm.model.task_state import TaskState
from swarm.model.types import NodeDescription, NodeState
from swarm.model.view import Objects
from swarm.node.logs import in_order, silences

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Line:
    task: str
    at: int
    number: int = 0

    @property
    def timestamp(self) -> datetime:
        return START + timedelta(seconds=self.at)

    @property
    def text(self) -> bytes:
        return b"x"


def ats(lines) -> list[int]:
    return [line.at for line in lines]


def test_without_following_everything_is_in_order_at_the_end() -> None:
    order = LogOrder(is_followed=False, now_s=0)
    for line in (Line("a", 1), Line("a", 4), Line("b", 2), Line("b", 3)):
        assert order.add(line.task, line, 0) == []
    assert order.due(1e9) == []
    assert order.deadline_s() is None
    assert ats(order.rest()) == [1, 2, 3, 4]


def test_a_follower_waits_a_moment_for_older_lines() -> None:
    order = LogOrder(is_followed=True, now_s=0)
    order.add("a", Line("a", 5), 0)
    order.add("b", Line("b", 3), 0.4)
    assert order.due(0.4) == []
    assert order.deadline_s() == FIRST_PATIENCE_S
    assert ats(order.due(FIRST_PATIENCE_S)) == [3, 5]
    order.add("a", Line("a", 9), 10)
    order.add("b", Line("b", 8), 10 + PATIENCE_S / 2)
    order.add("b", Line("b", 10), 10 + PATIENCE_S / 2)
    assert ats(order.due(10 + PATIENCE_S)) == [8, 9]  # 10 came later, and may wait for older ones
    assert ats(order.due(11)) == [10]
    assert order.deadline_s() is None


def test_what_finds_no_room_goes_oldest_first() -> None:
    order = LogOrder(is_followed=False, now_s=0, limit=2)
    assert [ats(order.add(str(at), Line("a", at), 0)) for at in (3, 1, 2, 4)] == [[], [], [1], [2]]


@given(
    lines=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.floats(0, 0.3)), max_size=60),
    is_followed=st.booleans(),
    limit=st.integers(1, 60),
)
def test_nothing_is_lost_and_no_task_s_lines_change_places(lines, is_followed, limit) -> None:
    order, now, out = LogOrder(is_followed=is_followed, now_s=0, limit=limit), 0.0, []
    given_lines = []
    for number, (task, at, pause) in enumerate(lines):
        now += pause
        given_lines.append(Line(task, at, number))
        out += order.add(task, given_lines[-1], now)
        out += order.due(now)
        deadline = order.deadline_s()
        assert deadline is None or deadline > now
    out += order.rest()
    assert sorted(line.number for line in out) == list(range(len(lines)))
    for task in "abc":
        assert [x for x in out if x.task == task] == [x for x in given_lines if x.task == task]


# --- reading --------------------------------------------------------------------------------------------


def a_line(task_id: str, at: int) -> LogLine:
    return LogLine(
        task=Task(id=task_id), timestamp=START + timedelta(seconds=at), stream="stdout", text=b"%d" % at
    )


async def test_an_error_comes_after_the_lines_that_came_before_it() -> None:
    async def lines():
        yield a_line("a", 2)
        yield a_line("b", 1)
        raise Unavailable("a node was lost")

    ordered = in_order(lines(), SystemClock(), follow=False)
    assert [(await anext(ordered)).text, (await anext(ordered)).text] == [b"1", b"2"]
    with pytest.raises(Unavailable, match="a node was lost"):
        await anext(ordered)


async def test_a_follower_gets_lines_while_nothing_else_comes() -> None:
    closed = asyncio.Event()

    async def lines():
        try:
            yield a_line("a", 2)
            yield a_line("b", 1)
            await asyncio.Event().wait()
        finally:
            closed.set()

    ordered = in_order(lines(), SystemClock(), follow=True)
    async with asyncio.timeout(5):
        assert [(await anext(ordered)).text, (await anext(ordered)).text] == [b"1", b"2"]
        waiting = asyncio.ensure_future(anext(ordered))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        await closed.wait()


def test_one_silence_for_each_node_that_cannot_be_reached() -> None:
    down = Node(id="n2", description=NodeDescription(hostname="h2"), status=NodeStatus(state=NodeState.DOWN))
    view = Objects([down, Node(id="n1", status=NodeStatus(state=NodeState.READY))])
    task = Task(id="t", status=TaskStatus(state=TaskState.RUNNING))
    tasks = [replace(task, id=f"t{n}", node_id=node) for n, node in enumerate(("n1", "n2", "n2", "gone", ""))]
    found = silences(view, tasks)
    assert [(s.newest.id, s.tasks, s.why) for s in found] == [
        ("t2", 2, "h2 is down"),
        ("t3", 1, "their node was removed"),
    ]
