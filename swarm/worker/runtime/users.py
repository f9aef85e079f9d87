"""`--user` against the container's own /etc/passwd and /etc/group: text and files in, numbers out. Pure.

Invariant: the host's user database is never asked, and a number needs no entry.
"""

from __future__ import annotations

from swarm.base.errors import Fatal
from swarm.worker.runtime.resolved import User

_MAX_ID = 2**31 - 1


def resolve_user(text: str, *, passwd: bytes, group: bytes, groups: tuple[str, ...] = ()) -> User:
    """The user that `text` names, with additional `groups` by name or number.

    Raises:
        Fatal: a name without an entry, or a number out of range; Docker's wording.
    """
    name, _, group_name = text.partition(":")
    entry = _passwd_entry(name or "0", passwd)
    if entry is None:
        if not name.isdecimal():
            raise Fatal(f"unable to find user {name}: no matching entries in passwd file")
        entry = (name, _number(name), 0, "/")
    login, uid, gid, home = entry
    known = _groups(group)
    added = tuple(_group_id(name, known) for name in groups)
    if group_name:
        return User(uid=uid, gid=_group_id(group_name, known), additional_gids=added, home=home)
    own = tuple(number for _, number, members in known if login in members)
    return User(uid=uid, gid=gid, additional_gids=tuple(dict.fromkeys((*own, *added))), home=home)


def _passwd_entry(wanted: str, passwd: bytes) -> tuple[str, int, int, str] | None:
    for line in passwd.decode(errors="replace").splitlines():
        fields = line.split(":")
        if len(fields) < 7 or not (fields[2].isdecimal() and fields[3].isdecimal()):
            continue
        if wanted in (fields[0], fields[2]):
            return fields[0], _number(fields[2]), _number(fields[3]), fields[5] or "/"
    return (wanted, 0, 0, "/") if wanted in ("0", "root") else None


def _groups(group: bytes) -> list[tuple[str, int, list[str]]]:
    fields = (line.split(":") for line in group.decode(errors="replace").splitlines())
    return [(f[0], int(f[2]), f[3].split(",")) for f in fields if len(f) >= 4 and _is_id(f[2])]


def _group_id(wanted: str, groups: list[tuple[str, int, list[str]]]) -> int:
    for name, number, _ in groups:
        if wanted in (name, str(number)):
            return number
    if wanted.isdecimal():
        return _number(wanted)
    raise Fatal(f"unable to find group {wanted}: no matching entries in group file")


def _is_id(text: str) -> bool:
    # Short before int(): the file is the image's.
    return text.isdecimal() and len(text) <= 10 and int(text) <= _MAX_ID


def _number(text: str) -> int:
    if not _is_id(text):
        raise Fatal(f"uids and gids must be in range 0-{_MAX_ID}")
    return int(text)
