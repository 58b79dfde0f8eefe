"""bpf(2) packing and errno paths, with a fake in the kernel's place."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ebpf.errors import Error, UnsupportedError
from ebpf.kernel import bpf, bpf_maps, features, memlock, system
from ebpf.kernel.attr import Layout
from ebpf.kernel.fd import FD
from ebpf.kernel.system import read_memory, write_memory
from ebpf.uapi import Command, MapFlags

Answer = Callable[[bytearray], int]


class FakeSystem:
    """Answers bpf(2) with one function per command; anything else is EINVAL, as for an old kernel."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = {Command[name]: answer for name, answer in answers.items()}
        self.calls: list[tuple[Command, bytes]] = []

    def bpf(self, command: int, attr: bytearray) -> int:
        self.calls.append((Command(command), bytes(attr)))
        if command not in self.answers:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self.answers[Command(command)](attr)

    def perf_event_open(self, attr: bytearray, pid: int, cpu: int, group_fd: int, flags: int) -> int:
        raise NotImplementedError

    def mount(self, source: str, target: str, filesystem: str, flags: int = 0, data: str = "") -> None:
        raise NotImplementedError

    def umount(self, target: str, flags: int = 0) -> None:
        raise NotImplementedError

    def setns(self, fd: int, kind: int) -> None:
        raise NotImplementedError

    def unshare(self, flags: int) -> None:
        raise NotImplementedError


def fails(code: int) -> Answer:
    def answer(attr: bytearray) -> int:
        raise OSError(code, os.strerror(code))

    return answer


def u32(data: bytes | bytearray, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], sys.byteorder)


def u64(data: bytes | bytearray, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], sys.byteorder)


# Offsets of union bpf_attr as pahole prints them; the packing must agree.


def test_layouts_have_the_kernel_s_offsets() -> None:
    assert bpf._PROG_LOAD.offsets == {
        "prog_type": 0, "insn_cnt": 4, "insns": 8, "license": 16, "log_level": 24, "log_size": 28,
        "log_buf": 32, "kern_version": 40, "prog_flags": 44, "prog_name": 48, "prog_ifindex": 64,
        "expected_attach_type": 68, "prog_btf_fd": 72, "func_info_rec_size": 76, "func_info": 80,
        "func_info_cnt": 88, "line_info_rec_size": 92, "line_info": 96, "line_info_cnt": 104,
        "attach_btf_id": 108, "attach_prog_fd": 112, "core_relo_cnt": 116, "fd_array": 120,
        "core_relos": 128, "core_relo_rec_size": 136, "log_true_size": 140, "prog_token_fd": 144,
        "fd_array_cnt": 148,
    }  # fmt: skip
    assert (bpf_maps._MAP_CREATE.offsets["map_extra"], bpf_maps._MAP_CREATE.offsets["map_token_fd"]) == (
        64,
        76,
    )
    assert bpf._TEST_RUN.offsets["batch_size"] == 72
    assert bpf._PROG_QUERY.offsets["revision"] == 56
    assert bpf_maps._BATCH.offsets["elem_flags"] == 40
    assert Layout("a:B b:Q c:16s d:I").offsets == {"a": 0, "b": 8, "c": 16, "d": 32}


def test_map_create() -> None:
    fake = FakeSystem(MAP_CREATE=lambda attr: 7)
    with system.use(fake):
        assert bpf.map_create(1, 4, 8, 16, name="a_name_that_is_too_long", numa_node=1, flags=1) == 7
    attr = fake.calls[0][1]
    assert struct.unpack_from("=7I16s", attr) == (
        1, 4, 8, 16, 1 | MapFlags.NUMA_NODE, 0, 1, b"a_name_that_is_\0",
    )  # fmt: skip


def test_pointers_lead_to_the_data() -> None:
    seen: list[bytes] = []

    def answer(attr: bytearray) -> int:
        seen.append(read_memory(u64(attr, 8), u32(attr, 4) * 8))
        seen.append(read_memory(u64(attr, 16), 4))
        seen.append(read_memory(u64(attr, 120), 8))
        write_memory(u64(attr, 32), b"the log\0")
        assert u32(attr, 28) == 64
        return 5

    log = bytearray(64)
    with system.use(FakeSystem(PROG_LOAD=answer)):
        fd = bpf.prog_load(6, b"12345678" * 2, "GPL", log_level=1, log=log, fd_array=(3, -1))
    assert fd == 5
    assert seen == [b"12345678" * 2, b"GPL\0", struct.pack("=ii", 3, -1)]
    assert log.startswith(b"the log\0")


