"""compile(): what goes in, what comes out, and what is kept."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpf.compiler import objects, process, storage, toolchain
from ebpf.compiler.compile import CompileWarning, compile, compile_object
from ebpf.errors import CompileError
from ebpf.isa.instruction import SourceLine
from ebpf.spec.model import Spec

COUNT = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#ifndef LIMIT
#define LIMIT 7
#endif

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LIMIT);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

SEC("xdp")
int count(struct xdp_md *ctx)
{
	__u32 key = 0;
	__u64 *n = bpf_map_lookup_elem(&counts, &key);

	if (n)
		__sync_fetch_and_add(n, 1);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of each test's own, and proof that nothing stays in the folder for temporary files."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    yield tmp_path / "cache" / "ebpf"
    assert not list(temporary.iterdir())


@pytest.fixture
def compiler() -> toolchain.Toolchain:
    try:
        return toolchain.find()
    except CompileError as error:
        pytest.skip(f"SKIPPED: {error.message}")


@pytest.fixture
def source(tmp_path: Path, compiler: toolchain.Toolchain) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    return write(folder / "count.bpf.c", COUNT)


def write(path: Path, text: str) -> Path:
    """A file that is old enough for the cache to trust."""
    path.write_text(text)
    time.sleep(0.03)
    return path


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The compiler's command lines, as they are run."""
    seen: list[list[str]] = []
    run = process.run

    def spy(command, **options):  # type: ignore[no-untyped-def]
        if "-c" in command:
            seen.append(list(command))
        return run(command, **options)

    monkeypatch.setattr(process, "run", spy)
    return seen


def test_a_file_becomes_a_spec(source: Path) -> None:
    spec = compile(source)
    assert spec.name == "count"
    assert list(spec.programs) == ["count"]
    assert spec.maps["counts"].max_entries == 7
    assert spec.license == "GPL"
    assert spec.diagnostics == ()


def source_lines(spec: Spec) -> list[SourceLine]:
    return [each.source for each in spec.programs["count"].instructions if each.source]


def test_text_becomes_a_spec(compiler: toolchain.Toolchain) -> None:
    spec = compile(COUNT, define={"LIMIT": 9})
    assert spec.name == "string"
    assert spec.maps["counts"].max_entries == 9
    files = {line.source.file for line in spec.programs["count"].instructions if line.source}
    assert files == {"<string>"}
    assert any(
        line.source and "lookup_elem" in line.source.text for line in spec.programs["count"].instructions
    )


def test_text_can_be_named(compiler: toolchain.Toolchain) -> None:
    spec = compile(COUNT, name="flows.bpf.c")
    assert spec.name == "flows"
    assert {line.source.file for line in spec.programs["count"].instructions if line.source} == {
        "flows.bpf.c"
    }


@pytest.mark.parametrize("define", [{"LIMIT": 3, "X": None}, ["LIMIT=3", "X"], {"LIMIT": "3"}])
def test_definitions(source: Path, define: object) -> None:
    assert compile(source, define=define).maps["counts"].max_entries == 3  # type: ignore[arg-type]


def test_a_bare_string_is_no_list_of_definitions(source: Path) -> None:
    with pytest.raises(TypeError, match="LIMIT"):
        compile(source, define="LIMIT=3")


def test_cpu_and_byte_order(source: Path) -> None:
    little = compile_object(source, cpu="v1", byteorder="little").data
    big = compile_object(source, cpu="v1", byteorder="big").data
    assert little[5] == 1 and big[5] == 2
    assert little != compile_object(source, cpu="v3", byteorder="little").data


def test_quoted_includes_lie_beside_the_file(source: Path) -> None:
    write(source.parent / "limit.h", "#define LIMIT 5\n")
    write(source, f'#include "limit.h"\n{COUNT}')
    assert compile(source).maps["counts"].max_entries == 5


