"""`system info` and `system rotate-data-key` for people: the API's answers in, text out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarm.cli.render import align
from swarm.cli.values import binary_size

Json = Mapping[str, Any]

_HEADER = ("NODE", "ADDRESS", "ROLE", "REACHABLE", "STATE", "SIZE", "VERSION")


def report_text(report: Json) -> str:
    runtime = report["Runtime"]
    lines = [*_store_lines(report.get("Store"))]
    lines += [
        f"Runtime: {runtime['Name']} ({runtime['Path']})",
        f" Reason: {runtime['Reason']}",
        f" Cgroups: {runtime['CgroupMode']}",
        "Network:",
    ]
    lines += [
        f" {c['Name']}: {'yes' if c['Present'] else 'no'} ({c['Note']})" for c in report["Capabilities"]
    ]
    if report.get("CertificateExpires"):
        lines.append(f"Certificate expires: {report['CertificateExpires']}")
    return "\n".join(lines) + "\n"


def _store_lines(store: Json | None) -> list[str]:
    if store is None:
        return ["Store: none (this node is not a manager)"]
    kind = "external etcd" if store["External"] else "etcd"
    lines = [f"Store: {store['State']}"]
    if store["Message"]:
        lines.append(f" Reason: {store['Message']}")
    lines.append(f" Version: {kind} {store['EtcdVersion'] or 'unknown'} ({store['EtcdSupport']})")
    if store["QuotaBytes"]:
        lines.append(f" Quota: {binary_size(store['QuotaBytes'])}")
    if store["Members"]:
        rows = [_HEADER, *(_row(member) for member in store["Members"])]
        table = align("".join("\t".join(row) + "\n" for row in rows))
        lines += [" Members:", *(f"  {line}".rstrip() for line in table.splitlines())]
    return lines


def _row(member: Json) -> tuple[str, ...]:
    return (
        member["Hostname"] or member["NodeID"] or "-",
        member["Address"],
        member["Role"],
        "yes" if member["Reachable"] else "no",
        member["State"] or "-",
        binary_size(member["SizeBytes"]) if member["SizeBytes"] else "-",
        member["Version"] or "-",
    )


def rotation_lines(found: Json) -> list[str]:
    """How far the swarm is on its way to another data key."""
    state, total = found["State"], found["Total"]
    if state == "none":
        return ["everything is sealed with the new key"]
    if state == "resealing":
        return [f"sealed anew: {(total - found['Left']) * 10 // max(total, 1) * 10} %"]
    lines = ["every manager gets the new key"]
    return lines + [_waits(node) for node in found["WaitsFor"] if node["State"] != "ready"]


def _waits(node: Json) -> str:
    name = node["Hostname"] or node["ID"]
    return (
        f"waiting for {name}: it is {node['State']} "
        f"(bring it back, or take the role from it with: swarm node demote {node['ID']})"
    )
