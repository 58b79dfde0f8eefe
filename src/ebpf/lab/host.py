"""A host of the lab: a network namespace with its interfaces, and the traffic it can make."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

from ebpf.kernel import namespaces
from ebpf.lab import packets
from ebpf.lab.servers import Capture, TcpServer, UdpServer

ETH_P_ALL = 0x0003
ICMPV6_ECHO_REQUEST, ICMPV6_ECHO_REPLY = 128, 129
ICMP_ECHO_REQUEST, ICMP_ECHO_REPLY = 8, 0


@dataclass(frozen=True, slots=True)
class Interface:
    """One end of a veth pair."""

    name: str  #: inside its host: "eth0" faces the host before it or, for the first host, the next one
    index: int
    mac: str
    address: str  #: IPv4
    address6: str


class PingResult(NamedTuple):
    """How many echo requests were sent, how many answered, and each answer's round trip in seconds."""

    sent: int
    received: int
    times: tuple[float, ...]


@dataclass
class Host:
    """A network namespace of the lab.

    Its sockets and processes are opened by setting the calling thread's network namespace and nothing else,
    so that a bpffs stays visible, which `ip netns exec` would hide.
    """

    name: str
    namespace: str  #: its name under /run/netns
    interfaces: list[Interface] = field(default_factory=list)

    @property
    def interface(self) -> Interface:
        """The first interface."""
        return self.interfaces[0]

    @property
    def address(self) -> str:
        """The IPv4 address of the first interface."""
        return self.interface.address

    @property
    def address6(self) -> str:
        """The IPv6 address of the first interface."""
        return self.interface.address6

    def entered(self) -> AbstractContextManager[None]:
        """Run the block with this thread in the host's network namespace."""
        return namespaces.entered(self.namespace)

    def open_socket(self, family: int, type: int, protocol: int = 0) -> socket.socket:
        """A socket of this host; it stays the host's wherever it is used."""
        with self.entered():
            return socket.socket(family, type, protocol)

    def run(
        self, command: Sequence[str], *, timeout: float | None = 60, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the host and wait for it; its output is captured as text."""
        with self.entered():
            return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=check)

    def ping(
        self, address: str, *, count: int = 3, timeout: float = 1.0, payload: bytes = b"ebpf lab"
    ) -> PingResult:
        """Send `count` echo requests in turn, waiting at most `timeout` seconds for each answer."""
        v6 = ip_address(address).version == 6
        family = socket.AF_INET6 if v6 else socket.AF_INET
        times: list[float] = []
        with self.open_socket(
            family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
        ) as sock:
            identifier = id(sock) & 0xFFFF
            for sequence in range(1, count + 1):
                request = ICMPV6_ECHO_REQUEST if v6 else ICMP_ECHO_REQUEST
                started = time.monotonic()
                sock.sendto(packets.icmp_echo(request, identifier, sequence, payload), (address, 0))
                if _echo_answered(sock, v6, identifier, sequence, started + timeout):
                    times.append(time.monotonic() - started)
        return PingResult(count, len(times), tuple(times))

    def udp(
        self, address: str, port: int, *, count: int = 1, payload: bytes = b"ebpf lab", interval: float = 0
    ) -> int:
        """Send `count` datagrams, `interval` seconds apart; gives the number sent."""
        with self._udp_socket(address) as sock:
            for number in range(count):
                if number and interval:
                    time.sleep(interval)
                sock.sendto(payload, (address, port))
        return count

    def udp_echo(
        self, address: str, port: int, payload: bytes = b"ebpf lab", *, timeout: float = 1.0
    ) -> bytes | None:
        """Send a datagram and give what comes back, or None after `timeout` seconds."""
        with self._udp_socket(address) as sock:
            sock.settimeout(timeout)
            sock.sendto(payload, (address, port))
            try:
                answer: bytes = sock.recv(65536)
            except (TimeoutError, ConnectionRefusedError):
                return None
        return answer

    def tcp_echo(
        self, address: str, port: int, payload: bytes = b"ebpf lab", *, timeout: float = 5.0
    ) -> bytes | None:
        """Connect, send, and give as many bytes as were sent; None if there is no connection in time."""
        family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
        with self.open_socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            try:
                sock.connect((address, port))
                sock.sendall(payload)
                received = bytearray()
                while len(received) < len(payload) and (chunk := sock.recv(65536)):
                    received += chunk
            except (TimeoutError, ConnectionError):
                return None
        return bytes(received)

    def udp_server(self, port: int, *, echo: bool = True) -> UdpServer:
        """A UDP server on all addresses, for a `with` block; it keeps what it received and sends it back."""
        return UdpServer(self.open_socket(socket.AF_INET6, socket.SOCK_DGRAM), port, echo=echo)

    def tcp_server(self, port: int) -> TcpServer:
        """A TCP echo server on all addresses, for a `with` block."""
        return TcpServer(self.open_socket(socket.AF_INET6, socket.SOCK_STREAM), port)

    def send_frame(self, frame: bytes, *, count: int = 1, interface: str | None = None) -> None:
        """Send a whole Ethernet frame as it stands, `count` times."""
        with self.open_socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((interface or self.interface.name, 0))
            for _ in range(count):
                sock.send(frame)

    def capture(self, *, interface: str | None = None) -> Capture:
        """Collect the frames that come in, for a `with` block; XDP has run before they are seen here."""
        sock = self.open_socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.bind((interface or self.interface.name, ETH_P_ALL))
        return Capture(sock)

    @contextmanager
    def _udp_socket(self, address: str) -> Iterator[socket.socket]:
        family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
        with self.open_socket(family, socket.SOCK_DGRAM) as sock:
            yield sock


def _echo_answered(sock: socket.socket, v6: bool, identifier: int, sequence: int, deadline: float) -> bool:
    """Wait for the reply with this identifier and sequence number; a raw socket sees all ICMP of its host."""
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            data = sock.recv(65536)
        except TimeoutError:
            return False
        message = data if v6 else data[(data[0] & 0xF) * 4 :]  # IPv4 raw sockets give the IP header too
        reply = ICMPV6_ECHO_REPLY if v6 else ICMP_ECHO_REPLY
        numbers = int.from_bytes(message[4:6], "big"), int.from_bytes(message[6:8], "big")
        if message[0] == reply and numbers == (identifier, sequence):
            return True
    return False
