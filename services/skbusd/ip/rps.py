# SPDX-License-Identifier: MIT
"""Receive packet steering (`get_rps_cpu`, `enqueue_to_backlog` of `net/core/dev.c`): the hash of a
packet's flow chooses among the processes that share a protocol (`skbus.inet.rps`).

ip_input.py calls it behind reassembly, since fragments have no ports; icmp.py calls it with the
flow of the packet that an error quotes. protocol.py has the processes register.

Differs from Linux: there steering happens before IP looks at the packet, and fragments are hashed
by addresses alone.
"""

from typing import Final

from skbus.core.abi import BacklogMark, RcvCb
from skbus.core.interfaces import SynBacklog
from skbus.core.pskb import pskb_may_pull
from skbus.core.skbuff import SKB_GSO_BATCH, SkBuff
from skbus.inet.headers.ipv4 import IpHdr
from skbus.inet.rps import flow_hash, reciprocal_scale, tcp_processes
from skbusd.ip.netns import IPPROTO_TCP, InetProtocol, IpNet, Rtable

_PORTS: Final = 4


def get_rps_cpu(net: IpNet, skb: SkBuff, iph: IpHdr, proto: InetProtocol) -> str:
    """The process for a packet with `data` at the transport header; "" where it is away. A packet
    without ports is for the first process, which counts it as bad."""
    data = skb.data
    if len(skb.head) - data < _PORTS and not pskb_may_pull(net, skb, _PORTS):
        return proto.shards[0]
    key = net.config.rss_key
    skb.hash = flow_hash(iph.saddr + iph.daddr + skb.head[data : data + _PORTS], key)
    return proto.shards[reciprocal_scale(skb.hash, len(proto.shards))]


def get_rps_cpu_err(net: IpNet, inner: IpHdr, payload: bytes, proto: InetProtocol) -> str:
    """The process for an ICMP error about a packet that we sent: that of the packet's flow, hashed
    in the direction that comes in."""
    flow = inner.daddr + inner.saddr + payload[2:4] + payload[:2]
    hash_ = flow_hash(flow, net.config.rss_key)
    return proto.shards[reciprocal_scale(hash_, len(proto.shards))]


def enqueue_to_backlog(
    net: IpNet, skb: SkBuff, iph: IpHdr, rt: Rtable, proto: InetProtocol
) -> None:
    """Hand a packet to the process of its flow; drop it, without ICMP, while that is away."""
    process = get_rps_cpu(net, skb, iph, proto)
    if net.tracing:
        net.trace("get_rps_cpu", skb, hash=skb.hash, process=process)
    if not process:
        net.mib["IpInDiscards"] += 1
        net.kfree_skb(skb, "SKBUS_NO_PEER")
        return
    net.mib["IpInDelivers"] += skb.gso_segs if skb.gso_type & SKB_GSO_BATCH else 1
    cb = RcvCb(iph.saddr, iph.daddr, iph.tos, iph.ttl, rt.peer_mtu)
    net.call_skb(process, proto.handler, skb, cb)


# ---- marks on their way up ---------------------------------------------------------------


def backlog_mark(net: IpNet, item: BacklogMark) -> None:
    """A nic's mark behind packets of a protocol goes on to all processes that share the protocol,
    and back when all have answered. Where no process has the protocol, it goes back at once."""
    proto = net.inet_protos.get(item.protocol)
    shards = (proto.shards or (proto.process,)) if proto is not None else ()
    there = [process for process in shards if process]
    if not there:
        net.call(item.process, SynBacklog.backlog_mark_ret, item)
        return
    net.backlog_marks[item.process, item.mark] = len(there)
    for process in there:
        net.call(process, SynBacklog.backlog_mark, item)


def backlog_mark_ret(net: IpNet, item: BacklogMark) -> None:
    """A transport has taken all in front of a mark."""
    key = (item.process, item.mark)
    left = net.backlog_marks.get(key, 0) - 1
    if left > 0:
        net.backlog_marks[key] = left
    elif not left:
        del net.backlog_marks[key]
        net.call(item.process, SynBacklog.backlog_mark_ret, item)


def backlog_mark_forget(net: IpNet) -> None:
    """A neighbour was started anew: its marks are lost, with the packets in front of them."""
    for process, mark in net.backlog_marks:
        net.call(process, SynBacklog.backlog_mark_ret, BacklogMark(process, IPPROTO_TCP, mark))
    net.backlog_marks.clear()


def rps_add(
    net: IpNet, protocol: int, proto: InetProtocol, have: InetProtocol | None
) -> InetProtocol:
    """`proto` registers: where it is one of several, the others stay registered."""
    names = tcp_processes(net.config.tcp_shards)
    if protocol != IPPROTO_TCP or len(names) == 1 or proto.process not in names:
        return proto
    shards = have.shards if have is not None and have.shards else ("",) * len(names)
    here = tuple(
        x if x in (old, proto.process) else "" for x, old in zip(names, shards, strict=True)
    )
    return proto._replace(shards=here)


def rps_owner(net: IpNet, have: InetProtocol, process: str) -> bool:
    """Is `process` the one that has the protocol, or one of those that share it?"""
    if have.shards:
        return process in tcp_processes(net.config.tcp_shards)
    return process == have.process


def rps_del(have: InetProtocol, process: str) -> InetProtocol | None:
    """`process` is gone for good; None where it was the last."""
    left = tuple("" if x == process else x for x in have.shards)
    if not any(left):
        return None
    return have._replace(process=next(filter(None, left)), shards=left)
