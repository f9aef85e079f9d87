"""What can be wrong with an image, as leaves of the project's error tree, with Docker's sentences."""

from __future__ import annotations

from typing import ClassVar

from swarm.base.errors import FailedPrecondition, InvalidArgument, NotFound, SwarmError


class ImageNotFound(NotFound):
    """404 with a sentence of its own: `No such image: web:latest`, `manifest for web:3 not found: ...`."""

    def __init__(self, message: str) -> None:
        SwarmError.__init__(self, message)


class ImageInUse(FailedPrecondition):
    """409: a container or another name still needs the image."""

    http_code: ClassVar[int] = 409


class InvalidImage(InvalidArgument):
    """The bytes of an image are not what they claim to be. Trying again gives the same answer."""


def no_such_image(name: str) -> ImageNotFound:
    return ImageNotFound(f"No such image: {name}")
