"""Network interfaces: list them, attach XDP, and build what a lab needs.

Own code, because the common commands must start fast.

Everything happens in the network namespace of the calling thread (`ebpf.kernel.namespaces.entered`). An
interface is a name or an index. Failures are NetlinkError, an OSError with the kernel's own text.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ebpf.kernel.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NetlinkError,
    attribute,
    attributes,
    nested,
    request,
)
from ebpf.uapi import XdpFlags

# Message types of rtnetlink.h.
_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _NEWROUTE, _NEWNEIGH = 20, 24, 28

_IFINFO = struct.Struct("=BxHiII")  # family, device type, index, flags, mask of flags to change
_IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type

IFF_UP, IFF_LOOPBACK = 0x1, 0x8
_NUD_PERMANENT = 0x80
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253
_IFA_F_NODAD = 0x02
_RTEXT_FILTER_SKIP_STATS = 1 << 3

# Attributes of if_link.h.
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_NET_NS_FD, _IFLA_EXT_MASK = 16, 18, 28, 29
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES, _IFLA_LINK_NETNSID = 31, 32, 37
_IFLA_XDP, _IFLA_ALT_IFNAME = 43, 53
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_XDP_FD, _XDP_ATTACHED, _XDP_FLAGS, _XDP_PROG_ID, _XDP_EXPECTED_FD = 1, 2, 3, 4, 8
_IFNAME_LENGTH = 15

#: enum in if_link.h: what IFLA_XDP_ATTACHED says, as the flag that attaches in that mode, …
_ATTACHED_MODES = {1: XdpFlags.DRV_MODE, 2: XdpFlags.SKB_MODE, 3: XdpFlags.HW_MODE}
#: … and the attribute that holds the program's id in each mode (4.19).
_MODE_PROGRAM_IDS = {5: XdpFlags.DRV_MODE, 6: XdpFlags.SKB_MODE, 7: XdpFlags.HW_MODE}

#: RFC 2863 operational states, as `ip link` prints them.
_STATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface, as RTM_GETLINK describes it."""

    index: int
    name: str
    kind: str  #: "veth", "bridge", …; "" for a device without one, such as lo or a NIC
    state: str  #: operational state: "up", "down", "lowerlayerdown", "unknown", …
    is_up: bool  #: whether it was set up
    is_loopback: bool
    mtu: int  #: bytes
    address: str  #: MAC address in hex with colons; "" for a device without one
    peer_index: int  #: of the device it is tied to (the other end of a veth pair); 0 for none
    peer_namespace_id: int | None  #: local id of the namespace of that device, if it is another one
    master: int  #: index of its bridge or bond; 0 for none
    xdp: Mapping[XdpFlags, int] = field(default_factory=dict)
    """Ids of the XDP programs attached to it, by mode: DRV_MODE, SKB_MODE, HW_MODE."""


