# SPDX-License-Identifier: MIT
"""The pool: places, generations, giving back, adoption by a process reborn."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbus.bus.pooldir import PoolDir
from skbus.core.pool import Allocator, Pool, PoolError, Region, StalePlaceError

CLASSES = [(64, 4), (256, 2)]


def region() -> Allocator:
    return Allocator.format(9, bytearray(16384), CLASSES)


def test_bytes_come_out_as_they_went_in() -> None:
    alloc = region()
    place = alloc.put(b"hello")
    assert place is not None
    assert bytes(Pool_of(alloc).view(place)) == b"hello"


def Pool_of(alloc: Region) -> Pool:
    pool = Pool()
    pool.regions[alloc.number] = alloc
    return pool


def test_a_place_that_was_given_back_is_stale_and_a_second_time_is_noticed() -> None:
    alloc = region()
    pool = Pool_of(alloc)
    place = alloc.put(b"x" * 10)
    assert place is not None
    pool.free(place)
    with pytest.raises(StalePlaceError):
        pool.view(place)
    assert pool.late == 0
    pool.free(place)
    assert pool.late == 1


def test_a_late_release_does_not_free_the_slots_next_life() -> None:
    alloc = region()
    pool = Pool_of(alloc)
    old = alloc.put(b"old")
    assert old is not None
    pool.free(old)
    lives = [alloc.put(b"new") for _ in range(6)]
    assert None not in lives
    pool.free(old)
    assert pool.late == 1
    assert alloc.in_use() == 6


def test_small_things_go_to_small_slots_and_then_to_larger_ones() -> None:
    alloc = region()
    places = [alloc.put(b"s" * 60) for _ in range(7)]
    assert [p is not None for p in places] == [True] * 6 + [False]
    assert alloc.exhausted == 1
    assert alloc.put(b"x" * 300) is None


@pytest.mark.parametrize(
    "place",
    [(9, 99, 1, 0, 1), (9, 0, 1, 0, 65), (9, 0, 1, -1, 2), (9, 0, 3, 0, 1), (8, 0, 1, 0, 1)],
)
def test_places_outside_are_refused(place: tuple[int, int, int, int, int]) -> None:
    alloc = Allocator.format(9, bytearray(16384), [(64, 1)])
    alloc.put(b"x")
    with pytest.raises(StalePlaceError):
        Pool_of(alloc).view(place)


@given(st.lists(st.one_of(st.integers(1, 256), st.none()), max_size=80))
def test_no_two_living_places_share_bytes(steps: list[int | None]) -> None:
    alloc = region()
    pool = Pool_of(alloc)
    living: list[tuple[tuple[int, int, int, int, int], bytes]] = []
    for n, size in enumerate(steps):
        if size is None:
            if living:
                pool.free(living.pop(n % len(living))[0])
            continue
        data = bytes([n % 256]) * size
        place = alloc.put(data)
        if place is not None:
            living.append((place, data))
        for where, what in living:
            assert bytes(pool.view(where)) == what
    assert alloc.in_use() == len(living)
    assert pool.late == 0


def test_a_region_in_a_directory_is_shared_and_adopted(tmp_path: Path) -> None:
    directory = PoolDir(tmp_path)
    first = directory.create(5, CLASSES)
    held = first.put(b"survives its allocator")
    lost = first.put(b"went with it")
    assert held is not None
    assert lost is not None
    reader = directory.pool()
    assert bytes(reader.view(held)) == b"survives its allocator"

    reborn = directory.adopt_or_create(5, CLASSES)
    before = reborn.snapshot()
    assert reborn.in_use() == 2
    assert bytes(reader.view(held)) == b"survives its allocator"
    assert reborn.sweep([held], before) == 1
    reader.free(held)
    assert reborn.in_use() == 0
    assert reader.late == 0


def test_a_file_that_is_no_region_is_refused_and_replaced_by_its_allocator(tmp_path: Path) -> None:
    directory = PoolDir(tmp_path)
    (tmp_path / "00000005").write_bytes(b"\0" * 4096)
    with pytest.raises(PoolError, match="header"):
        directory.open(5)
    assert directory.adopt_or_create(5, CLASSES).in_use() == 0


def test_many_outstanding_slots_are_found_when_they_come_back() -> None:
    alloc = Allocator.format(9, bytearray(1 << 20), [(64, 1000)])
    pool = Pool_of(alloc)
    places = [alloc.put(b"x") for _ in range(1000)]
    assert alloc.put(b"y") is None
    for place in places[::2]:
        assert place is not None
        pool.free(place)
    assert sum(alloc.put(b"z") is not None for _ in range(600)) == 500


def test_regions_whose_files_are_gone_are_unmapped(tmp_path: Path) -> None:
    directory = PoolDir(tmp_path)
    own = directory.create(1, CLASSES)
    places = [directory.create(number, CLASSES).put(b"payload") for number in (2, 4, 6)]
    reader = directory.pool()
    reader.regions[1] = own
    told: list[int] = []
    reader.mapped = lambda: told.append(len(reader.regions))
    for place in places:
        assert place is not None
        assert bytes(reader.view(place)) == b"payload"
    assert told == [2, 3, 4]
    directory.unlink(1)
    directory.unlink(4)
    assert reader.prune(), "others are left"
    assert sorted(reader.regions) == [1, 2, 6], "what we allocate in stays"
    assert places[1] is not None
    with pytest.raises(StalePlaceError):
        reader.view(places[1])
    directory.unlink(2)
    directory.unlink(6)
    assert not reader.prune()
    assert sorted(reader.regions) == [1]


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    (tmp_path / "00000004").write_bytes(
        struct.pack("=IIII", 0x736B6275, 1, 4, 1) + struct.pack("=II", 0, 2**32 - 1) + bytes(4096)
    )
    (tmp_path / "00000006").write_bytes(b"")
    with pytest.raises(PoolError, match="needed"):
        PoolDir(tmp_path).open(4)
    with pytest.raises(StalePlaceError):
        PoolDir(tmp_path).open(6)


def test_who_can_do_with_a_smaller_slot_is_not_counted() -> None:
    alloc = region()
    assert alloc.in_use_of(256) == 0.0
    assert alloc.put(bytes(256)) is not None
    assert alloc.in_use_of(256) == 0.5
    assert alloc.alloc(256, must=False) is not None
    assert alloc.alloc(256, must=False) is None
    assert alloc.put(bytes(100), must=False) is None
    assert (alloc.exhausted, alloc.in_use_of(256), alloc.in_use_of(64)) == (0, 1.0, 0.0)
    assert alloc.in_use_of(5) == 0.0
    assert alloc.alloc(256) is None
    assert alloc.exhausted == 1
