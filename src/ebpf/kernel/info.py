"""BPF_OBJ_GET_INFO_BY_FD: what the kernel says of a program, map, link or BTF (4.13; links 5.8)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ebpf.kernel.attr import Layout, call
from ebpf.kernel.system import address_of
from ebpf.uapi import Command, LinkType

_INFO = Layout("bpf_fd:I info_len:I info:Q")


def _get_info(fd: int, layout: Layout, **request: int) -> dict[str, int | bytes]:
    """Fill in `request` (buffers and their sizes), ask, and give the answer by field name."""
    info = layout.pack(**request)
    call(Command.OBJ_GET_INFO_BY_FD, _INFO.pack(bpf_fd=fd, info_len=len(info), info=address_of(info)))
    return layout.unpack(info)


class _Answer:
    """An answer with its types: integers, and names that end at a NUL."""

    def __init__(self, values: Mapping[str, int | bytes]) -> None:
        self._values = values

    def integer(self, name: str) -> int:
        value = self._values[name]
        assert isinstance(value, int)
        return value

    def bytes(self, name: str) -> bytes:
        value = self._values[name]
        assert isinstance(value, bytes)
        return value

    def text(self, name: str) -> str:
        return _text(self.bytes(name))


def _text(data: bytes | bytearray) -> str:
    return bytes(data).split(b"\0", 1)[0].decode(errors="replace")


def fd_details(fd: int) -> dict[str, str]:
    """/proc/self/fdinfo of a descriptor, which holds some facts that bpf(2) does not tell."""
    text = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii", errors="replace")
    return {
        name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines()) if _
    }


# --- programs -------------------------------------------------------------------------------------------

# gpl_compatible is bit 0 of the word after ifindex.
_PROG_INFO = Layout(
    "type:I id:I tag:8s jited_prog_len:I xlated_prog_len:I jited_prog_insns:Q xlated_prog_insns:Q load_time:Q"
    " created_by_uid:I nr_map_ids:I map_ids:Q name:16s ifindex:I gpl_compatible:I netns_dev:Q netns_ino:Q"
    " nr_jited_ksyms:I nr_jited_func_lens:I jited_ksyms:Q jited_func_lens:Q btf_id:I func_info_rec_size:I"
    " func_info:Q nr_func_info:I nr_line_info:I line_info:Q jited_line_info:Q nr_jited_line_info:I"
    " line_info_rec_size:I jited_line_info_rec_size:I nr_prog_tags:I prog_tags:Q run_time_ns:Q run_cnt:Q"
    " recursion_misses:Q verified_insns:I attach_btf_obj_id:I attach_btf_id:I"
)
_MAP_IDS = 64  # room for the ids of a program's maps at the first try: the verifier's limit, MAX_USED_MAPS


class ProgramInfo(NamedTuple):
    """struct bpf_prog_info. What an older kernel does not know is 0."""

    id: int
    type: int  #: ProgramType, or a number that a newer kernel brought
    name: str  #: at most 15 bytes
    tag: str  #: 16 hex digits over the instructions; two programs with the same code have the same tag
    xlated_size: int  #: bytes of the instructions after the verifier's rewriting; 0 without the privilege
    jited_size: int  #: bytes of machine code; 0 if it is interpreted, or without the privilege
    load_time: int  #: nanoseconds since boot
    uid: int  #: of who loaded it
    gpl_compatible: bool
    map_ids: tuple[int, ...]
    btf_id: int
    ifindex: int  #: of the interface it is bound to (offload, device-bound); 0 for none
    netns_dev: int
    netns_ino: int
    attach_btf_obj_id: int
    attach_btf_id: int
    verified_insns: int  #: how many instructions the verifier walked through
    run_time_ns: int  #: 0 unless statistics are on
    run_cnt: int  #: 0 unless statistics are on
    recursion_misses: int
    memlock: int  #: bytes of kernel memory


def program_info(fd: int) -> ProgramInfo:
    """What the kernel says of a program."""
    map_ids = bytearray(4 * _MAP_IDS)
    answer = _Answer(_get_info(fd, _PROG_INFO, nr_map_ids=_MAP_IDS, map_ids=address_of(map_ids)))
    integer = answer.integer
    return ProgramInfo(
        id=integer("id"),
        type=integer("type"),
        name=answer.text("name"),
        tag=answer.bytes("tag").hex(),
        xlated_size=integer("xlated_prog_len"),
        jited_size=integer("jited_prog_len"),
        load_time=integer("load_time"),
        uid=integer("created_by_uid"),
        gpl_compatible=bool(integer("gpl_compatible") & _GPL_BIT),
        map_ids=struct.unpack_from(f"={integer('nr_map_ids')}I", map_ids),
        btf_id=integer("btf_id"),
        ifindex=integer("ifindex"),
        netns_dev=integer("netns_dev"),
        netns_ino=integer("netns_ino"),
        attach_btf_obj_id=integer("attach_btf_obj_id"),
        attach_btf_id=integer("attach_btf_id"),
        verified_insns=integer("verified_insns"),
        run_time_ns=integer("run_time_ns"),
        run_cnt=integer("run_cnt"),
        recursion_misses=integer("recursion_misses"),
        memlock=int(fd_details(fd).get("memlock", "0")),
    )


# A one-bit field starts at the low end on little-endian machines and at the high end on the others.
_GPL_BIT = 1 if struct.pack("=H", 1)[0] else 1 << 31


class ProgramDump(NamedTuple):
    """A loaded program's code and its tables, as the kernel keeps them."""

    xlated: bytes  #: instructions after the verifier's rewriting, 8 bytes each; b"" without the privilege
    jited: bytes  #: machine code of all functions, one after the other; b"" without the privilege
    ksyms: tuple[int, ...]  #: kernel addresses of the functions; 0 where kptr_restrict hides them
    function_sizes: tuple[int, ...]  #: bytes of machine code per function
    function_info: tuple[tuple[int, int], ...]  #: (instruction, BTF type id) per function
    line_info: tuple[tuple[int, int, int, int], ...]
    """(instruction, string offset of the file, string offset of the line, line << 10 | column) in xlated."""
    jited_line_info: tuple[int, ...]  #: kernel address of the machine code of each entry of line_info
    map_ids: tuple[int, ...]


