# SPDX-License-Identifier: MIT
"""RDM itself: a message is sent again until it is acknowledged, and delivered once, in order.

    socket --sendmsg--> rdm_sendmsg -> rdm_xmit --ip_queue_xmit--> ip
    ip --handler--> rdm_rcv --sk_data_ready--> socket;  --ip_queue_xmit (ACK)--> ip

An application's send returns when the peer has the message, or cannot get it: ECONNREFUSED,
ETIMEDOUT, or the error of ICMP or the route. A receiver without room does not acknowledge, so that
the sender tries again later.
"""

import errno
from typing import Final

from skbus.core.abi import (
    Close,
    ErrHandler,
    InetdevEvent,
    IpRouteOutputKey,
    RcvCb,
    RouteRet,
    RtCacheFlush,
    XmitCb,
)
from skbus.core.interfaces import Ip
from skbus.core.net import MSEC
from skbus.core.pool import PoolError
from skbus.core.pskb import pskb_may_pull
from skbus.core.skbuff import SkBuff
from skbus.core.timer import Timer
from skbus.inet import dgram, transport
from skbus.inet.headers.icmp import ICMP_DEST_UNREACH
from skbus.inet.ip_sockglue import ICMP_ERR_CONVERT
from skbus.inet.transport import INADDR_ANY, sk_ret
from skbus_rdm.netns import Out, Peer, RdmNet
from skbus_rdm.wire import (
    ACK,
    DATA,
    HLEN,
    IPPROTO_RDM,
    RST,
    RdmHdr,
    build,
    good,
    parse,
)

RTO: Final = 200 * MSEC
"""The time until a message is sent again; doubled each time."""
TRIES: Final = 7
MAX_QUEUE: Final = 64
"""Messages that wait for one peer."""
MAX_HEARD: Final = 4096


def rdm_close(net: RdmNet, item: Close) -> None:
    """The socket is gone, and its unsent messages with it."""
    sk = net.socks.get(item.sk)
    dgram.close(net, item)
    if sk is not None:
        for key in [key for key in net.out if key[0] == sk.inet_num]:
            rdm_reset(net, net.out[key], errno.EBADF)


# ---- sending -----------------------------------------------------------------------------------


def rdm_sendmsg(net: RdmNet, skb: SkBuff) -> None:
    """Queue one message behind those for its peer."""
    found = dgram.sk_destination(net, skb, HLEN)
    if found is None:
        return
    sk, cb, daddr, dport = found
    if net.tracing:
        net.trace("rdm_sendmsg", skb, sk=cb.sk, len=skb.len)
    try:
        message = net.skb_bytes(skb)
    except PoolError:
        net.kfree_skb(skb, "SKBUS_STALE_PLACE")
        sk_ret(net, cb.sk, cb.req, errno.EIO)
        return
    net.consume_skb(skb)
    key = (sk.inet_num, daddr, dport)
    out = net.out.get(key)
    if out is None:
        out = net.out[key] = Out(key, net.get_random_u32())
    if len(out.queue) >= MAX_QUEUE:
        sk_ret(net, cb.sk, cb.req, errno.ENOBUFS)
        return
    out.queue.append((cb, message))
    if len(out.queue) == 1:
        _begin(net, out)


def _begin(net: RdmNet, out: Out) -> None:
    """Send the first message of the queue, when the route is known."""
    out.tries = 0
    if out.saddr:
        rdm_xmit(net, out)
        return
    net.next_req += 1
    net.routes[net.next_req] = out.key
    sk = net.ports[out.key[0]]
    saddr = b"" if sk.inet_saddr == INADDR_ANY else sk.inet_saddr
    item = IpRouteOutputKey(net.next_req, net.name, out.key[1], saddr, 0, 0)
    net.call("ip", Ip.ip_route_output_key, item)
    _arm(net, out)  # ip may be away


def ip_route_output_ret(net: RdmNet, item: RouteRet) -> None:
    """ip knows the way, or that there is none."""
    key = net.routes.pop(item.req, None)
    out = net.out.get(key) if key is not None else None
    if out is None or out.saddr or not out.queue:
        return
    if item.err or len(item.saddr) != 4:
        rdm_reset(net, out, item.err or errno.EHOSTUNREACH)
        return
    out.saddr = item.saddr
    rdm_xmit(net, out)


def rdm_xmit(net: RdmNet, out: Out) -> None:
    """Send the first message of the queue, once more if need be."""
    port, daddr, dport = out.key
    _, message = out.queue[0]
    hdr = RdmHdr(port, dport, DATA, 0, 0, out.assoc, out.seq)
    net.counters["RetransMsgs" if out.tries else "OutMsgs"] += 1
    _send(net, out.saddr, daddr, hdr, message)
    _arm(net, out)


def _send(net: RdmNet, saddr: bytes, daddr: bytes, hdr: RdmHdr, message: bytes = b"") -> None:
    xmit = XmitCb(saddr, daddr, IPPROTO_RDM, 0, 0, False, 0, b"")
    skb = net.alloc_skb(build(saddr, daddr, hdr, message), cb=xmit)
    if net.tracing:
        net.trace("rdm_xmit", skb, type=hdr.type, assoc=hdr.assoc, seq=hdr.seq, len=len(message))
    net.call_skb("ip", Ip.ip_queue_xmit, skb, xmit)


def _arm(net: RdmNet, out: Out) -> None:
    if out.timer is None:
        out.timer = Timer(rdm_timer, out.key)
    net.mod_timer(out.timer, net.now + (RTO << out.tries))


