"""The frame builders against checksums worked out another way, and against themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpf.lab import packets


def test_checksum_of_the_rfc_1071_example() -> None:
    assert packets.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


@given(st.binary(min_size=0, max_size=64))
def test_a_packet_with_its_checksum_sums_to_zero(payload: bytes) -> None:
    frame = packets.udp(payload)
    header, segment = frame[14:34], frame[34:]
    assert packets.checksum(header) == 0
    pseudo = frame[26:34] + b"\0\x11" + len(segment).to_bytes(2, "big")
    assert packets.checksum(pseudo + segment) == 0


def test_vlan_tags_come_outermost_first() -> None:
    frame = packets.tcp(vlans=(100, 7))
    assert frame[12:22].hex() == "8100" + "0064" + "8100" + "0007" + "0800"


def test_ipv6_by_the_addresses() -> None:
    frame = packets.echo_request(source="fd00::1", destination="fd00::2")
    assert frame[12:14].hex() == "86dd"
    assert frame[20] == packets.IPPROTO_ICMPV6
    pseudo = frame[22:54] + (len(frame) - 54).to_bytes(4, "big") + b"\0\0\0\x3a"
    assert packets.checksum(pseudo + frame[54:]) == 0


def test_mixed_families_are_refused() -> None:
    with pytest.raises(ValueError, match="different families"):
        packets.udp(source="10.0.0.1", destination="fd00::1")


def test_a_short_mac_is_refused() -> None:
    with pytest.raises(ValueError, match="not a MAC address"):
        packets.mac_bytes("02:00")
