"""Commands against the fake API: what is printed, what is sent, how it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swarm.cli.main import main
from tests.fakes.cluster_objects import NODES, SELF, WEB
from tests.fakes.fake_api import FakeApi, Raw, Request
from tests.unit.cli.conftest import Run


def test_init_prints_the_join_command(run: Run, api: FakeApi) -> None:
    outcome = run("init", "--advertise-addr", "10.7.0.1", "--default-addr-pool", "10.20.0.0/16")
    assert outcome.out == (
        f"Swarm initialized: current node ({SELF}) is now a manager.\n\n"
        "To add a worker to this swarm, run the following command:\n\n"
        "    swarm join --token SWMTKN-1-w-w 10.7.0.1:2377\n\n"
        "To add a manager to this swarm, run 'swarm join-token manager' and follow the instructions.\n"
    )
    body = api.requests[0].body
    assert body["AdvertiseAddr"] == "10.7.0.1"
    assert body["DefaultAddrPool"] == ["10.20.0.0/16"]
    assert body["SubnetSize"] == 24


def test_join_needs_a_token_and_says_what_the_node_became(run: Run, api: FakeApi) -> None:
    assert "--token is required" in run("join", "10.7.0.1:2377").err
    assert api.requests == []
    assert run("join", "--token", "T", "10.7.0.1:2377").out == "This node joined a swarm as a manager.\n"
    assert api.requests[0].body["RemoteAddrs"] == ["10.7.0.1:2377"]


def test_join_token_rotates_with_the_version_it_read(run: Run, api: FakeApi) -> None:
    assert run("join-token", "-q", "worker").out == "SWMTKN-1-w-w\n"
    outcome = run("join-token", "--rotate", "manager")
    assert outcome.out.startswith("Successfully rotated manager join token.\n\nTo add a manager")
    update = next(r for r in api.requests if r.path == "/swarm/update")
    assert update.query == {"version": "9", "rotateManagerToken": "1"}
    assert run("join-token", "boss").status == 1


def test_node_update_changes_only_what_was_asked(run: Run, api: FakeApi) -> None:
    outcome = run(
        "node", "update", "--availability", "drain", "--label-add", "a=b", "--label-rm", "zone", "h1"
    )
    assert outcome.out == "h1\n"
    assert api.requests[-1].body == {"Labels": {"a": "b"}, "Role": "manager", "Availability": "drain"}
    assert api.requests[-1].query == {"version": "11"}
    assert "doesn't exist" in run("node", "update", "--label-rm", "no", "h1").err


def test_several_names_each_get_their_turn(run: Run) -> None:
    outcome = run("service", "rm", "nope", "web")
    assert (outcome.status, outcome.out, outcome.err) == (1, "web\n", "no such service: nope\n")
    outcome = run("node", "rm", "h3", "h2")
    assert (outcome.status, outcome.out) == (1, "h2\n")
    assert outcome.err.startswith("Error response from daemon: rpc error: code = FailedPrecondition")


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("service", "scale", "-d", "web=4"), f"/services/{WEB}"),
        (("service", "update", "-d", "--limit-pids", "9", "web"), f"/services/{WEB}"),
        (("service", "rollback", "-d", "web"), f"/services/{WEB}"),
        (("node", "update", "--availability", "drain", "h2"), f"/nodes/{NODES[1]}"),
        (("node", "promote", "h2"), f"/nodes/{NODES[1]}"),
        (("update", "--cert-expiry", "2h"), "/swarm"),
        (("join-token", "--rotate", "-q", "worker"), "/swarm"),
    ],
)
def test_an_update_is_sent_again_while_only_managers_have_written(
    run: Run, api: FakeApi, words: tuple[str, ...], path: str
) -> None:
    refusals = iter([(500, {"message": "rpc error: code = Unknown desc = update out of sequence"})] * 2)
    api.put(f"POST {path}/update", lambda _: next(refusals, (200, {"Warnings": None})))
    assert run(*words).status == 0
    assert len([r for r in api.requests if r.path == f"{path}/update"]) == 3


def test_an_update_is_not_sent_on_top_of_somebody_elses(run: Run, api: FakeApi) -> None:
    def changed(_: Request) -> tuple[int, dict[str, str]]:
        api.put(f"GET /services/{WEB}", found | {"Spec": found["Spec"] | {"Labels": {"new": "1"}}})
        return 500, {"message": "rpc error: code = Unknown desc = update out of sequence"}

    found = api.answer(Request(method="GET", path=f"/services/{WEB}", query={}, body=None))[1]
    api.put(f"POST /services/{WEB}/update", changed)
    assert run("service", "scale", "-d", "web=4").err.endswith("update out of sequence\n")
    assert len([r for r in api.requests if r.path == f"/services/{WEB}/update"]) == 1


def test_all_managers_cannot_be_demoted_at_once(run: Run, api: FakeApi) -> None:
    managers = [n["Description"]["Hostname"] for n in _nodes(api) if n["Spec"]["Role"] == "manager"]
    outcome = run("node", "demote", "nope", *managers)
    assert outcome.err == "attempting to demote the last manager of the swarm: leave one of them out\n"
    assert not [r for r in api.requests if r.method == "POST"]


def _nodes(api: FakeApi) -> list[dict[str, Any]]:
    return api.answer(Request(method="GET", path="/nodes", query={}, body=None))[1]


def test_scale_posts_the_whole_spec_with_its_version(run: Run, api: FakeApi) -> None:
    assert run("service", "scale", "-d", "web=4").out == "web scaled to 4\n"
    update = api.requests[-1]
    assert update.path == f"/services/{WEB}/update"
    assert update.query == {"version": "40"}
    assert update.body["Mode"] == {"Replicated": {"Replicas": 4}}
    assert update.body["Labels"] == {"tier": "front"}
    assert run("service", "scale", "web=x").err == (
        'web: invalid replicas value x: strconv.ParseUint: parsing "x": invalid syntax\n'
    )
    assert run("service", "scale", "-d", "agent=2").err.startswith(
        "agent: scale can only be used with replicated"
    )


def test_a_switch_may_have_a_value_as_in_go(run: Run, api: FakeApi) -> None:
    assert run("service", "scale", "--detach=true", "web=4").out == "web scaled to 4\n"
    assert run("service", "ls", "--quiet=false").out.startswith("ID ")
    assert run("node", "ls", "--quiet=false").out.startswith("ID ")


def test_autolock_needs_no_value(run: Run, api: FakeApi) -> None:
    for words, wanted in (
        (["--autolock"], True),
        (["--autolock=false"], False),
        (["--autolock", "0"], False),
    ):
        run("update", *words)
        update = next(r for r in reversed(api.requests) if r.path == "/swarm/update")
        assert update.body["EncryptionConfig"]["AutoLockManagers"] is wanted


@pytest.mark.parametrize(
    "config", ["nonsense", "[]", '{"auths": {"r:5000": {"auth": "/w=="}}}', '{"auths": [1]}']
)
def test_logins_that_cannot_be_read_are_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    (tmp_path / "config.json").write_text(config)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    outcome = run("service", "create", "--with-registry-auth", "r:5000/web")
    assert outcome.status == 1
    assert outcome.err.startswith(f"cannot read the registry logins in {tmp_path}/config.json: ")
    assert outcome.err.count("\n") == 1


def test_filters_are_sent_by_name(run: Run, api: FakeApi) -> None:
    run("service", "ls", "-f", "name=web", "-f", "label=a=b", "-f", "name=api")
    assert json.loads(api.requests[-1].query["filters"]) == {"name": ["web", "api"], "label": ["a=b"]}
    assert "bad format of filter" in run("service", "ls", "-f", "web").err


def test_logs_name_the_task_of_each_line(run: Run, api: FakeApi) -> None:
    outcome = run("service", "logs", "--tail", "5", "web")
    assert outcome.out == "web.1.aaaaaaaaaaaa@h2    | hello\nweb.1.aaaaaaaaaaaa@h2    | \n"
    assert outcome.err == "web.2.aaaaaaaaaaaa@h3    | oops\n"
    request = next(r for r in api.requests if r.path.endswith("/logs"))
    assert request.query == {"details": "1", "stdout": "1", "stderr": "1", "tail": "5"}
    unresolved = run("service", "logs", "--no-resolve", "--no-task-ids", "web")
    assert unresolved.out.startswith(f"{WEB}.1@{NODES[1]}    | hello\n")
    assert run("service", "logs", "nope").err == "no such task or service: nope\n"
    assert "--tail" in run("service", "logs", "--tail", "x", "web").err


def test_a_cut_log_stream_is_an_error(run: Run, api: FakeApi) -> None:
    api.put("GET /services/[^/]+/logs", Raw([b"\x01\0\0\0\0\0\0\x09abc"]))
    outcome = run("service", "logs", "--raw", "web")
    assert (outcome.status, outcome.err) == (1, "the log stream ended in the middle of a record\n")


def test_load_sends_the_archive(run: Run, api: FakeApi, tmp_path: Path) -> None:
    archive = tmp_path / "web.tar"
    archive.write_bytes(b"x" * 200_000)
    assert run("image", "load", "-i", str(archive)).out == "Loaded image: web:demo\n"
    assert api.requests[-1].body == b"x" * 200_000
    missing = run("image", "load", "-i", str(tmp_path / "no"))
    assert (missing.status, missing.err) == (1, f"{tmp_path}/no: No such file or directory\n")


def test_an_error_inside_a_progress_stream_fails_the_command(run: Run, api: FakeApi) -> None:
    api.put("POST /images/create", Raw([b'{"status":"Pulling"}\r\n{"error":"nope"}\r\n']))
    outcome = run("image", "pull", "nginx")
    assert outcome.status == 1
    assert outcome.out == "Using default tag: latest\nPulling\n"
    assert outcome.err == "Error response from daemon: nope\n"


def test_inspect_prints_what_is_there_and_reports_the_rest(run: Run) -> None:
    outcome = run("service", "inspect", "web", "nope")
    assert outcome.status == 1
    assert [item["ID"] for item in json.loads(outcome.out)] == [WEB]
    assert outcome.err == "no such service: nope\n"
    assert run("service", "inspect", "--format", "{{.Spec.Name}}:{{.Version.Index}}", "web").out == "web:40\n"
    assert run("service", "inspect", "--format", "{{range .UpdateStatus}}{{end}}", "web").status == 0
    assert "incompatible" in run("service", "inspect", "--pretty", "--format", "x", "web").err


def test_a_refusal_keeps_the_daemons_words(run: Run) -> None:
    outcome = run("service", "create", "--name", "web", "img")
    assert outcome.status == 1
    assert outcome.out == ""
    assert outcome.err.endswith("name conflicts with an existing object: service web already exists\n")


@pytest.mark.parametrize("arguments", [("service", "ls"), ("join", "--token", "T", "h:1"), ("info",)])
def test_without_a_daemon_it_says_how_to_start_one(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-H", f"unix://{tmp_path}/none.sock", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        f"Cannot connect to the swarm daemon at unix://{tmp_path}/none.sock. Is swarmd running?"
    )
    assert "systemctl start swarmd" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("service", "frob"), "No such command 'frob' (see 'swarm service --help')\n"),
        (("nodes", "ls"), "No such command 'nodes'. Did you mean 'node'? (see 'swarm --help')\n"),
        (("service", "ls", "--quiet=x"), 'invalid argument "x" for "--quiet" flag: expected true or false'),
        (("init", "--default-addr-pool-mask-length", "28"), "goes with --default-addr-pool\n"),
        (("init", "--external-ca", "protocol=cfssl"), "--external-ca is not supported: the managers issue"),
        (("update", "--max-snapshots", "3"), "--max-snapshots is of Docker's own store: etcd"),
        (("service", "create"), "Missing argument 'IMAGE' (see 'swarm service create --help')\n"),
        (("node", "update", "--availability", "x", "h1"), "'x' is not one of 'active', 'pause', 'drain'"),
        (("-H", "tcp://h:1", "node", "ls"), "only unix:///path/to/swarm.sock is supported"),
    ],
)
def test_a_wrong_command_line_is_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    outcome = run(*arguments)
    assert outcome.status != 0
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_bytes_that_are_no_text_are_one_line(run: Run) -> None:
    outcome = run("service", "inspect", "\udcff")
    assert (outcome.status, outcome.err) == (1, "an argument or a variable is not UTF-8 text\n")


def test_every_command_has_help(run: Run) -> None:
    assert "service" in run("--help").out
    for group in ("node", "service", "image", "container", "network", "task"):
        listed = run(group, "--help").out
        for line in listed[listed.index("Commands:") :].splitlines()[1:]:
            name = line.split()[0]
            assert run(group, name, "--help").out.startswith(f"Usage: swarm {group} {name} ")


def test_version_needs_no_daemon(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("swarm version ")
