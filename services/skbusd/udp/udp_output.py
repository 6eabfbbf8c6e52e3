# SPDX-License-Identifier: MIT
"""Sending (`udp_sendmsg`, `udp_send_skb` of `net/ipv4/udp.c`).

    socket -> udp_sendmsg (-> ip_route_output_flow) -> udp_send_skb -> ip: ip_send_skb

RFC 768; RFC 1122 4.1.3. The payload's slots go with the skb, and nic gives them back.
"""

import struct
from errno import (
    EACCES,
    EBADF,
    EDESTADDRREQ,
    EFAULT,
    EINVAL,
    EIO,
    EMSGSIZE,
    ENOBUFS,
    EOPNOTSUPP,
    EPIPE,
)
from typing import Final

from skbus.core.abi import SkWriteSpace, UdpSendmsgCb, XmitCb
from skbus.core.checksum import csum_tcpudp_nofold
from skbus.core.dropreason import SkbDropReason
from skbus.core.interfaces import Ip, SkCallbacks
from skbus.core.pool import PoolError
from skbus.core.skbuff import (
    CHECKSUM_NONE,
    CHECKSUM_PARTIAL,
    SKB_GSO_BATCH,
    SKB_GSO_TCP_FIXEDID,
    SKB_GSO_UDP_L4,
    SkBuff,
)
from skbus.core.uapi import (
    IP_PMTUDISC_DO,
    IP_PMTUDISC_INTERFACE,
    IP_PMTUDISC_PROBE,
    IP_PMTUDISC_WANT,
    MSG_OOB,
    SEND_SHUTDOWN,
)
from skbus.inet.headers.ipv4 import ipv4_is_multicast
from skbus.inet.headers.udp import CSUM_OFFSET, UDP_HLEN
from skbus.inet.ip_sockglue import ip_local_error, ip_options_route
from skbus.inet.transport import INADDR_ANY, SKB_TRUESIZE, sk_error_report, sk_ret
from skbusd.udp import datagram, route, table, udplite
from skbusd.udp.netns import (
    IP_HLEN,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
    RTN_BROADCAST,
    Dst,
    UdpNet,
    UdpSock,
    Waiter,
)

UDP_MAX: Final = 65535 - IP_HLEN - UDP_HLEN
UDP_MAX_SEGMENTS: Final = 128
_UDP: Final = struct.Struct("!HHHH")
_NEVER_FRAGMENT: Final = (IP_PMTUDISC_DO, IP_PMTUDISC_PROBE, IP_PMTUDISC_INTERFACE)
"""Not `ip_sk_ignore_df`: datagrams longer than the MTU are refused."""


def udp_sendmsg(net: UdpNet, skb: SkBuff) -> None:
    """One datagram of an application: where to, from where, and is it allowed?"""
    cb = skb.cb
    assert isinstance(cb, UdpSendmsgCb)
    if net.tracing:
        net.trace("udp_sendmsg", skb, sk=cb.sk, len=skb.len)
    sk = net.socks.get(cb.sk)
    if skb.gso_type & SKB_GSO_BATCH and (sk is None or not udp_batch_fits(net, sk, skb, cb)):
        for single in udp_split(net, skb):
            udp_sendmsg(net, single)
        return
    if sk is None:
        _refuse(net, skb, cb, EBADF)
        return
    daddr = cb.addr
    dport = cb.port
    err = 0
    if not daddr:
        daddr = sk.inet_daddr
        dport = sk.inet_dport
        if daddr == INADDR_ANY:
            err = EDESTADDRREQ
    elif len(daddr) != 4 or not 0 < dport <= 65535:
        err = EINVAL
    if len(skb.head) - skb.data + skb.data_len > UDP_MAX:
        err = EMSGSIZE
    elif cb.flags & MSG_OOB:
        err = EOPNOTSUPP
    elif sk.sk_shutdown & SEND_SHUTDOWN:
        err = EPIPE
    elif not err and not sk.inet_num:
        err = table.inet_autobind(net, sk)
    if err:
        _refuse(net, skb, cb, err)
        return
    if sk.inet_opt or cb.options:
        daddr, options = ip_options_route(cb.options or sk.inet_opt, daddr)
        skb.cb = cb = cb._replace(options=options)
    key = datagram.route_key(sk, daddr, cb.saddr, cb.oif)
    dst = net.dst_cache.get(key)
    if dst is None or dst.expires <= net.now:
        tos = cb.tos if cb.tos >= 0 else sk.tos
        waiter = Waiter(udp_sendmsg_route, skb, dport)
        if route.ip_route_output_flow(net, key, tos, waiter):
            net.mib["UdpSndbufErrors"] += 1
            _refuse(net, skb, cb, ENOBUFS)
        return
    udp_send_skb(net, sk, skb, dst, dport, cb)


