"""Loading real objects: data, tail calls, subprograms, pins, externs; and the same code as libbpf loads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import ebpf
from ebpf.compiler.compile import compile_object
from ebpf.errors import Error, KernelError, RelocationError, SpecError, UnknownNameError
from ebpf.kernel import bpf, mounts
from ebpf.kernel.memlock import kernel_version
from ebpf.maps.map import Map
from ebpf.programs.program import Program
from ebpf.spec.model import MapSpec
from ebpf.uapi import AttachType, MapType, ProgramType, XdpAction

pytestmark = pytest.mark.kernel

PACKET = bytes(64)
HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""

DATA = (
    HEAD
    + """
const volatile __u32 step = 1;
const volatile struct { __u16 port; char name[8]; } config = { 80, "http" };
__u64 count;
static volatile __u32 quiet;
int signed_sum = -5;
__u32 custom SEC(".data.mine") = 7;

SEC("xdp") int bump(struct xdp_md *ctx)
{
    __sync_fetch_and_add(&count, step);
    signed_sum -= 1;
    quiet = quiet + 1;
    custom++;
    return config.port == 8080 ? XDP_TX : XDP_PASS;
}
"""
)

TAIL = (
    HEAD
    + """
int second(struct xdp_md *ctx);
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(key_size, 4); __uint(max_entries, 4);
    __array(values, int (void *)); } jumps SEC(".maps") = { .values = { [1] = (void *)&second } };

SEC("xdp") int first(struct xdp_md *ctx) { bpf_tail_call(ctx, &jumps, 1); return XDP_ABORTED; }
SEC("xdp") int second(struct xdp_md *ctx) { return XDP_DROP; }
"""
)

FUNCTIONS = (
    HEAD
    + """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64);
    __uint(max_entries, 4); } numbers SEC(".maps");

static __noinline int local_part(int x) { volatile int y = x; return y + 1; }
__noinline int global_part(int x) { volatile int y = x; return local_part(y) + 10; }

static long add_up(void *map, __u32 *key, __u64 *value, __u64 *sum) { *sum += *value; return 0; }
static long each(__u32 index, __u64 *sum) { *sum += index; return 0; }

SEC("xdp") int calls(struct xdp_md *ctx)
{
    __u64 sum = 0;
    bpf_for_each_map_elem(&numbers, add_up, &sum, 0);
    bpf_loop(5, each, &sum, 0);
    return global_part(0) + sum;
}
"""
)

PINNED = (
    HEAD
    + """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64);
    __uint(max_entries, ENTRIES); __uint(pinning, LIBBPF_PIN_BY_NAME); } kept SEC(".maps");
SEC("xdp") int prog(struct xdp_md *ctx)
{
    __u32 key = 0;
    __u64 *value = bpf_map_lookup_elem(&kept, &key);
    if (value) *value += 1;
    return XDP_PASS;
}
"""
)


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "bpffs"
    mounts.mount_bpffs(folder)
    yield folder
    mounts.unmount(folder)


def pins(folder: Path) -> list[Path]:
    """What is pinned there; the kernel's own iterators have dots in their names."""
    return [path for path in folder.iterdir() if "." not in path.name]


def build(code: str, **options: object) -> ebpf.Spec:
    return ebpf.compile(code, name="sample.bpf.c", **options)  # type: ignore[arg-type]


# --- variables ------------------------------------------------------------------------------------------


