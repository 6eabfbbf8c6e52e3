# SPDX-License-Identifier: MIT
"""TCP_INFO with names: a connection's own figures.

    info = tcp_info(sock)              # a socket of ours, or one of the kernel's
    print(info.snd_cwnd, info.rtt)     # segments, microseconds

The members are those of `struct tcp_info` (`include/uapi/linux/tcp.h`, Linux 6.18) without their
prefix `tcpi_`. tcp(7) and the header give their meaning; the units stand here.
"""

import re
import struct
from itertools import accumulate
from typing import Final, NamedTuple, Protocol

_IPPROTO_TCP: Final = 6
_TCP_INFO: Final = 11
_FORMAT: Final = "8B24I4Q6I4Q2I2Q6I2H8I2H"
_STRUCT: Final = struct.Struct("=" + _FORMAT)
SIZE: Final = _STRUCT.size
"""Bytes of the struct as it is known here; a newer kernel may have more."""


class TcpInfo(NamedTuple):
    """`struct tcp_info`.

    Times are in microseconds (rto, ato, rtt, busy_time, ...); the four last_... and total_rto_time
    are in milliseconds. Rates are in bytes a second. Fields with `bytes`, `wnd`, `mss` or `pmtu` in
    their names count bytes, and so do rcv_ssthresh and rcv_space. All other counts of data are in
    segments: snd_cwnd, snd_ssthresh, unacked, sacked, lost, retrans.
    """

    state: int
    """1 to 12: `TCP_ESTABLISHED`, ... (`include/net/tcp_states.h`)"""
    ca_state: int
    """0 Open, 1 Disorder, 2 CWR, 3 Recovery, 4 Loss"""
    retransmits: int
    probes: int
    backoff: int
    options: int
    """`TCPI_OPT_...`"""
    snd_wscale: int
    rcv_wscale: int
    delivery_rate_app_limited: int
    fastopen_client_fail: int
    rto: int
    ato: int
    snd_mss: int
    rcv_mss: int
    unacked: int
    sacked: int
    lost: int
    retrans: int
    fackets: int
    last_data_sent: int
    last_ack_sent: int
    last_data_recv: int
    last_ack_recv: int
    pmtu: int
    rcv_ssthresh: int
    rtt: int
    """smoothed"""
    rttvar: int
    snd_ssthresh: int
    snd_cwnd: int
    advmss: int
    reordering: int
    rcv_rtt: int
    rcv_space: int
    total_retrans: int
    pacing_rate: int
    max_pacing_rate: int
    bytes_acked: int
    bytes_received: int
    segs_out: int
    segs_in: int
    notsent_bytes: int
    min_rtt: int
    data_segs_in: int
    data_segs_out: int
    delivery_rate: int
    busy_time: int
    rwnd_limited: int
    sndbuf_limited: int
    delivered: int
    delivered_ce: int
    bytes_sent: int
    bytes_retrans: int
    dsack_dups: int
    reord_seen: int
    rcv_ooopack: int
    snd_wnd: int
    rcv_wnd: int
    rehash: int
    total_rto: int
    total_rto_recoveries: int
    total_rto_time: int
    received_ce: int
    delivered_e1_bytes: int
    delivered_e0_bytes: int
    delivered_ce_bytes: int
    received_e1_bytes: int
    received_e0_bytes: int
    received_ce_bytes: int
    accecn_fail_mode: int
    accecn_opt_seen: int

    @classmethod
    def unpack(cls, data: bytes) -> "TcpInfo":
        """From the bytes of getsockopt(TCP_INFO). Fields that an older kernel does not have are
        0."""
        values = _STRUCT.unpack(data[:SIZE].ljust(SIZE, b"\0"))
        wscale, flags = values[6], values[7]
        fields = (*values[:6], wscale & 15, wscale >> 4, flags & 1, flags >> 1 & 3)
        return cls._make((*fields, *values[8:]))

    @classmethod
    def members(cls, size: int) -> tuple[str, ...]:
        """The fields that `size` bytes of the struct hold: those of an older kernel."""
        kinds = "".join(kind * int(count) for count, kind in re.findall(r"(\d+)(\w)", _FORMAT))
        ends = list(accumulate(struct.calcsize(kind) for kind in kinds))
        ends[6:8] = [7, 7, 8, 8]  # two bytes with two fields each
        return cls._fields[: sum(end <= size for end in ends)]


class _HasOptions(Protocol):
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


def tcp_info(sock: _HasOptions) -> TcpInfo:
    """Ask a TCP socket, of `skbus.socket` or of the kernel's. OSError as getsockopt(2) gives it."""
    return TcpInfo.unpack(sock.getsockopt(_IPPROTO_TCP, _TCP_INFO, SIZE))
