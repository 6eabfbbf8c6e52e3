# SPDX-License-Identifier: MIT
"""SYN, SYN-ACK and RST: the parts of `net/ipv4/tcp_output.c` that make segments outside of an
established stream (`tcp_connect`, `tcp_make_synack`, `tcp_send_active_reset`).

RFC 9293 3.5, 3.7.1; RFC 7323 (options of a SYN); RFC 6298 5.7 (its timer).
"""

from skbus.core.abi import XmitCb
from skbus.core.interfaces import Ip
from skbus.core.seq import MASK, after
from skbus.core.skbuff import CHECKSUM_PARTIAL, ETH_P_IP, Frag, frags_slice
from skbus.inet.headers.tcp import (
    MAX_TCP_OPTION_SPACE,
    TcpOptions,
    build,
    build_aligned_sack,
    build_aligned_timestamp,
    build_options,
)
from skbusd.tcp.const import (
    ACK,
    ICSK_TIME_RETRANS,
    IPPROTO_TCP,
    PSH,
    RST,
    SYN,
    TCP_CLOSE,
    TCP_MIN_MSS,
    TCPOLEN_TSTAMP_ALIGNED,
)
from skbusd.tcp.inet_connection_sock import inet_csk_reset_xmit_timer
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.request_sock import TcpRequestSock, TcpTimewaitSock
from skbusd.tcp.sock import TcpSeg, TcpSock
from skbusd.tcp.tcp_accecn_option import tcp_accecn_synack_option
from skbusd.tcp.tcp_cong import tcp_ca_needs_ecn
from skbusd.tcp.tcp_ecn import (
    tcp_ecn_make_synack,
    tcp_ecn_send_syn,
    tcp_ecn_send_synack,
    tcp_ecn_xmit,
)
from skbusd.tcp.tcp_fastopen import tcp_fastopen_cookie_check
from skbusd.tcp.tcp_rate import tcp_rate_skb_sent
from skbusd.tcp.tcp_window import (
    tcp_build_xmit_cb,
    tcp_select_initial_window,
    tcp_select_window,
    tcp_sync_mss,
)


def tcp_queue_header(
    net: TcpNet,
    function: str,
    header: bytes,
    cb: XmitCb,
    *,
    mark: int = 0,
    frags: tuple[Frag, ...] = (),
    size: int = 0,
) -> None:
    """Hand a segment with `size` bytes of payload, or none, to ip; its checksum is seeded here."""
    pseudo = int.from_bytes(cb.saddr, "big") + int.from_bytes(cb.daddr, "big") + IPPROTO_TCP
    check = (pseudo + len(header) + size) % 0xFFFF or 0xFFFF
    header = header[:16] + check.to_bytes(2, "big") + header[18:]
    skb = net.alloc_skb(header, frags, data_len=size, lent=True)
    skb.protocol = ETH_P_IP
    skb.transport_header = 0
    skb.ip_summed = CHECKSUM_PARTIAL
    skb.csum_start = 0
    skb.csum_offset = 16
    skb.mark = mark
    skb.cb = cb
    net.mib["TcpOutSegs"] += 1
    if net.tracing:
        seq = int.from_bytes(header[4:8], "big")
        net.trace(function, skb, seq=seq, len=size, flags=header[13] | header[12] << 8 & 0x100)
    net.call_skb("ip", Ip.ip_queue_xmit, skb, cb)


