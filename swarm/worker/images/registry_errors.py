"""What skopeo's last line means, in Docker's words.

In: standard error of a failed skopeo and the reference it was about. Out: one error with one line.
"""

from __future__ import annotations

import re

from swarm.base.errors import SwarmError, Temporary, Unavailable
from swarm.model.image_reference import Reference
from swarm.worker.images.errors import ImageNotFound, InvalidImage

_MESSAGE = re.compile(r'msg="((?:[^"\\]|\\.)*)"')
_DENIED = ("unauthorized", "denied", "authentication required", "invalid username/password")
_NETWORK = (
    "connection refused",
    "no such host",
    "i/o timeout",
    "no route to host",
    "network is unreachable",
    "connection reset",
    "tls:",
    "x509:",
    "certificate",
    "server gave http response",
    "EOF",
    "server misbehaving",
    "temporary failure",
    "received unexpected http status: 5",
)

_NO_TLS = " (start swarmd with --insecure-registry to pull from a registry without a trusted certificate)"


def registry_error(stderr: str, reference: Reference) -> SwarmError:
    """The error to raise for what skopeo wrote.

    ImageNotFound: no such image, or no access (registries do not tell which). Unavailable: the registry
    cannot be reached or spoken to. InvalidImage: a digest does not match. Temporary: this node, or unknown.
    """
    reason = _reason(stderr)
    lower = reason.lower()
    name = reference.familiar()
    if "manifest unknown" in lower or "manifest_unknown" in lower or "status: 404" in lower:
        return ImageNotFound(f"manifest for {name} not found: manifest unknown: manifest unknown")
    if any(text in lower for text in _DENIED) or "name unknown" in lower or "name_unknown" in lower:
        repository = reference.familiar_repository
        hint = "repository does not exist or may require 'docker login'"
        return ImageNotFound(f"pull access denied for {repository}, {hint}: {_tail(reason)}")
    if "no space left on device" in lower:
        return Temporary(f"pulling {name}: no space left on device")
    if "digest did not match" in lower or "file too large" in lower or "does not match" in lower:
        return InvalidImage(f"pulling {name}: {_tail(reason)}")
    if any(text.lower() in lower for text in _NETWORK):
        way_out = _NO_TLS if "server gave http response" in lower or "x509:" in lower else ""
        return Unavailable(f"pulling {name}: {_from_request(reason)}{way_out}")
    return Temporary(f"pulling {name}: {reason}")


def _reason(stderr: str) -> str:
    """The message of the last log line, without its quoting."""
    found = _MESSAGE.findall(stderr)
    if found:
        text = found[-1].replace("\\n", " ").replace('\\"', '"').replace("\\\\", "\\")
    else:
        text = stderr.strip().rpartition("\n")[2]
    return " ".join(text.split())[:500] or "skopeo failed without a word"


def _from_request(reason: str) -> str:
    """Docker shows the request and its failure: `Get "https://r/v2/": dial tcp ...`."""
    position = max(reason.rfind('Get "'), reason.rfind('Head "'))
    return reason[position:] if position >= 0 else reason


def _tail(reason: str) -> str:
    return ": ".join(reason.split(": ")[-2:])
