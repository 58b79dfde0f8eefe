"""The compiler's messages: reading them, and saying what to do about the commonest."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ebpf.errors import CompileError, Diagnostic


class CompileWarning(UserWarning):
    """A warning of the C compiler."""


_HEADER = re.compile(
    r"^(?:(?P<file>[^\n]+?):(?P<line>\d+):(?P<column>\d+): |(?:[\w./+-]*(?:clang|zig)[\w.+-]*: )?)"
    r"(?P<severity>fatal error|error|warning|note|remark): (?P<message>.*)$"
)
_CONTEXT = re.compile(r"^(In file included from |\d+ (warning|error)s? |In module )")
_SEVERITIES = {"fatal error": "error", "remark": "note"}
_SHOWN = 3  #: errors that a CompileError spells out


def parse(text: str) -> tuple[Diagnostic, ...]:
    """The diagnostics in what clang wrote to its standard error."""
    found: list[Diagnostic] = []
    excerpt: list[str] = []

    def finish() -> None:
        if found:
            found[-1] = found[-1]._replace(excerpt="\n".join(excerpt).rstrip())
        excerpt.clear()

    for line in text.splitlines():
        if match := _HEADER.match(line):
            finish()
            severity = _SEVERITIES.get(match["severity"], match["severity"])
            place = (match["file"] or "", int(match["line"] or 0), int(match["column"] or 0))
            found.append(Diagnostic(severity, *place, match["message"], ""))
        elif not _CONTEXT.match(line):
            excerpt.append(line)
    finish()
    return tuple(found)


def failure(name: str, diagnostics: Sequence[Diagnostic], output: str) -> CompileError:
    """The error for a program that did not compile; `output` is what the compiler wrote."""
    from ebpf.compiler.hints import hint_for

    errors = [entry for entry in diagnostics if entry.severity == "error"]
    if not errors:
        tail = "\n".join(output.strip().splitlines()[-10:])
        return CompileError(f"{name} does not compile: {tail}", diagnostics=diagnostics)
    shown = "\n".join(map(str, errors[:_SHOWN]))
    more = len(errors) - _SHOWN
    if more > 0:
        shown += f"\n… and {more} more error{'s' if more > 1 else ''}"
    hints = filter(None, map(hint_for, errors))
    return CompileError(f"{name} does not compile\n{shown}", diagnostics=diagnostics, hint=next(hints, None))
