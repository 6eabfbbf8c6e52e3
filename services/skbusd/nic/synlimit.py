# SPDX-License-Identifier: MIT
"""A SYN flood must not fill the pipes (RFC 4987 3): nic lets no more SYNs up than are dealt with.

The kernel drops what its backlog cannot take (`net.core.netdev_max_backlog`), wherever it comes
from. Here a packet crosses two pipes, which hold seconds of work, and a flood would make all other
packets wait behind it. So nic counts the SYNs that are on their way up. What counts is the place
that a SYN takes in a pipe, not what becomes of it: a SYN with a bad checksum, for an address that
is not ours, or for a port without a listener leaves the pipe as any other does, and soon. So no
sender can hold a place by what it sends; it would have to send faster than the layers work, and
then it takes from others what it takes of the work: a SYN of theirs gets up with the
chance that any SYN has, and is repeated if it does not.

How nic knows: behind every `MARK_EVERY` SYNs goes a mark (`backlog_mark`), through ip to the
processes that share TCP; it comes back (`backlog_mark_ret`) when all that was in front of it has
been taken. While `SYN_BACKLOG` SYNs are up without a mark having come back, further ones are
dropped (CPU_BACKLOG), before they have cost much. Fewer than `MARK_EVERY` cost nothing.

A mark that does not come back, because a layer died with it, is forgotten with the SYNs in front of
it when none has come back for `FORGET`. Segments of connections are not concerned.

Called by dev.napi_poll with the frame. Differs from Linux: there is no such thing.
"""

from typing import Final

from skbus.abi import BacklogMark
from skbus.headers import Buffer
from skbus.net import SEC
from skbusd.nic.netdev import NicNet

SYN_BACKLOG: Final = 2048
"""As many SYNs as all layers get through in a fraction of a second."""
MARK_EVERY: Final = 256
"""SYNs between two marks."""
FORGET: Final = 2 * SEC
"""No mark has come back for so long: they were lost with a layer."""
FLAGS_AT: Final = 47
"""Of TCP's flags in an Ethernet frame whose IP header has no options."""
PLAIN: Final = 0x45
"""Byte 14 of such a frame."""
SYN: Final = 2
FLAGS: Final = 0x3F
_TCP: Final = 6


def is_syn(net: NicNet, frame: Buffer, size: int) -> bool:
    """Is this frame a SYN for us? Whatever else is wrong with it is for others to find."""
    at = 14
    if frame[12] == 0x81 and not frame[13]:
        at = 18
    if size < at + 34 or frame[at - 2] != 0x08 or frame[at - 1]:
        return False
    tcp = at + ((frame[at] & 0xF) << 2)
    if frame[at + 9] != _TCP or size < tcp + 14 or frame[tcp + 13] & FLAGS != SYN:
        return False
    return frame[at + 6] & 0x1F == 0 == frame[at + 7] and bytes(frame[:6]) == net.dev_addr


def syn_refused(net: NicNet) -> bool:
    """A SYN has come: is it one too many? Then it is dropped, and counted."""
    backlog = net.syn_backlog
    if backlog.sent - backlog.done >= SYN_BACKLOG:
        if net.now - backlog.moved < FORGET:
            net.mib["DevRxDropped"] += 1
            name = "SKB_DROP_REASON_CPU_BACKLOG"
            net.drops[name] = net.drops.get(name, 0) + 1
            net.skb_born += 1
            net.skb_dropped += 1
            return True
        syn_forget(net)
    if backlog.sent == backlog.done:
        backlog.moved = net.now
    backlog.sent += 1
    return False


def syn_mark(net: NicNet) -> None:
    """Send a mark up behind the SYNs that have gone."""
    backlog = net.syn_backlog
    backlog.marked = backlog.sent
    net.call(net.ip, "backlog_mark", BacklogMark(net.name, _TCP, backlog.sent))
    if net.tracing:
        net.trace("backlog_mark", mark=backlog.sent, done=backlog.done)


def backlog_mark_ret(net: NicNet, item: BacklogMark) -> None:
    """A mark is back: what was in front of it has been taken. One of an earlier life is not
    ours."""
    backlog = net.syn_backlog
    if backlog.done < item.mark <= backlog.marked:
        backlog.done = item.mark
        backlog.moved = net.now


def syn_forget(net: NicNet) -> None:
    """What was up there is gone: a layer died with it."""
    backlog = net.syn_backlog
    backlog.done = backlog.marked = backlog.sent
