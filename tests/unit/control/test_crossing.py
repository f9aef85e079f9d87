"""Two managers at the same moment: one writes a service, the other removes what the service names.

Both decide on the same view; their transactions come one after the other. Each test holds for either order.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import InvalidArgument, NotFound, OutOfSequence, SwarmError
from swarm.base.ids import new_id
from swarm.manager.control import Control
from swarm.manager.control.payloads import DELETED_AT_ONCE
from swarm.model.objects import Cluster, Config, Network, Payload, Secret, Service
from swarm.model.payload_rules import referenced, references
from swarm.model.plan import Create
from swarm.model.specs import (
    ConfigReference,
    ConfigSpec,
    ContainerSpec,
    FileTarget,
    NetworkAttachmentConfig,
    NetworkSpec,
    SecretReference,
    SecretSpec,
    ServiceSpec,
    TaskSpec,
)
from swarm.secrets.box import new_data_key
from swarm.secrets.keyring import Keyring
from swarm.store.memory import MemoryKV
from tests.fakes.memory_cluster import memory_store

A, B, C = NAMES = ("x-a", "x-b", "x-c")
"""No beginnings of ids, which find things, too."""


@pytest.fixture
async def managers():
    """Three managers of one swarm, with a secret, a config and a network of each name."""
    kv, ring = MemoryKV(), Keyring([new_data_key()])
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(memory_store(FakeClock(), kv, ring)) for _ in range(3)]
        made = [Control(store, FakeClock(), new_id, lambda _: True) for store in stores]
        await stores[0].commit([Create(object=Cluster(id="cluster"))])
        for name in NAMES:
            await made[0].payloads.create_secret(SecretSpec(name=name, data=b"1"))
            await made[0].payloads.create_config(ConfigSpec(name=name, data=b"1"))
            await made[0].create_network(NetworkSpec(name=name, driver="overlay"))
        for control in made:
            await control.sync()
        yield made


def spec(control: Control, name: str, *used: str, secret=True, config=True, network=True) -> ServiceSpec:
    """A service that uses the secret, the config and the network of each of these names."""

    def one(kind, of):
        return control.view.named(kind, of)[0].id

    target = {n: FileTarget(name=f"/run/{n}") for n in used}
    container = ContainerSpec(
        image="web:1",
        secrets=tuple(
            SecretReference(secret_id=one(Secret, n), secret_name=n, file=target[n]) for n in used if secret
        ),
        configs=tuple(
            ConfigReference(config_id=one(Config, n), config_name=n, file=FileTarget(name=f"/etc/{n}"))
            for n in used
            if config
        ),
    )
    networks = tuple(NetworkAttachmentConfig(target=n) for n in used if network)
    return ServiceSpec(name=name, task_template=TaskSpec(container_spec=container, networks=networks))


async def outcomes(*work):
    """What became of each: None, or the error that a user reads."""
    done = await asyncio.gather(*work, return_exceptions=True)
    assert all(isinstance(d, SwarmError) or not isinstance(d, BaseException) for d in done), done
    return [d if isinstance(d, SwarmError) else None for d in done]


REMOVALS = {
    "secret": lambda control: control.payloads.remove(Secret, A),
    "config": lambda control: control.payloads.remove(Config, A),
    "network": lambda control: control.remove_network(A),
}


def dangling(control: Control) -> list[str]:
    """What services name and is not there."""
    found = []
    for service in control.view.list(Service):
        template = service.spec.task_template
        for reference in references(template.container_spec):
            object_id, name = referenced(reference)[:2]
            if control.view.get(Secret, object_id) is None and control.view.get(Config, object_id) is None:
                found.append(f"{service.spec.name}: {name}")
        for attachment in template.networks:
            network = control.view.get(Network, attachment.target)
            if network is None or network.is_removed:
                found.append(f"{service.spec.name}: network {attachment.target}")
    return found


@pytest.mark.parametrize("kind", REMOVALS)
@pytest.mark.parametrize("service_first", [True, False])
async def test_a_new_service_and_a_removal_at_once(managers, kind, service_first):
    one, two, _ = managers
    service = one.create_service(spec(one, "web", A, B))
    work = [service, REMOVALS[kind](two)]
    errors = await outcomes(*(work if service_first else reversed(work)))
    await one.sync()
    assert [e is None for e in errors] == [True, False], "the first one wins, the other one hears why"
    told = errors[1]
    if service_first:
        assert "in use by" in str(told)
    else:
        assert isinstance(told, (InvalidArgument, NotFound))
        assert "not found" in str(told)
    assert dangling(one) == []


@pytest.mark.parametrize("kind", REMOVALS)
async def test_an_update_and_a_removal_at_once(managers, kind):
    one, two, _ = managers
    service = await one.create_service(spec(one, "web", B))
    await two.sync()
    change = one.update_service("web", service.meta.version.index, spec(one, "web", A, B))
    assert [e is None for e in await outcomes(change, REMOVALS[kind](two))] == [True, False]
    await one.sync()
    assert dangling(one) == []


@pytest.mark.parametrize("kind", REMOVALS)
async def test_a_rollback_and_a_removal_at_once(managers, kind):
    one, two, _ = managers
    service = await one.create_service(spec(one, "web", A))
    await one.update_service("web", service.meta.version.index, spec(one, "web", B))
    version = one.view.named(Service, "web")[0].meta.version.index
    await two.sync()
    errors = await outcomes(REMOVALS[kind](two), one.rollback_service("web", version))
    assert [e is None for e in errors] == [True, False]
    assert "not found" in str(errors[1])
    await one.sync()
    assert dangling(one) == []


async def test_a_service_that_lost_its_own_race_is_told_so(managers):
    one, two, _ = managers
    service = await one.create_service(spec(one, "web", B))
    await two.sync()
    version = service.meta.version.index
    first, second = await outcomes(
        one.update_service("web", version, spec(one, "web", A)),
        two.update_service("web", version, spec(two, "web", C)),
    )
    assert first is None
    assert isinstance(second, OutOfSequence)


async def test_services_do_not_cross_each_other_and_removals_neither(managers):
    revision = managers[0].view.list(Secret)[0].meta.version
    made = [c.create_service(spec(c, f"s{i}", A)) for i, c in enumerate(managers)]
    gone = [control.payloads.remove(Config, name) for control, name in zip(managers[1:], (B, C), strict=True)]
    assert await outcomes(*made, *gone) == [None] * 5
    await managers[0].sync()
    assert managers[0].view.list(Secret)[0].meta.version == revision, "what is named is not written"


async def test_a_service_may_name_more_than_a_transaction_has_room_for(managers):
    one = managers[0]
    names = [f"n{number}" for number in range(150)]
    for name in names:
        await one.payloads.create_secret(SecretSpec(name=name, data=b"1"))
    await one.create_service(spec(one, "web", *names, config=False, network=False))
    errors = await outcomes(*(one.payloads.remove(Secret, name) for name in names[::50]))
    assert all("in use by" in str(error) for error in errors)


async def test_pruning_leaves_the_version_that_is_made_current_just_then(managers):
    one, two, _ = managers
    for data in (b"2", b"3"):
        await one.payload_versions.add(Secret, A, data)
    await two.sync()
    back, pruned = await asyncio.gather(
        one.payload_versions.roll_back(Secret, A, 1), two.payload_versions.prune(Secret, A)
    )
    assert (back, pruned) == (1, (2, 3))
    await one.sync()
    assert one.view.get(Payload, f"{one.view.named(Secret, A)[0].id}.1") is not None


async def test_a_removal_in_parts_that_is_crossed_keeps_the_current_version(managers):
    one, two, _ = managers
    for number in range(2, DELETED_AT_ONCE + 10):
        await one.payload_versions.add(Secret, A, str(number).encode())
    await two.sync()
    made = one.create_service(spec(one, "web", A))
    errors = await outcomes(two.payloads.remove(Secret, A), made)
    assert dangling(one) == []
    await one.sync()
    if errors[1] is None:
        secret = one.view.named(Secret, A)[0]
        assert one.view.get(Payload, f"{secret.id}.{secret.current}") is not None


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_crosses_nothing_dangles(managers, seed):
    chance = random.Random(seed)

    async def act(control: Control, number: int) -> None:
        name = chance.choice(NAMES)
        match chance.randrange(5):
            case 0 | 1:
                await control.create_service(spec(control, f"s{number}", *chance.sample(NAMES, 2)))
            case 2:
                service = chance.choice(control.view.list(Service))
                used = chance.sample(NAMES, 1)
                await control.update_service(
                    service.id, service.meta.version.index, spec(control, service.spec.name, *used)
                )
            case 3:
                await chance.choice(
                    (
                        lambda: control.payloads.remove(Secret, name),
                        lambda: control.payloads.remove(Config, name),
                        lambda: control.remove_network(name),
                    )
                )()
            case 4:
                service = chance.choice(control.view.list(Service))
                await control.rollback_service(service.id, service.meta.version.index)

    for turn in range(8):
        work = [act(chance.choice(managers), turn * 10 + n) for n in range(4)]
        done = await asyncio.gather(*work, return_exceptions=True)
        errors = [d for d in done if isinstance(d, BaseException)]
        assert [e for e in errors if not isinstance(e, (SwarmError, IndexError))] == []
        for control in managers:
            await control.sync()
        assert dangling(managers[0]) == []