def program_dump(fd: int) -> ProgramDump:
    """The program's code and tables. A loaded program does not change, so the two calls agree."""
    answer = _Answer(_get_info(fd, _PROG_INFO))
    integer = answer.integer

    def room(size: int) -> bytearray:
        return bytearray(max(size, 1))

    def table(count: str, record: int) -> bytearray:
        return room(integer(count) * record)

    xlated, jited = room(integer("xlated_prog_len")), room(integer("jited_prog_len"))
    ksyms, sizes = table("nr_jited_ksyms", 8), table("nr_jited_func_lens", 4)
    function_size, line_size = integer("func_info_rec_size"), integer("line_info_rec_size")
    functions, lines = table("nr_func_info", function_size), table("nr_line_info", line_size)
    jited_lines = table("nr_jited_line_info", 8)
    map_ids = table("nr_map_ids", 4)
    answer = _Answer(
        _get_info(
            fd,
            _PROG_INFO,
            xlated_prog_len=integer("xlated_prog_len"),
            xlated_prog_insns=address_of(xlated),
            jited_prog_len=integer("jited_prog_len"),
            jited_prog_insns=address_of(jited),
            nr_jited_ksyms=integer("nr_jited_ksyms"),
            jited_ksyms=address_of(ksyms),
            nr_jited_func_lens=integer("nr_jited_func_lens"),
            jited_func_lens=address_of(sizes),
            nr_func_info=integer("nr_func_info"),
            func_info_rec_size=function_size,
            func_info=address_of(functions),
            nr_line_info=integer("nr_line_info"),
            line_info_rec_size=line_size,
            line_info=address_of(lines),
            nr_jited_line_info=integer("nr_jited_line_info"),
            jited_line_info_rec_size=integer("jited_line_info_rec_size"),
            jited_line_info=address_of(jited_lines),
            nr_map_ids=integer("nr_map_ids"),
            map_ids=address_of(map_ids),
        )
    )
    integer = answer.integer

    def present(pointer: str, data: bytearray, size: str) -> bytes:
        """The kernel clears the pointer to what it withholds (bpf_dump_raw_ok)."""
        return bytes(data[: integer(size)]) if integer(pointer) else b""

    def numbers(count: str, pointer: str, data: bytearray, code: str) -> tuple[int, ...]:
        return struct.unpack_from(f"={integer(count)}{code}", data) if integer(pointer) else ()

    return ProgramDump(
        xlated=present("xlated_prog_insns", xlated, "xlated_prog_len"),
        jited=present("jited_prog_insns", jited, "jited_prog_len"),
        ksyms=numbers("nr_jited_ksyms", "jited_ksyms", ksyms, "Q"),
        function_sizes=numbers("nr_jited_func_lens", "jited_func_lens", sizes, "I"),
        function_info=tuple(
            struct.unpack_from("=II", functions, index * function_size)
            for index in range(integer("nr_func_info"))
        ),
        line_info=tuple(
            struct.unpack_from("=IIII", lines, index * line_size) for index in range(integer("nr_line_info"))
        ),
        jited_line_info=numbers("nr_jited_line_info", "jited_line_info", jited_lines, "Q"),
        map_ids=numbers("nr_map_ids", "map_ids", map_ids, "I"),
    )


