# SPDX-License-Identifier: MIT
"""Received bytes: from skbs in a receive queue to an application's reply (`skb_copy_datagram_iter`
of `net/core/datagram.c`).

Large payload is lent in the pool, small payload is copied. Called by tcp_recvmsg.py, datagram.py
and their like.
"""

from typing import Final

from skbus.core.skbuff import Frag, Place, SkBuff
from skbusd.socket.call import RecvCall, sys_return
from skbusd.socket.files import lend
from skbusd.socket.msghdr import Cmsg, SockAddr, scm_pack
from skbusd.socket.netns import SocketNet

LEND_MIN: Final = 4096
"""Payload above this is lent to the application in the pool; below, copying it is cheaper."""

_PRESSURE_INTERVAL: Final = 5_000_000


# ---- room in the pool ---------------------------------------------------------------------


def skb_relieve(net: SocketNet, skb: SkBuff) -> None:
    """Before an skb waits for a reader: the pool's slots are everybody's, and a reader who is slow
    must not keep them from the others.

    Payload that would be copied anyway is copied now; the rest when half of the slots are in use.
    """
    if skb.data_len > LEND_MIN and not _region_pressure(net, skb):
        return
    frags: list[Frag] = []
    for frag in skb.frags:
        if type(frag) is bytes:
            frags.append(frag)
        else:
            frags.append(bytes(net.pool.view(frag)))  # type: ignore[arg-type]
    if not skb.lent:
        net.pool.free_frags(skb.frags)
    skb.frags = tuple(frags)


def _region_pressure(net: SocketNet, skb: SkBuff) -> bool:
    """Are more than half of the slots of this skb's size in use? Looked up every 5 ms."""
    frag = skb.frags[0]
    if type(frag) is bytes:
        return False
    number: int = frag[0]
    region = net.pool.region(number)
    size: int = region.sizes[frag[1]]
    known = net.regions.pressure.get((number, size))
    if known is not None and net.now < known[0]:
        return known[1]
    answer = region.in_use_of(size) > 0.5
    net.regions.pressure[number, size] = (net.now + _PRESSURE_INTERVAL, answer)
    return answer


# ---- bytes that were received -------------------------------------------------------------


class Parts:
    """The payload of a reply under construction: see `skbus.core.syscall` on `recvmsg`."""

    __slots__ = ("inline", "places", "size", "spec")

    def __init__(self) -> None:
        self.inline: list[bytes | memoryview] = []
        self.spec: list[int | Place] = []
        self.places: list[Place] = []
        self.size = 0

    def add_bytes(self, data: bytes | memoryview) -> None:
        """Bytes that travel in the reply."""
        size = len(data)
        if not size:
            return
        self.inline.append(data)
        self.size += size
        if self.spec and type(self.spec[-1]) is int:
            self.spec[-1] += size
        else:
            self.spec.append(size)

    def add_place(self, place: Place) -> None:
        """A slot that becomes the application's."""
        self.spec.append(place)
        self.places.append(place)
        self.size += place[4]

    def data(self) -> bytes:
        """The reply's data frame."""
        return b"".join(self.inline)


def skb_copy_datagram(net: SocketNet, skb: SkBuff, parts: Parts, offset: int, length: int) -> None:
    """`skb_copy_datagram_iter`: bytes of an skb, into the reply, by copying."""
    head = skb.head
    start = skb.data + offset
    if start < len(head):
        piece = head[start : start + length]
        parts.add_bytes(piece)
        length -= len(piece)
        offset = 0
    else:
        offset = start - len(head)
    for frag in skb.frags:
        if length <= 0:
            return
        view = frag if type(frag) is bytes else net.pool.view(frag)  # type: ignore[arg-type]
        if offset >= len(view):
            offset -= len(view)
            continue
        piece = bytes(view[offset : offset + length])
        parts.add_bytes(piece)
        length -= len(piece)
        offset = 0


def skb_hand_over(net: SocketNet, skb: SkBuff, parts: Parts) -> None:
    """Hand a whole skb to the application, and end it: big places are lent, the rest is copied."""
    if skb.data_len <= LEND_MIN or skb.lent:
        skb_copy_datagram(net, skb, parts, 0, skb.len)
        net.consume_skb(skb)
        return
    if skb.data < len(skb.head):
        parts.add_bytes(skb.head[skb.data :])
    for frag in skb.frags:
        if type(frag) is bytes:
            parts.add_bytes(frag)
        elif frag[4] > LEND_MIN:
            parts.add_place(frag)  # type: ignore[arg-type]
        else:
            parts.add_bytes(bytes(net.pool.view(frag)))  # type: ignore[arg-type]
            net.pool.free(frag)  # type: ignore[arg-type]
    net.skb_consumed += 1


def skb_hand_over_frags(skb: SkBuff, parts: Parts, room: int) -> int:
    """Hand the first places of an skb that are big and fit whole to the application; the rest stays
    for the next call. Returns the number of bytes handed over."""
    if skb.lent or skb.data < len(skb.head):
        return 0
    frags = skb.frags
    taken = n = 0
    for frag in frags:
        if type(frag) is bytes or not LEND_MIN < frag[4] <= room - taken:
            break
        parts.add_place(frag)  # type: ignore[arg-type]
        taken += frag[4]
        n += 1
    skb.frags = frags[n:]
    skb.data_len -= taken
    return taken


def recv_return(
    net: SocketNet,
    call: RecvCall,
    parts: Parts,
    addr: SockAddr | None,
    msg_flags: int,
    cmsgs: list[Cmsg] | None = None,
) -> None:
    """Answer a `recvmsg`: from now on the lent places are the application's. cmsgs: control
    messages; the application gets those that it has room for."""
    control: tuple[Cmsg, ...] = ()
    if cmsgs:
        control, truncated = scm_pack(cmsgs, call.controllen)
        msg_flags |= truncated
    if parts.places:
        if call.client is None:
            pass
        elif call.client.gone:
            for place in parts.places:
                net.pool.free(place)
        else:
            lend(net, call.client, parts.places)
    sys_return(net, call, 0, (parts.spec, addr, msg_flags, control), parts.data())
