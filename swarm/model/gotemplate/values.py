"""How Go's fmt package prints a value, and what it calls the type: plain values in, text out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

_VERB = re.compile(r"%([-+# 0]*)(\d*)(?:\.(\d*))?(.?)", re.DOTALL)
_MAX_WIDTH = 1000


def is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def type_name(value: object) -> str:
    """Go's name for the type of a plain value."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case Mapping():
            return "map[string]interface {}"
        case _:
            return "[]interface {}"


def truth(value: object) -> bool:
    """Empty, zero, false and nil are false."""
    return bool(value)


def show(value: object, *, nested: bool = False) -> str:
    """The value as `%v` prints it. Nil is `<no value>` in a template, `<nil>` inside something."""
    match value:
        case None:
            return "<nil>" if nested else "<no value>"
        case bool():
            return "true" if value else "false"
        case float():
            return show_float(value)
        case str():
            return value
        case int():
            return str(value)
        case Mapping():
            return "map[" + " ".join(f"{key}:{show(value[key], nested=True)}" for key in sorted(value)) + "]"
        case Sequence():
            return "[" + " ".join(show(item, nested=True) for item in value) + "]"
        case _:
            return str(value)


def show_float(value: float) -> str:
    """The shortest digits that read back the same; an exponent below 1e-4 and from 1e21."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    if value == 0:
        return "0"
    exponent = Decimal(repr(value)).adjusted()
    if -4 <= exponent < 21:
        text = format(Decimal(repr(value)), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    digits = "".join(str(d) for d in Decimal(repr(value)).as_tuple().digits).rstrip("0")
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{'-' if value < 0 else ''}{mantissa}e{exponent:+03d}"


def to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def quote(text: str) -> str:
    """A Go string literal."""
    escapes = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}
    out = []
    for character in text:
        if character in '"\\':
            out.append("\\" + character)
        elif character.isprintable():
            out.append(character)
        else:
            out.append(
                escapes.get(character, f"\\x{ord(character):02x}" if ord(character) < 128 else character)
            )
    return '"' + "".join(out) + '"'


def sprint(values: Sequence[object]) -> str:
    """`Sprint`: a space between two operands when neither is a string."""
    out = ""
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            out += " "
        out += show(value, nested=True)
    return out


def sprintf(pattern: str, values: Sequence[object]) -> str:
    """`Sprintf` for the verbs v s d q t f e g x X o b c T and %, with flags, width and precision."""
    left = list(values)
    used = 0

    def one(found: re.Match[str]) -> str:
        nonlocal used
        flags, width, precision, verb = found.groups()
        if verb == "%":
            return "%"
        if not verb:
            return "%!(NOVERB)"
        if used >= len(left):
            return f"%!{verb}(MISSING)"
        value = left[used]
        used += 1
        text = _verb(verb, value, flags, precision)
        return _pad(text, flags, min(int(width or 0), _MAX_WIDTH), numeric=_is_number(value))

    out = _VERB.sub(one, pattern)
    if used < len(left):
        extra = ", ".join(f"{type_name(v)}={show(v, nested=True)}" for v in left[used:])
        out += f"%!(EXTRA {extra})"
    return out


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pad(text: str, flags: str, width: int, *, numeric: bool) -> str:
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and numeric:
        sign = text[:1] if text[:1] in ("+", "-") else ""
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)


def _verb(verb: str, value: object, flags: str, precision: str | None) -> str:
    digits = None if precision is None else min(int(precision or 0), _MAX_WIDTH)
    if verb == "T":
        return type_name(value)
    if verb == "v":
        text = show(value, nested=True)
        return "+" + text if "+" in flags and _is_number(value) and not text.startswith("-") else text
    if verb == "t" and isinstance(value, bool):
        return show(value)
    if isinstance(value, str):
        found = _verb_of_text(verb, value, digits)
    elif isinstance(value, int) and not isinstance(value, bool):
        found = _verb_of_int(verb, value, flags)
    elif isinstance(value, float):
        found = _verb_of_float(verb, value, flags, digits)
    elif is_list(value) and isinstance(value, Sequence):
        return "[" + " ".join(_verb(verb, item, flags, precision) for item in value) + "]"
    else:
        found = None
    if found is None:
        shown = show(value, nested=True)
        return f"%!{verb}(<nil>)" if value is None else f"%!{verb}({type_name(value)}={shown})"
    return found


def _verb_of_text(verb: str, value: str, digits: int | None) -> str | None:
    match verb:
        case "s":
            return value if digits is None else value[:digits]
        case "q":
            return quote(value)
        case "x":
            return value.encode().hex()
        case "X":
            return value.encode().hex().upper()
        case _:
            return None


def _verb_of_int(verb: str, value: int, flags: str) -> str | None:
    sign = "+" if "+" in flags else ""
    match verb:
        case "d" | "x" | "X" | "o" | "b":
            return format(value, f"{sign}{verb}")
        case "c":
            return chr(value) if 0 <= value < 0x110000 else "\ufffd"
        case "q":
            return "'" + chr(value) + "'" if 0 <= value < 0x110000 else "'\ufffd'"
        case _:
            return None


def _verb_of_float(verb: str, value: float, flags: str, digits: int | None) -> str | None:
    sign = "+" if "+" in flags else ""
    if verb in ("f", "F", "e", "E"):
        return format(value, f"{sign}.{6 if digits is None else digits}{verb}")
    if verb in ("g", "G"):
        return show_float(value) if digits is None else format(value, f"{sign}.{digits}{verb}")
    return None
