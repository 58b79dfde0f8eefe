"""From object file to Spec: hand-made objects, and what the project's own compiler makes."""

from __future__ import annotations

import random

import pytest

from ebpf.compiler.compile import compile_object
from ebpf.errors import CompileError, Error, ObjectError
from ebpf.isa.instruction import Reference, ReferenceKind
from ebpf.spec.link import link_program
from ebpf.spec.model import Pinning, Spec
from ebpf.spec.reader import read_object
from ebpf.uapi import MapFlags, MapType, ProgramType

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct key { __u32 address; __u16 port; };
struct value { __u64 packets; char name[16]; };

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 100);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(pinning, LIBBPF_PIN_BY_NAME);
    __type(key, struct key);
    __type(value, struct value);
} flows SEC(".maps");

struct inner {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, __u64);
};
struct inner first SEC(".maps"), second SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 4);
    __type(key, __u32);
    __array(values, struct inner);
} outer SEC(".maps") = { .values = { [0] = &first, [3] = &second } };

int next_program(struct xdp_md *ctx);
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 3);
    __uint(key_size, 4);
    __array(values, int (struct xdp_md *));
} jumps SEC(".maps") = { .values = { [2] = &next_program } };

int counter;
int table[4];
int started = 42;
int placed SEC(".data.placed") = 3;
const volatile int limit = 5;
extern int LINUX_KERNEL_VERSION __kconfig;
extern _Bool CONFIG_BPF __kconfig __weak;
extern const void runqueues __ksym;
extern void bpf_rcu_read_lock(void) __ksym;

static __noinline int local(int x) { counter += x; return x * table[x & 3]; }
__noinline int shared(int x) { static int n; n++; return local(x) + n; }
__hidden __noinline int hidden(int x) { static int n; n += 2; return local(x) + n; }
static long callback(__u32 i, void *c) { table[i & 3]++; return 0; }

