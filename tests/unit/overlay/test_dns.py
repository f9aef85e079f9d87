from __future__ import annotations

import socket
import struct
from ipaddress import IPv6Address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swarm.model.dataplane import DataPlane, NetworkService, OverlayNetwork, ServiceBackend
from swarm.overlay.dns import wire
from swarm.overlay.dns.answers import View, answer, network_names
from swarm.overlay.dns.state import NameState
from swarm.overlay.names import difference, has_tasks, plan_names
from swarm.overlay.records import TaskRecord
from tests.integration import dns_client


def service(name: str, *tasks: str, network: str = "n1", **more: object) -> NetworkService:
    backends = tuple(
        ServiceBackend(address=address, names=(f"{name}.{n}.id{n}", f"id{n}"))
        for n, address in enumerate(tasks, start=1)
    )
    return NetworkService(network_id=network, service_id=f"{name}-id", name=name, backends=backends, **more)


FRONT = network_names(
    "front",
    ["10.0.1.0/24"],
    [
        service("web", "10.0.1.5", "10.0.1.6", virtual_ip="10.0.1.2", aliases=("www", "site")),
        service("DB", "10.0.1.7", aliases=("site",)),
        service("idle", virtual_ip="10.0.1.3"),
    ],
)
BACK = network_names("back", ["10.0.2.0/24"], [service("web", "10.0.2.5"), service("idle", "10.0.2.6")])


def ask(name: str, kind: int = wire.TYPE_A, view: View | None = None) -> tuple[int, list[str]] | None:
    found = answer(view or View(networks=(FRONT,)), name, kind)
    if found is None:
        return None
    shown = {4: socket.inet_ntoa, 16: lambda data: socket.inet_ntop(socket.AF_INET6, data)}
    return found.code, [shown.get(len(d), bytes.decode)(d) for d in found.data]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("web", ["10.0.1.2"]),
        ("www", ["10.0.1.2"]),
        ("site", ["10.0.1.2", "10.0.1.7"]),
        ("tasks.web", ["10.0.1.5", "10.0.1.6"]),
        ("web.2.id2", ["10.0.1.6"]),
        ("id2", ["10.0.1.6"]),
        ("db", ["10.0.1.7"]),
        ("web.front", ["10.0.1.2"]),
        ("tasks.web.front", ["10.0.1.5", "10.0.1.6"]),
        ("idle", []),
        ("tasks.idle", []),
    ],
)
def test_names_of_a_network(name: str, found: list[str]) -> None:
    assert ask(name) == (wire.NO_ERROR, found)


def test_a_known_name_has_no_other_records_and_an_unknown_one_does_not_exist() -> None:
    assert ask("web", wire.TYPE_AAAA) == (wire.NO_ERROR, [])
    assert ask("nobody") == (wire.NO_SUCH_NAME, [])
    assert ask("web.back") == (wire.NO_SUCH_NAME, [])
    assert ask("nobody", view=View(networks=(FRONT,), forwards=True)) is None


def test_ipv6_addresses_follow_from_those_of_ipv4() -> None:
    six = network_names(
        "six", ["10.0.3.0/24", "fd00:3::/64"], [service("web", "10.0.3.5", virtual_ip="10.0.3.2")]
    )
    view, kind = View(networks=(six, FRONT), forwards=True), wire.TYPE_AAAA
    assert ask("web", kind, view) == (wire.NO_ERROR, ["fd00:3::a00:302"])
    assert ask("tasks.web", kind, view) == (wire.NO_ERROR, ["fd00:3::a00:305"])
    assert ask("db", kind, view) == (wire.NO_ERROR, []), "of a network without IPv6"
    assert ask("web", wire.TYPE_A, view) == (wire.NO_ERROR, ["10.0.3.2"])
    assert ask(reverse("fd00:3::a00:305"), wire.TYPE_PTR, view) == (0, ["\x03web\x011\x03id1\x03six\x00"])
    assert ask(reverse("fd00:3::a00:302"), wire.TYPE_PTR, view) == (0, ["\x03web\x03six\x00"])
    for unknown in ("fd00:3::a00:399", "fd00:3::1:a00:305"):
        assert ask(reverse(unknown), wire.TYPE_PTR, view) == (wire.NO_SUCH_NAME, [])
    assert ask(reverse("fd00:4::a00:305"), wire.TYPE_PTR, view) is None