def test_a_queue_has_no_key() -> None:
    def answer(attr: bytearray) -> int:
        assert u64(attr, 8) == 0
        write_memory(u64(attr, 16), b"abcd")
        return 0

    with system.use(FakeSystem(MAP_LOOKUP_AND_DELETE_ELEM=answer)):
        assert bpf.map_lookup_and_delete(3, b"", 4) == b"abcd"


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EPERM, errno.E2BIG, errno.ENOSPC])
def test_errno_comes_through(code: int) -> None:
    with system.use(FakeSystem(MAP_LOOKUP_ELEM=fails(code))), pytest.raises(OSError) as caught:
        bpf.map_lookup(3, b"key!", 4)
    assert caught.value.errno == code


def test_ids_end_at_enoent() -> None:
    following = {0: 3, 3: 9}

    def answer(attr: bytearray) -> int:
        if u32(attr, 0) not in following:
            raise FileNotFoundError(errno.ENOENT, "")
        attr[4:8] = following[u32(attr, 0)].to_bytes(4, sys.byteorder)
        return 0

    with system.use(FakeSystem(LINK_GET_NEXT_ID=answer)):
        assert list(bpf.ids(bpf.Kind.LINK)) == [3, 9]
        assert bpf.next_id(bpf.Kind.LINK, 9) is None


def test_batches_tell_how_far_they_came() -> None:
    def stopped(code: int) -> Answer:
        def answer(attr: bytearray) -> int:
            attr[32:36] = (2).to_bytes(4, sys.byteorder)
            raise OSError(code, os.strerror(code))

        return answer

    with (
        system.use(FakeSystem(MAP_UPDATE_BATCH=stopped(errno.E2BIG))),
        pytest.raises(bpf.BatchError) as caught,
    ):
        bpf.map_update_batch(3, bytes(16), bytes(16), 4)
    assert (caught.value.done, caught.value.errno) == (2, errno.E2BIG)
    keys, values = bytearray(16), bytearray(16)
    with system.use(FakeSystem(MAP_LOOKUP_BATCH=stopped(errno.ENOENT))):
        assert bpf.map_lookup_batch(3, keys, values, 4) == (2, None)
    with system.use(FakeSystem(MAP_LOOKUP_BATCH=stopped(errno.ENOSPC))), pytest.raises(bpf.BatchError):
        bpf.map_lookup_batch(3, keys, values, 4)


def test_query_asks_again_with_more_room() -> None:
    def answer(attr: bytearray) -> int:
        room = u32(attr, 24)
        attr[24:28] = (100).to_bytes(4, sys.byteorder)
        if room < 100:
            raise OSError(errno.ENOSPC, "")
        write_memory(u64(attr, 16), struct.pack("=100I", *range(100)))
        return 0

    fake = FakeSystem(PROG_QUERY=answer)
    with system.use(fake):
        assert bpf.prog_query(1, 0) == tuple(range(100))
    assert len(fake.calls) == 2


