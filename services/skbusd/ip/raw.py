# SPDX-License-Identifier: MIT
"""Raw sockets (`net/ipv4/raw.c`): IP packets as they are.

`ip_local_deliver_finish` gives every packet to `raw_local_deliver` first: each socket of its
protocol gets a copy, IP header included. The socket layer sends by `raw_sendmsg`. With IP_HDRINCL
the application brings the IP header; only length, checksum, and a source or identification of zero
are filled in. ICMP errors come by `raw_icmp_error`. raw(7).
"""

from errno import (
    EACCES,
    EADDRNOTAVAIL,
    EBADF,
    EINVAL,
    EMSGSIZE,
)
from typing import Final

from skbus.core.abi import GetPort, InitSock, LocalAddr, UdpSendmsgCb
from skbus.core.checksum import ip_fast_csum
from skbus.core.pskb import pskb_may_pull
from skbus.core.skbuff import CHECKSUM_NONE, ETH_P_IP, SkBuff
from skbus.inet.headers.icmp import (
    ICMP_DEST_UNREACH,
    ICMP_FRAG_NEEDED,
    ICMP_REDIRECT,
    ICMP_SOURCE_QUENCH,
    IcmpHdr,
)
from skbus.inet.headers.ipv4 import IP_HLEN, IpHdr
from skbus.inet.ip_sockglue import icmp_error, ip_local_error
from skbus.inet.mcast import ip_mc_sf_allow
from skbus.inet.transport import SOCK_BINDADDR_LOCK, sk_icmp_error, sk_ret
from skbusd.ip import inet_sock, ip_output, route
from skbusd.ip.netns import (
    INADDR_ANY,
    IPPROTO_ICMP,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    InetSock,
    IpNet,
    Rtable,
)

IPPROTO_MAX: Final = 263
"""Numbers above 255 name protocols of socket(2) that no packet has (MPTCP). A raw socket of one may
be made, as in Linux, but receives nothing."""

_ICMP_TYPES: Final = 32
"""Types that ICMP_FILTER can name."""


# ---- life --------------------------------------------------------------------------------


def raw_sk_init(net: IpNet, item: InitSock) -> None:
    """A raw socket begins, and hears of its protocol from now on."""
    if net.tracing:
        net.trace("raw_sk_init", sk=item.sk, protocol=item.protocol)
    if not 0 < item.protocol < IPPROTO_MAX:
        net.warning("raw_sk_init", sk=item.sk, protocol=item.protocol, error="no such protocol")
        return
    sk = InetSock(item.sk, item.protocol, net.sysctl["net.core.rmem_default"], ping=False)
    inet_sock.sk_begin(net, sk)
    inet_sock.sk_hash(net, sk)


def raw_bind(net: IpNet, item: GetPort) -> None:
    """bind(2): only packets to that address, and from it. The port means nothing."""
    sk = net.inet_socks.get(item.sk)
    err = 0
    if sk is None or sk.ping or sk.connected() or len(item.addr) != 4:
        err = EBADF if sk is None else EINVAL
    else:
        kind = route.inet_addr_type(net, item.addr)
        # (Without req the socket was bound before, and ip may not know its addresses yet.)
        anywhere = not item.req or sk.freebind or sk.transparent
        if kind not in (RTN_LOCAL, RTN_MULTICAST, RTN_BROADCAST) and not anywhere:
            err = EADDRNOTAVAIL
        else:
            sk.inet_rcv_saddr = sk.inet_saddr = item.addr
            if item.addr != INADDR_ANY:
                sk.sk_userlocks |= SOCK_BINDADDR_LOCK
            if kind in (RTN_MULTICAST, RTN_BROADCAST):
                sk.inet_saddr = INADDR_ANY
    if net.tracing:
        net.trace("raw_bind", sk=item.sk, addr=item.addr, err=err)
    val = LocalAddr(sk.inet_rcv_saddr, sk.inet_num) if sk is not None and not err else None
    sk_ret(net, item.sk, item.req, err, val)


