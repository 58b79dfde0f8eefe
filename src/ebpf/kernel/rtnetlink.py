"""Requests to rtnetlink: messages, attributes, and the kernel's errors with their text.

The formats are those of include/uapi/linux/netlink.h; the operations are in `ebpf.kernel.netlink`. A request
goes to the network namespace of the calling thread.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

from ebpf.errors import UnsupportedError

NETLINK_ROUTE = 0
SOL_NETLINK = 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK = 10, 11

NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_DUMP = 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
NLM_F_DUMP_INTR = 0x10  # in an answer: the list changed while it was being read
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200  # in an acknowledgement
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR = struct.Struct("=i")
_RECEIVE_SIZE = 1 << 16  # the kernel fills at most 32 KiB of a dump's buffer
_DUMP_ATTEMPTS = 8


class NetlinkError(OSError):
    """The kernel refused a request. `reason` is its own text (extended acknowledgement, 4.12), or ""."""

    def __init__(self, code: int, reason: str = "") -> None:
        text = os.strerror(code)
        super().__init__(code, f"{text}: {reason}" if reason else text)
        self.reason = reason


def attribute(type: int, payload: bytes) -> bytes:
    """One attribute, padded to 4 bytes."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, type) + payload + bytes(-length % 4)


def nested(type: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(type | NLA_F_NESTED, b"".join(attributes))


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of a message or of a nested attribute, by type; of one that comes twice, the last."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, type = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            raise NetlinkError(errno.EBADMSG, f"attribute at byte {offset} overruns its message")
        found[type & _NLA_TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def request(type: int, body: bytes, *, flags: int = 0) -> list[bytes]:
    """Send one request and give the bodies of what it answers; NetlinkError if the kernel refuses.

    A dump that changes while it is read is read again.
    """
    with _open() as sock:
        dump = flags & NLM_F_DUMP == NLM_F_DUMP
        for sequence in range(1, _DUMP_ATTEMPTS + 1):
            sent = NLM_F_REQUEST | flags | (0 if dump else NLM_F_ACK)
            sock.send(_HEADER.pack(_HEADER.size + len(body), type, sent, sequence, 0) + body)
            answers, interrupted = _answers(sock, sequence)
            if not interrupted:
                return answers
    raise NetlinkError(errno.EAGAIN, "the list kept changing while it was read")


def _open() -> socket.socket:
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        raise UnsupportedError("network interfaces are read through netlink: Linux only", errno=errno.ENOSYS)
    sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK):
        try:
            sock.setsockopt(SOL_NETLINK, option, 1)
        except OSError:  # before 4.12 there is no text, or the whole request comes back: both are read
            continue
    return sock


def _answers(sock: socket.socket, sequence: int) -> tuple[list[bytes], bool]:
    bodies: list[bytes] = []
    interrupted = False
    while True:
        data, _, flags, _ = sock.recvmsg(_RECEIVE_SIZE)
        if flags & socket.MSG_TRUNC:
            raise NetlinkError(errno.EMSGSIZE, f"an answer is longer than {_RECEIVE_SIZE} bytes")
        for type, flags, number, body in messages(data):
            if number != sequence:
                continue  # the rest of an earlier, interrupted dump
            interrupted |= bool(flags & NLM_F_DUMP_INTR)
            if type == NLMSG_ERROR:
                check_acknowledgement(body, flags)
                return bodies, interrupted
            if type == NLMSG_DONE:
                if len(body) >= 4 and _ERROR.unpack_from(body)[0] < 0:
                    raise NetlinkError(-_ERROR.unpack_from(body)[0])
                return bodies, interrupted
            bodies.append(body)


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The (type, flags, sequence, body) of each message in what was received."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, type, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            raise NetlinkError(errno.EBADMSG, f"message at byte {offset} overruns what was received")
        yield type, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def check_acknowledgement(body: bytes, flags: int) -> None:
    """Raise what an NLMSG_ERROR message says; error 0 is success."""
    (code,) = _ERROR.unpack_from(body)
    if code == 0:
        return
    reason = ""
    if flags & NLM_F_ACK_TLVS:
        # After the error comes the request's header, then the request itself unless capped, then attributes.
        original_length = _HEADER.unpack_from(body, _ERROR.size)[0]
        start = _ERROR.size + (_HEADER.size if flags & NLM_F_CAPPED else original_length)
        text = attributes(body[(start + 3) & ~3 :]).get(NLMSGERR_ATTR_MSG, b"")
        reason = text.rstrip(b"\0").decode(errors="replace")
    raise NetlinkError(-code, reason)
