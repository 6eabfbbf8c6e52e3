# SPDX-License-Identifier: MIT
"""ICMP (`net/ipv4/icmp.c`): echoes and timestamps answered, errors sent and taken.

`ip_local_deliver_finish` calls `icmp_rcv`. All of ip, and udp by message, call `icmp_send`.
Incoming errors go to the `err_handler` of the transport whose packet they quote. RFC 792; RFC 1122
3.2.2; RFC 1812 4.3.2 for when no error may be sent and for the rate limits; RFC 1191.

Differs from Linux: redirects are not followed by default.
"""

import struct
from collections.abc import Callable
from typing import Final

from skbus.core.abi import ErrHandler, IcmpSendCb, XmitCb
from skbus.core.checksum import csum_replace2
from skbus.core.dropreason import SkbDropReason
from skbus.core.net import MSEC, SEC
from skbus.core.pool import PoolError
from skbus.core.pskb import pskb_may_pull, skb_checksum
from skbus.core.skbuff import (
    CHECKSUM_NONE,
    CHECKSUM_PARTIAL,
    CHECKSUM_UNNECESSARY,
    PACKET_HOST,
    SkBuff,
)
from skbus.inet.headers import HeaderError, ipv4
from skbus.inet.headers import icmp as icmphdr
from skbus.inet.headers.icmp import (
    ICMP_DEST_UNREACH,
    ICMP_ECHO,
    ICMP_ECHOREPLY,
    ICMP_EXC_FRAGTIME,
    ICMP_FRAG_NEEDED,
    ICMP_HLEN,
    ICMP_PARAMETERPROB,
    ICMP_REDIRECT,
    ICMP_SOURCE_QUENCH,
    ICMP_TIME_EXCEEDED,
    ICMP_TIMESTAMP,
    ICMP_TIMESTAMPREPLY,
    IcmpHdr,
)
from skbus.inet.headers.ipv4 import IP_OFFSET, IpHdr
from skbusd.ip import ip_options, ip_output, ping, raw, route, rps
from skbusd.ip.netns import (
    IPPROTO_ICMP,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_UNICAST,
    IpNet,
    Rtable,
)

_QUOTE_LIMIT: Final = 576
"""Longest error datagram (RFC 1812 4.3.2.3)."""
ICMP_QUOTE_MIN: Final = 8
"""Bytes behind the IP header that an error quotes at least (RFC 792)."""
_PREC_INTERNETCONTROL: Final = 0xC0
_XRLIM_BURST_FACTOR: Final = 6
_ICMP_REDIR_HOSTTOS: Final = 3
_PEERS: Final = 4096
"""Most hosts that have a bucket of errors (`inet_peers`)."""

_PLATEAU: Final = (32000, 17914, 8166, 4352, 2002, 1492, 576, 296, 216, 128, 68)
"""RFC 1191 7.1, for routers that do not tell the next hop's MTU (`mtu_plateau`)."""

_OUT_COUNTERS: Final = {
    ICMP_ECHOREPLY: "IcmpOutEchoReps",
    ICMP_DEST_UNREACH: "IcmpOutDestUnreachs",
    ICMP_REDIRECT: "IcmpOutRedirects",
    ICMP_ECHO: "IcmpOutEchos",
    ICMP_TIME_EXCEEDED: "IcmpOutTimeExcds",
    ICMP_PARAMETERPROB: "IcmpOutParmProbs",
    ICMP_TIMESTAMPREPLY: "IcmpOutTimestampReps",
}
_IN_COUNTERS: Final = {
    ICMP_ECHOREPLY: "IcmpInEchoReps",
    ICMP_DEST_UNREACH: "IcmpInDestUnreachs",
    ICMP_SOURCE_QUENCH: "IcmpInSrcQuenchs",
    ICMP_REDIRECT: "IcmpInRedirects",
    ICMP_ECHO: "IcmpInEchos",
    ICMP_TIME_EXCEEDED: "IcmpInTimeExcds",
    ICMP_PARAMETERPROB: "IcmpInParmProbs",
    ICMP_TIMESTAMP: "IcmpInTimestamps",
    ICMP_TIMESTAMPREPLY: "IcmpInTimestampReps",
    icmphdr.ICMP_ADDRESS: "IcmpInAddrMasks",
    icmphdr.ICMP_ADDRESSREPLY: "IcmpInAddrMaskReps",
}


