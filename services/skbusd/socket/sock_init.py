# SPDX-License-Identifier: MIT
"""`sock_init`: the start of the socket layer itself, before any family of protocols
(`net/socket.c`, with `sk_init` of `net/core/sock.c` and `skb_init` of `net/core/skbuff.c`).

Called by core.py at start; then it calls `inet_init` (af_inet.py).
"""

from typing import Final

from skbus.core.initcall import InitStep, do_initcalls
from skbus.core.net import SEC
from skbus.core.timer import Timer
from skbusd.socket.files import kern_mount, kern_unmount
from skbusd.socket.netns import SocketNet

MAX_SOCKS: Final = 1 << 21
"""Socks of all clients together, with those that no descriptor refers to any more."""

REGION_GRACE: Final = 5 * SEC
"""The time that a dead client's region stays, for its datagrams that are still under way."""

MAX_SOCKETS: Final = 1 << 20
"""struct sockets of all clients together."""


def sk_init(net: SocketNet) -> None:
    """`sk_init`: socks may be made from now on, up to MAX_SOCKS. Their numbers begin elsewhere in
    each life of the process, so that late reports on an earlier life match no sock."""
    net.numbers.next = ((net.epoch & 0xFFF) << 20) + 2
    net.numbers.next += -net.numbers.next % net.numbers.step
    net.limits.socks = MAX_SOCKS


def sk_exit(net: SocketNet) -> None:
    """Undo `sk_init`."""
    net.limits.socks = 0


def skb_init(net: SocketNet) -> None:
    """`skb_init`: the memory of sk_buffs, which is our region of the pool. Data from an earlier
    life of this process is still under way for a moment; then its slots are free."""
    if net.alloc is not None and (left := net.alloc.snapshot()):
        net.regions.sweep_timer = Timer(_sweep_earlier_life, left)
        net.mod_timer(net.regions.sweep_timer, net.now + REGION_GRACE)


def skb_exit(net: SocketNet) -> None:
    """Undo `skb_init`."""
    if net.regions.sweep_timer is not None:
        net.del_timer(net.regions.sweep_timer)
        net.regions.sweep_timer = None


def _sweep_earlier_life(net: SocketNet, left: dict[int, int]) -> None:
    """Free the slots that an earlier life of this process allocated: nobody else will."""
    net.regions.sweep_timer = None
    if net.alloc is not None:
        swept = net.alloc.sweep((), left)
        net.info("sweep", slots=swept)


def init_inodecache(net: SocketNet) -> None:
    """`init_inodecache`: there may be struct sockets from now on."""
    net.limits.sockets = MAX_SOCKETS


def destroy_inodecache(net: SocketNet) -> None:
    """Undo `init_inodecache`."""
    net.limits.sockets = 0


SOCK_INIT: Final = (
    InitStep("sk_init", sk_init, sk_exit),
    InitStep("skb_init", skb_init, skb_exit),
    InitStep("init_inodecache", init_inodecache, destroy_inodecache),
    InitStep("kern_mount", kern_mount, kern_unmount),
)
"""The steps of `sock_init`."""


def sock_init(net: SocketNet) -> None:
    """`sock_init`: the socket layer itself, before any family of protocols."""
    do_initcalls(net, "sock_init", SOCK_INIT)
