"""Tasks' own links on a link of this host: macvlan.

In: records with their `MacvlanLink`s. Out: `ethN` in the tasks' namespaces, with MACs of their own on the
parent's wire, or the reason why not.

Invariant: every call may be repeated after a crash at any step. Blocking: called from one thread only.
Source: linux/if_link.h, the kernel's drivers/net/macvlan.c (what makes it refuse).
"""

from __future__ import annotations

import ipaddress
from contextlib import closing

from swarm.base.errors import Fatal, Temporary
from swarm.model.networks import MACVLAN_MODES
from swarm.overlay.netlink import Netlink, VethEnd
from swarm.overlay.netns import Namespaces
from swarm.overlay.plan import mac_of, port_name
from swarm.overlay.records import MacvlanLink, TaskRecord

_UNNAMED = "swm"
"""How a link is called until it gets its name: the kernel would not make an eth0 where the host has one."""


class Macvlans:
    def __init__(self, namespaces: Namespaces, host: Netlink) -> None:
        self._namespaces = namespaces
        self._host = host

    def connect(self, link: MacvlanLink, channel: Netlink, *, task: str, name: str) -> None:
        """The task's link `name`, up; `channel` is open in its namespace. Raises: Fatal, Temporary."""
        parent = self._host.get_index(link.parent)
        if not self.has_parent(link):
            state = "down" if parent else "not there"
            raise Fatal(f"parent link {link.parent} of network {link.config} is {state} on this node")
        try:
            if not channel.get_index(name):
                own = str(ipaddress.IPv4Interface(link.address).ip)
                unnamed = port_name(_UNNAMED, own)
                channel.delete_link(unnamed)  # a crash left it
                with self._namespaces.open(task) as descriptor:
                    end = VethEnd(name=unnamed, mac=mac_of(own), netns=descriptor)
                    self._host.add_macvlan(end, parent=parent, mode=MACVLAN_MODES[link.mode])
                channel.set_name(channel.get_index(unnamed), name)
            channel.set_up(channel.get_index(name))
        except OSError as error:  # a bridge has it, another task has it to itself, or an old link lingers
            raise Temporary(
                f"parent link {link.parent} of network {link.config} cannot carry {link.address} "
                f"in mode {link.mode}: {error.strerror}"
            ) from error

    def is_cut(self, record: TaskRecord) -> bool:
        """Whether a link is missing that could be made: links go with their parent, and it may be back."""
        if not record.macvlans:
            return False
        with closing(self._namespaces.run(record.task_id, Netlink)) as channel:
            there = channel.list_links()
        missing = [link for name, link in macvlan_names(record).items() if name not in there]
        return any(map(self.has_parent, missing))

    def has_parent(self, link: MacvlanLink) -> bool:
        """It is there and up."""
        parent = self._host.list_links().get(link.parent)
        return parent is not None and parent.is_up

    def disconnect(self, record: TaskRecord) -> None:
        """Before the namespace goes: its end is not waited for, and the address must be free at once."""
        if record.macvlans and self._namespaces.exists(record.task_id):
            with closing(self._namespaces.run(record.task_id, Netlink)) as channel:
                for name in macvlan_names(record):
                    channel.delete_link(name)


def macvlan_names(record: TaskRecord) -> dict[str, MacvlanLink]:
    """By the name that each has in the task's namespace."""
    links = {link.network_id: link for link in record.macvlans}
    return {
        f"eth{number}": links[attachment.network_id]
        for number, attachment in enumerate(record.attachments)
        if attachment.network_id in links
    }
