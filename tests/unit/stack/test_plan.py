"""What a deployment has to do, by the stack and what is there."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from swarm.base.errors import InvalidArgument, NotFound
from swarm.model.docker_json import encode, read_service_spec
from swarm.stack.compare import filled_in
from swarm.stack.plan import Image, Kind, Present, Resolve, is_leftover, plan_stack, to_resolve, undo
from swarm.stack.project import IMAGE_LABEL, NAMESPACE_LABEL, Stack, StackObject, StackService

MINE = {NAMESPACE_LABEL: "shop"}


def service(name: str, image: str = "web:1", *, depends_on=(), **more) -> StackService:
    body = {
        "Name": f"shop_{name}",
        "Labels": {**MINE, IMAGE_LABEL: image},
        "TaskTemplate": {
            "ContainerSpec": {"Image": image, "Labels": dict(MINE)},
        },
        "Mode": {"Replicated": {"Replicas": 2}},
    }
    return StackService(key=name, name=f"shop_{name}", body=body | more, depends_on=depends_on)


def network(name: str, **more) -> StackObject:
    body = {"Name": f"shop_{name}", "Driver": "overlay", "Labels": dict(MINE)}
    return StackObject(key=name, name=f"shop_{name}", body=body | more)


def secret(name: str, data: str = "aGk=") -> StackObject:
    body = {"Name": f"shop_{name}", "Labels": dict(MINE), "Data": data}
    return StackObject(key=name, name=f"shop_{name}", body=body)


STACK = Stack(
    name="shop",
    networks=(network("front"),),
    secrets=(secret("key"),),
    configs=(secret("motd"),),
    services=(service("db"), service("web", depends_on=("shop_db",))),
)


def there(stack: Stack) -> Present:
    """The cluster after the stack was deployed: specs as the API shows them."""

    def listed(number: int, spec) -> dict:
        return {"ID": f"id{number}", "Version": {"Index": number}, "Spec": spec}

    networks = [each.body | {"Id": f"n-{each.key}", "Internal": False} for each in stack.networks]
    ids = Present(networks=networks).ids()
    specs = [encode(read_service_spec(filled_in(each.body, ids))) for each in stack.services]
    return Present(
        networks=networks,
        secrets=[
            listed(n, {k: v for k, v in each.body.items() if k != "Data"})
            for n, each in enumerate(stack.secrets)
        ],
        configs=[listed(n, dict(each.body)) for n, each in enumerate(stack.configs)],
        services=[listed(n, spec) for n, spec in enumerate(specs)],
    )


def told(steps) -> list[str]:
    return [f"{s.action} {s.kind} {s.name}{''.join(f' [{c}]' for c in s.changes)}" for s in steps]


def test_a_new_stack_is_made_in_order():
    assert told(plan_stack(STACK, Present(), {})) == [
        "created network shop_front",
        "created secret shop_key",
        "created config shop_motd",
        "created service shop_db",
        "created service shop_web",
    ]


def test_what_is_as_wanted_stays():
    steps = plan_stack(STACK, there(STACK), {}, prune=True)
    assert {step.action for step in steps} == {"unchanged"}


@pytest.mark.parametrize(
    ("more", "changes"),
    [
        ({"Mode": {"Replicated": {"Replicas": 5}}}, ("Replicas 2 -> 5",)),
        ({"Labels": {**MINE, IMAGE_LABEL: "web:1", "tier": "front"}}, ("Labels.tier",)),
        ({"EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]}}, ("Ports",)),
        ({"UpdateConfig": {"Parallelism": 3}}, ("UpdateConfig.Parallelism",)),
        ({"UpdateConfig": {"Parallelism": 1}}, ()),
        ({"EndpointSpec": {"Mode": "vip"}}, ()),
    ],
)
def test_a_change_is_told_by_its_fields(more, changes):
    after = replace(STACK, services=(service("db"), service("web", **more)))
    step = plan_stack(after, there(STACK), {})[-1]
    assert (step.action, step.changes) == ("changed" if changes else "unchanged", changes)


def test_values_of_the_environment_are_not_told():
    template = {"ContainerSpec": {"Image": "web:1", "Labels": dict(MINE), "Env": ["PASSWORD=x"]}}
    after = replace(STACK, services=(service("db"), service("web", TaskTemplate=template)))
    assert plan_stack(after, there(STACK), {})[-1].changes == ("Env",)


def test_a_secret_s_and_config_s_labels_and_content_change_and_nothing_else():
    labelled = secret("motd")
    labelled.body["Labels"] = MINE | {"a": "b"}
    steps = plan_stack(replace(STACK, configs=(labelled,)), there(STACK), {})
    assert told(steps)[2] == "changed config shop_motd [Labels.a]"
    present = replace(there(STACK), other_secrets=frozenset({"shop_key"}))
    stack = replace(
        STACK,
        configs=(secret("motd", "aG8="),),
        services=(service("db"), replace(service("web"), secrets=("shop_key",), configs=("shop_motd",))),
    )
    assert told(plan_stack(stack, present, {}))[1:] == [
        "changed secret shop_key [content]",
        "changed config shop_motd [content]",
        "unchanged service shop_db",
        "changed service shop_web [secret shop_key] [config shop_motd]",
    ]
    template = secret("motd")
    template.body["Templating"] = {"Name": "golang"}
    with pytest.raises(
        InvalidArgument, match="config shop_motd exists with another templating, which cannot"
    ):
        plan_stack(replace(STACK, configs=(template,)), there(STACK), {})


def test_a_service_keeps_the_digest_that_its_image_got():
    pinned = Image(
        reference=f"web:1@sha256:{'ab' * 32}", platforms=({"Architecture": "amd64", "OS": "linux"},)
    )
    steps = plan_stack(STACK, Present(), {"shop_web": pinned})
    present = there(replace(STACK, services=(service("db"), replace(STACK.services[1], body=steps[-1].body))))
    assert told(plan_stack(STACK, present, {}))[-1] == "unchanged service shop_web"
    newer = replace(pinned, reference=f"web:1@sha256:{'cd' * 32}")
    (change,) = plan_stack(STACK, present, {"shop_web": newer})[-1].changes
    assert change == "Image web:1@sha256:abababababab -> web:1@sha256:cdcdcdcdcdcd"


def test_which_images_the_registry_is_asked_for():
    after = replace(STACK, services=(service("db", "db:2"), service("web")))

    def names(mode: Resolve, present: Present) -> list[str]:
        return [each.key for each in to_resolve(after, present, mode)]

    assert names(Resolve.ALWAYS, there(STACK)) == ["db", "web"]
    assert names(Resolve.CHANGED, there(STACK)) == ["db"]
    assert names(Resolve.CHANGED, Present()) == ["db", "web"]
    assert names(Resolve.NEVER, Present()) == []


def test_a_forced_restart_and_scaled_replicas_are_not_the_file_s_to_say():
    scaled = {"Labels": {**MINE, IMAGE_LABEL: "web:1", "swarm.autoscale": "min=1,max=9,cpu=70%"}}
    stack = replace(STACK, services=(service("web", **scaled),))
    present = there(stack)
    spec = present.services[0]["Spec"]
    spec["TaskTemplate"]["ForceUpdate"] = 3
    spec["Mode"] = {"Replicated": {"Replicas": 7}}
    assert told(plan_stack(stack, present, {}))[-1] == "unchanged service shop_web"


def test_references_are_compared_by_id():
    attached = {
        "TaskTemplate": {
            "ContainerSpec": {"Image": "web:1"},
            "Networks": [{"Target": "shop_front", "Aliases": ["web"]}],
        }
    }
    body = service("web", **attached).body
    ids = {"networks": {"shop_front": "n1"}, "secrets": {}, "configs": {}}
    assert filled_in(body, ids)["TaskTemplate"]["Networks"] == [{"Target": "n1", "Aliases": ["web"]}]
    assert body["TaskTemplate"]["Networks"][0]["Target"] == "shop_front"
    used = {"ContainerSpec": {"Image": "web:1", "Secrets": [{"SecretName": "shop_key", "File": {}}]}}
    found = filled_in(service("web", TaskTemplate=used).body, ids | {"secrets": {"shop_key": "s1"}})
    assert found["TaskTemplate"]["ContainerSpec"]["Secrets"][0]["SecretID"] == "s1"


def test_pruning_removes_services_first_and_the_rest_last():
    after = Stack(name="shop", networks=(network("back"),), services=(service("api"),))
    steps = plan_stack(after, there(STACK), {}, prune=True)
    assert told(steps) == [
        "removed service shop_db",
        "removed service shop_web",
        "created network shop_back",
        "created service shop_api",
        "removed config shop_motd",
        "removed secret shop_key",
        "removed network shop_front",
    ]
    assert [is_leftover(step) for step in steps] == [False] * 4 + [True] * 3
    assert told(plan_stack(after, there(STACK), {})) == [
        "created network shop_back",
        "created service shop_api",
    ]


def test_the_objects_of_others_are_left_alone():
    foreign = copy.deepcopy(there(STACK))
    for label in (None, "market"):
        for item in foreign.services:
            item["Spec"]["Labels"] = {NAMESPACE_LABEL: label} if label else {}
        whose = f"stack {label}" if label else "no stack"
        with pytest.raises(InvalidArgument, match=f"service shop_db exists already and belongs to {whose}"):
            plan_stack(STACK, foreign, {})
    assert plan_stack(Stack(name="shop"), foreign, {}, prune=True)[0].kind is not Kind.SERVICE


def test_external_objects_have_to_be_there():
    outside = StackObject(key="front", name="front", external=True)
    host = StackObject(key="host", name="host", external=True)
    stack = replace(STACK, networks=(outside, host))
    with pytest.raises(NotFound, match="network front is declared as external"):
        plan_stack(stack, Present(), {})
    present = Present(networks=[{"Name": "front", "Id": "n1"}])
    assert "network" not in {step.kind for step in plan_stack(stack, present, {}, prune=True)}


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"Internal": True}, "Internal"),
        ({"Labels": {**MINE, "a": "b"}}, "Labels.a"),
        ({"Options": {"encrypted": ""}}, "Options.encrypted"),
        ({"IPAM": {"Config": [{"Subnet": "10.9.0.0/24"}]}}, "IPAM"),
    ],
)
def test_a_network_with_other_settings_is_refused(more, field):
    stack = replace(STACK, networks=(network("front", **more),))
    with pytest.raises(InvalidArgument, match=rf"network shop_front exists with other settings \({field}\)"):
        plan_stack(stack, there(STACK), {})


def test_a_subnet_that_was_given_is_no_other_setting():
    def pools(*subnets):
        return {"IPAM": {"Config": [{"Subnet": subnet} for subnet in subnets]}}

    asked = replace(STACK, networks=(network("front", EnableIPv6=True, **pools("fd00::/64")),))
    given = network("front", EnableIPv6=True, **pools("10.0.16.0/20", "fd00::/64"))
    steps = plan_stack(asked, there(replace(STACK, networks=(given,))), {})
    assert [step.action for step in steps if step.kind is Kind.NETWORK] == ["unchanged"]
    other = replace(
        STACK, networks=(network("front", EnableIPv6=True, **pools("10.0.16.0/24", "fd00::/64")),)
    )
    with pytest.raises(InvalidArgument, match="IPAM"):
        plan_stack(other, there(replace(STACK, networks=(given,))), {})


def test_a_spec_that_no_manager_takes_is_refused_at_once():
    stack = replace(STACK, services=(service("web", Nonsense=1),))
    with pytest.raises(InvalidArgument, match="Nonsense is not supported"):
        plan_stack(stack, Present(), {})


def test_undoing_goes_backwards():
    after = replace(STACK, networks=(*STACK.networks, network("back")), services=(service("web", "web:2"),))
    steps = plan_stack(after, there(STACK), {}, prune=True)
    done = [step for step in steps if not is_leftover(step)]
    assert told(done)[0] == "removed service shop_db"
    assert told(undo(done)) == [
        "changed service shop_web",
        "removed network shop_back",
        "created service shop_db",
    ]
    back = undo(done)[0].body
    assert back["TaskTemplate"]["ContainerSpec"]["Image"] == "web:1"
