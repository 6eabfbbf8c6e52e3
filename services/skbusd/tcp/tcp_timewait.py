# SPDX-License-Identifier: MIT
"""TIME_WAIT (`tcp_minisocks.c`, `inet_timewait_sock.c`): a small rest of a connection, kept while
its last segments may still be under way.

`tcp_time_wait` is called where a connection has ended on our side first; tcp_ipv4 asks
`tcp_timewait_state_process` about segments that come for it. RFC 9293 3.6.1 and 3.10.7.4, RFC 1337
(hazards of RST), RFC 6191 (a new connection by timestamps).
"""

from typing import Final

from skbus.core.seq import MASK, after, before
from skbus.core.timer import Timer
from skbus.inet.headers.tcp import TcpHdr, TcpOptions
from skbusd.tcp.const import (
    ACK,
    FIN,
    RST,
    SYN,
    TCP_FIN_WAIT2,
    TCP_PAWS_24DAYS,
    TCP_PAWS_MSL,
    TCP_TIME_WAIT,
    TCP_TIMEWAIT_LEN,
)
from skbusd.tcp.inet_connection_sock import tcp_done
from skbusd.tcp.inet_hashtables import inet_twsk_deschedule_put, inet_unhash
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.request_sock import TcpTimewaitSock
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_handshake import tcp_time_stamp, tcp_v4_send_ack
from skbusd.tcp.tcp_window import tcp_receive_window

TCP_TW_SUCCESS: Final = 0
TCP_TW_RST: Final = 1
TCP_TW_ACK: Final = 2
TCP_TW_SYN: Final = 3


def tcp_in_window(seq: int, end_seq: int, start: int, window: int) -> bool:
    """`tcp_in_window`: RFC 9293 3.4, table 6, and an empty segment at the right edge."""
    if seq == start:
        return True
    edge = (start + window) & MASK
    if after(end_seq, start) and before(seq, edge):
        return True
    return seq == edge == end_seq


def tcp_time_wait(net: TcpNet, tp: TcpSock, state: int, timeo: int) -> None:
    """End the socket; a small one takes its place in TIME_WAIT, or FIN_WAIT2, for `timeo` ns."""
    key = tp.key
    if key and net.tw_count < net.shard_limit(net.sysctl["net.ipv4.tcp_max_tw_buckets"]):
        tw = TcpTimewaitSock(tp, state)
        tw.rcv_wnd = tcp_receive_window(tp)
        if tp.bound_port:
            bucket = net.bhash.get(tp.bound_port)
            if bucket is None:
                tw.bind_kind = -1
            else:
                bucket.add(tw.bound_addr, tw.bind_kind)
        else:
            tw.bind_kind = -1
        inet_unhash(net, tp)
        net.ehash[key] = tw
        net.tw_count += 1
        if state == TCP_TIME_WAIT:
            timeo = TCP_TIMEWAIT_LEN
        tw.timer = Timer(tw_timer_handler, key)
        net.mod_timer(tw.timer, net.now + max(timeo, 1))
    elif key:
        net.mib["TcpExtTCPTimeWaitOverflow"] += 1
    tcp_done(net, tp)


def tw_timer_handler(net: TcpNet, key: bytes) -> None:
    """Twice the maximum segment life has passed: end the TIME_WAIT."""
    tw = net.ehash.get(key)
    if type(tw) is TcpTimewaitSock:
        net.mib["TcpExtTW"] += 1
        inet_twsk_deschedule_put(net, tw)


def inet_twsk_reschedule(net: TcpNet, tw: TcpTimewaitSock, timeo: int) -> None:
    """Begin the wait anew."""
    if tw.timer is not None:
        net.mod_timer(tw.timer, net.now + timeo)


def _oow(net: TcpNet, tw: TcpTimewaitSock, name: str, data: bool) -> int:
    """`tcp_timewait_check_oow_rate_limit`: answer a segment out of window with an ACK, within the
    rate limit; data is exempt, as it cannot make a loop of ACKs."""
    if data:
        return TCP_TW_ACK
    if tw.last_oow_ack_time:
        elapsed = net.now - tw.last_oow_ack_time
        if 0 <= elapsed < net.sysctl["net.ipv4.tcp_invalid_ratelimit"] * 1_000_000:
            net.mib[name] += 1
            return TCP_TW_SUCCESS
    tw.last_oow_ack_time = net.now
    return TCP_TW_ACK


