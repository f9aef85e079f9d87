"""Texts of service flags in, the values that the API takes out. Pure; ValueError with Docker's words."""

from __future__ import annotations

import ipaddress
import math
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from swarm.cli.values import parse_integer, parse_unsigned

_SEARCH_DOMAIN = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?\.?")
_OPERATOR = re.compile(r"==|!=|\sin\s*\(|exists$")


def with_tag(image: str) -> str:
    """`image`, with the tag `latest` when it has neither tag nor digest."""
    return image if "@" in image or ":" in image.rsplit("/", 1)[-1] else f"{image}:latest"


def parse_label(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not key:
        raise ValueError(f"invalid label '{text}': empty name")
    return key, value


def parse_env(text: str) -> str:
    if not text or text.startswith("="):
        raise ValueError(f"invalid environment variable: {text}")
    return text


def resolve_env(items: Iterable[str], environment: Mapping[str, str]) -> list[str]:
    """`KEY` takes the client's value; one that the client does not have takes the image's away."""
    return [
        item if "=" in item or item not in environment else f"{item}={environment[item]}" for item in items
    ]


def parse_command(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{error} in command") from None


def parse_constraint(text: str) -> str:
    if not _OPERATOR.search(text):  # whether it can be met, the manager says
        raise ValueError("constraint expected one operator from ==, !=")
    return text


def parse_preference(text: str) -> dict[str, Any]:
    strategy, equals, descriptor = text.partition("=")
    if not equals or "=" in descriptor:
        raise ValueError('placement preference must be of the format "<strategy>=<arg>"')
    if strategy != "spread":
        raise ValueError(f"unsupported placement preference {strategy} (only spread is supported)")
    return {"Spread": {"SpreadDescriptor": descriptor}}


def parse_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise ValueError(f"IP address is not correctly formatted: {text}") from None


def parse_search_domain(text: str) -> str:
    if text.strip() == ".":
        return "."
    if not _SEARCH_DOMAIN.fullmatch(text) or len(text) > 255:
        raise ValueError(f"{text} is not a valid domain")
    return text


def parse_host(text: str) -> tuple[str, str]:
    """`name:address` (or `name=address`), the address of either family."""
    name, colon, address = text.partition("=" if "=" in text else ":")
    if not colon or not name:
        raise ValueError(f'bad format for add-host: "{text}"')
    try:
        return name, str(ipaddress.ip_address(address.strip("[]")))
    except ValueError:
        raise ValueError(f'invalid IP address in add-host: "{address}"') from None


def parse_ulimit(text: str) -> dict[str, Any]:
    name, equals, limits = text.partition("=")
    if not equals or not name or not limits:
        raise ValueError(f"invalid ulimit argument: {text}")
    try:
        soft, *hard = [int(part) for part in limits.split(":")]
    except ValueError:
        raise ValueError(f"invalid ulimit argument: {text}") from None
    if len(hard) > 1:
        raise ValueError(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    most = hard[0] if hard else soft
    if most != -1 and (soft > most or soft == -1):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {most}")
    return {"Name": name, "Hard": most, "Soft": soft}


def parse_resource(text: str) -> dict[str, Any]:
    """`gpu=2`; names (`gpu=UUID1`) are what nodes have, and services ask for a number."""
    kind, equals, value = text.partition("=")
    if not equals or not kind or not value:
        raise ValueError(f"invalid generic-resource format `{text}` expected `name=value`")
    try:
        return {"DiscreteResourceSpec": {"Kind": kind, "Value": parse_unsigned(value)}}
    except ValueError:
        raise ValueError(
            f"invalid generic-resource request `{text}`, Named Generic Resources is not supported "
            "for service create or update"
        ) from None


def resource_kind(item: Mapping[str, Any]) -> str:
    kind: str = (item.get("DiscreteResourceSpec") or item.get("NamedResourceSpec") or {}).get("Kind", "")
    return kind


def parse_sysctl(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not key:
        raise ValueError(f"invalid sysctl '{text}': expected NAME=VALUE")
    return key, value


def parse_ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if math.isnan(ratio):
        raise ValueError(f'strconv.ParseFloat: parsing "{text}": invalid syntax')
    return ratio


def parse_oom_score(text: str) -> int:
    score = parse_integer(text)
    if not -1000 <= score <= 1000:
        raise ValueError(f"invalid value {score}: it is a number from -1000 to 1000")
    return score


def parse_env_file(lines: Iterable[str], name: str) -> list[str]:
    """`KEY=value` or `KEY` a line; blank lines and those that begin with `#` say nothing."""
    found = []
    for line in lines:
        text = line.lstrip().rstrip("\r\n")
        if not text or text.startswith("#"):
            continue
        key = text.partition("=")[0]
        if not key or any(character.isspace() for character in key):
            raise ValueError(f"{name}: variable '{key}' contains whitespaces or has no name")
        found.append(text)
    return found
