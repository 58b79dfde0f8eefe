"""The few settings of a network device that only the ethtool ioctl changes."""

from __future__ import annotations

import array
import fcntl
import socket
import struct

SIOCETHTOOL = 0x8946

# Commands of include/uapi/linux/ethtool.h that take a struct ethtool_value.
SET_TX_CHECKSUM = 0x17
SET_TCP_SEGMENTATION = 0x1F
SET_GSO = 0x24
SET_GRO = 0x2C


def set_value(interface: str, command: int, value: int) -> None:
    """Run one ethtool command with a number; raises OSError."""
    argument = array.array("B", struct.pack("=II", command, value))
    address, _ = argument.buffer_info()
    request = struct.pack("@16sP", interface.encode(), address).ljust(40, b"\0")  # struct ifreq
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL, request)


def behave_like_wire(interface: str) -> None:
    """Make a veth end that is up carry what a cable would: real checksums, no packet larger than the MTU.

    GRO is turned on because a veth end without an XDP program receives through NAPI only then, which frames
    redirected to its peer need. It is NAPI of the moment: turning it on before the interface is up does
    nothing (drivers/net/veth.c: veth_open, veth_set_features). XDP_TX of the peer needs more, a program on
    this end.
    """
    set_value(interface, SET_TX_CHECKSUM, 0)
    set_value(interface, SET_TCP_SEGMENTATION, 0)
    set_value(interface, SET_GSO, 0)
    set_value(interface, SET_GRO, 1)
