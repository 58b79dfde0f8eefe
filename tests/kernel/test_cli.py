"""The real command in subprocesses, on real interfaces of a lab, misuse included."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ebpf.lab import Lab

pytestmark = pytest.mark.kernel

EBPF = [sys.executable, "-m", "ebpf"]
#: Nobody, but able to read the interpreter wherever it is installed.
NOBODY = [
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
]

COUNTER = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct flow { __u32 saddr; __u16 dport; };
struct stat { __u64 packets; __u64 bytes; };
struct prefix { __u32 length; __u8 address[4]; };
enum level { LOW, HIGH };

struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, struct flow); __type(value, struct stat);
         __uint(max_entries, 16); } flows SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __type(key, __u32); __type(value, __u64);
         __uint(max_entries, 4); } counts SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __type(key, struct prefix); __type(value, enum level);
         __uint(max_entries, 16); __uint(map_flags, BPF_F_NO_PREALLOC); } routes SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __type(key, __u32); __type(value, __u32);
         __uint(max_entries, 2); } tails SEC(".maps");

const volatile __u32 step = 1;
__u64 seen;

SEC("xdp")
int cli_counter(struct xdp_md *ctx)
{
    __u32 key = XDP_PASS;
    __u64 *count = bpf_map_lookup_elem(&counts, &key);

    if (count)
        *count += step;
    seen += 1;
    bpf_map_lookup_elem(&flows, &key);
    bpf_map_lookup_elem(&routes, &key);
    bpf_tail_call(ctx, &tails, 1);
    bpf_printk("cli %d", ctx->data_end - ctx->data);
    return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
"""
REFUSED = COUNTER.replace("seen += 1;", "seen += *(char *)(long)ctx->data;")


class Outcome:
    """What a command gave."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = process.returncode, process.stdout, process.stderr

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Cli:
    """The command in the network namespace of the lab's server, with the lab's own bpffs."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.environment = {
            **os.environ,
            "EBPF_BPFFS": str(lab.bpffs),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
            "PYTHONWARNINGS": "error::ResourceWarning",
        }

    def __call__(
        self, *arguments: str | Path, code: int = 0, host: str = "server", before: Sequence[str] = ()
    ) -> Outcome:
        with self.lab[host].entered():
            outcome = Outcome(
                subprocess.run(
                    [*before, *EBPF, *map(str, arguments)],
                    capture_output=True,
                    text=True,
                    timeout=60,
                    env=self.environment,
                    cwd=self.folder,
                )
            )
        assert outcome.code == code, outcome
        assert "Traceback" not in outcome.err
        assert "\x1b" not in outcome.out + outcome.err, "colour in a pipe"
        return outcome

    @contextmanager
    def running(self, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
        with self.lab["server"].entered():
            process = subprocess.Popen(
                [*EBPF, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=self.environment,
                cwd=self.folder,
            )
        try:
            with process:
                yield process
        finally:
            process.kill()

    def attached(self) -> list[dict[str, Any]]:
        """What is on the server's interfaces."""
        found = self("xdp", "status", "--json").json
        return [each for each in found if each["namespace"]["is_current"]]

    def ping(self, count: int = 3) -> None:
        assert self.lab["client"].ping(self.lab["server"].address, count=count).received == count


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("client", "server") as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli")
    (path / "counter.bpf.c").write_text(COUNTER)
    (path / "refused.bpf.c").write_text(REFUSED)
    (path / "bad.bpf.c").write_text(COUNTER.replace("return XDP_PASS;", "return XDP_PASSED;"))
    (path / "socket.bpf.c").write_text(
        COUNTER.replace('SEC("xdp")', 'SEC("socket")').replace("xdp_md", "__sk_buff")
    )
    return path


@pytest.fixture
def cli(lab: Lab, folder: Path) -> Cli:
    return Cli(lab, folder)


@pytest.fixture(scope="module")
def compiled(lab: Lab, folder: Path) -> Path:
    Cli(lab, folder)("compile", "counter.bpf.c", "-o", "counter.o")
    return folder / "counter.o"


@pytest.fixture
def loaded(cli: Cli, lab: Lab, compiled: Path) -> Iterator[Path]:
    """The object, pinned in a folder."""
    path = lab.bpffs / "counter"
    cli("load", compiled, path)
    yield path
    if path.exists():
        cli("unload", path)


def events(text: str, kind: str) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, text.splitlines()) if event["event"] == kind]


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    pytest.fail(f"the command ended: {process.stderr and process.stderr.read()}")


