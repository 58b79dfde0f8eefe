"""The lab on the real kernel: reachability, traffic makers, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ebpf.errors import Error
from ebpf.lab import Lab, packets, state

pytestmark = pytest.mark.kernel


def test_neighbours_reach_each_other_over_both_families() -> None:
    with Lab() as lab:
        client, server = lab
        assert client.ping(server.address, count=2).received == 2
        assert server.ping(client.address6, count=2).received == 2
        assert client.ping("10.200.1.99", count=1, timeout=0.2).received == 0


def test_the_ends_of_a_row_reach_each_other_through_the_middle() -> None:
    with Lab("client", "router", "server") as lab:
        assert [len(host.interfaces) for host in lab] == [1, 2, 1]
        assert lab["client"].ping(lab["server"].address).received == 3
        assert lab["client"].ping(lab["server"].address6).received == 3


def test_udp_and_tcp_servers_answer() -> None:
    with Lab() as lab:
        client, server = lab
        with server.udp_server(7000) as udp, server.tcp_server(7001) as tcp:
            assert client.udp_echo(server.address, 7000, b"hello") == b"hello"
            assert client.udp(server.address6, 7000, count=5, payload=b"x") == 5
            assert udp.wait(6) == [b"hello"] + [b"x"] * 5
            assert client.tcp_echo(server.address, 7001, b"y" * 100_000) == b"y" * 100_000
            assert tcp.accepted == 1
        assert client.udp_echo(server.address, 7000, timeout=0.2) is None
        assert client.tcp_echo(server.address, 7001, timeout=0.5) is None


def test_frames_arrive_as_they_were_sent_with_real_checksums() -> None:
    with Lab() as lab:
        client, server = lab
        frame = packets.udp(b"raw", port=9, source=client.address, destination=server.address)
        with server.capture() as capture:
            client.send_frame(frame, count=3)
            client.udp(server.address, 10, payload=b"from a socket")
            assert capture.wait(3, matching=lambda data: data == frame) == [frame] * 3
            (sent,) = capture.wait(1, matching=lambda data: data.endswith(b"from a socket"))
        segment = sent[34:]
        pseudo = sent[26:34] + b"\0\x11" + len(segment).to_bytes(2, "big")
        assert packets.checksum(pseudo + segment) == 0, "the checksum was left to an offload"


def test_programs_run_inside_and_see_the_bpffs() -> None:
    with Lab() as lab:
        result = lab["client"].run(["ip", "-brief", "address", "show", "eth0"], check=True)
        assert lab["client"].address in result.stdout
        inside = lab["client"].run(["stat", "--file-system", "--format=%T", str(lab.bpffs)], check=True)
        assert inside.stdout.strip() == "bpf_fs"


def test_what_a_killed_process_left_goes_away_with_the_next_lab() -> None:
    script = "import time, ebpf.lab as l\nwith l.Lab() as lab:\n  print(lab.name, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert name in state.names()
        process.send_signal(signal.SIGKILL)
    with Lab():
        assert name not in state.names()
        assert not any(entry.startswith(name) for entry in os.listdir("/run/netns"))


def test_a_lab_without_owner_stays_until_it_is_taken_down() -> None:
    name = f"stay{os.getpid()}"
    Lab("a", "b", name=name).up()
    try:
        again = Lab.open(name)
        assert again["a"].ping(again["b"].address).received == 3
        with pytest.raises(Error, match="is up already"):
            Lab("a", "b", name=name).up()
    finally:
        Lab.open(name).down()
    with pytest.raises(Error, match="no lab named"):
        Lab.open(name)


def test_entering_leaves_other_threads_and_this_one_where_they_were() -> None:
    before = os.readlink("/proc/self/ns/net")
    with Lab() as lab:
        with lab["client"].entered():
            assert os.readlink("/proc/thread-self/ns/net") != before
        assert os.readlink("/proc/thread-self/ns/net") == before


def test_bad_names_are_refused() -> None:
    with pytest.raises(Error, match="cannot name"):
        Lab("a", "b/c")
    with pytest.raises(Error, match="two or more"):
        Lab("alone")