# ---- rate limits -------------------------------------------------------------------------


def icmpv4_mask_allow(net: IpNet, type_: int, code: int) -> bool:
    """Is this kind of message exempt from the limits? Path MTU discovery must never wait."""
    if type_ == ICMP_DEST_UNREACH and code == ICMP_FRAG_NEEDED:
        return True
    mask: int = net.sysctl["net.ipv4.icmp_ratemask"]
    return not (mask >> type_) & 1


def icmp_global_allow(net: IpNet) -> bool:
    """The limit for all hosts together: a bucket that fills at icmp_msgs_per_sec and holds
    icmp_msgs_burst (RFC 1812 4.3.2.8)."""
    burst = net.sysctl["net.ipv4.icmp_msgs_burst"] * SEC
    rate = net.sysctl["net.ipv4.icmp_msgs_per_sec"]
    if net.icmp_global_stamp < 0:
        net.icmp_global_credit = burst
    else:
        passed = min(net.now - net.icmp_global_stamp, 10 * SEC)
        net.icmp_global_credit = min(burst, net.icmp_global_credit + passed * rate)
    net.icmp_global_stamp = net.now
    if net.icmp_global_credit < SEC:
        return False
    net.icmp_global_credit -= SEC
    return True


def icmpv4_xrlim_allow(net: IpNet, rt: Rtable, daddr: bytes) -> bool:
    """The limit for one host: a message each icmp_ratelimit ms, six in a burst."""
    if rt.dev.loopback:
        return True
    timeout: int = net.sysctl["net.ipv4.icmp_ratelimit"] * MSEC
    if not timeout:
        return True
    most = _XRLIM_BURST_FACTOR * timeout
    known = net.inet_peers.pop(daddr, None)
    tokens = most if known is None else min(most, known[0] + net.now - known[1])
    if known is None and len(net.inet_peers) >= _PEERS:
        del net.inet_peers[next(iter(net.inet_peers))]
    allowed = tokens >= timeout
    net.inet_peers[daddr] = (tokens - timeout if allowed else tokens, net.now)
    return allowed


# ---- sending errors ----------------------------------------------------------------------


def icmp_send_entry(net: IpNet, skb: SkBuff) -> None:
    """A transport wants an error to be sent about a packet that it was given."""
    cb = skb.cb
    assert isinstance(cb, IcmpSendCb)
    if not (0 <= cb.type < 256 and 0 <= cb.code < 256 and 0 <= cb.info < 2**32):
        net.kfree_skb(skb, "SKBUS_BAD_MESSAGE")
        return
    icmp_send(net, skb, cb.type, cb.code, cb.info)
    net.consume_skb(skb)


def _must_not_send(net: IpNet, skb: SkBuff, iph: IpHdr) -> str:
    """RFC 1122 3.2.2: when no error may be sent. The reason, or ""."""
    if skb.pkt_type != PACKET_HOST:
        return "not for us alone on the link"
    if iph.frag_off & IP_OFFSET:
        return "not the first fragment"
    if route.inet_addr_type(net, iph.daddr) in (RTN_BROADCAST, RTN_MULTICAST):
        return "to many"
    if route.inet_addr_type(net, iph.saddr) not in (RTN_UNICAST, RTN_LOCAL):
        return "from nobody in particular"
    if iph.protocol == IPPROTO_ICMP:
        at = skb.network_header + iph.ihl
        if at >= len(skb.head):
            return "of unknown type"
        type_ = skb.head[at]
        if type_ > icmphdr.NR_ICMP_TYPES or type_ in icmphdr.ERROR_TYPES:
            return "about an error"
    return ""


