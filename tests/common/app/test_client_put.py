# SPDX-License-Identifier: MIT
"""Where an application's bytes are laid down: few slots, as big as there are."""

import pytest

from skbus.app.client import CHUNKS, INLINE_MAX, PUT_MAX, REGION_CLASSES, Client
from skbus.core.pool import Allocator, Pool

pytestmark = pytest.mark.interpreted  # a class of its own inherits from the client's

REGION = 4


class Bare(Client):
    """A client whose region is plain memory, and no socket layer."""

    def __init__(self, classes: tuple[tuple[int, int], ...]) -> None:
        import threading

        size = 65536 + sum(s * n for s, n in classes)
        self.pool = Pool()
        self._lock = threading.RLock()
        self._region = Allocator.format(REGION, bytearray(size), classes)
        self._region_failed = False
        self.pool.regions[REGION] = self._region

    @property
    def region(self) -> Allocator:
        assert self._region is not None
        return self._region

    def laid(self, data: bytes) -> tuple[list[int], bytes]:
        """(the places' lengths, what was laid down)"""
        inline, places = self.put(memoryview(data))
        assert not (inline and places)
        return [p[4] for p in places], inline or self.pool.gather(places)


def message(size: int) -> bytes:
    return bytes(n * 7 + (n >> 8) & 0xFF for n in range(size))


def test_small_ones_are_inline() -> None:
    client = Bare(REGION_CLASSES)
    assert client.laid(message(INLINE_MAX)) == ([], message(INLINE_MAX))
    assert client.region.in_use() == 0


@pytest.mark.parametrize("size", [INLINE_MAX + 1, 16384, 65536, 65537, 131072, 262144, 1 << 20])
def test_one_slot_holds_it(size: int) -> None:
    client = Bare(REGION_CLASSES)
    assert client.laid(message(size)) == ([size], message(size))


def test_a_request_takes_no_more_than_a_megabyte() -> None:
    client = Bare(REGION_CLASSES)
    assert client.laid(message(3 << 20)) == ([PUT_MAX], message(3 << 20)[:PUT_MAX])


def test_smaller_slots_when_the_big_ones_are_out() -> None:
    client = Bare(((66560, 6), (262144, 2), (1048576, 1)))
    whole = message(PUT_MAX)
    assert client.laid(whole)[0] == [PUT_MAX]
    lengths, laid = client.laid(whole)
    assert lengths == [262144] * 2 + [65536] * 6
    assert laid == whole[: sum(lengths)]
    assert client.laid(whole) == ([], whole)  # the region is full
    assert client.region.exhausted == 2  # counted where not even a small one was left


def test_the_chunks_fit_the_slots() -> None:
    sizes = [size for size, _ in REGION_CLASSES]
    for chunk in CHUNKS:
        assert min(size for size in sizes if size >= chunk) - chunk <= 1024
