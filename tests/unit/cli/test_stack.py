"""Stacks against an API with a memory: what is sent, in which order, and how it fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

import pytest

from swarm.api.client import Client
from swarm.base.errors import SwarmError
from swarm.cli import stack_wait
from swarm.cli.stack_deployment import Deployment, DeployOptions, plan_lines
from swarm.cli.stack_removal import Removal
from swarm.cli.stack_wait import StackWatch, said
from swarm.stack.plan import Resolve
from swarm.stack.project import NAMESPACE_LABEL, Stack, StackObject
from tests.fakes.fake_api import serve
from tests.fakes.stack_api import StackApi
from tests.unit.stack.test_plan import STACK, network, secret, service

CREATED = [
    "POST /networks shop_front",
    "POST /secrets shop_key",
    "POST /configs shop_motd",
    "POST /services shop_db",
    "POST /services shop_web",
]


@pytest.fixture
def api() -> StackApi:
    return StackApi(datetime.now(UTC))  # noqa: TID251 - ages are shown relative to the real clock


@pytest.fixture
def host(api, tmp_path, monkeypatch):
    with serve(api, tmp_path / "api.sock") as host:
        monkeypatch.setenv("SWARM_HOST", host)
        yield host


@pytest.fixture
def client(host):
    with Client(host) as client:
        yield client


@pytest.fixture
def deploy(api, client):
    """Deploys a stack and returns what was sent for it."""

    def run(stack: Stack = STACK, **options) -> list[str]:
        api.requests.clear()
        deployment = Deployment(client, stack, DeployOptions(**options))
        deployment.run(deployment.plan())
        return api.sent()

    return run


def other_stack() -> Stack:
    body = service("db").body | {"Name": "other_db", "Labels": {NAMESPACE_LABEL: "other"}}
    return Stack(name="other", services=(replace(service("db"), name="other_db", body=body),))


class FastClock:
    """Each look is twenty seconds after the one before."""

    def __init__(self) -> None:
        self._now = count(step=20)

    def monotonic(self) -> float:
        return float(next(self._now))


class TestDeploy:
    def test_everything_is_made_in_order_and_by_id(self, api, deploy, capsys):
        attached = service("web").body["TaskTemplate"] | {"Networks": [{"Target": "shop_front"}]}
        attached["ContainerSpec"] |= {"Secrets": [{"SecretName": "shop_key", "File": {"Name": "key"}}]}
        stack = replace(STACK, services=(service("db"), service("web", TaskTemplate=attached)))
        assert deploy(stack) == CREATED
        template = api.named("services", "shop_web")["Spec"]["TaskTemplate"]
        assert template["Networks"] == [{"Target": api.named("networks", "shop_front")["Id"]}]
        (reference,) = template["ContainerSpec"]["Secrets"]
        assert reference["SecretID"] == api.named("secrets", "shop_key")["ID"]
        assert capsys.readouterr().out.splitlines()[:2] == [
            "Creating network shop_front",
            "Creating secret shop_key",
        ]

    def test_again_changes_nothing_and_a_change_only_what_it_is(self, api, deploy, capsys):
        deploy()
        capsys.readouterr()
        assert deploy() == []
        assert capsys.readouterr().out == ""
        more = replace(STACK, services=(service("db"), service("web", Mode={"Replicated": {"Replicas": 5}})))
        web = api.named("services", "shop_web")
        assert deploy(more) == [f"POST /services/{web['ID']}/update shop_web"]
        assert web["Spec"]["Mode"] == {"Replicated": {"Replicas": 5}}

    def test_images_are_pinned_once_for_each_name(self, api, deploy):
        deploy()
        asked = [r.path for r in api.requests if r.path.startswith("/distribution/")]
        assert asked == ["/distribution/web:1/json"]
        template = api.named("services", "shop_web")["Spec"]["TaskTemplate"]
        assert template["ContainerSpec"]["Image"] == f"web:1@sha256:{'ab' * 32}"
        assert template["Placement"]["Platforms"] == [{"Architecture": "amd64", "OS": "linux"}]
        assert deploy(resolve=Resolve.CHANGED) == []
        assert not [r for r in api.requests if r.path.startswith("/distribution/")]
        assert deploy(resolve=Resolve.NEVER) == []

    def test_an_image_that_nobody_has_stops_it_before_it_begins(self, api, deploy):
        stack = replace(STACK, services=(service("web", "gone:1"),))
        with pytest.raises(SwarmError, match="give --resolve-image never if other nodes have it"):
            deploy(stack)
        assert api.names() == set()
        deploy(stack, resolve=Resolve.NEVER)

    def test_pruning(self, api, deploy):
        deploy()
        after = Stack(name="shop", networks=(network("back"),), services=(service("api"),))
        ids = {name: api.named(f"{kind}s", f"shop_{name}") for kind, name in
               (("service", "db"), ("service", "web"), ("network", "front"),
                ("secret", "key"), ("config", "motd"))}  # fmt: skip
        assert deploy(after, prune=True) == [
            f"DELETE /services/{ids['db']['ID']}",
            f"DELETE /services/{ids['web']['ID']}",
            "POST /networks shop_back",
            "POST /services shop_api",
            f"DELETE /configs/{ids['motd']['ID']}",
            f"DELETE /secrets/{ids['key']['ID']}",
            f"DELETE /networks/{ids['front']['Id']}",
        ]
        assert api.names() == {"networks shop_back", "services shop_api"}

    def test_a_failure_tells_what_was_done(self, api, deploy):
        api.refuse["POST shop_db"] = "no room"
        with pytest.raises(SwarmError) as caught:
            deploy()
        assert str(caught.value) == (
            "stack shop failed: Error response from daemon: no room; done: network shop_front created, "
            "secret shop_key created, config shop_motd created; not done: service shop_db, service shop_web"
        )

    def test_a_failure_is_undone_if_asked(self, api, deploy):
        deploy()
        before, spec = api.names(), dict(api.named("services", "shop_web")["Spec"])
        after = Stack(
            name="shop",
            networks=(*STACK.networks, network("back")),
            services=(service("web", "web:2"), service("z")),
        )
        api.refuse["POST shop_z"] = "no room"
        with pytest.raises(SwarmError, match=r"stack shop failed and is as it was before: .*no room"):
            deploy(after, prune=True, rollback_on_failure=True)
        assert api.names() == before
        assert api.named("services", "shop_web")["Spec"] == spec
        api.refuse["DELETE " + f"/networks/{api.named('networks', 'shop_front')['Id']}"] = "stuck"
        first = Stack(name="new", networks=(replace(network("n"), name="new_n"),), services=(service("z"),))
        api.refuse["DELETE /networks/new_n"] = "never asked for by name"
        with pytest.raises(SwarmError, match="is as it was before"):
            deploy(first, rollback_on_failure=True)
        assert api.names() == before

    def test_the_plan_as_it_is_shown(self, api, client, deploy):
        deploy()
        after = replace(STACK, services=(service("web", Mode={"Replicated": {"Replicas": 5}}), service("z")))
        steps = Deployment(client, after, DeployOptions(prune=True)).plan()
        assert plan_lines(steps) == [
            "removed    service shop_db",
            "unchanged  network shop_front",
            "unchanged  secret shop_key",
            "unchanged  config shop_motd",
            "changed    service shop_web: Replicas 2 -> 5",
            "created    service shop_z",
        ]

    def test_external_objects_are_neither_made_nor_removed(self, api, client, deploy):
        front = StackObject(key="front", name="front", external=True)
        with pytest.raises(SwarmError, match="network front is declared as external"):
            deploy(replace(STACK, networks=(front,)))
        client.post("/networks/create", {"Name": "front", "Driver": "overlay"})
        assert deploy(replace(STACK, networks=(front,))) == CREATED[1:]
        Removal(client, "shop", 5).run(wait=True)
        assert api.names() == {"networks front"}


class TestWait:
    def test_it_ends_when_all_have_converged(self, deploy, capsys, monkeypatch):
        monkeypatch.setattr(stack_wait, "SystemClock", FastClock)
        deploy(wait=True)
        lines = capsys.readouterr().out.splitlines()
        assert "shop_db: 2 out of 2 tasks" in " ".join(lines) or "shop_db: running, verifying" in lines
        assert lines[-2:] == ["shop_db: converged", "shop_web: converged"]

    def test_it_gives_up_with_the_reason(self, api, deploy):
        api.busy.add("shop_web")
        with pytest.raises(SwarmError, match=r"not as wanted after 0 s: .*shop_web: no suitable node"):
            deploy(wait=True, timeout_s=0)

    def test_a_failed_update_ends_it_at_once(self, api, client, deploy):
        deploy()
        web = api.named("services", "shop_web")
        web["UpdateStatus"] = {"State": "paused", "Message": "task web.1 failed"}
        with pytest.raises(
            SwarmError,
            match=r"^shop_web: service update paused: task web.1 failed \(mend .* --resume shop_web\)$",
        ):
            StackWatch(client, "shop", {web["ID"]: "shop_web"}).wait(60)

    def test_a_service_that_was_removed_meanwhile(self, client):
        with pytest.raises(SwarmError, match="service web was removed meanwhile"):
            StackWatch(client, "shop", {"id": "web"}).wait(1)

    def test_one_line_for_a_service(self):
        from swarm.cli.converge_lines import OVERALL, VERIFY, Line

        overall = Line(id=OVERALL, text="1 out of 2 tasks")
        error = Line(id="2/2", text="no such image", is_error=True)
        assert said([overall, error]) == "1 out of 2 tasks (no such image)"
        assert said([Line(id=VERIFY, text="Waiting 4 seconds to verify ...")]) == "running, verifying"
        assert said([Line(id=VERIFY, text="Detected task failure")]) == "Detected task failure"
        assert said([]) == ""


class TestRemove:
    def test_services_first_and_nothing_of_others(self, api, client, deploy, capsys):
        deploy()
        deploy(other_stack())
        capsys.readouterr()
        Removal(client, "shop", 5).run(wait=True)
        assert capsys.readouterr().out.splitlines() == [
            "Removing service shop_db",
            "Removing service shop_web",
            "Removing secret shop_key",
            "Removing config shop_motd",
            "Removing network shop_front",
        ]
        assert api.names() == {"services other_db"}

    def test_what_is_in_the_way_is_told_and_a_second_run_goes_on(self, api, client, deploy):
        deploy()
        key = api.named("secrets", "shop_key")["ID"]
        api.refuse[f"DELETE /secrets/{key}"] = "secret is in use"
        with pytest.raises(SwarmError, match="removed in part only: secret shop_key: secret is in use"):
            Removal(client, "shop", 5).run(wait=True)
        api.refuse.clear()
        Removal(client, "shop", 5).run(wait=True)
        assert api.names() == set()

    def test_it_gives_up_waiting_for_tasks(self, api, client, deploy, capsys):
        deploy()
        live = api.routes["GET /tasks"](type("R", (), {"query": {}}))
        api.put("GET /tasks", live)
        with pytest.raises(SwarmError, match=r"waiting for tasks to end: .*\.1.*; run the command again"):
            Removal(client, "shop", 0.3).run(wait=True)
        down = {**api.routes["GET /nodes"][0], "Status": {"State": "down"}}
        api.put("GET /nodes", [down])
        Removal(client, "shop", 0.3).run(wait=True)
        assert "Not waited for, on nodes that are down" in capsys.readouterr().err

    def test_nothing_to_remove(self, client, capsys):
        Removal(client, "shop", 5).run(wait=True)
        assert capsys.readouterr().err == "Nothing found in stack: shop\n"
        with pytest.raises(SwarmError, match='invalid stack name: " "'):
            Removal(client, " ", 5)


SAME = [
    ("ls",),
    ("ls", "--format", "json"),
    ("ls", "--format", "{{.Foo}}"),
    ("ls", "--format", "table {{.Services}} {{.Name}}"),
    ("services", "shop"),
    ("services", "-q", "shop"),
    ("services", "--format", "json", "shop"),
    ("services", "nope"),
    ("ps", "shop"),
    ("ps", "-q", "shop"),
    ("ps", "--no-trunc", "shop"),
    ("ps", "--no-resolve", "--format", "json", "shop"),
    ("ps", "nope"),
    ("ps", ""),
    ("rm", "nope"),
]


@pytest.mark.docker_client
@pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker program")
@pytest.mark.parametrize("arguments", SAME, ids=" ".join)
def test_same_bytes_as_docker(arguments, deploy, host):
    deploy()
    deploy(other_stack())

    def run(*program: str) -> tuple[int, str, str]:
        env = os.environ | {"DOCKER_HOST": host, "SWARM_HOST": host}
        command = [*program, "stack", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
        return done.returncode, re.sub(r"\d+ seconds ago *", "N seconds ago", done.stdout), done.stderr

    assert run(sys.executable, "-m", "swarm.cli.main") == run("docker")


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_other_content_is_a_new_version_for_the_services_that_use_it(kind, api, deploy):
    name = "key" if kind == "secret" else "motd"
    uses = replace(service("web"), **{f"{kind}s": (f"shop_{name}",)})
    before = replace(STACK, services=(service("db"), uses))
    deploy(before)
    after = replace(before, **{f"{kind}s": (secret(name, "aG8="),)})
    sent = deploy(after)
    item, web = api.named(f"{kind}s", f"shop_{name}"), api.named("services", "shop_web")
    assert f"POST /{kind}s/{item['ID']}/versions" in sent
    assert sent[-1] == f"POST /services/{web['ID']}/update shop_web"
    assert not [text for text in sent if "shop_db" in text]
    assert api.content(f"{kind}s", f"shop_{name}") == "aG8="
    assert deploy(after) == []
    api.refuse["POST shop_z"] = "no room"
    with pytest.raises(SwarmError, match="is as it was before"):
        deploy(replace(before, services=(uses, service("z"))), rollback_on_failure=True)
    assert api.content(f"{kind}s", f"shop_{name}") == "aG8="


class TestCommands:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "compose.yml"
        path.write_text("name: shop\nservices:\n  web:\n    image: ${IMAGE:-web:1}\n    links: [db]\n")
        return str(path)

    def test_the_name_may_come_from_the_file(self, api, run, file):
        outcome = run("stack", "up", "-c", file)
        assert outcome.out == "Creating network shop_default\nCreating service shop_web\n"
        assert "compose.yml:5:5: " in outcome.err
        assert outcome.err.startswith("WARNING: ")
        assert run("stack", "deploy", "-q", "-c", file, "other").out == ""
        assert {"services shop_web", "services other_web"} < api.names()

    def test_a_dry_run_sends_nothing(self, api, run, file):
        outcome = run("stack", "deploy", "--dry-run", "-c", file)
        assert outcome.out == "created    network shop_default\ncreated    service shop_web\n"
        assert api.sent() == []

    def test_waiting_is_asked_for_as_docker_does(self, run, file, monkeypatch):
        monkeypatch.setattr(stack_wait, "SystemClock", FastClock)
        assert "shop_web: converged" in run("stack", "deploy", "--detach=false", "-c", file).out
        assert "shop_web: converged" in run("stack", "deploy", "--wait", "-c", file).out
        assert "converged" not in run("stack", "deploy", "--detach=true", "-c", file).out
        assert "converged" not in run("stack", "deploy", "-c", file).out
        assert run("stack", "down", "-d=false", "shop").status == 0

    def test_what_makes_no_sense_is_refused(self, api, run, file, tmp_path):
        refused = run("stack", "deploy", "--rollback-on-failure", "-d", "-c", file)
        assert (refused.status, "leave --detach out" in refused.err) == (1, True)
        assert "specify a Compose file (with --compose-file)" in run("stack", "deploy", "shop").err
        assert "no.yml" in run("stack", "deploy", "-c", str(tmp_path / "no.yml"), "shop").err
        assert "invalid argument" in run("stack", "rm", "--timeout", "soon", "shop").err
        assert api.sent() == []

    def test_config_shows_what_the_files_come_to(self, run, file, monkeypatch):
        monkeypatch.setenv("IMAGE", "web:2")
        assert "image: web:2" in run("stack", "config", "-c", file).out
        assert "${IMAGE:-web:1}" in run("stack", "config", "--skip-interpolation", "-c", file).out
