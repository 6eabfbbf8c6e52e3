# SPDX-License-Identifier: MIT
"""The impaired link between nic and wire (`net/sched/sch_netem.c`), one `netdev.Netem` a direction.

`dev_hard_start_xmit` puts outgoing frames in, and `napi_poll` incoming ones. Frames that
`skbus.inet.impair.Impairment` lets through come out at their time through `netem_dequeue`. Frames
here are whole, linear and as long as on the wire; they own no pool slot, however long they wait.
"""

from collections.abc import Callable
from heapq import heappop, heappush

from skbus.core.skbuff import SkBuff
from skbus.inet.impair import Impairment
from skbusd.nic.netdev import Netem, NicNet


def netem_init(impairment: Impairment, deliver: Callable[[NicNet, SkBuff, bool], None]) -> Netem:
    """`netem_init`: one direction of a link, with nothing on it."""
    return Netem(impairment, deliver, netem_dequeue)


def netem_enqueue(net: NicNet, q: Netem, skb: SkBuff) -> None:
    """`netem_enqueue`: a frame meets the link. The link owns the skb."""
    frame = skb.head
    out = q.impairment.admit(net.now, frame)
    if not out:
        net.kfree_skb(skb, "SKBUS_IMPAIRED")
        return
    for i, (when, passed) in enumerate(out):
        intact = passed is frame
        copy = skb if i == len(out) - 1 else net.skb_clone(skb)
        copy.head = passed
        if when <= net.now and not q.heap:
            q.deliver(net, copy, intact)
            continue
        q.order += 1
        heappush(q.heap, (when, q.order, copy, intact))
    if q.heap:
        _rearm(net, q)


def netem_dequeue(net: NicNet, q: Netem) -> None:
    """`netem_dequeue`: frames that are due go on."""
    heap = q.heap
    while heap and heap[0][0] <= net.now:
        _, _, skb, intact = heappop(heap)
        q.deliver(net, skb, intact)
    _rearm(net, q)


def _rearm(net: NicNet, q: Netem) -> None:
    if q.heap:
        when = q.heap[0][0]
        if when <= net.now:
            netem_dequeue(net, q)
        else:
            net.mod_timer(q.timer, when)


def netem_dump(q: Netem) -> dict[str, object]:
    """`netem_dump`: the link's impairments, and how many frames are on it."""
    return {**q.impairment.status(), "held": len(q.heap)}