def test_variables_before_and_after_loading() -> None:
    spec = build(DATA)
    spec.variables["step"] = 3
    spec.variables["config"] = {"port": 8080, "name": "proxy"}
    spec.variables["count"] = 100
    with spec.load() as obj:
        for _ in range(2):
            assert obj.programs["bump"].run(PACKET).action is XdpAction.TX
        live = obj.variables
        assert live["count"] == 106 and live["signed_sum"] == -7 and live["custom"] == 9
        assert live["step"] == 3 and live["config"].name == "proxy" and live["quiet"] == 2
        live["count"] = 5
        live["signed_sum"] = -100
        obj.programs["bump"].run(PACKET)
        assert (live["count"], live["signed_sum"], live["quiet"]) == (8, -101, 3)
        with pytest.raises(Error, match=r"'step' is in \.rodata, which is frozen") as caught:
            live["step"] = 4
        assert caught.value.hint is not None and "before" in caught.value.hint
        with pytest.raises(UnknownNameError, match="did you mean 'count'"):
            live["coutn"]
        with pytest.raises(TypeError):
            del live["count"]
        assert set(live) == set(spec.variables) and "count" in live
        # What the kernel says of the map: the values by name, from the BTF that was loaded.
        with Map.from_id(obj.maps[".bss"].id) as bss:
            assert bss.name == "sample.bss" and bss[0].count == 8
        with Map.from_id(obj.maps[".data.mine"].id) as mine:
            assert mine.name == ".data.mine" and mine[0] == {"custom": 10}
        with pytest.raises(KernelError, match="frozen"):
            obj.maps[".rodata"].write_raw(bytes(4), bytes(obj.maps[".rodata"].value_size))
    with pytest.raises(Error, match="is closed"):
        live["count"]
    assert spec.variables["count"] == 100  # loading changed nothing here


def test_loading_twice_gives_two_objects() -> None:
    spec = build(DATA)
    with spec.load() as one, spec.load() as two:
        one.programs["bump"].run(PACKET)
        assert one.variables["count"] == 1 and two.variables["count"] == 0
        assert one.maps[".bss"].id != two.maps[".bss"].id


def test_nothing_stays_open() -> None:
    spec = build(DATA)
    spec.load().close()
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with spec.load() as obj:
            obj.variables["count"] = obj.variables["count"] + 1
        obj.close()
    assert os.listdir("/proc/self/fd") == before


# --- maps and programs ----------------------------------------------------------------------------------


def test_tail_calls_are_wired() -> None:
    spec = build(TAIL)
    with spec.load() as obj:
        assert obj.programs["first"].run(PACKET).action is XdpAction.DROP
        assert dict(obj.maps["jumps"]) == {1: obj.programs["second"].id}
        obj.maps["jumps"][1] = obj.programs["first"]
        del obj.maps["jumps"][1]
        assert obj.programs["first"].run(PACKET).action is XdpAction.ABORTED
    with pytest.raises(SpecError, match="slot 1 of map 'jumps' is for program 'second', which is not to be"):
        spec.load(programs=["first"])


def test_subprograms_and_callbacks() -> None:
    with build(FUNCTIONS).load() as obj:
        for index in range(4):
            obj.maps["numbers"][index] = 100
        assert obj.programs["calls"].run(PACKET).value == 400 + 10 + 11
        code = obj.programs["calls"].instructions
        names = [instruction.symbol for instruction in code if instruction.symbol]
        assert names[0] == "calls" and set(names[1:]) == {"local_part", "global_part", "add_up", "each"}
        assert any(i.reference is not None and i.reference.name == "numbers" for i in code)
        assert any(i.source is not None and "bpf_loop(5" in i.source.text for i in code)


def test_given_map() -> None:
    spec = build(FUNCTIONS)
    with Map.create(MapSpec("mine", MapType.ARRAY, 4, 8, 4)) as mine:
        mine[0] = 1000
        with spec.load(maps={"numbers": mine}) as obj:
            assert obj.maps["numbers"] is mine
            assert obj.programs["calls"].run(PACKET).value == 1000 + 10 + 11
        assert mine[0] == 1000  # still open: it is the caller's
        with pytest.raises(UnknownNameError):
            spec.load(maps={"number": mine})
    with (
        Map.create(MapSpec("mine", MapType.HASH, 4, 8, 5)) as wrong,
        pytest.raises(
            SpecError, match="type is hash, the object has array; max_entries is 5, the object has 4"
        ),
    ):
        spec.load(maps={"numbers": wrong})