def links() -> list[Link]:
    """All interfaces of the namespace, by index."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + _u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return [parse_link(answer) for answer in request(_GETLINK, body, flags=NLM_F_DUMP)]


def link(interface: str | int) -> Link:
    """One interface; NetlinkError ENODEV if there is none."""
    index, name = (interface, b"") if isinstance(interface, int) else (0, _name(interface))
    body = _IFINFO.pack(0, 0, index, 0, 0) + name + _u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return parse_link(request(_GETLINK, body)[0])


def index_of(interface: str | int) -> int:
    """The index of an interface; NetlinkError ENODEV if there is none of that name."""
    if isinstance(interface, int):
        return interface
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return link(interface).index  # an alternative name, or the error with its errno


def set_xdp(
    interface: str | int, program_fd: int, *, flags: XdpFlags | int = 0, expected_fd: int | None = None
) -> None:
    """Attach a program to an interface, or detach what is there with `program_fd` -1.

    `flags` chooses the mode; with 0 the kernel takes native where the driver has it. `expected_fd` (5.7)
    makes it atomic: the program that must be there now, -1 for none. EEXIST or EBUSY if it is otherwise.

    Success does not mean that anything was detached: a mode in which there is no program is no error.
    """
    parts = [attribute(_XDP_FD, _I32.pack(program_fd))]
    if expected_fd is not None:
        flags |= XdpFlags.REPLACE
        parts.append(attribute(_XDP_EXPECTED_FD, _I32.pack(expected_fd)))
    if flags:
        parts.append(_u32(_XDP_FLAGS, int(flags)))
    _set_link(interface, nested(_IFLA_XDP, *parts))


# --- making and changing --------------------------------------------------------------------------------


def create_veth(
    name: str, peer: str, *, peer_netns: int | None = None, mtu: int | None = None, queues: int | None = None
) -> None:
    """A pair of virtual Ethernet devices; `peer_netns` is a descriptor of the namespace of the second one."""
    shared = _optional(_IFLA_MTU, mtu)
    for type in (_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES):
        shared += _optional(type, queues)
    other = _IFINFO.pack(0, 0, 0, 0, 0) + _name(peer) + shared + _optional(_IFLA_NET_NS_FD, peer_netns)
    _create("veth", _name(name) + shared, nested(_INFO_DATA, nested(_VETH_INFO_PEER, other)))


def create(kind: str, name: str) -> None:
    """A device of a kind that needs no options: "dummy", "bridge", …"""
    _create(kind, _name(name))


def delete(interface: str | int) -> None:
    """Remove a virtual interface; with one end of a veth pair goes the other."""
    request(_DELLINK, _IFINFO.pack(0, 0, index_of(interface), 0, 0))


def set_up(interface: str | int) -> None:
    """Bring an interface up."""
    _set_link(interface, flags=IFF_UP, mask=IFF_UP)


def set_down(interface: str | int) -> None:
    """Take an interface down."""
    _set_link(interface, mask=IFF_UP)


def set_mtu(interface: str | int, mtu: int) -> None:
    """Set the MTU, in bytes."""
    _set_link(interface, _u32(_IFLA_MTU, mtu))


def set_mac(interface: str | int, address: str) -> None:
    """Set the MAC address: six bytes in hex, with colons."""
    _set_link(interface, attribute(_IFLA_ADDRESS, mac_bytes(address)))


def set_master(interface: str | int, master: str | int) -> None:
    """Put an interface into a bridge or bond; master 0 takes it out."""
    _set_link(interface, _u32(_IFLA_MASTER, index_of(master)))


def rename(interface: str | int, name: str) -> None:
    """Give an interface, which must be down on older kernels, another name."""
    _set_link(index_of(interface), _name(name))


def move(interface: str | int, netns: int) -> None:
    """Move an interface to the namespace of a descriptor; its addresses and XDP program are lost."""
    _set_link(interface, _u32(_IFLA_NET_NS_FD, netns))


def add_address(interface: str | int, address: str, prefix: int) -> None:
    """Give an interface an IPv4 or IPv6 address; IPv6 is usable at once, without duplicate detection."""
    family, packed = address_bytes(address)
    flags = _IFA_F_NODAD if family == socket.AF_INET6 else 0
    body = _IFADDR.pack(family, prefix, flags, _RT_SCOPE_UNIVERSE, index_of(interface))
    local, address_type = 2, 1  # IFA_LOCAL, IFA_ADDRESS
    body += attribute(local, packed) + attribute(address_type, packed)
    request(_NEWADDR, body, flags=NLM_F_CREATE | NLM_F_EXCL)


def add_route(
    destination: str, prefix: int, *, via: str | None = None, interface: str | int | None = None
) -> None:
    """A route in the main table, through a gateway, an interface or both."""
    family, packed = address_bytes(destination)
    scope = _RT_SCOPE_UNIVERSE if via or family == socket.AF_INET6 else _RT_SCOPE_LINK
    body = _RTMSG.pack(family, prefix, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, scope, _RTN_UNICAST, 0)
    destination_type, interface_type, gateway_type = 1, 4, 5  # RTA_DST, RTA_OIF, RTA_GATEWAY
    if prefix:
        body += attribute(destination_type, packed)
    if via is not None:
        body += attribute(gateway_type, address_bytes(via)[1])
    if interface is not None:
        body += _u32(interface_type, index_of(interface))
    request(_NEWROUTE, body, flags=NLM_F_CREATE | NLM_F_EXCL)


def add_neighbour(interface: str | int, address: str, mac: str) -> None:
    """A permanent entry of the neighbour (ARP) table."""
    family, packed = address_bytes(address)
    body = _NDMSG.pack(family, index_of(interface), _NUD_PERMANENT, 0, 0)
    body += attribute(1, packed) + attribute(2, mac_bytes(mac))  # NDA_DST, NDA_LLADDR
    request(_NEWNEIGH, body, flags=NLM_F_CREATE | NLM_F_EXCL)


# --- encoding -------------------------------------------------------------------------------------------

_U32, _I32 = struct.Struct("=I"), struct.Struct("=i")


def _u32(type: int, value: int) -> bytes:
    return attribute(type, _U32.pack(value))


def _optional(type: int, value: int | None) -> bytes:
    return b"" if value is None else _u32(type, value)


def _name(name: str) -> bytes:
    """A name of up to 15 bytes finds alternative names too; a longer one can only be such a name."""
    encoded = os.fsencode(name)
    return attribute(_IFLA_IFNAME if len(encoded) <= _IFNAME_LENGTH else _IFLA_ALT_IFNAME, encoded + b"\0")


def mac_bytes(address: str) -> bytes:
    """The bytes of a MAC address; ValueError if it is none."""
    packed = bytes.fromhex(address.replace(":", ""))
    if len(packed) != 6:
        raise ValueError(f"{address!r} is not a MAC address: six bytes in hex, with colons")
    return packed


def address_bytes(address: str) -> tuple[int, bytes]:
    """Family and bytes of an IPv4 or IPv6 address; ValueError if it is none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return family, socket.inet_pton(family, address)
    except OSError:
        raise ValueError(f"{address!r} is not an IP address") from None


