"""XDP links in private namespaces, in both directions with `ip` and `bpftool`."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ebpf.errors import AttachError, Error, PrivilegeError
from ebpf.kernel import bpf, mounts, namespaces, netlink
from ebpf.kernel.bpf import Kind
from ebpf.kernel.fd import FD
from ebpf.links import xdp
from ebpf.links.link import Link
from ebpf.links.xdp import NetlinkXdp, XdpLink, XdpMode, attach_xdp, detach_xdp, xdp_status
from ebpf.uapi import XdpFlags

pytestmark = pytest.mark.kernel

NAMES = (f"eb-xdp{os.getpid()}a", f"eb-xdp{os.getpid()}b")
XDP_PASS = bytes.fromhex("b7000000 02000000 95000000 00000000")

needs_ip = pytest.mark.skipif(
    shutil.which("ip") is None, reason="interoperates with ip, which is not installed"
)
needs_bpftool = pytest.mark.skipif(
    shutil.which("bpftool") is None, reason="interoperates with bpftool, which is not installed"
)


@pytest.fixture
def net() -> Iterator[None]:
    """The test runs in a namespace with v0, tied to v1 in another one; both have the same index."""
    for name in NAMES:
        namespaces.create(name)
    try:
        with namespaces.entered(NAMES[0]):
            with namespaces.opened(NAMES[1]) as peer:
                netlink.create_veth("v0", "v1", peer_netns=peer)
            try:
                yield
            finally:
                netlink.delete("v0")
    finally:
        for name in NAMES:
            namespaces.delete(name)


@pytest.fixture
def program() -> Iterator[FD]:
    with FD(bpf.prog_load(6, XDP_PASS, "GPL", name="first")) as fd:
        yield fd


@pytest.fixture
def other() -> Iterator[FD]:
    with FD(bpf.prog_load(6, XDP_PASS, "GPL", name="second")) as fd:
        yield fd


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    mounts.mount_bpffs(tmp_path / "bpffs")
    yield tmp_path / "bpffs"
    mounts.unmount(tmp_path / "bpffs")


def id_of(fd: FD) -> int:
    return bpf.program_info(fd.fileno()).id


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ip_xdp(interface: str = "v0") -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads(run("ip", "-json", "-d", "link", "show", interface))[0].get(
        "xdp"
    )
    return found


# --- ours, as others see it -----------------------------------------------------------------------------


@needs_ip
@needs_bpftool
@pytest.mark.parametrize(
    ("mode", "ip_mode", "bpftool_mode"), [("native", 1, "driver"), ("generic", 2, "generic")]
)
def test_ours_is_what_ip_and_bpftool_see(
    net: None, program: FD, mode: str, ip_mode: int, bpftool_mode: str
) -> None:
    with attach_xdp(program, "v0", mode=mode) as link:
        assert isinstance(link, XdpLink)
        assert link.mode is XdpMode(mode)
        assert link.fallback is None
        assert link.program_id == id_of(program)
        seen = ip_xdp()
        assert seen is not None
        assert (seen["mode"], seen["prog"]["id"]) == (ip_mode, id_of(program))
        (listed,) = json.loads(run("bpftool", "-j", "net", "show"))[0]["xdp"]
        assert (listed["devname"], listed["mode"], listed["id"]) == ("v0", bpftool_mode, id_of(program))
        (known,) = [one for one in json.loads(run("bpftool", "-j", "link")) if one["id"] == link.id]
        assert (known["type"], known["prog_id"]) == ("xdp", id_of(program))
    assert ip_xdp() is None


def test_auto_is_native_where_the_driver_can(net: None, program: FD) -> None:
    with attach_xdp(program, "v0") as link:
        assert (link.mode, link.fallback) == (XdpMode.NATIVE, None)


def test_auto_falls_back_to_generic_and_says_why(net: None, program: FD) -> None:
    with attach_xdp(program, "lo") as link:
        assert link.mode is XdpMode.GENERIC
        assert link.fallback is not None
        assert "its driver has no native XDP" in link.fallback
        assert netlink.link("lo").xdp == {XdpFlags.SKB_MODE: id_of(program)}
    with pytest.raises(AttachError, match="its driver has no native XDP") as caught:
        attach_xdp(program, "lo", mode="native")
    assert caught.value.errno == errno.EOPNOTSUPP
    assert "generic mode" in (caught.value.hint or "")


def test_native_refused_for_the_mtu(net: None, program: FD) -> None:
    with namespaces.entered(NAMES[1]):
        netlink.set_mtu("v1", 9000)
    with pytest.raises(AttachError, match="MTU is too large") as caught:
        attach_xdp(program, "v0", mode="drv")
    assert "lower the MTU of v0" in (caught.value.hint or "")
    with attach_xdp(program, "v0") as link:
        assert link.mode is XdpMode.GENERIC
        assert "MTU is too large" in (link.fallback or "")


def test_offload_on_a_device_that_is_no_such_card(net: None, program: FD) -> None:
    with pytest.raises(AttachError, match="not a network card that runs BPF"):
        attach_xdp(program, "v0", mode="offload")


def test_an_interface_that_is_not_there(net: None, program: FD) -> None:
    with pytest.raises(AttachError, match="there is: lo, v0") as caught:
        attach_xdp(program, "v9")
    assert "'v0'" in (caught.value.hint or "")
    with pytest.raises(AttachError, match="with index 99"):
        attach_xdp(program, 99)


def test_another_namespace(net: None, program: FD) -> None:
    with attach_xdp(program, "v1", netns=NAMES[1]) as link:
        assert netlink.link("v0").xdp == {}
        assert namespaces.run_in(NAMES[1], netlink.link, "v1").xdp == {XdpFlags.DRV_MODE: id_of(program)}
        assert link.ifindex == namespaces.run_in(NAMES[1], netlink.index_of, "v1")
    assert namespaces.run_in(NAMES[1], netlink.link, "v1").xdp == {}


# --- life of a link -------------------------------------------------------------------------------------


def test_update_is_atomic_and_can_expect(net: None, program: FD, other: FD) -> None:
    with attach_xdp(program, "v0") as link:
        link.update(other, expected=program)
        assert netlink.link("v0").xdp == {XdpFlags.DRV_MODE: id_of(other)}
        with pytest.raises(AttachError, match="another program is there than the one expected"):
            link.update(program, expected=program)
        link.detach()
        assert link.ifindex == 0
        with pytest.raises(AttachError, match="it was detached"):
            link.update(program)


def test_a_link_ends_with_its_block_whoever_else_holds_it(net: None, program: FD) -> None:
    with attach_xdp(program, "v0") as link:
        duplicate = os.dup(link.fileno())
    try:
        assert netlink.link("v0").xdp == {}
    finally:
        os.close(duplicate)
    link.close()
    assert link.closed
    with pytest.raises(Error, match=f"link {link.id} is closed"):
        link.fileno()


def test_close_alone_leaves_it_to_the_other_holder(net: None, program: FD) -> None:
    link = attach_xdp(program, "v0")
    duplicate = os.dup(link.fileno())  # type: ignore[union-attr]
    link.close()
    assert netlink.link("v0").xdp
    os.close(duplicate)
    assert not netlink.link("v0").xdp


def test_a_forked_child_detaches_nothing(net: None, program: FD) -> None:
    with attach_xdp(program, "v0") as link:
        child = os.fork()
        if not child:
            link.__exit__(None, None, None)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert netlink.link("v0").xdp


def test_a_pinned_link_survives_its_block(net: None, program: FD, bpffs: Path) -> None:
    with attach_xdp(program, "v0") as link:
        path = link.pin(bpffs / "my.link")
        assert path == bpffs / "my_link"
    assert netlink.link("v0").xdp == {XdpFlags.DRV_MODE: id_of(program)}
    (attached,) = [one for one in xdp_status() if one.interface == "v0" and one.namespace.is_current]
    assert attached.pins == (str(path),)
    with XdpLink.open(path) as again:
        assert again.id == link.id
        assert again.pinned == path
    assert netlink.link("v0").xdp
    with XdpLink.open(path) as again:
        again.unpin()
        assert not path.exists()
    assert netlink.link("v0").xdp == {}


def test_pin_outside_a_bpffs_is_refused(net: None, program: FD, tmp_path: Path) -> None:
    with attach_xdp(program, "v0") as link, pytest.raises(Error, match="not on a BPF file system"):
        link.pin(tmp_path / "link")


def test_links_by_id(net: None, program: FD) -> None:
    with attach_xdp(program, "v0") as link:
        assert link.id is not None
        found = Link.from_id(link.id)
        assert found.program_id == id_of(program)
        found.close()
    with pytest.raises(FileNotFoundError):
        Link.from_id(link.id)


# --- somebody is there ----------------------------------------------------------------------------------


def test_who_is_there_is_named(net: None, program: FD, other: FD, bpffs: Path) -> None:
    with attach_xdp(program, "v0", mode="generic") as link:
        for mode in XdpMode:
            with pytest.raises(AttachError) as caught:
                attach_xdp(other, "v0", mode=mode)
            text = str(caught.value)
            assert f"'first' (id {id_of(program)}) in generic mode" in text
            assert f"link {link.id}" in text
            assert f"({os.getpid()})" in text
            assert "replace=True" in text
        link.pin(bpffs / "held")
        with pytest.raises(AttachError, match=f"pinned at {bpffs}/held"):
            attach_xdp(other, "v0")


def test_replace_through_the_link_of_another(net: None, program: FD, other: FD) -> None:
    first = attach_xdp(program, "v0", mode="generic")
    with attach_xdp(other, "v0", replace=True) as link:
        assert isinstance(link, XdpLink)
        assert (link.id, link.mode) == (first.id, XdpMode.GENERIC)
        assert netlink.link("v0").xdp == {XdpFlags.SKB_MODE: id_of(other)}
    assert netlink.link("v0").xdp == {}
    first.close()


def test_replace_only_what_is_expected(net: None, program: FD, other: FD) -> None:
    with attach_xdp(program, "v0"):
        with pytest.raises(AttachError, match=rf"replace program 999999 on v0: .* \(id {id_of(program)}\)"):
            attach_xdp(other, "v0", expected=999999)
        attach_xdp(other, "v0", expected=id_of(program)).close()
        assert netlink.link("v0").xdp == {XdpFlags.DRV_MODE: id_of(other)}
    with pytest.raises(AttachError, match="no XDP program is attached"):
        attach_xdp(other, "v0", expected=id_of(program))


def test_replace_cannot_change_the_mode(net: None, program: FD, other: FD) -> None:
    with (
        attach_xdp(program, "v0", mode="generic"),
        pytest.raises(AttachError, match=r"replace a program in native mode on v0: .* in generic mode"),
    ):
        attach_xdp(other, "v0", mode="native", replace=True)


def test_replace_with_nothing_there_attaches(net: None, program: FD) -> None:
    with attach_xdp(program, "v0", replace=True) as link:
        assert isinstance(link, XdpLink)


# --- netlink --------------------------------------------------------------------------------------------


def test_replace_what_was_attached_through_netlink(net: None, program: FD, other: FD) -> None:
    netlink.set_xdp("v0", program.fileno(), flags=XdpFlags.SKB_MODE)
    with attach_xdp(other, "v0", replace=True) as attached:
        assert isinstance(attached, NetlinkXdp)
        assert (attached.mode, attached.persists) == (XdpMode.GENERIC, True)
        assert netlink.link("v0").xdp == {XdpFlags.SKB_MODE: id_of(other)}
        assert attached.ifindex == netlink.index_of("v0")
        with pytest.raises(Error, match="nothing to pin"):
            attached.pin("/sys/fs/bpf/x")
        attached.update(program)
        assert (
            netlink.link("v0").xdp
            == {XdpFlags.SKB_MODE: id_of(program)}
            == {XdpFlags.SKB_MODE: attached.program_id}
        )
    assert netlink.link("v0").xdp == {}


def test_without_links_netlink_serves(net: None, program: FD, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel before 5.9 answers EINVAL."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(xdp.bpf, "link_create", refuse)
    for interface, mode in (("v0", XdpMode.NATIVE), ("lo", XdpMode.GENERIC)):
        with attach_xdp(program, interface) as attached:
            assert isinstance(attached, NetlinkXdp)
            assert attached.mode is mode
        assert netlink.link(interface).xdp == {}
    attached = attach_xdp(program, "v0")
    attached.close()
    assert netlink.link("v0").xdp  # it persists
    detach_xdp("v0")


def test_netlink_detach_leaves_the_program_of_another(net: None, program: FD, other: FD) -> None:
    attached = NetlinkXdp(program.fileno(), "v0", netlink.index_of("v0"), XdpMode.NATIVE)
    netlink.set_xdp("v0", other.fileno(), flags=XdpFlags.DRV_MODE)
    with pytest.raises(AttachError, match="left alone"):
        attached.detach()
    assert netlink.link("v0").xdp == {XdpFlags.DRV_MODE: id_of(other)}
    attached.close()
    netlink.set_xdp("v0", -1, flags=XdpFlags.DRV_MODE)


# --- theirs, detached by us -----------------------------------------------------------------------------


@pytest.fixture
def pinned(bpffs: Path, program: FD) -> str:
    """A program where `ip` and `bpftool` can find it."""
    bpf.obj_pin(program.fileno(), bpffs / "program")
    return str(bpffs / "program")


@needs_ip
@pytest.mark.parametrize(
    ("how", "mode"), [("xdpgeneric", "generic"), ("xdpdrv", "native"), ("xdp", "native")]
)
def test_what_ip_attached_we_detach(net: None, program: FD, pinned: str, how: str, mode: str) -> None:
    run("ip", "link", "set", "v0", how, "pinned", pinned)
    (attached,) = [one for one in xdp_status() if one.namespace.is_current]
    assert (attached.mode, attached.program_id, attached.link_id) == (XdpMode(mode), id_of(program), None)
    assert attached.program_name == "first"
    (gone,) = detach_xdp("v0")
    assert gone == attached
    assert ip_xdp() is None
    with pytest.raises(AttachError, match="no XDP program is attached"):
        detach_xdp("v0")


@needs_bpftool
@pytest.mark.parametrize("how", ["xdpgeneric", "xdpdrv"])
def test_what_bpftool_attached_we_detach(net: None, pinned: str, how: str) -> None:
    run("bpftool", "net", "attach", how, "pinned", pinned, "dev", "v0")
    detach_xdp("v0")
    assert netlink.link("v0").xdp == {}


@needs_ip
def test_what_we_attached_through_netlink_ip_detaches(net: None, program: FD) -> None:
    netlink.set_xdp("v0", program.fileno(), flags=XdpFlags.SKB_MODE)
    run("ip", "link", "set", "v0", "xdp", "off")
    assert netlink.link("v0").xdp  # the trap of `xdp off`: no error, and still attached
    run("ip", "link", "set", "v0", "xdpgeneric", "off")
    assert not netlink.link("v0").xdp


def test_a_link_of_another_process_is_detached(net: None, program: FD) -> None:
    link = attach_xdp(program, "v0", mode="generic")
    (gone,) = detach_xdp("v0", program_id=id_of(program))
    assert gone.link_id == link.id
    assert gone.owners[0].pid == os.getpid()
    assert netlink.link("v0").xdp == {}
    link.close()


def test_detach_only_what_is_meant(net: None, program: FD) -> None:
    with attach_xdp(program, "v0", mode="generic"):
        with pytest.raises(AttachError, match=r"with id 999999 from v0: attached there: .*'first'"):
            detach_xdp("v0", program_id=999999)
        with pytest.raises(AttachError, match="in native mode from v0"):
            detach_xdp("v0", mode="native")
        assert netlink.link("v0").xdp
        detach_xdp("v0", mode="generic")


def test_the_same_program_in_two_namespaces(net: None, program: FD) -> None:
    """Same program and ifindex: the kernel does not tell the links apart, so neither may we."""
    assert netlink.index_of("v0") == namespaces.run_in(NAMES[1], netlink.index_of, "v1")
    with attach_xdp(program, "v0"), attach_xdp(program, "v1", netns=NAMES[1]):
        mine = [one for one in xdp_status() if one.namespace.name in NAMES]
        assert [one.link_id for one in mine] == [None, None]
        with pytest.raises(AttachError, match="several network namespaces"):
            detach_xdp("v0")
        assert netlink.link("v0").xdp
        assert namespaces.run_in(NAMES[1], netlink.link, "v1").xdp


def test_status_over_namespaces(net: None, program: FD, other: FD) -> None:
    with attach_xdp(program, "v0") as first, attach_xdp(other, "v1", netns=NAMES[1], mode="skb") as second:
        found = {one.namespace.label: one for one in xdp_status() if one.namespace.name in NAMES}
        assert list(found) == list(NAMES)  # the current one first
        a, b = found.values()
        assert (a.interface, a.mode, a.program_id, a.link_id) == (
            "v0", XdpMode.NATIVE, id_of(program), first.id,
        )  # fmt: skip
        assert (b.interface, b.mode, b.program_name, b.link_id) == (
            "v1",
            XdpMode.GENERIC,
            "second",
            second.id,
        )
        assert a.tag == b.tag == bpf.program_info(program.fileno()).tag
        assert os.getpid() in [owner.pid for owner in a.owners]
        assert [one.namespace.name for one in xdp_status(all_namespaces=False)] == [NAMES[0]]


def test_without_the_privilege(net: None, program: FD) -> None:
    with attach_xdp(program, "v0"):
        child = os.fork()
        if not child:
            os.setuid(65534)
            try:
                detach_xdp("v0")
            except PrivilegeError as error:
                os._exit(0 if "user 65534) lacks CAP_SYS_ADMIN" in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert netlink.link("v0").xdp


def test_kinds_have_labels() -> None:
    assert [kind.label for kind in Kind] == ["program", "map", "link", "BTF"]