# --- compile ----------------------------------------------------------------------------------------------


def test_compile_tells_what_is_in_the_object(cli: Cli, folder: Path) -> None:
    told = cli("compile", "counter.bpf.c", "--json").json
    assert told["output"] == "counter.bpf.o"
    assert (folder / "counter.bpf.o").stat().st_size == told["size_bytes"]
    assert told["programs"] == [{"name": "cli_counter", "section": "xdp", "type": "xdp"}]
    assert {"name": "counts", "type": "percpu_array", "max_entries": 4} in told["maps"]
    assert told["license"] == "GPL"
    assert told["diagnostics"] == []


def test_a_compiler_error_has_its_line_and_caret(cli: Cli) -> None:
    outcome = cli("compile", "bad.bpf.c", code=1)
    assert outcome.err.startswith("error: bad.bpf.c does not compile\nbad.bpf.c:38:")
    assert "return XDP_PASSED;" in outcome.err
    assert "^" in outcome.err
    told = json.loads(cli("run", "bad.bpf.c", "-i", "eth0", "--json", code=1).err)
    assert told["type"] == "CompileError"
    assert told["diagnostics"][0]["line"] == 38


def test_warnings_are_shown_and_do_not_fail(cli: Cli, folder: Path) -> None:
    (folder / "warn.bpf.c").write_text(COUNTER.replace("seen += 1;", "int never; seen += never;"))
    outcome = cli("compile", "warn.bpf.c", "-o", "warn.o")
    assert "warning: variable 'never' is uninitialized" in outcome.err
    assert "CompileWarning" not in outcome.err
    assert (folder / "warn.o").exists()


def test_defines_and_includes_reach_the_compiler(cli: Cli, folder: Path) -> None:
    (folder / "include").mkdir(exist_ok=True)
    (folder / "include/mine.h").write_text("#define NAME cli_named\n")
    (folder / "define.bpf.c").write_text(
        '#include "mine.h"\n' + COUNTER.replace("cli_counter", "NAME").replace("XDP_PASS;", "VERDICT;")
    )
    told = cli("compile", "define.bpf.c", "-I", "include", "-D", "VERDICT=XDP_DROP", "--json").json
    assert told["programs"][0]["name"] == "cli_named"


def test_a_missing_file_suggests_the_nearest(cli: Cli) -> None:
    assert cli("compile", "countr.bpf.c", code=1).err == (
        "error: there is no file 'countr.bpf.c'\nhint: did you mean 'counter.bpf.c'?\n"
    )
    assert "there is no file 'nix.o'" in cli("run", "nix.o", "-i", "eth0", code=1).err


# --- disasm -----------------------------------------------------------------------------------------------


def test_disasm_shows_source_and_names(cli: Cli, compiled: Path) -> None:
    text = cli("disasm", compiled).out
    assert "; cli_counter: xdp, section xdp, " in text
    assert "= map[counts]" in text
    assert "call bpf_map_lookup_elem#1" in text
    assert "seen += 1;" in text
    bare = cli("disasm", compiled, "--no-source", "--raw").out
    assert "seen += 1;" not in bare
    assert " 95 00 00 00 00 00 00 00  exit" in bare
    (program,) = cli("disasm", "counter.bpf.c", "--json").json
    assert set(program) == {"name", "section", "type", "lines"}
    assert program["lines"][-1]["text"] == "exit"
    assert program["lines"][-1]["raw"] == "9500000000000000"


def test_disasm_names_the_programs_there_are(cli: Cli, compiled: Path) -> None:
    outcome = cli("disasm", compiled, "--program", "cli_countr", code=1)
    assert "there is: cli_counter\nhint: did you mean 'cli_counter'?" in outcome.err


# --- run --------------------------------------------------------------------------------------------------


