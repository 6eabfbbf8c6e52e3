# SPDX-License-Identifier: MIT
"""A SYN flood must not fill the pipes (RFC 4987 3): nic lets up no more SYNs than can be handled.

The kernel drops packets that its backlog cannot take (`net.core.netdev_max_backlog`), from any
sender. Here a packet crosses two pipes, which hold seconds of work, and a flood would make all
other packets wait behind it. So nic counts the SYNs that are on their way up. A SYN counts for its
place in a pipe, not for its fate. One with a bad checksum, for a foreign address, or for a port
without a listener leaves the pipe as soon as any other. So no sender can hold a place by the
contents of its SYNs, but only by sending faster than the layers work. Even then, another host's SYN
gets up with the same chance as any. If refused it is repeated, unlike SYNs from made-up addresses.
A SYN that comes again after `AGAIN` gets up beyond the limit, while no more than `RESERVE` such
SYNs are up.

Marks tell nic how many SYNs are up. Behind every `MARK_EVERY` SYNs goes a mark (`backlog_mark`),
through ip to the processes that share TCP. It comes back (`backlog_mark_ret`) when everything in
front of it has been taken. While `limit` SYNs are up with no mark back for them, further ones are
dropped (CPU_BACKLOG), before they have cost much. Fewer than `MARK_EVERY` cost nothing.

The limit is one of time: the traffic behind the SYNs, which is everybody's, shall not wait for
long. After a mark that took longer than `TARGET`, the limit shrinks (by half at most for each
round, and not below `SYN_LEAST`). After a faster mark it grows again, up to `SYN_BACKLOG`.

A mark is lost if a layer dies with it. When none has come back for `FORGET`, nic forgets the marks
and the SYNs in front of them. Segments of connections are not concerned.

Called by dev.napi_poll with the frame. Differs from Linux: there is no such thing.
"""

from typing import Final

from skbus.core.abi import BacklogMark
from skbus.core.interfaces import SynBacklog
from skbus.core.net import MSEC, SEC
from skbus.inet.headers import Buffer
from skbus.inet.headers.ethernet import ETH_ALEN
from skbus.inet.headers.ipv4 import IP_HLEN, IPPROTO_TCP
from skbus.inet.headers.tcp import TCPHDR_SYN
from skbusd.nic.eth import VLAN_HLEN
from skbusd.nic.frame import (
    ETH_PROTO,
    IP,
    IP_FRAG_OFF,
    IP_PROTOCOL,
    IP_SADDR,
    L4,
    TH_FLAGS,
    TH_SEQ,
    TH_WINDOW,
    TYPE_IP,
)
from skbusd.nic.netdev import NicNet

SYN_BACKLOG: Final = 2048
"""More SYNs than are ever handled in `TARGET`."""
SYN_LEAST: Final = 128
"""A burst that is let up however slow the layers are."""
MARK_EVERY: Final = 64
"""SYNs between two marks."""
TARGET: Final = 100 * MSEC
"""How long the handling of SYNs may take."""
AGAIN: Final = 500 * MSEC
"""A refused SYN that comes after this is a repeated one: hosts wait a second (RFC 6298 2.1)."""
RESERVE: Final = 64
"""How many SYNs may be up beyond the limit, all of them repeated ones."""
REFUSED: Final = 8192
"""So many of the latest refused SYNs are remembered, and up to twice as many."""
FORGET: Final = 2 * SEC
"""If no mark has come back for so long, the marks were lost with a layer."""
FLAGS: Final = 0x3F
"""The flags that a bare SYN may not have, and SYN: not those of ECN."""


_TPID: Final = b"\x81\x00"
"""ETH_P_8021Q"""
_OFFSET_BITS: Final = 0x1F
"""Of the byte at IP_FRAG_OFF: the fragment offset's upper bits. (A first fragment may be a SYN.)"""