# ---- sending -----------------------------------------------------------------------------


def raw_sendmsg(net: IpNet, skb: SkBuff) -> None:
    """One packet of an application."""
    cb = skb.cb
    assert isinstance(cb, UdpSendmsgCb)
    if net.tracing:
        net.trace("raw_sendmsg", skb, sk=cb.sk, len=skb.len)
    sk = net.inet_socks.get(cb.sk)
    if sk is None or sk.ping:
        inet_sock.sk_refuse(net, skb, cb, EBADF)
        return
    daddr = inet_sock.sk_destination(sk, skb, cb)
    if isinstance(daddr, int):
        inet_sock.sk_refuse(net, skb, cb, daddr)
        return
    cb = inet_sock.sk_cookie(skb)
    rt = inet_sock.sk_route(net, sk, daddr, cb)
    if isinstance(rt, int):
        inet_sock.sk_refuse(net, skb, cb, rt)
        return
    skb.ip_summed = CHECKSUM_NONE
    skb.csum_start = -1
    skb.gso_size = 0
    if rt.rt_type == RTN_BROADCAST and not sk.broadcast:
        err = EACCES
    elif sk.hdrincl:
        err = raw_send_hdrinc(net, sk, skb, rt, cb)
    else:
        type_ = skb.head[skb.data] if skb.headlen() and sk.inet_num == IPPROTO_ICMP else -1
        err = inet_sock.ip_push_pending_frames(net, sk, skb, rt, cb, sk.inet_num)
        if not err and type_ >= 0:
            inet_sock.icmp_out_count(net, type_)
    if err:
        inet_sock.sk_refuse(net, skb, cb, err)
    else:
        sk_ret(net, cb.sk, cb.req, 0)


def raw_send_hdrinc(net: IpNet, sk: InetSock, skb: SkBuff, rt: Rtable, cb: UdpSendmsgCb) -> int:
    """A packet that brings its own IP header. Returns an errno, 0 for success."""
    length = skb.len
    if length > rt.dev.mtu:
        if sk.recverr:
            ip_local_error(net, sk.sk, EMSGSIZE, rt.rt_daddr, 0, rt.dev.mtu)
        return EMSGSIZE
    if length < IP_HLEN or not pskb_may_pull(net, skb, IP_HLEN):
        return EINVAL
    ihl = (skb.head[skb.data] & 0xF) << 2
    if ihl > length or not pskb_may_pull(net, skb, ihl):
        return EINVAL
    head = skb.head[skb.data :]
    type_ = -1
    if ihl >= IP_HLEN:
        header = bytearray(head[:ihl])
        header[2:4] = length.to_bytes(2, "big")
        if header[12:16] == INADDR_ANY:
            header[12:16] = rt.rt_saddr
        if header[4:6] == b"\0\0":
            ident = ip_output.ip_select_ident(
                net, bytes(header[12:16]), bytes(header[16:20]), header[9], 1
            )
            header[4:6] = (ident or 1).to_bytes(2, "big")
        header[10:12] = b"\0\0"
        header[10:12] = ip_fast_csum(header).to_bytes(2, "big")
        head = bytes(header) + head[ihl:]
        if header[9] == IPPROTO_ICMP and len(head) > ihl:
            type_ = head[ihl]
    skb.head = head
    skb.data = skb.network_header = 0
    skb.transport_header = min(max(ihl, IP_HLEN), len(head))
    skb.mac_header = -1
    skb.protocol = ETH_P_IP
    skb.cb = inet_sock.sk_xmit_cb(net, sk, rt, cb, head[9], length)
    if type_ >= 0:
        inet_sock.icmp_out_count(net, type_)
    ip_output.ip_local_out(net, skb, rt)
    return 0


# ---- receiving ---------------------------------------------------------------------------