def test_run_watches_and_detaches(cli: Cli) -> None:
    with cli.running(
        "run", "counter.bpf.c", "-i", "eth0", "--interval", "0.2", "--json", "--set", "step=10"
    ) as run:
        attached = json.loads(wait_for_line(run, '"attached"'))
        assert set(attached) == {"event", "program", "interface", "mode", "link_id", "fallback"}
        (there,) = cli.attached()
        assert (there["interface"], there["mode"]) == ("eth0", "native")
        assert there["program"]["name"] == "cli_counter"
        assert there["link_id"] == attached["link_id"]
        assert [owner["pid"] for owner in there["held_by"]] == [run.pid]
        cli.ping(3)
        time.sleep(0.3)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=10)
    assert (run.returncode, err) == (0, "")
    entry = [event for event in events(out, "entry") if event["map"] == "counts"][-1]
    assert set(entry) == {"event", "time", "map", "key", "value", "per_cpu", "rates_per_second"}
    assert entry["key"] == 2
    assert entry["value"] == sum(entry["per_cpu"]) >= 30
    assert any(event["key"] == "seen" and event["value"] >= 3 for event in events(out, "entry"))
    traced = events(out, "trace")
    assert set(traced[0]) == {"event", "time", "boot_time_ns", "task", "pid", "cpu", "text", "lost"}
    assert any(event["text"].startswith("cli ") for event in traced)
    assert events(out, "detached") == [{"event": "detached", "program": "cli_counter", "interface": "eth0"}]
    assert cli.attached() == []


def test_run_prints_changes_as_lines_of_text(cli: Cli) -> None:
    with cli.running("run", "counter.bpf.c", "-i", "eth0", "--interval", "0.2", "--duration", "1.5") as run:
        time.sleep(0.7)
        cli.ping(3)
        out, err = run.communicate(timeout=10)
    assert run.returncode == 0
    assert "attached cli_counter (id " in err
    assert err.endswith("detached cli_counter from eth0\n")
    assert "counts[2] " in out
    assert "seen " in out
    assert " trace " in out
    assert "/s)" in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_run_detaches_at_other_signals_too(cli: Cli, number: signal.Signals) -> None:
    with cli.running("run", "counter.bpf.c", "-i", "eth0", "--no-trace", "--json") as run:
        wait_for_line(run, '"attached"')
        run.send_signal(number)
        out, err = run.communicate(timeout=10)
    assert (run.returncode, err) == (0, "")
    assert events(out, "detached")
    assert cli.attached() == []


def test_nothing_stays_attached_when_run_is_killed(cli: Cli) -> None:
    with cli.running("run", "counter.bpf.c", "-i", "eth0", "--json") as run:
        wait_for_line(run, '"attached"')
        assert cli.attached()
        run.kill()
        run.wait()
    deadline = time.monotonic() + 2
    while cli.attached() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert cli.attached() == []
    cli("run", "counter.bpf.c", "-i", "eth0", "--duration", "0.1")  # and the next one finds its place
    from ebpf.events.trace import trace

    with trace():
        pass  # removes the trace instance of the killed one


def test_run_into_a_closed_pipe_detaches_quietly(cli: Cli) -> None:
    with cli.running("run", "counter.bpf.c", "-i", "eth0", "--interval", "0.1", "--json") as run:
        wait_for_line(run, '"attached"')
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        cli.ping(3)
        run.wait(10)
        assert (run.returncode, run.stderr.read()) == (141, "")
    assert cli.attached() == []


def test_run_with_a_count_ends_by_itself(cli: Cli) -> None:
    outcome = cli(
        "run", "counter.bpf.c", "-i", "eth0", "--count", "2", "--interval", "0.1", "--no-trace", "--json"
    )
    assert [event["event"] for event in map(json.loads, outcome.out.splitlines())] == [
        "loaded",
        "attached",
        "entry",
        "detached",
    ]


def test_run_modes(cli: Cli) -> None:
    with cli.running("run", "counter.bpf.c", "-i", "eth0", "--mode", "generic", "--json") as run:
        assert json.loads(wait_for_line(run, '"attached"'))["mode"] == "generic"
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=10)


def test_run_in_another_namespace(cli: Cli, lab: Lab) -> None:
    outcome = cli(
        *(
            "run",
            "counter.bpf.c",
            "--netns",
            lab["server"].namespace,
            "-i",
            "eth0",
            "--duration",
            "0",
            "--json",
        ),
        host="client",
    )
    assert events(outcome.out, "attached")[0]["interface"] == "eth0"
    outcome = cli("run", "counter.bpf.c", "--netns", "nowhere", "-i", "eth0", code=1)
    assert "there is no network namespace" in outcome.err


