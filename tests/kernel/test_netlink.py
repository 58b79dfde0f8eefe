"""rtnetlink, namespaces and mounts against iproute2 and the kernel."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ebpf.errors import Error
from ebpf.kernel import bpf, mounts, namespaces, netlink
from ebpf.kernel.rtnetlink import NetlinkError
from ebpf.uapi import XdpFlags

pytestmark = pytest.mark.kernel

NAMES = (f"eb-nl{os.getpid()}a", f"eb-nl{os.getpid()}b")
XDP_PASS = bytes.fromhex("b700000002000000 9500000000000000")

needs_ip = pytest.mark.skipif(shutil.which("ip") is None, reason="compares with ip, which is not installed")


@pytest.fixture
def pair() -> Iterator[tuple[str, str]]:
    """Two namespaces with v0 in the first tied to v1 in the second."""
    for name in NAMES:
        namespaces.create(name)
    try:
        with namespaces.entered(NAMES[0]), namespaces.opened(NAMES[1]) as peer:
            netlink.create_veth("v0", "v1", peer_netns=peer)
        yield NAMES
    finally:
        with namespaces.entered(NAMES[0]):
            netlink.delete("v0")
        for name in NAMES:
            namespaces.delete(name)


def ip(*arguments: str) -> Any:
    done = subprocess.run(["ip", "-json", "-d", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]")


@needs_ip
def test_links_say_what_ip_says(pair: tuple[str, str]) -> None:
    with namespaces.entered(pair[0]):
        netlink.create("bridge", "br0")
        netlink.set_master("v0", "br0")
        netlink.set_mac("v0", "02:00:00:00:00:11")
        netlink.set_mtu("v0", 1300)
        netlink.set_up("v0")
        ours = {link.name: link for link in netlink.links()}
        theirs = {entry["ifname"]: entry for entry in ip("link", "show")}
        assert ours.keys() == theirs.keys() == {"lo", "br0", "v0"}
        for name, entry in theirs.items():
            link = ours[name]
            assert link.index == entry["ifindex"] == netlink.index_of(name)
            assert link.mtu == entry["mtu"]
            assert link.state == entry["operstate"].lower()
            assert link.address == entry["address"]
            assert link.kind == entry.get("linkinfo", {}).get("info_kind", "")
            assert link.is_up == ("UP" in entry["flags"])
            assert link.is_loopback == ("LOOPBACK" in entry["flags"])
            assert link.xdp == {}
        assert ours["v0"].master == ours["br0"].index
        assert (ours["v0"].mtu, ours["v0"].address) == (1300, "02:00:00:00:00:11")
        assert ours["v0"].peer_namespace_id is not None
        netlink.set_master("v0", 0)
        netlink.set_down("v0")
        netlink.rename("v0", "other")
        assert (netlink.link("other").master, netlink.link("other").is_up) == (0, False)
        netlink.rename("other", "v0")
        netlink.delete("br0")


@needs_ip
def test_addresses_routes_neighbours(pair: tuple[str, str]) -> None:
    with namespaces.entered(pair[0]):
        netlink.add_address("v0", "10.77.0.1", 24)
        netlink.add_address("v0", "fd77::1", 64)
        netlink.set_up("v0")
        netlink.add_route("10.78.0.0", 16, via="10.77.0.2")
        netlink.add_route("0.0.0.0", 0, via="10.77.0.3")
        netlink.add_route("fd78::", 64, via="fd77::2", interface="v0")
        netlink.add_route("10.79.0.0", 16, interface="v0")
        netlink.add_neighbour("v0", "10.77.0.2", "02:00:00:00:00:22")
        addresses = {
            (entry["local"], entry["prefixlen"])
            for entry in ip("addr", "show", "dev", "v0")[0]["addr_info"]
            if entry["scope"] == "global"
        }
        assert addresses == {("10.77.0.1", 24), ("fd77::1", 64)}
        routes = {entry["dst"]: entry for entry in ip("route", "show")}
        assert routes["10.78.0.0/16"]["gateway"] == "10.77.0.2"
        assert routes["default"]["gateway"] == "10.77.0.3"
        assert routes["10.79.0.0/16"]["scope"] == "link"
        six = {entry["dst"]: entry for entry in ip("-6", "route", "show")}
        assert six["fd78::/64"]["gateway"] == "fd77::2"
        assert {"dst": "10.77.0.2", "lladdr": "02:00:00:00:00:22"}.items() <= ip("neigh", "show")[0].items()
        with pytest.raises(NetlinkError) as caught:
            netlink.add_address("v0", "10.77.0.1", 24)
        assert caught.value.errno == errno.EEXIST


def test_move_takes_an_interface_elsewhere(pair: tuple[str, str]) -> None:
    with namespaces.opened(pair[0]) as target, namespaces.entered(pair[1]):
        netlink.rename("v1", "moved")
        netlink.move("moved", target)
        assert {link.name for link in netlink.links()} == {"lo"}
    with namespaces.entered(pair[0]):
        assert {link.name for link in netlink.links()} == {"lo", "v0", "moved"}


def test_an_interface_that_is_not_there(pair: tuple[str, str]) -> None:
    with namespaces.entered(pair[0]):
        for missing in ("nope", "a-name-longer-than-fifteen-bytes", 4711):
            with pytest.raises(NetlinkError) as caught:
                netlink.link(missing)
            assert caught.value.errno == errno.ENODEV


def test_xdp_and_the_reason_of_the_kernel(pair: tuple[str, str]) -> None:
    fd = bpf.prog_load(6, XDP_PASS, "GPL")
    try:
        id = bpf.program_info(fd).id
        with namespaces.entered(pair[0]):
            netlink.set_xdp("v0", fd, flags=XdpFlags.DRV_MODE)
            assert netlink.link("v0").xdp == {XdpFlags.DRV_MODE: id}
            with pytest.raises(NetlinkError, match="Native and generic XDP can't be active") as caught:
                netlink.set_xdp("v0", fd, flags=XdpFlags.SKB_MODE)
            assert caught.value.errno == errno.EEXIST
            assert "at the same time" in caught.value.reason
            with pytest.raises(NetlinkError, match="does not match expected"):
                netlink.set_xdp("v0", fd, flags=XdpFlags.DRV_MODE, expected_fd=-1)
            netlink.set_xdp("v0", -1, flags=XdpFlags.SKB_MODE)  # the trap: success, and nothing happened
            assert netlink.link("v0").xdp == {XdpFlags.DRV_MODE: id}
            netlink.set_xdp("v0", -1, flags=XdpFlags.DRV_MODE, expected_fd=fd)
            assert netlink.link("v0").xdp == {}
    finally:
        os.close(fd)


def test_entering_moves_one_thread(pair: tuple[str, str]) -> None:
    def own() -> str:
        return os.readlink("/proc/thread-self/ns/net")

    home = own()
    seen: list[str] = []
    entered = threading.Event()
    other = threading.Thread(target=lambda: (entered.wait(5), seen.append(own())))
    other.start()
    with namespaces.entered(pair[0]):
        inside = own()
        entered.set()
        other.join()
        with namespaces.entered(pair[1]):
            assert own() not in (home, inside)
        assert own() == inside != home
    assert own() == home
    assert seen == [home]
    with pytest.raises(RuntimeError), namespaces.entered(pair[0]):
        raise RuntimeError
    assert own() == home
    assert namespaces.run_in(pair[0], own) == inside


def test_find_names_namespaces(pair: tuple[str, str]) -> None:
    found = namespaces.find()
    assert found[0].is_current
    labels = [namespace.label for namespace in found]
    assert set(pair) <= set(labels)
    keys = [(namespace.device, namespace.inode) for namespace in found]
    assert len(keys) == len(set(keys))
    with namespaces.entered(pair[0]):
        inside = namespaces.find()
    assert inside[0].label == pair[0]
    assert inside[0].is_current
    process = subprocess.Popen(["unshare", "--net", "sleep", "30"])
    try:
        wanted = f"pid {process.pid} (sleep)"
        deadline = time.monotonic() + 5
        while not (nameless := [one for one in namespaces.find() if one.label == wanted]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert [link.name for link in namespaces.run_in(nameless[0], netlink.links)][:1] == ["lo"]
    finally:
        process.kill()
        process.wait()


def test_names_of_namespaces(pair: tuple[str, str]) -> None:
    assert namespaces.exists(pair[0])
    with pytest.raises(FileExistsError):
        namespaces.create(pair[0])
    with pytest.raises(Error, match=pair[0]), namespaces.entered("no-such-namespace"):
        pass
    with pytest.raises(Error, match="cannot name"):
        namespaces.create("a/b")


def test_bpffs_never_hides_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(Error, match="not empty"):
        mounts.mount_bpffs(tmp_path)
    assert (tmp_path / "mine").read_text() == "precious"
    with pytest.raises(Error, match="not on a BPF file system") as caught:
        mounts.pin_path(tmp_path / "x")
    assert "mount -t bpf" in str(caught.value)


def test_pins_on_a_private_bpffs(tmp_path: Path) -> None:
    place = tmp_path / "a b"
    mounts.mount_bpffs(place)
    try:
        assert place in mounts.bpffs_mounts()
        assert mounts.filesystem_of(place) == "bpf"
        path = mounts.pin_path(place / "x.y" / "data.config")
        assert path == place / "x_y" / "data_config"
        fd = bpf.map_create(2, 4, 4, 1, name="pinned")
        try:
            bpf.obj_pin(fd, path)
            with pytest.raises(FileExistsError):
                bpf.obj_pin(fd, path)
        finally:
            os.close(fd)
        again = bpf.obj_get(path)
        assert bpf.map_info(again).name == "pinned"
        os.close(again)
    finally:
        mounts.unmount(place)
    assert mounts.filesystem_of(place) != "bpf"
    mounts.unmount(place)  # a second time is no error
