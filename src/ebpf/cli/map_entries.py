"""`ebpf map get`, `set` and `delete`: single entries, typed as people write them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ebpf.cli import entries, output, terminal
from ebpf.cli.command import json_option
from ebpf.cli.map import complete_maps, live_map
from ebpf.errors import Error

if TYPE_CHECKING:
    from ebpf.btf.types import Type
    from ebpf.maps.map import Map

_VALUE = "value words"  #: in the context's meta: what stands behind "--"


class KeyAndValue(click.Command):
    """A command whose words behind "--" are a value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set the value aside, and let click see the rest."""
        if "--" in args:
            place = args.index("--")
            ctx.meta[_VALUE] = tuple(args[place + 1 :])
            args = args[:place]
        return super().parse_args(ctx, args)


_NUMBERS = {"ignore_unknown_options": True}  # a key may be -1

_map_argument = click.argument("map_name", metavar="MAP", shell_complete=complete_maps)
_key_argument = click.argument("words", metavar="KEY...", nargs=-1, required=True, type=click.UNPROCESSED)


@click.command(context_settings=_NUMBERS)
@_map_argument
@_key_argument
@click.option("--per-cpu", is_flag=True, help="The value of each CPU instead of their sum.")
@json_option
def get(map_name: str, words: tuple[str, ...], per_cpu: bool, as_json: bool) -> None:
    """Show the value under KEY: a value, or FIELD=VALUE for each field; fields left out are 0.

    \b
    Examples:
      ebpf map get counters protocol=UDP action=XDP_DROP
      ebpf map get ports 80
      ebpf map get routes 10.0.0.0/8
      ebpf map get untyped hex:0a000001
    """
    with live_map(map_name) as live:
        key = parse_key(live, words)
        try:
            entry = entries.make_entry(key, live[key])
        except KeyError:
            raise _no_entry(live, words) from None
        from ebpf.cli.typed import forms_of

        forms = forms_of(live)
    if as_json:
        output.print_json(entries.entry_json(entry))
        return
    columns, rows = entries.columns_and_rows([entry], forms, each_cpu=per_cpu)
    output.print_table(columns, rows)


@click.command("set", cls=KeyAndValue, context_settings=_NUMBERS)
@_map_argument
@click.argument("words", metavar="KEY... -- VALUE...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--only-new", is_flag=True, help="Fail if there is an entry already.")
@click.option("--only-existing", is_flag=True, help="Fail if there is no entry yet.")
@json_option
@click.pass_context
def set_entry(
    context: click.Context,
    map_name: str,
    words: tuple[str, ...],
    only_new: bool,
    only_existing: bool,
    as_json: bool,
) -> None:
    """Set the entry KEY to VALUE; each is a value, or FIELD=VALUE for each field; fields left out are 0.

    A key and a value of one word each need no --. Addresses are written as such; be:80 is a number in network
    byte order. A value for a per-CPU map is written for every CPU. In an array of programs or of maps, the
    value is an id, a name, or the path of a pin.

    \b
    Examples:
      ebpf map set ports 80 1
      ebpf map set blocked saddr=10.0.0.1 dport=be:80 -- packets=0
      ebpf map set routes 10.0.0.0/8 -- hop=02:00:00:00:00:01
      ebpf map set tails 0 parse_ipv6
    """
    if only_new and only_existing:
        raise click.UsageError("--only-new and --only-existing exclude each other")
    value_words = context.meta.get(_VALUE)
    if value_words is None:
        if len(words) != 2:
            raise click.UsageError("where does the value begin? Write -- before it: KEY... -- VALUE...")
        words, value_words = words[:1], words[1:]
    if not value_words:
        raise click.UsageError("there is no value behind --")
    with live_map(map_name) as live:
        key = parse_key(live, words)
        with _parsed_value(live, value_words) as value:
            try:
                live.put(key, value, exist=False if only_new else True if only_existing else None)
            except KeyError:
                raise _no_entry(live, words) from None
        cpus = live.type.is_percpu
    if as_json:
        from ebpf.btf.structvalue import plain

        shown = value.id if hasattr(value, "id") else [*value] if cpus else value
        output.print_json({"key": plain(key), "value": plain(shown)})
        return
    if cpus:
        terminal.note(f"set for each of {len(value)} CPUs")


@click.command(context_settings=_NUMBERS)
@_map_argument
@_key_argument
@json_option
def delete(map_name: str, words: tuple[str, ...], as_json: bool) -> None:
    """Delete the entry KEY.

    \b
    Examples:
      ebpf map delete blocked saddr=10.0.0.1 dport=be:80
      ebpf map delete ports 80
    """
    with live_map(map_name) as live:
        key = parse_key(live, words)
        try:
            del live[key]
        except KeyError:
            raise _no_entry(live, words) from None
    if as_json:
        from ebpf.btf.structvalue import plain

        output.print_json({"key": plain(key)})


def parse_key(live: Map, words: tuple[str, ...]) -> Any:
    """The key that the words say."""
    from ebpf.uapi import MapType

    if live.type is MapType.LPM_TRIE and len(words) == 1 and not words[0].startswith("hex:"):
        prefix = words[0]
        if "=" not in prefix and "," not in prefix:
            return prefix  # an address, or a network: the map knows them
    return _typed(live.key_type, live.key_size, words)


@contextmanager
def _parsed_value(live: Map, words: tuple[str, ...]) -> Iterator[Any]:
    """The value that the words say, as the map takes it."""
    from ebpf.cli import objects
    from ebpf.maps.percpu import PerCpu
    from ebpf.uapi import MapType

    if live.type is MapType.PROG_ARRAY:
        with objects.open_program(" ".join(words)) as program:
            yield program
    elif live.type.is_map_in_map:
        with live_map(" ".join(words)) as inner:
            yield inner
    else:
        value = _typed(live.value_type, live.value_size, words)
        yield PerCpu.of(value) if live.type.is_percpu else value


def _typed(type: Type | None, size: int, words: tuple[str, ...]) -> Any:
    """Several words are the fields of a struct, or the elements of an array."""
    from ebpf.btf import text
    from ebpf.btf.values import untyped_codec

    joined = words[0] if len(words) == 1 else ", ".join(words)
    if type is None:
        return text.parse_with(untyped_codec(size), joined)
    return text.parse(type, joined)


def _no_entry(live: Map, words: tuple[str, ...]) -> Error:
    return Error(f"map {live.name!r} has no entry {' '.join(words)}")