def test_run_says_what_it_needs(cli: Cli) -> None:
    outcome = cli("run", "counter.bpf.c", code=2)
    assert (
        "cli_counter is an XDP program: say where to attach it with --iface; there is: lo, eth0"
        in outcome.err
    )
    outcome = cli("run", "counter.bpf.c", "-i", "eht0", code=1)
    assert "no network interface named 'eht0'" in outcome.err
    assert "did you mean 'eth0'?" in outcome.err
    outcome = cli("run", "socket.bpf.c", "-i", "eth0", code=1)
    assert "socket.bpf.c has no XDP program" in outcome.err
    assert "cli_counter (socket_filter)" in outcome.err
    assert "ebpf load" in outcome.err
    outcome = cli("run", "counter.bpf.c", "-i", "eth0", "--set", "stp=1", code=1)
    assert "did you mean 'step'?" in outcome.err
    outcome = cli("run", "counter.bpf.c", "-i", "eth0", "--set", "step=-1", code=1)
    assert outcome.err.startswith("error: --set step: ")
    outcome = cli("run", "counter.bpf.c", "-i", "eth0", "--set", "step", code=2)
    assert "NAME=VALUE" in outcome.err
    outcome = cli("run", "counter.bpf.c", "-i", "eth0", "--type", "xpd", code=2)
    assert "did you mean 'xdp'?" in outcome.err


def test_one_wrong_interface_of_two_leaves_nothing_attached(cli: Cli) -> None:
    cli("run", "counter.bpf.c", "-i", "eth0", "-i", "nope", code=1)
    assert cli.attached() == []
    cli("xdp", "attach", "counter.bpf.c", "-i", "eth0", "-i", "nope", code=1)
    assert cli.attached() == []
    assert not list((cli.lab.bpffs / "ebpf/xdp").glob("*"))


def test_a_refusal_of_the_verifier_names_line_and_reason(cli: Cli) -> None:
    outcome = cli("run", "refused.bpf.c", "-i", "eth0", code=1)
    assert "the verifier refused program 'cli_counter' (xdp)" in outcome.err
    assert "refused.bpf.c:" in outcome.err
    assert "seen += *(char *)(long)ctx->data;" in outcome.err
    assert "hint: " in outcome.err
    assert len(outcome.err.splitlines()) < 10
    told = json.loads(cli("load", "refused.bpf.c", cli.lab.bpffs / "refused", "--json", code=1).err)
    assert told["type"] == "VerifierError"
    assert told["program"] == "cli_counter"
    assert "invalid" in told["reason"]
    assert told["log"].count("\n") > 5


# --- xdp --------------------------------------------------------------------------------------------------


def test_attach_survives_and_detach_removes(cli: Cli, compiled: Path) -> None:
    (made,) = cli("xdp", "attach", compiled, "-i", "eth0", "--json").json
    assert set(made) == {"interface", "ifindex", "mode", "fallback", "program_id", "link_id", "pinned"}
    pin = Path(made["pinned"])
    assert pin.parent == cli.lab.bpffs / "ebpf/xdp"
    assert pin.name == f"eth0-{os.stat(f'/run/netns/{cli.lab["server"].namespace}').st_ino}"
    (there,) = cli.attached()
    assert set(there) == {
        *("namespace", "interface", "ifindex", "mode", "program", "link_id", "held_by", "pinned")
    }
    assert there["pinned"] == [str(pin)]
    assert there["held_by"] == []
    cli.ping(2)
    # From another namespace it is seen with the name of its own.
    elsewhere = cli("xdp", "status", host="client").out
    assert cli.lab["server"].namespace in elsewhere
    assert "cli_counter" in elsewhere
    assert cli("map", "dump", "counts", "--json").json[2]["value"] >= 2

    taken = cli("xdp", "detach", "eth0", "--json").json
    assert taken[0]["link_id"] == made["link_id"]
    assert cli.attached() == []
    assert not pin.exists()
    outcome = cli("xdp", "detach", "eth0", code=1)
    assert "no XDP program is attached there" in outcome.err


def test_attach_twice_names_who_is_there_and_replace_takes_over(cli: Cli, compiled: Path) -> None:
    cli("xdp", "attach", compiled, "-i", "eth0")
    before = cli.attached()[0]
    outcome = cli("xdp", "attach", compiled, "-i", "eth0", code=1)
    assert "'cli_counter'" in outcome.err
    assert "--replace" in outcome.err
    assert "ebpf xdp detach eth0" in outcome.err
    cli("xdp", "attach", compiled, "-i", "eth0", "--replace")
    after = cli.attached()[0]
    assert after["program"]["id"] != before["program"]["id"]
    told = cli("xdp", "detach", "--all").err
    assert "eth0: detached 'cli_counter'" in told
    assert cli.attached() == []


def test_a_pinned_program_can_be_attached(cli: Cli, loaded: Path) -> None:
    cli("xdp", "attach", loaded / "cli_counter", "-i", "eth0", "--mode", "generic")
    assert cli.attached()[0]["mode"] == "generic"
    outcome = cli("unload", loaded)
    assert "program " in outcome.err
    assert "is still in use" in outcome.err
    cli("xdp", "detach", "eth0", "--mode", "generic")