def test_the_locked_memory_limit_of_old_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 5.11, EPERM may be RLIMIT_MEMLOCK: raised once, then tried again."""
    limits = [65536]

    def create(attr: bytearray) -> int:
        if limits[-1] == 65536:
            raise PermissionError(errno.EPERM, "")
        return 9

    monkeypatch.setattr(memlock, "raise_limit", lambda: limits.append(-1) is None)
    fake = FakeSystem(MAP_CREATE=create, MAP_FREEZE=fails(errno.EPERM))
    with system.use(fake):
        assert bpf.map_create(1, 4, 4, 1) == 9
        assert len(fake.calls) == 2
        with pytest.raises(PermissionError):
            bpf.map_freeze(3)
    assert limits == [65536, -1]


def test_when_memory_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Uname:
        release = "5.10.0-28-amd64"

    monkeypatch.setattr(memlock.os, "uname", Uname)
    assert memlock.kernel_version() == (5, 10, 0)
    assert memlock.counts_memlock()
    Uname.release = "6.1-rc3+"
    assert memlock.kernel_version() == (6, 1, 0)
    assert not memlock.counts_memlock()
    assert memlock.raise_limit() is False


# --- the choke point ------------------------------------------------------------------------------------


def test_use_puts_the_kernel_back() -> None:
    before = system._current
    with suppress(RuntimeError), system.use(FakeSystem()) as fake:
        assert system.current() is fake
        raise RuntimeError
    assert system._current is before


def test_architectures() -> None:
    assert system.call_numbers("x86_64", 64) == (321, 298)
    assert system.call_numbers("x86_64", 32) == (357, 336)
    assert system.call_numbers("aarch64", 64) == (280, 241)
    assert system.call_numbers("s390x", 64) == (351, 331)
    with pytest.raises(UnsupportedError, match="vax"):
        system.call_numbers("vax", 32)


def test_elsewhere_the_import_works_and_the_call_says_why() -> None:
    code = (
        "import sys; sys.platform = 'darwin'\n"
        "from ebpf.kernel import bpf, netlink, namespaces, mounts, features, privileges\n"
        "from ebpf.errors import UnsupportedError\n"
        "try: bpf.map_create(1, 4, 4, 1)\n"
        "except UnsupportedError as error: assert 'needs Linux; this is darwin' in str(error)\n"
        "else: raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_opens_no_library() -> None:
    code = "import sys, ebpf.kernel.bpf, ebpf.kernel.netlink; raise SystemExit('ctypes' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ctypes_stays_in_one_module() -> None:
    package = Path(system.__file__).parents[1]
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if path.parent.name in ("kernel", "links", "events") and "import ctypes" in path.read_text()
    }
    assert users == {"kernel/system.py"}


@pytest.mark.skipif(sys.platform != "linux", reason="the C library's call is Linux's")
@pytest.mark.parametrize(("refusals", "attempts"), [(2, 3), (99, system.PROG_LOAD_ATTEMPTS)])
def test_a_load_that_a_signal_interrupts_is_repeated(refusals: int, attempts: int) -> None:
    import ctypes

    kernel = system.LinuxSystem()
    calls: list[int] = []

    def call(number: int, command: int, attr: int, size: int) -> int:
        calls.append(command)
        if len(calls) <= refusals:
            ctypes.set_errno(errno.EAGAIN)
            return -1
        return 4

    kernel._bpf = call  # type: ignore[assignment]
    if refusals < attempts:
        assert kernel.bpf(Command.PROG_LOAD, bytearray(8)) == 4
    else:
        with pytest.raises(BlockingIOError):
            kernel.bpf(Command.PROG_LOAD, bytearray(8))
    assert len(calls) == attempts
    calls.clear()
    with pytest.raises(BlockingIOError):
        kernel.bpf(Command.MAP_CREATE, bytearray(8))
    assert len(calls) == 1


# --- descriptors ----------------------------------------------------------------------------------------


def test_an_owner_closes_once() -> None:
    read, write = os.pipe()
    os.close(write)
    with FD(read, "pipe 1") as fd:
        assert fd.fileno() == read
    assert fd.closed
    fd.close()
    with pytest.raises(Error, match="pipe 1 is closed"):
        fd.fileno()


def test_a_forgotten_owner_warns_and_leaves_it_open() -> None:
    read, write = os.pipe()
    os.close(write)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fd = FD(read, "link 4")
        del fd
    assert [str(one.message) for one in caught] == ["link 4 was never closed"]
    os.close(read)  # it was still open


def test_handing_a_descriptor_on() -> None:
    read, write = os.pipe()
    os.close(write)
    fd = FD(read)
    assert fd.detach() == read
    assert fd.closed
    os.close(read)


# --- probes ---------------------------------------------------------------------------------------------


def test_cpu_ranges() -> None:
    assert features.parse_cpu_ranges("0\n") == (0,)
    assert features.parse_cpu_ranges("0-3,8,10-11\n") == (0, 1, 2, 3, 8, 10, 11)


@pytest.mark.parametrize(("accepted", "version"), [(0x06, 4), (0x16, 3), (0xA5, 2), (None, 1)])
def test_isa_version(accepted: int | None, version: int) -> None:
    def load(attr: bytearray) -> int:
        if read_memory(u64(attr, 8) + 8, 1)[0] != accepted:
            raise OSError(errno.EINVAL, "")
        return os.open(os.devnull, os.O_RDONLY)

    features.isa_version.cache_clear()
    try:
        with system.use(FakeSystem(PROG_LOAD=load)):
            assert features.isa_version() == version
    finally:
        features.isa_version.cache_clear()


def test_what_cannot_be_tried_is_unknown() -> None:
    probes = (features.isa_version, features.has_xdp_links, features.has_batch_operations)
    for probe in probes:
        probe.cache_clear()
    refuses = fails(errno.EPERM)
    try:
        with system.use(FakeSystem(PROG_LOAD=refuses, MAP_CREATE=refuses, LINK_DETACH=refuses)):
            assert [probe() for probe in probes] == [None, None, None]
    finally:
        for probe in probes:
            probe.cache_clear()


def test_a_kernel_without_types(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ebpf.kernel import btf

    monkeypatch.setenv(btf.ENVIRONMENT, str(tmp_path / "nothing"))
    btf.vmlinux.cache_clear()
    try:
        with pytest.raises(UnsupportedError, match="CONFIG_DEBUG_INFO_BTF") as caught:
            btf.vmlinux()
        assert "EBPF_VMLINUX_BTF" in (caught.value.hint or "")
    finally:
        btf.vmlinux.cache_clear()
    monkeypatch.setattr(btf, "FOLDER", tmp_path / "nothing")
    assert btf.modules() == []