SEC("xdp") int main_program(struct xdp_md *ctx)
{
    struct key key = {};
    struct value *value;

    key.address = limit + LINUX_KERNEL_VERSION + CONFIG_BPF;
    value = bpf_map_lookup_elem(&flows, &key);
    if (value)
        value->packets += shared(ctx->rx_queue_index) + hidden(2);
    bpf_loop(3, callback, 0, 0);
    bpf_tail_call(ctx, &jumps, 2);
    bpf_printk("%d %d %llx", table[1], started + placed, &runqueues);
    bpf_map_lookup_elem(&outer, &key);
    bpf_rcu_read_lock();
    return XDP_PASS;
}
SEC("xdp") int next_program(struct xdp_md *ctx) { return shared(1); }
SEC("?tracepoint/syscalls/sys_enter_openat") int traced(void *ctx) { return 0; }
SEC("my_own_section") int own(struct xdp_md *ctx) { return XDP_DROP; }
char LICENSE[] SEC("license") = "Dual MIT/GPL";
"""


def compiled(source: str, **options: str) -> bytes:
    try:
        return compile_object(source, **options).data  # type: ignore[arg-type]
    except CompileError as error:
        if error.diagnostics:
            raise
        pytest.skip(f"needs a compiler: {error}")


@pytest.fixture(scope="module", params=["v1", "v2", "v3"])
def spec(request: pytest.FixtureRequest) -> Spec:
    return read_object(compiled(SOURCE, cpu=request.param), name="test")


def references(spec: Spec) -> set[Reference]:
    bodies = [*spec.programs.values(), *spec.functions.values()]
    return {i.reference for body in bodies for i in body.instructions if i.reference is not None}


def test_programs(spec: Spec) -> None:
    assert set(spec.programs) == {"main_program", "next_program", "traced", "own"}
    main, traced, own = (spec.programs[name] for name in ("main_program", "traced", "own"))
    assert (main.type, main.section, main.autoload, main.inferred) == (ProgramType.XDP, "xdp", True, False)
    assert (traced.section, traced.autoload) == ("tracepoint/syscalls/sys_enter_openat", False)
    assert traced.attach_to == "syscalls/sys_enter_openat"
    assert (own.type, own.inferred) == (ProgramType.XDP, True), "the context in BTF is struct xdp_md"
    assert spec.license == "Dual MIT/GPL"
    assert main.instructions[0].symbol == "main_program"
    assert spec.btf is not None and spec.btf.type(main.type_id).name == "main_program"


def test_functions(spec: Spec) -> None:
    assert {name: body.is_global for name, body in spec.functions.items()} == {
        "local": False,
        "shared": True,
        "hidden": False,
        "callback": False,
    }


def test_source_lines(spec: Spec) -> None:
    instructions = spec.programs["main_program"].instructions
    assert all(instruction.source for instruction in instructions)
    assert any(i.source and "bpf_tail_call(ctx, &jumps, 2);" in i.source.text for i in instructions)


def test_maps(spec: Spec) -> None:
    flows = spec.maps["flows"]
    assert (flows.type, flows.key_size, flows.value_size, flows.max_entries) == (MapType.HASH, 8, 24, 100)
    assert (flows.flags, flows.pinning) == (MapFlags.NO_PREALLOC, Pinning.BY_NAME)
    assert str(flows.key) == "struct key" and str(flows.value) == "struct value"
    outer = spec.maps["outer"]
    assert outer.inner is not None and (outer.inner.type, outer.inner.value_size) == (MapType.ARRAY, 8)
    assert (outer.value_size, outer.slots) == (4, {0: "first", 3: "second"})
    assert spec.maps["jumps"].slots == {2: "next_program"}


def test_data_maps_and_variables(spec: Spec) -> None:
    flags = {name: spec.maps[name].flags for name in (".bss", ".data", ".data.placed", ".rodata", ".kconfig")}
    assert flags == {
        ".bss": MapFlags.MMAPABLE,
        ".data": MapFlags.MMAPABLE,
        ".data.placed": MapFlags.MMAPABLE,
        ".rodata": MapFlags.MMAPABLE | MapFlags.RDONLY_PROG,
        ".kconfig": MapFlags.MMAPABLE | MapFlags.RDONLY_PROG,
    }
    values = {name: spec.variables[name] for name in ("counter", "table", "started", "placed", "limit")}
    assert values == {"counter": 0, "table": (0, 0, 0, 0), "started": 42, "placed": 3, "limit": 5}
    assert {"shared.n", "hidden.n"} <= set(spec.variables), "two static variables of one name"
    copy = spec.copy()
    copy.variables["limit"] = 7
    assert (copy.variables["limit"], spec.variables["limit"]) == (7, 5)


def test_externs(spec: Spec) -> None:
    externs = spec.externs
    version, config = externs["LINUX_KERNEL_VERSION"], externs["CONFIG_BPF"]
    assert (version.offset, version.size, version.is_weak) == (0, 4, False)
    assert (config.offset, config.size, config.is_weak) == (4, 1, True)
    assert spec.maps[".kconfig"].value_size == 5
    assert (externs["runqueues"].type, externs["runqueues"].section) == (None, ".ksyms")
    assert externs["bpf_rcu_read_lock"].is_function


def test_references(spec: Spec) -> None:
    found = references(spec)
    kinds = ReferenceKind
    table = spec.variables.places["table"]
    assert {
        Reference(kinds.MAP, "flows"),
        Reference(kinds.MAP, "outer"),
        Reference(kinds.CALL, "shared"),
        Reference(kinds.CALL, "local"),
        Reference(kinds.FUNCTION, "callback"),
        Reference(kinds.MAP_VALUE, ".bss", table.offset),
        Reference(kinds.MAP_VALUE, ".data.placed"),
        Reference(kinds.KCONFIG, "LINUX_KERNEL_VERSION"),
        Reference(kinds.KSYM, "runqueues"),
        Reference(kinds.KFUNC, "bpf_rcu_read_lock"),
    } <= found


def test_linked(spec: Spec) -> None:
    linked = link_program(spec, spec.programs["main_program"])
    assert [function.name for function in linked.functions] == [
        "main_program",
        "shared",
        "local",
        "hidden",
        "callback",
    ]


def test_big_endian() -> None:
    spec = read_object(compiled(SOURCE, cpu="v3", byteorder="big"), name="test")
    assert spec.byteorder == "big" and spec.variables["started"] == 42
    assert Reference(ReferenceKind.CALL, "local") in references(spec)


def test_without_btf() -> None:
    source = """
    #include <linux/bpf.h>
    #include <bpf/bpf_helpers.h>
    struct bpf_map_def { unsigned type, key_size, value_size, max_entries, map_flags; };
    struct bpf_map_def SEC("maps") one = { 1, 4, 8, 10 };
    struct bpf_map_def SEC("maps") two = { 2, 4, 16, 11, 1024 };
    int counter;
    SEC("xdp") int program(struct xdp_md *ctx)
    {
        int key = 0;
        counter++;
        return bpf_map_lookup_elem(&two, &key) ? 2 : 1;
    }
    """
    spec = read_object(compiled(source, flags=["-g0"]), name="test")  # type: ignore[arg-type]
    assert spec.btf is None and spec.license == ""
    two = spec.maps["two"]
    assert (two.type, two.key_size, two.value_size, two.max_entries, two.flags) == (
        MapType.ARRAY,
        4,
        16,
        11,
        1024,
    )
    assert Reference(ReferenceKind.MAP, "two") in references(spec)
    place = spec.variables.places["counter"]
    assert (place.map, place.size, place.type) == (".bss", 4, None)


def test_iproute2_maps_and_tail_calls() -> None:
    source = """
    #include <linux/bpf.h>
    #include <bpf/bpf_helpers.h>
    struct bpf_elf_map {
        __u32 type, size_key, size_value, max_elem, flags, id, pinning, inner_id, inner_idx;
    };
    struct bpf_elf_map SEC("maps") jumps = { 3, 4, 4, .max_elem = 3, .id = 1, .pinning = 2 };
    struct bpf_elf_map SEC("maps") inner = { 2, 4, 8, .max_elem = 3, .id = 42, .inner_idx = 5 };
    struct bpf_elf_map SEC("maps") outer = { 12, 4, 4, .max_elem = 8, .inner_id = 42 };
    SEC("1/0") int tail(struct __sk_buff *skb) { int key = 1; return bpf_map_lookup_elem(&outer, &key) != 0; }
    SEC("classifier") int filter(struct __sk_buff *skb) { bpf_tail_call(skb, &jumps, 2); return 0; }
    """
    for flags in (["-g"], ["-g0"]):
        spec = read_object(compiled(source, flags=flags), name="test")  # type: ignore[arg-type]
        assert spec.maps["jumps"].slots == {0: "tail"} and spec.maps["jumps"].pinning == Pinning.BY_NAME
        assert spec.maps["outer"].slots == {5: "inner"}
        assert spec.maps["outer"].inner is not None and spec.maps["outer"].inner.value_size == 8
        tail = spec.programs["tail"]
        assert (tail.type, tail.inferred) == (ProgramType.SCHED_CLS, True)


REFUSED = {
    "unknown field": (
        'struct { __uint(type, 1); __uint(colour, 3); } m SEC(".maps");',
        "unknown field 'colour'",
    ),
    "no type": ('struct { __uint(max_entries, 1); } m SEC(".maps");', "has no `type`"),
    "unknown type": ('struct { __uint(type, 999); } m SEC(".maps");', "999 is no known map type"),
    "contradiction": (
        'struct { __uint(type, 1); __uint(key_size, 8); __type(key, int); } m SEC(".maps");',
        "4 bytes contradict the 8 bytes",
    ),
    "values": (
        "struct inner { __uint(type, 2); }; "
        'struct { __uint(type, 2); __array(values, struct inner); } m SEC(".maps");',
        "takes no initial values",
    ),
    "pinning": ('struct { __uint(type, 1); __uint(pinning, 2); } m SEC(".maps");', "2 is neither"),
    "lost variable": (
        'int v SEC("elsewhere"); SEC("xdp") int p(void *c) { return v; }',
        "'v' in 'elsewhere'",
    ),
    "lost function": ('extern int far(int); SEC("xdp") int p(void *c) { return far(1); }', "call of 'far'"),
    "lost extern": ('extern int far; SEC("xdp") int p(void *c) { return far; }', "'far' is used"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    source, message = REFUSED[case]
    headers = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
    with pytest.raises(ObjectError, match=message):
        read_object(compiled(headers + source), name="test")


def test_addresses_in_data_are_told() -> None:
    source = 'const char *names[] = {"a", "b"};\nint n = 1;\n'
    spec = read_object(compiled(source), name="test")
    assert ".data+0x0 holds the address of" in spec.diagnostics[0].message


def test_damaged_objects_cost_errors_only() -> None:
    """Random damage: an error of this package, or a Spec that still links; nothing else, and no hang."""
    random_source = random.Random(5)
    pristine = compiled(SOURCE, cpu="v3")
    for _ in range(2000):
        data = bytearray(pristine)
        if random_source.random() < 0.2:
            del data[random_source.randrange(len(data)) :]
        for _ in range(random_source.choice([1, 1, 3, 12])):
            place = random_source.randrange(len(data)) if data else 0
            value = random_source.choice([0, 1, 255, 1 << 31, (1 << 64) - 1, len(pristine)])
            data[place : place + 8] = value.to_bytes(8, "little")[: random_source.choice([1, 4, 8])]
        try:
            spec = read_object(bytes(data), name="damaged")
            for program in spec.programs.values():
                link_program(spec, program)
            dict(spec.variables)
        except Error:
            pass