def test_what_ip_attached_is_detached(cli: Cli, compiled: Path, loaded: Path) -> None:
    cli.lab["server"].run(
        ["ip", "link", "set", "dev", "eth0", "xdpgeneric", "pinned", str(loaded / "cli_counter")], check=True
    )
    (there,) = cli.attached()
    assert (there["mode"], there["link_id"]) == ("generic", None)
    assert "generic" in cli("xdp", "detach", "eth0").err
    assert cli.attached() == []


def test_a_pin_whose_interface_is_gone_makes_room(cli: Cli, compiled: Path) -> None:
    host = cli.lab["server"]
    host.run(["ip", "link", "add", "tmp0", "type", "dummy"], check=True)
    (made,) = cli("xdp", "attach", compiled, "-i", "tmp0", "--json").json
    host.run(["ip", "link", "del", "tmp0"], check=True)
    assert Path(made["pinned"]).exists()
    host.run(["ip", "link", "add", "tmp0", "type", "dummy"], check=True)
    try:
        cli("xdp", "attach", compiled, "-i", "tmp0")
        cli("xdp", "detach", "tmp0")
    finally:
        host.run(["ip", "link", "del", "tmp0"], check=True)
    assert not list((cli.lab.bpffs / "ebpf/xdp").iterdir())


def test_a_fallback_to_generic_is_a_warning(cli: Cli, compiled: Path) -> None:
    host = cli.lab["server"]
    host.run(["ip", "link", "add", "tmp0", "type", "dummy"], check=True)
    try:
        outcome = cli("xdp", "attach", compiled, "-i", "tmp0")
        assert "warning: tmp0: generic mode, which is slower" in outcome.err
        assert (
            "native"
            in cli("xdp", "attach", compiled, "-i", "tmp0", "--replace", "--mode", "native", code=1).err
        )
    finally:
        host.run(["ip", "link", "del", "tmp0"], check=True)
        for pin in (cli.lab.bpffs / "ebpf/xdp").iterdir():
            pin.unlink()


def test_usage_of_xdp_detach(cli: Cli) -> None:
    assert "name the interfaces, or give --all" in cli("xdp", "detach", code=2).err
    assert cli("xdp", "detach", "--all").err.startswith("no XDP program is attached")
    assert cli("xdp", "detach", "--all", "--json").json == []


# --- load, unload -----------------------------------------------------------------------------------------


def test_load_pins_everything_and_unload_removes_it(cli: Cli, lab: Lab, compiled: Path) -> None:
    path = lab.bpffs / "deep/er"
    told = cli("load", compiled, path, "--json").json
    assert [each["name"] for each in told["programs"]] == ["cli_counter"]
    assert {Path(each["pinned"]).name for each in told["maps"]} >= {"flows", "counts", "counter_rodata"}
    assert all(Path(each["pinned"]).parent == path for each in told["programs"] + told["maps"])
    outcome = cli("load", compiled, path, code=1)
    assert "something is pinned" in outcome.err
    removed = cli("unload", path, "--json").json
    assert len(removed) == len(told["programs"]) + len(told["maps"])
    assert not any(each["in_kernel"] for each in removed)
    assert not path.exists()
    path.parent.rmdir()


def test_unload_touches_only_pins(cli: Cli, lab: Lab, folder: Path) -> None:
    assert "nothing is pinned" in cli("unload", lab.bpffs / "nothing", code=1).err
    assert "not in a BPF file system" in cli("unload", folder, code=1).err
    assert "the whole BPF file system" in cli("unload", lab.bpffs, code=1).err
    assert folder.is_dir()


def test_load_outside_of_a_bpffs_fails(cli: Cli, compiled: Path, folder: Path) -> None:
    assert "BPF file system" in cli("load", compiled, folder / "pins", code=1).err
    assert not (folder / "pins").exists()


# --- prog, link -------------------------------------------------------------------------------------------

PROGRAM_KEYS = {
    *("id", "type", "name", "tag", "gpl_compatible", "loaded_at", "load_time_ns", "uid", "xlated_bytes"),
    *("jited_bytes", "memory_bytes", "verified_instructions", "map_ids", "link_ids", "btf_id", "ifindex"),
    *("run_time_ns", "run_count", "recursion_misses", "pinned"),
}


