from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from swarm.base.clock import FakeClock
from swarm.base.errors import (
    AlreadyExists,
    Ambiguous,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfSequence,
    Unsupported,
)
from swarm.base.ids import SequentialIds
from swarm.manager.control import Control
from swarm.manager.control.names import generate_name
from swarm.model.container import PullOptions
from swarm.model.objects import Cluster, ManagerStatus, Node, Service, Task
from swarm.model.rotate import Rotate
from swarm.model.specs import (
    ContainerSpec,
    GlobalMode,
    NodeSpec,
    ReplicatedMode,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from swarm.model.task_state import TaskState
from swarm.model.types import (
    Availability,
    EndpointSpec,
    NodeRole,
    NodeState,
    Placement,
    PortConfig,
    Protocol,
    ResourceRequirements,
    UpdateState,
    UpdateStatus,
    Version,
)
from swarm.model.validation import validate_service_name
from tests.fakes.fake_backend import FakeBackend, a_node, a_task
from tests.fakes.fake_store import FakeStore

SPEC = ServiceSpec(name="web", task_template=TaskSpec(container_spec=ContainerSpec(image="web:1")))
PORT = EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080),))


@pytest.fixture
def backend() -> FakeBackend:
    backend = FakeBackend()
    backend.start_cluster()
    return backend


@pytest.fixture
def store(backend: FakeBackend) -> FakeStore:
    return backend.store


@pytest.fixture
def control(backend: FakeBackend) -> Control:
    assert isinstance(backend.control, Control)
    return backend.control


def scaled(spec: ServiceSpec, replicas: int) -> ServiceSpec:
    return replace(spec, mode=ServiceMode(replicated=ReplicatedMode(replicas=replicas)))


async def test_create_stores_the_spec_as_asked_and_its_ports(control: Control, store: FakeStore) -> None:
    service = await control.create_service(replace(SPEC, endpoint_spec=PORT))
    stored = store.view.get(Service, service.id)
    assert stored == service
    assert stored.spec == replace(SPEC, endpoint_spec=PORT)
    assert stored.endpoint.ports == PORT.ports
    assert stored.previous_spec is None
    assert len(store.commits) == 1


async def test_create_without_a_name_makes_one(control: Control) -> None:
    service = await control.create_service(replace(SPEC, name=""))
    assert "_" in service.spec.name


def test_made_names_are_valid() -> None:
    for seed in ("0", "zzzz", "4kq1x0o9c6h3r2m1n8b7v5xya"):
        validate_service_name(generate_name(seed))


async def test_a_taken_name_and_a_taken_port_change_nothing(control: Control, store: FakeStore) -> None:
    first = await control.create_service(replace(SPEC, endpoint_spec=PORT))
    with pytest.raises(AlreadyExists, match="service web already exists"):
        await control.create_service(SPEC)
    with pytest.raises(InvalidArgument, match=f"'8080' is already in use by service 'web' .{first.id}."):
        await control.create_service(replace(SPEC, name="other", endpoint_spec=PORT))
    assert len(store.commits) == 1


@pytest.mark.parametrize("constraint", ["node.role=worker", "bogus==1"])
async def test_constraints_are_read_at_once(control: Control, constraint: str) -> None:
    placement = Placement(constraints=(constraint,))
    with pytest.raises(InvalidArgument):
        await control.create_service(
            replace(SPEC, task_template=replace(SPEC.task_template, placement=placement))
        )


async def test_scaling_keeps_template_version_and_remembers_the_spec(control: Control) -> None:
    service = await control.create_service(SPEC)
    await control.update_service("web", service.meta.version.index, scaled(SPEC, 7))
    found = control.view.get(Service, service.id)
    assert found is not None
    assert found.spec == scaled(SPEC, 7)
    assert found.previous_spec == SPEC
    assert found.spec_version == service.spec_version
    assert found.meta.version.index > service.meta.version.index