def raw_v4_match(sk: InetSock, raddr: bytes, laddr: bytes, dif: int) -> bool:
    """Is a packet from raddr to laddr on device dif for this socket?"""
    return (
        sk.inet_daddr in (INADDR_ANY, raddr)
        and sk.inet_rcv_saddr in (INADDR_ANY, laddr)
        and sk.sk_bound_dev_if in (0, dif)
    )


def icmp_filter(net: IpNet, sk: InetSock, skb: SkBuff) -> bool:
    """ICMP_FILTER: is this a message that the socket does not want? Unknown types always pass."""
    if not sk.filter:
        return False
    if not pskb_may_pull(net, skb, 8):
        return True
    type_ = skb.head[skb.data]
    return type_ < _ICMP_TYPES and bool(sk.filter >> type_ & 1)


def raw_local_deliver(net: IpNet, skb: SkBuff, iph: IpHdr) -> bool:
    """A copy for every raw socket that the packet matches; True if any matched, even if its filter
    refused the packet. The skb stays the caller's, `data` at its transport header."""
    socks = net.raw_hash.get(iph.protocol)
    if socks is None:
        return False
    delivered = False
    for sk in tuple(socks):
        if not raw_v4_match(sk, iph.saddr, iph.daddr, skb.skb_iif):
            continue
        delivered = True
        if iph.protocol == IPPROTO_ICMP and icmp_filter(net, sk, skb):
            continue
        if ip_mc_sf_allow(sk.mc_list, sk.mc_all, iph.daddr, iph.saddr, skb.skb_iif):
            raw_rcv(net, sk, net.skb_clone(skb), iph)
    if net.tracing:
        net.trace("raw_local_deliver", skb, protocol=iph.protocol, delivered=delivered)
    return delivered


def raw_rcv(net: IpNet, sk: InetSock, skb: SkBuff, iph: IpHdr) -> None:
    """One socket's copy, from the IP header on."""
    skb.data = skb.network_header
    if net.tracing:
        net.trace("raw_rcv", skb, sk=sk.sk, len=skb.len)
    inet_sock.sock_queue_rcv_skb(net, sk, skb, iph.saddr, iph.daddr)


# ---- errors ------------------------------------------------------------------------------


def raw_icmp_error(
    net: IpNet, inner: IpHdr, quoted: bytes, hdr: IcmpHdr, info: int, offender: bytes, dif: int
) -> None:
    """An ICMP error about a packet goes to every raw socket that may have sent the packet."""
    for sk in tuple(net.raw_hash.get(inner.protocol, ())):
        if raw_v4_match(sk, inner.daddr, inner.saddr, dif):
            raw_err(net, sk, inner, quoted, hdr, info, offender, dif)


def raw_err(
    net: IpNet,
    sk: InetSock,
    inner: IpHdr,
    quoted: bytes,
    hdr: IcmpHdr,
    info: int,
    offender: bytes,
    dif: int,
) -> None:
    """An error for one socket. `sk_icmp_error` says which errors reach it."""
    if hdr.type == ICMP_REDIRECT:
        inet_sock.ipv4_sk_redirect(net, inner.daddr, hdr, offender, dif)
        return
    if hdr.type == ICMP_DEST_UNREACH and hdr.code == ICMP_FRAG_NEEDED:
        inet_sock.ipv4_sk_update_pmtu(net, sk, inner.daddr, info)
    if not sk.recverr and not sk.connected():
        return
    if hdr.type == ICMP_SOURCE_QUENCH:
        return
    error = icmp_error(hdr.type, hdr.code, sk.pmtudisc)
    if net.tracing:
        net.trace("raw_err", sk=sk.sk, type=hdr.type, code=hdr.code, err=error[0])
    payload = quoted if sk.hdrincl else quoted[inner.ihl :]
    icmp = (hdr.type, hdr.code, info)
    sk_icmp_error(net, sk, error, icmp, offender, (inner.daddr, 0), payload)
