# SPDX-License-Identifier: MIT
"""Bytes to be sent, until they are acknowledged (`net/core/sock.c`: sk_page_frag_refill and
sk_wmem_queued): their places in the pool, and the owner that gives their slots back.

Called by tcp_sendmsg and tcp_fastopen to queue, by tcp_sock when tcp reports acknowledged bytes,
and by sock at the end.
"""

from typing import TYPE_CHECKING

from skbus.core.skbuff import Frag, Place, frag_slice

if TYPE_CHECKING:
    from skbusd.socket.call import SendCall
    from skbusd.socket.netns import SocketNet
    from skbusd.socket.sock import Sock


class PageFrag:
    """A slot of our own region in which small writes lie one behind the other (`struct page_frag`).
    It goes back when it is full and nothing in it is unacknowledged."""

    __slots__ = ("offset", "place", "refs", "room")

    def __init__(self, place: Place, room: memoryview) -> None:
        self.place = place
        self.room = room
        self.offset = 0
        self.refs = 1


class SplitPlace:
    """A slot of an application that is queued in parts, as the send buffer has room. It goes back
    when nothing in it is unacknowledged, and its call has queued all of it."""

    __slots__ = ("place", "refs")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.refs = 1


Owner = PageFrag | SplitPlace | Place | None


class SendItem:
    """One entry of `sk_write_queue`: `length` unacknowledged bytes, and the slot to give back
    afterwards."""

    __slots__ = ("length", "owner")

    def __init__(self, length: int, owner: Owner) -> None:
        self.length = length
        self.owner = owner


def page_frag_write(net: "SocketNet", sk: "Sock", data: bytes) -> tuple[Frag, PageFrag | None]:
    """Copy bytes into our region, behind those of sk's last write where there is room.

    Where the region is full the bytes themselves are the frag.
    """
    size = len(data)
    frag = sk.sk_frag
    if frag is None or frag.offset + size > len(frag.room):
        if frag is not None:
            sk.sk_frag = None
            page_frag_put(net, frag)
        if net.alloc is None:
            return data, None
        # Small writes in a row share one middling slot; a single one takes a small slot.
        want = size if size > 2048 or not sk.sk_write_queue else max(size, 4096)
        got = net.alloc.alloc(want) or net.alloc.alloc(size)
        if got is None:
            return data, None
        place = (net.alloc.number, got[0], got[1], 0, size)
        frag = sk.sk_frag = PageFrag(place, net.alloc.room(place))
    at = frag.offset
    frag.room[at : at + size] = data
    frag.offset = at + size
    frag.refs += 1
    region, slot, gen, _, _ = frag.place
    return (region, slot, gen, at, size), frag


def place_take(net: "SocketNet", call: "SendCall", room: int) -> tuple[Place, Owner]:
    """Take the call's next chunk, a place, or the part that there is room for. Returns it, and the
    owner that gives its slot back."""
    place = call.chunks.popleft()
    assert type(place) is tuple
    split = call.split
    if place[4] <= room:
        call.split = None
        return place, split or place  # the call's own reference goes with the last part
    if split is None:
        split = call.split = SplitPlace(place)
    split.refs += 1
    call.chunks.appendleft(frag_slice(place, room, place[4] - room))
    region, slot, gen, offset, _ = place
    return (region, slot, gen, offset, room), split


def split_put(net: "SocketNet", split: SplitPlace) -> None:
    """One user less; the last one gives the slot back."""
    split.refs -= 1
    if not split.refs:
        net.pool.free(split.place)


def page_frag_put(net: "SocketNet", frag: PageFrag) -> None:
    """One user less; the last one gives the slot back."""
    frag.refs -= 1
    if not frag.refs:
        frag.room.release()
        net.pool.free(frag.place)


def sk_wmem_queue(net: "SocketNet", sk: "Sock", length: int, owner: Owner) -> None:
    """Queue bytes that were handed to the transport: they are ours until acknowledged."""
    sk.sk_write_queue.append(SendItem(length, owner))
    sk.sk_wmem_queued += length
    if type(owner) is tuple:
        net.regions.refs[owner[0]] = net.regions.refs.get(owner[0], 0) + 1
    elif isinstance(owner, SplitPlace):
        region = owner.place[0]
        net.regions.refs[region] = net.regions.refs.get(region, 0) + 1


def sk_wmem_acked(net: "SocketNet", sk: "Sock", acked: int) -> None:
    """The first `acked` bytes of the write queue are acknowledged: give their slots back."""
    queue = sk.sk_write_queue
    done = 0
    while acked > 0 and done < len(queue):
        item = queue[done]
        if item.length > acked:
            item.length -= acked
            sk.sk_wmem_queued -= acked
            break
        acked -= item.length
        sk.sk_wmem_queued -= item.length
        done += 1
        _put_owner(net, item.owner)
    del queue[:done]
    if not queue and sk.sk_frag is not None:
        frag, sk.sk_frag = sk.sk_frag, None
        page_frag_put(net, frag)


def purge_write_queue(net: "SocketNet", sk: "Sock") -> None:
    """`tcp_write_queue_purge`: nothing of it will be sent or needed again."""
    for item in sk.sk_write_queue:
        _put_owner(net, item.owner)
    sk.sk_write_queue.clear()
    sk.sk_wmem_queued = 0
    if sk.sk_frag is not None:
        frag, sk.sk_frag = sk.sk_frag, None
        page_frag_put(net, frag)


def _put_owner(net: "SocketNet", owner: Owner) -> None:
    if type(owner) is tuple:
        net.pool.free(owner)
        _region_put(net, owner[0])
    elif isinstance(owner, PageFrag):
        page_frag_put(net, owner)
    elif isinstance(owner, SplitPlace):
        split_put(net, owner)
        _region_put(net, owner.place[0])


def _region_put(net: "SocketNet", region: int) -> None:
    """An entry of a write queue no longer lies in that region."""
    left = net.regions.refs[region] - 1
    if left:
        net.regions.refs[region] = left
    else:
        del net.regions.refs[region]