def reverse(address: str) -> str:
    return IPv6Address(address).reverse_pointer


def test_the_first_network_that_has_a_task_of_the_name_answers() -> None:
    view = View(networks=(FRONT, BACK))
    assert ask("web", view=view) == (wire.NO_ERROR, ["10.0.1.2"])
    assert ask("web.back", view=view) == (wire.NO_ERROR, ["10.0.2.5"])
    assert ask("idle", view=view) == (wire.NO_ERROR, ["10.0.2.6"])


def test_addresses_have_names_on_their_own_networks() -> None:
    forwarding = View(networks=(FRONT,), forwards=True)
    kind = wire.TYPE_PTR
    assert ask("6.1.0.10.in-addr.arpa", kind) == (0, ["\x03web\x012\x03id2\x05front\x00"])
    assert ask("2.1.0.10.in-addr.arpa", kind) == (0, ["\x03web\x05front\x00"])
    assert ask("99.1.0.10.in-addr.arpa", kind, forwarding) == (wire.NO_SUCH_NAME, [])
    assert ask("99.1.0.10.in-addr.arpa", kind) == (wire.NO_SUCH_NAME, [])
    assert ask("8.8.8.8.in-addr.arpa", kind, forwarding) is None
    assert ask("6.1.0.10.in-addr.arpa", wire.TYPE_A) == (0, [])


@pytest.mark.parametrize(
    "name",
    [
        "",
        "in-addr.arpa",
        "1.2.3.in-addr.arpa",
        "256.0.0.1.in-addr.arpa",
        "²0.0.0.1.in-addr.arpa",
        "0." * 31 + "ip6.arpa",
        "0." * 33 + "ip6.arpa",
        "g." + "0." * 31 + "ip6.arpa",
        "00." * 32 + "ip6.arpa",
        "٣." + "0." * 31 + "ip6.arpa",
    ],
)
def test_what_is_no_reversed_address(name: str) -> None:
    assert wire.reversed_address(name) == ""


def test_suspects_are_named_only_when_nobody_else_is_left() -> None:
    sound, suspect = ServiceBackend(address="10.0.1.5"), ServiceBackend(address="10.0.1.6", suspect=True)
    both = NetworkService(name="web", backends=(sound, suspect))
    assert network_names("", [], [both]).addresses["web"] == ("10.0.1.5",)


# The wire


def query(name: str, kind: int = wire.TYPE_A, options: bytes = b"") -> bytes:
    packed = dns_client.pack(name, kind)
    return packed[:10] + struct.pack("!H", bool(options)) + packed[12:] + options


def options(size: int) -> bytes:
    return b"\0" + struct.pack("!HHIH", wire.TYPE_OPT, size, 0, 0)


def test_a_query_is_read_and_its_answer_understood() -> None:
    asked = wire.parse_query(query("Tasks.Web"))
    assert (asked.name, asked.kind, asked.takes) == ("tasks.web", wire.TYPE_A, 512)
    reply = wire.build_answer(asked, [socket.inet_aton("10.0.1.5")], limit=512)
    assert b"Tasks" in reply
    assert dns_client.read(reply) == {"code": "NOERROR", "records": ["10.0.1.5"], "truncated": False}


@pytest.mark.parametrize(("size", "records"), [(0, 29), (512, 29), (1232, 73), (4096, 73), (100, 29)])
def test_an_answer_is_cut_to_what_the_client_takes(size: int, records: int) -> None:
    asked = wire.parse_query(query("tasks.web", options=options(size) if size else b""))
    many = [bytes([10, 0, 1, n]) for n in range(200)]
    reply = wire.build_answer(asked, many, limit=asked.takes)
    heard = dns_client.read(reply)
    assert len(reply) <= max(size, 512)
    assert (heard["truncated"], abs(len(heard["records"]) - records) < 3) == (True, True)
    over_tcp = dns_client.read(wire.build_answer(asked, many, limit=wire.LARGEST_MESSAGE))
    assert (over_tcp["truncated"], len(over_tcp["records"])) == (False, 200)


