# SPDX-License-Identifier: MIT
"""Packetization-layer path MTU discovery (RFC 4821; the `tcp_mtup_` functions of
`net/ipv4/tcp_output.c`, `tcp_timer.c`, `tcp_input.c`): find the path's MTU by bigger segments,
without ICMP messages.

`net.ipv4.tcp_mtu_probing` 0: never; 1: once a connection times out as if there were a black hole;
2: always, from `net.ipv4.tcp_base_mss` on. The search is binary, between search_low, which is
known to pass, and search_high.

Called by tcp_ack (a probe arrived), tcp_fastretrans (it did not), tcp_timer (black holes) and
tcp_output, whose `tcp_mtu_probe` sends the probes.
"""

from skbusd.tcp.const import (
    TCP_CA_CWR,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_cong import tcp_current_ssthresh
from skbusd.tcp.tcp_window import (
    tcp_mss_to_mtu,
    tcp_mtu_to_mss,
    tcp_sync_mss,
)


def tcp_mtup_init(net: TcpNet, tp: TcpSock) -> None:
    """A connection begins: set the bounds of the search, and decide whether to search at once."""
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


def tcp_mtup_probe_failed(net: TcpNet, tp: TcpSock) -> None:
    """The probe was lost, and nothing else was: too big (RFC 4821 7.6.2)."""
    tp.mtup_search_high = tp.mtup_probe_size - 1
    tp.mtup_probe_size = 0
    net.mib["TcpExtTCPMTUPFail"] += 1


def tcp_mtup_probe_success(net: TcpNet, tp: TcpSock) -> None:
    """The probe arrived: segments have its size from now on, and cwnd as many bytes as before (RFC
    4821 7.6.1)."""
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
    """Nothing gets through any more: perhaps segments are too big (RFC 4821 7.7). Begin to search
    at the base size, then at half of it, and so on."""
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
