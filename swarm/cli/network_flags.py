"""`--subnet`, `--ip-range`, `--gateway` and `--aux-address` as IPAM configurations of the API. Pure.

Raises InvalidArgument with Docker's words. Source: docker/cli's behaviour on `network create`.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from swarm.base.errors import InvalidArgument
from swarm.cli.options import Json

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network


def ipam_configs(
    subnets: Sequence[str],
    ranges: Sequence[str],
    gateways: Sequence[str],
    auxiliary: Sequence[tuple[str, str]],
) -> list[Json]:
    """One for each subnet, with what belongs to it."""
    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise InvalidArgument("every ip-range or gateway must have a corresponding subnet")
    found: dict[str, Json] = {}
    parsed: dict[str, Subnet] = {}
    for text in subnets:
        subnet = _subnet(text)
        if any(subnet.version == other.version and subnet.overlaps(other) for other in parsed.values()):
            raise InvalidArgument("multiple overlapping subnet configuration is not supported")
        parsed[text], found[text] = subnet, {"Subnet": text}
    for text in ranges:
        config = found[_home(parsed, _subnet(text).network_address, f"range {text}")]
        _set_once(config, "IPRange", text, "ranges", "on")
    for text in gateways:
        config = found[_home(parsed, _address(text), f"gateway {text}")]
        _set_once(config, "Gateway", text, "gateways", "for")
    for name, text in auxiliary:
        config = found[_home(parsed, _address(text), f"aux-address {text}")]
        config.setdefault("AuxiliaryAddresses", {})[name] = text
    return list(found.values())


def _set_once(config: Json, key: str, text: str, what: str, word: str) -> None:
    if key in config:
        raise InvalidArgument(
            f"cannot configure multiple {what} ({text}, {config[key]}) {word} the same subnet "
            f"({config['Subnet']})"
        )
    config[key] = text


def _home(subnets: dict[str, Subnet], address: Address, what: str) -> str:
    for text, subnet in subnets.items():
        if address in subnet:
            return text
    raise InvalidArgument(f"no matching subnet for {what}")


def _subnet(text: str) -> Subnet:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise InvalidArgument(f"invalid CIDR address: {text}") from None


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None