def test_prog_list_and_show(cli: Cli, loaded: Path) -> None:
    (listed,) = [
        each for each in cli("prog", "list", "--json").json if str(loaded / "cli_counter") in each["pinned"]
    ]
    assert set(listed) == PROGRAM_KEYS
    assert listed["type"] == "xdp"
    text = cli("prog", "list", "--type", "xdp").out
    assert text.splitlines()[0].split() == [
        "id",
        "type",
        "name",
        "maps",
        "links",
        "memory",
        "loaded",
        "pinned",
    ]
    assert f" {loaded / 'cli_counter'}\n" in text
    shown = [
        cli("prog", "show", name, "--json").json
        for name in (str(listed["id"]), listed["tag"], str(loaded / "cli_counter"))
    ]
    assert shown[0] == shown[1] == shown[2]
    assert set(shown[0]) == PROGRAM_KEYS | {"maps", "links", "held_by"}
    assert {"counts", "flows"} <= {each["name"] for each in shown[0]["maps"]}
    assert f"id        {listed['id']}\n" in cli("prog", "show", str(listed["id"])).out


def test_prog_that_is_not_there(cli: Cli, loaded: Path) -> None:
    assert "no program has the id 4294967295" in cli("prog", "show", "4294967295", code=1).err
    outcome = cli("prog", "show", "cli_countr", code=1)
    assert outcome.err.endswith("hint: did you mean 'cli_counter'?\n")
    assert "is a pinned map, not a program" in cli("prog", "show", loaded / "counts", code=1).err
    assert "nothing is pinned as" in cli("prog", "show", loaded / "nothing", code=1).err


def test_several_of_one_name_are_told_apart_by_id(cli: Cli, lab: Lab, loaded: Path, compiled: Path) -> None:
    other = lab.bpffs / "other"
    cli("load", compiled, other)
    try:
        outcome = cli("prog", "show", "cli_counter", code=1)
        assert "2 programs in the kernel are named 'cli_counter'" in outcome.err
        assert "say which one by its id: " in outcome.err
    finally:
        cli("unload", other)


def test_prog_disasm_shows_what_the_kernel_runs(cli: Cli, loaded: Path) -> None:
    told = cli("prog", "disasm", loaded / "cli_counter", "--json").json
    assert set(told) == {"id", "name", "type", "lines"}
    text = cli("prog", "disasm", loaded / "cli_counter").out
    assert "seen += 1;" in text
    assert text.rstrip().endswith("exit")


def test_prog_run(cli: Cli, loaded: Path) -> None:
    told = cli("prog", "run", loaded / "cli_counter", "--packet", "udp6", "--repeat", "5", "--json").json
    assert set(told) == {"name", "value", "action", "duration_ns", "repeat", "data"}
    assert (told["value"], told["action"]) == (2, "XDP_PASS")
    assert cli("map", "get", loaded / "counts", "2", "--json").json["value"] == 5
    assert "XDP_PASS (2)" in cli("prog", "run", loaded / "cli_counter", "--data", "00" * 14).out
    assert "14 are the least" in cli("prog", "run", loaded / "cli_counter", code=1).err
    assert "--data takes" in cli("prog", "run", loaded / "cli_counter", "--data", "0", code=1).err


def test_link_list(cli: Cli, compiled: Path) -> None:
    (made,) = cli("xdp", "attach", compiled, "-i", "eth0", "--json").json
    (listed,) = [each for each in cli("link", "list", "--json").json if each["id"] == made["link_id"]]
    assert set(listed) == {
        *("id", "type", "attach_type", "program", "ifindex", "interface", "namespace", "target", "details"),
        *("pinned", "held_by"),
    }
    assert (listed["type"], listed["interface"], listed["pinned"]) == ("xdp", "eth0", [made["pinned"]])
    assert "eth0, native" in cli("link", "list").out
    cli("xdp", "detach", "eth0")


# --- map --------------------------------------------------------------------------------------------------


def test_map_list_and_show(cli: Cli, loaded: Path) -> None:
    (listed,) = [
        each for each in cli("map", "list", "--json").json if str(loaded / "flows") in each["pinned"]
    ]
    keys = {
        *("id", "type", "name", "key_bytes", "value_bytes", "max_entries", "flags", "frozen", "memory_bytes"),
        *("btf_id", "ifindex", "program_ids", "pinned"),
    }
    assert set(listed) == keys
    assert (listed["type"], listed["key_bytes"], listed["value_bytes"]) == ("hash", 8, 16)
    shown = cli("map", "show", str(listed["id"]), "--json").json
    assert set(shown) == keys | {"key_type", "value_type", "held_by"}
    text = cli("map", "show", loaded / "flows").out
    assert "key: struct flow {\n    __u32 saddr;\n    __u16 dport;\n};" in text
    assert f"{loaded / 'flows'}" in cli("map", "list").out