def rdm_timer(net: RdmNet, key: Peer) -> None:
    """No answer in time."""
    out = net.out.get(key)
    if out is None or not out.queue:
        return
    out.tries += 1
    if out.tries >= TRIES:
        net.counters["TimedOut"] += 1
        rdm_reset(net, out, errno.ETIMEDOUT)
    elif out.saddr:
        rdm_xmit(net, out)
    else:
        _begin_again(net, out)


def _begin_again(net: RdmNet, out: Out) -> None:
    tries = out.tries
    _begin(net, out)
    out.tries = tries


def rdm_reset(net: RdmNet, out: Out, err: int) -> None:
    """An association is over: tell the waiting senders why."""
    if out.timer is not None:
        net.del_timer(out.timer)
    net.out.pop(out.key, None)
    while out.queue:
        cb, _ = out.queue.popleft()
        sk_ret(net, cb.sk, cb.req, err)


# ---- receiving ---------------------------------------------------------------------------------


def rdm_rcv(net: RdmNet, skb: SkBuff) -> None:
    """A packet of protocol 253, `data` at our header."""
    cb = skb.cb
    assert isinstance(cb, RcvCb)
    if len(cb.saddr) != 4 or len(cb.daddr) != 4:
        net.kfree_skb(skb, "SKBUS_BAD_MESSAGE")
        return
    try:
        segment = net.skb_bytes(skb)
    except PoolError:
        net.kfree_skb(skb, "SKBUS_STALE_PLACE")
        return
    if len(segment) < HLEN or not good(cb.saddr, cb.daddr, segment):
        net.counters["InErrors"] += 1
        net.kfree_skb(skb, "SKB_CSUM" if len(segment) >= HLEN else "PKT_TOO_SMALL")
        return
    hdr = parse(segment)
    if net.tracing:
        net.trace("rdm_rcv", skb, type=hdr.type, assoc=hdr.assoc, seq=hdr.seq, len=len(segment))
    if hdr.type == DATA:
        rdm_data(net, skb, cb, hdr)
        return
    out = net.out.get((hdr.dest, cb.saddr, hdr.source))
    if out is not None and out.queue and (out.assoc, out.seq) == (hdr.assoc, hdr.seq):
        if hdr.type == ACK:
            rdm_ack(net, out)
        elif hdr.type == RST:
            rdm_reset(net, out, errno.ECONNREFUSED)
    net.consume_skb(skb)


def rdm_ack(net: RdmNet, out: Out) -> None:
    """The peer has the message: its sender goes on, and the next message is sent."""
    sent, _ = out.queue.popleft()
    sk_ret(net, sent.sk, sent.req, 0)
    out.seq = (out.seq + 1) & 0xFFFFFFFF
    if out.timer is not None:
        net.del_timer(out.timer)
    if out.queue:
        _begin(net, out)


def rdm_data(net: RdmNet, skb: SkBuff, cb: RcvCb, hdr: RdmHdr) -> None:
    """Deliver a message unless that has been done already, and acknowledge it."""
    answer = RdmHdr(hdr.dest, hdr.source, ACK, 0, 0, hdr.assoc, hdr.seq)
    sk = dgram.lookup(net, cb.saddr, hdr.source, cb.daddr, hdr.dest)
    if sk is None:
        net.counters["NoPorts"] += 1
        _send(net, cb.daddr, cb.saddr, answer._replace(type=RST))
        net.kfree_skb(skb, "NO_SOCKET", dport=hdr.dest)
        return
    key = (hdr.dest, cb.saddr, hdr.source)
    assoc, expected = net.heard.get(key, (-1, 0))
    if assoc == hdr.assoc and hdr.seq != expected:
        net.counters["InDups"] += 1
        _send(net, cb.daddr, cb.saddr, answer)
        net.consume_skb(skb)
        return
    if not pskb_may_pull(net, skb, HLEN):
        net.kfree_skb(skb, "SKBUS_STALE_PLACE")
        return
    skb.data += HLEN
    if not dgram.sock_queue_rcv_skb(net, sk, skb, cb, hdr.source):
        return
    if len(net.heard) >= MAX_HEARD:
        del net.heard[next(iter(net.heard))]
    net.heard[key] = (hdr.assoc, (hdr.seq + 1) & 0xFFFFFFFF)
    net.counters["InMsgs"] += 1
    _send(net, cb.daddr, cb.saddr, answer)


# ---- messages of ip ------------------------------------------------------------------------------


def rdm_err(net: RdmNet, item: ErrHandler) -> None:
    """ICMP about a packet of ours: a hard error is told to the packet's sender."""
    if (
        len(item.payload) < 4
        or item.type != ICMP_DEST_UNREACH
        or item.code >= len(ICMP_ERR_CONVERT)
    ):
        return
    source = int.from_bytes(item.payload[:2], "big")
    dest = int.from_bytes(item.payload[2:4], "big")
    out = net.out.get((source, item.daddr, dest))
    err, hard = ICMP_ERR_CONVERT[item.code]
    if net.tracing:
        net.trace("rdm_err", type=item.type, code=item.code, found=out is not None)
    if out is not None and hard:
        rdm_reset(net, out, err)


def inetdev_event(net: RdmNet, item: InetdevEvent) -> None:
    """An address came or went: routes are asked for anew."""
    transport.inetdev_event(net, item)
    for out in net.out.values():
        out.saddr = out.saddr if out.queue else b""


def rt_cache_flush(net: RdmNet, item: RtCacheFlush) -> None:
    """Routes changed: they are asked for anew, from the next message on."""
    for out in net.out.values():
        out.saddr = out.saddr if out.queue else b""