def tcp_time_stamp(net: TcpNet, offset: int) -> int:
    """The timestamp clock: milliseconds, shifted by the connection's offset (RFC 7323 5.4)."""
    return (net.now // 1_000_000 + offset) & MASK


def tcp_advertise_mss(net: TcpNet, tp: TcpSock, mtu: int) -> int:
    """The MSS that we tell the peer: by the MTU of the route (RFC 9293 3.7.1)."""
    mss = max(mtu - 40, int(net.sysctl["net.ipv4.route.min_adv_mss"]))
    mss = min(mss, 65535 - 40)
    if tp.user_mss and tp.user_mss < mss:
        mss = tp.user_mss
    return mss


def tcp_connect_init(net: TcpNet, tp: TcpSock, mtu: int) -> None:
    """The variables of a connection before its SYN."""
    timestamps = bool(net.sysctl["net.ipv4.tcp_timestamps"])
    tp.tcp_header_len = 20 + (TCPOLEN_TSTAMP_ALIGNED if timestamps else 0)
    if tp.user_mss:
        tp.mss_clamp = tp.user_mss
    tp.max_window = 0
    tcp_sync_mss(net, tp, mtu)
    tp.advmss = tcp_advertise_mss(net, tp, mtu)
    tp.ack_rcv_mss = max(min(tp.advmss, tp.mss_cache, 536), TCP_MIN_MSS)
    tp.rcv_wnd, tp.window_clamp, tp.rcv_wscale = tcp_select_initial_window(
        net,
        tp.rcvbuf,
        tp.advmss - (tp.tcp_header_len - 20 if tp.ts_recent_stamp else 0),
        tp.window_clamp,
        bool(net.sysctl["net.ipv4.tcp_window_scaling"]),
    )
    tp.rcv_ssthresh = tp.rcv_wnd
    tp.snd_wnd = 0
    tp.snd_wl1 = 0
    tp.snd_una = tp.snd_sml = tp.snd_up = tp.snd_nxt = tp.pushed_seq = tp.write_seq
    tp.rcv_nxt = tp.rcv_wup = tp.copied_seq = 0
    tp.rcv_tstamp = net.now
    tp.icsk_rto = 1_000_000
    tp.icsk_retransmits = 0
    tp.retrans_out = tp.lost_out = 0
    if tp.total_retrans:
        tp.total_retrans = 0
    tp.retrans_stamp = 0
    tcp_build_xmit_cb(tp)


def tcp_connect(net: TcpNet, tp: TcpSock, mtu: int) -> None:
    """Queue the SYN and send it."""
    if net.tracing:
        net.trace("tcp_connect", sk=tp.number)
    tcp_connect_init(net, tp, mtu)
    seq = tp.write_seq
    tp.write_seq = (seq + 1) & MASK
    seg = TcpSeg(seq, tp.write_seq, SYN, ())
    seg.pcount = 1
    tp.retrans_stamp = net.now // 1000
    tcp_ecn_send_syn(net, tp, seg)
    frags, size = tcp_syn_data(net, tp) if tp.fastopen_req is not None else ((), 0)
    tcp_transmit_syn(net, tp, seg, frags, size)
    tp.rtx_queue.append(seg)
    tp.tsorted.append(seg)
    tp.packets_out += 1
    if size:
        tcp_queue_syn_data(net, tp, seg, frags, size)
    tp.snd_nxt = tp.pushed_seq = tp.write_seq
    net.mib["TcpActiveOpens"] += 1
    inet_csk_reset_xmit_timer(net, tp, ICSK_TIME_RETRANS, tp.icsk_rto)


def tcp_syn_data(net: TcpNet, tp: TcpSock) -> tuple[tuple[Frag, ...], int]:
    """`tcp_send_syn_data`: the data for the SYN, if we have the host's cookie (RFC 7413 4.2.1);
    without one, the SYN asks for it."""
    fo = tp.fastopen_req
    assert fo is not None
    tp.mss_clamp = tp.advmss  # where no MSS of the host is known
    if not tcp_fastopen_cookie_check(net, tp, fo):
        if fo.cookie:
            fo.cookie = b""
        return (), 0
    if tp.user_mss and tp.user_mss < tp.mss_clamp:
        tp.mss_clamp = tp.user_mss
    tcp_sync_mss(net, tp, tp.pmtu)
    # Room for all options is kept free, for middleboxes that add some.
    space = min(tp.pmtu - 40, tp.mss_clamp) - MAX_TCP_OPTION_SPACE
    size = fo.copied = max(min(space, fo.size), 0)
    tp.syn_data = size > 0
    return frags_slice(fo.frags, 0, size) if size else (), size


def tcp_queue_syn_data(
    net: TcpNet, tp: TcpSock, syn: TcpSeg, frags: tuple[Frag, ...], size: int
) -> None:
    """A SYN has gone with data. The data stands apart in the retransmit queue, to be sent again
    once the connection is there."""
    data = TcpSeg(tp.write_seq, (tp.write_seq + size) & MASK, ACK | PSH, frags)
    data.pcount = 1
    data.mss = size
    data.mstamp = syn.mstamp
    data.delivered = syn.delivered
    data.delivered_mstamp = syn.delivered_mstamp
    data.first_tx_mstamp = syn.first_tx_mstamp
    tp.write_seq = data.end_seq
    tp.rtx_queue.append(data)
    tp.tsorted.append(data)
    tp.packets_out += 1
    net.mib["TcpExtTCPOrigDataSent"] += 1


def tcp_transmit_syn(
    net: TcpNet, tp: TcpSock, seg: TcpSeg, frags: tuple[Frag, ...] = (), size: int = 0
) -> None:
    """Send the SYN, or the SYN-ACK of a simultaneous open, of this socket."""
    synack = bool(seg.flags & ACK)
    sysctl = net.sysctl
    tp.advmss = min(tp.advmss, tcp_advertise_mss(net, tp, tp.pmtu))
    opt = TcpOptions(mss=tp.advmss)
    fo = tp.fastopen_req
    if fo is not None and fo.cookie is not None and not synack:
        opt.fastopen, opt.fastopen_exp = fo.cookie, fo.exp
        tp.syn_fastopen = True
        tp.syn_fastopen_exp = fo.exp
        fo.cookie = None  # not in a SYN that is sent again (RFC 7413 4.2.1)
    if tp.tstamp_ok if synack else sysctl["net.ipv4.tcp_timestamps"]:
        opt.saw_tstamp = True
        opt.tsval = tcp_time_stamp(net, tp.tsoffset)
        opt.tsecr = tp.ts_recent if synack else 0
    opt.sack_ok = tp.sack_ok if synack else bool(sysctl["net.ipv4.tcp_sack"])
    if tp.wscale_ok if synack else sysctl["net.ipv4.tcp_window_scaling"]:
        opt.wscale = tp.rcv_wscale
    raw = build_options(opt)
    if synack and tp.accecn is not None:
        opt.accecn = tcp_accecn_synack_option(net, len(raw))
        raw = build_options(opt)
    header = build(
        tp.sport,
        tp.dport,
        seg.seq,
        tp.rcv_nxt if synack else 0,
        seg.flags,
        min(tp.rcv_wnd, 65535),
        raw,
    )
    now = net.now // 1000
    seg.mstamp = now
    tcp_rate_skb_sent(tp, seg, now)
    tp.segs_out += 1
    tp.tcp_mstamp = now
    cb = tp.xmit_cb
    if tp.ecn_flags and tcp_ca_needs_ecn(net, tp):
        cb = tcp_ecn_xmit(cb)
    assert isinstance(cb, XmitCb)
    tcp_queue_header(net, "tcp_transmit_skb", header, cb, mark=tp.mark, frags=frags, size=size)


def tcp_send_synack(net: TcpNet, tp: TcpSock) -> None:
    """Simultaneous open: our SYN is out and the peer's came. Send ours once more, with ACK."""
    if not tp.rtx_queue or not tp.rtx_queue[0].flags & SYN:
        return
    seg = tp.rtx_queue[0]
    if not seg.flags & ACK:
        seg.flags |= ACK
        tcp_ecn_send_synack(tp, seg)
    tcp_transmit_syn(net, tp, seg)


def tcp_rsk_tsval(net: TcpNet, req: TcpRequestSock) -> int:
    """`tcp_rsk_tsval`: the timestamp that goes to the peer now; remembered."""
    tsval = tcp_time_stamp(net, req.ts_off)
    if req.snt_tsval_first < 0:
        req.snt_tsval_first = tsval
    req.snt_tsval_last = tsval
    return tsval


def tcp_make_synack(
    net: TcpNet,
    listener: TcpSock,
    req: TcpRequestSock,
    foc: bytes | None = None,
    exp: bool = False,
    retrans: int = 0,
) -> None:
    """Send the SYN-ACK of a request sock (`tcp_v4_send_synack`). foc: a Fast Open cookie; retrans:
    0 at first, else how often no ACK came in time, or 1 where the SYN came once more."""
    opt = TcpOptions(mss=tcp_advertise_mss(net, listener, req.mtu), sack_ok=req.sack_ok)
    if req.tstamp_ok:
        opt.saw_tstamp = True
        opt.tsval = tcp_rsk_tsval(net, req)
        opt.tsecr = req.ts_recent
    if req.wscale_ok:
        opt.wscale = req.rcv_wscale
    opt.fastopen, opt.fastopen_exp = foc, exp
    ecn = tcp_ecn_make_synack(net, req, retrans)
    raw = build_options(opt)
    if req.accecn_ok and not retrans:
        opt.accecn = tcp_accecn_synack_option(net, len(raw))
        raw = build_options(opt)
    header = build(
        req.sport,
        req.dport,
        req.snt_isn,
        req.rcv_nxt,
        SYN | ACK | ecn,
        min(req.rcv_wnd, 65535),
        raw,
    )
    tos = listener.tos
    oif, ttl = listener.oif, listener.ttl
    cb = XmitCb(req.saddr, req.daddr, IPPROTO_TCP, tos, ttl, True, oif, b"", True, True)
    tcp_queue_header(net, "tcp_v4_send_synack", header, cb, mark=listener.mark)


def tcp_send_active_reset(net: TcpNet, tp: TcpSock) -> None:
    """RST because the user aborts (RFC 9293 3.10.5); like every segment it SACKs waiting
    out-of-order data (RFC 2018 4)."""
    net.mib["TcpOutRsts"] += 1
    if not tp.xmit_cb.daddr:
        return
    options = b""
    if tp.tstamp_ok and tp.state not in (TCP_CLOSE,):
        options = build_aligned_timestamp(tcp_time_stamp(net, tp.tsoffset), tp.ts_recent)
    blocks = tp.selective_acks
    if tp.duplicate_sack is not None:
        blocks = (tp.duplicate_sack, *blocks)
    if blocks:
        options += build_aligned_sack(blocks[: 3 if options else 4])
    seq = tp.snd_nxt
    if after(seq, tp.snd_una + tp.snd_wnd):
        seq = (tp.snd_una + tp.snd_wnd) & MASK  # tcp_acceptable_seq
    window = tcp_select_window(net, tp)
    header = build(tp.sport, tp.dport, seq, tp.rcv_nxt, RST | ACK, window, options)
    tcp_queue_header(net, "tcp_send_active_reset", header, tp.xmit_cb, mark=tp.mark)


def tcp_v4_send_ack(
    net: TcpNet,
    sk: TcpTimewaitSock | TcpRequestSock,
    seq: int,
    ack: int,
    window: int,
    tsval: int,
    tsecr: int,
    stamped: bool,
) -> None:
    """Send an ACK for a sock that is not a whole socket."""
    options = build_aligned_timestamp(tsval, tsecr) if stamped else b""
    header = build(sk.sport, sk.dport, seq, ack, ACK, min(window, 65535), options)
    cb = XmitCb(sk.saddr, sk.daddr, IPPROTO_TCP, sk.tos, 0, True, 0, b"", True, True)
    tcp_queue_header(net, "tcp_v4_send_ack", header, cb)
