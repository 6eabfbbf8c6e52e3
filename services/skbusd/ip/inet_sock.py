# SPDX-License-Identifier: MIT
"""The common part of raw and ping sockets (`net/ipv4/datagram.c`, `net/core/sock.c`).

The socket layer calls these by message; `raw` and `ping` call the rest. A datagram goes up by
`sk_data_ready`, and is charged to the socket's receive buffer until the application has it.
"""

from errno import (
    EACCES,
    EBADF,
    EDESTADDRREQ,
    EINVAL,
    EMSGSIZE,
    ENETUNREACH,
    EOPNOTSUPP,
)
from typing import Final

from skbus.core.abi import (
    Close,
    Connect,
    Connected,
    DataReadyCb,
    Disconnect,
    Recvmsg,
    Redirect,
    UdpSendmsgCb,
    XmitCb,
)
from skbus.core.interfaces import SkCallbacks
from skbus.core.pskb import skb_orphan_frags
from skbus.core.skbuff import SkBuff
from skbus.core.uapi import (
    IP_PMTUDISC_DO,
    IP_PMTUDISC_INTERFACE,
    IP_PMTUDISC_OMIT,
    IP_PMTUDISC_PROBE,
    IP_PMTUDISC_WANT,
    MSG_OOB,
)
from skbus.inet.headers import icmp as icmphdr
from skbus.inet.headers.ipv4 import ipv4_is_multicast
from skbus.inet.ip_sockglue import ip_local_error, ip_options_route
from skbus.inet.transport import (
    SKB_TRUESIZE,
    SOCK_BINDADDR_LOCK,
    SOCK_BINDPORT_LOCK,
    sk_ret,
)
from skbusd.ip import ip_output, route
from skbusd.ip.netns import INADDR_ANY, RTN_BROADCAST, RTN_MULTICAST, InetSock, IpNet, Rtable

MAX_LEN: Final = 0xFFFF

_OUT_COUNTERS: Final = {
    icmphdr.ICMP_ECHOREPLY: "IcmpOutEchoReps",
    icmphdr.ICMP_DEST_UNREACH: "IcmpOutDestUnreachs",
    icmphdr.ICMP_SOURCE_QUENCH: "IcmpOutSrcQuenchs",
    icmphdr.ICMP_REDIRECT: "IcmpOutRedirects",
    icmphdr.ICMP_ECHO: "IcmpOutEchos",
    icmphdr.ICMP_TIME_EXCEEDED: "IcmpOutTimeExcds",
    icmphdr.ICMP_PARAMETERPROB: "IcmpOutParmProbs",
    icmphdr.ICMP_TIMESTAMP: "IcmpOutTimestamps",
    icmphdr.ICMP_TIMESTAMPREPLY: "IcmpOutTimestampReps",
    icmphdr.ICMP_ADDRESS: "IcmpOutAddrMasks",
    icmphdr.ICMP_ADDRESSREPLY: "IcmpOutAddrMaskReps",
}


def icmp_out_count(net: IpNet, type_: int) -> None:
    """An ICMP message of an application."""
    net.mib["IcmpOutMsgs"] += 1
    name = _OUT_COUNTERS.get(type_)
    if name is not None:
        net.mib[name] += 1


# ---- life of a sock ----------------------------------------------------------------------


def sk_hash(net: IpNet, sk: InetSock) -> None:
    """Put a socket where packets find it (`raw_hash_sk`, `ping_get_port`)."""
    table = net.ping_table if sk.ping else net.raw_hash
    if sk.inet_num:
        table.setdefault(sk.inet_num, []).append(sk)


def sk_unhash(net: IpNet, sk: InetSock) -> None:
    """`raw_unhash_sk`, `ping_unhash`"""
    table = net.ping_table if sk.ping else net.raw_hash
    socks = table.get(sk.inet_num)
    if socks is not None and sk in socks:
        socks.remove(sk)
        if not socks:
            del table[sk.inet_num]


def sk_begin(net: IpNet, sk: InetSock) -> None:
    """A socket begins. An older one of its number is forgotten; the new one takes its groups."""
    old = net.inet_socks.get(sk.sk)
    if old is not None:
        sk_release(net, old)
        sk.mc_list = old.mc_list
    net.inet_socks[sk.sk] = sk


def sk_release(net: IpNet, sk: InetSock) -> None:
    """Forget a socket. Its groups are kept in `mcast`, by its number."""
    net.inet_socks.pop(sk.sk, None)
    sk_unhash(net, sk)


def sk_close(net: IpNet, item: Close) -> None:
    """`raw_close`, `ping_close`: close(2)"""
    if net.tracing:
        net.trace("raw_close", sk=item.sk)
    sk = net.inet_socks.get(item.sk)
    if sk is not None:
        sk_release(net, sk)


def sk_status(sk: InetSock) -> dict[str, object]:
    """A line of /proc/net/raw or /proc/net/icmp."""
    return {
        "sk": sk.sk,
        "local": (sk.inet_saddr, sk.inet_num),
        "remote": (sk.inet_daddr, 0),
        "rmem_alloc": sk.sk_rmem_alloc,
        "drops": sk.sk_drops,
    }


