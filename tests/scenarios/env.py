"""The words that scenarios are written in: one line of text in, lines of text out, on a pure cluster.

`settle` and `tick` let everything happen, `step` one round of the leader only; `plan` shows what the
orchestrator would write now without writing it.
"""

from __future__ import annotations

import shlex
from dataclasses import replace

from swarm.base.errors import SwarmError
from swarm.base.ids import NetworkID, NodeID, SecretID, ServiceID
from swarm.manager.allocator.ports import allocate_ports
from swarm.manager.control.networks import (
    new_network,
    removed_network,
    require_ingress,
    resolve_networks,
)
from swarm.manager.control.payload_versions import roll_followers
from swarm.manager.control.services import changed_service, resumed, rolled_back_service
from swarm.manager.explain.service import explain
from swarm.manager.orchestrator.jobs import is_finished
from swarm.manager.orchestrator.rebalance import all_moves
from swarm.manager.orchestrator.schedule import first_job_status, next_job_status
from swarm.manager.orchestrator.service import plan_service
from swarm.model.generic_resources import claims_of, parse_node_resources
from swarm.model.networks import MACVLAN, OVERLAY, VNI_OPTION
from swarm.model.objects import (
    Cluster,
    Network,
    Node,
    NodeStatus,
    Payload,
    Secret,
    Service,
    Task,
    TaskStatus,
    payload_id,
)
from swarm.model.plan import Create, Delete, Op, Update
from swarm.model.specs import (
    NetworkSpec,
    NodeSpec,
    SecretSpec,
)
from swarm.model.task_state import Owner, TaskState, is_dead
from swarm.model.types import (
    Availability,
    IPAMConfig,
    NodeDescription,
    NodeState,
    Platform,
    Resources,
    Version,
)
from swarm.model.view import find
from tests.scenarios.cluster import PureCluster
from tests.scenarios.words import Options, labels, nano, one, seconds, service_spec, size


