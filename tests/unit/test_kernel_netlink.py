"""Netlink messages, mounts and capabilities as text and bytes: no kernel needed."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpf.errors import Error
from ebpf.kernel import mounts, netlink, privileges, rtnetlink
from ebpf.kernel.privileges import BPF, NET_ADMIN, PERFMON, Privileges, describe, needs_to_load
from ebpf.kernel.rtnetlink import NetlinkError, attribute, attributes, nested
from ebpf.links.xdp_state import XdpMode
from ebpf.uapi import ProgramType, XdpFlags


def test_attributes_come_back() -> None:
    data = attribute(3, b"v0\0") + nested(43, attribute(2, b"\x01"), attribute(5, struct.pack("=I", 7)))
    assert len(data) % 4 == 0
    found = attributes(data)
    assert found[3] == b"v0\0"
    assert attributes(found[43]) == {2: b"\x01", 5: struct.pack("=I", 7)}


@given(st.binary(max_size=64))
def test_garbage_is_an_error_or_nothing(data: bytes) -> None:
    for read in (attributes, lambda data: list(rtnetlink.messages(data)), netlink.parse_link):
        try:
            read(data)
        except NetlinkError as error:
            assert error.errno == errno.EBADMSG


def acknowledgement(code: int, text: bytes, *, capped: bool) -> tuple[bytes, int]:
    request = b"" if capped else bytes(8)
    header = struct.pack("=IHHII", 16 + 8, 19, 5, 1, 0)
    body = struct.pack("=i", -code) + header + request + (attribute(1, text + b"\0") if text else b"")
    return body, (0x100 if capped else 0) | (0x200 if text else 0)


@pytest.mark.parametrize("capped", [True, False])
def test_the_kernel_s_text_is_kept(capped: bool) -> None:
    body, flags = acknowledgement(errno.EBUSY, b"XDP program already attached", capped=capped)
    with pytest.raises(
        NetlinkError, match=r"Device or resource busy: XDP program already attached"
    ) as caught:
        rtnetlink.check_acknowledgement(body, flags)
    assert (caught.value.errno, caught.value.reason) == (errno.EBUSY, "XDP program already attached")
    with pytest.raises(NetlinkError) as caught:
        rtnetlink.check_acknowledgement(*acknowledgement(errno.EPERM, b"", capped=capped))
    assert caught.value.reason == ""
    rtnetlink.check_acknowledgement(*acknowledgement(0, b"a warning", capped=capped))


def xdp_of(*xdp: bytes) -> dict[XdpFlags, int]:
    body = struct.pack("=BxHiII", 0, 1, 5, 1, 0) + attribute(3, b"eth0\0") + nested(43, *xdp)
    link = netlink.parse_link(body)
    assert (link.index, link.name, link.is_up) == (5, "eth0", True)
    return dict(link.xdp)


def test_modes_of_xdp() -> None:
    def id(type: int, value: int) -> bytes:
        return attribute(type, struct.pack("=I", value))

    assert xdp_of(attribute(2, b"\0")) == {}
    assert xdp_of(attribute(2, b"\2"), id(4, 9), id(6, 9)) == {XdpFlags.SKB_MODE: 9}
    both = xdp_of(attribute(2, b"\4"), id(5, 3), id(7, 4))  # XDP_ATTACHED_MULTI
    assert both == {XdpFlags.DRV_MODE: 3, XdpFlags.HW_MODE: 4}
    assert xdp_of(attribute(2, b"\1"), id(4, 9)) == {XdpFlags.DRV_MODE: 9}  # before 4.19
    assert xdp_of(attribute(2, b"\1")) == {XdpFlags.DRV_MODE: 0}  # before 4.13: attached, id unknown


def test_addresses() -> None:
    assert netlink.mac_bytes("02:00:00:00:00:ff") == bytes.fromhex("0200000000ff")
    assert netlink.address_bytes("10.0.0.1")[1] == bytes((10, 0, 0, 1))
    assert len(netlink.address_bytes("fd00::1")[1]) == 16
    for text in ("10.0.0", "10.0.0.1/24", "fd00::x"):
        with pytest.raises(ValueError, match="not an IP address"):
            netlink.address_bytes(text)
    with pytest.raises(ValueError, match="not a MAC address"):
        netlink.mac_bytes("02:00")


def test_names_of_modes() -> None:
    assert [XdpMode(text) for text in ("skb", "drv", "hw", "auto")] == [
        XdpMode.GENERIC, XdpMode.NATIVE, XdpMode.OFFLOAD, XdpMode.AUTO,
    ]  # fmt: skip
    assert str(XdpMode.NATIVE) == "native"
    assert [XdpMode.from_flag(mode.flag) for mode in XdpMode] == list(XdpMode)
    with pytest.raises(ValueError, match="fast"):
        XdpMode("fast")


# --- mounts ---------------------------------------------------------------------------------------------

MOUNTINFO = """\
25 30 0:23 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
31 25 0:27 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700
40 30 0:51 / /tmp/a\\040b rw - bpf none rw
41 25 0:12 / /sys/kernel/tracing ro - tracefs tracefs rw
42 30 0:4 net:[4026532177] /run/netns/one rw shared:11 master:2 - nsfs nsfs rw
"""


def test_mountinfo() -> None:
    found = mounts.parse_mounts(MOUNTINFO)
    assert [(mount.filesystem, str(mount.path)) for mount in found] == [
        ("sysfs", "/sys"),
        ("bpf", "/sys/fs/bpf"),
        ("bpf", "/tmp/a b"),
        ("tracefs", "/sys/kernel/tracing"),
        ("nsfs", "/run/netns/one"),
    ]
    assert found[1].device == os.makedev(0, 27)
    assert [mount.read_only for mount in found] == [False, False, False, True, False]
    assert found[4].root == "net:[4026532177]"


def test_pins_outside_a_bpffs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "filesystem_of", lambda path: "ext4")
    with pytest.raises(Error, match="not on a BPF file system") as caught:
        mounts.pin_path(tmp_path / "prog")
    assert "mount -t bpf bpf DIRECTORY" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_pins_have_no_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "filesystem_of", lambda path: "bpf")
    assert mounts.pin_path(tmp_path / "app.d" / "data.config") == tmp_path / "app_d" / "data_config"
    with pytest.raises(Error, match=r"contains '\.\.'"):
        mounts.pin_path(tmp_path / ".." / "x")


def test_a_bpffs_is_not_mounted_where_it_would_vanish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ip netns exec` gives its command other mounts."""
    monkeypatch.setattr(mounts, "BPFFS", tmp_path)
    monkeypatch.setattr(mounts, "_has_own_mounts", lambda: True)
    with pytest.raises(Error, match="goes with it") as caught:
        mounts.bpffs()
    assert "nsenter --net" in (caught.value.hint or "")