# ---- connecting --------------------------------------------------------------------------


def ip4_datagram_connect(net: IpNet, item: Connect) -> None:
    """`__ip4_datagram_connect`: the peer's address from now on, and ours towards it."""
    if net.tracing:
        net.trace("ip4_datagram_connect", sk=item.sk, daddr=item.addr)
    sk = net.inet_socks.get(item.sk)
    if sk is None or len(item.addr) != 4:
        sk_ret(net, item.sk, item.req, EBADF if sk is None else EINVAL)
        return
    rt = sk_route(net, sk, item.addr)
    if isinstance(rt, int):
        sk_ret(net, item.sk, item.req, rt)
        return
    if rt.rt_type == RTN_BROADCAST and not sk.broadcast:
        sk_ret(net, item.sk, item.req, EACCES)
        return
    if sk.inet_saddr == INADDR_ANY:
        sk.inet_saddr = rt.rt_saddr
    if sk.inet_rcv_saddr == INADDR_ANY:
        sk.inet_rcv_saddr = rt.rt_saddr
    sk.inet_daddr = rt.rt_daddr
    sk_ret(net, item.sk, item.req, 0, Connected(sk.inet_saddr, sk.inet_num))


def udp_disconnect(net: IpNet, item: Disconnect) -> None:
    """`__udp_disconnect`, also for raw and ping sockets: no peer any more."""
    sk = net.inet_socks.get(item.sk)
    if sk is None:
        sk_ret(net, item.sk, item.req, EBADF)
        return
    sk.inet_daddr = INADDR_ANY
    if not sk.sk_userlocks & SOCK_BINDADDR_LOCK:
        sk.inet_saddr = sk.inet_rcv_saddr = INADDR_ANY
    if sk.ping and not sk.sk_userlocks & SOCK_BINDPORT_LOCK:
        sk_unhash(net, sk)
        sk.inet_num = 0
    sk_ret(net, item.sk, item.req, 0)


# ---- sending -----------------------------------------------------------------------------


def sk_destination(sk: InetSock, skb: SkBuff, cb: UdpSendmsgCb) -> bytes | int:
    """A datagram's destination, with a source route its first address, or an errno. Its IP options
    are in skb.cb from now on."""
    if skb.len > MAX_LEN:
        return EMSGSIZE
    if cb.flags & MSG_OOB:
        return EOPNOTSUPP
    if cb.addr and len(cb.addr) != 4:
        return EINVAL
    daddr = cb.addr or sk.inet_daddr
    if daddr == INADDR_ANY and not cb.addr:
        return EDESTADDRREQ
    if sk.inet_opt or cb.options:
        if sk.hdrincl:
            return daddr if not cb.options else EINVAL
        daddr, options = ip_options_route(cb.options or sk.inet_opt, daddr)
        skb.cb = cb._replace(options=options)
    return daddr


def sk_cookie(skb: SkBuff) -> UdpSendmsgCb:
    """`struct ipcm_cookie`: how a datagram shall be sent, after `sk_destination`."""
    cb = skb.cb
    assert isinstance(cb, UdpSendmsgCb)
    return cb


def sk_route(
    net: IpNet, sk: InetSock, daddr: bytes, cb: UdpSendmsgCb | None = None
) -> Rtable | int:
    """The route of a socket's datagrams to daddr, or an errno. cb: has IP_PKTINFO's values."""
    oif, saddr = sk.sk_bound_dev_if, sk.inet_saddr
    if cb is not None:
        oif, saddr = cb.oif or oif, cb.saddr or saddr
    if ipv4_is_multicast(daddr):
        oif = oif or sk.mc_index
        if saddr == INADDR_ANY:
            saddr = sk.mc_addr
    oif = oif or sk.uc_index
    rt = route.ip_route_output(net, daddr, b"" if saddr == INADDR_ANY else saddr, oif)
    if isinstance(rt, int) and rt == ENETUNREACH:
        net.mib["IpOutNoRoutes"] += 1
    return rt


def sk_refuse(net: IpNet, skb: SkBuff, cb: UdpSendmsgCb, err: int) -> None:
    """A datagram that cannot be sent."""
    net.kfree_skb(skb, "IP_OUTNOROUTES" if err == ENETUNREACH else "NOT_SPECIFIED", err=err)
    sk_ret(net, cb.sk, cb.req, err)


def ip_dont_fragment(sk: InetSock, length: int, rt: Rtable) -> bool:
    """IP_PMTUDISC_WANT, the default, sets DF on what fits, while the path's MTU is believed."""
    if sk.pmtudisc in (IP_PMTUDISC_DO, IP_PMTUDISC_PROBE):
        return True
    return sk.pmtudisc == IP_PMTUDISC_WANT and length <= rt.mtu and not rt.mtu_locked