def test_choice_of_programs_and_types() -> None:
    spec = build(
        HEAD
        + """
SEC("mystery") int odd(struct xdp_md *ctx) { return XDP_TX; }
SEC("?xdp") int optional(struct xdp_md *ctx) { return XDP_DROP; }
SEC("xdp") int usual(struct xdp_md *ctx) { return XDP_PASS; }
"""
    )
    spec.programs["odd"].type = None
    with pytest.raises(SpecError, match="'odd': its section 'mystery' does not tell") as caught:
        spec.load()
    assert caught.value.hint is not None and "ProgramType.XDP" in caught.value.hint
    with spec.load(types={"odd": "xdp"}) as obj:
        assert set(obj.programs) == {"odd", "usual"}
        assert obj.programs["odd"].run(PACKET).action is XdpAction.TX
    with spec.load(programs=["optional"]) as obj:
        assert list(obj.programs) == ["optional"]
    with pytest.raises(UnknownNameError, match="did you mean 'optional'"):
        spec.load(programs=["optionl"])
    with pytest.raises(UnknownNameError, match="program type"):
        spec.load(types={"odd": "xpd"})
    assert spec.programs["odd"].type is None


def test_legacy_maps() -> None:
    with build(
        HEAD
        + """
struct bpf_map_def { unsigned type, key_size, value_size, max_entries, map_flags; };
struct bpf_map_def SEC("maps") old = { BPF_MAP_TYPE_HASH, 4, 8, 16, 0 };
SEC("xdp") int prog(struct xdp_md *ctx)
{
    __u32 key = 1; __u64 one = 1;
    bpf_map_update_elem(&old, &key, &one, 0);
    return XDP_PASS;
}
"""
    ).load() as obj:
        obj.programs["prog"].run(PACKET)
        assert dict(obj.maps["old"]) == {1: 1}


# --- pins -----------------------------------------------------------------------------------------------


def test_map_pinned_by_name_survives(bpffs: Path) -> None:
    spec = build(PINNED, define={"ENTRIES": 2})
    with spec.load(pin_path=bpffs) as obj:
        obj.programs["prog"].run(PACKET)
        first = obj.maps["kept"].id
    with spec.load(pin_path=bpffs) as obj:
        obj.programs["prog"].run(PACKET)
        assert obj.maps["kept"].id == first and obj.maps["kept"][0] == 2
    other = build(PINNED, define={"ENTRIES": 3})
    with pytest.raises(SpecError, match="max_entries is 2, the object has 3") as caught:
        other.load(pin_path=bpffs)
    assert caught.value.hint is not None and str(bpffs / "kept") in caught.value.hint
    assert (bpffs / "kept").exists()
    (bpffs / "kept").unlink()


def test_failed_load_takes_its_pins_back(bpffs: Path) -> None:
    spec = build(PINNED, define={"ENTRIES": 2})
    spec.license = ""
    spec.programs["prog"].type = ProgramType.CGROUP_SOCKOPT  # refused: its context is another
    with pytest.raises(KernelError):
        spec.load(pin_path=bpffs)
    assert not pins(bpffs)


def test_pin_object(bpffs: Path) -> None:
    with build(DATA).load() as obj:
        obj.pin(bpffs / "all")
        names = {path.name for path in (bpffs / "all").iterdir()}
        assert names == {"bump", "sample_bss", "sample_rodata", "sample_data", "_data_mine"}
    with Program.open(bpffs / "all" / "bump") as program, Map.open(bpffs / "all" / "sample_bss") as bss:
        program.run(PACKET)
        assert bss[0].count == 1
        program.unpin()
    with build(DATA).load() as obj, pytest.raises(KernelError, match="something is pinned"):
        obj.pin(bpffs / "all")  # the program's name is free again, the maps' are not
    assert not (bpffs / "all" / "bump").exists()


# --- what the kernel provides -----------------------------------------------------------------------------


