"""The types of BTF, one class per kind (Documentation/bpf/btf.rst, section 2.2).

A type belongs to the `BTF` that decoded it, is immutable, and finds the types it refers to by id through
that BTF; asking the same BTF for the same id gives the same object, so types compare by identity.
`str(type)` is its C name, such as "struct task_struct *" or "char[16]".
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

from ebpf.errors import BTFError

if TYPE_CHECKING:
    from ebpf.btf.btf import BTF

T = TypeVar("T", bound="Type")


class Kind(IntEnum):
    """BTF_KIND_* of include/uapi/linux/btf.h."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


class Linkage(IntEnum):
    """The linkage of a function or variable; EXTERN is what the kernel or another object defines."""

    STATIC = 0
    GLOBAL = 1
    EXTERN = 2


@dataclass_transform(frozen_default=True, eq_default=False)
class _Fields(type):
    """Makes the annotations of a class its slots and the parameters of its constructor.

    To type checkers these are frozen dataclasses. The real ones would take longer to define, at every start
    of every program, than most programs take to load.
    """

    _fields: tuple[str, ...]

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _Fields:
        annotations: dict[str, str] = namespace.get("__annotations__", {})
        own = tuple(field for field, kind in annotations.items() if not kind.startswith("ClassVar"))
        namespace["__slots__"] = own
        cls = super().__new__(mcs, name, bases, namespace)
        cls._fields = (*(bases[0]._fields if bases and isinstance(bases[0], _Fields) else ()), *own)
        return cls


class _Frozen(metaclass=_Fields):
    """The base of the immutable classes here; values come in the order of the annotations."""

    if not TYPE_CHECKING:

        def __init__(self, *values):
            put = object.__setattr__
            for field, value in zip(self._fields, values, strict=True):
                put(self, field, value)

        def __setattr__(self, name, value):
            raise AttributeError(f"{type(self).__name__} is immutable")

        def __delattr__(self, name):
            raise AttributeError(f"{type(self).__name__} is immutable")

    def __repr__(self) -> str:
        shown = (f for f in type(self)._fields if f not in _UNSHOWN)
        return f"{type(self).__name__}({', '.join(f'{field}={getattr(self, field)!r}' for field in shown)})"


#: What a repr leaves out: the owner, and what may be long.
_UNSHOWN = frozenset({"btf", "members", "parameters", "entries"})


class Type(_Frozen):
    """What every type has: its id in its BTF, and its name, empty if it has none."""

    kind: ClassVar[Kind]

    btf: BTF
    id: int
    name: str

    def __str__(self) -> str:
        from ebpf.btf.names import declaration

        return declaration(self)


class Void(Type):
    """The type with id 0: nothing, or the target of `void *`."""

    kind = Kind.VOID


class Int(Type):
    """An integer, character or boolean."""

    kind = Kind.INT

    size: int  #: bytes
    bits: int  #: bits that it holds; fewer than 8 * size only in old encodings of bit-fields
    bit_offset: int  #: where these start; 0 in all that compilers emit today
    signed: bool
    is_bool: bool
    is_char: bool  #: as the encoding says; compilers leave it unset even for `char`


class Reference(Type):
    """A type that refers to one other."""

    target_id: int

    @property
    def target(self) -> Type:
        """The type it refers to."""
        return self.btf.type(self.target_id)


class Pointer(Reference):
    """A pointer to `target`."""

    kind = Kind.PTR


class Array(Type):
    """`length` elements; 0 for a flexible array."""

    kind = Kind.ARRAY

    element_id: int
    index_id: int
    length: int

    @property
    def element(self) -> Type:
        """The type of an element."""
        return self.btf.type(self.element_id)

    @property
    def index(self) -> Type:
        """The type of an index, which nothing depends on."""
        return self.btf.type(self.index_id)


class Member(_Frozen):
    """A member of a struct or union; `name` is empty for an anonymous struct, union or bit-field."""

    btf: BTF
    name: str
    type_id: int
    bit_offset: int  #: from the start of the struct; on big-endian targets from the most significant bit
    bit_size: int  #: width of a bit-field; 0 for other members, and for bit-fields in the old encoding

    @property
    def type(self) -> Type:
        """Its type; that of a bit-field is the declared one."""
        return self.btf.type(self.type_id)

    @property
    def offset(self) -> int:
        """Bytes from the start of the struct; of a bit-field, the byte its first bit is in."""
        return self.bit_offset >> 3


