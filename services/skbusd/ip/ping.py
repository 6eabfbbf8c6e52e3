# SPDX-License-Identifier: MIT
"""Ping sockets (`net/ipv4/ping.c`): ICMP echoes without privilege.

SOCK_DGRAM with IPPROTO_ICMP. An application sends echo requests, and gets the replies to them, from
the ICMP header on. The requests' identifier is the socket's number, as a port is in UDP. `icmp_rcv`
brings replies to `ping_rcv`, and errors about requests to `ping_err`. icmp(7).
"""

from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL, EAGAIN, EBADF, EINVAL, EREMOTEIO

from skbus.core.abi import GetPort, InitSock, LocalAddr, UdpSendmsgCb
from skbus.core.checksum import csum_fold
from skbus.core.pskb import pskb_may_pull, skb_checksum
from skbus.core.skbuff import CHECKSUM_NONE, SkBuff
from skbus.core.uapi import IP_PMTUDISC_DONT
from skbus.inet.headers import HeaderError
from skbus.inet.headers import icmp as icmphdr
from skbus.inet.headers.icmp import (
    ICMP_DEST_UNREACH,
    ICMP_ECHO,
    ICMP_FRAG_NEEDED,
    ICMP_HLEN,
    ICMP_REDIRECT,
    ICMP_SOURCE_QUENCH,
    IcmpHdr,
)
from skbus.inet.headers.ipv4 import IpHdr
from skbus.inet.ip_sockglue import icmp_error
from skbus.inet.transport import (
    SK_REUSEADDR,
    SOCK_BINDADDR_LOCK,
    SOCK_BINDPORT_LOCK,
    sk_icmp_error,
    sk_ret,
)
from skbusd.ip import inet_sock, route
from skbusd.ip.netns import (
    INADDR_ANY,
    IPPROTO_ICMP,
    RTN_BROADCAST,
    RTN_LOCAL,
    InetSock,
    IpNet,
)

# ---- life --------------------------------------------------------------------------------


def ping_init_sock(net: IpNet, item: InitSock) -> None:
    """A ping socket begins. (The socket layer has checked who may have one.)"""
    if net.tracing:
        net.trace("ping_init_sock", sk=item.sk)
    rcvbuf = net.sysctl["net.core.rmem_default"]
    inet_sock.sk_begin(net, InetSock(item.sk, IPPROTO_ICMP, rcvbuf, ping=True))


def ping_get_port(net: IpNet, sk: InetSock, ident: int) -> int:
    """Give the socket an identifier, 0 asks for any. Returns an errno, 0 for success."""
    if not ident:
        ident = net.ping_port_rover
        for _ in range(0xFFFF):
            ident = ident % 0xFFFF + 1
            if ident not in net.ping_table:
                break
        else:
            return EADDRINUSE
        net.ping_port_rover = ident
    else:
        for other in net.ping_table.get(ident, ()):
            if not sk.reuse & other.reuse & SK_REUSEADDR:
                return EADDRINUSE
    sk.inet_num = ident
    inet_sock.sk_hash(net, sk)
    return 0


def ping_bind(net: IpNet, item: GetPort) -> None:
    """bind(2): address and identifier."""
    sk = net.inet_socks.get(item.sk)
    err = 0
    if sk is None or not sk.ping or sk.inet_num or len(item.addr) != 4 or item.port >> 16:
        err = EBADF if sk is None else EINVAL
    elif (
        item.addr != INADDR_ANY
        and item.req
        and not (sk.freebind or sk.transparent)
        and route.inet_addr_type(net, item.addr) != RTN_LOCAL
    ):
        err = EADDRNOTAVAIL
    else:
        sk.reuse = item.reuse & SK_REUSEADDR
        err = ping_get_port(net, sk, item.port)
    if sk is not None and not err:
        sk.inet_saddr = sk.inet_rcv_saddr = item.addr
        if item.addr != INADDR_ANY:
            sk.sk_userlocks |= SOCK_BINDADDR_LOCK
        if item.port:
            sk.sk_userlocks |= SOCK_BINDPORT_LOCK
    if net.tracing:
        net.trace("ping_bind", sk=item.sk, addr=item.addr, ident=item.port, err=err)
    val = LocalAddr(sk.inet_rcv_saddr, sk.inet_num) if sk is not None and not err else None
    sk_ret(net, item.sk, item.req, err, val)


# ---- sending -----------------------------------------------------------------------------


def ping_supported(type_: int, code: int) -> bool:
    """Echo requests alone."""
    return type_ == ICMP_ECHO and code == 0


def ping_v4_sendmsg(net: IpNet, skb: SkBuff) -> None:
    """An echo request; identifier and checksum are filled in."""
    cb = skb.cb
    assert isinstance(cb, UdpSendmsgCb)
    if net.tracing:
        net.trace("ping_v4_sendmsg", skb, sk=cb.sk, len=skb.len)
    sk = net.inet_socks.get(cb.sk)
    err = EBADF if sk is None or not sk.ping else _ping_send(net, sk, skb, cb)
    if err:
        inet_sock.sk_refuse(net, skb, cb, err)
    else:
        sk_ret(net, cb.sk, cb.req, 0)


