"""`/system/info`, `/system/repair` and `/system/datakey`: ours, Docker has nothing like them."""

from __future__ import annotations

from aiohttp import web

from swarm.api.call import Call, Route, answer, done
from swarm.api.diagnosis import StoreMember, StoreReport
from swarm.api.progress import Tell, answer_with_progress
from swarm.model.docker_json import Json


async def info(call: Call) -> web.Response:
    report = await call.backend.system.report()
    until = report.certificate_until
    return answer(
        {
            "Store": _store(report.store) if report.store else None,
            "Runtime": {
                "Name": report.runtime.name,
                "Path": report.runtime.path,
                "Reason": report.runtime.reason,
                "CgroupMode": report.runtime.cgroup_mode,
            },
            "Capabilities": [
                {"Name": c.name, "Present": c.is_present, "Note": c.note} for c in report.capabilities
            ],
            "CertificateExpires": until.strftime("%Y-%m-%dT%H:%M:%SZ") if until else None,
        }
    )


async def repair(call: Call) -> web.StreamResponse:
    """JSON lines: `{"status": ...}` for each step, and `{"error": ...}` if it fails after the first."""

    async def work(tell: Tell) -> None:
        await call.backend.system.repair(lambda step: tell({"status": step}))

    return await answer_with_progress(call, work)


async def data_key(call: Call) -> web.Response:
    rotation = call.backend.system.key_rotation()
    return answer(
        {
            "State": rotation.state,
            "Key": rotation.key,
            "WaitsFor": [
                {"ID": n.id, "Hostname": n.description.hostname, "State": n.status.state.value}
                for n in rotation.waits_for
            ],
            "Left": rotation.left,
            "Total": rotation.total,
        }
    )


async def rotate_data_key(call: Call) -> web.Response:
    await call.backend.system.rotate_data_key()
    return done()


def _store(store: StoreReport) -> Json:
    return {
        "State": store.state,
        "Message": store.message,
        "External": store.is_external,
        "EtcdVersion": store.version,
        "EtcdSupport": store.support,
        "QuotaBytes": store.quota_bytes,
        "Members": [_member(member) for member in store.members],
    }


def _member(member: StoreMember) -> Json:
    return {
        "NodeID": member.node_id,
        "Hostname": member.hostname,
        "Address": member.address,
        "Role": member.role,
        "Reachable": member.is_reachable,
        "State": member.state,
        "Message": member.message,
        "Version": member.version,
        "SizeBytes": member.size_bytes,
        "UsedBytes": member.used_bytes,
    }


ROUTES = (
    Route("GET", "/system/info", info),
    Route("POST", "/system/repair", repair),
    Route("GET", "/system/datakey", data_key),
    Route("POST", "/system/datakey/rotate", rotate_data_key),
)
