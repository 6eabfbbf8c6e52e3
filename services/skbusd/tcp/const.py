# SPDX-License-Identifier: MIT
"""Constants of TCP under Linux's names (`include/net/tcp.h`, `tcp_states.h`, `uapi/linux/tcp.h`).

Times with the suffix _US are microseconds, the others nanoseconds.
"""

from typing import Final

from skbus.core import uapi
from skbus.core.uapi import *  # noqa: F403 - states and options, under Linux's names

STATE_NAMES: Final = {
    uapi.TCP_ESTABLISHED: "ESTABLISHED",
    uapi.TCP_SYN_SENT: "SYN_SENT",
    uapi.TCP_SYN_RECV: "SYN_RECV",
    uapi.TCP_FIN_WAIT1: "FIN_WAIT1",
    uapi.TCP_FIN_WAIT2: "FIN_WAIT2",
    uapi.TCP_TIME_WAIT: "TIME_WAIT",
    uapi.TCP_CLOSE: "CLOSE",
    uapi.TCP_CLOSE_WAIT: "CLOSE_WAIT",
    uapi.TCP_LAST_ACK: "LAST_ACK",
    uapi.TCP_LISTEN: "LISTEN",
    uapi.TCP_CLOSING: "CLOSING",
    uapi.TCP_NEW_SYN_RECV: "NEW_SYN_RECV",
}

# userlocks: what the user has set, and the stack must leave (net/sock.h)
SOCK_SNDBUF_LOCK: Final = 1
SOCK_RCVBUF_LOCK: Final = 2
SOCK_BINDADDR_LOCK: Final = 4
SOCK_BINDPORT_LOCK: Final = 8
WINDOW_CLAMP_LOCK: Final = 16
"""Ours: TCP_WINDOW_CLAMP outlives the connection."""

# The ECN field of the TOS byte (RFC 3168 5)
INET_ECN_NOT_ECT: Final = 0
INET_ECN_ECT_0: Final = 2
INET_ECN_CE: Final = 3
INET_ECN_MASK: Final = 3

# TcpSock.ecn_flags
TCP_ECN_MODE_RFC3168: Final = 1
TCP_ECN_QUEUE_CWR: Final = 2
TCP_ECN_DEMAND_CWR: Final = 4
TCP_ECN_SEEN: Final = 8
TCP_ECN_MODE_ACCECN: Final = 16
TCP_ECN_MODE_ANY: Final = TCP_ECN_MODE_RFC3168 | TCP_ECN_MODE_ACCECN
TCP_ECN_MODE_PENDING: Final = TCP_ECN_MODE_ANY

# TcpSock.chrono_type (enum tcp_chrono)
TCP_CHRONO_UNSPEC: Final = 0
TCP_CHRONO_BUSY: Final = 1
TCP_CHRONO_RWND_LIMITED: Final = 2

# tcpi_options of TCP_INFO (uapi/linux/tcp.h)
TCPI_OPT_TIMESTAMPS: Final = 1
TCPI_OPT_SACK: Final = 2
TCPI_OPT_WSCALE: Final = 4
TCPI_OPT_ECN: Final = 8
TCPI_OPT_ECN_SEEN: Final = 16
TCPI_OPT_SYN_DATA: Final = 32

# push_one of tcp_write_xmit
PUSH_ONE: Final = 1
PUSH_ONE_PROBE: Final = 2
"""One segment, whatever cwnd says: a tail loss probe."""

# Header flags (RFC 9293 3.1)
FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20
ECE: Final = 0x40
CWR: Final = 0x80


# Sizes
IP_HDR: Final = 20
TCP_HDR: Final = 20
TCPOLEN_TSTAMP_ALIGNED: Final = 12
TCP_MSS_DEFAULT: Final = 536  # RFC 9293 3.7.1
TCP_MIN_MSS: Final = 88
TCP_MAX_WSCALE: Final = 14  # RFC 7323 2.3
TCP_INIT_CWND: Final = 10  # RFC 6928
TCP_INFINITE_SSTHRESH: Final = 0x7FFFFFFF
MAX_TCP_WINDOW: Final = 32767
GSO_LEGACY_MAX_PAYLOAD: Final = 65535 - 20 - 60
"""What one IPv4 packet can carry behind a TCP header with all options."""
MAX_TCP_HEADER: Final = 320
"""What a super-segment leaves free for all headers."""
TCP_MAX_QUICKACKS: Final = 16
TCP_NUM_SACKS: Final = 4
TCP_OFO_MAX_SKBS: Final = 16384