# --- privileges -----------------------------------------------------------------------------------------

ALL = frozenset({"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_SYS_ADMIN"})


def state(**known: object) -> Privileges:
    default: dict[str, object] = {
        "uid": 0, "capabilities": ALL, "initial_user_namespace": True, "seccomp": 0,
        "unprivileged_bpf_disabled": 2, "lockdown": "none", "security_modules": ("capability", "yama"),
    }  # fmt: skip
    return Privileges(**(default | known))  # type: ignore[arg-type]


def explained(needs: tuple[privileges.Need, ...] = (BPF, NET_ADMIN), **known: object) -> str:
    return str(describe("attach to eth0", needs, errno.EPERM, state(**known)))


def test_missing_capabilities_are_named() -> None:
    text = explained(uid=1000, capabilities=frozenset())
    assert "cannot attach to eth0: Operation not permitted; this process (user 1000) lacks" in text
    assert "lacks CAP_BPF or CAP_SYS_ADMIN and CAP_NET_ADMIN" in text
    assert "sudo" in text
    text = explained(capabilities=frozenset({"CAP_BPF"}))
    assert "(root) lacks CAP_NET_ADMIN" in text
    assert "CAP_BPF" not in text


def test_a_user_namespace() -> None:
    assert "user namespace of its own" in explained(initial_user_namespace=False)


def test_nothing_missing_is_said_so() -> None:
    assert "although the process has the capabilities for it (CAP_BPF, CAP_NET_ADMIN)" in explained()
    assert "nothing else that can refuse it is active" in explained()


def test_what_can_have_refused_it() -> None:
    text = explained(
        lockdown="confidentiality", seccomp=2, security_modules=("capability", "apparmor", "bpf")
    )
    for cause in ("lockdown (confidentiality)", "seccomp", "apparmor, bpf"):
        assert cause in text
    text = explained(lockdown=None, security_modules=None)
    assert "lockdown, whose state cannot be read" in text
    assert "which ones are active cannot be read" in text


def test_locked_memory_is_blamed_on_old_kernels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "MEMLOCK" not in explained()
    monkeypatch.setattr(privileges, "counts_memlock", lambda: True)
    assert "RLIMIT_MEMLOCK" in explained()


def test_what_loading_needs() -> None:
    assert needs_to_load(ProgramType.SOCKET_FILTER) == (BPF,)
    assert needs_to_load(ProgramType.XDP) == (BPF, privileges.NET_ADMIN_TO_LOAD)
    assert needs_to_load(ProgramType.KPROBE) == (BPF, PERFMON)


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = needs_to_load(ProgramType.XDP)
    for known, lacking in (
        (state(), []),
        (state(capabilities=frozenset({"CAP_SYS_ADMIN"})), []),
        (state(capabilities=frozenset({"CAP_NET_ADMIN"})), ["CAP_BPF"]),
        (state(initial_user_namespace=False), ["CAP_BPF", "CAP_NET_ADMIN"]),
    ):
        monkeypatch.setattr(privileges, "read", lambda known=known: known)
        assert privileges.missing(needs) == lacking


def test_lockdown_is_the_word_in_brackets() -> None:
    assert privileges._lockdown("none [integrity] confidentiality\n") == "integrity"
    assert privileges._lockdown(None) is None
