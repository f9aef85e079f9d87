"""Why a service is not as it was asked for, in words for its user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason, with the tasks that it holds back (`web.1`); none when it concerns the service."""

    kind: str
    """What it is about, for programs: `placement`, `restart`, `update`, …"""
    text: str
    advice: str = ""
    """What the user can do; empty where waiting is all there is to do."""
    tasks: tuple[str, ...] = ()
    nodes: Mapping[str, str] = field(default_factory=dict)
    """Of a placement: why each node does not take the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    service_name: str
    running: int
    desired: int
    is_converged: bool
    findings: tuple[Finding, ...] = ()
