"""The main job on three real hosts, as a user does it: services, ports, limits, logs; and nothing is left."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from swarm.lab.host import environment
from tests.integration.cluster import json_lines, logs, service, short, udp_ask, wait_ended

pytestmark = pytest.mark.root

ALL = ("h1", "h2", "h3")
QUICK_END = ("--stop-grace-period", "1s")
SLEEP = ("sleep", "1000")


def names_at(cluster, host, port, requests=12):
    return {cluster.url_get(host, port) for _ in range(requests)}


@pytest.fixture(scope="module")
def web(cluster):
    """Five replicas on port 8080, created while the user waits."""
    said = cluster.swarm(
        "h1", "service", "create", "--name", "web", "--replicas", "5", "-p", "8080:80", "web"
    )
    id_, *progress = said.splitlines()
    assert re.fullmatch(r"overall progress: [0-5] out of 5 tasks", progress[0])
    assert "overall progress: 5 out of 5 tasks" in progress
    assert progress[-1] == f"verify: Service {id_} converged"
    return id_


# --- the cluster ---------------------------------------------------------------------------------------


def test_three_nodes_are_ready_and_the_first_leads(cluster):
    rows = json_lines(cluster.swarm("h1", "node", "ls", "--format", "json"))
    assert [(r["Hostname"], r["Status"], r["Availability"], r["ManagerStatus"]) for r in rows] == [
        ("h1", "Ready", "Active", "Leader"),
        ("h2", "Ready", "Active", ""),
        ("h3", "Ready", "Active", ""),
    ]


def test_tokens_are_for_workers_and_for_managers(cluster):
    worker, manager = (cluster.swarm("h1", "join-token", "-q", r).strip() for r in ("worker", "manager"))
    assert re.fullmatch(r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}", worker)
    assert worker != manager
    assert worker.split("-")[2] == manager.split("-")[2]
    assert f"swarm join --token {worker} " in cluster.swarm("h1", "join-token", "worker")


# --- a service -----------------------------------------------------------------------------------------


def test_all_five_replicas_answer_on_every_host(cluster, web):
    tasks = cluster.wait_running("web", 5)
    assert set(cluster.hosts_of(tasks)) == set(ALL)
    for host in ALL:
        cluster.wait_until(lambda host=host: names_at(cluster, host, 8080) == short(tasks), host)


def test_all_replicas_answer_at_localhost(cluster, web):
    tasks = cluster.wait_running("web", 5)
    for host in ("h1", "h3"):
        cluster.wait_until(
            lambda host=host: {cluster.local_get(host, 8080) for _ in range(7)} == short(tasks), host
        )


def test_a_host_without_a_replica_answers_too(cluster):
    on_h2 = ("--constraint", "node.hostname==h2")
    with service(cluster, "lonely", *on_h2, "--replicas", "2", "-p", "published=8081,target=80"):
        tasks = cluster.wait_running("lonely", 2)
        assert cluster.hosts_of(tasks) == ["h2", "h2"]
        for host in ALL:
            cluster.wait_until(lambda host=host: names_at(cluster, host, 8081) == short(tasks), host)
        assert cluster.local_get("h3", 8081) in short(tasks)
    cluster.wait_until(lambda: refuses(cluster, "h1", 8081), "the port is closed")


def refuses(cluster, host, port):
    try:
        cluster.url_get(host, port)
    except ConnectionRefusedError:
        return True
    return False


def test_listings_show_the_service(cluster, web):
    (row,) = json_lines(cluster.swarm("h1", "service", "ls", "--format", "json", "-f", "name=web"))
    assert (row["Name"], row["Replicas"], row["Ports"]) == ("web", "5/5", "*:8080->80/tcp")
    assert cluster.swarm("h1", "service", "ls", "-q", "-f", "name=web").strip() == web[:12]
    table = cluster.swarm("h1", "service", "ps", "web").splitlines()
    assert re.split(r"  +", table[0]) == [
        *("ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR", "PORTS")
    ]
    assert sorted(line.split()[1] for line in table[1:]) == [f"web.{n}" for n in range(1, 6)]
    assert all(" Running " in line for line in table[1:])
    states = cluster.swarm("h1", "service", "ps", "--format", "{{.Name}} {{.DesiredState}}", "web")
    assert sorted(states.splitlines()) == [f"web.{n} Running" for n in range(1, 6)]


def test_inspect_shows_the_service(cluster, web):
    (found,) = json.loads(cluster.swarm("h1", "service", "inspect", "web"))
    assert found["ID"] == web
    assert found["Spec"]["Mode"] == {"Replicated": {"Replicas": 5}}
    pretty = cluster.swarm("h1", "service", "inspect", "--pretty", "web")
    assert re.search(r"Replicas:\s+5", pretty)
    assert "PublishedPort = 8080" in pretty
    image = cluster.swarm(
        "h1", "service", "inspect", "-f", "{{.Spec.TaskTemplate.ContainerSpec.Image}}", "web"
    )
    assert image.startswith("web:latest")


def test_logs_of_all_replicas_arrive(cluster, web):
    tasks = cluster.wait_running("web", 5)
    lines = cluster.swarm("h1", "service", "logs", "web").splitlines()
    assert len(lines) == 5
    for line in lines:
        found = re.fullmatch(r"web\.(\d)\.(\w+)@h[123] +\| web: (\w+) listens on 80", line)
        assert found, line
        assert found[2] == found[3]
        assert found[3] in short(tasks)


def test_logs_are_chosen_by_number_and_time_and_followed(cluster):
    script = 'trap "exit 0" TERM; n=0; while true; do n=$((n+1)); echo "line $n"; sleep 0.1 & wait $!; done'
    with service(cluster, "talk", *QUICK_END, command=("sh", "-c", script)):
        cluster.wait_until(lambda: len(logs(cluster, "talk").splitlines()) > 15, "15 lines")
        tail = [int(line.split()[1]) for line in logs(cluster, "talk", "--tail", "3").splitlines()]
        assert len(tail) == 3
        assert tail == list(range(tail[0], tail[0] + 3))
        times = [line.split()[0] for line in logs(cluster, "talk", "-t").splitlines()]
        assert times == sorted(times)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", times[0])
        since = logs(cluster, "talk", "-t", "--since", times[9]).splitlines()
        assert {line.split()[0] for line in since} >= set(times[9:])
        assert since[0].split()[0] >= times[9]
        followed = follow(cluster, "talk", 5)
        assert followed == list(range(followed[0], followed[0] + 5))
        assert followed[0] > tail[0]


def follow(cluster, name, count):
    """The first `count` numbers that `logs -f` shows of what is said from now on."""
    command = cluster.lab.entry(
        "h1", ["swarm", "service", "logs", "--raw", "-f", "--tail", "0", name]
    ).command()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            return [int(process.stdout.readline().split()[1]) for _ in range(count)]
        finally:
            process.kill()


def test_scaling_up_and_down(cluster, web):
    before = cluster.wait_running("web", 5)
    cluster.swarm("h1", "service", "scale", "-d", "web=8")
    more = cluster.wait_running("web", 8)
    assert short(before) < short(more)
    cluster.wait_until(lambda: names_at(cluster, "h2", 8080, 16) == short(more), "the new ones answer")
    cluster.swarm("h1", "service", "scale", "-d", "web=0")
    cluster.wait_running("web", 0)
    cluster.wait_until(lambda: refuses(cluster, "h1", 8080), "nobody answers")
    cluster.swarm("h1", "service", "scale", "-d", "web=5")
    cluster.wait_running("web", 5)


def test_a_global_service_runs_once_on_each_node(cluster):
    with service(cluster, "everywhere", "--mode", "global", *QUICK_END, command=SLEEP):
        tasks = cluster.wait_running("everywhere", 3)
        assert cluster.hosts_of(tasks) == list(ALL)
        (row,) = json_lines(cluster.swarm("h1", "service", "ls", "--format", "json", "-f", "name=everywhere"))
        assert (row["Mode"], row["Replicas"]) == ("global", "3/3")


# --- ports ---------------------------------------------------------------------------------------------


def test_a_port_in_host_mode_is_open_where_the_task_is_only(cluster):
    port = "mode=host,published=8082,target=80"
    with service(cluster, "near", "--constraint", "node.hostname==h2", "-p", port):
        tasks = cluster.wait_running("near", 1)
        cluster.wait_until(lambda: names_at(cluster, "h2", 8082, 2) == short(tasks), "it answers")
        assert cluster.local_get("h2", 8082) in short(tasks)
        assert refuses(cluster, "h1", 8082)
        assert ":8082->80/tcp" in cluster.swarm("h1", "service", "ps", "near")


def test_an_udp_port_reaches_all_replicas(cluster):
    """The server is the machine's perl: Debian's busybox has none for UDP."""
    code = (
        "use IO::Socket::INET; $s = IO::Socket::INET->new(LocalPort => 53, Proto => 'udp') or die $!;"
        "while (defined $s->recv($m, 1500)) { $s->send(substr($ENV{HOSTNAME}, 0, 12) . ' ' . $m) }"
    )
    mounts = [
        f"type=bind,source={os.path.realpath(d)},target={d},readonly" for d in ("/usr", "/lib", "/lib64")
    ]
    options = [word for mount in mounts for word in ("--mount", mount)]
    options += [*QUICK_END, "--replicas", "2", "-p", "8053:53/udp"]
    with service(cluster, "dns", *options, command=("/usr/bin/perl", "-e", code)):
        tasks = cluster.wait_running("dns", 2)

        def answers(host):
            return {udp_ask(cluster.lab.address(host), 8053, "ping") for _ in range(4)}

        expected = {f"{name} ping" for name in short(tasks)}
        for name in ALL:
            cluster.wait_until(lambda name=name: answers(name) == expected, f"both answer on {name}")


def test_tasks_reach_the_network_outside(cluster):
    """By the gateway bridge, masqueraded: the server sees the host's address."""
    clients = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            clients.append(self.client_address[0])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"outside\n")

        def log_message(self, *_):
            pass

    gateway = cluster.lab.address("h1").rpartition(".")[0] + ".1"
    with ThreadingHTTPServer((gateway, 0), Handler) as server:
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.05))
        thread.start()
        try:
            url = f"http://{gateway}:{server.server_port}/"
            options = ("--constraint", "node.hostname==h3", "--restart-condition", "none")
            with service(cluster, "fetch", *options, command=("wget", "-q", "-O", "-", url)):
                wait_ended(cluster, "fetch", "complete")
                assert logs(cluster, "fetch") == "outside\n"
        finally:
            server.shutdown()
            thread.join()
    assert clients == [cluster.lab.address("h3")]


