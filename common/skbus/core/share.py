# SPDX-License-Identifier: MIT
"""Equal values as one object. Values that many connections have in common (addresses, windows,
sizes) are there once, and an idle connection keeps no copies of its own."""

from typing import Any, Final, TypeVar

V = TypeVar("V")

MAX: Final = 16384
"""Values that are remembered; one more, and all are forgotten first."""


class Share:
    """`share(value)` is the object that earlier callers got for an equal value. For values that
    cannot change. Not for bool, which is equal to an int."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[Any, Any] = {}

    def __call__(self, value: V) -> V:
        values = self._values
        found: V | None = values.get(value)
        if found is None:
            if len(values) >= MAX:
                values.clear()
            found = values[value] = value
        return found
