"""The OCI runtime: crun, or runc where crun cannot run. Owns its command line and its error texts.

In: container ids whose bundles conmon created. Out: started, described or deleted containers. Invariant: no
call waits longer than its deadline; what a runtime says becomes one of our errors, in Docker's words.
Source: crun(1) 1.8.1, runc(8) 1.1.5.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from swarm.base.errors import Fatal, SwarmError, Temporary

CALL_TIMEOUT_S = 30.0
COMMAND_NOT_FOUND = 127
COMMAND_NOT_EXECUTABLE = 126

_QUOTED = re.compile(r"executable file `([^`']*)[`']|exec: \\?\"([^\"\\]*)\\?\"")


def environment() -> dict[str, str]:
    """All that conmon and the runtime get to see of swarmd's environment."""
    return {"PATH": os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")}


def explain(message: str, command: str) -> SwarmError:
    """The error that a runtime's `message` about starting `command` stands for."""
    text = _innermost(message)
    match = _QUOTED.search(text)
    named = next((group for group in match.groups() if group), command) if match else command
    lowered = text.lower()
    if "executable file" in lowered and "not found" in lowered:
        return Fatal(f'exec: "{named}": executable file not found in $PATH', COMMAND_NOT_FOUND)
    about_command = match is not None or "open executable" in lowered
    if about_command and "no such file" in lowered:
        return Fatal(f'exec: "{named}": executable file not found in $PATH', COMMAND_NOT_FOUND)
    if about_command and any(
        sign in lowered for sign in ("not permitted", "permission denied", "is a directory")
    ):
        return Fatal(f'exec: "{named}": permission denied', COMMAND_NOT_EXECUTABLE)
    if any(
        sign in lowered
        for sign in ("resource temporarily unavailable", "no space left", "too many open files")
    ):
        return Temporary(f"container runtime: {text}")
    return Fatal(f"container runtime: {text or 'failed without a message'}")


def _innermost(message: str) -> str:
    """One line of prose out of what a runtime printed, be it text or JSON log lines."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    if not lines:
        return ""
    last = lines[-1]
    try:
        decoded = json.loads(last)
    except ValueError:
        return re.sub(r"^\S+Z: |^time=\S+ level=error msg=", "", last)
    return str(decoded.get("msg", last)) if isinstance(decoded, dict) else last


@dataclass(frozen=True, slots=True)
class Output:
    code: int
    stdout: str
    stderr: str


class OciRuntime:
    """One runtime program with its state directory."""

    def __init__(self, program: Path, root_dir: Path) -> None:
        self.program = program
        self.root_dir = root_dir

    @property
    def arguments(self) -> tuple[str, ...]:
        """What goes before the command's name, also when conmon calls."""
        flags = ("--root", str(self.root_dir))
        # runc takes the plain cgroup tree unless told otherwise.
        return (*flags, "--cgroup-manager=cgroupfs") if self.program.name == "crun" else flags

    def compiled_filter(self, container_id: str) -> str:
        """The seccomp filter that crun compiled for the container, in base64; empty where there is none."""
        with suppress(OSError):
            return base64.b64encode((self.root_dir / container_id / "seccomp.bpf").read_bytes()).decode()
        return ""

    async def start(self, container_id: str, command: str) -> None:
        """Let a created container run.

        Raises:
            Fatal: `command` cannot be executed.
        """
        output = await self._call("start", container_id)
        if output.code != 0:
            raise explain(output.stderr, command)

    async def state(self, container_id: str) -> str:
        """`created`, `running`, `stopped`, or nothing when the runtime does not know the container."""
        output = await self._call("state", container_id)
        if output.code != 0:
            return ""
        return str(json.loads(output.stdout).get("status", ""))

    async def delete(self, container_id: str) -> None:
        """Forget the container, its cgroups included; kills what is left of it. Unknown is fine."""
        if not (self.root_dir / container_id).exists():
            return
        output = await self._call("delete", "--force", container_id)
        if output.code != 0 and (self.root_dir / container_id).exists():
            raise Temporary(f"cannot delete container {container_id}: {_innermost(output.stderr)}")

    async def _call(self, *arguments: str) -> Output:
        process = await asyncio.create_subprocess_exec(
            str(self.program),
            *self.arguments,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                stdout, stderr = await process.communicate()
        except TimeoutError:
            raise Temporary(
                f"{self.program.name} {arguments[0]} took more than {CALL_TIMEOUT_S:.0f} s"
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return Output(process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