async def test_spelling_defaults_out_makes_no_new_tasks(control: Control) -> None:
    service = await control.create_service(SPEC)
    posted = replace(
        scaled(SPEC, 2),
        task_template=replace(SPEC.task_template, resources=ResourceRequirements()),
        endpoint_spec=EndpointSpec(mode="vip"),
    )
    await control.update_service("web", service.meta.version.index, posted)
    assert found(control).spec == posted
    assert found(control).spec_version == service.spec_version
    assert found(control).update_status is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(SPEC, name="other"), "renaming services is not supported"),
        (replace(SPEC, mode=ServiceMode(global_=GlobalMode())), "service mode change is not allowed"),
    ],
)
async def test_another_name_or_mode_is_refused(control: Control, spec: ServiceSpec, message: str) -> None:
    service = await control.create_service(SPEC)
    with pytest.raises(Unsupported, match=message):
        await control.update_service("web", service.meta.version.index, spec)


async def test_a_rollback_swaps_the_specs_and_takes_up_the_old_version(control: Control) -> None:
    made = await control.create_service(replace(SPEC, endpoint_spec=PORT))
    await control.update_service("web", made.meta.version.index, image(SPEC, "web:2"))
    updated = found(control)
    assert updated.spec_version not in (made.spec_version, Version())
    assert updated.endpoint.ports == ()
    assert (updated.previous_spec, updated.previous_spec_version) == (made.spec, made.spec_version)
    await control.rollback_service("web", updated.meta.version.index)
    back = found(control)
    assert (back.spec, back.spec_version, back.endpoint.ports) == (made.spec, made.spec_version, PORT.ports)
    assert (back.previous_spec, back.previous_spec_version) == (updated.spec, updated.spec_version)
    assert back.update_status == UpdateStatus(
        state=UpdateState.ROLLBACK_STARTED, message="manually requested rollback"
    )


async def test_a_rollback_needs_a_previous_spec_and_free_ports(control: Control, store: FakeStore) -> None:
    made = await control.create_service(replace(SPEC, endpoint_spec=PORT))
    with pytest.raises(FailedPrecondition, match="service web does not have a previous spec"):
        await control.rollback_service("web", made.meta.version.index)
    await control.update_service("web", made.meta.version.index, SPEC)
    await control.create_service(replace(SPEC, name="other", endpoint_spec=PORT))
    commits = len(store.commits)
    with pytest.raises(InvalidArgument, match="port '8080' is already in use"):
        await control.rollback_service("web", found(control).meta.version.index)
    assert len(store.commits) == commits


async def test_a_port_that_is_taken_refuses_an_update(control: Control, store: FakeStore) -> None:
    await control.create_service(replace(SPEC, name="other", endpoint_spec=PORT))
    made = await control.create_service(SPEC)
    commits = len(store.commits)
    with pytest.raises(InvalidArgument, match="port '8080' is already in use by service 'other'"):
        await control.update_service("web", made.meta.version.index, replace(SPEC, endpoint_spec=PORT))
    assert len(store.commits) == commits


async def test_the_same_spec_again_resumes_a_paused_update(control: Control, store: FakeStore) -> None:
    made = await control.create_service(SPEC)
    await control.update_service("web", made.meta.version.index, image(SPEC, "web:2"))
    commits = len(store.commits)
    await control.update_service("web", found(control).meta.version.index, image(SPEC, "web:2"))
    assert len(store.commits) == commits
    store.put(replace(found(control), update_status=UpdateStatus(state=UpdateState.PAUSED)))
    await control.update_service("web", found(control).meta.version.index, image(SPEC, "web:2"))
    assert found(control).update_status is None
    assert found(control).previous_spec == SPEC


async def test_scaling_leaves_a_paused_update_and_what_it_would_be_rolled_back_to(
    control: Control, store: FakeStore
) -> None:
    made = await control.create_service(SPEC)
    await control.update_service("web", made.meta.version.index, image(SPEC, "web:2"))
    paused = UpdateStatus(state=UpdateState.PAUSED)
    store.put(replace(found(control), update_status=paused))
    wanted = scaled(image(SPEC, "web:2"), 5)
    await control.update_service("web", found(control).meta.version.index, wanted)
    assert (found(control).spec, found(control).update_status) == (wanted, paused)
    assert found(control).previous_spec == scaled(SPEC, 5)
    assert found(control).previous_spec_version == made.spec_version


