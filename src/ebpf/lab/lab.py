"""A lab: hosts in a row, each a network namespace, neighbours joined by veth pairs."""

from __future__ import annotations

import errno
import itertools
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from ebpf.errors import Error
from ebpf.kernel import ethtool, mounts, namespaces, netlink, privileges
from ebpf.lab import state
from ebpf.lab.host import Host, Interface

DEFAULT_HOSTS = ("client", "server")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}")
_numbers = itertools.count(1)


class Lab:
    """Network namespaces joined in a row, for trying programs on real packets.

        with Lab("client", "router", "server") as lab:
            lab["client"].ping(lab["server"].address)

    Link number i, from 1, joins host i to its next neighbour: 10.200.i.1 and .2 (fd00:200:i::1 and ::2),
    MAC addresses 02:00:00:00:0i:01 and :02. A host's interfaces are eth0, eth1 in that order; hosts in the
    middle forward, and every host has routes to all links. `lab.bpffs` is a BPF file system of its own,
    outside /sys, so that it is visible in the namespaces however they are entered.

    A lab that is a context manager goes away with its block, and what a killed process left goes away when
    the next lab is made. `Lab.up` makes one that stays until `Lab.down`.

    Needs CAP_NET_ADMIN and CAP_SYS_ADMIN; raises PrivilegeError without.
    """

    def __init__(self, *hosts: str, name: str | None = None) -> None:
        names = hosts or DEFAULT_HOSTS
        for text in names if name is None else (*names, name):
            if not _NAME.fullmatch(text):
                raise Error(f"{text!r} cannot name a lab or a host: letters, digits, '-' and '_', at most 31")
        if len(names) < 2 or len(set(names)) != len(names):
            raise Error(f"a lab joins two or more hosts of different names, not {', '.join(names)}")
        self.name = name or f"lab{os.getpid()}-{next(_numbers)}"
        self.hosts = {host: Host(host, f"{self.name}-{host}") for host in names}

    def __getitem__(self, host: str) -> Host:
        try:
            return self.hosts[host]
        except KeyError:
            raise Error(f"lab {self.name!r} has no host {host!r}; it has: {', '.join(self.hosts)}") from None

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts.values())

    def __repr__(self) -> str:
        return f"Lab({', '.join(map(repr, self.hosts))}, name={self.name!r})"

    def __enter__(self) -> Self:
        self.up(owner=os.getpid())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def bpffs(self) -> Path:
        """The lab's own BPF file system."""
        return state.folder(self.name) / "bpffs"

    def up(self, *, owner: int | None = None) -> None:
        """Make it; it outlives this process unless `owner` is a process id, whose end is the lab's end."""
        needs = (privileges.NET_ADMIN, privileges.SYS_ADMIN)
        if privileges.missing(needs):
            raise privileges.explain("make a lab", needs, errno.EPERM)
        clean_stale()
        state.create(self.name, list(self.hosts), owner)
        try:
            mounts.mount_bpffs(self.bpffs)
            for host in self:
                namespaces.create(host.namespace)
                with host.entered():
                    netlink.set_up("lo")
            hosts = list(self)
            for number, (left, right) in enumerate(itertools.pairwise(hosts), 1):
                _join(number, left, right)
            _route(hosts)
            _settle(hosts)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Take it away: interfaces, namespaces, BPF file system. What is gone already is no error."""
        for host in self:
            if not namespaces.exists(host.namespace):
                continue
            with host.entered():
                for link in netlink.links():
                    if link.kind == "veth":
                        netlink.delete(link.index)  # at once: a namespace goes away only some time later
            namespaces.delete(host.namespace)
        mounts.unmount(self.bpffs)
        state.remove(self.name)

    @classmethod
    def open(cls, name: str) -> Lab:
        """A lab that is up, by name; raises Error if there is none."""
        hosts = state.hosts(name)
        if hosts is None:
            there = ", ".join(state.names()) or "none"
            raise Error(f"no lab named {name!r} is up; there is: {there}", hint="make one: ebpf lab up")
        lab = cls(*hosts, name=name)
        lab._read_interfaces()
        return lab

    def _read_interfaces(self) -> None:
        for position, host in enumerate(self):
            with host.entered():
                present = {link.name: link for link in netlink.links()}
            numbers = [number for number in (position, position + 1) if 1 <= number < len(self.hosts)]
            for place, number in enumerate(numbers):
                link = present.get(f"eth{place}")
                if link is not None:
                    host.interfaces.append(
                        _interface(link.name, link.index, number, 2 if number == position else 1)
                    )


def names() -> list[str]:
    """The labs that are up."""
    return state.names()


def clean_stale() -> list[str]:
    """Take away the labs whose owner has died; gives their names."""
    stale = state.stale()
    for name in stale:
        hosts = state.hosts(name)
        if hosts is not None:
            Lab(*hosts, name=name).down()
    return stale


def _interface(name: str, index: int, number: int, side: int) -> Interface:
    """The plan of addresses: link `number`, `side` 1 or 2."""
    return Interface(
        name,
        index,
        f"02:00:00:00:{number:02x}:{side:02x}",
        f"10.200.{number}.{side}",
        f"fd00:200:{number:x}::{side}",
    )


def _join(number: int, left: Host, right: Host) -> None:
    """Make veth pair `number` between two hosts."""
    ends = [
        (host, _interface(f"eth{len(host.interfaces)}", 0, number, side))
        for side, host in ((1, left), (2, right))
    ]
    with left.entered(), namespaces.opened(right.namespace) as peer_namespace:
        netlink.create_veth(ends[0][1].name, ends[1][1].name, peer_netns=peer_namespace)
    for host, plan in ends:
        with host.entered():
            netlink.set_mac(plan.name, plan.mac)
            # No duplicate address detection: the addresses would be unusable for a second.
            Path(f"/proc/sys/net/ipv6/conf/{plan.name}/accept_dad").write_text("0")
            netlink.add_address(plan.name, plan.address, 24)
            netlink.add_address(plan.name, plan.address6, 64)
            netlink.set_up(plan.name)
            ethtool.behave_like_wire(plan.name)
            index = netlink.index_of(plan.name)
        host.interfaces.append(replace(plan, index=index))


def _settle(hosts: list[Host]) -> None:
    """Wait until packets are not dropped any more.

    A link that came up drops what is sent until the kernel has dealt with the event (net/core/link_watch.c),
    which asking for this one link makes it do at once.
    """
    deadline = time.monotonic() + 5
    for host in hosts:
        with host.entered():
            for interface in host.interfaces:
                while netlink.link(interface.name).state != "up":
                    if time.monotonic() > deadline:
                        raise Error(f"{interface.name} of {host.name} did not come up within 5 seconds")
                    time.sleep(0.01)


def _route(hosts: list[Host]) -> None:
    """Give every host a route to every link, and let those in the middle forward."""
    for position, host in enumerate(hosts):
        with host.entered():
            if 0 < position < len(hosts) - 1:
                Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
                Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
            for number in range(1, len(hosts)):
                if number > position + 1:
                    via = hosts[position + 1].interfaces[0]
                elif number < position:
                    via = hosts[position - 1].interfaces[-1]
                else:
                    continue
                netlink.add_route(f"10.200.{number}.0", 24, via=via.address)
                netlink.add_route(f"fd00:200:{number:x}::", 64, via=via.address6)
