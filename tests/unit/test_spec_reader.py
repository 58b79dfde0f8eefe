"""From object file to Spec: hand-made objects, and what the project's own compiler makes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from elf_writer import CODE, EXIT, LOCAL, NOBITS, NOTYPE, OBJECT, SECTION, WEAK, ElfWriter, call, load

import ebpf
from ebpf.compiler.compile import compile_object
from ebpf.errors import BTFError, CompileError, Error, ObjectError
from ebpf.isa.instruction import Reference, ReferenceKind
from ebpf.spec.link import link_program
from ebpf.spec.model import Pinning, Spec
from ebpf.spec.reader import open as open_object
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


# Hand-made objects: what compilers do not emit today.


def test_assembly_without_types_and_sizes() -> None:
    writer = ElfWriter()
    code = writer.section("xdp", EXIT + EXIT, flags=CODE)
    writer.symbol("one", code, 0, type=NOTYPE)
    writer.symbol("two", code, 16, type=NOTYPE)
    spec = read_object(writer.build(), name="test")
    assert [len(program.instructions) for program in spec.programs.values()] == [2, 2]


def test_calls_resolved_by_the_assembler() -> None:
    writer = ElfWriter()
    code = writer.section("xdp", call(1) + EXIT + EXIT, flags=CODE)
    writer.symbol("main", code, 0, 24)
    writer.symbol("sub", code, 24, 16, binding=LOCAL)
    with pytest.raises(ObjectError, match="no function starts at 0x10"):
        read_object(writer.build(), name="test")
    data = writer.build().replace(call(1), call(2))
    spec = read_object(data, name="test")
    assert list(spec.functions) == ["sub"], "a static function beside a program is a subprogram"
    assert spec.programs["main"].instructions[0].reference == Reference(ReferenceKind.CALL, "sub")


def test_section_symbols_and_addends() -> None:
    for addend in (None, 16):
        writer = ElfWriter()
        code = writer.section("xdp", load(0 if addend else 16) + EXIT, flags=CODE)
        bss = writer.section(".bss", type=NOBITS, size=64)
        writer.symbol("main", code, 0, 32)
        writer.relocation(code, 0, writer.symbol("", bss, type=SECTION, binding=LOCAL), addend=addend)
        spec = read_object(writer.build(), name="test")
        assert spec.programs["main"].instructions[0].reference == Reference(
            ReferenceKind.MAP_VALUE, ".bss", 16
        )


def test_static_functions_of_one_name() -> None:
    writer = ElfWriter()
    text = writer.section(".text", EXIT + EXIT, flags=CODE)
    code = writer.section("xdp", call() + call() + EXIT, flags=CODE)
    writer.symbol("sub", text, 0, 16, binding=LOCAL)
    writer.symbol("sub", text, 16, 16, binding=LOCAL)
    writer.symbol("main", code, 0, 32)
    writer.relocation(code, 0, 1, 10)
    writer.relocation(code, 8, 2, 10)
    spec = read_object(writer.build(), name="test")
    assert list(spec.functions) == ["sub", "sub.2"]
    names = [i.reference.name for i in spec.programs["main"].instructions if i.reference]
    assert names == ["sub", "sub.2"]


def test_a_lone_function_without_section_is_a_program() -> None:
    writer = ElfWriter()
    code = writer.section(".text", EXIT, flags=CODE)
    writer.symbol("main", code, 0, 16)
    spec = read_object(writer.build(), name="test")
    assert list(spec.programs) == ["main"] and spec.programs["main"].type is None


def hand_made(fault: str) -> bytes:
    writer = ElfWriter()
    body = {"half a load": EXIT[:8] + load()[:8], "odd size": EXIT + b"\0\0\0\0"}.get(fault, load() + EXIT)
    code = writer.section("xdp", body, flags=CODE)
    data = writer.section(".data", bytes(8))
    size = {"odd end": 12, "past the end": 4096}.get(fault, len(body) // 8 * 8)
    if fault != "no symbols":
        writer.symbol("main", code, 0, size)
    if fault == "overlap":
        writer.symbol("other", code, 8, 16)
    if fault == "two names":
        writer.section("tc", EXIT, flags=CODE)
        writer.symbol("main", 3, 0, 16)
    if fault == "two sections":
        writer.section("xdp", EXIT, flags=CODE)
    value = writer.symbol("value", data, 0, 8, type=OBJECT)
    common = writer.symbol("common", 0xFFF2, 0, 8, type=OBJECT)
    weak = writer.symbol("weak", 0, type=NOTYPE, binding=WEAK)
    places = {
        "not a load": [(16, value)],
        "second slot": [(8, value)],
        "twice": [(0, value), (0, value)],
        "common": [(0, common)],
        "weak": [(0, weak)],
        "outside": [(0, writer.symbol("far", data, 4096, 8, type=OBJECT))],
    }
    for offset, symbol in places.get(fault, []):
        writer.relocation(code, offset, symbol)
    if fault == "huge":
        writer.section(".bss", type=NOBITS, size=1 << 60)
    if fault == "aliases":
        for number in range(50):
            writer.symbol(f"alias{number}", code, 0, size)
    if fault == "version":
        writer.section("version", b"\1\2")
    if fault == "types":
        writer.section(".BTF", b"\x9f\xeb\1\0")
    return writer.build()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("half a load", "'main' of section 'xdp'"),
        ("odd size", "20 bytes, no multiple of 8"),
        ("odd end", "'main' is at 0x0 to 0xc"),
        ("past the end", "'main' is at 0x0 to 0x1000"),
        ("no symbols", "no symbol names a function"),
        ("overlap", "overlaps the one at 0x8"),
        ("two names", "two global functions are named 'main'"),
        ("two sections", "two sections of code are named 'xdp'"),
        ("not a load", "opcode 0xb7"),
        ("second slot", "not at the start of an instruction"),
        ("twice", "two relocations at 0x0"),
        ("common", "-fno-common"),
        ("weak", "'weak' is used, but nothing here defines it"),
        ("outside", "at 0x1000, outside '.data'"),
        ("huge", "bytes of zeros"),
        ("aliases", "too many names"),
        ("version", "2 bytes; a 32-bit number"),
        ("types", "test: "),
    ],
)
def test_malformed(fault: str, message: str) -> None:
    with pytest.raises((ObjectError, BTFError), match=message):
        read_object(hand_made(fault), name="test")


def test_open(tmp_path: Path) -> None:
    writer = ElfWriter()
    code = writer.section("xdp", EXIT, flags=CODE)
    writer.symbol("main", code, 0, 16)
    path = tmp_path / "count.bpf.o"
    path.write_bytes(writer.build())
    spec = ebpf.open(path)
    assert (spec.name, list(spec.programs)) == ("count", ["main"])
    with pytest.raises(ObjectError, match="there is no file"):
        open_object(tmp_path / "none.o")
    with pytest.raises(ObjectError, match="Is a directory"):
        open_object(tmp_path)
    source = tmp_path / "count.bpf.c"
    source.write_text("int main() {}")
    with pytest.raises(ObjectError, match=r"ebpf.compile\(\)"):
        open_object(source)


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