def _ping_send(net: IpNet, sk: InetSock, skb: SkBuff, cb: UdpSendmsgCb) -> int:
    daddr = inet_sock.sk_destination(sk, skb, cb)
    if skb.len < ICMP_HLEN or not pskb_may_pull(net, skb, ICMP_HLEN):
        return EINVAL
    hdr = icmphdr.parse(skb.head, skb.data)
    if not ping_supported(hdr.type, hdr.code):
        return EINVAL
    if isinstance(daddr, int):
        return daddr
    if not sk.inet_num and ping_get_port(net, sk, 0):
        return EAGAIN
    cb = inet_sock.sk_cookie(skb)
    rt = inet_sock.sk_route(net, sk, daddr, cb)
    if isinstance(rt, int):
        return rt
    if rt.rt_type == RTN_BROADCAST and not sk.broadcast:
        return EACCES
    rest = sk.inet_num << 16 | hdr.sequence
    body = skb.head[skb.data + ICMP_HLEN :]
    skb.head = icmphdr.build(hdr.type, hdr.code, rest) + body
    skb.data = 0
    skb.ip_summed = CHECKSUM_NONE
    skb.csum_start = -1
    skb.gso_size = 0
    total = skb_checksum(net, skb, 0)
    if total is None:
        return EINVAL
    skb.head = icmphdr.build(hdr.type, hdr.code, rest, csum_fold(total)) + body
    err = inet_sock.ip_push_pending_frames(net, sk, skb, rt, cb, IPPROTO_ICMP)
    if not err:
        inet_sock.icmp_out_count(net, hdr.type)
    return err


# ---- receiving ---------------------------------------------------------------------------


def ping_lookup(net: IpNet, daddr: bytes, ident: int, dif: int) -> InetSock | None:
    """The socket with that identifier."""
    found = None
    for sk in net.ping_table.get(ident, ()):
        if sk.inet_rcv_saddr in (INADDR_ANY, daddr) and sk.sk_bound_dev_if in (0, dif):
            found = sk
            break
    if net.tracing:
        net.trace("ping_lookup", daddr=daddr, ident=ident, sk=found.sk if found else 0)
    return found


def ping_rcv(net: IpNet, skb: SkBuff, iph: IpHdr, hdr: IcmpHdr) -> None:
    """An echo reply, for the socket that asked; `data` is at the ICMP header."""
    if net.tracing:
        net.trace("ping_rcv", skb, id=hdr.id, sequence=hdr.sequence)
    sk = ping_lookup(net, iph.daddr, hdr.id, skb.skb_iif)
    if sk is None:
        # No error: a raw socket may have sent the request, and has its copy.
        net.consume_skb(skb)
        return
    inet_sock.sock_queue_rcv_skb(net, sk, skb, iph.saddr, iph.daddr)


def ping_err(
    net: IpNet, inner: IpHdr, payload: bytes, hdr: IcmpHdr, info: int, offender: bytes, dif: int
) -> None:
    """An error about an ICMP message of ours goes to the socket that sent the message. The socket
    must have IP_RECVERR, or be connected and the error hard.

    Differs from Linux: an error that quotes an echo reply teaches no path MTU (`icmp_err`). Replies
    have no DF, so no router can have asked for an MTU, and nobody could tell whether we sent one.
    """
    if net.tracing:
        net.trace("ping_err", saddr=inner.saddr, daddr=inner.daddr, type=hdr.type, code=hdr.code)
    try:
        quoted = icmphdr.parse(payload)
    except HeaderError:
        return
    if not ping_supported(quoted.type, quoted.code):
        return
    sk = ping_lookup(net, inner.saddr, quoted.id, dif)
    if sk is None:
        return
    if hdr.type == ICMP_REDIRECT:
        inet_sock.ipv4_sk_redirect(net, inner.daddr, hdr, offender, dif)
    if hdr.type == ICMP_DEST_UNREACH and hdr.code == ICMP_FRAG_NEEDED:
        inet_sock.ipv4_sk_update_pmtu(net, sk, inner.daddr, info)
    err, hard = icmp_error(hdr.type, hdr.code, sk.pmtudisc)
    if hdr.type in (ICMP_SOURCE_QUENCH, ICMP_REDIRECT):
        err, hard = EREMOTEIO, False
    elif (
        hdr.type == ICMP_DEST_UNREACH
        and hdr.code == ICMP_FRAG_NEEDED
        and sk.pmtudisc == IP_PMTUDISC_DONT
    ):
        return
    icmp = (hdr.type, hdr.code, info)
    sk_icmp_error(net, sk, (err, hard), icmp, offender, (inner.daddr, 0), payload)
