# SPDX-License-Identifier: MIT
"""The differences of a packet path that mypyc compiled (docs/performance.md).

The source is the same, and no other module needs to know.
"""

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(*_names: str, **_values: object) -> Any:
        """Tells the compiler something about a class, and does nothing else."""
        return lambda cls: cls


def field_names(cls: type) -> tuple[str, ...]:
    """The names of the fields that instances of a class have.

    They are its slots and annotations and those of its parents. A compiled class has neither; its
    names are those that mypyc writes down.
    """
    compiled: tuple[str, ...] | None = getattr(cls, "__mypyc_attrs__", None)
    if compiled is not None:
        return compiled
    names: dict[str, None] = {}
    for base in cls.__mro__:
        names.update(dict.fromkeys(base.__dict__.get("__slots__", ())))
        names.update(dict.fromkeys(inspect.get_annotations(base)))
    names.pop("__dict__", None)
    return tuple(names)
