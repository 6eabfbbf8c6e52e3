# SPDX-License-Identifier: MIT
"""Layouts: how the fields of a NamedTuple lie in the bytes of a message.

    fixed part: ints, bools, bounded bytes | rest: other bytes, strings, objects

The fixed part is one struct, in the order of the fields. An int has 8 bytes, with its sign. Bytes
with a bound, such as `skbus.core.abi.Addr`, have their length in front. What is left over comes
behind: one field of bytes as it is, all else as one msgpack array. A layout is made once for each
kind, so a message is packed and unpacked by one call, and only the rest has types to check.
"""

import struct
import typing
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Annotated, Any, Final

import msgpack

_new_tuple: Final[Any] = tuple.__new__
_packer: Final[Any] = msgpack.Packer(use_bin_type=True, autoreset=True)
_unpackb: Final[Any] = msgpack.unpackb
_NO_MSGPACK: Final = (
    ValueError,
    TypeError,
    RecursionError,
    msgpack.exceptions.UnpackException,
)

_FIXED: Final = 0
_BYTES: Final = 1
_MSGPACK: Final = 2


class UnfitError(ValueError):
    """A value that its field cannot hold; the text names both."""


class Layout:
    """How a NamedTuple lies in bytes. kind: its class."""

    __slots__ = (
        "_bounds", "_codes", "_fixed", "_order", "_pack", "_rest", "_size", "_types", "_unpack",
        "_unpack_from", "_way", "kind",
    )  # fmt: skip

    def __init__(self, kind: Any) -> None:
        hints = typing.get_type_hints(kind, include_extras=True)
        fields: tuple[str, ...] = kind._fields
        self.kind: Any = kind
        self._codes: list[str] = [_code(hints[name]) for name in fields]
        self._bounds: list[tuple[int, int]] = [
            (i, hints[name].__metadata__[0])
            for i, name in enumerate(fields)
            if self._codes[i].endswith("p")
        ]
        """(field, most bytes)"""
        fixed = [i for i, code in enumerate(self._codes) if code]
        rest = [i for i, code in enumerate(self._codes) if not code]
        form = struct.Struct("<" + "".join(self._codes))
        self._size: int = form.size
        self._pack: Any = form.pack
        self._unpack: Any = form.unpack
        self._unpack_from: Any = form.unpack_from
        self._fixed: Callable[[Any], tuple[Any, ...]] = _picker(fixed)
        self._rest: Callable[[Any], tuple[Any, ...]] = _picker(rest)
        self._types: tuple[Any, ...] = tuple([hints[fields[i]] for i in rest])
        order = fixed + rest
        self._order: Callable[[Any], tuple[Any, ...]] | None = None
        if order != sorted(order):
            self._order = _picker([order.index(i) for i in range(len(order))])
        self._way: int = _FIXED
        if rest:
            self._way = _BYTES if self._types == (bytes,) else _MSGPACK

    def pack(self, item: tuple[Any, ...]) -> bytes:
        """The bytes of an item. UnfitError where a field cannot hold its value."""
        try:
            for field, most in self._bounds:
                if len(item[field]) > most:
                    raise self._unfit(item)
            if self._way == _FIXED:
                fixed: bytes = self._pack(*item)
                return fixed
            fixed = self._pack(*self._fixed(item))
            rest = self._rest(item)
            tail: bytes = rest[0] if self._way == _BYTES else _packer.pack(rest)
            return fixed + tail
        except UnfitError:
            raise
        except (struct.error, TypeError, ValueError, IndexError, OverflowError) as e:
            raise self._unfit(item) from e

    def unpack(self, raw: bytes) -> Any:
        """The item of these bytes; None where they are none."""
        size = self._size
        if self._way == _FIXED:
            return _new_tuple(self.kind, self._unpack(raw)) if len(raw) == size else None
        if len(raw) < size:
            return None
        values: tuple[Any, ...] = self._unpack_from(raw)
        if self._way == _BYTES:
            values += (raw[size:],)
        else:
            try:
                rest = _unpackb(raw[size:], use_list=False, raw=False, strict_map_key=True)
            except _NO_MSGPACK:
                return None
            if type(rest) is not tuple or not fits(rest, self._types):
                return None
            values += rest
        if self._order is not None:
            values = self._order(values)
        return _new_tuple(self.kind, values)

    def _unfit(self, item: tuple[Any, ...]) -> UnfitError:
        """Why an item cannot be packed."""
        fields: tuple[str, ...] = self.kind._fields
        bounds = dict(self._bounds)
        for i, (name, value) in enumerate(zip(fields, item, strict=False)):
            code = self._codes[i]
            if not isinstance(value, bytes) if i in bounds else not _packs(code, value):
                return UnfitError(f"{self.kind.__name__}.{name} cannot be {value!r}")
            if i in bounds and len(value) > bounds[i]:
                return UnfitError(
                    f"{self.kind.__name__}.{name} holds {bounds[i]} bytes, not {len(value)}"
                )
        return UnfitError(f"{self.kind.__name__} has {len(fields)} fields, unlike {item!r}")


def _code(hint: Any) -> str:
    """A field's code in the struct; "" for a field of the rest."""
    if hint is int:
        return "q"
    if hint is bool:
        return "?"
    if typing.get_origin(hint) is Annotated and hint.__origin__ is bytes:
        return f"{hint.__metadata__[0] + 1}p"
    return ""


def _packs(code: str, value: object) -> bool:
    """Can a field hold a value?"""
    try:
        if code:
            struct.pack(f"<{code}", value)
        else:
            _packer.pack(value)
    except (struct.error, TypeError, ValueError, OverflowError):
        return False
    return True


def _picker(fields: list[int]) -> Callable[[Any], tuple[Any, ...]]:
    """A function that makes a tuple of some fields of a tuple."""
    if len(fields) > 1:
        picker: Callable[[Any], tuple[Any, ...]] = itemgetter(*fields)
        return picker
    if not fields:
        return lambda values: ()
    only = fields[0]
    return lambda values: (values[only],)


def unfit_field(names: Iterable[str], codes: Iterable[str], values: Iterable[object]) -> str:
    """Which field of a struct cannot hold its value, and the value."""
    for name, code, value in zip(names, codes, values, strict=False):
        if not _packs(code, value):
            return f"{name} cannot be {value!r}"
    return "a field is missing"


def fits(value: tuple[Any, ...], types: tuple[Any, ...]) -> bool:
    """Are the values of a tuple of these types? `object` stands for any."""
    if len(value) != len(types):
        return False
    for one, want in zip(value, types, strict=True):
        if want is not object and type(one) is not want:
            return False
    return True
