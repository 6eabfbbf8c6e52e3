# SPDX-License-Identifier: MIT
"""Packetization-layer path MTU discovery (RFC 4821; the `tcp_mtup_` functions of
`net/ipv4/tcp_output.c`, `tcp_timer.c`, `tcp_input.c`): find the path's MTU by sending bigger
segments, where no ICMP message says it.

`net.ipv4.tcp_mtu_probing` 0: never; 1: once a connection times out as if there were a black hole;
2: always, from `net.ipv4.tcp_base_mss` on. The search is binary, between search_low, which is
known to pass, and search_high.

Called by tcp_output (a probe instead of ordinary data), tcp_ack (it arrived), tcp_fastretrans (it
did not), tcp_timer (black holes).
"""

from skbus.core.seq import MASK, after
from skbus.core.skbuff import frags_slice
from skbusd.tcp.const import (
    ACK,
    FIN,
    TCP_CA_CWR,
    TCP_CA_OPEN,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSeg, TcpSock
from skbusd.tcp.tcp_cong import tcp_current_ssthresh
from skbusd.tcp.tcp_output import tcp_event_new_data_sent, tcp_fragment, tcp_transmit_skb
from skbusd.tcp.tcp_pacing import tcp_update_skb_after_send
from skbusd.tcp.tcp_rate import tcp_rate_skb_sent
from skbusd.tcp.tcp_window import (
    tcp_current_mss,
    tcp_mss_to_mtu,
    tcp_mtu_to_mss,
    tcp_sync_mss,
    tcp_wnd_end,
)

MIN_CWND = 11
"""With fewer segments a lost probe could not be told by duplicate ACKs soon enough."""
LATER, GO_ON, SENT = 0, -1, 1


def tcp_mtup_init(net: TcpNet, tp: TcpSock) -> None:
    """The connection begins: what is known of the path, and whether to search at once."""
    tp.mtup_enabled = net.sysctl["net.ipv4.tcp_mtu_probing"] > 1
    tp.mtup_search_high = tp.mss_clamp + 40
    tp.mtup_search_low = tcp_mss_to_mtu(tp, int(net.sysctl["net.ipv4.tcp_base_mss"]))
    tp.mtup_probe_size = 0
    if tp.mtup_enabled:
        tp.mtup_probe_stamp = net.now
        tcp_sync_mss(net, tp, tp.pmtu)


def tcp_mtu_check_reprobe(net: TcpNet, tp: TcpSock) -> None:
    """The search ended long ago: the path may have changed (RFC 4821 7.2)."""
    if net.now - tp.mtup_probe_stamp >= net.sysctl["net.ipv4.tcp_probe_interval"] * 1_000_000_000:
        tp.mtup_probe_size = 0
        tp.mtup_search_high = min(tp.mss_clamp + 40, tp.pmtu)
        tp.mtup_search_low = tcp_mss_to_mtu(tp, tp.mss_cache)
        tp.mtup_probe_stamp = net.now


def tcp_mtu_probe(net: TcpNet, tp: TcpSock) -> int:
    """Send a probe if there is reason, data and window for one. SENT; LATER: wait until it can
    be sent; GO_ON: with ordinary segments (RFC 4821 7.1 to 7.4)."""
    if (
        tp.mtup_probe_size
        or tp.ca_state != TCP_CA_OPEN
        or tp.snd_cwnd < MIN_CWND
        or tp.selective_acks
        or tp.duplicate_sack is not None
    ):
        return GO_ON
    mss = tcp_current_mss(net, tp)
    # Options that come and go (Accurate ECN's) take their part of the probe.
    options = tp.mss_cache - mss
    probe_size = tcp_mtu_to_mss(net, tp, (tp.mtup_search_high + tp.mtup_search_low) >> 1)
    interval = tp.mtup_search_high - tp.mtup_search_low
    if (
        probe_size > tcp_mtu_to_mss(net, tp, tp.mtup_search_high)
        or probe_size <= tp.mss_cache
        or interval < net.sysctl["net.ipv4.tcp_probe_threshold"]
    ):
        tcp_mtu_check_reprobe(net, tp)
        return GO_ON
    # So much more that its loss makes enough duplicate ACKs.
    needed = probe_size + (tp.reordering + 1) * tp.mss_cache
    if (tp.write_seq - tp.snd_nxt) & MASK < needed or tp.snd_wnd < needed:
        return GO_ON
    if after(tp.snd_nxt + needed, tcp_wnd_end(tp)):
        return LATER
    in_flight = tp.packets_out - tp.sacked_out - tp.lost_out + tp.retrans_out
    if in_flight + 2 > tp.snd_cwnd:
        return LATER if in_flight else GO_ON
    seg = _take(tp, probe_size - options, mss)
    return GO_ON if seg is None else _send(net, tp, seg, probe_size - options, options)


def _take(tp: TcpSock, size: int, mss: int) -> TcpSeg | None:
    """Join the first `size` bytes of the write queue to one segment, which is taken off it."""
    queue = tp.write_queue
    frags: list[object] = []
    left = size
    flags = ACK
    for seg in queue:
        dlen = seg.dlen()
        if seg.flags & FIN or (seg.eor and dlen < left):
            return None
        left -= min(left, dlen)
        if not left:
            break
    if left:
        return None
    start = queue[0].seq
    left = size
    while left:
        seg = queue[0]
        dlen = seg.dlen()
        if dlen > left:
            queue.insert(1, tcp_fragment(seg, left, mss))
            dlen = left
        frags += frags_slice(seg.frags, 0, dlen)
        flags |= seg.flags
        left -= dlen
        del queue[0]
    probe = TcpSeg(start, (start + size) & MASK, flags, tuple(frags))  # type: ignore[arg-type]
    probe.mss = size
    probe.pcount = 1
    return probe


def _send(net: TcpNet, tp: TcpSock, seg: TcpSeg, size: int, options: int) -> int:
    now = max(net.now // 1000, tp.tcp_wstamp)
    seg.mstamp = tp.tcp_wstamp = now
    tcp_rate_skb_sent(tp, seg, now)
    if net.tracing:
        net.trace("tcp_mtu_probe", sk=tp.sk, seq=seg.seq, len=size)
    sent = tcp_transmit_skb(net, tp, seg.seq, seg.flags, seg.frags, size, size)
    if not sent:
        tp.write_queue.insert(0, seg)
        seg.pcount = 0
        return GO_ON
    if tp.pacing_status:
        tcp_update_skb_after_send(net, tp, size)
    # It stands for more than one segment of the others.
    tp.snd_cwnd -= 1
    tcp_event_new_data_sent(net, tp, seg)
    tp.mtup_probe_size = tcp_mss_to_mtu(tp, size + options)
    tp.mtu_probe_seq_start = seg.seq
    tp.mtu_probe_seq_end = seg.end_seq
    return SENT


def tcp_mtup_probe_failed(net: TcpNet, tp: TcpSock) -> None:
    """It was lost, and nothing else was: too big (RFC 4821 7.6.2)."""
    tp.mtup_search_high = tp.mtup_probe_size - 1
    tp.mtup_probe_size = 0
    net.mib["TcpExtTCPMTUPFail"] += 1


def tcp_mtup_probe_success(net: TcpNet, tp: TcpSock) -> None:
    """It arrived: segments are of that size from now on, and cwnd of as many bytes as before
    (RFC 4821 7.6.1)."""
    if tp.ca_state < TCP_CA_CWR:
        tp.prior_ssthresh = tcp_current_ssthresh(tp)
    mtu = tcp_mss_to_mtu(tp, tp.mss_cache)
    tp.snd_cwnd = max(tp.snd_cwnd * mtu // tp.mtup_probe_size, 1)
    tp.snd_cwnd_cnt = 0
    tp.snd_cwnd_stamp = net.now
    tp.snd_ssthresh = tcp_current_ssthresh(tp)
    tp.mtup_search_low = tp.mtup_probe_size
    tp.mtup_probe_size = 0
    tcp_sync_mss(net, tp, tp.pmtu)
    net.mib["TcpExtTCPMTUPSuccess"] += 1


def tcp_mtu_probing(net: TcpNet, tp: TcpSock) -> None:
    """Nothing gets through any more: perhaps what is big does not (RFC 4821 7.7). Begin to search
    at the base size; and if that does not help, at half of it, and so on."""
    sysctl = net.sysctl
    if not sysctl["net.ipv4.tcp_mtu_probing"]:
        return
    if not tp.mtup_enabled:
        tp.mtup_enabled = True
        tp.mtup_probe_stamp = net.now
    else:
        mss = tcp_mtu_to_mss(net, tp, tp.mtup_search_low) >> 1
        mss = min(mss, sysctl["net.ipv4.tcp_base_mss"])
        mss = max(mss, sysctl["net.ipv4.tcp_mtu_probe_floor"], sysctl["net.ipv4.tcp_min_snd_mss"])
        tp.mtup_search_low = tcp_mss_to_mtu(tp, int(mss))
    tcp_sync_mss(net, tp, tp.pmtu)
