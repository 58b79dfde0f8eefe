"""C source to objects and Specs."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from ebpf.compiler import architecture, objects, process, toolchain, vmlinux
from ebpf.compiler.diagnostics import CompileWarning, failure, parse
from ebpf.compiler.headers import INCLUDE
from ebpf.compiler.remedies import Remedies
from ebpf.errors import CompileError, Diagnostic, Error

if TYPE_CHECKING:
    from ebpf.compiler.toolchain import Toolchain
    from ebpf.spec.model import Spec

__all__ = ["CompileWarning", "CompiledObject", "compile", "compile_object"]

Source = str | os.PathLike[str]
Defines = Mapping[str, str | int | None] | Sequence[str]
ByteOrder = Literal["little", "big"]

TIMEOUT = 300  #: seconds that the compiler may take
_DEFAULT_CPU = 3  #: where there is no kernel to ask: Linux 5.1

#: Warnings that find mistakes, less those that honest BPF programs set off all the time.
_WARNINGS = (
    "-Wall",
    "-Wno-unknown-warning-option",
    "-Wno-unused-value",
    "-Wno-unused-but-set-variable",
    "-Wno-pointer-sign",
    "-Wno-compare-distinct-pointer-types",
    "-Wno-address-of-packed-member",
    "-Wno-missing-declarations",
    # Without a declaration there is nothing to call: old compilers only warn of it.
    "-Werror=implicit-function-declaration",
)

#: Variables that clang itself looks at.
_ENVIRONMENT = ("CPATH", "C_INCLUDE_PATH", "CCC_OVERRIDE_OPTIONS", "SOURCE_DATE_EPOCH")


class CompiledObject(NamedTuple):
    """An ELF object, and what the compiler had to say."""

    data: bytes
    diagnostics: tuple[Diagnostic, ...]  #: warnings and their notes
    name: str  #: of the program's file, up to the first dot


def compile(
    source: Source,
    *,
    include: Sequence[Source] = (),
    define: Defines = (),
    cpu: str | None = None,
    byteorder: ByteOrder | None = None,
    flags: Sequence[str] = (),
    name: str | None = None,
) -> Spec:
    """Compile C for BPF into a Spec. Needs no privileges.

    `source` is the path of a file, or the program itself: a str with a newline in it is taken for text.
    `name` is what the Spec is called, up to the first dot, instead of the file's name or "string"; for text,
    it also stands in messages where the file's would.

    `include` are directories to search for headers, before the ones that come with this package and the
    system's; quoted includes are also looked for beside the file, or, for text, in the current directory.
    `define` are macros: {"DEBUG": None, "LIMIT": 64} or ["DEBUG", "LIMIT=64"]. `cpu` is the version of the
    instruction set, "v1" to "v4"; by default the newest that both the running kernel and the compiler know,
    and "v3" where the kernel cannot be asked. `byteorder` is this machine's by default. `flags` go to clang
    as they are.

    vmlinux.h is made from the running kernel's BTF when the program includes it and has none of its own.
    Results are kept in the user's cache. Each warning of the compiler becomes a CompileWarning and stays in
    `Spec.diagnostics`.

    Raises CompileError where the program does not compile, or where there is no compiler.
    """
    from ebpf.spec.reader import read_object

    compiled = compile_object(
        source, include=include, define=define, cpu=cpu, byteorder=byteorder, flags=flags, name=name
    )
    for entry in compiled.diagnostics:
        if entry.severity == "warning":
            warnings.warn_explicit(
                entry.message, CompileWarning, entry.file or compiled.name, entry.line or 1
            )
    spec = read_object(compiled.data, name=compiled.name)
    spec.diagnostics = compiled.diagnostics + spec.diagnostics
    return spec


def compile_object(
    source: Source,
    *,
    include: Sequence[Source] = (),
    define: Defines = (),
    cpu: str | None = None,
    byteorder: ByteOrder | None = None,
    flags: Sequence[str] = (),
    name: str | None = None,
) -> CompiledObject:
    """Compile C for BPF into an ELF object that any BPF loader takes; the arguments are those of `compile`.

    The same source under the same relative path gives the same bytes, wherever it lies. Warnings are in the
    result only.
    """
    unit = _Unit.of(source, name)
    compiler = toolchain.find()
    here = Path.cwd()
    folders = [here / folder for folder in include]
    arguments = [
        *compiler.target(byteorder or sys.byteorder),
        f"-mcpu={cpu or _cpu(compiler)}",
        *_arguments(folders if unit.path is None else include, _definitions(define)),
        *flags,
    ]
    environment = [f"{variable}={os.environ.get(variable)}" for variable in _ENVIRONMENT]
    key = objects.key([compiler.identity, str(here), *environment, *arguments, unit.label, unit.content])
    kernel = vmlinux.identity()
    repeatable = not any(macro in unit.content for macro in (b"__DATE__", b"__TIME__", b"__TIMESTAMP__"))
    cached = objects.find(key, kernel=kernel) if repeatable else None
    if cached is None:
        with process.workspace() as workspace:
            cached, started, inputs = _run(compiler, arguments, unit, workspace)
            temporary = [path for path in inputs if path.is_relative_to(workspace)]
            generated = [path for path in inputs if vmlinux.is_generated(path)]
            if repeatable and not unit.is_outdated():
                objects.store(
                    key,
                    cached,
                    inputs=[path for path in inputs if path not in temporary],
                    generated=generated,
                    search=[unit.folder, *folders, INCLUDE, *(path.parent for path in generated)],
                    kernel=kernel if generated or workspace / "vmlinux.h" in temporary else "",
                    started=started,
                )
    return CompiledObject(cached.data, cached.diagnostics, unit.name)


class _Unit(NamedTuple):
    """What is to be compiled."""

    label: str  #: what the compiler calls it
    name: str  #: of the Spec
    content: bytes
    path: Path | None  #: None for text
    folder: Path  #: where its quoted includes are looked for

    @staticmethod
    def of(source: Source, name: str | None) -> _Unit:
        if isinstance(source, str) and "\n" in source:
            label = Path(name).name if name else "<string>"
            return _Unit(label, _stem(label) if name else "string", source.encode(), None, Path.cwd())
        path = Path(source)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            hint = "a program given as text holds a newline" if len(path.parts) == 1 else None
            raise CompileError(f"there is no file {str(path)!r}", hint=hint) from None
        except OSError as error:
            raise CompileError(f"{str(path)!r} cannot be read: {error.strerror}") from error
        if content.startswith(b"\x7fELF"):
            raise CompileError(f"{str(path)!r} is compiled already", hint="use ebpf.open() for it")
        label = str(path)
        if label.startswith("-"):
            label = f"./{label}"
        return _Unit(label, _stem(name or path.name), content, path, (Path.cwd() / path).parent)

    def is_outdated(self) -> bool:
        """Whether the file has changed since it was read."""
        if self.path is None:
            return False
        try:
            return self.path.read_bytes() != self.content
        except OSError:
            return True


def _stem(name: str) -> str:
    return name.partition(".")[0] or name


def _arguments(include: Sequence[Source], definitions: Sequence[str]) -> list[str]:
    """What every compilation is given, whatever the compiler."""
    machine = architecture.current()
    return [
        "-x",
        "c",
        "-std=gnu17",
        "-O2",
        "-g",
        # Paths in the object are as they were given, so that it does not tell where it was made.
        "-fdebug-compilation-dir=<here>",
        "-fdebug-prefix-map=<here>=",
        f"-fdebug-prefix-map={INCLUDE}=ebpf",
        "-fno-color-diagnostics",
        "-fmessage-length=0",
        *_WARNINGS,
        *([f"-D__TARGET_ARCH_{machine.target}"] if machine else []),
        *(f"-D{definition}" for definition in definitions),
        *(f"-I{os.fspath(folder)}" for folder in include),
        f"-isystem{INCLUDE}",
        *([f"-idirafter/usr/include/{machine.multiarch}"] if machine else []),
        "-idirafter/usr/include",
    ]


def _definitions(define: Defines) -> list[str]:
    if isinstance(define, str):
        raise TypeError(f"define takes a mapping or a list of macros: [{define!r}]")
    if not isinstance(define, Mapping):
        return list(define)
    return [name if value is None else f"{name}={value}" for name, value in define.items()]


def _cpu(compiler: Toolchain) -> str:
    """The newest instruction set that the running kernel and the compiler know."""
    from ebpf.kernel.features import isa_version

    try:
        accepted = isa_version()
    except (OSError, Error):  # no Linux here
        accepted = None
    return f"v{min(accepted or _DEFAULT_CPU, compiler.newest_cpu)}"


def _run(
    compiler: Toolchain, arguments: Sequence[str], unit: _Unit, workspace: Path
) -> tuple[objects.Cached, int, list[Path]]:
    """Compile: the result, when it began, and the files that were read."""
    here = Path.cwd()
    remedies = Remedies(workspace)
    output, dependencies = workspace / "out.o", workspace / "out.d"
    if unit.path is None:
        here = workspace / "text"
        here.mkdir()
        (here / unit.label).write_bytes(unit.content)
        arguments = [*arguments, f"-iquote{unit.folder}"]
    written = ["-MD", "-MF", str(dependencies), "-o", str(output), "-c", unit.label]
    while True:
        started = time.time_ns()
        command = [*compiler.command, *arguments, *remedies.arguments, *written]
        try:
            result = process.run(command, folder=workspace, cwd=here, timeout=TIMEOUT)
        except OSError as error:
            raise CompileError(f"{compiler.path} cannot be run: {error.strerror}") from error
        diagnostics = parse(result.output)
        if result.status == 0 and output.exists():
            inputs = _read_dependencies(dependencies, here)
            return objects.Cached(output.read_bytes(), diagnostics), started, inputs
        if not remedies.find(diagnostics):
            raise failure(unit.label, diagnostics, result.output)


def _read_dependencies(path: Path, folder: Path) -> list[Path]:
    """The files that a Makefile rule names, as clang writes it."""
    import re

    text = path.read_text(errors="surrogateescape").replace("\\\n", " ")
    _, _, files = text.partition(": ")
    names = re.findall(r"(?:\\.|[^\s\\])+", files)
    return [folder / re.sub(r"\\([ #\\])", r"\1", name).replace("$$", "$") for name in names]