@given(st.binary(max_size=80) | st.builds(lambda a, b: query("web")[:a] + b, st.integers(0, 25), st.binary()))
@example(query("web")[:12] + b"\xc0\x0c\0\1\0\1")
@example(query("web")[:12] + b"\x3f" * 70)
def test_no_bytes_break_the_reader(data: bytes) -> None:
    try:
        asked = wire.parse_query(data)
    except wire.WireError:
        refusal = wire.build_refusal(data, wire.FORMAT_ERROR)
        assert refusal == b"" or (refusal[:2] == data[:2] and refusal[2] & 0x80)
        return
    reply = wire.build_answer(asked, [b"\x0a\0\0\1"], limit=asked.takes)
    assert reply[:2] == data[:2]
    assert reply[12 : 12 + len(asked.question)] == asked.question
    assert len(reply) <= asked.takes


names = st.lists(st.text("abcdefghij-_0123456789", min_size=1, max_size=20), min_size=1, max_size=6)


@given(names.map(".".join))
def test_any_name_is_read_as_it_was_written(name: str) -> None:
    assert wire.parse_query(query(name)).name == name
    assert dns_client.read_name(wire.pack_name(name), 0)[0] == name


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64, ".".join(["x" * 60] * 5)])
def test_what_is_no_name_is_not_packed(name: str) -> None:
    with pytest.raises(wire.WireError):
        wire.pack_name(name)


# What the server is told


def plane(*services: NetworkService, internal: bool = False) -> DataPlane:
    networks = tuple(
        OverlayNetwork(id=n, name=f"net-{n}", subnets=("10.0.1.0/24",), internal=internal)
        for n in ("n1", "n2")
    )
    return DataPlane(networks=networks, services=services)


def record(task_id: str, *networks: str) -> TaskRecord:
    return TaskRecord(
        task_id=task_id, gateway_address="172.18.0.2", names_on=networks, nameservers=("192.0.2.53",)
    )


def items_of(desired: DataPlane, *records: TaskRecord) -> dict:
    return plan_names(desired, records, lambda name: Path("/netns") / name)


def test_the_server_is_told_of_the_networks_of_this_hosts_tasks_only() -> None:
    desired = plane(service("web", "10.0.1.5"), service("db", "10.0.1.6", network="n2"))
    told = items_of(desired, record("t1", "n1"))
    assert set(told) == {"network/n1", "service/n1/web-id", "task/t1"}
    assert has_tasks(told)
    assert items_of(desired, record("t2", "n3")) == {}
    assert not has_tasks(items_of(desired, record("t3")))


def test_nothing_is_forwarded_when_all_networks_are_internal() -> None:
    assert items_of(plane(internal=True), record("t1", "n1"))["task/t1"]["forward_to"] == []
    assert items_of(plane(), record("t1", "n1"))["task/t1"]["forward_to"] == ["192.0.2.53"]


services = st.lists(
    st.builds(
        lambda name, tasks, network, virtual: service(name, *tasks, network=network, virtual_ip=virtual),
        st.sampled_from(["web", "db"]),
        st.lists(st.sampled_from(["10.0.1.5", "10.0.1.6"]), unique=True),
        st.sampled_from(["n1", "n2"]),
        st.sampled_from(["", "10.0.1.2"]),
    ),
    unique_by=lambda s: (s.network_id, s.service_id),
).map(tuple)
record_sets = st.dictionaries(st.sampled_from(["t1", "t2"]), st.sampled_from([("n1",), ("n1", "n2"), ()]))


@given(st.lists(st.tuples(services, record_sets), min_size=1, max_size=4))
def test_changes_lead_to_the_same_views_as_all_at_once(steps: list) -> None:
    folded, told = NameState(), {}
    for found, tasks in steps:
        now = items_of(plane(*found), *(record(task_id, *on) for task_id, on in tasks.items()))
        folded.change(*difference(told, now))
        told = now
        at_once = NameState()
        at_once.change(now, [])
        assert folded.tasks() == at_once.tasks()
        for task_id in folded.tasks():
            assert folded.view(task_id) == at_once.view(task_id)