def icmp_send(net: IpNet, skb: SkBuff, type_: int, code: int, info: int) -> None:
    """Send an ICMP error about skb, which stays the caller's. info: the header's last word.

    As much of the packet is quoted as fits 576 bytes (RFC 1812 4.3.2.3). Record route and
    timestamp go back with it (`__ip_options_echo`).
    """
    try:
        iph = ipv4.parse(skb.head, skb.network_header)
    except HeaderError:
        return
    refused = _must_not_send(net, skb, iph)
    if net.tracing:
        net.trace("icmp_send", skb, type=type_, code=code, info=info, refused=refused)
    if refused:
        return
    limited = not icmpv4_mask_allow(net, type_, code)
    # Errors to ourselves have no limit: they never leave the host.
    local = iph.saddr in net.local_addrs or iph.saddr[0] == 127
    if limited and not local and not icmp_global_allow(net):
        net.mib["IcmpOutRateLimitGlobal"] += 1
        return
    saddr = iph.daddr if route.inet_addr_type(net, iph.daddr) == RTN_LOCAL else b""
    rt = route.ip_route_output(net, iph.saddr, saddr, 0)
    if isinstance(rt, int):
        net.mib["IcmpOutErrors"] += 1
        return
    if limited and not icmpv4_xrlim_allow(net, rt, iph.saddr):
        net.mib["IcmpOutRateLimitHost"] += 1
        return
    options = b""
    if iph.options:
        options = ip_options.ip_options_echo(net, iph.options, rt.rt_saddr)
    quote = skb.head[skb.network_header :]
    room = min(rt.mtu, _QUOTE_LIMIT) - ipv4.IP_HLEN - ((len(options) + 3) & ~3) - ICMP_HLEN
    if len(quote) < room and skb.frags:
        try:
            quote += net.pool.gather(skb.frags)
        except PoolError:
            pass  # the header is enough
    message = icmphdr.build_message(type_, code, info, quote[:room])
    tos = iph.tos & 0x1E | _PREC_INTERNETCONTROL
    _icmp_push(net, net.alloc_skb(message), type_, rt, tos, options)


def _icmp_push(net: IpNet, skb: SkBuff, type_: int, rt: Rtable, tos: int, options: bytes) -> None:
    """`icmp_push_reply`: count a message and send it."""
    net.mib["IcmpOutMsgs"] += 1
    name = _OUT_COUNTERS.get(type_)
    if name is not None:
        net.mib[name] += 1
    cb = XmitCb(rt.rt_saddr, rt.rt_daddr, IPPROTO_ICMP, tos, 0, False, 0, options)
    ip_output.ip_build_and_send_pkt(net, skb, rt, cb)


# ---- receiving ---------------------------------------------------------------------------


def icmp_rcv(net: IpNet, skb: SkBuff, iph: IpHdr, rt: Rtable) -> None:
    """An ICMP message for us; `data` is at its header."""
    mib = net.mib
    mib["IcmpInMsgs"] += 1
    if not pskb_may_pull(net, skb, ICMP_HLEN):
        _icmp_drop(net, skb, "PKT_TOO_SMALL")
        return
    if skb.ip_summed not in (CHECKSUM_UNNECESSARY, CHECKSUM_PARTIAL):
        csum = skb_checksum(net, skb, skb.data)
        if csum is None:
            _icmp_drop(net, skb, "SKBUS_STALE_PLACE")
            return
        if csum % 0xFFFF or not csum:
            mib["IcmpInCsumErrors"] += 1
            _icmp_drop(net, skb, "ICMP_CSUM")
            return
    hdr = icmphdr.parse(skb.head, skb.data)
    if net.tracing:
        net.trace("icmp_rcv", skb, type=hdr.type, code=hdr.code, saddr=iph.saddr)
    counter = _IN_COUNTERS.get(hdr.type)
    if counter is None:
        # RFC 1122 3.2.2: a message of unknown type is silently discarded.
        _icmp_drop(net, skb, "UNHANDLED_PROTO")
        return
    mib[counter] += 1
    many = rt.rt_type in (RTN_BROADCAST, RTN_MULTICAST)
    if many and (
        hdr.type not in (ICMP_ECHO, ICMP_TIMESTAMP, icmphdr.ICMP_ADDRESS, icmphdr.ICMP_ADDRESSREPLY)
        or (
            hdr.type in (ICMP_ECHO, ICMP_TIMESTAMP)
            and net.sysctl["net.ipv4.icmp_echo_ignore_broadcasts"]
        )
    ):
        # RFC 1122 3.2.2.6 and 3.2.2.8
        _icmp_drop(net, skb, "INVALID_PROTO")
        return
    handler = _icmp_pointers.get(hdr.type)
    if handler is None:
        net.consume_skb(skb)
    else:
        handler(net, skb, iph, hdr)


def _icmp_drop(net: IpNet, skb: SkBuff, reason: SkbDropReason) -> None:
    net.mib["IcmpInErrors"] += 1
    net.kfree_skb(skb, reason)