class Scenario:
    def __init__(self) -> None:
        self.cluster = PureCluster()
        self._service_ids = 0
        self._network_ids = 0
        self._options: dict[str, Options] = {}
        """How each service was asked for, for updates to build on."""

    def run(self, line: str) -> str:
        """The output of one command."""
        word, *rest = shlex.split(line)
        positional = [item for item in rest if "=" not in item]
        options: Options = {}
        for item in rest:
            key, found, value = item.partition("=")
            if found:
                options.setdefault(key, []).append(value)
        try:
            return getattr(self, "do_" + word.replace("-", "_"))(*positional, **options) or "ok"
        except SwarmError as error:
            return f"error: {error}"

    # -- nodes ---------------------------------------------------------------------------------------------

    def do_add_node(self, name: str, **options: list[str]) -> None:
        cpu, memory, arch = (
            one(options, "cpu", "4"),
            one(options, "mem", "8g"),
            one(options, "arch", "x86_64"),
        )
        node = Node(
            id=NodeID(name),
            spec=NodeSpec(labels=labels(options)),
            description=NodeDescription(
                hostname=name,
                subnets=tuple(options.get("route", ())),
                platform=Platform(os="linux", architecture=arch),
                resources=Resources(
                    nano_cpus=nano(cpu),
                    memory_bytes=size(memory),
                    generic_resources=parse_node_resources(
                        text.replace(":", "=") for text in options.get("generic", ())
                    ),
                ),
            ),
            status=NodeStatus(state=NodeState.READY, addr=one(options, "ip", "")),
        )
        self.cluster.add_node(node)

    def do_node_down(self, name: str) -> None:
        """A power cut, as the manager sees it a few seconds later."""
        self.cluster.set_node_state(NodeID(name), NodeState.DOWN, power_cut=True)

    def do_cut_off(self, name: str) -> None:
        """The node cannot be reached any more and is taken for down; its containers run on."""
        self.cluster.set_node_state(NodeID(name), NodeState.DOWN)

    def do_fence(self, name: str) -> None:
        """The time after which a lost node must have killed its exclusive tasks is over."""
        self.cluster.fence(NodeID(name))

    def do_node_unknown(self, name: str) -> None:
        self.cluster.set_node_state(NodeID(name), NodeState.UNKNOWN)

    def do_node_up(self, name: str) -> None:
        self.cluster.set_node_state(NodeID(name), NodeState.READY)

    def do_rm_node(self, name: str) -> None:
        self.cluster.remove_node(NodeID(name))

    def do_drain(self, name: str) -> None:
        self._set_availability(name, Availability.DRAIN)

    def do_pause(self, name: str) -> None:
        self._set_availability(name, Availability.PAUSE)

    def do_activate(self, name: str) -> None:
        self._set_availability(name, Availability.ACTIVE)

    def do_label_node(self, name: str, **options: list[str]) -> None:
        node = find(self.cluster.objects, Node, name)
        self.cluster.write(replace(node, spec=replace(node.spec, labels=labels(options))))

    def do_shrink(self, name: str, cpu: list[str]) -> None:
        """The host has come back with fewer processors."""
        node = find(self.cluster.objects, Node, name)
        resources = replace(node.description.resources, nano_cpus=nano(cpu[0]))
        self.cluster.write(replace(node, description=replace(node.description, resources=resources)))

    def do_slow_stops(self, name: str, mode: str) -> None:
        self.cluster.hosts[NodeID(name)].is_stopping_slowly = mode == "on"

    def _set_availability(self, name: str, availability: Availability) -> None:
        self.cluster.set_availability(NodeID(name), availability)

    def do_set_history(self, limit: str) -> None:
        cluster = self.cluster.objects.list(Cluster)[0]
        spec = replace(cluster.spec, task_history_retention_limit=int(limit))
        self.cluster.write(replace(cluster, spec=spec))

    def do_set_ingress(self, subnet: str) -> None:
        network = self.cluster.objects.list(Network)[0]
        self.cluster.write(replace(network, spec=replace(network.spec, ipam=(IPAMConfig(subnet=subnet),))))

    def do_create_network(self, name: str, *flags: str, **options: list[str]) -> None:
        """`subnet=10.9.0.0/24 range=10.9.0.8/29 aux=printer:10.9.0.9 vni=77 internal ingress ipv6`.

        Or `config-from=lan`, for a macvlan network.
        """
        first = IPAMConfig(
            subnet=options.get("subnet", [""])[0],
            ip_range=one(options, "range", ""),
            auxiliary_addresses=dict(text.split(":", 1) for text in options.get("aux", ())),
        )
        more = (IPAMConfig(subnet=text) for text in options.get("subnet", ())[1:])
        spec = NetworkSpec(
            name=name,
            driver=MACVLAN if "config-from" in options else OVERLAY,
            config_from=one(options, "config-from", ""),
            ipam=(first, *more),
            internal="internal" in flags,
            ingress="ingress" in flags,
            enable_ipv6="ipv6" in flags,
            options={VNI_OPTION: options["vni"][0]} if "vni" in options else {},
        )
        self._network_ids += 1
        network = new_network(self.cluster.objects, spec, NetworkID(f"network{self._network_ids}"))
        self.cluster.write(network)

    def do_rm_network(self, name: str) -> None:
        self.cluster.write(removed_network(self.cluster.objects, name))

    def do_set_pool(self, pool: str, size: str) -> None:
        cluster = self.cluster.objects.list(Cluster)[0]
        self.cluster.write(replace(cluster, default_address_pools=(pool,), subnet_size=int(size)))

    def do_vips(self, name: str) -> str:
        virtual = find(self.cluster.objects, Service, name).endpoint.virtual_ips
        return "\n".join(f"{v.network_id} {v.addr}" for v in virtual) or "none"

    # -- services ------------------------------------------------------------------------------------------

    def do_create_service(self, name: str, **options: list[str]) -> None:
        spec = resolve_networks(self.cluster.objects, service_spec(name, options))
        require_ingress(self.cluster.objects, spec)
        self._options[name] = options
        endpoint = allocate_ports(self.cluster.objects, spec, None)
        self._service_ids += 1
        self.cluster.write(
            Service(
                id=ServiceID(f"service{self._service_ids}"),
                spec=spec,
                spec_version=Version(index=1),
                endpoint=endpoint,
                job_status=first_job_status(spec, self.cluster.clock.now()),
            )
        )

    def do_update_service(self, name: str, *flags: str, **options: list[str]) -> None:
        """The options given replace those of before; `force` makes new tasks in any case."""
        service = find(self.cluster.objects, Service, name)
        self._options[name] = {**self._options[name], **options}
        spec = service_spec(name, self._options[name])
        if "replicas" not in options:
            spec = replace(spec, mode=service.spec.mode)
        forced = service.spec.task_template.force_update + ("force" in flags)
        spec = replace(spec, task_template=replace(spec.task_template, force_update=forced))
        now = self.cluster.clock.now()
        changed = changed_service(self.cluster.objects, service, spec, "", now)
        if changed is not service:
            self.cluster.write(changed)

    def do_secret(self, name: str, version: str) -> None:
        """A secret, or another version of it becomes current: what control writes."""
        known = next(iter(self.cluster.objects.named(Secret, name)), None)
        number = int(version)
        self.cluster.write(Payload(id=payload_id(f"{name}-id", number), data=version.encode()))
        if known is None:
            self.cluster.write(Secret(id=SecretID(f"{name}-id"), spec=SecretSpec(name=name), current=number))
            return
        rolled = roll_followers(self.cluster.objects, known)
        self.cluster.write(replace(known, current=number, last=max(number, known.last)))
        for op in rolled:
            self.cluster.write(op.object)

    def do_versions(self, name: str) -> str:
        """Which version of which secret the service's live tasks have."""
        service = find(self.cluster.objects, Service, name)
        tasks = sorted(self.cluster.objects.tasks_of_service(service.id), key=lambda task: task.slot)
        held = [(t, r) for t in tasks for r in t.spec.container_spec.secrets]
        return "\n".join(
            f"{self._label(t)}  {r.secret_name}@{r.version}"
            for t, r in held
            if t.desired_state <= TaskState.RUNNING
        )

    def do_rollback(self, name: str) -> None:
        service = find(self.cluster.objects, Service, name)
        self.cluster.write(rolled_back_service(self.cluster.objects, service, self.cluster.clock.now()))

    def do_resume(self, name: str) -> None:
        self.cluster.write(resumed(find(self.cluster.objects, Service, name)))

    def do_status(self, name: str) -> str:
        """Of the update: its state, when it began and ended, and what is said of it."""
        status = find(self.cluster.objects, Service, name).update_status
        if status is None:
            return "no update"
        times = [
            f"{word} +{(at - self.cluster.started).total_seconds():g}s"
            for word, at in (("since", status.started_at), ("until", status.completed_at))
            if at
        ]
        return f"{' '.join([status.state, *times])}: {status.message}"

    def do_explain(self, name: str) -> str:
        service = find(self.cluster.objects, Service, name)
        found = explain(self.cluster.objects, service, self.cluster.clock.now())
        state = "as it should be" if found.is_converged else "not yet"
        lines = [f"{found.running} of {found.desired} run, {state}"]
        for finding in found.findings:
            lines.append(
                f"{finding.kind}: {finding.text}" + (f" [{finding.advice}]" if finding.advice else "")
            )
            lines += [f"  {node}: {reason}" for node, reason in finding.nodes.items()]
        return "\n".join(lines)

    def do_scale(self, name: str, replicas: str) -> None:
        self.cluster.scale(find(self.cluster.objects, Service, name), int(replicas))

    def do_rebalance(self, name: str) -> str:
        service = find(self.cluster.objects, Service, name)
        moves = all_moves(self.cluster.objects, service, self.cluster.clock.now())
        self.cluster.commit(Owner.ORCHESTRATOR, moves.ops)
        return f"{len(moves.ops)} moved"

    def do_rm(self, name: str) -> None:
        self.cluster.remove_service(find(self.cluster.objects, Service, name).id)

    def do_job(self, name: str) -> str:
        """The job's iteration, when it began, and whether it has ended."""
        service = find(self.cluster.objects, Service, name)
        status = service.job_status
        assert status is not None
        began = status.last_execution
        since = f"began +{(began - self.cluster.started).total_seconds():g}s" if began else "not begun"
        ended = "finished" if is_finished(self.cluster.objects, service) else "unfinished"
        return f"iteration {status.job_iteration.index} {since} {ended}"

    def do_run_again(self, name: str) -> None:
        """`service update --force` of a job."""
        service = find(self.cluster.objects, Service, name)
        template = replace(
            service.spec.task_template, force_update=service.spec.task_template.force_update + 1
        )
        spec = replace(service.spec, task_template=template)
        version = Version(index=service.spec_version.index + 1)
        status = next_job_status(service, spec, self.cluster.clock.now())
        self.cluster.write(replace(service, spec=spec, spec_version=version, job_status=status))

    def do_ports(self, name: str) -> str:
        ports = find(self.cluster.objects, Service, name).endpoint.ports
        return "\n".join(f"{p.publish_mode} {p.published_port}->{p.target_port}/{p.protocol}" for p in ports)

    # -- tasks ---------------------------------------------------------------------------------------------

    def do_fail_task(self, name: str, exit: list[str]) -> None:
        self.cluster.end_task(self._live(name), TaskState.FAILED, f"task: non-zero exit ({exit[0]})")

    def do_complete_task(self, name: str) -> None:
        self.cluster.end_task(self._live(name), TaskState.COMPLETE)

    def do_always_fail(self, name: str, exit: list[str]) -> None:
        """From now on every task of the service ends as soon as it has started."""
        err = f"task: non-zero exit ({exit[0]})"
        self.cluster.ends[name] = TaskStatus(state=TaskState.FAILED, err=err)

    def do_never_start(self, image: str) -> None:
        """Tasks of the image do not get beyond STARTING, as with a health check that does not pass."""
        self.cluster.slow.add(image)

    def do_may_start(self, image: str) -> None:
        self.cluster.slow.discard(image)

    def do_always_reject(self, name: str, reason: str) -> None:
        """From now on every task of the service is refused by its node as soon as it is prepared."""
        self.cluster.ends[name] = TaskStatus(state=TaskState.REJECTED, err=reason)

    def do_always_complete(self, name: str) -> None:
        """From now on every task of the service finishes as soon as it has started."""
        self.cluster.ends[name] = TaskStatus(state=TaskState.COMPLETE)

    def do_work_again(self, name: str) -> None:
        self.cluster.ends.pop(name)

    def do_tasks(self, *names: str, **_: list[str]) -> str:
        """SLOT#id, node, desired/observed state, ingress address, when it was made, its delay, and why."""
        rows = [self._row(task) for task in self._sorted() if not names or task.service_name in names]
        widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
        return (
            "\n".join(
                "  ".join(
                    [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), *row[3:]]
                ).rstrip()
                for row in rows
            )
            or "none"
        )

    def do_containers(self) -> str:
        """Where containers really run, whatever the tasks say."""
        lines = []
        for node_id, host in self.cluster.hosts.items():
            running = [self._label(t) for t in self._sorted() if t.id in host.containers]
            lines.append(f"{node_id}: {' '.join(running) or '-'}")
        return "\n".join(lines)

    def do_nodes(self) -> str:
        return "\n".join(
            f"{node.id} {node.status.state} {node.spec.availability} "
            + " ".join(address for found in node.attachments for address in found.addresses)
            for node in self.cluster.objects.list(Node)
        )

    def do_networks(self) -> str:
        return "\n".join(
            f"{n.spec.name} {' '.join(config.subnet for config in n.ipam) or '-'} "
            f"gateway={','.join(config.gateway for config in n.ipam) or '-'} vni={n.vni}"
            + (" removed" if n.is_removed else "")
            + (f" ({n.err})" if n.err else "")
            for n in self.cluster.objects.list(Network)
        )

    def _sorted(self) -> list[Task]:
        return sorted(
            self.cluster.objects.list(Task),
            key=lambda t: (t.service_name, t.slot or t.node_id, t.meta.created_at, t.id),
        )

    def _live(self, name: str) -> Task:
        """`web.1` or `agent.n1`: the task of that slot that is wanted."""
        service, _, slot = name.partition(".")
        return next(
            task
            for task in self.cluster.objects.list(Task)
            if task.service_name == service
            and str(task.slot or task.node_id) == slot
            and task.desired_state <= TaskState.RUNNING
            and not is_dead(task.status.state)
        )

    def _label(self, task: Task) -> str:
        return f"{task.service_name}.{task.slot or task.node_id}#{int(task.id)}"

    def _row(self, task: Task) -> list[str]:
        made = task.meta.created_at
        assert made is not None
        image = task.spec.container_spec.image
        details = [image] if image != f"{task.service_name}:1" else []
        details += [address for found in task.attachments for address in found.addresses]
        if made > self.cluster.started:
            details.append(f"made +{(made - self.cluster.started).total_seconds():g}s")
        if task.start_after is not None:
            details.append(f"start after {(task.start_after - made).total_seconds():g}s")
        details += [
            f"{kind}:{name or number}"
            for (kind, name), number in sorted(claims_of(task.assigned_generic_resources).items())
        ]
        if task.status.err:
            details.append(f'"{task.status.err}"')
        state = f"{task.desired_state.word}/{task.status.state.word}"
        return [self._label(task), task.node_id or "-", state, *details]

    # -- time ----------------------------------------------------------------------------------------------

    def do_settle(self) -> None:
        self.cluster.settle()
        for service in self.cluster.objects.list(Service):
            found = explain(self.cluster.objects, service, self.cluster.clock.now())
            assert found.is_converged or found.findings, f"nothing explains {service.spec.name}"

    def do_step(self) -> None:
        self.cluster.lead()

    def do_lead(self, ops: str) -> None:
        """A leader that dies after its first `ops` writes of each plan."""
        self.cluster.lead(int(ops))

    def do_tick(self, duration: str) -> None:
        self.cluster.tick(seconds(duration))

    def do_plan(self, name: str) -> str:
        service = find(self.cluster.objects, Service, name)
        plan = plan_service(self.cluster.objects, service.id, self.cluster.clock.now(), lambda: "0")
        lines = [self._describe(op) for op in plan.ops]
        if plan.wake_at:
            lines.append(f"wake in {(plan.wake_at - self.cluster.clock.now()).total_seconds():g}s")
        return "\n".join(lines) or "nothing"

    def _describe(self, op: Op) -> str:
        task = op.object
        if isinstance(task, Service):
            return f"status {task.update_status.state if task.update_status else '-'}"
        assert isinstance(task, Task)
        match op:
            case Create():
                return f"create {task.service_name}.{task.slot or task.node_id} {task.desired_state.word}"
            case Update():
                return f"set {self._label(task)} {task.desired_state.word}"
            case Delete():
                return f"delete {self._label(task)}"
