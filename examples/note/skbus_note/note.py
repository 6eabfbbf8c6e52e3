# SPDX-License-Identifier: MIT
"""Notes, a transport on one page: ports and a checksum, and nothing else.

     0       2       4       6
    +-------+-------+-------+----------
    | source| dest  | check | the note        all of it summed as in ICMP (RFC 1071)
    +-------+-------+-------+----------

    socket --sendmsg--> note_sendmsg --ip_send_skb--> ip
    ip --handler--> note_rcv --sk_data_ready--> socket

The IP protocol is 254, the second of the two that RFC 3692 keeps for experiments. Sockets, ports,
options, groups, buffers and errors are `skbus.inet.dgram`'s. A note may be lost, doubled or out of
order, as in UDP. A note for an unused port is answered by ICMP.
"""

import struct
from typing import Final

from skbus.core.abi import ErrHandler, IcmpSendCb, RcvCb
from skbus.core.checksum import csum_fold, csum_partial
from skbus.core.interfaces import Ip
from skbus.core.pool import PoolError
from skbus.core.pskb import pskb_may_pull, skb_checksum
from skbus.core.skbuff import SkBuff
from skbus.inet import dgram
from skbus.inet.headers.icmp import ICMP_DEST_UNREACH, ICMP_PORT_UNREACH

IPPROTO_NOTE: Final = 254
HEADER: Final = struct.Struct("!HHH")
COUNTERS: Final = ("InNotes", "OutNotes", "InErrors", "NoPorts")


def note_sendmsg(net: dgram.DgramNet, skb: SkBuff) -> None:
    """Put the header in front of an application's note, and hand it down to ip."""
    found = dgram.sk_destination(net, skb, HEADER.size)
    if found is None:
        return
    sk, cb, daddr, dport = found
    try:
        note = net.skb_bytes(skb)
    except PoolError:
        net.kfree_skb(skb, "SKBUS_STALE_PLACE")
        return
    check = csum_fold(csum_partial(note, sk.inet_num + dport))
    net.counters["OutNotes"] += 1
    header = HEADER.pack(sk.inet_num, dport, check)
    to = dgram.xmit_cb(sk, cb, daddr, IPPROTO_NOTE)
    dgram.ip_send_datagram(net, sk, skb, cb, header, to)


def note_rcv(net: dgram.DgramNet, skb: SkBuff) -> None:
    """A packet of protocol 254, `data` at our header."""
    cb = skb.cb
    assert isinstance(cb, RcvCb)
    good = pskb_may_pull(net, skb, HEADER.size)
    total = skb_checksum(net, skb, skb.data) if good else None
    if total is None or total % 0xFFFF:
        net.counters["InErrors"] += 1
        net.kfree_skb(skb, "SKB_CSUM" if good else "PKT_TOO_SMALL")
        return
    sport, dport, _ = HEADER.unpack_from(skb.head, skb.data)
    sk = dgram.lookup(net, cb.saddr, sport, cb.daddr, dport)
    if sk is None:
        net.counters["NoPorts"] += 1
        quoted = net.skb_clone(skb)
        quoted.frags, quoted.data_len = (), 0
        unreachable = IcmpSendCb(ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, 0)
        net.call_skb("ip", Ip.icmp_send, quoted, unreachable)
        net.kfree_skb(skb, "NO_SOCKET")
        return
    skb.data += HEADER.size
    if dgram.sock_queue_rcv_skb(net, sk, skb, cb, sport):
        net.counters["InNotes"] += 1


def note_err(net: dgram.DgramNet, item: ErrHandler) -> None:
    """ICMP about a note of ours: tell the socket that sent it."""
    if len(item.payload) < HEADER.size:
        return
    sport, dport, _ = HEADER.unpack_from(item.payload)
    sk = dgram.lookup(net, item.daddr, dport, item.saddr, sport)
    if sk is not None:
        dgram.icmp_report(net, sk, item, dport, item.payload[HEADER.size :])


SERVES: Final = dgram.serve_dgram(note_rcv, note_err, note_sendmsg)


def note_net(name: str = "note", **arguments: object) -> dgram.DgramNet:
    """The process's state."""
    return dgram.DgramNet(name, counters=COUNTERS, **arguments)


def note_core(net: dgram.DgramNet) -> dgram.DgramCore:
    """The process without I/O."""
    return dgram.DgramCore(net, SERVES, IPPROTO_NOTE)