def test_map_entries_are_typed_both_ways(cli: Cli, loaded: Path) -> None:
    flows = loaded / "flows"
    assert cli("map", "dump", flows).err == "map flows is empty\n"
    told = cli("map", "set", flows, "saddr=10.0.0.1", "dport=be:80", "--", "packets=5", "--json", code=1)
    assert "--json" in told.err  # behind -- there are values only
    told = cli("map", "set", flows, "--json", "saddr=10.0.0.1", "dport=be:80", "--", "packets=5").json
    assert told == {
        "key": {"saddr": 0x0100000A, "dport": 0x5000},
        "value": {"packets": 5, "bytes": 0},
    }
    assert cli("map", "get", flows, "saddr=10.0.0.1", "dport=be:80", "--json").json == told
    cli("map", "set", flows, "1,2", "--", "3,4")
    assert cli("map", "dump", flows, "--json").json == [
        {"key": {"saddr": 1, "dport": 2}, "value": {"packets": 3, "bytes": 4}},
        told,
    ]
    assert [line.split() for line in cli("map", "dump", flows).out.splitlines()][:2] == [
        ["saddr", "dport", "packets", "bytes"],
        ["1", "2", "3", "4"],
    ]
    assert "is there already" in cli("map", "set", flows, "--only-new", "1,2", "--", "3,4", code=1).err
    cli("map", "set", flows, "--only-existing", "1,2", "--", "3,5")
    cli("map", "delete", flows, "saddr=1", "dport=2")
    assert (
        "map 'flows' has no entry saddr=1 dport=2"
        in cli("map", "delete", flows, "saddr=1", "dport=2", code=1).err
    )
    assert "has no entry" in cli("map", "get", flows, "1,2", code=1).err
    assert "has no entry" in cli("map", "set", flows, "--only-existing", "1,2", "--", "3,5", code=1).err


def test_map_values_that_do_not_fit_are_refused(cli: Cli, loaded: Path) -> None:
    flows = loaded / "flows"
    assert "saddr" in cli("map", "set", flows, "sadr=1", "--", "packets=1", code=1).err
    assert "65535" in cli("map", "set", flows, "dport=65536", "--", "packets=1", code=1).err
    assert "there is no value" in cli("map", "set", flows, "1,2", "--", code=2).err
    assert "Write -- before it" in cli("map", "set", flows, "saddr=1", "dport=2", "packets=1", code=2).err
    assert cli("map", "dump", flows, "--json").json == []


def test_per_cpu_maps_are_summed(cli: Cli, loaded: Path) -> None:
    counts = loaded / "counts"
    assert "CPUs" in cli("map", "set", counts, "1", "7").err
    found = cli("map", "dump", counts, "--json").json
    assert len(found) == 4
    assert set(found[1]) == {"key", "value", "per_cpu"}
    assert found[1]["value"] == sum(found[1]["per_cpu"]) == 7 * len(found[1]["per_cpu"])
    lines = cli("map", "dump", counts, "--per-cpu").out.splitlines()
    assert lines[0].split() == ["key", "cpu", "value"]
    assert len(lines) == 1 + 4 * len(found[1]["per_cpu"])
    assert "cannot be removed" in cli("map", "delete", counts, "1", code=1).err


def test_prefixes_and_enums(cli: Cli, loaded: Path) -> None:
    routes = loaded / "routes"
    cli("map", "set", routes, "10.1.0.0/16", "HIGH")
    found = cli("map", "get", routes, "10.1.2.3", "--json").json
    assert found["value"] == "HIGH"
    assert cli("map", "dump", routes, "--json").json == [
        {"key": {"length": 16, "address": [10, 1, 0, 0]}, "value": "HIGH"}
    ]
    assert "did you mean" in cli("map", "set", routes, "10.2.0.0/16", "HIHG", code=1).err


def test_program_arrays_take_programs(cli: Cli, loaded: Path) -> None:
    program = cli("prog", "show", loaded / "cli_counter", "--json").json["id"]
    cli("map", "set", loaded / "tails", "1", str(loaded / "cli_counter"))
    assert cli("map", "dump", loaded / "tails", "--json").json == [{"key": 1, "value": program}]
    cli("map", "delete", loaded / "tails", "1")


