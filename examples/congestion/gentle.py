# SPDX-License-Identifier: MIT
"""A congestion control of one's own: additive increase, gentle decrease, and a look at the delay.

    skbus packetdrill --congestion-control examples/congestion/gentle.py:Gentle examples/congestion
    skbus up ...       # with congestion_control = ["gentle.py:Gentle"] in the configuration
    skbus sysctl net.ipv4.tcp_congestion_control=gentle

docs/congestion.md describes each method.
"""

from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_cong import (
    TcpCongestionOps,
    tcp_cong_avoid_ai,
    tcp_is_cwnd_limited,
    tcp_slow_start,
)

BASE_RTT = 0  # an index of tp.ca_priv, which is a list of ints so that it can be written down


class Gentle(TcpCongestionOps):
    """Reno that gives way to a queue. It does not grow while the round trip is 1.25 times the
    least, and a loss costs it a fifth."""

    name = "gentle"

    def init(self, net: TcpNet, tp: TcpSock) -> None:
        tp.ca_priv = [0]

    def pkts_acked(self, net: TcpNet, tp: TcpSock, pkts_acked: int, rtt_us: int) -> None:
        if rtt_us > 0 and tp.ca_priv:
            tp.ca_priv[BASE_RTT] = min(tp.ca_priv[BASE_RTT] or rtt_us, rtt_us)

    def cong_avoid(self, net: TcpNet, tp: TcpSock, ack: int, acked: int) -> None:
        if not tcp_is_cwnd_limited(tp) or tp.srtt_us >> 3 > tp.ca_priv[BASE_RTT] * 5 // 4:
            return
        if tp.snd_cwnd < tp.snd_ssthresh:
            acked = tcp_slow_start(tp, acked)
        tcp_cong_avoid_ai(tp, tp.snd_cwnd, acked)

    def ssthresh(self, net: TcpNet, tp: TcpSock) -> int:
        return max(tp.snd_cwnd * 4 // 5, 2)
