"""`make demo`: the main job on three lab hosts, with every command and its real output.

In: nothing but root and the machine's programs. Out: a transcript, and exit status 0 if every step did what
it says. Invariant: the lab is down at the end, whatever happened; a step whose expectation fails is named.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from swarm.base.clock import SystemClock
from swarm.base.errors import SwarmError
from swarm.lab import demo_image, programs
from swarm.lab.host import environment, log_tail
from swarm.lab.lab import Lab
from swarm.lab.traces import find_traces

HOSTS = ("h1", "h2", "h3")
PORT = 8080
COMMAND_LIMIT_S = 60.0
CONNECT_LIMIT_S = 5.0
ANSWER_LIMIT_S = 3.0
DOWN_LIMIT_S = 6.0
"""5 s until the node is Down, and what asking takes."""
ELSEWHERE_LIMIT_S = 10.0
REQUESTS_PER_HOST = 20

_clock = SystemClock()


class Unexpected(Exception):
    """A step did not do what it says."""


class CutOff(Unexpected):
    """A connection was accepted, but no answer came."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Show the main job on three lab hosts.")
    parser.add_argument("--name", default="demo", help="name of the lab (default: %(default)s)")
    name = parser.parse_args().name
    signal.signal(signal.SIGTERM, _stop)
    began = _clock.monotonic()
    try:
        programs.require_machine()
        with Lab(name) as lab, tempfile.TemporaryDirectory(prefix="swarm-demo-") as folder:
            if lab.down():
                _note(f"a lab {name} was there from before: removed")
            _perform(lab, Path(folder) / "web.tar")
    except KeyboardInterrupt:
        print("\ndemo: interrupted; nothing is left", file=sys.stderr)
        return 130
    except (Unexpected, SwarmError, subprocess.SubprocessError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    _note(f"all of it as expected, in {_clock.monotonic() - began:.0f} s")
    return 0


def _perform(lab: Lab, archive: Path) -> None:
    try:
        Demo(lab, archive).run()
    except (Unexpected, SwarmError):
        for host in HOSTS:
            print(f"swarmd of {host}:\n{log_tail(lab.name, host)}", file=sys.stderr)
        raise


def _stop(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


class Demo:
    def __init__(self, lab: Lab, archive: Path) -> None:
        self._lab = lab
        self._archive = archive

    def run(self) -> None:
        _note(f"HOST$ COMMAND stands for: swarm lab exec --name {self._lab.name} HOST -- COMMAND")
        self._make_cluster()
        self._load_image()
        self._create_service()
        self._ask_every_host()
        self._scale()
        self._cut_power()
        self._remove()

    def _make_cluster(self) -> None:
        _title("Three hosts, one cluster")
        _run("swarm", "lab", "up", "--name", self._lab.name, "--hosts", "3")
        first = self._lab.address("h1")
        said = self._on("h1", "swarm", "init", "--advertise-addr", first)
        command = next((line.split() for line in said.splitlines() if "swarm join --token" in line), None)
        _expect(command is not None, "swarm init prints no join command")
        assert command is not None
        for host in ("h2", "h3"):
            self._on(host, *command)
        nodes = self._on("h1", "swarm", "node", "ls")
        _expect(
            nodes.count(" Ready ") == 3 and nodes.count("Leader") == 1, "not three Ready nodes, one Leader"
        )

    def _load_image(self) -> None:
        _title("An image, built from this machine's busybox: it answers with its container's name")
        demo_image.build("web", self._archive)
        for host in HOSTS:
            self._on(host, "swarm", "image", "load", "-i", str(self._archive))

    def _create_service(self) -> None:
        _title("Five replicas, one port")
        create = ("swarm", "service", "create", "--name", "web", "--replicas", "5", "-p", f"{PORT}:80", "web")
        _expect("converged" in self._on("h1", *create), "the service did not converge")
        _expect("5/5" in self._on("h1", "swarm", "service", "ls"), "not 5/5 replicas")
        self._on("h1", "swarm", "service", "ps", "web")
        self._on("h1", "swarm", "service", "inspect", "--pretty", "web")
        logs = self._on("h1", "swarm", "service", "logs", "web")
        _expect(logs.count("listens on 80") == 5, "not five replicas in the logs")

    def _ask_every_host(self) -> None:
        _title("Every replica answers on every host")
        self._show_answers(5)
        _title("Also on a host that has no replica: h3 is drained")
        self._on("h1", "swarm", "node", "update", "--availability", "drain", "h3")
        _until(lambda: self._running_on("h3") == (0, 5), ELSEWHERE_LIMIT_S, "h3's tasks did not move")
        self._on("h1", "swarm", "service", "ps", "--filter", "desired-state=running", "web")
        self._show_answers(5, "h3")
        self._on("h1", "swarm", "node", "update", "--availability", "active", "h3")

    def _show_answers(self, replicas: int, *hosts: str) -> None:
        for host in hosts or HOSTS:
            url = self._url(host)
            _command(f"curl {url}", f"# {REQUESTS_PER_HOST} times, answers counted")
            answers = Counter(_get(url) for _ in range(REQUESTS_PER_HOST))
            print("  ".join(f"{count} x {name}" for name, count in sorted(answers.items())))
            _expect(len(answers) == replicas, f"{len(answers)} replicas answered on {host}, not {replicas}")

    def _scale(self) -> None:
        _title("Ten replicas")
        _expect("converged" in self._on("h1", "swarm", "service", "scale", "web=10"), "it did not converge")
        self._on("h1", "swarm", "service", "ps", "--filter", "desired-state=running", "web")
        _expect(self._running_on("h3")[0] > 0, "no replica runs on h3")

    def _cut_power(self) -> None:
        _title("A power cut on h3, while every replica is asked through h1 and h2")
        with asking([self._url("h1"), self._url("h2")]) as asked:
            lost = self._running_on("h3")[0]
            _run("swarm", "lab", "kill", "--name", self._lab.name, "h3")
            began = _clock.monotonic()
            _until(lambda: self._status_of("h3") == "Down", DOWN_LIMIT_S, "h3 is not Down")
            _note(f"h3 is Down after {_clock.monotonic() - began:.1f} s")
            _until(lambda: self._running_on("h3") == (0, 10), ELSEWHERE_LIMIT_S, "its tasks do not run again")
            _note(f"its {lost} tasks run elsewhere after {_clock.monotonic() - began:.1f} s")
        self._on("h1", "swarm", "node", "ls")
        self._on("h1", "swarm", "service", "ps", "--filter", "desired-state=running", "web")
        _note(f"meanwhile {asked.failed} failed of {asked.made} requests, slowest {asked.slowest_s:.2f} s")
        if asked.cut_off:
            _note(f"{len(asked.cut_off)} of them were under way on h3 and had to be asked again")
        for error in asked.errors[:5]:
            _note(error)
        _expect(
            len(asked.cut_off) <= 2, f"{len(asked.cut_off)} requests were cut off, more than were under way"
        )
        _expect(asked.made > 0 and asked.failed == 0, f"{asked.failed} of {asked.made} requests failed")

    def _remove(self) -> None:
        _title("And nothing is left")
        self._on("h1", "swarm", "service", "rm", "web")
        before = find_traces(self._lab.name)
        _note(f"before: {before}")
        _run("swarm", "lab", "down", "--name", self._lab.name)
        after = find_traces(self._lab.name, before.namespaces)
        _note(f"after:  {after}")
        _expect(not after, f"something of the lab is left: {after}")

    def _on(self, host: str, *argv: str) -> str:
        _command(" ".join(argv), at=f"{host}$ ")
        return _shown(("swarm", "lab", "exec", "--name", self._lab.name, host, "--", *argv))

    def _url(self, host: str) -> str:
        return f"http://{self._lab.address(host)}:{PORT}/"

    def _running_on(self, host: str) -> tuple[int, int]:
        """How many replicas run on `host`, and how many in all."""
        asked = ("swarm", "service", "ps", "--filter", "desired-state=running", "--format", "json", "web")
        rows = [json.loads(line) for line in self._lab.exec("h1", asked).stdout.splitlines()]
        running = [row["Node"] for row in rows if row["CurrentState"].startswith("Running")]
        return running.count(host), len(running)

    def _status_of(self, host: str) -> str:
        asked = ("swarm", "node", "ls", "--format", "{{.Hostname}} {{.Status}}")
        rows = dict(line.split() for line in self._lab.exec("h1", asked).stdout.splitlines())
        return rows.get(host, "")


# --- asking in the background --------------------------------------------------------------------------


class Asked:
    """What came of the requests so far; several threads append."""

    def __init__(self) -> None:
        self.took_s: list[float] = []
        self.errors: list[str] = []
        self.cut_off: list[str] = []
        """Accepted by a task that then fell silent: asked a second time, as any client would."""

    @property
    def failed(self) -> int:
        return len(self.errors)

    @property
    def made(self) -> int:
        return len(self.took_s) + len(self.errors)

    @property
    def slowest_s(self) -> float:
        return max(self.took_s, default=0.0)


@contextmanager
def asking(urls: Sequence[str], every_s: float = 0.02) -> Iterator[Asked]:
    """Ask each URL again and again, a new connection each time, until the block ends."""
    asked, stop = Asked(), threading.Event()

    def ask(url: str) -> None:
        while not stop.wait(every_s):
            began = _clock.monotonic()
            try:
                try:
                    _get(url)
                except CutOff as error:
                    asked.cut_off.append(str(error))
                    _get(url)
            except Unexpected as error:
                asked.errors.append(str(error))
            else:
                asked.took_s.append(_clock.monotonic() - began)

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        stop.set()
        for thread in threads:
            thread.join(2 * (CONNECT_LIMIT_S + ANSWER_LIMIT_S))


def _get(url: str) -> str:
    """The answer's text, over a connection of its own. Raises: CutOff, Unexpected."""
    host = url.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(host, timeout=CONNECT_LIMIT_S)
    try:
        try:
            connection.connect()
        except OSError as error:
            raise Unexpected(f"{url} takes no connection: {error}") from error
        connection.sock.settimeout(ANSWER_LIMIT_S)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode().strip()
        except (OSError, http.client.HTTPException) as error:
            raise CutOff(f"{url} does not answer: {error or type(error).__name__}") from error
    finally:
        connection.close()


# --- the transcript ------------------------------------------------------------------------------------


def _run(*argv: str) -> str:
    _command(" ".join(argv))
    return _shown(argv)


def _shown(argv: Sequence[str]) -> str:
    """Run `argv`, show its output as it comes, and return it. Raises: Unexpected: it failed."""
    lines = []
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    ) as process:
        watchdog = threading.Timer(COMMAND_LIMIT_S, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line)
            process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            watchdog.cancel()
    _expect(process.returncode == 0, f"{' '.join(argv)}: exit status {process.returncode}")
    return "".join(lines)


def _until(is_so: Callable[[], bool], limit_s: float, complaint: str) -> None:
    deadline = _clock.monotonic() + limit_s
    while not is_so():
        _expect(_clock.monotonic() < deadline, f"{complaint} within {limit_s:.0f} s")
        time.sleep(0.05)


def _expect(is_so: bool, complaint: str) -> None:
    if not is_so:
        raise Unexpected(complaint)


def _title(text: str) -> None:
    print(f"\n{_coloured('1', f'== {text} ==')}\n", flush=True)


def _command(text: str, comment: str = "", *, at: str = "$ ") -> None:
    print(f"{_coloured('32', at)}{_coloured('1', text)}{'  ' if comment else ''}{comment}", flush=True)


def _note(text: str) -> None:
    print(_coloured("36", f"-- {text}"), flush=True)


def _coloured(code: str, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() else text


if __name__ == "__main__":
    sys.exit(main())
