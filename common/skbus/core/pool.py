# SPDX-License-Identifier: MIT
"""The payload pool: packets' bytes in shared memory, named by places
(docs/architecture.md, "Where payload lies").

    region   [ header 64 B | state words, u32 a slot | slots of class 0 | slots of class 1 | ... ]

One process allocates in a region. Every holder of a place may read the bytes, and the owner gives
the slot back. A slot's state word is its generation: odd while the slot is in use, even while it
is free. Giving back is one store of gen + 1 by the one owner: no lock, no message. The allocator
finds free slots by looking at the words of the slots that are out. A place is stale once the
slot's word is another generation: its bytes are someone else's.

This module knows memory alone. In simulations a region is a bytearray. Between processes it is a
mapped file (`skbus.bus.pooldir`), with a `Backing` for the calls to the system. The file is as
long as all its slots, but has memory only for those that were ever needed.
"""

import errno
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from skbus.core.skbuff import Frag, Place

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MAGIC: Final = 0x736B6275
_HEADER: Final = struct.Struct("=IIII")  # magic, version, region number, number of classes
_CLASS: Final = struct.Struct("=II")  # slot size, number of slots
_HEADER_SIZE: Final = 64
_VERSION: Final = 1

DEFAULT_CLASSES: Final = ((2048, 8192), (16384, 256), (66560, 768))
"""(slot size, slots): 16, 4 and 51 MB of address space; memory is reserved as it is needed."""

STEP: Final = 512 << 10
"""Bytes that are reserved at a time, for one class of slots."""
_PATIENCE: Final = 64
"""After a reservation fails, so many searches for a slot pass before the next try."""


class PoolError(Exception):
    """A region that cannot be used; the text says which and why."""


class StalePlaceError(PoolError):
    """A place whose slot was given back, or that no region has."""


class Backing(Protocol):
    """Where a region's memory comes from, if not from Python: a mapped file."""

    def reserve(self, start: int, length: int) -> None:
        """Have memory for these bytes of the region. OSError where there is none."""

    def punch(self, start: int) -> None:
        """Give back the memory from `start` to the end, even where other processes map it."""

    def unmap(self) -> None:
        """Nobody looks at the region any more. BufferError where a view of it is left."""

    def close(self) -> None:
        """Nobody allocates in the region any more."""


class Region:
    """One region, for its readers.

    buf: its bytes, writable. backing: where they come from; None where all of them are there.
    """

    def __init__(self, number: int, buf: "Buffer", backing: Backing | None = None) -> None:
        self.number = number
        self._backing = backing
        self.mem = memoryview(buf)
        if len(self.mem) < _HEADER_SIZE:
            raise PoolError(f"region {number:08x} is {len(self.mem)} bytes: too short for a header")
        magic, version, found, nclasses = _HEADER.unpack_from(self.mem)
        if magic != _MAGIC or version != _VERSION or found != number or not 1 <= nclasses <= 6:
            raise PoolError(f"region {number:08x} has a header that is not ours or not version 1")
        self.classes = [_CLASS.unpack_from(self.mem, 16 + 8 * i) for i in range(nclasses)]
        self.nslots = sum(n for _, n in self.classes)
        self.starts: list[int] = []
        self.sizes: list[int] = []
        at = data_start(self.nslots)
        need = at + sum(size * n for size, n in self.classes)
        if need > len(self.mem) or not all(size and n for size, n in self.classes):
            raise PoolError(f"region {number:08x} is {len(self.mem)} bytes, {need} are needed")
        self.words = self.mem[_HEADER_SIZE : _HEADER_SIZE + 4 * self.nslots].cast("I")
        for size, n in self.classes:
            self.starts += range(at, at + size * n, size)
            self.sizes += [size] * n
            at += size * n

    def view(self, slot: int, gen: int, offset: int, length: int) -> memoryview:
        """The bytes of a place. StalePlaceError where the slot is not in generation `gen`."""
        if not 0 <= slot < self.nslots or self.words[slot] != gen:
            raise StalePlaceError(f"region {self.number:08x} slot {slot} generation {gen} is gone")
        if offset < 0 or length < 0 or offset + length > self.sizes[slot]:
            raise StalePlaceError(
                f"{offset}+{length} is outside slot {slot} of {self.sizes[slot]} bytes"
            )
        start = self.starts[slot] + offset
        return self.mem[start : start + length]

    def free(self, slot: int, gen: int) -> bool:
        """Give a slot back; False where it was given back before."""
        if not 0 <= slot < self.nslots or self.words[slot] != gen:
            return False
        self.words[slot] = (gen + 1) & 0xFFFFFFFF
        return True

    def in_use_of(self, size: int) -> float:
        """Which part of the slots of that size is in use, 0 to 1."""
        first = 0
        for slot_size, n in self.classes:
            if slot_size == size:
                words = np.frombuffer(self.words, dtype=np.uint32, count=n, offset=4 * first)
                return float((words & 1).mean())
            first += n
        return 0.0

    def punch(self) -> None:
        """Give the region's memory back to the system, even where others still map it. All its
        places are stale from now on. The words stay, because others may look at them any time."""
        if self._backing is not None:
            self.words[:] = memoryview(bytes(4 * self.nslots)).cast("I")
            self._backing.punch(data_start(self.nslots))

    def close(self) -> None:
        """Unmap, if no view of it is left."""
        try:
            self.words.release()
            self.mem.release()
            if self._backing is not None:
                self._backing.unmap()
        except BufferError:
            pass  # a view is still in use: the mapping goes with it


