"""Every example as a user runs it, and what its program does to packets, seen from outside of it."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest

import ebpf
from ebpf.compiler import toolchain
from ebpf.compiler.compile import compile_object
from ebpf.kernel import netlink
from ebpf.lab import Host, Lab, packets

pytestmark = pytest.mark.kernel

EXAMPLES = Path(__file__).parents[2] / "examples"
PASS, DROP, TX = ebpf.XdpAction.PASS, ebpf.XdpAction.DROP, ebpf.XdpAction.TX

#: What each prints in its lab: a regular expression for the whole output.
PRINTED = {
    "hash_of_maps": r"port 53: 10 packets from 10\.200\.1\.1\nport 123: 20 packets from 10\.200\.1\.1\n",
    "lpm_firewall": r"no rule: 3 of 3 pings answered\n"
    r"10\.0\.0\.0/8 denied: 0 of 3 pings answered\n"
    r"10\.0\.0\.0/8 denied, 10\.200\.1\.1/32 allowed: 3 of 3 pings answered\n"
    r"(?=(.*\n)*10\.0\.0\.0/8: DENY, [34] packets\n)(?=(.*\n)*10\.200\.1\.1/32: ALLOW, 3 packets\n)(.*\n){2}",
    "printk": r"(CPU \d+, .+: IPv4 10\.200\.1\.1 protocol 1, 36 bytes\n){3}",
    "variables": r"(2\d small, 5 large, the largest 1042 bytes\n)switched off:\n\1"
    r"too late for a constant: variable 'sample_rate' .*\n.*hint.*\n",
    "xdp_counters": r"DROP +10 packets +500 bytes   by CPU: .*\nPASS +\d+ packets +\d+ bytes   by CPU: .*\n",
    "xdp_icmp_echo": r"the kernel answered 0 of 3\n"
    r"XDP answered 3 of 3 over IPv4\nXDP answered 3 of 3 over IPv6\n6 answered\n",
    "xdp_parse": r"(?=(.*\n)*UDP port +5001 +4 packets)(?=(.*\n)*UDP port +5002 +2 packets)"
    r"(?=(.*\n)*UDP port +53 +10 packets)(?=(.*\n)*TCP port +7000 +)(?=(.*\n)*ICMP type +8 +3 packets)"
    r"(?=(.*\n)*ICMPv6 type +128 +3 packets)(.*\n)*not parsed: \d+ packets\n",
    "xdp_pass_drop": r"xdp_pass: 3 of 3 pings answered\nxdp_drop: 0 of 3 pings answered\n",
    "xdp_pinned": r"first run: from 0 to (\d+) packets\nsecond run: from \1 to \d+ packets\n",
    "xdp_port_rewrite": r"10\.200\.2\.2: sent to port 8080, answered with \(b'udp', b'tcp'\)\n"
    r"fd00:200:2::2: sent to port 8080, answered with \(b'udp', b'tcp'\)\n"
    r"the server on port 80 received 2 datagrams\n\d+ packets rewritten\n",
    "xdp_redirect": r"10\.200\.2\.2: 5 of 5 pings answered, 100000 bytes came back over TCP\n"
    r"fd00:200:2::2: 5 of 5 pings answered, 100000 bytes came back over TCP\n"
    r"[1-9]\d+ packets redirected, \d+ left to the kernel\n",
    "xdp_tail_calls": r"icmp_messages \d+, tcp_segments \d, tcp_connections 1, udp_datagrams 10, "
    r"udp_bytes 100, others \d\nwithout the program for UDP:\n"
    r"icmp_messages \d+, tcp_segments \d, tcp_connections 1, udp_datagrams 10, udp_bytes 100, others 1\d\n",
}
#: What else each needs to be told with --iface.
OPTIONS = {"xdp_port_rewrite": ["--servers", "eth1"], "xdp_redirect": ["--iface", "eth1"]}


@pytest.fixture(scope="module")
def chain() -> Iterator[Lab]:
    with Lab("client", "router", "server") as lab:
        yield lab


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    with Lab("client", "server") as lab:
        assert lab["client"].ping(lab["server"].address).received  # the neighbours know each other
        yield lab


def compiled(name: str) -> ebpf.Spec:
    return ebpf.compile(EXAMPLES / f"{name}.bpf.c")


# --- all of them ------------------------------------------------------------------------------------------


def test_no_example_is_forgotten() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PRINTED)
    assert {path.name.removesuffix(".bpf.c") for path in EXAMPLES.glob("*.c")} == set(PRINTED)
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - {"__pycache__"} == {"demo"}
    index = (EXAMPLES / "README.md").read_text()
    assert set(re.findall(r"^\| \[(\w+)\]\(\1\.bpf\.c\)", index, re.MULTILINE)) == set(PRINTED)


def compilers() -> dict[str, str]:
    """One of each version that is installed."""
    found: dict[str, str] = {}
    for name in ("clang", *(f"clang-{version}" for version in range(14, 30))):
        if path := shutil.which(name):
            found.setdefault(str(Path(path).resolve()), name)
    zig = toolchain.zig_directory()
    if zig is not None:
        found[str(zig / "zig")] = "zig"
    return {name: path for path, name in found.items()}


@pytest.mark.parametrize("compiler", compilers())
def test_compiles_without_a_warning(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLANG", compilers()[compiler])
    for name in PRINTED:
        made = compile_object(EXAMPLES / f"{name}.bpf.c", flags=["-Wall", "-Wextra", "-Wno-unused-parameter"])
        assert made.diagnostics == (), name


@pytest.mark.parametrize("name", PRINTED)
def test_in_its_lab(name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "dev", EXAMPLES / f"{name}.py"], capture_output=True, text=True, timeout=30
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    assert re.fullmatch(PRINTED[name], result.stdout), result.stdout


@pytest.mark.parametrize("name", PRINTED)
def test_on_an_interface_until_interrupted(name: str, chain: Lab) -> None:
    """With --iface it attaches there, says something, and Ctrl-C takes it off without a word of complaint."""
    client, router, _ = chain
    options = ["--pins", str(chain.bpffs)] if name == "xdp_pinned" else OPTIONS.get(name, [])
    command = [sys.executable, "-X", "dev", str(EXAMPLES / f"{name}.py"), "--iface", "eth0", *options]
    with router.entered():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None and process.stderr is not None
        try:
            spoken = wait_for_output(process, client, router)
            assert attached(router, "eth0"), process.poll()
        finally:
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=10)
    assert spoken, errors
    assert (process.returncode, errors) == (0, ""), output + errors
    assert not attached(router, "eth0") and not attached(router, "eth1")
    if name == "xdp_pinned":
        subprocess.run([*command, "--unpin"], check=True)
        assert not (chain.bpffs / "packet_count").exists()


def wait_for_output(process: subprocess.Popen[str], client: Host, router: Host) -> bool:
    """Send traffic until the example prints something; false if it does not within seconds."""
    deadline = time.monotonic() + 10
    with selectors.DefaultSelector() as selector:
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline and process.poll() is None:
            if attached(router, "eth0"):
                client.udp(router.address, 53)
            if selector.select(0.05):
                return True
    return False


def attached(host: Host, interface: str) -> bool:
    with host.entered():
        return bool(netlink.link(interface).xdp)


# --- each of them, and packets ------------------------------------------------------------------------------


def test_dropped_packets_do_not_arrive(pair: Lab) -> None:
    client, server = pair
    with compiled("xdp_pass_drop").load() as obj, server.udp_server(7000) as udp, server.entered():
        with obj.programs["xdp_pass"].attach("eth0"):
            client.udp(server.address, 7000, count=3, payload=b"passed")
            udp.wait(3)
        with obj.programs["xdp_drop"].attach("eth0"):
            client.udp(server.address, 7000, count=3, payload=b"dropped")
        client.udp(server.address, 7000, payload=b"after")
        assert udp.wait(4) == [b"passed"] * 3 + [b"after"]


def test_counters_are_exact(pair: Lab) -> None:
    client, server = pair
    spec = compiled("xdp_counters")
    spec.variables["dropped_port"] = 7001
    with (
        spec.load() as obj,
        server.udp_server(7000) as udp,
        server.udp_server(7001) as dropped,
        server.entered(),
    ):
        counters = obj.maps["counters"]
        with obj.programs["xdp_counters"].attach("eth0"):
            client.udp(server.address, 7001, count=20, payload=bytes(58))
            client.udp(server.address, 7000, count=5)
            assert len(udp.wait(5)) == 5
        assert dropped.received == []
        assert counters[DROP].sum() == {"packets": 20, "bytes": 20 * 100}
        assert counters[PASS].sum().packets >= 5
        assert [counters[action].sum().packets for action in (0, TX, ebpf.XdpAction.REDIRECT)] == [0, 0, 0]


@pytest.mark.parametrize("options", [bytes(4), b""])
def test_counters_do_not_take_options_for_ports(options: bytes) -> None:
    with compiled("xdp_counters").load() as obj:
        result = obj.programs["xdp_counters"].run(packets.udp(port=9, options=options))
        assert result.action == (PASS if options else DROP)


def test_a_pinned_counter_goes_on(pair: Lab) -> None:
    spec = compiled("xdp_pinned")
    pins = pair.bpffs / "pinned"
    for loads in (1, 2):
        with spec.load(pin_path=pins) as obj:
            obj.programs["xdp_pinned"].run(packets.udp(), repeat=10)
            assert obj.maps["packet_count"][0] == 10 * loads
    assert [path.name for path in pins.iterdir()] == ["packet_count"]
    pins.joinpath("packet_count").unlink()


def ipv6(payload: bytes, protocol: int) -> bytes:
    packet = packets.ip(payload, protocol=protocol, source="fd00::1", destination="fd00::2")
    return packets.ethernet(packet, type=packets.ETH_P_IPV6)


UDP6 = packets.udp(b"payload", port=4000, source="fd00::1", destination="fd00::2")[54:]
HOP_BY_HOP = bytes([socket.IPPROTO_DSTOPTS, 0]) + bytes(6)
OPTIONS6 = bytes([socket.IPPROTO_AH, 2]) + bytes(22)
AUTHENTICATION = bytes([socket.IPPROTO_FRAGMENT, 4]) + bytes(22)
ATOMIC_FRAGMENT = bytes([socket.IPPROTO_UDP, 0, 0, 1, 0, 0, 0, 1])
LATER_FRAGMENT = bytes([socket.IPPROTO_UDP, 0, 0, 8, 0, 0, 0, 1])
QINQ = struct.pack("!HHHH", 0x88A8, 100, 0x8100, 200)

TCP, UDP, ICMP, ICMPV6 = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6

PARSED: dict[str, tuple[bytes, tuple[int, int] | None]] = {
    "udp": (packets.udp(port=53), (UDP, 53)),
    "tcp": (packets.tcp(port=443), (TCP, 443)),
    "tcp, ipv6": (packets.tcp(port=443, source="fd00::1", destination="fd00::2"), (TCP, 443)),
    "icmp": (packets.echo_request(), (ICMP, 8)),
    "icmpv6": (packets.echo_request(source="fd00::1", destination="fd00::2"), (ICMPV6, 128)),
    "vlan": (packets.udp(port=53, vlans=(5,)), (UDP, 53)),
    "802.1ad": (packets.udp(port=53)[:12] + QINQ + packets.udp(port=53)[12:], (UDP, 53)),
    "four vlans": (packets.udp(port=53, vlans=(1, 2, 3, 4)), (UDP, 53)),
    "five vlans": (packets.udp(port=53, vlans=(1, 2, 3, 4, 5)), None),
    "40 bytes of options": (packets.udp(port=53, options=bytes([1]) * 40), (UDP, 53)),
    "an impossible header length": (packets.udp()[:14] + b"\x44" + packets.udp()[15:], None),
    "a later ipv4 fragment": (packets.udp(port=53)[:20] + b"\0\1" + packets.udp(port=53)[22:], (UDP, 0)),
    "another protocol": (
        packets.ethernet(
            packets.ip(b"gre", protocol=47, source="10.0.0.1", destination="10.0.0.2"), type=packets.ETH_P_IP
        ),
        (47, 0),
    ),
    "arp": (packets.ethernet(bytes(46), type=0x0806), None),
    "extension headers": (
        ipv6(HOP_BY_HOP + OPTIONS6 + AUTHENTICATION + ATOMIC_FRAGMENT + UDP6, socket.IPPROTO_HOPOPTS),
        (UDP, 4000),
    ),
    "a later ipv6 fragment": (ipv6(LATER_FRAGMENT + UDP6, socket.IPPROTO_FRAGMENT), (UDP, 0)),
    "too many extension headers": (
        ipv6((bytes([socket.IPPROTO_DSTOPTS, 0]) + bytes(6)) * 9 + UDP6, socket.IPPROTO_DSTOPTS),
        None,
    ),
}


@pytest.mark.parametrize("case", PARSED)
def test_parse(case: str) -> None:
    frame, service = PARSED[case]
    with compiled("xdp_parse").load() as obj:
        assert obj.programs["xdp_parse"].run(frame, repeat=3).action == PASS
        found = {
            (key.protocol, key.port): (value.packets, value.bytes)
            for key, value in obj.maps["services"].items()
        }
        assert found == ({service: (3, 3 * len(frame))} if service else {})
        assert obj.variables["unparsed"] == (0 if service else 3)


def test_parse_wherever_the_packet_ends() -> None:
    frame, service = PARSED["extension headers"]
    ports_end = len(frame) - len(UDP6) + 4
    with compiled("xdp_parse").load() as obj:
        for length in range(14, len(frame)):
            obj.programs["xdp_parse"].run(frame[:length])
        assert obj.variables["unparsed"] == ports_end - 14
        ((key, value),) = obj.maps["services"].items()
        assert ((key.protocol, key.port), value.packets) == (service, len(frame) - ports_end)


ADDRESSES = [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")]


@pytest.mark.parametrize("make", [packets.udp, packets.tcp])
@pytest.mark.parametrize(("source", "destination"), ADDRESSES)
def test_rewritten_packets_are_as_if_made_so(make: object, source: str, destination: str) -> None:
    assert callable(make)
    common = {"source": source, "destination": destination}
    with compiled("xdp_port_rewrite").load() as obj:
        rewrite, restore = obj.programs["rewrite"], obj.programs["restore"]
        for payload in (b"", b"odd", bytes(100)):
            public, server = (make(payload, port=port, **common) for port in (8080, 80))
            assert rewrite.run(public).data == server
            assert rewrite.run(server).data == server
            public, server = (make(payload, source_port=port, **common) for port in (8080, 80))
            assert restore.run(server).data == public
            assert restore.run(public).data == public
        assert obj.variables["rewritten"] == 6


def test_rewriting_leaves_alone_what_has_no_ports() -> None:
    whole = packets.udp(b"payload", port=8080)
    fragment = whole[:20] + b"\0\1" + whole[22:]
    tagged = packets.udp(port=8080, vlans=(7,))
    with compiled("xdp_port_rewrite").load() as obj:
        for frame in (fragment, tagged, whole[:35], packets.ethernet(bytes(46), type=0x0806)):
            assert obj.programs["rewrite"].run(frame).data == frame
        assert obj.variables["rewritten"] == 0


def test_rewriting_keeps_to_the_rules_of_udp_checksums() -> None:
    with compiled("xdp_port_rewrite").load() as obj:
        rewrite = obj.programs["rewrite"]
        # Without a checksum there is none afterwards.
        without = packets.udp(port=8080)[:40] + bytes(2)
        assert rewrite.run(without).data == packets.udp(port=80)[:40] + bytes(2)
        # A payload with which the sum for port 80 comes out as zero, which is written as 0xffff.
        word = packets.udp(bytes(2), port=80)[40:42]
        expected = packets.udp(word, port=80)
        assert expected[40:42] == b"\xff\xff"
        assert rewrite.run(packets.udp(word, port=8080)).data == expected
        options = bytes([1]) * 12
        assert rewrite.run(packets.udp(port=8080, options=options)).data == packets.udp(
            port=80, options=options
        )


def test_rewritten_datagrams_arrive_and_answers_come_from_the_port_that_was_asked(chain: Lab) -> None:
    client, router, server = chain
    with (
        compiled("xdp_port_rewrite").load() as obj,
        router.entered(),
        obj.programs["rewrite"].attach("eth0"),
        server.udp_server(80) as udp,
    ):
        for address, family in ((server.address, socket.AF_INET), (server.address6, socket.AF_INET6)):
            with client.open_socket(family, socket.SOCK_DGRAM) as sock:
                sock.settimeout(0.3)
                sock.connect((address, 8080))  # takes datagrams from this port only
                sock.send(b"lost answer")
                with pytest.raises((TimeoutError, ConnectionRefusedError)):
                    sock.recv(100)
                with obj.programs["restore"].attach("eth1"):
                    sock.send(b"with an answer")
                    assert sock.recv(100) == b"with an answer"
        assert udp.received == [b"lost answer", b"with an answer"] * 2


@pytest.mark.parametrize(("source", "destination"), ADDRESSES)
def test_an_echo_request_becomes_the_reply(source: str, destination: str) -> None:
    request = packets.echo_request(b"payload", source=source, destination=destination, sequence=7)
    asking, asked = packets.CLIENT_MAC, packets.SERVER_MAC
    if ip_address(source).version == 4:
        far = (
            request[:22]
            + b"\x05"
            + request[23:24]
            + struct.pack("!H", ipv4_checksum(request, ttl=5))
            + request[26:]
        )
        reply = packets.ip(
            packets.icmp_echo(0, 1, 7, b"payload"), protocol=ICMP, source=destination, destination=source
        )
        expected = packets.ethernet(reply, type=packets.ETH_P_IP, source=asked, destination=asking)
    else:
        far = request[:21] + b"\x05" + request[22:]
        message = packets.icmp_echo(129, 1, 7, b"payload")
        pseudo = request[38:54] + request[22:38] + struct.pack("!II", len(message), ICMPV6)
        total = packets.checksum(pseudo + message[:2] + bytes(2) + message[4:])
        message = message[:2] + struct.pack("!H", total) + message[4:]
        reply = packets.ip(message, protocol=ICMPV6, source=destination, destination=source)
        expected = packets.ethernet(reply, type=packets.ETH_P_IPV6, source=asked, destination=asking)
    with compiled("xdp_icmp_echo").load() as obj:
        for frame in (request, far):
            result = obj.programs["xdp_icmp_echo"].run(frame)
            assert (result.action, result.data) == (TX, expected)
        multicast = b"\x01" + request[1:]
        for frame in (expected, multicast, request[:36], packets.udp(source=source, destination=destination)):
            result = obj.programs["xdp_icmp_echo"].run(frame)
            assert (result.action, result.data) == (PASS, frame)


def ipv4_checksum(frame: bytes, *, ttl: int) -> int:
    return packets.checksum(frame[14:22] + bytes([ttl]) + frame[23:24] + bytes(2) + frame[26:34])


def test_redirected_packets_go_past_the_stack(chain: Lab) -> None:
    client, router, server = chain
    assert (
        client.ping(server.address).received and client.ping(server.address6).received
    )  # neighbours are known
    with compiled("xdp_redirect").load() as obj, ExitStack() as stack:
        for end in (client, server):
            with end.entered():
                stack.enter_context(obj.programs["xdp_receive"].attach("eth0"))
        with router.entered():
            for interface in router.interfaces:
                obj.maps["ports"][interface.index] = interface.index
                stack.enter_context(obj.programs["xdp_redirect"].attach(interface.name))
        before = forwarded(router)
        frame = packets.udp(
            b"redirected", port=7000, source=client.address, destination=server.address, source_port=40000
        )
        addressed = (
            packets.mac_bytes(router.interfaces[0].mac) + packets.mac_bytes(client.interface.mac) + frame[12:]
        )
        with server.capture() as capture, server.tcp_server(7001):
            client.send_frame(addressed, count=3)
            assert client.ping(server.address, count=5).received == 5
            assert client.ping(server.address6, count=5).received == 5
            assert client.tcp_echo(server.address6, 7001, bytes(50_000)) == bytes(50_000)
            received = [data for data in capture.wait(10) if data.endswith(b"redirected")]
        assert forwarded(router) == before, "the kernel forwarded what XDP should have redirected"
        assert obj.variables["redirected"] > 20
    assert len(received) == 3
    to, sender, ip = received[0][:6], received[0][6:12], received[0][14:34]
    assert (to, sender) == (
        packets.mac_bytes(server.interface.mac),
        packets.mac_bytes(router.interfaces[1].mac),
    )
    assert (ip[8], packets.checksum(ip)) == (63, 0)
    assert received[0][34:] == frame[34:]


def forwarded(host: Host) -> tuple[int, int]:
    """How many packets the kernel has forwarded, IPv4 and IPv6."""
    with host.entered():
        names, values = [
            line.split()
            for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
            if line[:3] == "Ip:"
        ]
        snmp6 = Path("/proc/thread-self/net/snmp6").read_text()
    match = re.search(r"Ip6OutForwDatagrams\s+(\d+)", snmp6)
    assert match
    return int(values[names.index("ForwDatagrams")]), int(match[1])


def test_packets_that_are_not_for_a_fast_path_are_left_as_they_are(chain: Lab) -> None:
    _, router, server = chain
    dying = packets.udp(source="10.200.1.1", destination=server.address)
    dying = dying[:22] + b"\1" + dying[23:24] + struct.pack("!H", ipv4_checksum(dying, ttl=1)) + dying[26:]
    options = packets.udp(source="10.200.1.1", destination=server.address, options=bytes([1]) * 4)
    with compiled("xdp_redirect").load() as obj, router.entered():  # with no interface in the devmap
        plain = packets.udp(source="10.200.1.1", destination=server.address)
        for frame in (dying, options, plain, packets.ethernet(bytes(46), type=0x0806)):
            result = obj.programs["xdp_redirect"].run(frame)
            assert (result.action, result.data) == (PASS, frame)
        assert obj.variables["left_to_the_kernel"] == 4


def test_tail_calls_reach_the_program_for_the_protocol() -> None:
    with compiled("xdp_tail_calls").load() as obj:
        start = obj.programs["xdp_tail_calls"]
        ids = dict(obj.maps["protocols"].items())
        assert sorted(ids) == [ICMP, TCP, UDP, ICMPV6]
        assert ids[UDP] == obj.programs["on_udp"].id
        for frame in (
            packets.udp(bytes(100)),
            packets.udp(bytes(100), options=bytes([1]) * 40),
            packets.tcp(source="fd00::1", destination="fd00::2"),
            packets.tcp(flags=0x10),
            packets.echo_request(),
            packets.ethernet(bytes(46), type=0x0806),
        ):
            assert start.run(frame).action == PASS
        counted = {name: obj.variables[name] for name in obj.variables}
        assert counted == {
            "icmp_messages": 1,
            "tcp_segments": 2,
            "tcp_connections": 1,
            "udp_datagrams": 2,
            "udp_bytes": 200,
            "others": 1,
        }
        obj.maps["protocols"][UDP] = obj.programs["on_icmp"]  # replaced while it runs
        start.run(packets.udp())
        assert (obj.variables["icmp_messages"], obj.variables["udp_datagrams"]) == (2, 2)


def test_printk_names_the_sender() -> None:
    sender = f"10.9.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"  # others may print at the same time
    with compiled("printk").load() as obj, ebpf.trace(timeout=2) as lines:
        obj.programs["printk"].run(packets.udp(b"four", source=sender))
        assert f"IPv4 {sender} protocol 17, 32 bytes" in (line.text for line in lines)


def test_variables_configure_and_count() -> None:
    spec = compiled("variables")
    spec.variables["small"] = 100
    spec.variables["sample_rate"] = 4
    with spec.load() as obj:
        run = obj.programs["variables"].run
        run(bytes(100), repeat=40)
        run(bytes(101), repeat=8)
        assert (obj.variables["seen"], obj.variables["packets"]) == (48, {"small": 10, "large": 2})
        assert obj.variables["largest"] == 101
        obj.variables["enabled"] = False
        run(bytes(200), repeat=8)
        assert (obj.variables["seen"], obj.variables["largest"]) == (48, 101)
        with pytest.raises(ebpf.Error, match="frozen"):
            obj.variables["small"] = 1
    assert spec.variables["enabled"] is True


def test_tables_of_a_hash_of_maps_are_exchanged_in_one_step() -> None:
    with (
        compiled("hash_of_maps").load() as obj,
        obj.maps["watched"].create_inner() as old,
        obj.maps["watched"].create_inner() as new,
    ):
        run, watched = obj.programs["hash_of_maps"].run, obj.maps["watched"]
        run(packets.udp(port=53))
        watched[53] = old
        run(packets.udp(port=53), repeat=5)
        run(packets.udp(port=54), repeat=5)
        watched[53] = new
        run(packets.udp(port=53, source="10.0.0.9"), repeat=7)
        assert dict(old) == {int(ip_address("10.0.0.1")): 5}
        assert dict(new) == {int(ip_address("10.0.0.9")): 7}
        assert list(watched) == [53]


def test_the_longest_prefix_decides() -> None:
    spec = compiled("lpm_firewall")
    rules = {"10.0.0.0/8": "DENY", "10.1.0.0/16": "ALLOW", "10.1.2.3": "DENY", "fd00::/16": "DENY"}
    expected = {
        "11.0.0.1": PASS,
        "10.0.0.1": DROP,
        "10.1.0.1": PASS,
        "10.1.2.3": DROP,
        "10.1.2.4": PASS,
        "fd00::1": DROP,
        "fd01::1": PASS,
    }
    with spec.load() as obj:
        for prefix, verdict in rules.items():
            obj.maps[f"rules{ip_address(prefix.partition('/')[0]).version}"][prefix] = {"verdict": verdict}
        actions = {}
        for sender in expected:
            destination = "10.0.0.2" if ip_address(sender).version == 4 else "fd00::2"
            frame = packets.udp(source=sender, destination=destination)
            actions[sender] = obj.programs["lpm_firewall"].run(frame).action
        assert actions == expected
        assert obj.maps["rules4"]["10.1.0.0/16"].packets == 2
    spec.variables["otherwise"] = "DENY"
    with spec.load() as obj:
        assert obj.programs["lpm_firewall"].run(packets.udp()).action == DROP
        assert obj.programs["lpm_firewall"].run(packets.ethernet(bytes(46), type=0x0806)).action == PASS