class Composite(Type):
    """A struct or union."""

    size: int  #: bytes
    members: tuple[Member, ...]

    def member(self, name: str) -> Member:
        """The member of that name; members of anonymous members are not searched. BTFError if absent."""
        for member in self.members:
            if member.name == name:
                return member
        raise BTFError(f"{self} has no member {name!r}")


class Struct(Composite):
    """A struct."""

    kind = Kind.STRUCT


class Union(Composite):
    """A union: every member starts at offset 0."""

    kind = Kind.UNION


class Enumerator(NamedTuple):
    """A named value of an enum, in its real signedness."""

    name: str
    value: int


class Enum(Type):
    """An enum; BTF_KIND_ENUM64 is one whose `is_wide` is set."""

    kind = Kind.ENUM

    size: int  #: bytes
    signed: bool
    is_wide: bool
    members: tuple[Enumerator, ...]


class Forward(Type):
    """A struct or union that is declared but not defined."""

    kind = Kind.FWD

    is_union: bool


class Typedef(Reference):
    """Another name for `target`."""

    kind = Kind.TYPEDEF


class Volatile(Reference):
    """`volatile` target."""

    kind = Kind.VOLATILE


class Const(Reference):
    """`const` target."""

    kind = Kind.CONST


class Restrict(Reference):
    """`restrict` target, a pointer."""

    kind = Kind.RESTRICT


class TypeTag(Reference):
    """`target` with the tag `name`: __attribute__((btf_type_tag("name"))), such as "rcu" or "user"."""

    kind = Kind.TYPE_TAG

    is_attribute: bool  #: `name` is a whole attribute instead: __attribute__((name))


class DeclTag(Reference):
    """A tag on a declaration: on `target` itself, or on one of its members or parameters."""

    kind = Kind.DECL_TAG

    component: int  #: index of the member or parameter; -1 for the target itself
    is_attribute: bool  #: `name` is a whole attribute: __attribute__((name))


class Function(Reference):
    """A function; `target` is its FunctionProto."""

    kind = Kind.FUNC

    linkage: Linkage

    @property
    def proto(self) -> FunctionProto:
        """Its prototype; BTFError if the BTF says it is something else."""
        return expect(self.target, FunctionProto)


class Parameter(_Frozen):
    """A parameter of a function; prototypes of function pointers leave the names empty."""

    btf: BTF
    name: str
    type_id: int

    @property
    def type(self) -> Type:
        """Its type."""
        return self.btf.type(self.type_id)


class FunctionProto(Type):
    """What a function takes and returns."""

    kind = Kind.FUNC_PROTO

    return_id: int
    parameters: tuple[Parameter, ...]
    is_variadic: bool  #: whether more arguments may follow `parameters`

    @property
    def return_type(self) -> Type:
        """What it returns; Void for nothing."""
        return self.btf.type(self.return_id)


class Variable(Reference):
    """A global variable of type `target`."""

    kind = Kind.VAR

    linkage: Linkage


class SectionEntry(_Frozen):
    """Where a data section holds a variable or, in .ksyms, declares a function; bytes."""

    btf: BTF
    type_id: int
    offset: int
    size: int

    @property
    def type(self) -> Type:
        """The Variable or Function."""
        return self.btf.type(self.type_id)


class DataSection(Type):
    """A section of global variables; compilers leave its size, and offsets in it, to the loader."""

    kind = Kind.DATASEC

    size: int
    entries: tuple[SectionEntry, ...]


class Float(Type):
    """A floating-point number of 2, 4, 8, 12 or 16 bytes."""

    kind = Kind.FLOAT

    size: int


#: The references that change nothing about how a value is laid out.
MODIFIERS = (Typedef, Const, Volatile, Restrict, TypeTag)


def expect(type: Type, kind: type[T]) -> T:
    """The same type, known to be of that class; BTFError if it is not."""
    if not isinstance(type, kind):
        raise BTFError(f"BTF type {type.id} is {type.kind.name}, where {kind.__name__} is expected")
    return type