def test_quoted_includes_of_text_lie_in_the_current_directory(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(source.parent / "limit.h", "#define LIMIT 5\n")
    monkeypatch.chdir(source.parent)
    assert compile(f'#include "limit.h"\n{COUNT}').maps["counts"].max_entries == 5


def test_include_directories(source: Path, tmp_path: Path) -> None:
    (tmp_path / "inc").mkdir()
    write(tmp_path / "inc" / "limit.h", "#define LIMIT 6\n")
    write(source, f"#include <limit.h>\n{COUNT}")
    assert compile(source, include=[tmp_path / "inc"]).maps["counts"].max_entries == 6


def test_warnings_are_python_warnings_and_stay_with_the_spec(source: Path) -> None:
    write(source, COUNT.replace("return XDP_PASS;", "int verdict;\n\treturn verdict;"))
    for _ in range(2):  # the second comes from the cache
        with pytest.warns(CompileWarning, match="'verdict' is uninitialized") as caught:
            spec = compile(source)
        assert (caught[0].filename, caught[0].lineno) == (str(source), 24)
        assert spec.diagnostics[0].severity == "warning"
        assert "return verdict" in spec.diagnostics[0].excerpt


def test_compile_object_only_returns_them(source: Path) -> None:
    write(source, COUNT.replace("return XDP_PASS;", "int verdict;\n\treturn verdict;"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compile_object(source).diagnostics


def test_objects_do_not_tell_where_they_were_made(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = "static inline int answer(void) { return bpf_get_prandom_u32(); }\n"
    text = COUNT.replace("return XDP_PASS", "return answer()").replace(
        "#ifndef", "#include <a.h>\n#ifndef", 1
    )
    objects = []
    for name in ("here", "elsewhere"):
        folder = tmp_path / name
        (folder / "inc").mkdir(parents=True)
        write(folder / "inc" / "a.h", header)
        write(folder / "count.bpf.c", text)
        monkeypatch.chdir(folder)
        objects.append(compile_object("count.bpf.c", include=["inc"]).data)
    first, second = objects
    assert first == second
    assert str(tmp_path).encode() not in first
    assert str(tmp_path).encode() not in compile_object(COUNT).data


# ---- the cache


def test_the_second_time_nothing_runs(source: Path, runs: list[list[str]]) -> None:
    first = compile_object(source)
    assert len(runs) == 1
    assert compile_object(source) == first
    assert len(runs) == 1


def test_what_changes_the_result_changes_the_key(source: Path, runs: list[list[str]]) -> None:
    compile_object(source)
    compile_object(source, define={"LIMIT": 2})
    compile_object(source, cpu="v2")
    compile_object(source, flags=["-O1"])
    write(source, COUNT + "\nint more;\n")
    compile_object(source)
    assert len(runs) == 5


def test_a_changed_header_is_seen(source: Path) -> None:
    header = write(source.parent / "limit.h", "#define LIMIT 5\n")
    write(source, f'#include "limit.h"\n{COUNT}')
    assert compile(source).maps["counts"].max_entries == 5
    times = header.stat()
    write(header, "#define LIMIT 6\n")  # same size
    os.utime(header, ns=(times.st_atime_ns, times.st_mtime_ns))  # same time
    assert compile(source).maps["counts"].max_entries == 6


def test_a_header_that_appears_before_another_is_seen(source: Path, tmp_path: Path) -> None:
    (tmp_path / "inc").mkdir()
    write(tmp_path / "inc" / "limit.h", "#define LIMIT 5\n")
    write(source, f'#include "limit.h"\n{COUNT}')
    assert compile(source, include=[tmp_path / "inc"]).maps["counts"].max_entries == 5
    write(source.parent / "limit.h", "#define LIMIT 6\n")
    assert compile(source, include=[tmp_path / "inc"]).maps["counts"].max_entries == 6


def test_a_touched_header_costs_nothing(source: Path, runs: list[list[str]]) -> None:
    header = write(source.parent / "limit.h", "#define LIMIT 5\n")
    write(source, f'#include "limit.h"\n{COUNT}')
    compile_object(source)
    header.touch()
    compile_object(source)
    assert len(runs) == 1


def test_dates_are_not_kept(source: Path, runs: list[list[str]]) -> None:
    write(source, COUNT + "\nchar when[] = __TIME__;\n")
    compile_object(source)
    compile_object(source)
    assert len(runs) == 2


def test_a_damaged_entry_is_made_anew(source: Path, private_cache: Path, runs: list[list[str]]) -> None:
    data = compile_object(source).data
    (entry,) = (private_cache / "objects").iterdir()
    for damage in (b"", b"{}\n", entry.read_bytes()[:-1], b"\xff\n" + data):
        entry.write_bytes(damage)
        assert compile_object(source).data == data
    assert len(runs) == 5


def test_no_cache_is_no_failure(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[list[str]]
) -> None:
    monkeypatch.setattr(storage, "directory", lambda: None)
    monkeypatch.setattr("ebpf.compiler.toolchain._find", toolchain._find.__wrapped__)
    assert compile_object(source) == compile_object(source)
    assert len(runs) == 2


def test_a_cache_open_to_others_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "ebpf"
    folder.mkdir()
    assert storage._usable(folder)
    folder.chmod(0o777)
    assert not storage._usable(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: needs root, to give a directory away")
def test_root_does_not_use_the_cache_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 1000, 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    assert not storage._usable(home / "ebpf")
    assert not list(home.iterdir())


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    for index in range(5):
        (folder / str(index)).write_bytes(bytes(100))
        os.utime(folder / str(index), (index, index))
    storage.prune(folder, 250)
    assert sorted(path.name for path in folder.iterdir()) == ["3", "4"]


def test_keys_do_not_run_together() -> None:
    assert objects.key(["ab", "c"]) != objects.key(["a", "bc"]) != objects.key(["abc"])


# ---- what the program needs


def test_vmlinux_h_is_made_when_it_is_wanted(
    source: Path, monkeypatch: pytest.MonkeyPatch, runs: list[list[str]]
) -> None:
    made: list[str] = []

    def generate() -> str:
        made.append("once")
        return "#define __VMLINUX_H__\n" + "#include <linux/bpf.h>\n" + "#define LIMIT 4\n"

    monkeypatch.setattr("ebpf.compiler.vmlinux._generate", generate)
    monkeypatch.setattr("ebpf.compiler.vmlinux._identity", lambda chosen: "kernel-a")
    write(source, COUNT.replace("<linux/bpf.h>", '"vmlinux.h"'))
    assert compile(source).maps["counts"].max_entries == 4
    assert compile(source).maps["counts"].max_entries == 4
    assert (len(made), len(runs)) == (1, 2)  # without it, with it
    monkeypatch.setattr("ebpf.compiler.vmlinux._identity", lambda chosen: "kernel-b")
    compile(source)
    assert len(made) == 2
    write(source.parent / "vmlinux.h", "#include <linux/bpf.h>\n#define LIMIT 3\n")
    assert compile(source).maps["counts"].max_entries == 3
    assert len(made) == 2


def test_maps_of_old_are_understood(source: Path) -> None:
    text = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct bpf_map_def SEC("maps") counts = {
	.type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 11,
};
"""
    assert compile(text).maps["counts"].max_entries == 11
    own = "struct bpf_map_def { unsigned type, key_size, value_size, max_entries, map_flags; };\n"
    assert compile(text.replace("struct bpf_map_def SEC", own + "struct bpf_map_def SEC")).maps["counts"]


def test_kernel_functions_may_be_declared_otherwise(
    source: Path, monkeypatch: pytest.MonkeyPatch, runs: list[list[str]]
) -> None:
    header = """
#define __VMLINUX_H__
#include <linux/bpf.h>
#ifndef BPF_NO_KFUNC_PROTOTYPES
extern int bpf_something(int serial);
#endif
"""
    monkeypatch.setattr("ebpf.compiler.vmlinux._generate", lambda: header)
    monkeypatch.setattr("ebpf.compiler.vmlinux._identity", lambda chosen: "kernel-a")
    write(source, '#include "vmlinux.h"\nextern int bpf_something(unsigned serial);\n' + COUNT)
    compile(source)
    assert "-DBPF_NO_KFUNC_PROTOTYPES" in runs[-1]


def test_headers_of_the_c_library_can_be_included(source: Path) -> None:
    if not any(Path("/usr/include").glob("**/netinet/in.h")):
        pytest.skip("SKIPPED: needs the C library's headers")
    write(source, f"#include <stdint.h>\n#include <netinet/in.h>\n{COUNT}")
    assert compile(source).programs["count"]


def test_loops_that_the_kernel_ends(compiler: toolchain.Toolchain) -> None:
    if compiler.version < 19:
        pytest.skip("SKIPPED: needs clang 19")
    text = COUNT.replace("#ifndef LIMIT", "#include <bpf/bpf_experimental.h>\n#ifndef LIMIT")
    text = text.replace(
        "return XDP_PASS", "while (can_loop)\n\t\tbarrier();\n\tfor (;;)\n\t\tcond_break;\n\treturn 2"
    )
    assert sum(each.opcode == 0xE5 for each in compile(text).programs["count"].instructions) == 2


# ---- what can go wrong


def test_errors_carry_place_and_excerpt(source: Path) -> None:
    write(source, COUNT.replace("bpf_map_lookup_elem", "bpf_map_lookup_elm"))
    with pytest.raises(CompileError, match="undeclared function") as caught:
        compile(source)
    first = caught.value.diagnostics[0]
    assert (first.severity, first.file, first.line) == ("error", str(source), 19)
    assert "^" in first.excerpt
    assert caught.value.hint is not None and "did you mean bpf_map_lookup_elem" in caught.value.hint
    assert str(source) in str(caught.value)


def test_errors_in_text_say_string(compiler: toolchain.Toolchain) -> None:
    with pytest.raises(CompileError, match=r"<string>:2:\d+: error"):
        compile("\nint f(void) { return x; }\n")


@pytest.mark.parametrize("name", ["no-such-file.bpf.c", "."])
def test_sources_that_cannot_be_read(name: str) -> None:
    with pytest.raises(CompileError, match=r"no file|cannot be read"):
        compile(name)


def test_an_object_is_not_compiled_again(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "count.bpf.o"
    path.write_bytes(compile_object(source).data)
    with pytest.raises(CompileError, match="compiled already"):
        compile(path)


def fake(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


WORKING = """
case "$1" in
--version) echo "clang version {version}.1.0"; exit;;
--print-targets) echo "  bpf - BPF"; exit;;
esac
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty $PATH, no $CLANG and no ziglang."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CLANG", raising=False)
    monkeypatch.setattr(toolchain, "zig_directory", lambda: None)
    return folder


def test_no_compiler_names_every_way_to_one(path: Path) -> None:
    with pytest.raises(CompileError, match=r"apt install clang.*dnf install clang.*pip install"):
        compile(COUNT)


def test_the_newest_clang_that_can_is_chosen(path: Path) -> None:
    fake(path, "clang", WORKING.format(version=13))
    fake(path, "clang-15", WORKING.format(version=15))
    fake(path, "clang-18", WORKING.format(version=18))
    fake(path, "clang-20", WORKING.format(version=20).replace("bpf", "sparc"))
    found = toolchain.find()
    assert (Path(found.path).name, found.version, found.newest_cpu) == ("clang-18", 18, 4)


def test_the_search_is_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clang = fake(path, "clang", WORKING.format(version=16))
    found = toolchain.find()
    toolchain._find.cache_clear()
    monkeypatch.setattr(toolchain, "_ask", lambda path, *, is_zig: pytest.fail("asked again"))
    assert toolchain.find() == found
    toolchain._find.cache_clear()
    monkeypatch.undo()
    os.utime(clang, (1, 1))  # another compiler now, for all that is known
    monkeypatch.setenv("PATH", str(path))
    assert toolchain.find().identity != found.identity


def test_clang_of_the_environment_comes_first_or_fails(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(path, "clang", WORKING.format(version=16))
    mine = fake(path, "mine", WORKING.format(version=17))
    monkeypatch.setenv("CLANG", str(mine))
    assert toolchain.find().path == str(mine)
    fake(path, "broken", "exit 1")
    for name in ("broken", "missing"):
        monkeypatch.setenv("CLANG", name)
        with pytest.raises(CompileError, match=r"\$CLANG"):
            toolchain.find()


def test_a_compiler_that_hangs_is_ended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(path, "clang", WORKING.format(version=16) + "/bin/sleep 60 & wait")
    monkeypatch.setattr("ebpf.compiler.compile.TIMEOUT", 0.2)
    began = time.monotonic()
    with pytest.raises(CompileError, match="not finished"):
        compile(COUNT)
    assert time.monotonic() - began < 10


def test_a_compiler_that_never_stops_talking_is_cut_short(path: Path) -> None:
    fake(
        path,
        "clang",
        WORKING.format(version=16) + "/usr/bin/head -c 4000000 /dev/zero | /usr/bin/tr '\\0' x; exit 1",
    )
    with pytest.raises(CompileError, match="does not compile") as caught:
        compile(COUNT)
    assert len(str(caught.value)) < 2_000_000


def test_a_compiler_that_crashes_is_reported(path: Path) -> None:
    fake(path, "clang", WORKING.format(version=16) + "echo PLEASE submit a bug report; kill -SEGV $$")
    with pytest.raises(CompileError, match="submit a bug report"):
        compile(COUNT)