def _fin_wait2_state_process(
    net: TcpNet,
    tw: TcpTimewaitSock,
    th: TcpHdr,
    end_seq: int,
    opt: TcpOptions,
    paws_reject: bool,
) -> int:
    """A segment for an orphan in FIN_WAIT2: the peer's FIN is due, and no application can take
    data."""
    seq, flags = th.seq, th.flags
    if paws_reject or not tcp_in_window(seq, end_seq, tw.rcv_nxt, tw.rcv_wnd):
        data = seq != end_seq and not flags & SYN
        return _oow(net, tw, "TcpExtTCPACKSkippedFinWait2", data)
    if flags & RST:
        inet_twsk_deschedule_put(net, tw)
        return TCP_TW_SUCCESS
    if flags & SYN and not before(seq, tw.rcv_nxt):
        return TCP_TW_RST
    if not flags & ACK or not after(end_seq, tw.rcv_nxt) or end_seq == seq:
        return TCP_TW_SUCCESS
    if not flags & FIN or end_seq != (tw.rcv_nxt + 1) & MASK:
        return TCP_TW_RST  # data for an application that has gone
    tw.substate = TCP_TIME_WAIT
    tw.rcv_nxt = end_seq
    if opt.saw_tstamp:
        tw.ts_recent_stamp = net.now // 1_000_000_000 or 1
        tw.ts_recent = opt.tsval
    inet_twsk_reschedule(net, tw, TCP_TIMEWAIT_LEN)
    return TCP_TW_ACK


def tcp_timewait_state_process(
    net: TcpNet, tw: TcpTimewaitSock, th: TcpHdr, end_seq: int, opt: TcpOptions
) -> int:
    """Decide how to answer a segment for TIME_WAIT: nothing, an ACK, a RST, or (TCP_TW_SYN) a new
    connection. The caller begins that beyond the old numbers."""
    seq, flags = th.seq, th.flags
    now_s = net.now // 1_000_000_000
    paws_reject = False
    if opt.saw_tstamp and tw.ts_recent_stamp:
        old = before(opt.tsval, tw.ts_recent)
        paws_reject = old and now_s < tw.ts_recent_stamp + TCP_PAWS_24DAYS
        if flags & RST:
            paws_reject = paws_reject and now_s < tw.ts_recent_stamp + TCP_PAWS_MSL
    if tw.substate == TCP_FIN_WAIT2:
        return _fin_wait2_state_process(net, tw, th, end_seq, opt, paws_reject)
    if not paws_reject and seq == tw.rcv_nxt and (seq == end_seq or flags & RST):
        if flags & RST:
            if not net.sysctl["net.ipv4.tcp_rfc1337"]:
                inet_twsk_deschedule_put(net, tw)
                return TCP_TW_SUCCESS
        else:
            inet_twsk_reschedule(net, tw, TCP_TIMEWAIT_LEN)
        if opt.saw_tstamp:
            tw.ts_recent = opt.tsval
            tw.ts_recent_stamp = now_s or 1
        return TCP_TW_SUCCESS
    # RFC 9293 3.10.7.4, RFC 6191 2: a SYN beyond the old numbers, or with a later timestamp, is
    # new.
    if (
        flags & SYN
        and not flags & (RST | ACK)
        and not paws_reject
        and (after(seq, tw.rcv_nxt) or (opt.saw_tstamp and after(opt.tsval, tw.ts_recent)))
    ):
        return TCP_TW_SYN
    if paws_reject:
        net.mib["TcpExtPAWSTimewait"] += 1
    if flags & RST:
        return TCP_TW_SUCCESS
    data = seq != end_seq and not flags & SYN
    if paws_reject or flags & ACK:
        inet_twsk_reschedule(net, tw, TCP_TIMEWAIT_LEN)
    return _oow(net, tw, "TcpExtTCPACKSkippedTimeWait", data)


def tcp_v4_timewait_ack(net: TcpNet, tw: TcpTimewaitSock) -> None:
    """Send an ACK with the old connection's numbers."""
    tcp_v4_send_ack(
        net,
        tw,
        tw.snd_nxt,
        tw.rcv_nxt,
        tw.rcv_wnd >> tw.rcv_wscale,
        tcp_time_stamp(net, tw.ts_offset),
        tw.ts_recent,
        bool(tw.ts_recent_stamp),
    )