def data_start(nslots: int) -> int:
    """Where the first slot of a region begins: behind the words, at a page of its own."""
    return -(-(_HEADER_SIZE + 4 * nslots) // 4096) * 4096


class Allocator(Region):
    """A region in the one process that allocates in it."""

    def __init__(self, number: int, buf: "Buffer", backing: Backing | None = None) -> None:
        super().__init__(number, buf, backing)
        self._free: list[list[int]] = []
        self._out: list[deque[int]] = []
        """Slots in the order in which they went out; most come back in the same order."""
        self._ready: list[int] = []
        """How many slots of each class have memory: the first ones."""
        at = 0
        for _, n in self.classes:
            # An adopted region: slots in use stay out until their holders give them back.
            used = [s for s in range(at, at + n) if self.words[s] & 1]
            ready = n if backing is None else used[-1] + 1 - at if used else 0
            self._ready.append(ready)
            self._out.append(deque(used))
            slots = reversed(range(at, at + ready))
            self._free.append([s for s in slots if not self.words[s] & 1])
            at += n
        self.exhausted = 0
        """How often there was no slot to be had."""
        self.no_room = 0
        """How often there was no memory for more slots: the file system is full."""
        self.told: Callable[[str], None] | None = None
        """Called with a sentence when `no_room` begins to count."""
        self._wait = 0

    @staticmethod
    def format(
        number: int,
        buf: "Buffer",
        classes: Iterable[tuple[int, int]],
        backing: Backing | None = None,
    ) -> "Allocator":
        """Make `buf` an empty region. backing: as for Region."""
        classes = list(classes)
        _HEADER.pack_into(buf, 0, _MAGIC, _VERSION, number, len(classes))
        for i, (size, n) in enumerate(classes):
            _CLASS.pack_into(buf, 16 + 8 * i, size, n)
        return Allocator(number, buf, backing)

    def alloc(self, size: int, *, must: bool = True) -> tuple[int, int] | None:
        """A slot of at least `size` bytes: (slot, generation); None where all are in use. None
        counts as `exhausted`, unless the caller can do with a smaller slot (not must).

        The slot that came back last is taken first: it is likely to be in the processor's cache.
        """
        words = self.words
        for i, (slot_size, _) in enumerate(self.classes):
            if size > slot_size:
                continue
            free = self._free[i]
            out = self._out[i]
            while out and not words[out[0]] & 1:
                free.append(out.popleft())
            if free or self._more(i):
                slot = free.pop()
                gen = (words[slot] + 1) & 0xFFFFFFFF
                words[slot] = gen
                out.append(slot)
                return slot, gen
        self.exhausted += must
        return None

    def put(self, data: bytes | bytearray | memoryview, *, must: bool = True) -> Place | None:
        """Copy bytes into a new slot; None where the region is full. must: as for `alloc`."""
        got = self.alloc(len(data), must=must)
        if got is None:
            return None
        slot, gen = got
        start = self.starts[slot]
        self.mem[start : start + len(data)] = data
        return (self.number, slot, gen, 0, len(data))

    def room(self, place: Place) -> memoryview:
        """The whole slot that a place lies in, to be written."""
        start = self.starts[place[1]]
        return self.mem[start : start + self.sizes[place[1]]]

    def _more(self, i: int) -> bool:
        """Find free slots of a class, for `alloc` when it has none."""
        self._reclaim(i)
        free = self._free[i]
        if self._ready[i] < self.classes[i][1] and len(free) <= len(self._out[i]) >> 3:
            if self._wait:
                self._wait -= 1
            else:
                self._grow(i)
        return bool(free)

    def _grow(self, i: int) -> None:
        """Reserve memory for more slots of a class."""
        size, n = self.classes[i]
        ready = self._ready[i]
        first = sum(n for _, n in self.classes[:i]) + ready
        count = min(max(STEP // size, 1), n - ready)
        try:
            if self._backing is not None:
                self._backing.reserve(self.starts[first], count * size)
        except OSError as e:
            self._wait = _PATIENCE
            self.no_room += 1
            if self.no_room == 1 and self.told is not None:
                self.told(f"no memory for the pool: {e.strerror}; it goes on with what it has")
            return
        self.no_room = 0
        self._ready[i] += count
        self._free[i][:0] = reversed(range(first, first + count))

    def reserve(self) -> None:
        """Reserve memory for a step of each class now. OSError says how much is lacking."""
        for i, (size, _) in enumerate(self.classes):
            if not self._ready[i]:
                self._grow(i)
            if not self._ready[i]:
                raise OSError(errno.ENOSPC, f"no room for the pool: {max(STEP, size)} bytes more")

    def _reclaim(self, i: int) -> None:
        """Find slots that were given back out of order."""
        out = self._out[i]
        slots = np.fromiter(out, dtype=np.int64, count=len(out))
        used = (np.frombuffer(self.words, dtype=np.uint32)[slots] & 1).astype(bool)
        back = slots[~used].tolist()
        out.clear()
        out.extend(slots[used].tolist())
        self._free[i] += back

    def close(self) -> None:
        super().close()
        if self._backing is not None:
            self._backing.close()

    def reserved(self) -> int:
        """Bytes of memory that the slots have."""
        return sum(size * n for (size, _), n in zip(self.classes, self._ready, strict=True))

    def in_use(self) -> int:
        """How many slots are out and not given back."""
        return sum(1 for out in self._out for s in out if self.words[s] & 1)

    def sweep(self, held: Iterable[Place], born_before: dict[int, int]) -> int:
        """Give back the slots of `born_before` (slot -> generation) that no place in `held` names:
        those that a process held when it died. Returns how many."""
        kept = {(p[1], p[2]) for p in held if p[0] == self.number}
        return sum(
            self.free(slot, gen) for slot, gen in born_before.items() if (slot, gen) not in kept
        )

    def snapshot(self) -> dict[int, int]:
        """slot -> generation of all that is in use now."""
        return {s: self.words[s] for out in self._out for s in out if self.words[s] & 1}


class Pool:
    """All regions that a process knows: finds the bytes of places and gives them back."""

    def __init__(
        self,
        opener: Callable[[int], Region] | None = None,
        exists: Callable[[int], bool] | None = None,
    ) -> None:
        self.regions: dict[int, Region] = {}
        self._opener = opener
        self._exists = exists
        self.mapped: Callable[[], None] | None = None
        """Called when a region has been mapped: `prune` should run now and then."""
        self.late = 0
        """Places that were given back twice or after their generation had passed."""

    def region(self, number: int) -> Region:
        """The region of that number, mapped at first use."""
        region = self.regions.get(number)
        if region is None:
            if self._opener is None:
                raise StalePlaceError(f"no region {number:08x}")
            region = self.regions[number] = self._opener(number)
            if self.mapped is not None:
                self.mapped()
        return region

    def prune(self) -> bool:
        """Unmap regions of dead clients (their files are gone). Are regions of others left?"""
        left = False
        for number, region in tuple(self.regions.items()):
            if isinstance(region, Allocator) or self._exists is None:
                continue
            if self._exists(number):
                left = True
            else:
                del self.regions[number]
                region.close()
        return left

    def view(self, place: Place) -> memoryview:
        """The bytes of a place, without a copy. StalePlaceError where they are gone."""
        region = self.regions.get(place[0])
        if region is None:
            region = self.region(place[0])
        return region.view(place[1], place[2], place[3], place[4])

    def view_frag(self, frag: Frag) -> memoryview | bytes:
        """The bytes of a frag of either kind."""
        return frag if isinstance(frag, bytes) else self.view(frag)

    def gather(self, frags: tuple[Frag, ...]) -> bytes:
        """The bytes of some frags, copied together."""
        return b"".join([f if isinstance(f, bytes) else self.view(f) for f in frags])

    def free(self, place: Place) -> None:
        """Give a place's slot back."""
        region = self.regions.get(place[0])
        if region is None:
            try:
                region = self.region(place[0])
            except PoolError:
                self.late += 1
                return
        if not region.free(place[1], place[2]):
            self.late += 1

    def free_frags(self, frags: tuple[Frag, ...]) -> None:
        """Give back the slots of all frags that are places."""
        for frag in frags:
            if not isinstance(frag, bytes):
                self.free(frag)
