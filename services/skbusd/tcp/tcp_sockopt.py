# SPDX-License-Identifier: MIT
"""setsockopt, getsockopt and TCP_INFO (`net/ipv4/tcp.c`, `ip_sockglue.c`, `net/core/sock.c`), for
the options that TCP must know. Called by the socket layer; `man 7 tcp`, `man 7 ip`, `man 7 socket`.
"""

import errno
import struct
from typing import Final

from skbus.core import uapi
from skbus.core.abi import Getsockopt, Setsockopt, XmitCb
from skbus.core.seq import MASK
from skbus.inet.transport import sk_ret
from skbusd.tcp import const as c
from skbusd.tcp.const import (
    SOCK_RCVBUF_LOCK,
    SOCK_SNDBUF_LOCK,
    TCP_CHRONO_BUSY,
    TCP_CHRONO_RWND_LIMITED,
    TCP_ECN_MODE_ANY,
    TCP_ECN_SEEN,
    TCPI_OPT_ECN,
    TCPI_OPT_ECN_SEEN,
    TCPI_OPT_SACK,
    TCPI_OPT_SYN_DATA,
    TCPI_OPT_TIMESTAMPS,
    TCPI_OPT_WSCALE,
    WINDOW_CLAMP_LOCK,
)
from skbusd.tcp.inet_connection_sock import (
    inet_csk_delete_keepalive_timer,
    inet_csk_reset_keepalive_timer,
)
from skbusd.tcp.inet_hashtables import KIND_REUSE, KIND_REUSEPORT
from skbusd.tcp.ip_sockglue import do_ip_setsockopt, ip_getsockopt
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp import __tcp_cleanup_rbuf
from skbusd.tcp.tcp_accecn import tcp_accecn_info
from skbusd.tcp.tcp_cong import tcp_set_congestion_control
from skbusd.tcp.tcp_data import tcp_enter_quickack_mode
from skbusd.tcp.tcp_fastopen import (
    KEY_LENGTH,
    TFO_CLIENT_ENABLE,
    fastopen_queue_tune,
    tcp_fastopen_get_keys,
)
from skbusd.tcp.tcp_input import keepalive_time_when
from skbusd.tcp.tcp_output import tcp_push_pending_frames
from skbusd.tcp.tcp_pacing import NO_LIMIT, SK_PACING_NEEDED
from skbusd.tcp.tcp_window import tcp_build_xmit_cb

_TCP_INFO: Final = struct.Struct("=8B24I4Q6I4Q2I2Q6I2H9I")
_STATES_IDLE: Final = (c.TCP_CLOSE, c.TCP_LISTEN)


def tcp_setsockopt(net: TcpNet, item: Setsockopt) -> None:
    """`tcp_setsockopt`, with the options that SOL_SOCKET and IPPROTO_IP pass on."""
    tp = net.socks.get(item.sk)
    if tp is None:
        err = errno.EBADF
    elif item.level == c.IPPROTO_TCP:
        err = do_tcp_setsockopt(net, tp, item.optname, item.value, item.cap_net_admin)
    elif item.level == c.SOL_SOCKET:
        err = sock_setsockopt(net, tp, item.optname, item.value)
    elif item.level == c.IPPROTO_IP:
        err = do_ip_setsockopt(net, tp, item.optname, item.value)
    else:
        err = errno.ENOPROTOOPT
    sk_ret(net, item.sk, item.req, err)


def _int(value: bytes) -> int | None:
    """An int option's value; ip(7) options may be one byte."""
    if len(value) >= 4:
        return int.from_bytes(value[:4], "little", signed=True)
    return value[0] if len(value) == 1 else None