# --- maps -----------------------------------------------------------------------------------------------

_MAP_INFO = Layout(
    "type:I id:I key_size:I value_size:I max_entries:I map_flags:I name:16s ifindex:I"
    " btf_vmlinux_value_type_id:I netns_dev:Q netns_ino:Q btf_id:I btf_key_type_id:I btf_value_type_id:I"
    " btf_vmlinux_id:I map_extra:Q"
)


class MapInfo(NamedTuple):
    """struct bpf_map_info; sizes in bytes, for one CPU if the map is per CPU."""

    id: int
    type: int  #: MapType, or a number that a newer kernel brought
    name: str  #: at most 15 bytes
    key_size: int
    value_size: int
    max_entries: int
    flags: int  #: MapFlags
    btf_id: int
    key_type_id: int
    value_type_id: int
    vmlinux_value_type_id: int
    extra: int
    ifindex: int
    netns_dev: int
    netns_ino: int
    memlock: int  #: bytes of kernel memory
    frozen: bool  #: read-only for user space


def map_info(fd: int) -> MapInfo:
    """What the kernel says of a map."""
    answer = _Answer(_get_info(fd, _MAP_INFO))
    details = fd_details(fd)
    integer = answer.integer
    return MapInfo(
        id=integer("id"),
        type=integer("type"),
        name=answer.text("name"),
        key_size=integer("key_size"),
        value_size=integer("value_size"),
        max_entries=integer("max_entries"),
        flags=integer("map_flags"),
        btf_id=integer("btf_id"),
        key_type_id=integer("btf_key_type_id"),
        value_type_id=integer("btf_value_type_id"),
        vmlinux_value_type_id=integer("btf_vmlinux_value_type_id"),
        extra=integer("map_extra"),
        ifindex=integer("ifindex"),
        netns_dev=integer("netns_dev"),
        netns_ino=integer("netns_ino"),
        memlock=int(details.get("memlock", "0")),
        frozen=details.get("frozen", "0") == "1",
    )


# --- links ----------------------------------------------------------------------------------------------

_LINK_HEAD = "type:I id:I prog_id:I link_padding:I "  # the union starts at offset 16

#: The member of the union in struct bpf_link_info, by type of link. Pointers are named pointer_*.
_LINK_FIELDS: dict[int, str] = {
    LinkType.RAW_TRACEPOINT: "pointer_name:Q name_len:I cookie:Q",
    LinkType.TRACING: "attach_type:I target_obj_id:I target_btf_id:I cookie:Q",
    LinkType.CGROUP: "cgroup_id:Q attach_type:I",
    LinkType.ITER: "pointer_name:Q name_len:I map_id:I",
    LinkType.NETNS: "netns_ino:I attach_type:I",
    LinkType.XDP: "ifindex:I",
    LinkType.STRUCT_OPS: "map_id:I",
    LinkType.NETFILTER: "pf:I hooknum:I priority:i flags:I",
    LinkType.KPROBE_MULTI: "pointer_addrs:Q count:I flags:I missed:Q pointer_cookies:Q",
    LinkType.UPROBE_MULTI: (
        "pointer_name:Q pointer_offsets:Q pointer_ref_ctr_offsets:Q pointer_cookies:Q name_len:I"
        " count:I flags:I pid:I"
    ),
    LinkType.TCX: "ifindex:I attach_type:I",
    LinkType.NETKIT: "ifindex:I attach_type:I",
    LinkType.SOCKMAP: "map_id:I attach_type:I",
}
_UPROBE_FIELDS = "perf_type:I pointer_name:Q name_len:I offset:I cookie:Q ref_ctr_offset:Q"
_KPROBE_FIELDS = "perf_type:I pointer_name:Q name_len:I offset:I addr:Q missed:Q cookie:Q"
#: The same for perf events, by enum bpf_perf_event_type: what the event is, and its fields.
_PERF_FIELDS = {
    1: ("uprobe", _UPROBE_FIELDS),
    2: ("uretprobe", _UPROBE_FIELDS),
    3: ("kprobe", _KPROBE_FIELDS),
    4: ("kretprobe", _KPROBE_FIELDS),
    5: ("tracepoint", "perf_type:I pointer_name:Q name_len:I cookie:Q"),
    6: ("event", "perf_type:I config:Q type_of_event:I cookie:Q"),
}
_ANY_LINK = Layout(_LINK_HEAD + "perf_type:I tail_padding:I a:Q b:Q c:Q d:Q e:Q")
_NAME_ROOM = 256


