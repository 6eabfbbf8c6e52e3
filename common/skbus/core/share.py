# SPDX-License-Identifier: MIT
"""Equal values as one object: what many connections have in common (addresses, windows, sizes) is
there once, and an idle connection does not keep copies of its own."""

from typing import Any, Final, TypeVar

V = TypeVar("V")

MAX: Final = 16384
"""Values that are remembered; then it begins anew."""


class Share:
    """`share(value)` is the object that others got who gave an equal value. For values that cannot
    change; no bool, which is equal to an int."""

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
