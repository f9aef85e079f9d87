"""Names for services that are created without one: two plain words from an id, `quiet_harbour`."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_QUALITIES = _words(
    """
    amber bold brisk bright calm candid clear clever cosy crisp deft eager early fair fleet fresh
    gentle glad golden green hardy honest jolly keen kind light lively lucid mellow merry mild
    modest neat nimble noble patient plain proud quick quiet rapid ready robust round sharp silver
    simple sleek smart snug solid steady still stout sturdy subtle sunny swift tidy true vivid warm
    wise witty
    """
)
_THINGS = _words(
    """
    acorn alder anchor anvil aspen badger basin beacon beech birch brook canyon cedar clover comet
    coral cove crane delta dune ember falcon fern fjord forest gale garden glacier grove gull
    harbour hazel heron hill island juniper lagoon lantern lark maple marsh meadow mesa moor oak
    orchard otter pebble pine plover prairie quarry raven reef ridge river rowan spruce summit swan
    thicket tide valley willow
    """
)


def generate_name(seed: str) -> str:
    """The same two words for the same id."""
    number = int(seed, 36)
    return f"{_QUALITIES[number % len(_QUALITIES)]}_{_THINGS[number // 1009 % len(_THINGS)]}"