def icmp_reply(net: IpNet, skb: SkBuff, iph: IpHdr, type_: int) -> None:
    """Send skb back to where it came from; it has its new ICMP header at `data`.

    RFC 1122 3.2.2.6: from the address that was asked, unless that was a broadcast, and with its
    record route and timestamp options.
    """
    ours = route.inet_addr_type(net, iph.daddr) == RTN_LOCAL
    rt = route.ip_route_output(net, iph.saddr, iph.daddr if ours else b"", 0)
    if isinstance(rt, int):
        net.mib["IcmpOutErrors"] += 1
        net.kfree_skb(skb, "IP_OUTNOROUTES")
        return
    skb.ip_summed = CHECKSUM_NONE
    skb.csum_start = -1
    skb.pkt_type = PACKET_HOST
    options = b""
    if iph.options:
        options = ip_options.ip_options_echo(net, iph.options, rt.rt_saddr)
    _icmp_push(net, skb, type_, rt, iph.tos, options)


def icmp_echo(net: IpNet, skb: SkBuff, iph: IpHdr, hdr: IcmpHdr) -> None:
    """A ping: its data goes back as it came, in the same slots (RFC 792, RFC 1122 3.2.2.6)."""
    if net.sysctl["net.ipv4.icmp_echo_ignore_all"]:
        net.consume_skb(skb)
        return
    check = csum_replace2(hdr.checksum, ICMP_ECHO << 8 | hdr.code, ICMP_ECHOREPLY << 8 | hdr.code)
    reply = icmphdr.build(ICMP_ECHOREPLY, hdr.code, hdr.rest, check)
    skb.head = reply + skb.head[skb.data + ICMP_HLEN :]
    skb.data = 0
    skb.mac_header = skb.network_header = -1
    skb.transport_header = 0
    icmp_reply(net, skb, iph, ICMP_ECHOREPLY)


def icmp_timestamp(net: IpNet, skb: SkBuff, iph: IpHdr, hdr: IcmpHdr) -> None:
    """A timestamp request: answer with ms since midnight UTC (RFC 792, RFC 1122 3.2.2.8). Only the
    originate time of the request is read.

    Differs from Linux: the time is marked as not UTC (`inet_current_timestamp`).
    """
    if not pskb_may_pull(net, skb, ICMP_HLEN + 4):
        _icmp_drop(net, skb, "PKT_TOO_SMALL")
        return
    at = skb.data + ICMP_HLEN
    originate = skb.head[at : at + 4]
    ours = struct.pack("!I", ip_options.inet_current_timestamp(net))
    payload = originate + ours + ours
    reply = net.alloc_skb(icmphdr.build_message(ICMP_TIMESTAMPREPLY, 0, hdr.rest, payload))
    net.consume_skb(skb)
    icmp_reply(net, reply, iph, ICMP_TIMESTAMPREPLY)


def icmp_unreach(net: IpNet, skb: SkBuff, iph: IpHdr, hdr: IcmpHdr) -> None:
    """An error about a packet of ours: check the quoted packet, and tell the transport (RFC 1122
    3.2.2.1, 3.2.2.4, 3.2.2.5).

    Nothing is learned from the error here: only the transport can tell whether the packet was ours
    (RFC 5927 4.1). If fragmentation is needed, the transport calls `ipv4_update_pmtu`."""
    if not pskb_may_pull(net, skb, min(skb.len, ICMP_HLEN + 548)):
        _icmp_drop(net, skb, "SKBUS_STALE_PLACE")
        return
    quoted = skb.head[skb.data + ICMP_HLEN :]
    try:
        inner = ipv4.parse(quoted)
    except HeaderError:
        _icmp_drop(net, skb, "IP_INHDR")
        return
    payload = quoted[inner.ihl :]
    info = _unreach_info(net, hdr, inner)
    if info < 0:
        net.consume_skb(skb)
        return
    if route.inet_addr_type(net, inner.daddr) == RTN_BROADCAST:
        # RFC 1122 3.2.2: nobody may send an error about a broadcast.
        _icmp_drop(net, skb, "INVALID_PROTO")
        return
    if route.inet_addr_type(net, inner.saddr) != RTN_LOCAL or len(payload) < ICMP_QUOTE_MIN:
        _icmp_drop(net, skb, "IP_INVALID_SOURCE")
        return
    if not info and hdr.type == ICMP_DEST_UNREACH and hdr.code == ICMP_FRAG_NEEDED:
        net.consume_skb(skb)
        return
    if net.tracing:
        net.trace(
            "icmp_unreach", skb, type=hdr.type, code=hdr.code, info=info, protocol=inner.protocol
        )
    if net.raw_hash:
        raw.raw_icmp_error(net, inner, quoted, hdr, info, iph.saddr, skb.skb_iif)
    error = ErrHandler(
        hdr.type, hdr.code, info, iph.saddr, inner.saddr, inner.daddr, payload, skb.skb_iif
    )
    proto = net.inet_protos.get(inner.protocol)
    if proto is not None and proto.err_handler is not None:
        process = proto.process
        if proto.shards:
            process = rps.get_rps_cpu_err(net, inner, payload, proto)
        if process:
            net.call(process, proto.err_handler, error)
    elif inner.protocol == IPPROTO_ICMP:
        ping.ping_err(net, inner, payload, hdr, info, iph.saddr, skb.skb_iif)
    net.consume_skb(skb)