# Times
TCP_TIMEOUT_INIT: Final = 1_000_000_000  # RFC 6298 2.1
TCP_TIMEOUT_FALLBACK: Final = 3_000_000_000
TCP_RTO_MIN_US: Final = 200_000
TCP_DELACK_MIN: Final = 40_000_000
TCP_DELACK_MAX: Final = 200_000_000
TCP_ATO_MIN: Final = 40_000_000
TCP_TIMEWAIT_LEN: Final = 60_000_000_000
TCP_FIN_TIMEOUT_MAX: Final = 120_000_000_000
TCP_PAWS_24DAYS: Final = 24 * 24 * 3600
TCP_PAWS_MSL: Final = 60
TCP_PAWS_WINDOW: Final = 1
TCP_RESOURCE_PROBE_INTERVAL: Final = 500_000_000
TCP_RTT_PREV_RETRANS_US: Final = -1
TCP_KEEPALIVE_MAX_IDLE: Final = 32767
TCP_KEEPALIVE_MAX_INTVL: Final = 32767
TCP_KEEPALIVE_MAX_CNT: Final = 127
TCP_MAX_SYNCNT: Final = 127

# icsk_pending: what the one write timer is armed for (include/net/inet_connection_sock.h)
ICSK_TIME_NONE: Final = 0
ICSK_TIME_RETRANS: Final = 1
ICSK_TIME_PROBE0: Final = 3
ICSK_TIME_LOSS_PROBE: Final = 5
ICSK_TIME_REO_TIMEOUT: Final = 6

# icsk_ack.pending
ICSK_ACK_SCHED: Final = 1
ICSK_ACK_TIMER: Final = 2
ICSK_ACK_PUSHED: Final = 4
ICSK_ACK_PUSHED2: Final = 8
ICSK_ACK_NOW: Final = 16

# icsk_ca_state (enum tcp_ca_state)
TCP_CA_OPEN: Final = 0
TCP_CA_DISORDER: Final = 1
TCP_CA_CWR: Final = 2
TCP_CA_RECOVERY: Final = 3
TCP_CA_LOSS: Final = 4

# TcpSeg.sacked (TCPCB_...)
SACKED_ACKED: Final = 1
SACKED_RETRANS: Final = 2
LOST: Final = 4
TAGBITS: Final = 7
EVER_RETRANS: Final = 0x80
TCPCB_RETRANS: Final = SACKED_RETRANS | EVER_RETRANS
"""The segment was sent again; EVER_RETRANS stays even when it is marked lost once more."""

# nonagle
TCP_NAGLE_OFF: Final = 1
TCP_NAGLE_CORK: Final = 2
TCP_NAGLE_PUSH: Final = 4

# Events to congestion control (enum tcp_ca_event)
CA_EVENT_TX_START: Final = 0
CA_EVENT_CWND_RESTART: Final = 1
CA_EVENT_COMPLETE_CWR: Final = 2
CA_EVENT_LOSS: Final = 3
CA_EVENT_ECN_NO_CE: Final = 4
CA_EVENT_ECN_IS_CE: Final = 5

# Flags of tcp_ack (net/ipv4/tcp_input.c)
FLAG_DATA: Final = 0x01
FLAG_WIN_UPDATE: Final = 0x02
FLAG_DATA_ACKED: Final = 0x04
FLAG_RETRANS_DATA_ACKED: Final = 0x08
FLAG_SYN_ACKED: Final = 0x10
FLAG_DATA_SACKED: Final = 0x20
FLAG_ECE: Final = 0x40
FLAG_LOST_RETRANS: Final = 0x80
FLAG_SLOWPATH: Final = 0x100
FLAG_ORIG_SACK_ACKED: Final = 0x200
FLAG_SND_UNA_ADVANCED: Final = 0x400
FLAG_DSACKING_ACK: Final = 0x800
FLAG_SET_XMIT_TIMER: Final = 0x1000
FLAG_SACK_RENEGING: Final = 0x2000
FLAG_UPDATE_TS_RECENT: Final = 0x4000
FLAG_NO_CHALLENGE_ACK: Final = 0x8000
FLAG_DSACK_TLP: Final = 0x20000
FLAG_TS_PROGRESS: Final = 0x40000
FLAG_ACKED: Final = FLAG_DATA_ACKED | FLAG_SYN_ACKED
FLAG_NOT_DUP: Final = FLAG_DATA | FLAG_WIN_UPDATE | FLAG_ACKED
FLAG_CA_ALERT: Final = FLAG_DATA_SACKED | FLAG_ECE | FLAG_DSACKING_ACK
FLAG_FORWARD_PROGRESS: Final = FLAG_ACKED | FLAG_DATA_SACKED
