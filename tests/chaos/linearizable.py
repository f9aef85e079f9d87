"""Whether a history is linearizable: is there one order of all operations, which respects who ended before
whom began, in which every answer is right?

In: operations. Out: per key a verdict. Keys are independent objects (services by name), so each is checked
alone, which keeps the search small. A key is a register with compare-and-swap: it is absent or has a value,
and a version that every write raises. The managers may raise a version too, without touching the value.
Source: Wing and Gong, "Testing and Verifying Concurrent Objects" (1993); visited states are remembered, as
Lowe proposes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.history import Operation, Outcome

STEP_LIMIT = 500_000


class Verdict(StrEnum):
    OK = "linearizable"
    VIOLATION = "not linearizable"
    UNKNOWN = "too large to be decided"


@dataclass(frozen=True, slots=True)
class Register:
    value: str | None = None
    version: int = 0
    """The version is at least this."""


def apply(state: Register, operation: Operation) -> Register | None:
    """The state after the operation, or None if it cannot have happened here with that answer."""
    refused = operation.outcome is Outcome.FAIL
    present = state.value is not None
    match operation.action:
        case "read":
            fits = operation.value == state.value and (not present or operation.version >= state.version)
            return Register(state.value, max(state.version, operation.version)) if fits else None
        case "create" if refused:
            return state if present else None
        case "create":
            return None if present else Register(operation.value, state.version + 1)
        case "write":
            fits = present and operation.version >= state.version
            return Register(operation.value, operation.version + 1) if fits else None
        case "remove" if refused:
            return None if present else state
        case "remove":
            return Register(None, state.version + 1) if present else None
    raise ValueError(operation.action)


def says_something(operation: Operation) -> bool:
    """Not so: a read without an answer, and what was refused for a reason that tells nothing of the state."""
    if operation.action == "read":
        return operation.outcome is Outcome.OK
    if operation.outcome is Outcome.FAIL:
        return (operation.action, operation.reason) in {("create", "exists"), ("remove", "absent")}
    return True


def check_key(history: Iterable[Operation], step_limit: int = STEP_LIMIT) -> Verdict:
    """The verdict on one key, absent at first."""
    todo = sorted((o for o in history if says_something(o)), key=lambda o: o.began)
    must = sum(1 << i for i, o in enumerate(todo) if o.outcome is not Outcome.INFO)
    seen: set[tuple[int, Register]] = set()
    stack = [(0, Register())]
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return Verdict.OK
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if len(seen) > step_limit:
            return Verdict.UNKNOWN
        for index in _next(todo, done):
            after = apply(state, todo[index])
            if after is not None:
                stack.append((done | 1 << index, after))
    return Verdict.VIOLATION


def _next(todo: Sequence[Operation], done: int) -> list[int]:
    """What may come next: all that began before the first end of what is not done. The likeliest last."""
    found = []
    first_end = min((o.ended for i, o in enumerate(todo) if not done >> i & 1), default=0)
    for index, operation in enumerate(todo):
        if operation.began > first_end:
            break
        if not done >> index & 1:
            found.append(index)
    return sorted(found, key=lambda i: -todo[i].ended)


def check(history: Iterable[Operation]) -> dict[str, Verdict]:
    """The verdict on every key."""
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    return {key: check_key(found) for key, found in sorted(by_key.items())}
