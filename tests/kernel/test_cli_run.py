"""The command line: compile, disasm, run, trace, lab, and who may do what."""

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

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 4);
} counts SEC(".maps");

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


def events(text: str, kind: str) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, text.splitlines()) if event["event"] == kind]


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    pytest.fail(f"the command ended: {process.stderr and process.stderr.read()}")


def write_sources(folder: Path) -> Path:
    """The C files of these tests."""
    (folder / "counter.bpf.c").write_text(COUNTER)
    (folder / "refused.bpf.c").write_text(REFUSED)
    (folder / "bad.bpf.c").write_text(COUNTER.replace("return XDP_PASS;", "return XDP_PASSED;"))
    as_socket = COUNTER.replace('SEC("xdp")', 'SEC("socket")').replace("xdp_md", "__sk_buff")
    (folder / "socket.bpf.c").write_text(as_socket)
    return folder


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("client", "server") as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("cli"))


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


# --- compile ----------------------------------------------------------------------------------------


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
    assert outcome.err.startswith("error: bad.bpf.c does not compile\nbad.bpf.c:25:")
    assert "return XDP_PASSED;" in outcome.err
    assert "^" in outcome.err
    told = json.loads(cli("run", "bad.bpf.c", "-i", "eth0", "--json", code=1).err)
    assert told["type"] == "CompileError"
    assert told["diagnostics"][0]["line"] == 25


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


# --- disasm -----------------------------------------------------------------------------------------


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


# --- run --------------------------------------------------------------------------------------------


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


# --- trace ------------------------------------------------------------------------------------------


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


# --- lab --------------------------------------------------------------------------------------------


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


# --- without privileges -----------------------------------------------------------------------------


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
