# SPDX-License-Identifier: MIT
"""Windows and segment sizes: the parts of `net/ipv4/tcp_output.c` and `include/net/tcp.h` that
decide how much may be sent and offered.

Called by tcp_output, tcp_input and tcp. RFC 9293 3.8.6 (silly windows, shrinking), RFC 7323 2
(window scale), RFC 1191 and RFC 9293 3.7 (segment size).
"""

from typing import Final

from skbus.core.abi import XmitCb
from skbus.core.seq import MASK, seq_ahead
from skbus.core.uapi import IP_PMTUDISC_DO, IP_PMTUDISC_WANT
from skbus.inet.ip_sockglue import ip_options_route
from skbusd.tcp.const import (
    GSO_LEGACY_MAX_PAYLOAD,
    IPPROTO_TCP,
    MAX_TCP_HEADER,
    MAX_TCP_WINDOW,
    SOCK_RCVBUF_LOCK,
    TCP_MAX_WSCALE,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_accecn import tcp_accecn_no_tso
from skbusd.tcp.tcp_accecn_option import tcp_accecn_option_size, tcp_options_fit_accecn
from skbusd.tcp.tcp_pacing import TCP_PACING_SHIFT

_RMEM_TO_WIN_SCALE: Final = 8
_SLOT_SLACK: Final = 2048
"""Bytes in a full slot of the pool besides payload, roughly."""


def tcp_build_xmit_cb(tp: TcpSock) -> None:
    """Make once, not per packet, the cb that goes to ip with every packet of this socket."""
    tp.xmit_cb = cb = XmitCb(
        tp.saddr,
        tp.daddr,
        IPPROTO_TCP,
        tp.tos,
        tp.ttl,
        tp.pmtudisc in (IP_PMTUDISC_WANT, IP_PMTUDISC_DO),
        tp.oif,
        tp.inet_opt,
        pmtudisc=tp.pmtudisc,
    )
    if tp.inet_opt:
        daddr, options = ip_options_route(tp.inet_opt, tp.daddr)
        tp.xmit_cb = cb._replace(daddr=daddr, options=options)
    tp.pseudo = int.from_bytes(tp.saddr, "big") + int.from_bytes(tp.daddr, "big") + IPPROTO_TCP


# ---- what we may send ------------------------------------------------------------------------


def tcp_mtu_to_mss(net: TcpNet, tp: TcpSock, pmtu: int) -> int:
    """The largest payload for a path MTU, without options that vary from segment to segment."""
    mss = pmtu - 40 - len(tp.inet_opt)
    if mss > tp.mss_clamp:
        mss = tp.mss_clamp
    mss = max(mss, int(net.sysctl["net.ipv4.tcp_min_snd_mss"]))
    return mss - (tp.tcp_header_len - 20)


def tcp_mss_to_mtu(tp: TcpSock, mss: int) -> int:
    """The packet that a segment of `mss` bytes makes; the inverse of tcp_mtu_to_mss."""
    return mss + tp.tcp_header_len + 20


def tcp_bound_to_half_wnd(tp: TcpSock, size: int) -> int:
    """No more than half of the largest window that the peer has offered, or a small peer's
    buffer would hold one segment (RFC 9293 3.8.6.2.1)."""
    cutoff = tp.max_window >> 1 if tp.max_window > 536 else tp.max_window
    if cutoff and size > cutoff:
        return max(cutoff, 68 - tp.tcp_header_len)
    return size


def tcp_sync_mss(net: TcpNet, tp: TcpSock, pmtu: int) -> int:
    """The path MTU is `pmtu`: recompute mss_cache."""
    if tp.mtup_search_high > pmtu:
        tp.mtup_search_high = pmtu
    mss = tcp_bound_to_half_wnd(tp, tcp_mtu_to_mss(net, tp, pmtu))
    tp.pmtu = pmtu
    if tp.mtup_enabled:
        mss = min(mss, tcp_mtu_to_mss(net, tp, tp.mtup_search_low))
    tp.mss_cache = mss
    return mss


def tcp_current_mss(net: TcpNet, tp: TcpSock) -> int:
    """The payload that fits a segment now, SACK blocks and Accurate ECN's option considered."""
    mss = tp.mss_cache
    acc = tp.accecn
    if tp.duplicate_sack is not None or tp.selective_acks:
        n = min(len(tp.selective_acks) + (tp.duplicate_sack is not None), 3 + (not tp.tstamp_ok))
        if acc is not None:
            n, fields = tcp_options_fit_accecn(net, tp, acc, tp.tstamp_ok * 12, n)
            mss -= tcp_accecn_option_size(fields)
        mss -= 4 + 8 * n
    elif acc is not None:
        fields = tcp_options_fit_accecn(net, tp, acc, tp.tstamp_ok * 12, 0)[1]
        mss -= tcp_accecn_option_size(fields)
    return mss


def tcp_xmit_size_goal(tp: TcpSock, mss: int) -> int:
    """Bytes of a super-segment: as many whole segments as one skb can carry."""
    limit = tp.gso_max_size - MAX_TCP_HEADER if tp.gso_max_size else GSO_LEGACY_MAX_PAYLOAD
    half = tp.max_window >> 1
    if half and limit > half:
        limit = half
    return _whole_packets(max(limit // mss, 1), mss) * mss


def _whole_packets(segs: int, mss: int) -> int:
    """`segs`, or a few fewer: nic cuts super-segments longer than an IPv4 packet, and shall have no
    short packet left at the end."""
    most = GSO_LEGACY_MAX_PAYLOAD // mss
    return segs - segs % most if segs > most > 0 else segs


def tcp_tso_segs(net: TcpNet, tp: TcpSock, mss: int) -> int:
    """Segments that one skb takes (`tcp_tso_autosize`): about a millisecond's at the pacing rate,
    more on a short path, never below `net.ipv4.tcp_min_tso_segs`."""
    if tp.accecn is not None and tcp_accecn_no_tso(tp.accecn):
        return 1
    limit = tcp_xmit_size_goal(tp, mss)
    rate = tp.pacing_rate
    if rate:
        size = rate >> TCP_PACING_SHIFT
        shift = tp.rtt_min[0][1] >> net.ipv4.sysctl_tcp_tso_rtt_log if tp.rtt_min else 32
        if shift < 32:
            size += (tp.gso_max_size or GSO_LEGACY_MAX_PAYLOAD) >> shift
        if size < limit:
            return max(_whole_packets(size // mss, mss), net.cong[tp.ca_name].min_tso_segs(net, tp))
    return limit // mss


def tcp_update_pacing_rate(net: TcpNet, tp: TcpSock) -> None:
    """Set the rate that sizes super-segments, B/s: cwnd per round trip, and some more, so that cwnd
    can grow."""
    if not tp.srtt_us:
        return
    if tp.snd_cwnd < tp.snd_ssthresh >> 1:
        ratio = net.ipv4.sysctl_tcp_pacing_ss_ratio
    else:
        ratio = net.ipv4.sysctl_tcp_pacing_ca_ratio
    rate = tp.mss_cache * max(tp.snd_cwnd, tp.packets_out) * 80_000 * ratio // tp.srtt_us
    tp.pacing_rate = min(rate, tp.max_pacing_rate)


def tcp_wnd_end(tp: TcpSock) -> int:
    """The first number that the peer's window does not allow."""
    return (tp.snd_una + tp.snd_wnd) & MASK


# ---- what we offer ---------------------------------------------------------------------------


def tcp_win_from_space(net: TcpNet, space: int) -> int:
    """The part of a buffer that may be offered as window (`net.ipv4.tcp_adv_win_scale`)."""
    scale = net.ipv4.sysctl_tcp_adv_win_scale
    return space >> -scale if scale <= 0 else space - (space >> scale)


def tcp_space_from_win(net: TcpNet, tp: TcpSock, win: int) -> int:
    """The buffer that a window needs; the inverse of tcp_full_space."""
    if tp.scaling_ratio:
        return (win << _RMEM_TO_WIN_SCALE) // tp.scaling_ratio
    scale = net.ipv4.sysctl_tcp_adv_win_scale
    return win << -scale if scale <= 0 else (win << scale) // ((1 << scale) - 1)


def tcp_scaling_ratio(net: TcpNet, tp: TcpSock, length: int, frags: int) -> None:
    """A super-segment of `length` bytes came in `frags` slots. Its share of payload tells the part
    of a buffer that can be window (`tcp_measure_rcv_mss` of Linux 6.6). The user's SO_RCVBUF stays
    as it is."""
    if not tp.userlocks & SOCK_RCVBUF_LOCK:
        tp.scaling_ratio = (length << _RMEM_TO_WIN_SCALE) // (length + frags * _SLOT_SLACK)
        tp.window_clamp = max(tp.window_clamp, tcp_full_space(net, tp))


def tcp_full_space(net: TcpNet, tp: TcpSock) -> int:
    """The window of an empty buffer, by its measured share of payload if there is one."""
    ratio = tp.scaling_ratio
    if ratio:
        return tp.rcvbuf * ratio >> _RMEM_TO_WIN_SCALE
    return tcp_win_from_space(net, tp.rcvbuf)


def tcp_space(net: TcpNet, tp: TcpSock) -> int:
    """The window that the free part of the buffer allows."""
    return tcp_full_space(net, tp) - tp.rmem_alloc - tp.ofo_bytes


def tcp_receive_window(tp: TcpSock) -> int:
    """The rest of the window that we offered last."""
    return seq_ahead(tp.rcv_wup + tp.rcv_wnd, tp.rcv_nxt)


def tcp_select_initial_window(
    net: TcpNet, rcvbuf: int, mss: int, window_clamp: int, wscale_ok: bool
) -> tuple[int, int, int]:
    """(rcv_wnd, window_clamp, rcv_wscale) for a SYN (RFC 7323 2.3)."""
    space = tcp_win_from_space(net, rcvbuf)
    clamp = window_clamp or (65535 << TCP_MAX_WSCALE)
    space = min(clamp, space)
    if space > mss:
        space -= space % mss
    rcv_wnd = space
    if net.sysctl["net.ipv4.tcp_workaround_signed_windows"]:
        rcv_wnd = min(space, MAX_TCP_WINDOW)
    wscale = 0
    if wscale_ok:
        biggest = max(space, net.sysctl["net.ipv4.tcp_rmem"][2], net.sysctl["net.core.rmem_max"])
        wscale = max(0, min(min(biggest, clamp).bit_length() - 16, TCP_MAX_WSCALE))
    return rcv_wnd, min(65535 << wscale, clamp), wscale


def __tcp_select_window(net: TcpNet, tp: TcpSock) -> int:
    """The window that the receive buffer allows now, with the receiver's silly-window
    avoidance (RFC 9293 3.8.6.2.2): nothing below a segment, no small steps."""
    mss = tp.ack_rcv_mss
    full = tcp_full_space(net, tp)
    free = full - tp.rmem_alloc - tp.ofo_bytes  # tcp_space
    if full > tp.window_clamp:
        full = tp.window_clamp
    if mss > full:
        mss = full
        if mss <= 0:
            return 0
    if free < full >> 1:
        if net.tcp_memory_pressure:
            tp.rcv_ssthresh = min(tp.rcv_ssthresh, 4 * tp.advmss)
        free = free >> tp.rcv_wscale << tp.rcv_wscale
        if free < mss or free < tcp_receive_window(tp) >> 4:
            return 0
    if free > tp.rcv_ssthresh:
        free = tp.rcv_ssthresh
    if tp.rcv_wscale:
        scale = tp.rcv_wscale
        return -(-free >> scale) << scale
    window = tp.rcv_wnd
    if window <= free - mss or window > free:
        return free - free % mss
    if mss == full and free > window + (full >> 1):
        return free
    return window


def tcp_select_window(net: TcpNet, tp: TcpSock) -> int:
    """The window field of the segment that is being sent; it never takes back an offer (RFC 9293
    3.8.6.1)."""
    old = tp.rcv_wnd
    cur = seq_ahead(tp.rcv_wup + old, tp.rcv_nxt)
    scale = tp.rcv_wscale
    new = __tcp_select_window(net, tp)
    if new < cur:
        if not new:
            net.mib["TcpExtTCPWantZeroWindowAdv"] += 1
        new = -(-cur >> scale) << scale
    tp.rcv_wnd = new
    tp.rcv_wup = tp.rcv_nxt
    if not scale:
        if new > 65535:
            new = 65535
    elif new > 65535 << scale:
        new = 65535 << scale
    new >>= scale
    if not new:
        tp.pred_flags = False
        if old:
            net.mib["TcpExtTCPToZeroWindowAdv"] += 1
    elif not old:
        net.mib["TcpExtTCPFromZeroWindowAdv"] += 1
    return new
