"""Clients that ask random managers for random changes, all at the same time, and write down what they hear.

In: a cluster, a seed. Out: a history. Every key is a service; its value is a label that no other write
gives, so that a read says which write it saw. Some keys run containers too.
Invariant: an answer is recorded as a refusal only if the manager says what was wrong with the request; every
other trouble leaves open whether it happened.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from swarm.api.client import ApiError, Client
from swarm.base.errors import SwarmError
from tests.chaos.history import Outcome, Recorder
from tests.chaos.invariants import Auditor
from tests.integration.cluster import Cluster

ANSWER_WITHIN_S = 6.0
OPERATIONS_PER_KEY = 40
"""Then clients go on to the next key: a verdict takes time that grows with the unanswered ones."""
KEYS_AT_ONCE = 2
_REFUSALS = {
    "conflicts with an existing object": "exists",
    "update out of sequence": "version",
    "not found": "absent",
}


class Keys:
    """Which names are in use now; shared by all clients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def next(self, chance: random.Random) -> tuple[str, bool]:
        """A name, and whether the service of that name runs containers."""
        with self._lock:
            self._count += 1
            generation = self._count // (OPERATIONS_PER_KEY * KEYS_AT_ONCE)
        runs = chance.randrange(KEYS_AT_ONCE) == 0
        return f"{'runs' if runs else 'label'}{generation}", runs


class ChaosClient:
    """One client. Its choices depend on its seed only; what comes of them depends on the cluster too."""

    def __init__(self, cluster: Cluster, recorder: Recorder, keys: Keys, seed: str) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self._keys = keys
        self._chance = random.Random(seed)
        self._name = seed.replace(":", "-")
        self._count = 0
        self._versions: dict[str, dict[str, object]] = {}

    def step(self) -> None:
        """One operation against one manager."""
        host = self._chance.choice(self._cluster.hosts)
        action = self._chance.choices(("read", "write", "create", "remove"), (5, 5, 3, 1))[0]
        key, runs = self._keys.next(self._chance)
        replicas = self._chance.randrange(3) if runs else 0
        self._count += 1
        value = f"{self._name}-{self._count}"
        try:
            with Client(f"unix://{self._cluster.lab.socket_path(host)}", timeout_s=ANSWER_WITHIN_S) as client:
                match action:
                    case "read":
                        self.read(client, key)
                    case "write" if key in self._versions:
                        self._write(client, key, value, replicas)
                    case "create" | "write":
                        self._create(client, key, value, replicas)
                    case "remove":
                        self._remove(client, key)
        except SwarmError:
            return  # the host is off: nothing was asked

    def read(self, client: Client, key: str) -> None:
        number = self._recorder.invoke("read", key)
        try:
            found = client.get(f"/services/{key}")
        except ApiError as error:
            absent = error.status == 404
            self._recorder.end(number, Outcome.OK if absent else Outcome.FAIL, value=None)
        except SwarmError:
            self._recorder.end(number, Outcome.FAIL)
        else:
            self._versions[key] = found
            version = found["Version"]["Index"]
            self._recorder.end(number, Outcome.OK, value=found["Spec"]["Labels"]["v"], version=version)

    def _create(self, client: Client, key: str, value: str, replicas: int) -> None:
        container = {"Image": "web", "Command": ["sleep", "1000"], "StopGracePeriod": 100_000_000}
        spec = {
            "Name": key,
            "Labels": {"v": value},
            "TaskTemplate": {"ContainerSpec": container},
            "Mode": {"Replicated": {"Replicas": replicas}},
        }
        number = self._recorder.invoke("create", key, value=value)
        self._end(number, lambda: client.post("/services/create", spec))

    def _write(self, client: Client, key: str, value: str, replicas: int) -> None:
        known = self._versions[key]
        version = known["Version"]["Index"]  # type: ignore[index]
        spec = {**known["Spec"], "Labels": {"v": value}}  # type: ignore[dict-item]
        if key.startswith("runs"):
            spec["Mode"] = {"Replicated": {"Replicas": replicas}}
        number = self._recorder.invoke("write", key, value=value, version=version)
        self._end(number, lambda: client.post(f"/services/{known['ID']}/update", spec, version=version))

    def _remove(self, client: Client, key: str) -> None:
        number = self._recorder.invoke("remove", key)
        self._end(number, lambda: client.delete(f"/services/{key}"))

    def _end(self, number: int, ask: Callable[[], object]) -> None:
        try:
            ask()
        except ApiError as error:
            reason = next((word for text, word in _REFUSALS.items() if text in error.message), "")
            self._recorder.end(
                number, Outcome.FAIL if reason else Outcome.INFO, reason=reason or error.message
            )
        except SwarmError as error:
            self._recorder.end(number, Outcome.INFO, reason=str(error))
        else:
            self._recorder.end(number, Outcome.OK)


@contextmanager
def working(clients: list[ChaosClient], pause_s: float) -> Iterator[None]:
    """The clients work, each on a thread, until the block ends."""
    ended = threading.Event()
    problems: list[BaseException] = []

    def work(client: ChaosClient) -> None:
        try:
            while not ended.wait(pause_s):
                client.step()
        except BaseException as error:
            problems.append(error)
            raise

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not problems, problems


@contextmanager
def audited(cluster: Cluster, chance: random.Random, broken: list[str], every_s: float) -> Iterator[None]:
    """While the block runs, tasks are looked at through one manager after the other; `broken` collects."""
    ended = threading.Event()
    auditor = Auditor()

    def look() -> None:
        while not ended.wait(every_s):
            host = chance.choice(cluster.hosts)
            try:
                with Client(f"unix://{cluster.lab.socket_path(host)}", timeout_s=ANSWER_WITHIN_S) as client:
                    broken.extend(auditor.look(client.get("/tasks")))
            except SwarmError:
                continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