async def test_only_what_is_paused_is_resumed(control: Control, store: FakeStore) -> None:
    made = await control.create_service(SPEC)
    with pytest.raises(FailedPrecondition, match="the update of service web is not paused"):
        await control.resume_service("web", made.meta.version.index)
    store.put(replace(made, update_status=UpdateStatus(state=UpdateState.ROLLBACK_PAUSED)))
    await control.resume_service("web", found(control).meta.version.index)
    status = found(control).update_status
    assert status
    assert status.state is UpdateState.ROLLBACK_STARTED


async def test_credentials_stay_when_an_update_brings_none(control: Control) -> None:
    first, second = PullOptions(registry_auth="one"), PullOptions(registry_auth="two")
    made = await control.create_service(credentials(SPEC, first))
    await control.update_service("web", made.meta.version.index, scaled(SPEC, 2))
    assert found(control).spec == credentials(scaled(SPEC, 2), first)
    version = found(control).meta.version.index
    await control.update_service("web", version, credentials(scaled(SPEC, 2), second))
    assert found(control).spec_version == made.spec_version
    version = found(control).meta.version.index
    await control.update_service("web", version, scaled(SPEC, 3), "previous-spec")
    assert found(control).spec == credentials(scaled(SPEC, 3), first)


def found(control: Control) -> Service:
    return control.view.named(Service, "web")[0]


def image(spec: ServiceSpec, name: str) -> ServiceSpec:
    container = replace(spec.task_template.container_spec, image=name)
    return replace(spec, task_template=replace(spec.task_template, container_spec=container))


def credentials(spec: ServiceSpec, options: PullOptions) -> ServiceSpec:
    container = replace(spec.task_template.container_spec, pull_options=options)
    return replace(spec, task_template=replace(spec.task_template, container_spec=container))


async def test_an_update_on_an_old_version_is_out_of_sequence(control: Control) -> None:
    service = await control.create_service(SPEC)
    await control.update_service("web", service.meta.version.index, scaled(SPEC, 2))
    with pytest.raises(OutOfSequence, match=r"update out of sequence$"):
        await control.update_service("web", service.meta.version.index, scaled(SPEC, 3))


@pytest.mark.parametrize("port", [7789, 7790])
async def test_the_clusters_data_path_port_cannot_be_published(
    control: Control, store: FakeStore, port: int
) -> None:
    store.put(replace(control.cluster(), data_path_port=7789))
    published = EndpointSpec(ports=(PortConfig(protocol=Protocol.UDP, target_port=80, published_port=port),))
    with pytest.raises(InvalidArgument, match=f"port {port}/udp is the swarm's own: publish another one"):
        await control.create_service(replace(SPEC, endpoint_spec=published))


async def test_a_node_that_is_being_demoted_is_removed_when_that_is_done(
    control: Control, store: FakeStore
) -> None:
    leaving = replace(a_node(4, NodeRole.MANAGER, NodeState.DOWN), spec=NodeSpec(role=NodeRole.WORKER))
    leaving = store.put(leaving)
    removing = asyncio.ensure_future(control.remove_node("h4"))
    await asyncio.sleep(0)
    assert not removing.done()
    store.put(replace(leaving, manager_status=None))
    async with asyncio.timeout(5):
        await removing
    assert store.view.get(Node, leaving.id) is None


