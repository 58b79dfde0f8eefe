"""The helper table, as the verifier of the running kernel sees it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from ebpf.btf import types as t
from ebpf.btf.btf import BTF
from ebpf.isa.helpers import HELPERS, Helper
from ebpf.kernel import bpf
from ebpf.kernel.features import kernel_version
from ebpf.uapi import AttachType, ProgramType

pytestmark = pytest.mark.kernel

#: Types that load with nothing but an attach type.
TYPES = {
    ProgramType.SOCKET_FILTER: 0,
    ProgramType.SCHED_CLS: 0,
    ProgramType.XDP: 0,
    ProgramType.TRACEPOINT: 0,
    ProgramType.RAW_TRACEPOINT: 0,
    ProgramType.CGROUP_SKB: 0,
    ProgramType.SK_MSG: 0,
    ProgramType.LWT_XMIT: 0,
    ProgramType.CGROUP_SOCK_ADDR: AttachType.CGROUP_INET4_CONNECT,
    ProgramType.SK_LOOKUP: AttachType.SK_LOOKUP,
}
#: What a kernel may leave out by its configuration, or refuses under lockdown.
OPTIONAL = {"probe_write_user", "override_return", "skb_get_xfrm_state", "skb_cgroup_classid"}


def verdict(type: ProgramType, helper: Helper, license: str) -> str:
    """What the verifier says to a program that does nothing but call the helper."""
    call = struct.pack("=BBhi", 0x85, 0, 0, helper.id) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    log = bytearray(4096)
    try:
        fd = bpf.prog_load(type, call, license, attach_type=TYPES[type], log_level=1, log=log)
    except OSError:
        return log.rstrip(b"\0").decode(errors="replace")
    os.close(fd)
    return "accepted"


def test_names_and_numbers_are_the_kernels() -> None:
    kernel = BTF.from_bytes(Path("/sys/kernel/btf/vmlinux").read_bytes())
    enum = kernel.find("bpf_func_id", t.Enum)
    assert isinstance(enum, t.Enum)
    members = {member.name: member.value for member in enum.members if member.name.startswith("BPF_FUNC_")}
    known = {f"BPF_FUNC_{helper.name}": helper.id for helper in HELPERS}
    assert members.items() - {("BPF_FUNC_unspec", 0)} <= known.items()


@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.label)
def test_program_types_are_what_the_verifier_allows(type: ProgramType) -> None:
    if kernel_version() < (6, 18):
        pytest.skip("SKIPPED: the table says what Linux 6.18 allows; this kernel is older")
    wrong = []
    for helper in HELPERS:
        answer = verdict(type, helper, "GPL")
        allowed = "cannot use helper" not in answer and "unknown func" not in answer
        if allowed != (type.name in helper.program_types) and helper.name not in OPTIONAL:
            wrong.append((helper.name, answer))
    assert not wrong


@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.label)
def test_gpl_only_is_what_the_verifier_demands(type: ProgramType) -> None:
    wrong = []
    for helper in HELPERS:
        answer = verdict(type, helper, "Proprietary")
        if "cannot use helper" in answer or "unknown func" in answer:
            continue
        if "GPL" in answer and not helper.gpl_only:
            wrong.append((helper.name, answer))
        if helper.gpl_only and "GPL" not in answer:
            wrong.append((helper.name, answer))
    assert not wrong