def _set_link(interface: str | int, body: bytes = b"", *, flags: int = 0, mask: int = 0) -> None:
    request(_SETLINK, _IFINFO.pack(0, 0, index_of(interface), flags, mask) + body)


def _create(kind: str, body: bytes, *info: bytes) -> None:
    described = nested(_IFLA_LINKINFO, attribute(_INFO_KIND, kind.encode()), *info)
    request(_NEWLINK, _IFINFO.pack(0, 0, 0, 0, 0) + body + described, flags=NLM_F_CREATE | NLM_F_EXCL)


# --- decoding -------------------------------------------------------------------------------------------


def parse_link(body: bytes) -> Link:
    """An RTM_NEWLINK message's body."""
    if len(body) < _IFINFO.size:
        raise NetlinkError(errno.EBADMSG, "the description of an interface is too short")
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = attributes(body[_IFINFO.size :])

    def text(data: bytes) -> str:
        return os.fsdecode(data.split(b"\0", 1)[0])

    def number(type: int, convert: Callable[[bytes], int] = _unsigned) -> int:
        return convert(found[type]) if type in found else 0

    state = number(_IFLA_OPERSTATE)
    return Link(
        index=index,
        name=text(found.get(_IFLA_IFNAME, b"")),
        kind=text(attributes(found.get(_IFLA_LINKINFO, b"")).get(_INFO_KIND, b"")),
        state=_STATES[state] if state < len(_STATES) else str(state),
        is_up=bool(flags & IFF_UP),
        is_loopback=bool(flags & IFF_LOOPBACK),
        mtu=number(_IFLA_MTU),
        address=found.get(_IFLA_ADDRESS, b"").hex(":"),
        peer_index=number(_IFLA_LINK),
        peer_namespace_id=number(_IFLA_LINK_NETNSID) if _IFLA_LINK_NETNSID in found else None,
        master=number(_IFLA_MASTER),
        xdp=_parse_xdp(attributes(found.get(_IFLA_XDP, b""))),
    )


def _unsigned(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def _parse_xdp(found: Mapping[int, bytes]) -> dict[XdpFlags, int]:
    programs = {mode: _unsigned(found[type]) for type, mode in _MODE_PROGRAM_IDS.items() if type in found}
    attached = _unsigned(found.get(_XDP_ATTACHED, b""))
    if not programs and attached in _ATTACHED_MODES:  # before 4.19: one mode at a time; before 4.13 no id
        programs[_ATTACHED_MODES[attached]] = _unsigned(found.get(_XDP_PROG_ID, b""))
    return programs
