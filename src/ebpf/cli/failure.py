"""How failures are told: one message on stderr, hints below it, never a traceback.

With --json the message is one JSON object on a line of stderr, with the keys error, hint, type and, from the
kernel, errno; a verifier's refusal adds program, reason, source and log.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from typing import TYPE_CHECKING

from ebpf._version import __version__
from ebpf.cli import terminal
from ebpf.errors import CompileError, Error, KernelError, VerifierError

if TYPE_CHECKING:
    import click


#: The place and "error:" in what a compiler says.
_DIAGNOSTIC = re.compile(r"^(\S+:\d+:\d+: )(error:)", re.MULTILINE)


def report(error: Error | OSError, *, as_json: bool) -> None:
    """An error of this package, or of the operating system."""
    _debug()
    if isinstance(error, OSError):
        message = error.strerror or str(error)
        if error.filename is not None:
            message = f"{os.fsdecode(error.filename)}: {message}"
        _tell(message, None, _facts(error), as_json=as_json)
        return
    _tell(error.message, error.hint, _facts(error), as_json=as_json)


def report_usage(error: click.ClickException, *, as_json: bool) -> None:
    """A command line that is not understood."""
    import click

    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"see: {context.command_path} --help" if context is not None else None
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(error.format_message(), file=sys.stderr)
        return
    message = " ".join(error.format_message().split()).rstrip(".")
    _tell(message[:1].lower() + message[1:], hint, {"type": "UsageError"}, as_json=as_json)


def report_bug(error: Exception, *, as_json: bool) -> None:
    """An exception that nothing here expects."""
    _debug()
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"
    _tell(
        f"internal error: {type(error).__name__}: {error} ({place}, ebpf {__version__})",
        "this is a bug in ebpf; EBPF_DEBUG=1 shows the traceback: please report it with that",
        _facts(error),
        as_json=as_json,
    )


def _debug() -> None:
    if os.environ.get("EBPF_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()


def _facts(error: Exception) -> dict[str, object]:
    """What a program that reads the error may want besides the message."""
    facts: dict[str, object] = {"type": type(error).__name__}
    if isinstance(error, KernelError):
        facts["errno"] = error.errno_name
    elif isinstance(error, OSError) and error.errno is not None:
        facts["errno"] = KernelError("", errno=error.errno).errno_name
    if isinstance(error, VerifierError):
        facts |= {
            "program": error.program,
            "reason": error.reason,
            "source": error.source,
            "log": error.log,
            "log_truncated": error.log_truncated,
        }
    if isinstance(error, CompileError):
        facts["diagnostics"] = [diagnostic._asdict() for diagnostic in error.diagnostics]
    return facts


def _tell(message: str, hint: str | None, facts: dict[str, object], *, as_json: bool) -> None:
    sys.stdout.flush()  # in the order that things happened, where both streams are one terminal
    if as_json:
        print(json.dumps({"error": message, "hint": hint, **facts}, ensure_ascii=False), file=sys.stderr)
        return
    paint = terminal.painter(sys.stderr)
    text = terminal.wrapped(f"error: {message}", sys.stderr).removeprefix("error:")
    text = _DIAGNOSTIC.sub(lambda at: paint(at[1], "bold") + paint(at[2], "red bold"), text)
    print(f"{paint('error:', 'red bold')}{text}", file=sys.stderr)
    if hint:
        first, *more = hint.splitlines()
        lines = [
            terminal.wrapped(line, sys.stderr)
            for line in (f"hint: {first}", *(f"      {line}" for line in more))
        ]
        text = "\n".join(lines).removeprefix("hint:")
        print(f"{paint('hint:', 'cyan bold')}{text}", file=sys.stderr)