def test_kconfig_and_ksyms() -> None:
    spec = build(
        HEAD
        + """
extern int LINUX_KERNEL_VERSION __kconfig;
extern _Bool CONFIG_BPF_SYSCALL __kconfig;
extern enum libbpf_tristate CONFIG_BPF_JIT __kconfig;
extern unsigned CONFIG_HZ __kconfig;
extern char CONFIG_DEFAULT_HOSTNAME[16] __kconfig __weak;
extern unsigned CONFIG_NO_SUCH_THING __kconfig __weak;
extern const void bpf_prog_put __ksym;
extern const void no_such_symbol_here __ksym __weak;
extern const int bpf_prog_active __ksym __weak;
extern void no_such_kfunc(void) __ksym __weak;
extern __u64 bpf_get_kmem_cache_nothing(void) __ksym __weak;

__u64 version, syscalls, jit, hz, weak, put, none;
SEC("xdp") int prog(struct xdp_md *ctx)
{
    version = LINUX_KERNEL_VERSION; syscalls = CONFIG_BPF_SYSCALL; jit = CONFIG_BPF_JIT; hz = CONFIG_HZ;
    weak = CONFIG_NO_SUCH_THING; put = (__u64)&bpf_prog_put; none = (__u64)&no_such_symbol_here;
    if (no_such_kfunc) no_such_kfunc();
    return CONFIG_DEFAULT_HOSTNAME[0] ? XDP_PASS : XDP_DROP;
}
"""
    )
    with spec.load() as obj:
        obj.programs["prog"].run(PACKET)
        live = obj.variables
        major, minor, patch = kernel_version()
        assert live["version"] == major << 16 | minor << 8 | min(patch, 255)
        assert live["syscalls"] == 1 and live["jit"] == 1 and live["weak"] == 0 and live["none"] == 0
        assert live["hz"] in (100, 250, 300, 1000)
        symbols = Path("/proc/kallsyms").read_text()
        assert live["put"] == int(re.search(r"^(\w+) T bpf_prog_put$", symbols, re.MULTILINE)[1], 16)  # type: ignore[index]


@pytest.mark.parametrize(
    ("declaration", "use", "message"),
    [
        ("extern unsigned CONFIG_NO_SUCH_THING __kconfig;", "CONFIG_NO_SUCH_THING", "CONFIG_NO_SUCH_THING"),
        ("extern const void no_such_symbol __ksym;", "(int)(long)&no_such_symbol", "in /proc/kallsyms"),
        (
            "extern int no_such_kfunc(void) __ksym;",
            "no_such_kfunc()",
            "calls kernel function 'no_such_kfunc'",
        ),
        ("extern const int no_such_var __ksym;", "(int)(long)&no_such_var", "among its types"),
    ],
)
def test_what_the_kernel_lacks(declaration: str, use: str, message: str) -> None:
    spec = build(HEAD + declaration + '\nSEC("xdp") int prog(struct xdp_md *ctx) { return ' + use + "; }\n")
    with pytest.raises(RelocationError, match=re.escape(message)) as caught:
        spec.load()
    assert caught.value.hint is not None and "__weak" in caught.value.hint


def test_kfunc_and_typed_ksym() -> None:
    spec = build(
        HEAD
        + """
struct task_struct;
extern const int bpf_stats_enabled_key __ksym __weak;
extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;
int found;
SEC("syscall") int prog(void *ctx)
{
    struct task_struct *task = bpf_task_from_pid(2); // kthreadd
    if (!task)
        return 0;
    bpf_task_release(task);
    found = 1;
    return 1;
}
"""
    )
    with spec.load() as obj:
        assert obj.programs["prog"].run().value == 1 and obj.variables["found"] == 1


