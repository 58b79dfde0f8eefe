"""The bpf(2) functions against the running kernel, and against bpftool."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpf.kernel import bpf, features, mounts, owners, privileges
from ebpf.kernel import btf as kernel_btf
from ebpf.kernel.bpf import Kind
from ebpf.kernel.fd import FD
from ebpf.kernel.owners import Owner
from ebpf.uapi import MapType, ProgramType

pytestmark = pytest.mark.kernel

XDP_PASS = bytes.fromhex("b7000000 02000000 95000000 00000000")
ARRAY, HASH, LPM_TRIE, QUEUE = MapType.ARRAY, MapType.HASH, MapType.LPM_TRIE, MapType.QUEUE

needs_bpftool = pytest.mark.skipif(
    shutil.which("bpftool") is None, reason="compares with bpftool, which is not installed"
)


@pytest.fixture
def program() -> Iterator[FD]:
    with FD(bpf.prog_load(ProgramType.XDP, XDP_PASS, "GPL", name="pass_all")) as fd:
        yield fd


@pytest.fixture
def table() -> Iterator[int]:
    with FD(bpf.map_create(HASH, 4, 8, 100, name="table")) as fd:
        yield fd.fileno()


def key(number: int) -> bytes:
    return number.to_bytes(4, sys.byteorder)


def bpftool(*arguments: str) -> dict[str, object]:
    done = subprocess.run(["bpftool", "-j", *arguments], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@needs_bpftool
def test_program_info_is_what_bpftool_says(program: FD) -> None:
    info = bpf.program_info(program.fileno())
    theirs = bpftool("prog", "show", "id", str(info.id))
    assert (info.name, info.tag, info.memlock) == (theirs["name"], theirs["tag"], theirs["bytes_memlock"])
    assert (info.xlated_size, info.jited_size) == (theirs["bytes_xlated"], theirs["bytes_jited"])
    assert (info.type, info.uid, info.gpl_compatible) == (ProgramType.XDP, 0, True)
    assert abs(info.load_time / 1e9 - time.clock_gettime(time.CLOCK_BOOTTIME)) < 5
    assert info.id in bpf.ids(Kind.PROGRAM)
    with FD(bpf.fd_by_id(Kind.PROGRAM, info.id)) as again:
        assert bpf.program_info(again.fileno()) == info


def test_license_is_told(program: FD) -> None:
    with FD(bpf.prog_load(ProgramType.XDP, XDP_PASS, "Proprietary")) as fd:
        assert not bpf.program_info(fd.fileno()).gpl_compatible


def test_program_dump(program: FD) -> None:
    dump = bpf.program_dump(program.fileno())
    info = bpf.program_info(program.fileno())
    assert dump.xlated == XDP_PASS
    assert len(dump.jited) == info.jited_size == sum(dump.function_sizes)
    assert len(dump.ksyms) == 1
    assert (dump.function_info, dump.line_info, dump.map_ids) == ((), (), ())


def test_maps_of_a_program(table: int) -> None:
    load = bytes.fromhex("18110000") + key(table) + bytes(8)  # r1 = map
    with FD(bpf.prog_load(ProgramType.XDP, load + XDP_PASS, "GPL")) as program:
        id = bpf.map_info(table).id
        assert bpf.program_info(program.fileno()).map_ids == (id,)
        assert bpf.program_dump(program.fileno()).map_ids == (id,)
    with FD(bpf.prog_load(ProgramType.XDP, XDP_PASS, "GPL")) as program:
        bpf.prog_bind_map(program.fileno(), table)
        assert bpf.program_info(program.fileno()).map_ids == (id,)


def test_run(program: FD) -> None:
    packet = bytes(range(64))
    result = bpf.prog_test_run(program.fileno(), packet, data_size_out=128, repeat=10)
    assert (result.retval, result.data, result.ctx) == (2, packet, None)
    assert bpf.prog_test_run(program.fileno(), packet).data is None
    with pytest.raises(OSError) as caught:
        bpf.prog_test_run(program.fileno(), packet, data_size_out=10)
    assert caught.value.errno == errno.ENOSPC


def test_the_verifier_s_log() -> None:
    log = bytearray(4096)
    with pytest.raises(OSError) as caught:
        bpf.prog_load(ProgramType.XDP, XDP_PASS[8:], "GPL", log_level=1, log=log)
    assert caught.value.errno == errno.EACCES
    assert b"R0 !read_ok" in log
    with pytest.raises(OSError) as caught:
        bpf.prog_load(ProgramType.XDP, XDP_PASS[8:], "GPL", log_level=1, log=bytearray(16))
    assert caught.value.errno == errno.ENOSPC


def test_entries(table: int) -> None:
    for number in range(5):
        bpf.map_update(table, key(number), bytes(7) + bytes([number]))
    assert bpf.map_lookup(table, key(3), 8) == bytes(7) + b"\3"
    found = set()
    position = None
    while True:
        try:
            position = bpf.map_next_key(table, position, 4)
        except FileNotFoundError:
            break
        found.add(position)
    assert found == {key(number) for number in range(5)}
    with pytest.raises(FileExistsError):
        bpf.map_update(table, key(3), bytes(8), 1)
    bpf.map_delete(table, key(3))
    with pytest.raises(FileNotFoundError):
        bpf.map_lookup(table, key(3), 8)
    assert bpf.map_lookup_and_delete(table, key(4), 8)[7] == 4


@pytest.mark.parametrize("step", [100, 33])
def test_batches(table: int, step: int) -> None:
    keys = b"".join(map(key, range(90)))
    values = b"".join(number.to_bytes(8, sys.byteorder) for number in range(90))
    assert bpf.map_update_batch(table, keys, values, 90) == 90
    got: dict[bytes, bytes] = {}
    position: bytes | None = None
    while True:
        some_keys, some_values = bytearray(4 * step), bytearray(8 * step)
        batch = bpf.map_lookup_batch(table, some_keys, some_values, step, position=position)
        for at in range(batch.entries):
            got[bytes(some_keys[4 * at : 4 * at + 4])] = bytes(some_values[8 * at : 8 * at + 8])
        position = batch.position
        if position is None:
            break
    assert got == {key(number): number.to_bytes(8, sys.byteorder) for number in range(90)}
    assert bpf.map_delete_batch(table, keys[: 4 * 50], 50) == 50
    with pytest.raises(bpf.BatchError) as caught:
        bpf.map_delete_batch(table, keys[4 * 50 :] + keys[:4], 41)
    assert (caught.value.done, caught.value.errno) == (40, errno.ENOENT)
    with pytest.raises(bpf.BatchError) as caught:
        bpf.map_update_batch(table, b"".join(map(key, range(200))), bytes(1600), 200)
    assert (caught.value.done, caught.value.errno) == (100, errno.E2BIG)


def test_a_batch_whose_position_is_a_key() -> None:
    with FD(bpf.map_create(LPM_TRIE, 12, 4, 10, flags=1)) as trie:
        for number in range(4):
            bpf.map_update(trie.fileno(), (32).to_bytes(4, sys.byteorder) + bytes([number]) * 8, bytes(4))
        position: bytes | None = None
        total = 0
        while True:
            batch = bpf.map_lookup_batch(
                trie.fileno(), bytearray(36), bytearray(12), 3, position=position, position_size=12
            )
            total += batch.entries
            position = batch.position
            if position is None:
                break
        assert total == 4


def test_a_queue() -> None:
    with FD(bpf.map_create(QUEUE, 0, 4, 2)) as queue:
        for number in (1, 2):
            bpf.map_update(queue.fileno(), b"", key(number))
        with pytest.raises(OSError) as caught:
            bpf.map_update(queue.fileno(), b"", key(3))
        assert caught.value.errno == errno.E2BIG
        assert [bpf.map_lookup_and_delete(queue.fileno(), b"", 4) for _ in range(2)] == [key(1), key(2)]


def test_map_info_and_freezing() -> None:
    with FD(bpf.map_create(ARRAY, 4, 16, 3, name="config", flags=1 << 7)) as fd:
        info = bpf.map_info(fd.fileno())
        assert (info.type, info.name, info.key_size, info.value_size, info.max_entries, info.flags) == (
            ARRAY, "config", 4, 16, 3, 1 << 7,
        )  # fmt: skip
        assert (info.frozen, info.id in bpf.ids(Kind.MAP)) == (False, True)
        assert info.memlock > 0
        bpf.map_freeze(fd.fileno())
        assert bpf.map_info(fd.fileno()).frozen
        with pytest.raises(PermissionError):
            bpf.map_update(fd.fileno(), key(0), bytes(16))


def test_btf_of_the_kernel() -> None:
    for id in bpf.ids(Kind.BTF):
        with FD(bpf.fd_by_id(Kind.BTF, id)) as fd:
            info = bpf.btf_info(fd.fileno())
            if info.name == "vmlinux":
                assert info.kernel_btf
                data = bpf.btf_data(fd.fileno())
                assert data == Path("/sys/kernel/btf/vmlinux").read_bytes()
                assert len(data) == info.size
                return
    pytest.fail("the kernel has BTF, but no object with it")


def test_types_of_the_kernel() -> None:
    types = kernel_btf.vmlinux()
    assert types is kernel_btf.vmlinux()
    assert types.find("task_struct").name == "task_struct"
    for name in kernel_btf.modules():
        assert kernel_btf.module(name).base is types


def test_a_map_with_types_and_their_btf() -> None:
    strings = b"\0int\0"
    integer = (1).to_bytes(4, sys.byteorder) + b"".join(
        number.to_bytes(4, sys.byteorder) for number in (1 << 24, 4, 1 << 24 | 32)
    )
    header = (
        (0xEB9F).to_bytes(2, sys.byteorder)
        + b"\1\0"
        + b"".join(
            number.to_bytes(4, sys.byteorder) for number in (24, 0, len(integer), len(integer), len(strings))
        )
    )
    with (
        FD(bpf.btf_load(header + integer + strings)) as btf,
        FD(bpf.map_create(ARRAY, 4, 4, 1, btf_fd=btf.fileno(), key_type_id=1, value_type_id=1)) as typed,
    ):
        ours = bpf.btf_info(btf.fileno())
        assert (ours.name, ours.kernel_btf) == ("", False)
        info = bpf.map_info(typed.fileno())
        assert (info.btf_id, info.key_type_id, info.value_type_id) == (ours.id, 1, 1)
    log = bytearray(1024)
    with pytest.raises(OSError):
        bpf.btf_load(header + integer[:8] + strings, log_level=1, log=log)


def test_links_that_are_not_xdp() -> None:
    """A raw tracepoint: the name is in the info."""
    with (
        FD(bpf.prog_load(ProgramType.RAW_TRACEPOINT, XDP_PASS, "GPL")) as program,
        FD(bpf.raw_tracepoint_open("sched_process_exit", program.fileno())) as link,
    ):
        info = bpf.link_info(link.fileno())
        assert info.target == "sched_process_exit"
        assert info.program_id == bpf.program_info(program.fileno()).id
        assert bpf.link_info(link.fileno()).details["cookie"] == 0


def test_statistics(program: FD) -> None:
    with FD(bpf.enable_stats()):
        bpf.prog_test_run(program.fileno(), bytes(64), repeat=5)
        info = bpf.program_info(program.fileno())
    assert info.run_cnt == 5
    assert info.run_time_ns > 0


# --- who holds it ---------------------------------------------------------------------------------------


def test_owners_and_pins(program: FD, table: int, tmp_path: Path) -> None:
    id = bpf.program_info(program.fileno()).id
    me = Owner(os.getpid(), Path("/proc/self/comm").read_text().strip())
    found = owners.find_owners()
    assert found[Kind.PROGRAM, id] == [me]
    assert found[Kind.MAP, bpf.map_info(table).id] == [me]
    assert str(me) == f"{me.command} ({me.pid})"
    child = subprocess.Popen(["sleep", "30"], pass_fds=(program.fileno(),))
    try:
        deadline = time.monotonic() + 5
        while Owner(child.pid, "sleep") not in owners.owners_of(Kind.PROGRAM, id):
            assert time.monotonic() < deadline
    finally:
        child.kill()
        child.wait()
    mounts.mount_bpffs(tmp_path / "bpffs")
    try:
        (tmp_path / "bpffs" / "sub").mkdir()
        bpf.obj_pin(program.fileno(), tmp_path / "bpffs" / "sub" / "p")
        bpf.obj_pin(table, tmp_path / "bpffs" / "m")
        assert owners.find_pins()[Kind.PROGRAM, id] == [str(tmp_path / "bpffs" / "sub" / "p")]
        assert owners.identify(tmp_path / "bpffs" / "m") == (Kind.MAP, bpf.map_info(table).id)
    finally:
        mounts.unmount(tmp_path / "bpffs")


# --- probes and privileges ------------------------------------------------------------------------------


def test_probes() -> None:
    assert features.isa_version() in (1, 2, 3, 4)
    assert features.kernel_version() >= (4, 9, 0)
    assert features.possible_cpus() >= len(features.online_cpus()) >= 1
    assert features.has_program_type(ProgramType.XDP) is True
    assert features.has_program_type(ProgramType.LSM) is None
    assert features.has_map_type(MapType.HASH) is True
    assert features.has_btf() == Path("/sys/kernel/btf/vmlinux").exists()


def test_xdp_links_by_probe_and_by_version() -> None:
    assert features.has_xdp_links() == (features.kernel_version() >= (5, 9, 0))


def test_privileges_of_root() -> None:
    known = privileges.read()
    assert known.uid == 0
    assert known.has(privileges.BPF)
    status = Path("/proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    assert ("CAP_NET_ADMIN" in known.capabilities) == bool(effective >> 12 & 1)


def test_eperm_is_explained_without_privileges() -> None:
    child = os.fork()
    if not child:
        os.setuid(65534)
        try:
            bpf.prog_load(ProgramType.XDP, XDP_PASS, "GPL")
        except PermissionError as error:
            explained = privileges.explain(
                "load program 'x'", privileges.needs_to_load(ProgramType.XDP), error.errno or 0
            )
            lacking = privileges.missing(privileges.needs_to_load(ProgramType.XDP))
            text = "lacks CAP_BPF or CAP_SYS_ADMIN and CAP_NET_ADMIN or CAP_SYS_ADMIN"
            os._exit(0 if text in str(explained) and lacking == ["CAP_BPF", "CAP_NET_ADMIN"] else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
