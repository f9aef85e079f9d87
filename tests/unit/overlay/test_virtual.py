from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.model.dataplane import DataPlane, NetworkService, ServiceBackend
from swarm.overlay.dns.answers import network_names
from swarm.overlay.virtual import (
    VirtualRules,
    change_virtual,
    left_targets,
    opened_addresses,
    plan_virtual,
    render_virtual,
    shape_of_virtual,
    without_virtual,
)


def rules(**targets: list[str]) -> VirtualRules:
    return VirtualRules(targets={f"10.0.1.{name[1:]}": tuple(found) for name, found in targets.items()})


def test_a_suspect_task_serves_only_when_no_other_is_left() -> None:
    sound, suspect = ServiceBackend(address="10.0.1.5"), ServiceBackend(address="10.0.1.6", suspect=True)
    both = NetworkService(virtual_ip="10.0.1.2", backends=(sound, suspect))
    alone = NetworkService(virtual_ip="10.0.1.3", backends=(suspect,))
    by_name_only = NetworkService(backends=(sound,))
    assert plan_virtual([both, alone, by_name_only]).targets == {
        "10.0.1.2": ("10.0.1.5",),
        "10.0.1.3": ("10.0.1.6",),
    }


def test_a_host_that_cannot_translate_names_the_tasks_themselves() -> None:
    service = NetworkService(
        name="web", virtual_ip="10.0.1.2", backends=(ServiceBackend(address="10.0.1.5"),)
    )
    plain = without_virtual(DataPlane(services=(service,)))
    assert plan_virtual(plain.services).targets == {}
    assert network_names("", [], plain.services).addresses["web"] == ("10.0.1.5",)


def test_a_change_touches_only_the_service_that_changed() -> None:
    before = rules(a2=["10.0.1.5"], a3=["10.0.1.6"])
    after = rules(a2=["10.0.1.5", "10.0.1.7"], a3=["10.0.1.6"])
    assert change_virtual(before, after).splitlines() == [
        "flush chain inet swarm to-10.0.1.2",
        "add rule inet swarm to-10.0.1.2 meta l4proto { tcp, udp, sctp } dnat ip to "
        "numgen inc mod 2 map { 0 : 10.0.1.5, 1 : 10.0.1.7 }",
        "add element inet swarm tasks { 10.0.1.7 . 10.0.1.7 }",
    ]
    assert change_virtual(after, after) == ""


def test_a_service_without_tasks_has_no_rule() -> None:
    text = change_virtual(rules(a2=["10.0.1.5"]), rules(a2=[]))
    assert "delete element inet swarm services { 10.0.1.2 }" in text
    assert "delete chain inet swarm to-10.0.1.2" in text
    assert "to-" not in render_virtual(rules(a2=[]))
    assert set(shape_of_virtual(rules(a2=[])).sets.values()) == {0}


def test_ipv6_has_sets_and_chains_of_its_own() -> None:
    web = NetworkService(virtual_ip="10.0.1.2", backends=(ServiceBackend(address="10.0.1.5"),))
    both = plan_virtual([web], "fd00::/64")
    assert both.targets == {"10.0.1.2": ("10.0.1.5",), "fd00::a00:102": ("fd00::a00:105",)}
    assert change_virtual(plan_virtual([web]), both).splitlines() == [
        "add chain inet swarm to-fd00000000000000000000000a000102",
        "add rule inet swarm to-fd00000000000000000000000a000102 meta l4proto { tcp, udp, sctp } dnat ip6 to "
        "numgen inc mod 1 map { 0 : fd00::a00:105 }",
        "add element inet swarm ipv6-services { fd00::a00:102 : jump to-fd00000000000000000000000a000102 }",
        "add element inet swarm ipv6-addresses { fd00::a00:102 : fd00::a00:102 }",
        "add element inet swarm ipv6-tasks { fd00::a00:105 . fd00::a00:105 }",
    ]
    assert left_targets(both, VirtualRules()) == {"10.0.1.5", "fd00::a00:105"}
    assert opened_addresses(VirtualRules(), both) == {"10.0.1.2", "fd00::a00:102"}


def test_flows_move_off_tasks_that_left_and_begin_anew_where_a_task_came() -> None:
    before, after = rules(a2=["10.0.1.5", "10.0.1.6"], a3=[]), rules(a2=["10.0.1.6"], a3=["10.0.1.5"])
    assert left_targets(before, after) == {"10.0.1.5"}
    assert opened_addresses(before, after) == {"10.0.1.3"}


tables = st.dictionaries(
    st.sampled_from(["10.0.1.2", "10.0.1.3", "fd00::2"]),
    st.lists(st.sampled_from(["10.0.1.5", "fd00::6", "10.0.1.7"]), unique=True).map(tuple),
)


def held(text: str, state: dict[str, set[str]]) -> dict[str, set[str]]:
    """Elements per set and rules per chain after nft took `text`, which it does line by line."""
    for words in (line.split() for line in text.splitlines() if line.startswith(("add", "delete", "flush"))):
        match words:
            case ["add", "element", _, _, name, "{", *rest]:
                assert rest[0] not in state.setdefault(name, set())
                state[name].add(rest[0])
            case ["delete", "element", _, _, name, "{", *rest]:
                state[name].remove(rest[0])
            case ["add", "chain", _, _, name]:
                state[name] = set()
            case ["flush", "chain", _, _, name]:
                state[name].clear()
            case ["delete", "chain", _, _, name]:
                assert not state.pop(name)
            case ["add", "rule", _, _, name, *rest]:
                state[name].add(" ".join(rest))
    return {name: found for name, found in state.items() if found}


@given(tables, tables)
def test_a_change_ends_where_the_whole_table_does(
    before: dict[str, tuple[str, ...]], after: dict[str, tuple[str, ...]]
) -> None:
    former, wanted = VirtualRules(targets=before), VirtualRules(targets=after)
    state = held(render_virtual(former), {})
    assert held(change_virtual(former, wanted), state) == held(render_virtual(wanted), {})
