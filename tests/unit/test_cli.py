"""The command line as far as it needs no kernel: help, usage, errors, exit codes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ebpf import errors
from ebpf._version import __version__
from ebpf.cli import failure, main
from ebpf.cli.command import LazyGroup
from ebpf.cli.root import root

SCRIPT = [sys.executable, "-m", "ebpf"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def all_commands(
    command: click.Command = root, path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], click.Command]]:
    found = [(path, command)]
    if isinstance(command, LazyGroup):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            found += all_commands(inner, (*path, name))
    return found


COMMANDS = all_commands()
LEAVES = [(path, command) for path, command in COMMANDS if not isinstance(command, LazyGroup)]


def test_version_needs_no_library() -> None:
    script = (
        "import sys; from ebpf.cli.main import main; code = main(['--version']); "
        "print(code, 'click' in sys.modules, 'rich' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == f"ebpf {__version__}\n0 False False\n"


def test_a_piped_command_does_not_import_rich_or_what_it_does_not_need() -> None:
    script = (
        "import sys; from ebpf.cli.main import main; main(['--help']); "
        "print(sorted(set(sys.modules) & {'rich', 'numpy', 'ebpf.cli.run', 'ebpf.lab.lab', 'ebpf.kernel'}))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("path", "command"), COMMANDS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_has_help_with_an_example(
    capsys: pytest.CaptureFixture[str], path: tuple[str, ...], command: click.Command
) -> None:
    code, out, err = run(capsys, *path, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: {' '.join(('ebpf', *path))} ")
    if path:
        assert "Example" in out
        assert all(len(line) <= 100 for line in out.splitlines())


@pytest.mark.parametrize(
    ("path", "command"), LEAVES, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_that_shows_something_has_json(path: tuple[str, ...], command: click.Command) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    if path not in {("completion",), ("lab", "exec")}:
        assert "--json" in options


@pytest.mark.parametrize(
    ("path", "group"), [(path, command) for path, command in COMMANDS if isinstance(command, LazyGroup)]
)
def test_the_help_table_says_what_the_commands_say(path: tuple[str, ...], group: LazyGroup) -> None:
    context = click.Context(group)
    for name, entry in group.lazy.items():
        command = group.get_command(context, name)
        assert command is not None
        assert command.help
        assert entry.help.endswith(".")
        assert len(entry.help) <= 66, "it must fit 80 columns"


@pytest.mark.parametrize("path", [path for path, _ in LEAVES], ids=" ".join)
def test_examples_in_help_parse(path: tuple[str, ...]) -> None:
    command = dict(COMMANDS)[path]
    examples = [
        line.strip()
        for line in (command.help or "").splitlines()
        if line.strip().startswith("ebpf ") and not line.strip().startswith("ebpf lab exec")
    ]
    for example in examples:
        words = example.split("#")[0].split("|")[0].split(">")[0].split()[1:]
        with pytest.raises(SystemExit, match="parsed"):
            _parse_only(words)


def _parse_only(words: list[str]) -> None:
    """Parse a command line without running it."""
    context = root.make_context("ebpf", list(words))
    command: click.Command = root
    while isinstance(command, click.Group):
        name, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert inner is not None
        context = inner.make_context(name, rest, parent=context)
        command = inner
    raise SystemExit("parsed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["comple"], "error: no command 'comple'; did you mean 'compile'?\nhint: see: ebpf --help\n"),
        (["prog", "lst"], "error: no command 'lst'; did you mean 'list'?\nhint: see: ebpf prog --help\n"),
        (
            ["link", "zzz"],
            "error: no command 'zzz'; there is: list\nhint: see: ebpf link --help\n",
        ),
        (
            ["lab", "exec", "client"],
            "error: missing argument 'COMMAND...'\nhint: see: ebpf lab exec --help\n",
        ),
    ],
)
def test_usage_errors_are_code_2_and_say_where_to_look(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(capsys, *arguments) == (2, "", message)


def test_no_command_shows_the_help_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert code == 2
    assert out == ""
    assert err.startswith("Usage: ebpf ")


def test_a_mistyped_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "prog", "list", "--jsn")
    assert code == 2
    assert "--jsn" in err
    assert "--json" in err


def test_errors_are_json_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "disasm", "/nonexistent.o", "--json")
    assert (code, out) == (1, "")
    assert json.loads(err) == {
        "error": "there is no file '/nonexistent.o'",
        "hint": None,
        "type": "Error",
    }
    code, _, err = run(capsys, "disasm", "--json")
    assert code == 2
    assert json.loads(err)["type"] == "UsageError"


def test_a_refusal_of_the_verifier_is_json_with_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.VerifierError(
        "program 'x' was refused",
        errno=13,
        program="x",
        reason="R0 !read_ok",
        log="the log",
        hint="initialise",
    )
    failure.report(error, as_json=True)
    assert json.loads(capsys.readouterr().err) == {
        "error": "program 'x' was refused",
        "hint": "initialise",
        "type": "VerifierError",
        "errno": "EACCES",
        "program": "x",
        "reason": "R0 !read_ok",
        "source": None,
        "log": "the log",
        "log_truncated": False,
    }


def test_an_error_and_its_hint_lines(capsys: pytest.CaptureFixture[str]) -> None:
    failure.report(errors.Error("it failed", hint="do this\nor that"), as_json=False)
    assert capsys.readouterr().err == "error: it failed\nhint: do this\n      or that\n"
    failure.report(FileNotFoundError(2, "No such file or directory", "/x"), as_json=False)
    assert capsys.readouterr().err == "error: /x: No such file or directory\n"


@pytest.mark.parametrize("debug", ["0", "1"])
def test_a_bug_is_one_line_and_a_traceback_only_on_demand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, debug: str
) -> None:
    monkeypatch.setenv("EBPF_DEBUG", debug)

    def broken(path: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("ebpf.spec.reader.open", broken)
    code, out, err = run(capsys, "disasm", __file__)
    assert (code, out) == (1, "")
    assert "error: internal error: ZeroDivisionError: oops (test_cli.py:" in err
    assert ("Traceback" in err) == (debug == "1")
    assert "EBPF_DEBUG=1" in err


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ebpf.spec.reader.open", interrupted)
    assert run(capsys, "disasm", __file__) == (130, "", "")


def test_a_closed_pipe_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        result = subprocess.run([*SCRIPT, "completion", "bash"], stdout=closed, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (141, b"")


def test_output_survives_a_locale_without_utf8() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    result = subprocess.run([*SCRIPT, "disasm", "/tmp/ä.o"], capture_output=True, env=environment)
    assert result.returncode == 1
    assert result.stderr.startswith(b"error: there is no file '/tmp/")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    code, out, _ = run(capsys, "completion", shell)
    assert code == 0
    assert f"_EBPF_COMPLETE={shell}_complete" in out


def test_completion_completes() -> None:
    environment = os.environ | {
        "_EBPF_COMPLETE": "bash_complete",
        "COMP_WORDS": "ebpf pro",
        "COMP_CWORD": "1",
    }
    result = subprocess.run(SCRIPT, capture_output=True, text=True, env=environment)
    assert result.stdout == "plain,prog\n"
    environment["COMP_WORDS"], environment["COMP_CWORD"] = "ebpf prog list --js", "3"
    result = subprocess.run(SCRIPT, capture_output=True, text=True, env=environment)
    assert result.stdout == "plain,--json\n"


def test_lab_exec_passes_everything_on_to_the_command() -> None:
    with pytest.raises(SystemExit, match="parsed"):
        _parse_only(["lab", "exec", "client", "--", "ls", "--json", "-h"])
    with pytest.raises(SystemExit, match="parsed"):
        _parse_only(["lab", "exec", "--name", "x", "client", "ls", "--name"])


def test_the_command_is_found_as_a_script() -> None:
    script = Path(sys.executable).with_name("ebpf")
    if not script.exists():
        pytest.skip("the package is not installed as a script beside this interpreter")
    result = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert result.stdout == f"ebpf {__version__}\n"


def test_streams_that_cannot_be_reconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert main.main(["--help"]) == 0