def test_variables_are_a_map_of_their_own(cli: Cli, loaded: Path) -> None:
    (entry,) = cli("map", "dump", loaded / "counter_rodata", "--json").json
    assert entry["value"]["step"] == 1
    assert "frozen" in cli("map", "set", loaded / "counter_rodata", "0", "--", "step=2", code=1).err


# --- trace ------------------------------------------------------------------------------------------------


def test_trace_follows_and_filters(cli: Cli, loaded: Path) -> None:
    with cli.running("trace", "--json", "--count", "1", "--filter", "cli 6") as tracing:
        deadline = time.monotonic() + 10
        while tracing.poll() is None and time.monotonic() < deadline:
            cli("prog", "run", loaded / "cli_counter", "--data", "00" * 55)
            cli("prog", "run", loaded / "cli_counter", "--data", "00" * 66)
        out, err = tracing.communicate(timeout=5)
    assert (tracing.returncode, err) == (0, "")
    (line,) = map(json.loads, out.splitlines())
    assert set(line) == {"time", "boot_time_ns", "task", "pid", "cpu", "text", "lost"}
    assert line["text"] == "cli 66"


def test_trace_ends_in_order(cli: Cli) -> None:
    assert cli("trace", "--duration", "0.1").out == ""
    with cli.running("trace", "--task", "nobody") as tracing:
        time.sleep(0.5)
        tracing.send_signal(signal.SIGINT)
        assert tracing.communicate(timeout=5) == ("", "")
    assert tracing.returncode == 0


# --- lab --------------------------------------------------------------------------------------------------


def test_a_lab_from_the_command_line(cli: Cli) -> None:
    name = f"cli{os.getpid()}"
    (made,) = cli("lab", "up", "a", "b", "c", "--name", name, "--json").json
    try:
        assert set(made) == {"name", "bpffs", "hosts"}
        assert [host["name"] for host in made["hosts"]] == ["a", "b", "c"]
        assert set(made["hosts"][0]["interfaces"][0]) == {"name", "index", "mac", "address", "address6"}
        assert made in cli("lab", "status", "--json").json
        assert "is up already" in cli("lab", "up", "--name", name, code=1).err
        target = made["hosts"][2]["interfaces"][0]["address"]
        assert target in cli("lab", "exec", "--name", name, "c", "--", "ip", "-brief", "address").out
        cli("lab", "exec", "--name", name, "a", "sh", "-c", "exit 7", code=7)
        assert "has no host 'z'" in cli("lab", "exec", "--name", name, "z", "true", code=1).err
        assert "cannot run 'nix'" in cli("lab", "exec", "--name", name, "a", "nix", code=1).err
        assert name in cli("lab", "status").out
    finally:
        cli("lab", "down", "--name", name)
    assert "no lab named" in cli("lab", "down", "--name", name, code=1).err


# --- without privileges -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "counter.o", "-i", "eth0"),
        ("load", "counter.o", "/sys/fs/bpf/x"),
        ("xdp", "attach", "counter.o", "-i", "eth0"),
        ("prog", "list"),
        ("map", "list"),
        ("link", "list"),
        ("xdp", "status"),
        ("trace",),
        ("lab", "up"),
    ],
    ids=" ".join,
)
def test_who_may_not_is_told_why(cli: Cli, compiled: Path, arguments: tuple[str, ...]) -> None:
    told = json.loads(cli(*arguments, "--json", before=NOBODY, code=1).err)
    assert told["type"] == "PrivilegeError"
    assert "CAP_" in told["error"] or "root" in told["error"]
    if arguments[0] in ("run", "load") or arguments[:2] == ("xdp", "attach"):
        assert "`ebpf compile` and `ebpf disasm` need no privileges" in told["hint"]


def test_what_needs_no_privileges(cli: Cli, compiled: Path, tmp_path: Path) -> None:
    cli.environment["HOME"] = "/nonexistent"
    assert "cli_counter:" in cli("disasm", compiled, before=NOBODY).out
    assert (
        cli(
            "compile", "counter.bpf.c", "-o", "-", before=["sh", "-c", 'exec "$@" >/dev/null', "sh", *NOBODY]
        ).out
        == ""
    )


# --- pipes ------------------------------------------------------------------------------------------------


def test_a_closed_pipe_ends_quietly(cli: Cli, loaded: Path) -> None:
    command = " ".join([*EBPF, "map", "dump", str(loaded / "counts"), "--per-cpu"])
    result = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.stdout.strip() in ("0", "141")
    assert result.stderr == ""
