"""Live maps against the kernel: every kind of map with typed keys and values."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import ebpf
from ebpf.errors import Error, KernelError, ValueRangeError
from ebpf.kernel import mounts
from ebpf.kernel.features import possible_cpus
from ebpf.loader.object import Object
from ebpf.maps.codecs import LpmKey, RedirectTarget, network
from ebpf.maps.map import Map
from ebpf.maps.percpu import PerCpu
from ebpf.spec.model import MapSpec
from ebpf.uapi import MapFlags, MapType

pytestmark = pytest.mark.kernel

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct flow { __u32 saddr; __u16 dport; __u8 proto; };
struct stats { __u64 packets; __u64 bytes; };
struct named { char name[16]; __u64 n; };
struct prefix { __u32 prefixlen; __u8 addr[4]; };

#define MAP(name, kind, k, v, n) struct { __uint(type, BPF_MAP_TYPE_##kind); __type(key, k); \\
    __type(value, v); __uint(max_entries, n); } name SEC(".maps")

MAP(array, ARRAY, __u32, __u64, 4);
MAP(flows, HASH, struct flow, struct stats, 4);
MAP(percpu, PERCPU_ARRAY, __u32, struct stats, 2);
MAP(percpu_hash, PERCPU_HASH, __u32, __u32, 8);
MAP(percpu_named, PERCPU_ARRAY, __u32, struct named, 1);
MAP(lru, LRU_HASH, __u32, __u64, 64);
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __type(key, struct prefix); __type(value, __u32);
    __uint(max_entries, 16); __uint(map_flags, BPF_F_NO_PREALLOC); } routes SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __type(value, __u64); __uint(max_entries, 2); } queue SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __type(key, __u32); __uint(value_size, 8);
    __uint(max_entries, 4); } devices SEC(".maps");
struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64);
    __uint(max_entries, 1); } first SEC(".maps"), second SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __type(key, __u32); __uint(max_entries, 4);
    __array(values, struct inner); } outer SEC(".maps") = { .values = { [2] = &second } };

SEC("xdp") int prog(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def spec() -> ebpf.Spec:
    return ebpf.compile(SOURCE, name="maps.bpf.c")


@pytest.fixture
def obj(spec: ebpf.Spec) -> Iterator[Object]:
    with spec.load() as loaded:
        yield loaded


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "bpffs"
    mounts.mount_bpffs(folder)
    yield folder
    mounts.unmount(folder)


def test_array(obj: Object) -> None:
    array = obj.maps["array"]
    assert list(array) == [0, 1, 2, 3] and len(array) == 4
    array[2] = 2**64 - 1
    assert array[2] == 2**64 - 1
    assert dict(array.items()) == {0: 0, 1: 0, 2: 2**64 - 1, 3: 0}
    assert list(array.values()) == [0, 0, 2**64 - 1, 0]
    assert 3 in array and 4 not in array
    with pytest.raises(KeyError):
        array[4]
    with pytest.raises(KernelError, match="has the indices 0 to 3, not 4"):
        array[4] = 1
    with pytest.raises(
        Error, match=r"type array, which has no del map\[key\]; it has: .*iteration"
    ) as caught:
        del array[0]
    assert caught.value.hint is not None and "write zeros" in caught.value.hint
    with pytest.raises(Error, match="has no del"):
        array.clear()
    with pytest.raises(ValueRangeError, match="does not fit"):
        array[0] = 2**64
    with pytest.raises(ValueRangeError):
        array[-1]


def test_hash_of_structs(obj: Object) -> None:
    flows = obj.maps["flows"]
    assert len(flows) == 0 and list(flows.items()) == []
    flows[{"saddr": 1, "dport": 80, "proto": 6}] = {"packets": 3, "bytes": 180}
    flows[(2, 443, 17)] = (1, 60)
    key, value = next((key, value) for key, value in flows.items() if key.saddr == 1)
    assert (key.dport, value.packets, value.bytes) == (80, 3, 180)
    assert flows[key] == {"packets": 3, "bytes": 180}
    assert flows.get((9, 9, 9)) is None and (2, 443, 17) in flows
    with pytest.raises(KeyError, match=r"\(9, 9, 9\)"):
        flows[(9, 9, 9)]
    flows[(3, 0, 0)] = flows[(4, 0, 0)] = (0, 0)
    with pytest.raises(KernelError, match=r"map 'flows' is full \(max_entries 4\)"):
        flows[(5, 0, 0)] = (0, 0)
    assert flows.pop((3, 0, 0)) == {"packets": 0, "bytes": 0}
    assert flows.pop((3, 0, 0), None) is None
    with pytest.raises(KeyError):
        flows.pop((3, 0, 0))
    del flows[(4, 0, 0)]
    with pytest.raises(KeyError):
        del flows[(4, 0, 0)]
    assert len(flows) == 2
    flows.clear()
    assert len(flows) == 0 and bool(flows)


def test_put(obj: Object) -> None:
    lru = obj.maps["lru"]
    with pytest.raises(KeyError):
        lru.put(1, 1, exist=True)
    lru.put(1, 1, exist=False)
    with pytest.raises(KernelError, match="entry 1 is there already"):
        lru.put(1, 2, exist=False)
    lru.put(1, 3, exist=True)
    assert lru[1] == 3
    lru.update({5: 6, 7: 8})
    assert dict(lru) == {1: 3, 5: 6, 7: 8}


def test_percpu(obj: Object) -> None:
    percpu, cpus = obj.maps["percpu"], possible_cpus()
    assert isinstance(percpu[0], PerCpu) and len(percpu[0]) == cpus
    percpu[0] = [{"packets": cpu + 1, "bytes": 10} for cpu in range(cpus)]
    assert percpu[0].sum() == {"packets": cpus * (cpus + 1) // 2, "bytes": 10 * cpus}
    assert percpu[0][0].packets == 1
    percpu[1] = percpu[0]
    assert percpu[1] == percpu[0]
    assert [value.sum().bytes for value in percpu.values()] == [10 * cpus, 10 * cpus]
    with pytest.raises(ValueRangeError, match=r"holds one value per CPU(?s:.*)PerCpu\.of"):
        percpu[0] = {"packets": 1}
    with pytest.raises(ValueRangeError, match=f"each of {cpus} possible CPUs, and {cpus + 1} were given"):
        percpu[0] = [(1, 1)] * (cpus + 1)
    numbers = obj.maps["percpu_hash"]  # 4-byte values at a stride of 8
    numbers[7] = PerCpu.of(5)
    assert numbers[7].sum() == 5 * cpus and dict(numbers) == {7: [5] * cpus}
    assert numbers.pop(7) == [5] * cpus and len(numbers) == 0
    with pytest.raises(Error, match=r"value\.name is str 'eth0', which cannot be summed"):
        named = obj.maps["percpu_named"]
        named[0] = PerCpu.of(("eth0", 1))
        named[0].sum()


def test_lpm(obj: Object) -> None:
    routes = obj.maps["routes"]
    routes["10.0.0.0/8"] = 1
    routes[ipaddress.ip_network("10.1.0.0/16")] = 2
    routes[(0, bytes(4))] = 3
    assert routes["10.9.9.9"] == 1 and routes[ipaddress.ip_address("10.1.2.3")] == 2
    assert routes["8.8.8.8"] == 3
    assert {(key.prefixlen, key.addr): value for key, value in routes.items()} == {
        (8, (10, 0, 0, 0)): 1,
        (16, (10, 1, 0, 0)): 2,
        (0, (0, 0, 0, 0)): 3,
    }
    key = next(key for key in routes if key.prefixlen == 16)
    assert routes[key] == 2
    assert len(routes) == 3
    with pytest.raises(ValueRangeError, match="128 bits; the map holds 32"):
        routes["::/0"]
    del routes["10.0.0.0/8"]
    assert routes["10.9.9.9"] == 3


def test_queue(obj: Object) -> None:
    queue = obj.maps["queue"]
    queue.push(1)
    queue.push(2)
    with pytest.raises(KernelError, match="is full"):
        queue.push(3)
    queue.push(3, evict=True)
    assert queue.peek() == 2 and queue.pop() == 2 and queue.pop() == 3
    for empty in (queue.pop, queue.peek):
        with pytest.raises(IndexError, match="map 'queue' is empty"):
            empty()
    refused = r"type queue, which has no .*; it has: push\(value\), pop\(\), peek\(\)"
    for attempt in (lambda: queue[0], lambda: list(queue), lambda: len(queue), lambda: queue.get(0)):
        with pytest.raises(Error, match=refused):
            attempt()


def test_types_without_entries(obj: Object) -> None:
    with pytest.raises(Error, match="type ringbuf, which has no map") as caught:
        obj.maps["ring"][0]
    assert caught.value.hint is not None and "consumer" in caught.value.hint


def test_devmap_values(obj: Object) -> None:
    devices = obj.maps["devices"]
    devices[1] = 1  # lo
    assert devices[1] == RedirectTarget(1, 0) and dict(devices) == {1: (1, 0)} and len(devices) == 1


def test_map_in_map(obj: Object) -> None:
    outer = obj.maps["outer"]
    obj.maps["second"][0] = 22
    with outer[2] as inner:  # initialised by the object
        assert inner.id == obj.maps["second"].id and inner[0] == 22
    outer[3] = obj.maps["first"]
    with outer[3] as inner:
        inner[0] = 11
    assert obj.maps["first"][0] == 11
    assert set(outer) == {2, 3}
    with pytest.raises(KernelError, match="differs from the template"):
        outer[3] = obj.maps["array"]
    with outer.create_inner() as fresh:
        fresh[0] = 33
        outer[3] = fresh
    with outer[3] as inner:
        assert inner[0] == 33
        assert str(inner.value_type) == "__u64", "typed by the template: the kernel has no types for it"
    with pytest.raises(Error, match="has no template"):
        obj.maps["array"].create_inner()


def test_opened_by_id_it_has_the_same_types(obj: Object) -> None:
    flows = obj.maps["flows"]
    flows[(1, 2, 3)] = (4, 5)
    with Map.from_id(flows.id) as again:
        assert again.name == "flows" and again.type is MapType.HASH and again.max_entries == 4
        ((key, value),) = again.items()
        assert (key.saddr, key.dport, value.bytes) == (1, 2, 5)
        assert str(again.value_type) == "struct stats"
    with pytest.raises(Error, match="is closed"):
        again[(1, 2, 3)]
    with pytest.raises(KernelError, match="no map has the id"):
        Map.from_id(2**31)


def test_untyped() -> None:
    with Map.create(MapSpec("plain", MapType.HASH, 4, 3, 8)) as plain:
        plain[1] = b"abc"
        assert dict(plain) == {1: b"abc"}
        with pytest.raises(ValueRangeError):
            plain[1] = b"abcd"
    flags = MapFlags.NO_PREALLOC
    with Map.create(MapSpec("v6", MapType.LPM_TRIE, 20, 4, 8, flags)) as trie:
        trie["2001:db8::/32"] = 1
        (key,) = trie
        assert isinstance(key, LpmKey) and key.prefixlen == 32
        raw = key.prefixlen.to_bytes(4, "little") + key.data
        assert network(raw) == ipaddress.ip_network("2001:db8::/32")


def test_creation_errors_say_what_is_wrong() -> None:
    for wrong, message in (
        (MapSpec("m", MapType.LPM_TRIE, 8, 4, 8), "BPF_F_NO_PREALLOC"),
        (MapSpec("m", MapType.ARRAY, 8, 4, 8), "4-byte index, not 8"),
        (MapSpec("m", MapType.HASH, 4, 4, 0), "max_entries is 0"),
        (MapSpec("m", MapType.RINGBUF, 0, 0, 5000), "power of two"),
        (MapSpec("m", MapType.QUEUE, 4, 4, 1), "key_size must be 0"),
    ):
        with pytest.raises(KernelError, match=message):
            Map.create(wrong)


def test_frozen_map() -> None:
    with Map.create(MapSpec("cold", MapType.ARRAY, 4, 4, 1)) as cold:
        cold[0] = 7
        cold.freeze()
        assert cold.info.frozen and cold[0] == 7
        with pytest.raises(KernelError, match="cannot be written: the map is frozen"):
            cold[0] = 8


def test_pin(obj: Object, bpffs: Path) -> None:
    flows = obj.maps["flows"]
    flows[(1, 1, 1)] = (2, 2)
    flows.pin(bpffs / "my.flows")  # a bpffs takes no dots
    assert flows.pinned == str(bpffs / "my_flows")
    with pytest.raises(KernelError, match="something is pinned as"):
        obj.maps["array"].pin(bpffs / "my_flows")
    with Map.open(bpffs / "my.flows") as opened:
        assert opened[(1, 1, 1)].packets == 2
        opened.unpin()
    assert not any("." not in path.name for path in bpffs.iterdir())
    with pytest.raises(KernelError, match="no map is pinned as"):
        Map.open(bpffs / "my_flows")
    with pytest.raises(Error, match="not on a BPF file system"):
        flows.pin(bpffs.parent / "elsewhere")


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE])
def test_iteration_while_others_delete_and_insert(kind: MapType) -> None:
    """What stays for the whole walk is given once, whatever comes and goes meanwhile."""
    flags = MapFlags.NO_PREALLOC if kind is MapType.LPM_TRIE else MapFlags(0)
    size, full = (8, lambda n: (32, n.to_bytes(4, "big"))) if kind is MapType.LPM_TRIE else (4, lambda n: n)
    staying = [full(n) for n in range(0, 2000, 2)]
    moving = [full(n) for n in range(1, 2000, 2)]
    with Map.create(MapSpec("busy", kind, size, 8, 20000, flags)) as busy:
        for key in staying + moving:
            busy[key] = 1
        stop = threading.Event()

        def disturb() -> None:
            while not stop.is_set():
                for key in moving:
                    busy.pop(key, None)
                for key in moving:
                    busy[key] = 2

        thread = threading.Thread(target=disturb)
        thread.start()
        try:
            for _ in range(5):
                seen = [tuple(key) if isinstance(key, LpmKey) else key for key, _ in busy.items()]
                assert len(seen) == len(set(seen))
                assert set(staying) <= set(seen)
                keys = [tuple(key) if isinstance(key, LpmKey) else key for key in busy]
                assert len(keys) == len(set(keys)) and set(staying) <= set(keys)
        finally:
            stop.set()
            thread.join()


def test_walk_survives_deleting_what_it_gives() -> None:
    flags = MapFlags.NO_PREALLOC
    with Map.create(MapSpec("trie", MapType.LPM_TRIE, 8, 4, 100, flags)) as trie:
        for n in range(50):
            trie[(32, bytes((10, 0, 0, n)))] = n
        given = []
        for key in trie:
            given.append(key)
            del trie[key]
        assert len(set(given)) == 50 == len(given) and len(trie) == 0


def test_batches_larger_than_a_step() -> None:
    with Map.create(MapSpec("large", MapType.HASH, 4, 8, 5000)) as large:
        for n in range(5000):
            large[n] = n * n
        assert dict(large) == {n: n * n for n in range(5000)}
        assert len(large) == 5000
