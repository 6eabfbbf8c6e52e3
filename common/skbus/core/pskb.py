# SPDX-License-Identifier: MIT
"""skb operations that must read the pool (`net/core/skbuff.c`); used by ip, udp and plug-ins.

Bytes that went away meanwhile are reported by the return value, never by an exception.
"""

from skbus.core.checksum import csum_block_add, csum_fold, csum_partial
from skbus.core.net import Net
from skbus.core.pool import PoolError
from skbus.core.skbuff import CHECKSUM_NONE, Frag, SkBuff, frag_len, frag_slice


def pskb_may_pull(net: Net, skb: SkBuff, n: int) -> bool:
    """Make sure that head has n bytes from `data` on, moved there from the frags where needed.

    False where the packet is shorter, or its bytes are gone.
    """
    need = n - (len(skb.head) - skb.data)
    if need <= 0:
        return True
    if need > skb.data_len:
        return False
    parts = [skb.head]
    frags: list[Frag] = []
    try:
        for frag in skb.frags:
            size = frag_len(frag)
            take = min(size, need)
            if take:
                piece = frag_slice(frag, 0, take)
                parts.append(piece if isinstance(piece, bytes) else bytes(net.pool.view(piece)))
                need -= take
                frag = frag_slice(frag, take, size - take)
                skb.data_len -= take
            frags.append(frag)
    except PoolError:
        skb.data_len = sum(frag_len(f) for f in skb.frags)
        return False
    skb.head = b"".join(parts)
    skb.frags = tuple(frags)
    return True


def skb_checksum(net: Net, skb: SkBuff, offset: int, csum: int = 0) -> int | None:
    """The sum of the packet from `offset` in head to its end, plus `csum`; None where bytes in
    the pool are gone."""
    total = csum_partial(memoryview(skb.head)[offset:], csum)
    if not skb.frags:
        return total
    at = len(skb.head) - offset
    try:
        for frag in skb.frags:
            size = frag_len(frag)
            if size:
                total = csum_block_add(total, csum_partial(net.pool.view_frag(frag)), at)
                at += size
    except PoolError:
        return None
    return total


def skb_checksum_help(net: Net, skb: SkBuff) -> bool:
    """Resolve CHECKSUM_PARTIAL in software, in the device's stead. False where bytes in the pool
    are gone, or the fields make no sense."""
    start = skb.csum_start
    at = start + skb.csum_offset
    if not 0 <= start <= at <= len(skb.head) - 2:
        return False
    total = skb_checksum(net, skb, start)
    if total is None:
        return False
    check = csum_fold(total) or 0xFFFF
    skb.head = skb.head[:at] + check.to_bytes(2, "big") + skb.head[at + 2 :]
    skb.ip_summed = CHECKSUM_NONE
    return True


def skb_linearize_frags(net: Net, skb: SkBuff) -> bool:
    """Put all frags together in one new slot (`skb_linearize`, but for head), or in bytes where no
    slot is free. The old slots are given back. False where bytes are gone."""
    try:
        data = net.pool.gather(skb.frags)
    except PoolError:
        return False
    if not skb.lent:
        net.pool.free_frags(skb.frags)
    place = net.alloc.put(data) if net.alloc is not None and data else None
    skb.frags = (place if place is not None else data,) if data else ()
    skb.lent = False
    return True


def skb_orphan_frags(net: Net, skb: SkBuff) -> bool:
    """Make a lent skb the owner of its payload, by a copy; False where the bytes are gone."""
    if not skb.lent:
        return True
    frags: list[Frag] = []
    size = 0
    for frag in skb.frags:
        try:
            data = bytes(net.pool.view_frag(frag))
        except PoolError:
            net.pool.free_frags(tuple(frags))
            return False
        place = net.alloc.put(data) if net.alloc is not None and data else None
        frags.append(data if place is None else place)
        size += frag_len(frags[-1])
    skb.frags = tuple(frags)
    skb.data_len = size
    skb.lent = False
    return True