def _unreach_info(net: IpNet, hdr: IcmpHdr, inner: IpHdr) -> int:
    """An error's value besides type and code: a path's MTU, a pointer into the header, or a
    gateway; 0 for none. -1 where no transport is to hear of the error."""
    if hdr.type == ICMP_DEST_UNREACH:
        if hdr.code > icmphdr.NR_ICMP_UNREACH:
            return -1
        if hdr.code == ICMP_FRAG_NEEDED:
            return _frag_needed_mtu(net, hdr, inner)
    elif hdr.type == ICMP_TIME_EXCEEDED and hdr.code == ICMP_EXC_FRAGTIME:
        return -1  # fragments were lost: no news of the way, and Linux keeps it to itself
    elif hdr.type == ICMP_PARAMETERPROB:
        return hdr.pointer
    elif hdr.type == ICMP_REDIRECT:
        return hdr.rest
    return 0


def _frag_needed_mtu(net: IpNet, hdr: IcmpHdr, inner: IpHdr) -> int:
    """The MTU that a router asks for; guessed where it does not say (RFC 1191 5). 0: ignore."""
    if net.sysctl["net.ipv4.ip_no_pmtu_disc"]:
        return 0
    mtu = hdr.mtu
    if mtu >= inner.tot_len and inner.tot_len >= 68:
        mtu = 0  # no smaller than the packet that was too long: an old router's length field
    if mtu < 68:
        mtu = next((m for m in _PLATEAU if m < inner.tot_len), 68)
    return mtu


def icmp_echo_reply(net: IpNet, skb: SkBuff, iph: IpHdr, hdr: IcmpHdr) -> None:
    """An echo reply, for a ping socket."""
    ping.ping_rcv(net, skb, iph, hdr)


def icmp_redirect(net: IpNet, skb: SkBuff, iph: IpHdr, hdr: IcmpHdr) -> None:
    """A better gateway: ignored while `accept_redirects` is off, the default (RFC 6274 4.7). Else
    it is followed if a transport finds that the quoted packet is its own (`ipv4_redirect`)."""
    if net.sysctl["net.ipv4.conf.all.accept_redirects"] and hdr.code <= _ICMP_REDIR_HOSTTOS:
        icmp_unreach(net, skb, iph, hdr)
    else:
        net.consume_skb(skb)


def icmp_discard(net: IpNet, skb: SkBuff, iph: IpHdr, hdr: IcmpHdr) -> None:
    """Drop a message of a type that asks for nothing."""
    net.consume_skb(skb)


_icmp_pointers: Final[dict[int, Callable[[IpNet, SkBuff, IpHdr, IcmpHdr], None]]] = {
    ICMP_ECHOREPLY: icmp_echo_reply,
    ICMP_DEST_UNREACH: icmp_unreach,
    ICMP_SOURCE_QUENCH: icmp_discard,
    ICMP_REDIRECT: icmp_redirect,
    ICMP_ECHO: icmp_echo,
    ICMP_TIME_EXCEEDED: icmp_unreach,
    ICMP_PARAMETERPROB: icmp_unreach,
    ICMP_TIMESTAMP: icmp_timestamp,
}
