"""What answers and listens in a host of the lab; each runs in a thread for the length of a `with` block."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Server:
    """A socket served by a thread; subclasses say what to do when it is readable."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._wake.close()
        self._selector.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    return
                assert isinstance(key.fileobj, socket.socket)
                self._readable(key.fileobj)

    def _readable(self, sock: socket.socket) -> None:
        raise NotImplementedError


class Receiver(Server):
    """A server that keeps what it received, in order."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.received: list[bytes] = []

    def wait(
        self, count: int, *, timeout: float = 2.0, matching: Callable[[bytes], bool] | None = None
    ) -> list[bytes]:
        """What was received and matches, as soon as there are `count` of it, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = [data for data in self.received if matching is None or matching(data)]
                left = deadline - time.monotonic()
                if len(found) >= count or left <= 0:
                    return found
                self._changed.wait(left)

    def _keep(self, data: bytes) -> None:
        with self._changed:
            self.received.append(data)
            self._changed.notify_all()


class UdpServer(Receiver):
    """Receives datagrams on a port of all addresses, IPv4 and IPv6, and sends them back if `echo`."""

    def __init__(self, sock: socket.socket, port: int, *, echo: bool) -> None:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", port))
        super().__init__(sock)
        self.echo = echo

    def _readable(self, sock: socket.socket) -> None:
        data, sender = sock.recvfrom(65536)
        if self.echo:
            sock.sendto(data, sender)
        self._keep(data)


class TcpServer(Server):
    """Accepts connections on a port of all addresses, IPv4 and IPv6, and sends back what comes."""

    def __init__(self, sock: socket.socket, port: int) -> None:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("::", port))
        sock.listen()
        super().__init__(sock)
        self.accepted = 0

    def _readable(self, sock: socket.socket) -> None:
        if sock is self._socket:
            connection, _ = sock.accept()
            self.accepted += 1
            self._selector.register(connection, selectors.EVENT_READ)
            return
        try:
            data = sock.recv(65536)
            sock.sendall(data)
        except ConnectionError:
            data = b""
        if not data:
            self._selector.unregister(sock)
            sock.close()


class Capture(Receiver):
    """Frames that arrive at an interface; ARP and neighbour discovery are among them."""

    def _readable(self, sock: socket.socket) -> None:
        frame, (_, _, packet_type, *_) = sock.recvfrom(65536)
        if packet_type != socket.PACKET_OUTGOING:
            self._keep(frame)