# --- bad input --------------------------------------------------------------------------------------


BAD_INPUT = {
    "a name that is taken": (("service", "create", "--name", "web", "web"), "service web already exists"),
    "a port that is taken": (("service", "create", "-p", "8080:80", "web"), "port '8080' is already in use"),
    "a port of the cluster": (("service", "create", "-p", "2377:80", "web"), "2377"),
    "an image's malformed name": (("service", "create", "a:b:c"), "not a valid repository/tag"),
    "too little memory": (("service", "create", "--limit-memory", "1m", "web"), "Must be at least 4MiB"),
    "memory that is no number": (("service", "create", "--limit-memory", "lots", "web"), "lots"),
    "replicas that are no number": (("service", "create", "--replicas", "-1", "web"), "-1"),
    "a port that is no number": (("service", "create", "-p", "http:80", "web"), "http"),
    "a mount without a target": (("service", "create", "--mount", "type=volume", "web"), "target"),
    "a constraint without operator": (("service", "create", "--constraint", "x", "web"), "==, !="),
    "replicas of a global service": (
        ("service", "create", "--mode", "global", "--replicas", "2", "web"),
        "mode",
    ),
    "an option that there is not": (("service", "create", "--no-such-option", "web"), "--no-such-option"),
    "no image": (("service", "create"), "IMAGE"),
    "no such service": (("service", "scale", "-d", "none=2"), "none"),
    "no such service to remove": (("service", "rm", "none"), "none"),
    "no such node": (("node", "inspect", "h9", "--format", "{{.ID}}"), "h9"),
    "a member founds": (("init",), "already part of a swarm"),
    "a manager leaves": (("leave",), "--force"),
    "an archive that is not there": (("image", "load", "-i", "/none.tar"), "/none.tar"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused_in_one_line_and_changes_nothing(cluster, web, case):
    command, expected = BAD_INPUT[case]
    before = cluster.objects()
    assert expected in cluster.refused("h1", *command)
    assert cluster.objects() == before


def test_a_worker_says_that_it_is_no_manager(cluster):
    assert "is not a swarm manager" in cluster.refused("h2", "service", "ls")


# --- the end -------------------------------------------------------------------------------------------


def test_removed_services_leave_nothing_on_the_hosts(cluster, web):
    assert cluster.traces("h1"), "five replicas leave traces while they run"
    names = cluster.swarm("h1", "service", "ls", "--format", "{{.Name}}").split()
    cluster.swarm("h1", "service", "rm", *names)
    cluster.wait_until(lambda: cluster.get("/tasks") == [], "no task is known")
    cluster.wait_clean()


def test_leaving_leaves_nothing(cluster):
    cluster.create("stays", "--mode", "global", "-p", "8090:80")
    cluster.wait_running("stays", 3)
    cluster.swarm("h3", "leave")
    cluster.wait_clean("h3", of_member=True)
    cluster.wait_until(lambda: cluster.node_states()["h3"] == "down", "h3 is down", 10.0)
    cluster.wait_until(lambda: cluster.url_get("h1", 8090), "the others answer")
    cluster.swarm("h1", "node", "rm", "h3")
    assert set(cluster.node_states()) == {"h1", "h2"}
    cluster.swarm("h1", "leave", "--force")
    cluster.wait_clean("h1", of_member=True)
    assert "not part of a swarm" in cluster.refused("h1", "node", "ls").replace(
        "a swarm manager", "part of a swarm"
    )


# --- joining badly -------------------------------------------------------------------------------------


def test_bad_joins_are_refused_and_leave_the_node_out(cluster):
    """h1 and h3 have left: h1 founds another cluster, h3 is nowhere."""
    address = f"{cluster.lab.address('h1')}:2377"
    cluster.swarm("h1", "init")
    token = cluster.swarm("h1", "join-token", "-q", "worker").strip()
    digest, secret = token.split("-")[2:]
    other = f"SWMTKN-1-{digest[::-1]}-{secret}"
    wrong = f"SWMTKN-1-{digest}-{secret[::-1]}"
    assert "token" in cluster.refused("h3", "join", "--token", "nonsense", address)
    assert cluster.refused("h3", "join", "--token", other, address)
    assert "token" in cluster.refused("h3", "join", "--token", wrong, address)
    nobody = f"{cluster.lab.address('h3')}:2399"
    assert nobody in cluster.refused("h3", "join", "--token", token, nobody)
    assert cluster.get("/info", "h3")["Swarm"]["LocalNodeState"] == "inactive"
    assert list(cluster.node_states()) == ["h1"]
    cluster.swarm("h3", "join", "--token", token, address)
    cluster.wait_until(lambda: cluster.node_states() == {"h1": "ready", "h3": "ready"}, "h3 is ready")


def test_no_daemon_is_said(cluster):
    said = cluster.refused("h2", "-H", "unix:///run/none.sock", "service", "ls")
    assert "Is swarmd running?" in said
