"""An example of a secret driver: every task gets a password of its own; secrets labelled `deny` are refused.

Run as `secret_driver_program.py NAME`, as root on a node.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socketserver
import sys
from pathlib import Path

DIRECTORY = Path("/run/swarm/secret-drivers")


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        asked = json.loads(self.rfile.readline())
        answer: dict[str, str]
        if "deny" in asked["SecretLabels"]:
            answer = {"Err": f"{asked['SecretName']} is not for {asked['ServiceName']}"}
        else:
            password = hashlib.sha256(f"{asked['SecretName']} {asked['TaskID']}".encode()).hexdigest()
            answer = {"Value": base64.b64encode(password.encode()).decode()}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def main() -> None:
    DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    socket = DIRECTORY / f"{sys.argv[1]}.sock"
    socket.unlink(missing_ok=True)
    with socketserver.ThreadingUnixStreamServer(str(socket), Handler) as server:
        print(os.getpid(), flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