class LinkInfo(NamedTuple):
    """struct bpf_link_info: where a program is attached."""

    id: int
    type: int  #: LinkType, or a number that a newer kernel brought
    program_id: int  #: 0 for a struct_ops
    attach_type: int | None = None
    ifindex: int = 0  #: XDP, tcx and netkit: 0 once the link is detached, or its interface is gone
    target: str = ""  #: name of the tracepoint, function, iterator or file, where the type has one
    details: Mapping[str, int | str] = MappingProxyType({})
    """What else the kernel says for this type of link, by the names of linux/bpf.h."""


def link_info(fd: int) -> LinkInfo:
    """What the kernel says of a link."""
    answer = _Answer(_get_info(fd, _ANY_LINK))
    type = answer.integer("type")
    details: dict[str, int | str] = {}
    fields = _LINK_FIELDS.get(type)
    if type == LinkType.PERF_EVENT and answer.integer("perf_type") in _PERF_FIELDS:
        details["event"], fields = _PERF_FIELDS[answer.integer("perf_type")]
    target = ""
    if fields is not None:
        layout = Layout(_LINK_HEAD + fields)
        name = bytearray(_NAME_ROOM)
        request = (
            {"pointer_name": address_of(name), "name_len": _NAME_ROOM}
            if "pointer_name" in layout.offsets
            else {}
        )
        values = _get_info(fd, layout, **request)
        target = _text(name)
        hidden = ("type", "id", "prog_id", "link_padding", "perf_type", "name_len")
        details |= {
            name: value
            for name, value in values.items()
            if isinstance(value, int) and name not in hidden and not name.startswith("pointer_")
        }
    attach_type, ifindex = details.pop("attach_type", None), details.pop("ifindex", 0)
    return LinkInfo(
        id=answer.integer("id"),
        type=type,
        program_id=answer.integer("prog_id"),
        attach_type=attach_type if isinstance(attach_type, int) else None,
        ifindex=ifindex if isinstance(ifindex, int) else 0,
        target=target,
        details=details,
    )


# --- BTF ------------------------------------------------------------------------------------------------

_BTF_INFO = Layout("btf:Q btf_size:I id:I name:Q name_len:I kernel_btf:I")


class BTFInfo(NamedTuple):
    """struct bpf_btf_info."""

    id: int
    size: int  #: bytes of the BTF
    name: str  #: "vmlinux", a module's name, or "" for BTF that a program brought
    kernel_btf: bool  #: whether it describes the kernel or a module


def btf_info(fd: int) -> BTFInfo:
    """What the kernel says of a BTF; the types themselves are `btf_data`."""
    name = bytearray(_NAME_ROOM)
    answer = _Answer(_get_info(fd, _BTF_INFO, name=address_of(name), name_len=_NAME_ROOM))
    return BTFInfo(
        id=answer.integer("id"),
        size=answer.integer("btf_size"),
        name=_text(name),
        kernel_btf=bool(answer.integer("kernel_btf")),
    )


def btf_data(fd: int) -> bytes:
    """The raw BTF. A module's is split: it continues vmlinux's."""
    size = btf_info(fd).size
    data = bytearray(max(size, 1))
    _get_info(fd, _BTF_INFO, btf=address_of(data), btf_size=size)
    return bytes(data[:size])
