"""The trace against the kernel: every reader gets every line, and nothing stays behind."""

from __future__ import annotations

import os
import selectors
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ebpf.errors import Error, PrivilegeError
from ebpf.events import trace as trace_module
from ebpf.events.trace import remove_stale_instances, trace
from ebpf.kernel import bpf, mounts
from ebpf.kernel.fd import FD

pytestmark = pytest.mark.kernel

PACKET = bytes(20)


def printer(text: str) -> FD:
    """A socket filter that prints `text`."""
    code = text.encode() + b"\0"
    stack = code.ljust(-(-len(code) // 8) * 8, b"\0")
    insn = struct.Struct("<BBhi").pack
    body = b""
    for at in range(0, len(stack), 8):
        low, high = struct.unpack_from("<ii", stack, at)
        body += insn(0x18, 1, 0, low) + insn(0, 0, 0, high)  # r1 = imm64
        body += insn(0x7B, 0x1A, at - len(stack), 0)  # *(u64 *)(r10 + …) = r1
    body += insn(0xBF, 0xA1, 0, 0) + insn(0x07, 1, 0, -len(stack))  # r1 = r10 - size
    body += insn(0xB7, 2, 0, len(code)) + insn(0x85, 0, 0, 6)  # r2 = length; call trace_printk
    body += insn(0xB7, 0, 0, 0) + insn(0x95, 0, 0, 0)
    return FD(bpf.prog_load(1, body, "GPL", name="printer"))


@pytest.fixture
def hello() -> Iterator[FD]:
    with printer("hello from the test") as program:
        yield program


@pytest.fixture(autouse=True)
def no_instance_stays() -> Iterator[None]:
    yield
    mine = list((mounts.tracefs() / "instances").glob(f"ebpf-{os.getpid()}-*"))
    assert mine == []


def drain(pipe: int) -> str:
    """What other tests printed before is still in the trace that everybody shares."""
    chunks = []
    with suppress(BlockingIOError):
        while True:
            chunks.append(os.read(pipe, 65536))
    return b"".join(chunks).decode()


def run(program: FD, times: int = 1) -> None:
    bpf.prog_test_run(program.fileno(), PACKET, repeat=times)


def test_a_line_and_its_fields(hello: FD) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    with trace(pid=threading.get_native_id(), timeout=5) as lines:
        run(hello)
        line = next(lines)
    assert line.text == "hello from the test"
    assert line.function == "bpf_trace_printk"
    assert line.task == Path("/proc/self/comm").read_text().rstrip("\n")
    assert line.cpu in os.sched_getaffinity(0)
    assert before - 1e-3 <= line.time <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert line.lost == lines.lost == 0


def test_every_reader_gets_every_line(hello: FD) -> None:
    """Two of ours, and the one of the global trace_pipe."""
    me = threading.get_native_id()
    pipe = os.open(mounts.tracefs() / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        drain(pipe)
        with trace(pid=me, timeout=0.2) as first, trace(pid=me, timeout=0.2) as second:
            run(hello, 20)
            assert len(list(first)) == len(list(second)) == 20
        time.sleep(0.05)
        assert drain(pipe).count(f"-{me} ") == 20
    finally:
        os.close(pipe)


def test_no_buffering_delays(hello: FD) -> None:
    sent: list[float] = []

    def later() -> None:
        time.sleep(0.1)
        sent.append(time.monotonic())
        run(hello)

    with trace(timeout=5) as lines:
        thread = threading.Thread(target=later)
        thread.start()
        assert any(line.text == "hello from the test" for line in lines)
        arrived = time.monotonic()
        thread.join()
    assert arrived - sent[0] < 0.25


def test_it_can_be_waited_for(hello: FD) -> None:
    with trace(pid=threading.get_native_id()) as lines, selectors.DefaultSelector() as selector:
        selector.register(lines, selectors.EVENT_READ)
        run(hello)
        assert selector.select(timeout=5)
        assert [line.text for line in lines.read()] == ["hello from the test"]


def test_filters(hello: FD) -> None:
    with trace(task="no such task", timeout=0.1) as none, trace(pid=1, timeout=0.1) as init:
        run(hello)
        assert list(none) == list(init) == []


def test_lines_within_lines_and_none() -> None:
    me = threading.get_native_id()
    with printer("two\nlines\n") as double, printer("") as empty, trace(pid=me, timeout=0.2) as lines:
        run(double)
        run(empty)
        assert [line.text for line in lines] == ["two\nlines", ""]


def test_lost_lines_are_told(hello: FD) -> None:
    me = threading.get_native_id()
    with trace(pid=me, timeout=0.2, buffer_kib=4) as lines:
        affinity = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(affinity)})
        try:
            run(hello, 2000)
        finally:
            os.sched_setaffinity(0, affinity)
        seen = list(lines)
        assert lines.lost == sum(line.lost for line in seen) > 0
        assert len(seen) + lines.lost >= 2000


def test_a_snapshot_takes_nothing(hello: FD) -> None:
    me = threading.get_native_id()
    run(hello)
    first = [line for line in trace(follow=False) if line.pid == me]
    assert first[-1].text == "hello from the test"
    assert [line for line in trace(follow=False) if line.pid == me] == first


def test_the_end_of_a_trace(hello: FD) -> None:
    lines = trace(timeout=0.01)
    assert list(lines) == []
    assert list(lines) == []
    with pytest.raises(Error, match="trace is closed"):
        lines.fileno()
    lines.close()


def test_an_interrupt_cleans_up(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = trace()

    def interrupt() -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(lines, "_wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(lines)
    assert not list((mounts.tracefs() / "instances").glob(f"ebpf-{os.getpid()}-*"))


def test_what_a_killed_process_left_goes() -> None:
    folder = mounts.tracefs()
    process = subprocess.Popen(["true"])
    process.wait()
    stale = folder / "instances" / f"ebpf-{process.pid}-1"
    stale.mkdir()
    alive = folder / "instances" / "ebpf-1-99"
    alive.mkdir()
    try:
        assert stale.name in remove_stale_instances(folder)
        assert not stale.exists()
        assert alive.exists()
    finally:
        alive.rmdir()


def test_without_instances_the_shared_trace_serves(
    hello: FD, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trace_module, "_EVENT", "events/not_there")
    with trace(pid=threading.get_native_id(), timeout=0.3) as lines:
        lines.read()  # what was there before
        run(hello)
        assert [line.text for line in lines] == ["hello from the test"]
        assert "taken from other readers" in (lines.note or "")
    assert "taken from other readers" in caplog.text


def test_without_root() -> None:
    child = os.fork()
    if not child:
        os.setuid(65534)
        try:
            trace()
        except PrivilegeError as error:
            os._exit(0 if "for root only" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(shutil.which("bpftool") is None, reason="compares with bpftool, which is not installed")
def test_beside_bpftool(hello: FD) -> None:
    """`bpftool prog tracelog` reads the global trace_pipe: it loses nothing to us."""
    with trace(pid=threading.get_native_id(), timeout=0.3) as lines:
        tool = subprocess.Popen(["bpftool", "prog", "tracelog"], stdout=subprocess.PIPE, text=True)
        time.sleep(0.15)
        run(hello)
        assert [line.text for line in lines] == ["hello from the test"]
        tool.terminate()
        assert tool.communicate()[0].count("hello from the test") >= 1