def udp_sendmsg_route(net: UdpNet, waiter: Waiter, err: int, dst: Dst | None) -> None:
    """The route is known, or there is none: go on with a datagram that waited."""
    skb = waiter.skb
    assert skb is not None
    cb = skb.cb
    assert isinstance(cb, UdpSendmsgCb)
    sk = net.socks.get(cb.sk)
    if sk is None:
        _refuse(net, skb, cb, EBADF)
    elif err or dst is None:
        _refuse(net, skb, cb, err, "IP_OUTNOROUTES")
    else:
        udp_send_skb(net, sk, skb, dst, waiter.dport, cb)


def _refuse(
    net: UdpNet, skb: SkBuff, cb: UdpSendmsgCb, err: int, reason: SkbDropReason = "NOT_SPECIFIED"
) -> None:
    if net.tracing:
        net.trace("udp_sendmsg", skb, sk=cb.sk, err=err)
    net.kfree_skb(skb, reason, err=err)
    if cb.req:
        sk_ret(net, cb.sk, cb.req, err)
    else:
        sk_error_report(net, cb.sk, err)
        sock_wfree(net, cb.sk, skb.len + SKB_TRUESIZE)


def sock_wfree(net: UdpNet, sk: int, size: int) -> None:
    """Posted bytes have gone; the socket layer hears of it at the end of this batch."""
    net.wspace[sk] = net.wspace.get(sk, 0) + size


def udp_write_space(net: UdpNet) -> None:
    """`sock_def_write_space`, once a batch and socket."""
    wspace, net.wspace = net.wspace, {}
    for sk, size in wspace.items():
        net.call("socket", SkCallbacks.sk_write_space, SkWriteSpace(sk, size, 0))


# ---- many datagrams as one ---------------------------------------------------------------


def udp_batch_fits(net: UdpNet, sk: UdpSock, skb: SkBuff, cb: UdpSendmsgCb) -> bool:
    """Can all datagrams of a batch go as one skb? Only where each would go the plain way: by a
    known route that is neither a broadcast's nor a multicast's, whole, with a checksum. Special or
    wrong datagrams are handled one by one."""
    daddr = cb.addr or sk.inet_daddr
    if (
        sk.protocol != IPPROTO_UDP
        or sk.no_check
        or sk.gso_size
        or sk.inet_opt
        or not sk.inet_num
        or sk.sk_shutdown & SEND_SHUTDOWN
        or ipv4_is_multicast(daddr)
    ):
        return False
    dst = net.dst_cache.get(datagram.route_key(sk, daddr))
    return (
        dst is not None
        and dst.expires > net.now
        and dst.rt_type != RTN_BROADCAST
        and skb.gso_size + UDP_HLEN + IP_HLEN <= dst.mtu
    )


def udp_split(net: UdpNet, skb: SkBuff) -> list[SkBuff]:
    """The datagrams of a batch, one by one; they share no slot, as each may end at another time."""
    try:
        data = net.skb_bytes(skb)
    except PoolError:
        cb = skb.cb
        assert isinstance(cb, UdpSendmsgCb)
        sock_wfree(net, cb.sk, skb.len + skb.gso_segs * SKB_TRUESIZE)
        net.kfree_skb(skb, "SKBUS_STALE_PLACE")
        return []
    out = []
    for at in range(0, len(data), skb.gso_size):
        single = net.skb_clone(skb)
        single.head = data[at : at + skb.gso_size]
        single.frags = ()
        single.data = single.data_len = single.gso_size = single.gso_segs = single.gso_type = 0
        single.lent = False
        out.append(single)
    net.consume_skb(skb)
    return out


# ---- to ip -------------------------------------------------------------------------------


def _dont_fragment(sk: UdpSock, length: int, mtu: int) -> bool:
    """`ip_dont_fragment`: IP_PMTUDISC_WANT, the default, sets DF on what fits."""
    mode = sk.pmtudisc
    if mode in (IP_PMTUDISC_DO, IP_PMTUDISC_PROBE):
        return True
    return mode == IP_PMTUDISC_WANT and length <= mtu


def _sk_mtu(net: UdpNet, sk: UdpSock, dst: Dst) -> int:
    """The socket's longest datagram: the path's MTU, or the device's with IP_PMTUDISC_PROBE and
    above (`ip_sk_use_pmtu`)."""
    if sk.pmtudisc >= IP_PMTUDISC_PROBE:
        for dev in net.addrs.values():
            if dev.ifindex == dst.oif:
                return dev.mtu
    return dst.mtu


