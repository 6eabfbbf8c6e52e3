# SPDX-License-Identifier: MIT
"""The timers of a socket (`net/ipv4/tcp_timer.c`): retransmission, delayed ACK, zero-window probe,
keepalive, the orphan in FIN_WAIT2.

Called by the timers of `net`, with a socket's number. RFC 6298 5 (back-off), RFC 1122 4.2.3.5
(R1 and R2), 4.2.3.6 (keepalive), RFC 5482 (user timeout).
"""

import errno
from typing import Final

from skbusd.tcp.const import (
    ICSK_ACK_SCHED,
    ICSK_ACK_TIMER,
    ICSK_TIME_LOSS_PROBE,
    ICSK_TIME_NONE,
    ICSK_TIME_PROBE0,
    ICSK_TIME_REO_TIMEOUT,
    ICSK_TIME_RETRANS,
    TCP_ATO_MIN,
    TCP_CA_DISORDER,
    TCP_CA_LOSS,
    TCP_CA_RECOVERY,
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_CLOSING,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT1,
    TCP_FIN_WAIT2,
    TCP_LAST_ACK,
    TCP_LISTEN,
    TCP_RESOURCE_PROBE_INTERVAL,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
    TCP_TIMEWAIT_LEN,
)
from skbusd.tcp.inet_connection_sock import (
    inet_csk_reset_delack_timer,
    inet_csk_reset_keepalive_timer,
    inet_csk_reset_xmit_timer,
    sk_error_report,
    tcp_done,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.request_sock import TcpRequestSock
from skbusd.tcp.sk_lock import SK_OWNED
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_fastopen import tcp_fastopen_active_detect_blackhole
from skbusd.tcp.tcp_fastretrans import (
    tcp_cwnd_reduction,
    tcp_enter_loss,
    tcp_enter_recovery,
    tcp_packets_in_flight,
)
from skbusd.tcp.tcp_handshake import tcp_send_active_reset
from skbusd.tcp.tcp_input import (
    keepalive_time_when,
    tcp_fin_time,
)
from skbusd.tcp.tcp_memory import tcp_check_oom
from skbusd.tcp.tcp_minisocks import rtx_syn_ack
from skbusd.tcp.tcp_mtu_probe import tcp_mtu_probing
from skbusd.tcp.tcp_output import (
    __tcp_push_pending_frames,
    tcp_probe0_base,
    tcp_rearm_rto,
    tcp_send_ack,
)
from skbusd.tcp.tcp_recovery import tcp_rack_detect_loss
from skbusd.tcp.tcp_retransmit import (
    tcp_retransmit_skb,
    tcp_send_loss_probe,
    tcp_send_probe0,
    tcp_write_wakeup,
    tcp_xmit_retransmit_queue,
)
from skbusd.tcp.tcp_timewait import tcp_time_wait
from skbusd.tcp.tcp_window import tcp_current_mss

_SENDING: Final = (
    TCP_ESTABLISHED,
    TCP_FIN_WAIT1,
    TCP_CLOSING,
    TCP_CLOSE_WAIT,
    TCP_LAST_ACK,
)


def tcp_write_timer(net: TcpNet, number: int) -> None:
    """The one timer of the sending side fired: do the work that it was armed for."""
    tp = net.socks.get(number)
    if tp is None or tp.state in (TCP_CLOSE, TCP_LISTEN) or not tp.icsk_pending:
        return
    if tp.sk_lock & SK_OWNED:
        net.sk_owned[number].deferred.append(lambda: tcp_write_timer(net, number))
        return
    if tp.icsk_timeout > net.now:
        assert tp.write_timer is not None
        net.mod_timer(tp.write_timer, tp.icsk_timeout)
        return
    tp.tcp_mstamp = net.now // 1000
    event = tp.icsk_pending
    if event == ICSK_TIME_REO_TIMEOUT:
        tcp_rack_reo_timeout(net, tp)
    elif event == ICSK_TIME_LOSS_PROBE:
        tcp_send_loss_probe(net, tp)
    elif event == ICSK_TIME_RETRANS:
        tp.icsk_pending = ICSK_TIME_NONE
        tcp_retransmit_timer(net, tp)
    elif event == ICSK_TIME_PROBE0:
        tp.icsk_pending = ICSK_TIME_NONE
        tcp_probe_timer(net, tp)


def tcp_pace_kick(net: TcpNet, number: int) -> None:
    """The pacing timer fired: waiting segments may go, retransmissions first (`tcp_tsq_write`)."""
    tp = net.socks.get(number)
    if tp is None or tp.state not in _SENDING:
        return
    tp.tcp_mstamp = net.now // 1000
    if tp.lost_out > tp.retrans_out and tp.snd_cwnd > tcp_packets_in_flight(tp):
        tcp_xmit_retransmit_queue(net, tp)
    if tp.write_queue:
        __tcp_push_pending_frames(net, tp, tcp_current_mss(net, tp), tp.nonagle)


def tcp_rack_reo_timeout(net: TcpNet, tp: TcpSock) -> None:
    """Segments that RACK gave more time were not acknowledged: they are lost (RFC 8985 6.3)."""
    prior_inflight = tcp_packets_in_flight(tp)
    prior_lost = tp.lost
    tcp_rack_detect_loss(net, tp)
    if prior_inflight != tcp_packets_in_flight(tp):
        if tp.ca_state != TCP_CA_RECOVERY:
            tcp_enter_recovery(net, tp, False)
            if not net.cong[tp.ca_name].full_control:
                tcp_cwnd_reduction(tp, 1, tp.lost - prior_lost, 0)
        tcp_xmit_retransmit_queue(net, tp)
    if tp.icsk_pending != ICSK_TIME_RETRANS:
        tcp_rearm_rto(net, tp)


# ---- giving up -------------------------------------------------------------------------------


def tcp_write_err(net: TcpNet, tp: TcpSock) -> None:
    """The peer does not answer: end the connection with an error."""
    net.mib["TcpExtTCPAbortOnTimeout"] += 1
    sk_error_report(net, tp, tp.err_soft or errno.ETIMEDOUT, True)
    tcp_done(net, tp)


def tcp_orphan_retries(net: TcpNet, tp: TcpSock, alive: bool) -> int:
    """The number of retries for a connection that no application has any more."""
    retries = int(net.sysctl["net.ipv4.tcp_orphan_retries"])
    if tp.err_soft and not alive:
        retries = 0
    return 8 if not retries and alive else retries


def tcp_model_timeout(net: TcpNet, boundary: int, rto_base: int) -> int:
    """The time, us, that `boundary` retransmissions take with exponential back-off."""
    rto_max = net.ipv4.sysctl_tcp_rto_max_ms * 1000
    thresh = (rto_max // rto_base).bit_length() - 1
    if boundary <= thresh:
        return ((2 << boundary) - 1) * rto_base
    return ((2 << thresh) - 1) * rto_base + (boundary - thresh) * rto_max


def retransmits_timed_out(net: TcpNet, tp: TcpSock, boundary: int, timeout: int) -> bool:
    """Have retransmissions lasted longer than `timeout` us, or than `boundary` of them take?"""
    if not tp.icsk_retransmits:
        return False
    if not timeout:
        syn = tp.state in (TCP_SYN_SENT, TCP_SYN_RECV)
        timeout = tcp_model_timeout(net, boundary, 1_000_000 if syn else 200_000)
    return net.now // 1000 - tp.retrans_stamp >= timeout


def tcp_write_timeout(net: TcpNet, tp: TcpSock) -> bool:
    """R2 of RFC 1122 4.2.3.5; True: the connection is over."""
    sysctl = net.sysctl
    if tp.state in (TCP_SYN_SENT, TCP_SYN_RECV):
        # Differs from Linux: timeouts in SYN_SENT do not count again after a simultaneous open: it
        # would end at once.
        retry_until = tp.icsk_syn_retries or sysctl["net.ipv4.tcp_syn_retries"]
        limit = retry_until + sysctl["net.ipv4.tcp_syn_linear_timeouts"]
        # Linear timeouts allow more retransmissions, but not for a longer time.
        expired = tp.icsk_retransmits >= limit or retransmits_timed_out(
            net, tp, retry_until, tp.icsk_user_timeout * 1000
        )
    else:
        if retransmits_timed_out(net, tp, sysctl["net.ipv4.tcp_retries1"], 0):
            tcp_mtu_probing(net, tp)
        retry_until = sysctl["net.ipv4.tcp_retries2"]
        if tp.dead:
            alive = tp.icsk_rto < sysctl["net.ipv4.tcp_rto_max_ms"] * 1000
            retry_until = tcp_orphan_retries(net, tp, alive)
        expired = retransmits_timed_out(net, tp, retry_until, tp.icsk_user_timeout * 1000)
    tcp_fastopen_active_detect_blackhole(net, tp, expired)
    if not expired and tp.dead and tcp_out_of_resources(net, tp):
        return True
    if expired:
        tcp_write_err(net, tp)
    return expired


def tcp_out_of_resources(net: TcpNet, tp: TcpSock) -> bool:
    """`tcp_out_of_resources`: where memory is short, an orphan without progress goes first; one
    behind a shut window counts twice."""
    if not tcp_check_oom(net, tp, int(not tp.snd_wnd)):
        return False
    if net.now - tp.lsndtime * 1000 <= TCP_TIMEWAIT_LEN:
        tcp_send_active_reset(net, tp)
    tcp_done(net, tp)
    net.mib["TcpExtTCPAbortOnMemory"] += 1
    return True


# ---- retransmission --------------------------------------------------------------------------


def _count_failure(net: TcpNet, tp: TcpSock) -> None:
    """Count the recovery that the timeout ended."""
    sack = tp.sack_ok
    if tp.ca_state == TCP_CA_RECOVERY:
        name = "TCPSackRecoveryFail" if sack else "TCPRenoRecoveryFail"
    elif tp.ca_state == TCP_CA_LOSS:
        name = "TCPLossFailures"
    elif tp.ca_state == TCP_CA_DISORDER or tp.sacked_out:
        name = "TCPSackFailures" if sack else "TCPRenoFailures"
    else:
        return
    net.mib["TcpExt" + name] += 1


def tcp_fastopen_synack_timer(net: TcpNet, tp: TcpSock, req: TcpRequestSock) -> None:
    """The handshake of a Fast Open child is not complete: send the SYN-ACK again, once more often
    than without Fast Open."""
    max_retries = tp.icsk_syn_retries or net.sysctl["net.ipv4.tcp_synack_retries"] + 1
    net.mib["TcpExtTCPTimeouts"] += 1
    if req.num_timeout >= max_retries:
        tcp_write_err(net, tp)
        return
    if tp.icsk_retransmits == 1:
        tcp_enter_loss(net, tp)
    rtx_syn_ack(net, tp, req, req.num_timeout + 1)
    req.num_timeout += 1
    tcp_update_rto_stats(net, tp)
    tp.total_retrans += 1
    tp.retrans_stamp = tp.retrans_stamp or net.now // 1000
    inet_csk_reset_xmit_timer(net, tp, ICSK_TIME_RETRANS, 1_000_000 << req.num_timeout)


def tcp_update_rto_stats(net: TcpNet, tp: TcpSock) -> None:
    """Count a timeout; the first in a row begins a recovery (`tcp_update_rto_time` ends it)."""
    if not tp.icsk_retransmits:
        tp.total_rto_recoveries += 1
        tp.rto_stamp = net.now // 1_000_000 or 1
    tp.icsk_retransmits += 1
    tp.total_rto += 1


def tcp_retransmit_timer(net: TcpNet, tp: TcpSock) -> None:
    """The oldest segment was not acknowledged in time (RFC 6298 5.4 to 5.6)."""
    if tp.fastopen_rsk is not None:
        tcp_fastopen_synack_timer(net, tp, tp.fastopen_rsk)
        return
    if not tp.packets_out or not tp.rtx_queue:
        return
    if net.tracing:
        net.trace("tcp_retransmit_timer", sk=tp.number, rto=tp.icsk_rto)
    syn = tp.state in (TCP_SYN_SENT, TCP_SYN_RECV)
    if not tp.snd_wnd and not tp.dead and not syn:
        # The peer has shrunk its window to nothing: the segment is not lost, but serves as a probe.
        if net.now - tp.rcv_tstamp > net.ipv4.sysctl_tcp_rto_max_ms * 2_000_000:
            tcp_write_err(net, tp)
            return
        tcp_enter_loss(net, tp)
        tcp_retransmit_skb(net, tp, 0, 1)
        _back_off(net, tp)
        return
    net.mib["TcpExtTCPTimeouts"] += 1
    if tcp_write_timeout(net, tp):
        return
    if not tp.icsk_retransmits:
        _count_failure(net, tp)
    if not syn:
        tcp_enter_loss(net, tp)
    else:
        tp.undo_marker = tp.snd_una or 1
    tcp_update_rto_stats(net, tp)
    tcp_retransmit_skb(net, tp, 0, 1)
    if tp.state != TCP_SYN_SENT or (
        tp.icsk_retransmits > net.sysctl["net.ipv4.tcp_syn_linear_timeouts"]
    ):
        _back_off(net, tp)
    else:
        inet_csk_reset_xmit_timer(net, tp, ICSK_TIME_RETRANS, _rto_to_user_timeout(net, tp))


def _rto_to_user_timeout(net: TcpNet, tp: TcpSock) -> int:
    """`tcp_clamp_rto_to_user_timeout`: the next timeout, us, but no later than TCP_USER_TIMEOUT
    ends the connection."""
    if not tp.icsk_user_timeout:
        return tp.icsk_rto
    left = tp.icsk_user_timeout * 1000 - (net.now // 1000 - tp.retrans_stamp)
    return max(min(tp.icsk_rto, left), 1)


def _back_off(net: TcpNet, tp: TcpSock) -> None:
    """RFC 6298 5.5."""
    tp.icsk_backoff += 1
    tp.icsk_rto = min(tp.icsk_rto << 1, net.ipv4.sysctl_tcp_rto_max_ms * 1000)
    inet_csk_reset_xmit_timer(net, tp, ICSK_TIME_RETRANS, _rto_to_user_timeout(net, tp))


def tcp_probe_timer(net: TcpNet, tp: TcpSock) -> None:
    """The window is still shut: probe, within limits (RFC 9293 3.8.6.1)."""
    if tp.packets_out or not tp.write_queue:
        tp.icsk_probes_out = 0
        tp.icsk_probes_tstamp = 0
        return
    rto_max = net.ipv4.sysctl_tcp_rto_max_ms * 1000
    now = net.now // 1000
    if not tp.icsk_probes_tstamp:
        tp.icsk_probes_tstamp = now
    elif tp.icsk_user_timeout and now - tp.icsk_probes_tstamp >= tp.icsk_user_timeout * 1000:
        tcp_write_err(net, tp)
        return
    max_probes = net.sysctl["net.ipv4.tcp_retries2"]
    if tp.dead:
        alive = tcp_probe0_base(tp) << tp.icsk_backoff < rto_max
        if tcp_out_of_resources(net, tp):
            return
        max_probes = tcp_orphan_retries(net, tp, alive)
        if not alive and tp.icsk_backoff >= max_probes:
            tcp_write_err(net, tp)
            return
    if tp.icsk_probes_out >= max_probes:
        tcp_write_err(net, tp)
    else:
        tcp_send_probe0(net, tp)


# ---- delayed ACK, keepalive ------------------------------------------------------------------


def tcp_delack_timer(net: TcpNet, number: int) -> None:
    """No data has carried the ACK: send it alone."""
    tp = net.socks.get(number)
    if tp is None or tp.state in (TCP_CLOSE, TCP_LISTEN) or not tp.ack_pending & ICSK_ACK_TIMER:
        return
    if tp.sk_lock & SK_OWNED:
        net.mib["TcpExtDelayedACKLocked"] += 1
        net.sk_owned[number].deferred.append(lambda: tcp_delack_timer(net, number))
        return
    if tp.ack_timeout > net.now:
        inet_csk_reset_delack_timer(net, tp, tp.ack_timeout)
        return
    tp.ack_pending &= ~ICSK_ACK_TIMER
    if tp.ack_pending & ICSK_ACK_SCHED:
        if not tp.ack_pingpong:
            tp.ack_ato = min(tp.ack_ato << 1, tp.icsk_rto * 1000)
        else:
            tp.ack_pingpong = 0
            tp.ack_ato = TCP_ATO_MIN
        tp.tcp_mstamp = net.now // 1000
        tcp_send_ack(net, tp)
        net.mib["TcpExtDelayedACKs"] += 1


def tcp_compressed_ack_kick(net: TcpNet, number: int) -> None:
    """Send the ACK for which several were held back."""
    tp = net.socks.get(number)
    if tp is not None and tp.state not in (TCP_CLOSE, TCP_LISTEN) and tp.compressed_ack:
        tp.compressed_ack -= 1  # this one is sent
        tcp_send_ack(net, tp)


def keepalive_intvl_when(net: TcpNet, tp: TcpSock) -> int:
    """TCP_KEEPINTVL, ns."""
    seconds = tp.keepalive_intvl or net.sysctl["net.ipv4.tcp_keepalive_intvl"]
    return int(seconds) * 1_000_000_000


def tcp_keepalive_timer(net: TcpNet, number: int) -> None:
    """sk_timer: end an orphan in FIN_WAIT2 that has waited enough, or probe a quiet peer."""
    tp = net.socks.get(number)
    if tp is None or tp.state in (TCP_LISTEN, TCP_CLOSE):
        return
    tp.tcp_mstamp = net.now // 1000
    if tp.state == TCP_FIN_WAIT2 and tp.dead:
        if tp.linger2 >= 0:
            timeo = tcp_fin_time(net, tp) - TCP_TIMEWAIT_LEN
            if timeo > 0:
                tcp_time_wait(net, tp, TCP_FIN_WAIT2, timeo)
                return
        tcp_send_active_reset(net, tp)
        tcp_done(net, tp)
        return
    if not tp.keepopen or tp.state == TCP_SYN_SENT:
        return
    idle_limit = keepalive_time_when(net, tp)
    if tp.packets_out or tp.write_queue:
        inet_csk_reset_keepalive_timer(net, tp, idle_limit)
        return
    elapsed = min(net.now - tp.ack_lrcvtime, net.now - tp.rcv_tstamp)
    if elapsed < idle_limit:
        inet_csk_reset_keepalive_timer(net, tp, idle_limit - elapsed)
        return
    user_timeout = tp.icsk_user_timeout * 1_000_000
    limit = tp.keepalive_probes or net.sysctl["net.ipv4.tcp_keepalive_probes"]
    if (user_timeout and elapsed >= user_timeout and tp.icsk_probes_out > 0) or (
        not user_timeout and tp.icsk_probes_out >= limit
    ):
        tcp_send_active_reset(net, tp)
        tcp_write_err(net, tp)
        return
    if tcp_write_wakeup(net, tp, "TcpExtTCPKeepAlive"):
        tp.icsk_probes_out += 1
        inet_csk_reset_keepalive_timer(net, tp, keepalive_intvl_when(net, tp))
    else:
        inet_csk_reset_keepalive_timer(net, tp, TCP_RESOURCE_PROBE_INTERVAL)
