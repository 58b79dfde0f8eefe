"""Frames as bytes, for `Program.run`, `Host.send_frame` and tests: Ethernet to UDP, TCP and ICMP."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

ETH_P_IP = 0x0800
ETH_P_IPV6 = 0x86DD
ETH_P_8021Q = 0x8100

IPPROTO_ICMP = 1
IPPROTO_TCP = 6
IPPROTO_UDP = 17
IPPROTO_ICMPV6 = 58

TCP_SYN = 0x02

Address = str | IPv4Address | IPv6Address

CLIENT_MAC = "02:00:00:00:00:01"
SERVER_MAC = "02:00:00:00:00:02"


def checksum(data: bytes, start: int = 0) -> int:
    """The Internet checksum (RFC 1071) of `data`, as the 16-bit number to store in network byte order."""
    if len(data) % 2:
        data += b"\0"
    total: int = start + sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(
    payload: bytes,
    *,
    type: int,
    source: str = CLIENT_MAC,
    destination: str = SERVER_MAC,
    vlans: tuple[int, ...] = (),
) -> bytes:
    """An Ethernet frame; `vlans` are the ids of 802.1Q tags, outermost first."""
    tags = b"".join(struct.pack("!HH", ETH_P_8021Q, vlan) for vlan in vlans)
    return mac_bytes(destination) + mac_bytes(source) + tags + struct.pack("!H", type) + payload


def ip(
    payload: bytes,
    *,
    protocol: int,
    source: Address,
    destination: Address,
    ttl: int = 64,
    options: bytes = b"",
) -> bytes:
    """An IPv4 or IPv6 packet, by the addresses' family; `options` are IPv4's, a multiple of 4 bytes."""
    src, dst = ip_address(source), ip_address(destination)
    if src.version != dst.version:
        raise ValueError(f"{source} and {destination} are of different families")
    if src.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, ttl) + src.packed + dst.packed + payload
    length = 20 + len(options)
    header = struct.pack(
        "!BBHHHBBH4s4s",
        4 << 4 | length // 4,
        0,
        length + len(payload),
        1,  # identification
        0x4000,  # don't fragment
        ttl,
        protocol,
        0,
        src.packed,
        dst.packed,
    )
    header += options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def udp(
    payload: bytes = b"",
    *,
    source: Address = "10.0.0.1",
    destination: Address = "10.0.0.2",
    source_port: int = 40000,
    port: int = 9,
    vlans: tuple[int, ...] = (),
    options: bytes = b"",
) -> bytes:
    """A UDP datagram as a whole Ethernet frame."""
    segment = struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload
    return _frame(segment, IPPROTO_UDP, 6, source, destination, vlans, options)


def tcp(
    payload: bytes = b"",
    *,
    source: Address = "10.0.0.1",
    destination: Address = "10.0.0.2",
    source_port: int = 40000,
    port: int = 80,
    flags: int = TCP_SYN,
    vlans: tuple[int, ...] = (),
    options: bytes = b"",
) -> bytes:
    """A TCP segment without options as a whole Ethernet frame."""
    segment = struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 5 << 4, flags, 65535, 0, 0) + payload
    return _frame(segment, IPPROTO_TCP, 16, source, destination, vlans, options)


def echo_request(
    payload: bytes = b"ping",
    *,
    source: Address = "10.0.0.1",
    destination: Address = "10.0.0.2",
    identifier: int = 1,
    sequence: int = 1,
    vlans: tuple[int, ...] = (),
) -> bytes:
    """An ICMP or ICMPv6 echo request as a whole Ethernet frame."""
    if ip_address(source).version == 6:
        message = struct.pack("!BBHHH", 128, 0, 0, identifier, sequence) + payload
        return _frame(message, IPPROTO_ICMPV6, 2, source, destination, vlans)
    message = icmp_echo(8, identifier, sequence, payload)
    packet = ip(message, protocol=IPPROTO_ICMP, source=source, destination=destination)
    return ethernet(packet, type=ETH_P_IP, vlans=vlans)


def icmp_echo(type: int, identifier: int, sequence: int, payload: bytes) -> bytes:
    """An ICMP echo message (type 8 request, 0 reply) with its checksum."""
    message = struct.pack("!BBHHH", type, 0, 0, identifier, sequence) + payload
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def mac_bytes(text: str) -> bytes:
    """Six bytes from "02:00:00:00:00:01"."""
    raw = bytes.fromhex(text.replace(":", ""))
    if len(raw) != 6:
        raise ValueError(f"{text!r} is not a MAC address")
    return raw


def _frame(
    segment: bytes,
    protocol: int,
    checksum_offset: int,
    source: Address,
    destination: Address,
    vlans: tuple[int, ...],
    options: bytes = b"",
) -> bytes:
    """Put the transport checksum in, and the segment into IP and Ethernet."""
    src, dst = ip_address(source), ip_address(destination)
    pseudo = src.packed + dst.packed + struct.pack("!II", len(segment), protocol)
    value = checksum(pseudo + segment)
    if protocol == IPPROTO_UDP and value == 0:
        value = 0xFFFF  # zero means "no checksum" (RFC 768)
    segment = segment[:checksum_offset] + struct.pack("!H", value) + segment[checksum_offset + 2 :]
    packet = ip(segment, protocol=protocol, source=src, destination=dst, options=options)
    return ethernet(packet, type=ETH_P_IPV6 if src.version == 6 else ETH_P_IP, vlans=vlans)
