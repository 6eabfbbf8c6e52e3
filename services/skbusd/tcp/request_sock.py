# SPDX-License-Identifier: MIT
"""Entries of ehash that are no whole sockets: a connection in SYN_RECV (`struct tcp_request_sock`)
and one in TIME_WAIT (`struct tcp_timewait_sock`). Both are kept small.

Made and looked after by tcp_ipv4, tcp_minisocks and tcp_timewait.
"""

from typing import Any, Final

from skbus.core.timer import Timer
from skbusd.tcp.const import TCP_NEW_SYN_RECV, TCP_TIME_WAIT
from skbusd.tcp.sock import TcpSock


class TcpRequestSock:
    """A connection in SYN_RECV that has no socket yet (`struct tcp_request_sock`)."""

    __slots__ = (
        "accecn_fail_mode",
        "accecn_ok",
        "acked",
        "daddr",
        "dport",
        "ecn_ok",
        "key",
        "last_oow_ack_time",
        "listener",
        "mss",
        "mtu",
        "num_retrans",
        "num_timeout",
        "rcv_isn",
        "rcv_nxt",
        "rcv_wnd",
        "rcv_wscale",
        "sack_ok",
        "saddr",
        "snd_wscale",
        "snt_isn",
        "snt_synack",
        "snt_tsval_first",
        "snt_tsval_last",
        "sport",
        "syn_ect_rcv",
        "timer",
        "tos",
        "ts_off",
        "ts_recent",
        "tstamp_ok",
        "wscale_ok",
    )
    state: Final = TCP_NEW_SYN_RECV

    def __init__(self, listener: int, key: bytes) -> None:
        self.listener = listener
        self.key = key
        self.saddr = b""
        self.daddr = b""
        self.sport = 0
        self.dport = 0
        self.rcv_isn = 0
        self.rcv_nxt = 0
        self.snt_isn = 0
        self.snt_synack = 0
        """When the first SYN-ACK was sent, us."""
        self.snt_tsval_first = self.snt_tsval_last = -1
        """The first and last timestamp sent to the peer: its echo lies between them."""
        self.mss = 0
        self.mtu = 0
        self.rcv_wnd = 0
        self.rcv_wscale = 0
        self.snd_wscale = 0
        self.tstamp_ok = False
        self.sack_ok = False
        self.wscale_ok = False
        self.ecn_ok = False
        self.accecn_ok = False
        self.accecn_fail_mode = 0
        self.syn_ect_rcv = 0
        """The ECN field that the SYN came with."""
        self.ts_recent = 0
        self.ts_off = 0
        self.tos = 0
        self.num_retrans = 0
        self.num_timeout = 0
        self.acked = False
        """The handshake's ACK came while the accept queue was full, or DEFER_ACCEPT waits."""
        self.last_oow_ack_time = 0
        self.timer: Timer[Any] | None = None


class TcpTimewaitSock:
    """What is left of a connection in TIME_WAIT or, orphaned, in FIN_WAIT2
    (`struct tcp_timewait_sock`). RFC 9293 3.6.1, RFC 1337."""

    __slots__ = (
        "bind_kind",
        "bound_addr",
        "daddr",
        "dport",
        "key",
        "last_oow_ack_time",
        "rcv_nxt",
        "rcv_wnd",
        "rcv_wscale",
        "saddr",
        "snd_nxt",
        "sport",
        "substate",
        "timer",
        "tos",
        "ts_offset",
        "ts_recent",
        "ts_recent_stamp",
    )
    state: Final = TCP_TIME_WAIT

    def __init__(self, tp: TcpSock, substate: int) -> None:
        self.key = tp.key
        self.saddr = tp.saddr
        self.daddr = tp.daddr
        self.sport = tp.sport
        self.dport = tp.dport
        self.bound_addr = tp.bound_addr
        self.bind_kind = tp.bind_kind
        self.substate = substate
        self.rcv_nxt = tp.rcv_nxt
        self.snd_nxt = tp.snd_nxt
        self.rcv_wnd = tp.rcv_wnd
        self.rcv_wscale = tp.rcv_wscale
        self.ts_recent = tp.ts_recent
        self.ts_recent_stamp = tp.ts_recent_stamp
        self.ts_offset = tp.tsoffset
        self.tos = tp.tos
        self.last_oow_ack_time = 0
        self.timer: Timer[Any] | None = None