def syn_key(net: NicNet, frame: Buffer, size: int) -> bytes:
    """Addresses and ports of a frame that is a SYN for us, b"" for another frame. Other faults of
    the frame are for later layers to find."""
    tag = VLAN_HLEN if bytes(frame[ETH_PROTO:IP]) == _TPID else 0
    if size < tag + IP + IP_HLEN + TH_WINDOW or bytes(frame[tag + ETH_PROTO : tag + IP]) != TYPE_IP:
        return b""
    tcp = tag + IP + ((frame[tag + IP] & 0xF) << 2)
    if (
        frame[tag + IP_PROTOCOL] != IPPROTO_TCP
        or size < tcp + TH_WINDOW
        or frame[tcp + TH_FLAGS] & FLAGS != TCPHDR_SYN
        or frame[tag + IP_FRAG_OFF] & _OFFSET_BITS
        or frame[tag + IP_FRAG_OFF + 1]
        or bytes(frame[:ETH_ALEN]) != net.dev_addr
    ):
        return b""
    return bytes(frame[tag + IP_SADDR : tag + L4]) + bytes(frame[tcp : tcp + TH_SEQ])


def _comes_again(net: NicNet, key: bytes) -> bool:
    """Was this SYN refused a while ago, and has the reserve room? If not, note it as refused."""
    backlog = net.syn_backlog
    refused = backlog.refused
    when = refused.get(key, backlog.refused_before.get(key, net.now))
    if net.now - when >= AGAIN and backlog.sent - backlog.done < backlog.limit + RESERVE:
        return True
    if len(refused) >= REFUSED:
        backlog.refused_before = refused
        refused = backlog.refused = {}
    refused.setdefault(key, when)
    return False


def syn_refused(net: NicNet, key: bytes) -> bool:
    """Is this SYN one too many? Then it is counted as dropped."""
    backlog = net.syn_backlog
    if backlog.sent - backlog.done >= backlog.limit:
        if net.now - backlog.moved >= FORGET:
            syn_forget(net)
        elif not _comes_again(net, key):
            net.mib["DevRxDropped"] += 1
            name = "SKB_DROP_REASON_CPU_BACKLOG"
            net.drops[name] = net.drops.get(name, 0) + 1
            net.skb_born += 1
            net.skb_dropped += 1
            return True
    if backlog.sent == backlog.done:
        backlog.moved = net.now
    backlog.sent += 1
    return False


def syn_mark(net: NicNet) -> None:
    """Send a mark up behind the SYNs that have gone."""
    backlog = net.syn_backlog
    backlog.marked = backlog.sent
    backlog.marks.append((backlog.sent, net.now))
    item = BacklogMark(net.name, IPPROTO_TCP, backlog.sent)
    net.call(net.ip, SynBacklog.backlog_mark, item)
    if net.tracing:
        net.trace("backlog_mark", mark=backlog.sent, done=backlog.done)


def backlog_mark_ret(net: NicNet, item: BacklogMark) -> None:
    """A mark is back: all in front of it has been taken. A mark of an earlier life is ignored."""
    backlog = net.syn_backlog
    marks = backlog.marks
    if not backlog.done < item.mark <= backlog.marked or not marks:
        return
    backlog.done = item.mark
    backlog.moved = net.now
    while marks and marks[0][0] <= item.mark:
        when = marks.popleft()[1]
    took = net.now - when
    if took <= TARGET:
        backlog.limit = min(backlog.limit + MARK_EVERY, SYN_BACKLOG)
    elif item.mark > backlog.shrunk:
        backlog.shrunk = backlog.sent
        share = max(backlog.limit * TARGET // took, backlog.limit // 2)
        backlog.limit = max(share, SYN_LEAST)


def syn_forget(net: NicNet) -> None:
    """Forget the marks and SYNs that are up: a layer died with them."""
    backlog = net.syn_backlog
    backlog.done = backlog.marked = backlog.sent
    backlog.marks.clear()