def test_tp_btf() -> None:
    code = HEAD + 'SEC("tp_btf/{}") int BPF_prog(__u64 *ctx) {{ return 0; }}\n'
    with build(code.format("sched_switch")).load() as obj:
        info = obj.programs["BPF_prog"].info
        assert info.type == ProgramType.TRACING and info.attach_btf_id
    with pytest.raises(RelocationError, match="no tracepoint 'sched_swich'") as caught:
        build(code.format("sched_swich")).load()
    assert caught.value.hint == "did you mean 'sched_switch'?"
    with build(HEAD + 'SEC("iter/task") int each(void *ctx) { return 0; }\n').load() as obj:
        assert obj.programs["each"].info.attach_btf_id
    spec = build(code.format("sched_switch"))
    spec.programs["BPF_prog"].attach_to = None
    with pytest.raises(SpecError, match="names no tracepoint"):
        spec.load()


def test_freplace_needs_a_target() -> None:
    spec = build(HEAD + 'SEC("freplace/global_part") int repl(int x) { return x; }\n')
    with pytest.raises(SpecError, match="replaces a function of another program, and none is given"):
        spec.load()
    with (
        build(DATA).load() as other,
        pytest.raises(RelocationError, match="program 'bump' has no function 'global_part'; it has: bump"),
    ):
        spec.load(targets={"repl": other.programs["bump"]})


def test_struct_ops_is_refused_in_words() -> None:
    spec = build(HEAD + 'SEC("struct_ops/init") int init(void *ctx) { return 0; }\n')
    with pytest.raises(SpecError, match="cannot load struct_ops"):
        spec.load()


def test_attach_type_is_kept() -> None:
    spec = build(HEAD + 'SEC("cgroup/connect4") int prog(struct bpf_sock_addr *ctx) { return 1; }\n')
    assert spec.programs["prog"].attach_type is AttachType.CGROUP_INET4_CONNECT
    spec.load().close()


def test_names_that_the_kernel_does_not_take() -> None:
    spec = build(
        HEAD + 'SEC("xdp") int a_name_longer_than_fifteen(struct xdp_md *ctx) { return XDP_PASS; }\n'
    )
    with spec.load() as obj:
        program = obj.programs["a_name_longer_than_fifteen"]
        assert program.info.name == "a_name_longer_t"
        with Program.from_id(program.id) as opened:
            assert opened.name == "a_name_longer_than_fifteen"


def test_log_on_success() -> None:
    with build(DATA).load(log_level=2) as obj:
        assert "processed " in obj.programs["bump"].log and "R1=ctx()" in obj.programs["bump"].log


# --- the same as libbpf -----------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("bpftool") is None, reason="needs bpftool to compare with")
@pytest.mark.parametrize("source", [DATA, TAIL, FUNCTIONS], ids=["data", "tail", "functions"])
def test_same_code_as_libbpf(source: str, tmp_path: Path, bpffs: Path) -> None:
    """What the kernel made of the program, addresses and ids aside, is what it makes of libbpf's."""
    path = tmp_path / "sample.bpf.o"
    path.write_bytes(bytes(compile_object(source, name="sample.bpf.c").data))
    subprocess.run(["bpftool", "prog", "loadall", path, bpffs / "lib"], check=True, capture_output=True)
    with ebpf.open(path).load() as obj:
        for name, program in obj.programs.items():
            program.pin(bpffs / "ours" / name)
            ours, theirs = dump(bpffs / "ours" / name), dump(bpffs / "lib" / name)
            assert ours == theirs
            assert len(ours) > 2
            program.unpin()
    shutil.rmtree(bpffs / "lib")


def dump(path: Path) -> list[str]:
    out = subprocess.run(
        ["bpftool", "prog", "dump", "xlated", "pinned", path], check=True, capture_output=True, text=True
    ).stdout
    text = re.sub(r"map\[id:\d+\]", "map[id]", out)
    return re.sub(r"bpf_prog_\w+", lambda match: match[0].split("_", 3)[-1], text).splitlines()


def test_ids_are_gone_after_close() -> None:
    with build(TAIL).load() as obj:
        ids = [program.id for program in obj.programs.values()]
        assert all(id in set(bpf.ids(bpf.Kind.PROGRAM)) for id in ids)
