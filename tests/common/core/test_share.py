# SPDX-License-Identifier: MIT
"""Equal values as one object."""

from skbus.core import share


def test_equal_values_are_one_object() -> None:
    shared = share.Share()
    one, other = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 1))
    assert one is not other
    assert shared(one) is one
    assert shared(other) is one
    assert shared(70_000) == 70_000


def test_it_does_not_grow_for_ever() -> None:
    shared = share.Share()
    for i in range(2 * share.MAX):
        assert shared(i) == i
    assert len(shared._values) <= share.MAX