def sk_mtu(sk: InetSock, rt: Rtable) -> int:
    """The socket's longest datagram: the path's MTU, or the device's with IP_PMTUDISC_PROBE and
    above (`ip_sk_use_pmtu`)."""
    return rt.mtu if sk.pmtudisc < IP_PMTUDISC_PROBE else rt.dev.mtu


def ipv4_sk_update_pmtu(net: IpNet, sk: InetSock, daddr: bytes, mtu: int) -> None:
    """A packet of this socket was too long, says ICMP (`ip_sk_accept_pmtu`)."""
    if sk.pmtudisc not in (IP_PMTUDISC_INTERFACE, IP_PMTUDISC_OMIT):
        route.ip_rt_update_pmtu(net, daddr, mtu)


def sk_xmit_cb(
    net: IpNet, sk: InetSock, rt: Rtable, cb: UdpSendmsgCb, protocol: int, length: int
) -> XmitCb:
    """The values for the IP header of a socket's datagram of `length` bytes."""
    multicast = ipv4_is_multicast(rt.rt_daddr)
    ttl = cb.ttl or ((sk.mc_ttl or -1) if multicast else max(sk.uc_ttl, 0))
    return XmitCb(
        rt.rt_saddr,
        rt.rt_daddr,
        protocol,
        (cb.tos if cb.tos >= 0 else sk.tos) & 0xFF,
        ttl if ttl <= 255 else 0,
        ip_dont_fragment(sk, length + 20 + len(cb.options), rt),
        cb.oif or sk.sk_bound_dev_if,
        cb.options,
        sk.mc_loop,
        pmtudisc=sk.pmtudisc,
    )


def ip_push_pending_frames(
    net: IpNet, sk: InetSock, skb: SkBuff, rt: Rtable, cb: UdpSendmsgCb, protocol: int
) -> int:
    """Put the IP header in front of a datagram and send it. Returns an errno, 0 for success."""
    length = skb.len + 20 + len(cb.options)
    never = (IP_PMTUDISC_DO, IP_PMTUDISC_PROBE, IP_PMTUDISC_INTERFACE)
    mtu = sk_mtu(sk, rt)
    if length > MAX_LEN or (length > mtu and sk.pmtudisc in never):
        if sk.recverr:
            ip_local_error(net, sk.sk, EMSGSIZE, rt.rt_daddr, 0, mtu - len(cb.options))
        return EMSGSIZE
    xmit = sk_xmit_cb(net, sk, rt, cb, protocol, skb.len)
    skb.cb = xmit
    skb.mac_header = skb.network_header = -1
    ip_output.ip_build_and_send_pkt(net, skb, rt, xmit)
    return 0


def ipv4_sk_redirect(
    net: IpNet, daddr: bytes, hdr: icmphdr.IcmpHdr, old_gw: bytes, dif: int
) -> None:
    """A gateway names a nearer one for packets of a socket."""
    route.ipv4_redirect(net, Redirect(daddr, hdr.gateway, old_gw, dif))


# ---- receiving ---------------------------------------------------------------------------


def sock_queue_rcv_skb(net: IpNet, sk: InetSock, skb: SkBuff, saddr: bytes, daddr: bytes) -> None:
    """Queue one datagram, now the socket's own, if there is room in its receive buffer."""
    size = skb.len + SKB_TRUESIZE
    if net.tracing:
        net.trace("sock_queue_rcv_skb", skb, sk=sk.sk, rmem=sk.sk_rmem_alloc)
    if sk.sk_rmem_alloc and sk.sk_rmem_alloc + size > sk.sk_rcvbuf:
        sk.sk_drops += 1
        net.kfree_skb(skb, "SOCKET_RCVBUFF", sk=sk.sk)
        return
    if not skb_orphan_frags(net, skb):
        net.kfree_skb(skb, "SKBUS_STALE_PLACE")
        return
    sk.sk_rmem_alloc += size
    spec_dst = b"" if daddr in net.local_addrs else fib_compute_spec_dst(net, skb.skb_iif, daddr)
    cb = DataReadyCb(sk.sk, saddr, 0, daddr, 0, skb.skb_iif, 0, sk.sk_drops, spec_dst)
    net.call_skb("socket", SkCallbacks.sk_data_ready, skb, cb)


def fib_compute_spec_dst(net: IpNet, ifindex: int, daddr: bytes) -> bytes:
    """The address of ours from which to answer a multicast or broadcast: one of the device that
    received it. b'' where daddr itself will do."""
    if route.inet_addr_type(net, daddr) not in (RTN_BROADCAST, RTN_MULTICAST):
        return b""
    dev = net.dev_by_index.get(ifindex)
    return dev.ifa_list[0].ifa_local if dev is not None and dev.ifa_list else b""


def sk_recvmsg(net: IpNet, item: Recvmsg) -> None:
    """The application took one datagram of `copied` bytes (`sock_rfree`)."""
    sk = net.inet_socks.get(item.sk)
    if sk is not None:
        sk.sk_rmem_alloc = max(0, sk.sk_rmem_alloc - item.copied - SKB_TRUESIZE)