def sock_setsockopt(net: TcpNet, tp: TcpSock, name: int, value: bytes) -> int:
    """SOL_SOCKET: an errno."""
    if name == uapi.SO_BINDTODEVICE:
        return _bindtodevice(net, tp, value)
    val = _int(value)
    if val is None:
        return errno.EINVAL
    if name == c.SO_MAX_PACING_RATE:
        _set_max_pacing_rate(tp, value)
    elif name in (c.SO_RCVBUF, c.SO_RCVBUFFORCE):
        if name == c.SO_RCVBUF:
            val = min(val & MASK, net.sysctl["net.core.rmem_max"])
        tp.userlocks |= SOCK_RCVBUF_LOCK
        tp.rcvbuf = max(min(max(val, 0), (2**31 - 1) // 2) * 2, 2304)
    elif name in (c.SO_SNDBUF, c.SO_SNDBUFFORCE):
        if name == c.SO_SNDBUF:
            val = min(val & MASK, net.sysctl["net.core.wmem_max"])
        tp.userlocks |= SOCK_SNDBUF_LOCK
        tp.sndbuf = max(min(max(val, 0), (2**31 - 1) // 2) * 2, 4608)
    elif name == c.SO_KEEPALIVE:
        tp.keepopen = bool(val)
        if tp.state not in _STATES_IDLE:
            if val:
                inet_csk_reset_keepalive_timer(net, tp, keepalive_time_when(net, tp))
            elif not tp.dead:
                inet_csk_delete_keepalive_timer(tp)
    elif name == c.SO_REUSEADDR:
        tp.reuse = tp.reuse & ~KIND_REUSE | bool(val)
    elif name == c.SO_REUSEPORT:
        tp.reuse = tp.reuse & ~KIND_REUSEPORT | (KIND_REUSEPORT if val else 0)
    elif name == c.SO_RCVLOWAT:
        tp.rcvlowat = val if val > 0 else 1
    elif name == c.SO_PRIORITY:
        tp.priority = val
    elif name == c.SO_MARK:
        tp.mark = val & MASK
    elif name == c.SO_LINGER:
        if len(value) < 8:
            return errno.EINVAL
        tp.linger = int.from_bytes(value[4:8], "little") if val else -1
    return 0


def _set_max_pacing_rate(tp: TcpSock, value: bytes) -> None:
    """SO_MAX_PACING_RATE: B/s, of 4 or 8 bytes; all ones is no limit. From now on the socket is
    paced, even after the limit is taken away again."""
    rate = int.from_bytes(value[:8] if len(value) >= 8 else value[:4], "little")
    if rate == 0xFFFFFFFF and len(value) < 8:
        rate = NO_LIMIT
    if rate != NO_LIMIT:
        tp.pacing_status = max(tp.pacing_status, SK_PACING_NEEDED)
    tp.max_pacing_rate = rate
    tp.pacing_rate = min(tp.pacing_rate, rate)


def _bindtodevice(net: TcpNet, tp: TcpSock, value: bytes) -> int:
    """SO_BINDTODEVICE: the socket sends by that device."""
    name = value.split(b"\0", 1)[0].decode("utf-8", "replace")
    found = [event.ifindex for event in net.inetdev.values() if event.dev == name]
    if name and not found:
        return errno.ENODEV
    tp.oif = found[0] if found else 0
    if isinstance(tp.xmit_cb, XmitCb):
        tcp_build_xmit_cb(tp)
    return 0


_BOUNDED: Final = {
    c.TCP_KEEPIDLE: ("keepalive_time", 1, c.TCP_KEEPALIVE_MAX_IDLE),
    c.TCP_KEEPINTVL: ("keepalive_intvl", 1, c.TCP_KEEPALIVE_MAX_INTVL),
    c.TCP_KEEPCNT: ("keepalive_probes", 1, c.TCP_KEEPALIVE_MAX_CNT),
    c.TCP_SYNCNT: ("icsk_syn_retries", 1, c.TCP_MAX_SYNCNT),
    c.TCP_USER_TIMEOUT: ("icsk_user_timeout", 0, 2**31 - 1),
    c.TCP_NOTSENT_LOWAT: ("notsent_lowat", -(2**31), 2**31 - 1),
}


def do_tcp_setsockopt(
    net: TcpNet, tp: TcpSock, name: int, value: bytes, cap_net_admin: bool = True
) -> int:
    """IPPROTO_TCP: an errno."""
    # In one piece: a list of options, each by itself.
    if name == c.TCP_CONGESTION:
        if not value:
            return errno.EINVAL
        text = value[:15].split(b"\0")[0].decode("ascii", "replace")
        return tcp_set_congestion_control(net, tp, text, cap_net_admin)
    if name == c.TCP_FASTOPEN_KEY:
        if len(value) not in (KEY_LENGTH, 2 * KEY_LENGTH):
            return errno.EINVAL
        tp.fastopen_key = value
        return 0
    val = _int(value)
    if val is None or len(value) < 4:
        return errno.EINVAL
    if name in _BOUNDED:
        field, low, high = _BOUNDED[name]
        if not low <= val <= high:
            return errno.EINVAL
        setattr(tp, field, val)
        if name == c.TCP_KEEPIDLE and tp.keepopen and tp.state not in _STATES_IDLE:
            elapsed = min(net.now - tp.ack_lrcvtime, net.now - tp.rcv_tstamp)
            left = max(keepalive_time_when(net, tp) - elapsed, 0)
            inet_csk_reset_keepalive_timer(net, tp, left)
    elif name == c.TCP_NODELAY:
        if val:
            tp.nonagle |= c.TCP_NAGLE_OFF
            _push(net, tp, tp.nonagle | c.TCP_NAGLE_PUSH)
        else:
            tp.nonagle &= ~c.TCP_NAGLE_OFF
    elif name == c.TCP_CORK:
        if val:
            tp.nonagle |= c.TCP_NAGLE_CORK
        else:
            tp.nonagle &= ~c.TCP_NAGLE_CORK
            _push(net, tp, tp.nonagle | (c.TCP_NAGLE_PUSH if tp.nonagle else 0))
    elif name == c.TCP_MAXSEG:
        if val and not c.TCP_MIN_MSS <= val <= 32767:
            return errno.EINVAL
        tp.user_mss = val
    elif name == c.TCP_LINGER2:
        tp.linger2 = -1 if val < 0 else min(val, 120)
    elif name == c.TCP_DEFER_ACCEPT:
        # Seconds, kept as the number of SYN-ACKs that take as long.
        tp.defer_accept = secs_to_retrans(val)
    elif name == c.TCP_WINDOW_CLAMP:
        if not val:
            if tp.state != c.TCP_CLOSE:
                return errno.EINVAL
            tp.window_clamp = 0
            tp.userlocks &= ~WINDOW_CLAMP_LOCK
        else:
            tp.window_clamp = max(val, 2304 // 2)
            tp.userlocks |= WINDOW_CLAMP_LOCK
            tp.rcv_ssthresh = min(tp.rcv_ssthresh, tp.window_clamp)
    elif name == c.TCP_QUICKACK:
        _quickack(net, tp, val)
    elif name in (c.TCP_FASTOPEN, c.TCP_FASTOPEN_CONNECT, c.TCP_FASTOPEN_NO_COOKIE):
        return _fastopen_option(net, tp, name, val)
    elif name == c.TCP_TIMESTAMP:
        return errno.EPERM
    else:
        return errno.ENOPROTOOPT
    return 0


_RTO_MAX: Final = 120
"""s; the doubling of SYN-ACK timeouts ends here (TCP_RTO_MAX)."""


def secs_to_retrans(seconds: int) -> int:
    """`secs_to_retrans`: the number of SYN-ACKs that take as long: the first a second, each next
    one twice the time before."""
    if seconds <= 0:
        return 0
    count = period = timeout = 1
    while seconds > period and count < 255:
        count += 1
        timeout = min(timeout << 1, _RTO_MAX)
        period += timeout
    return count


def retrans_to_secs(count: int) -> int:
    """`retrans_to_secs`: the seconds that this number of SYN-ACKs takes."""
    period, timeout = 0, 1
    for _ in range(count):
        period += timeout
        timeout = min(timeout << 1, _RTO_MAX)
    return period


def _fastopen_option(net: TcpNet, tp: TcpSock, name: int, val: int) -> int:
    """TCP_FASTOPEN, a listener's limit; TCP_FASTOPEN_CONNECT and TCP_FASTOPEN_NO_COOKIE."""
    if name == c.TCP_FASTOPEN:
        if val < 0 or tp.state not in _STATES_IDLE:
            return errno.EINVAL
        fastopen_queue_tune(net, tp, val)
    elif not 0 <= val <= 1:
        return errno.EINVAL
    elif name == c.TCP_FASTOPEN_NO_COOKIE:
        if tp.state not in _STATES_IDLE:
            return errno.EINVAL
        tp.fastopen_no_cookie = bool(val)
    else:
        if not net.sysctl["net.ipv4.tcp_fastopen"] & TFO_CLIENT_ENABLE:
            return errno.EOPNOTSUPP
        if tp.state != c.TCP_CLOSE:
            return errno.EINVAL
        tp.fastopen_connect = bool(val)
    return 0


def _push(net: TcpNet, tp: TcpSock, nonagle: int) -> None:
    """Send data that Nagle held back."""
    if tp.state in _STATES_IDLE or tp.state == c.TCP_SYN_SENT:
        return
    saved, tp.nonagle = tp.nonagle, nonagle
    tcp_push_pending_frames(net, tp)
    tp.nonagle = saved


def _quickack(net: TcpNet, tp: TcpSock, val: int) -> None:
    """TCP_QUICKACK: acknowledge now, and for a while without delay."""
    if not val:
        tp.ack_pingpong = max(tp.ack_pingpong, 1)
        return
    tp.ack_pingpong = 0
    if tp.state in (c.TCP_ESTABLISHED, c.TCP_CLOSE_WAIT):
        if tp.ack_pending & c.ICSK_ACK_SCHED:
            tp.ack_pending |= c.ICSK_ACK_PUSHED
            tp.ack_pending |= c.ICSK_ACK_PUSHED2
            rmem, tp.rmem_alloc = tp.rmem_alloc, 0
            __tcp_cleanup_rbuf(net, tp, 1)
            tp.rmem_alloc = rmem
        else:
            tcp_enter_quickack_mode(tp, c.TCP_MAX_QUICKACKS)
        if not val & 1:
            tp.ack_pingpong = max(tp.ack_pingpong, 1)


# ---- getsockopt ------------------------------------------------------------------------------


def tcp_getsockopt(net: TcpNet, item: Getsockopt) -> None:
    """`tcp_getsockopt`"""
    tp = net.socks.get(item.sk)
    if tp is None:
        sk_ret(net, item.sk, item.req, errno.EBADF)
        return
    value: bytes | int | None = errno.EOPNOTSUPP
    if item.level == c.IPPROTO_TCP:
        value = do_tcp_getsockopt(net, tp, item.optname)
    elif item.level == c.SOL_SOCKET:
        value = _sock_option(tp, item.optname, item.optlen)
    elif item.level == c.IPPROTO_IP:
        value = ip_getsockopt(net, tp, item.optname, item.optlen or 4)
    if value is None:
        value = errno.ENOPROTOOPT
    if isinstance(value, int):
        sk_ret(net, item.sk, item.req, value)
    else:
        sk_ret(net, item.sk, item.req, 0, value[: item.optlen] if item.optlen else value)


def _pack(val: int) -> bytes:
    return (val & MASK).to_bytes(4, "little")


def _sock_option(tp: TcpSock, name: int, optlen: int) -> bytes | None:
    if name == c.SO_MAX_PACING_RATE:
        rate = tp.max_pacing_rate
        return rate.to_bytes(8, "little") if optlen >= 8 else _pack(min(rate, MASK))
    if name == uapi.SO_MEMINFO:
        return sk_get_meminfo(tp)
    values = {
        c.SO_RCVBUF: tp.rcvbuf,
        c.SO_SNDBUF: tp.sndbuf,
        c.SO_KEEPALIVE: tp.keepopen,
        c.SO_REUSEADDR: tp.reuse & KIND_REUSE,
        c.SO_REUSEPORT: tp.reuse >> 1,
        c.SO_RCVLOWAT: tp.rcvlowat,
        c.SO_PRIORITY: tp.priority,
        c.SO_MARK: tp.mark,
    }
    return _pack(values[name]) if name in values else None


def sk_get_meminfo(tp: TcpSock) -> bytes:
    """`sk_get_meminfo`: SO_MEMINFO's nine numbers (`uapi/linux/sock_diag.h`).

    Differs from Linux: SK_MEMINFO_WMEM_ALLOC and _BACKLOG are 0, as no sent skb is charged to its
    socket below tcp, and no socket has a backlog.
    """
    queued = (tp.write_seq - tp.snd_una) & MASK
    held = tp.rmem_alloc + tp.ofo_bytes
    ahead = max(tp.rmem_charged + tp.wmem_charged - held - queued, 0)
    numbers = (held, tp.rcvbuf, 0, tp.sndbuf, ahead, queued, 0, 0, 0)
    return struct.pack("=9I", *[n & MASK for n in numbers])


def do_tcp_getsockopt(net: TcpNet, tp: TcpSock, name: int) -> bytes | None:
    """IPPROTO_TCP: the option's bytes, None for no such option."""
    sysctl = net.sysctl
    if name == c.TCP_INFO:
        return tcp_get_info(net, tp)
    if name == c.TCP_CONGESTION:
        return tp.ca_name.encode().ljust(16, b"\0")
    if name == c.TCP_MAXSEG:
        mss = tp.mss_cache
        if tp.user_mss and tp.state in _STATES_IDLE:
            mss = tp.user_mss
        return _pack(mss)
    if name == c.TCP_DEFER_ACCEPT:
        return _pack(retrans_to_secs(tp.defer_accept))
    if name == c.TCP_FASTOPEN_KEY:
        return b"".join(tcp_fastopen_get_keys(net, tp))
    values = {
        c.TCP_NODELAY: tp.nonagle & c.TCP_NAGLE_OFF,
        c.TCP_CORK: (tp.nonagle & c.TCP_NAGLE_CORK) >> 1,
        c.TCP_KEEPIDLE: tp.keepalive_time or sysctl["net.ipv4.tcp_keepalive_time"],
        c.TCP_KEEPINTVL: tp.keepalive_intvl or sysctl["net.ipv4.tcp_keepalive_intvl"],
        c.TCP_KEEPCNT: tp.keepalive_probes or sysctl["net.ipv4.tcp_keepalive_probes"],
        c.TCP_SYNCNT: tp.icsk_syn_retries or sysctl["net.ipv4.tcp_syn_retries"],
        c.TCP_LINGER2: tp.linger2 or sysctl["net.ipv4.tcp_fin_timeout"],
        c.TCP_WINDOW_CLAMP: tp.window_clamp,
        c.TCP_QUICKACK: not tp.ack_pingpong,
        c.TCP_USER_TIMEOUT: tp.icsk_user_timeout,
        c.TCP_TIMESTAMP: (net.now // 1_000_000 + tp.tsoffset),
        c.TCP_NOTSENT_LOWAT: tp.notsent_lowat,
        c.TCP_FASTOPEN: tp.fastopenq_max_qlen,
        c.TCP_FASTOPEN_CONNECT: tp.fastopen_connect,
        c.TCP_FASTOPEN_NO_COOKIE: tp.fastopen_no_cookie,
    }
    return _pack(int(values[name])) if name in values else None


def _info_u32(net: TcpNet, tp: TcpSock) -> tuple[int, ...]:
    """tcpi_rto to tcpi_total_retrans."""
    now = net.now // 1000

    def ms_since(then_us: int) -> int:
        return max(now - then_us, 0) // 1000

    listening = tp.state == c.TCP_LISTEN
    return (
        tp.icsk_rto,
        tp.ack_ato // 1000,
        tp.mss_cache,
        tp.ack_rcv_mss,
        len(tp.accept_queue or ()) if listening else tp.packets_out,
        tp.max_ack_backlog if listening else tp.sacked_out,
        tp.lost_out,
        tp.retrans_out,
        0,  # fackets, which Linux no longer counts
        ms_since(tp.lsndtime),
        0,
        ms_since(tp.ack_lrcvtime // 1000),
        ms_since(tp.rcv_tstamp // 1000),
        tp.pmtu,
        tp.rcv_ssthresh,
        tp.srtt_us >> 3,
        tp.mdev_us >> 2,
        tp.snd_ssthresh,
        tp.snd_cwnd,
        tp.advmss,
        tp.reordering,
        tp.rcv_rtt_us >> 3,
        tp.rcvq_space_space,
        tp.total_retrans,
    )


def _info_rto(net: TcpNet, tp: TcpSock) -> tuple[int, int, int]:
    """tcpi_total_rto, the recoveries, and their time in ms, with one that still lasts."""
    time = tp.total_rto_time
    if tp.rto_stamp:
        time += net.now // 1_000_000 - tp.rto_stamp
    return tp.total_rto & 0xFFFF, tp.total_rto_recoveries & 0xFFFF, time & MASK


def _info_chrono(net: TcpNet, tp: TcpSock) -> tuple[int, int]:
    """tcpi_busy_time and tcpi_rwnd_limited, us."""
    busy, rwnd_limited = tp.chrono_busy, tp.chrono_rwnd
    if tp.chrono_type == TCP_CHRONO_BUSY:
        busy += net.now // 1000 - tp.chrono_start
    elif tp.chrono_type == TCP_CHRONO_RWND_LIMITED:
        rwnd_limited += net.now // 1000 - tp.chrono_start
    return busy + rwnd_limited, rwnd_limited


def _tcpi_options(tp: TcpSock) -> int:
    """tcpi_options: the options that both ends agreed on, and the signs seen."""
    options = 0
    if tp.tstamp_ok:
        options |= TCPI_OPT_TIMESTAMPS
    if tp.sack_ok:
        options |= TCPI_OPT_SACK
    if tp.wscale_ok:
        options |= TCPI_OPT_WSCALE
    if tp.syn_data_acked:
        options |= TCPI_OPT_SYN_DATA
    if tp.ecn_flags & TCP_ECN_MODE_ANY:
        options |= TCPI_OPT_ECN
    if tp.ecn_flags & TCP_ECN_SEEN:
        options |= TCPI_OPT_ECN_SEEN
    return options


def tcp_get_info(net: TcpNet, tp: TcpSock) -> bytes:
    """struct tcp_info, whole (`uapi/linux/tcp.h` of Linux 6.18).

    Differs from Linux: tcpi_rehash is 0, as no packet of ours has a hash that could change.
    """
    rate = 0
    if tp.rate_interval_us:
        rate = tp.rate_delivered * tp.mss_cache * 1_000_000 // tp.rate_interval_us
    return _TCP_INFO.pack(
        tp.state,
        tp.ca_state,
        min(tp.icsk_retransmits, 255),
        min(tp.icsk_probes_out, 255),
        min(tp.icsk_backoff, 255),
        _tcpi_options(tp),
        tp.snd_wscale | tp.rcv_wscale << 4,
        tp.rate_app_limited | tp.fastopen_client_fail << 1,
        *[v & MASK for v in _info_u32(net, tp)],
        tp.pacing_rate,
        tp.max_pacing_rate,
        tp.bytes_acked,
        tp.bytes_received,
        tp.segs_out & MASK,
        tp.segs_in & MASK,
        max((tp.write_seq - tp.snd_nxt) & MASK, 0),
        (tp.rtt_min[0][1] if tp.rtt_min else MASK),
        tp.data_segs_in & MASK,
        tp.data_segs_out & MASK,
        rate,
        *_info_chrono(net, tp),
        0,
        tp.delivered & MASK,
        tp.delivered_ce & MASK,
        tp.bytes_sent,
        tp.bytes_retrans,
        tp.dsack_dups & MASK,
        tp.reord_seen & MASK,
        tp.rcv_ooopack & MASK,
        tp.snd_wnd & MASK,
        tp.rcv_wnd & MASK,
        0,
        *_info_rto(net, tp),
        *[v & MASK for v in tcp_accecn_info(tp)],
    )