async def test_a_demotion_that_does_not_end_is_not_waited_for_for_long(
    control: Control, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.manager.control.control.DEMOTION_LOOKS", 2)
    store.put(replace(a_node(4, NodeRole.MANAGER, NodeState.DOWN), spec=NodeSpec(role=NodeRole.WORKER)))
    with pytest.raises(FailedPrecondition, match="must be demoted to worker before removal"):
        await control.remove_node("h4")


async def test_remove_deletes_the_service_only(control: Control, store: FakeStore) -> None:
    service = await control.create_service(SPEC)
    task = store.put(a_task(service, 1, a_node(2)))
    await control.remove_service("web")
    assert control.view.get(Service, service.id) is None
    assert control.view.get(Task, task.id) == task
    with pytest.raises(NotFound, match="service web not found"):
        await control.remove_service("web")


async def test_drain_and_labels(control: Control) -> None:
    node = control.view.named(Node, "h2")[0]
    spec = NodeSpec(availability=Availability.DRAIN, labels={"zone": "a"})
    await control.update_node("h2", node.meta.version.index, spec)
    assert control.view.named(Node, "h2")[0].spec == spec


async def set_role(control: Control, name: str, role: NodeRole) -> None:
    node = control.view.named(Node, name)[0]
    await control.update_node(name, node.meta.version.index, replace(node.spec, role=role))


async def test_a_worker_may_become_a_manager_and_the_last_manager_no_worker(control: Control) -> None:
    with pytest.raises(FailedPrecondition, match="demote the last manager"):
        await set_role(control, "h1", NodeRole.WORKER)
    await set_role(control, "h2", NodeRole.MANAGER)
    assert control.view.named(Node, "h2")[0].spec.role is NodeRole.MANAGER
    with pytest.raises(FailedPrecondition, match="result in a loss of quorum"):
        await set_role(control, "h1", NodeRole.WORKER)  # h2 is not in the store yet


async def test_a_demotion_that_costs_the_quorum_is_refused(control: Control, store: FakeStore) -> None:
    reachable: set[str] = set()
    careful = Control(store, FakeClock(), SequentialIds("c"), lambda node_id: node_id in reachable)
    for name in ("h1", "h2"):
        node = store.view.named(Node, name)[0]
        spec = replace(node.spec, role=NodeRole.MANAGER)
        store.put(replace(node, spec=spec, manager_status=ManagerStatus(addr="192.0.2.1:2377")))
    h2 = store.view.named(Node, "h2")[0]
    with pytest.raises(FailedPrecondition, match="result in a loss of quorum"):
        await set_role(careful, "h1", NodeRole.WORKER)
    reachable.add(h2.id)
    await set_role(careful, "h1", NodeRole.WORKER)
    h1 = careful.view.named(Node, "h1")[0]
    assert h1.spec.role is NodeRole.WORKER
    assert h1.manager_status is not None, "it leaves the store first"


async def test_a_node_that_answers_is_removed_by_force_only(control: Control, store: FakeStore) -> None:
    service = await control.create_service(scaled(SPEC, 120))
    node = control.view.named(Node, "h2")[0]
    for slot in range(1, 121):
        store.put(a_task(service, slot, node, TaskState.FAILED if slot == 1 else TaskState.RUNNING))
    with pytest.raises(FailedPrecondition, match="is not down and can't be removed"):
        await control.remove_node("h2")
    await control.remove_node("h2", force=True)
    assert control.view.get(Node, node.id) is None
    states = [task.status.state for task in control.view.tasks_on_node(node.id)]
    assert states.count(TaskState.ORPHANED) == 119
    assert states.count(TaskState.FAILED) == 1


async def test_a_dead_worker_is_removed_and_a_manager_never(control: Control, store: FakeStore) -> None:
    store.put(a_node(4, state=NodeState.DOWN))
    await control.remove_node("h4")
    assert not control.view.named(Node, "h4")
    with pytest.raises(FailedPrecondition, match="must be demoted to worker before removal"):
        await control.remove_node("h1", force=True)


async def test_two_nodes_of_one_name_are_ambiguous(control: Control, store: FakeStore) -> None:
    other = a_node(9)
    store.put(replace(other, description=replace(other.description, hostname="h2")))
    with pytest.raises(Ambiguous, match=r"node h2 is ambiguous \(2 matches found\)"):
        await control.remove_node("h2", force=True)


async def test_rotation_replaces_the_token_asked_for(control: Control) -> None:
    before = control.cluster()
    await control.update_cluster(before.meta.version.index, before.spec, Rotate(worker_token=True))
    after = control.view.list(Cluster)[0]
    assert after.root_ca.join_tokens.worker != before.root_ca.join_tokens.worker
    assert after.root_ca.join_tokens.manager == before.root_ca.join_tokens.manager
    with pytest.raises(OutOfSequence):
        await control.update_cluster(before.meta.version.index, before.spec, Rotate(worker_token=True))
    spec = replace(after.spec, task_history_retention_limit=9)
    await control.update_cluster(after.meta.version.index, spec)
    assert control.cluster().spec == spec
    assert control.cluster().root_ca == after.root_ca