def _udp_gso(sk: UdpSock, skb: SkBuff, gso_size: int, size: int, mtu: int) -> int:
    """UDP_SEGMENT: one skb that stands for many datagrams. Returns an errno, 0 for success."""
    if gso_size + UDP_HLEN + IP_HLEN > mtu:
        return EINVAL
    if size > gso_size * UDP_MAX_SEGMENTS:
        return EINVAL
    if sk.no_check:
        return EIO
    skb.gso_size = gso_size
    skb.gso_segs = -(-size // gso_size)
    skb.gso_type = SKB_GSO_UDP_L4
    return 0


def udp_send_skb(
    net: UdpNet, sk: UdpSock, skb: SkBuff, dst: Dst, dport: int, cb: UdpSendmsgCb
) -> None:
    """Put the UDP header in front, and hand the datagram to ip.

    The checksum is left to the device, with the pseudo-header's sum in its field. ip fills it in
    where the datagram must be cut. Every datagram has one (RFC 1122 4.1.3.4).
    """
    size = len(skb.head) - skb.data + skb.data_len
    length = size + UDP_HLEN
    mtu = dst.mtu if sk.pmtudisc < IP_PMTUDISC_PROBE else _sk_mtu(net, sk, dst)
    gso_size = sk.gso_size if cb.gso_size < 0 else cb.gso_size
    err = 0
    if dst.rt_type == RTN_BROADCAST and not sk.broadcast:
        err = EACCES
    elif skb.gso_type & SKB_GSO_BATCH:
        pass  # udp_batch_fits has looked
    elif 0 < gso_size < size:
        err = _udp_gso(sk, skb, gso_size, size, mtu)
    elif length + IP_HLEN + len(cb.options) > mtu and sk.pmtudisc in _NEVER_FRAGMENT:
        err = EMSGSIZE
        if sk.recverr:
            ip_local_error(net, sk.sk, err, dst.daddr, dport, mtu - len(cb.options))
    if err:
        _refuse(net, skb, cb, err)
        return
    saddr = cb.saddr or (sk.inet_saddr if sk.inet_saddr != INADDR_ANY else dst.saddr)
    if sk.protocol == IPPROTO_UDPLITE:
        _udplite_send_skb(net, sk, skb, dst, saddr, dport, cb)
        return
    if sk.no_check:
        check = 0
        skb.ip_summed = CHECKSUM_NONE
    else:
        check = csum_tcpudp_nofold(saddr, dst.daddr, length, IPPROTO_UDP)
        skb.ip_summed = CHECKSUM_PARTIAL
    head = skb.head
    skb.head = _UDP.pack(sk.inet_num, dport, length, check) + (
        head[skb.data :] if skb.data else head
    )
    skb.data = skb.transport_header = 0
    skb.network_header = skb.mac_header = -1
    if skb.ip_summed:
        skb.csum_start = 0
        skb.csum_offset = CSUM_OFFSET
    _ip_send_skb(net, sk, skb, dst, saddr, dport, cb, length)


def _udplite_send_skb(
    net: UdpNet, sk: UdpSock, skb: SkBuff, dst: Dst, saddr: bytes, dport: int, cb: UdpSendmsgCb
) -> None:
    """The same for UDP-Lite, whose checksum covers as much as the socket has set."""
    if sk.gso_size or cb.gso_size > 0:
        _refuse(net, skb, cb, EINVAL)
        return
    length = skb.len + UDP_HLEN
    if not udplite.udplite_csum(net, sk, skb, saddr, dst.daddr, dport):
        _refuse(net, skb, cb, EFAULT, "SKBUS_STALE_PLACE")
        return
    skb.ip_summed = CHECKSUM_NONE
    skb.transport_header = 0
    skb.network_header = skb.mac_header = -1
    _ip_send_skb(net, sk, skb, dst, saddr, dport, cb, length)


def _ip_send_skb(
    net: UdpNet,
    sk: UdpSock,
    skb: SkBuff,
    dst: Dst,
    saddr: bytes,
    dport: int,
    cb: UdpSendmsgCb,
    length: int,
) -> None:
    """A datagram is complete, `length` bytes with its header: hand it to ip."""
    if ipv4_is_multicast(dst.daddr):
        ttl = cb.ttl or sk.mc_ttl or -1
        oif = dst.oif
    else:
        oif = dst.oif if dst.rt_type == RTN_BROADCAST else cb.oif or sk.sk_bound_dev_if
        oif = oif or sk.uc_index
        ttl = cb.ttl or (sk.uc_ttl if sk.uc_ttl > 0 else 0)
    options = cb.options
    if skb.gso_type & SKB_GSO_BATCH:
        df = _dont_fragment(sk, skb.gso_size + UDP_HLEN + IP_HLEN, dst.mtu)
        if df:  # ip gives all the identification 0
            skb.gso_type |= SKB_GSO_TCP_FIXEDID
    else:
        df = bool(skb.gso_size) or _dont_fragment(sk, length + IP_HLEN + len(options), dst.mtu)
    tos = cb.tos if cb.tos >= 0 else sk.tos
    xmit = skb.cb = XmitCb(
        saddr,
        dst.daddr,
        sk.protocol,
        tos,
        ttl,
        df,
        oif,
        options,
        sk.mc_loop,
        False,
        sk.pmtudisc,
    )
    if net.tracing:
        net.trace("udp_send_skb", skb, saddr=saddr, daddr=dst.daddr, dport=dport, len=length)
    segs = skb.gso_segs
    net.mib[table.udp_table(net, sk).mib + "OutDatagrams"] += segs or 1
    net.call_skb("ip", Ip.ip_send_skb, skb, xmit)
    if cb.req:
        sk_ret(net, cb.sk, cb.req, 0)
    else:
        count = segs if skb.gso_type & SKB_GSO_BATCH else 1
        sock_wfree(net, cb.sk, length - UDP_HLEN + SKB_TRUESIZE * count)
