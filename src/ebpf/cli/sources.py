"""Files that the command line takes: C source, which is compiled, or objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ebpf.cli import terminal
from ebpf.errors import Diagnostic, Error, PrivilegeError, ValueRangeError

if TYPE_CHECKING:
    from ebpf.spec.model import Spec
    from ebpf.uapi import ProgramType

F = TypeVar("F", bound=Callable[..., Any])


def compiler_options(function: F) -> F:
    """-I and -D, as every command that takes C source has them."""
    function = click.option(
        "-D",
        "--define",
        "defines",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Define a macro for the compiler. Repeatable.",
    )(function)
    return click.option(
        "-I",
        "--include",
        "includes",
        multiple=True,
        metavar="DIR",
        type=click.Path(file_okay=False, readable=False),
        help="Search headers there first. Repeatable.",
    )(function)


setting_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a global variable before loading. Repeatable.",
)
type_option = click.option(
    "--type",
    "type_name",
    metavar="TYPE",
    help="The type of programs whose section does not say it, such as xdp.",
)


def apply_settings(spec: Spec, settings: tuple[str, ...]) -> None:
    """Give global variables their initial values: NAME=VALUE, typed by BTF."""
    from ebpf.btf import text
    from ebpf.btf.values import variable_codec

    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise click.UsageError(f"--set takes NAME=VALUE, not {setting!r}")
        place = spec.variables.places[name.strip()]
        try:
            spec.variables[place.name] = text.parse_with(variable_codec(place.type, place.size), value)
        except ValueRangeError as error:
            raise ValueRangeError(f"--set {place.name}: {error.message}", hint=error.hint) from None


def program_type(name: str) -> ProgramType:
    """The program type of that name; a usage error names the nearest."""
    from ebpf.uapi import ProgramType

    types = {str(type): type for type in ProgramType}
    found = types.get(name.lower())
    if found is None:
        from difflib import get_close_matches

        close = get_close_matches(name.lower(), types, n=1)
        suggestion = f"; did you mean {close[0]!r}?" if close else f"; there is: {', '.join(types)}"
        raise click.BadParameter(f"no program type {name!r}{suggestion}", param_hint="--type")
    return found


def apply_type(spec: Spec, name: str | None) -> None:
    """--type: for the programs whose section does not say what they are."""
    if name is None:
        return
    type = program_type(name)
    for program in spec.programs.values():
        if program.type is None or program.inferred:
            program.type = type


def require_file(file: str) -> None:
    """An error that names the nearest file, if there is none of that name."""
    path = Path(file)
    if path.exists() or path.is_symlink():
        return
    from difflib import get_close_matches

    try:
        close = get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    except OSError:
        close = []
    raise Error(
        f"there is no file {file!r}",
        hint=f"did you mean {str(path.with_name(close[0]))!r}?" if close else None,
    )


def is_source(file: str) -> bool:
    """Whether a file is C."""
    return Path(file).suffix == ".c"


def open_spec(file: str, includes: tuple[str, ...] = (), defines: tuple[str, ...] = ()) -> Spec:
    """The Spec of an object or of C source, whose warnings go to stderr."""
    require_file(file)
    if not is_source(file):
        if includes or defines:
            raise click.UsageError(f"-I and -D are for C source; {file} is not a .c file")
        from ebpf.spec.reader import open

        return open(file)
    import warnings

    from ebpf.compiler.compile import compile

    with terminal.progress(f"compiling {file}"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shown below, with the source line
        spec = compile(file, include=includes, define=defines)
    show_diagnostics(spec.diagnostics)
    return spec


@contextmanager
def loading() -> Iterator[None]:
    """What is loaded in the block needs privileges: say what does not."""
    try:
        yield
    except PrivilegeError as error:
        rest = "`ebpf compile` and `ebpf disasm` need no privileges"
        error.hint = f"{error.hint}\n{rest}" if error.hint else rest
        raise


def show_diagnostics(diagnostics: tuple[Diagnostic, ...]) -> None:
    """The compiler's messages, with the source line and caret, on stderr."""
    import sys

    paint = terminal.painter(sys.stderr)
    styles = {"error": "red bold", "warning": "yellow bold", "note": "cyan bold"}
    for diagnostic in diagnostics:
        place = f"{diagnostic.file}:{diagnostic.line}:{diagnostic.column}: " if diagnostic.line else ""
        severity = paint(f"{diagnostic.severity}:", styles.get(diagnostic.severity, ""))
        terminal.note(f"{paint(place, 'bold')}{severity} {diagnostic.message}")
        if diagnostic.excerpt:
            terminal.note(diagnostic.excerpt)
