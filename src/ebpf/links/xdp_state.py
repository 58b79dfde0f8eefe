"""Which XDP programs are attached where, in which mode, through what, and who holds them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Self

from ebpf.kernel import bpf, namespaces, netlink
from ebpf.kernel.bpf import Kind
from ebpf.kernel.namespaces import Namespace
from ebpf.kernel.owners import Owner, find_owners, find_pins
from ebpf.kernel.privileges import SYS_ADMIN, explain
from ebpf.uapi import LinkType, XdpFlags


class XdpMode(Enum):
    """Where in the kernel an XDP program runs. "skb", "drv" and "hw" are understood as well."""

    AUTO = "auto"  #: native, or generic where the driver refuses
    NATIVE = "native"  #: in the driver, before the kernel allocates anything
    GENERIC = "generic"  #: in the network stack, on any device, slower
    OFFLOAD = "offload"  #: on the network card

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls(_SYNONYMS[value]) if value in _SYNONYMS else None

    @property
    def flag(self) -> XdpFlags:
        """The XDP_FLAGS_* that asks for it; 0 for AUTO."""
        return _FLAGS[self]

    @classmethod
    def from_flag(cls, flag: XdpFlags) -> XdpMode:
        """The mode of one XDP_FLAGS_*_MODE."""
        return next(mode for mode, known in _FLAGS.items() if known == flag)

    def __str__(self) -> str:
        return self.value


_SYNONYMS: dict[object, str] = {"skb": "generic", "drv": "native", "driver": "native", "hw": "offload"}
_FLAGS = {
    XdpMode.AUTO: XdpFlags(0),
    XdpMode.NATIVE: XdpFlags.DRV_MODE,
    XdpMode.GENERIC: XdpFlags.SKB_MODE,
    XdpMode.OFFLOAD: XdpFlags.HW_MODE,
}


@dataclass(frozen=True, slots=True)
class XdpAttachment:
    """One XDP program on one interface."""

    namespace: Namespace
    interface: str
    ifindex: int
    mode: XdpMode
    program_id: int
    program_name: str  #: "" if it has none, or this process may not ask
    tag: str
    link_id: int | None
    """The bpf_link that holds it there. None if it was attached through netlink, or if several links fit:
    the same program on the same index in several namespaces cannot be told apart."""
    owners: tuple[Owner, ...]  #: processes that hold the link or, without one, the program
    pins: tuple[str, ...]  #: paths at which the link or, without one, the program is pinned

    @property
    def program(self) -> str:
        """How to call the program: "'count' (id 12)"."""
        return (
            f"'{self.program_name}' (id {self.program_id})" if self.program_name else f"id {self.program_id}"
        )

    @property
    def holders(self) -> str:
        """The processes and pins in words; "" if none is known."""
        held = f"held by {', '.join(map(str, self.owners))}" if self.owners else ""
        pinned = f"pinned at {', '.join(self.pins)}" if self.pins else ""
        return ", ".join(filter(None, (held, pinned)))

    def __str__(self) -> str:
        through = f"link {self.link_id}" if self.link_id is not None else ""
        details = ", ".join(filter(None, (through, self.holders)))
        return f"{self.program} in {self.mode} mode" + (f" ({details})" if details else "")


def xdp_status(*, all_namespaces: bool = True) -> list[XdpAttachment]:
    """The XDP programs attached in the network namespaces that can be reached, or in the current one.

    PrivilegeError if one of the namespaces may not be entered.
    """
    places: list[tuple[Namespace, netlink.Link]] = []
    for namespace in namespaces.find():
        if namespace.is_current or all_namespaces:
            places.extend((namespace, link) for link in _links_in(namespace) if link.xdp)
    return _describe(places)


def attachments_of(link: netlink.Link) -> list[XdpAttachment]:
    """The XDP programs on one interface of the current namespace, with their owners."""
    current = next(one for one in namespaces.find() if one.is_current)
    return _describe([(current, link)])


def _links_in(namespace: Namespace) -> list[netlink.Link]:
    if namespace.is_current:
        return netlink.links()
    try:
        return namespaces.run_in(namespace, netlink.links)
    except FileNotFoundError:  # its last process ended
        return []
    except PermissionError as error:
        operation = f"look into network namespace {namespace.label}"
        raise explain(operation, (SYS_ADMIN,), error.errno or errno.EPERM) from None


def _describe(places: list[tuple[Namespace, netlink.Link]]) -> list[XdpAttachment]:
    attached = [(namespace, link, flag, id) for namespace, link in places for flag, id in link.xdp.items()]
    if not attached:
        return []
    owners, pins = find_owners(), find_pins()
    by_place: dict[tuple[int, int], list[int]] = {}
    for number, ifindex, program_id in xdp_links():
        by_place.setdefault((ifindex, program_id), []).append(number)
    found = []
    for namespace, link, flag, id in attached:
        links = by_place.get((link.index, id), [])
        same = sum(other.index == link.index and number == id for _, other, _, number in attached)
        link_id = links[0] if len(links) == 1 and same == 1 else None
        holder = (Kind.PROGRAM, id) if link_id is None else (Kind.LINK, link_id)
        name, tag = _name_and_tag(id)
        found.append(
            XdpAttachment(
                namespace=namespace,
                interface=link.name,
                ifindex=link.index,
                mode=XdpMode.from_flag(flag),
                program_id=id,
                program_name=name,
                tag=tag,
                link_id=link_id,
                owners=tuple(owners.get(holder, ())),
                pins=tuple(pins.get(holder, ())),
            )
        )
    return found


def xdp_links() -> Iterator[tuple[int, int, int]]:
    """The (link id, ifindex, program id) of every bpf_link that holds an XDP program.

    The kernel does not say in which namespace the ifindex counts. Nothing where links are unknown (before
    5.8) or this process may not list them.
    """
    with suppress(OSError):
        for link_id in bpf.ids(Kind.LINK):
            with suppress(OSError):  # gone meanwhile
                fd = bpf.fd_by_id(Kind.LINK, link_id)
                try:
                    info = bpf.link_info(fd)
                finally:
                    os.close(fd)
                if info.type == LinkType.XDP and info.ifindex:
                    yield link_id, info.ifindex, info.program_id


def _name_and_tag(program_id: int) -> tuple[str, str]:
    try:
        fd = bpf.fd_by_id(Kind.PROGRAM, program_id)
    except OSError:
        return "", ""
    try:
        info = bpf.program_info(fd)
    finally:
        os.close(fd)
    return info.name, info.tag
