# SPDX-License-Identifier: MIT
"""Pluggable congestion control, and Reno (`net/ipv4/tcp_cong.c`).

A control is an object without state of its own: its memory of a connection is `tp.ca_priv`, a list
of ints. A `TcpNet` has a registry by name; `net.ipv4.tcp_congestion_control` names the default,
TCP_CONGESTION a socket's. RFC 5681 (Reno), RFC 3465 (byte counting), RFC 6582 (NewReno, in
tcp_ack).
"""

import errno
from collections.abc import Iterable
from typing import ClassVar, Final

from skbus.core.compiled import mypyc_attr
from skbus.core.sysctl import SysctlError
from skbusd.tcp.const import CA_EVENT_CWND_RESTART, TCP_CLOSE, TCP_LISTEN
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock

CONGESTION_CONTROL: Final = "net.ipv4.tcp_congestion_control"
AVAILABLE: Final = "net.ipv4.tcp_available_congestion_control"
ALLOWED: Final = "net.ipv4.tcp_allowed_congestion_control"


class RateSample:
    """What one ACK tells about delivery (`struct rate_sample`). Times in us; -1: not known."""

    __slots__ = (
        "acked_sacked",
        "delivered",
        "interval_us",
        "is_ack_delayed",
        "is_app_limited",
        "is_retrans",
        "last_end_seq",
        "losses",
        "prior_delivered",
        "prior_in_flight",
        "prior_mstamp",
        "rtt_us",
        "snd_interval_us",
    )

    def __init__(self) -> None:
        self.prior_mstamp = 0
        self.prior_delivered = 0
        self.prior_in_flight = 0
        self.delivered = -1
        self.interval_us = -1
        self.snd_interval_us = 0
        self.rtt_us = -1
        self.losses = 0
        self.acked_sacked = 0
        self.last_end_seq = 0
        self.is_app_limited = False
        self.is_retrans = False
        self.is_ack_delayed = False


@mypyc_attr(allow_interpreted_subclasses=True)
class TcpCongestionOps:
    """`struct tcp_congestion_ops`: override what differs from Reno. cwnd counts segments.

    One object serves all connections of a stack. The state of a connection goes into `tp.ca_priv`,
    a list of ints that `init` lays out (docs/congestion.md has an example).
    """

    name: ClassVar[str] = ""
    """The control's name for sysctl and TCP_CONGESTION: 1 to 15 characters without spaces."""
    full_control: ClassVar[bool] = False
    """`cong_control` sets cwnd and pacing rate on every ACK, in every state (BBR)."""
    needs_ecn: ClassVar[bool] = False
    """TCP_CONG_NEEDS_ECN: its connections ask for ECN, whatever `net.ipv4.tcp_ecn` says."""
    sndbuf_factor: ClassVar[int] = 2
    """`sndbuf_expand`: the send buffer holds so many times cwnd."""

    def init(self, net: TcpNet, tp: TcpSock) -> None:
        """A connection begins to use this control."""

    def ssthresh(self, net: TcpNet, tp: TcpSock) -> int:
        """The slow-start threshold after a loss (RFC 5681 3.1 (4))."""
        return max(tp.snd_cwnd >> 1, 2)

    def cong_avoid(self, net: TcpNet, tp: TcpSock, ack: int, acked: int) -> None:
        """`acked` segments were acknowledged up to `ack`: grow cwnd."""
        if not tcp_is_cwnd_limited(tp):
            return
        if tp.snd_cwnd < tp.snd_ssthresh:
            acked = tcp_slow_start(tp, acked)
            if not acked:
                return
        tcp_cong_avoid_ai(tp, tp.snd_cwnd, acked)

    def cong_control(self, net: TcpNet, tp: TcpSock, ack: int, flag: int, rs: RateSample) -> None:
        """Only with full_control."""

    def set_state(self, net: TcpNet, tp: TcpSock, state: int) -> None:
        """Before ca_state changes."""

    def cwnd_event(self, net: TcpNet, tp: TcpSock, event: int) -> None:
        """CA_EVENT_..."""

    def undo_cwnd(self, net: TcpNet, tp: TcpSock) -> int:
        """The cwnd to return to, once a reduction turned out to be a mistake."""
        return max(tp.snd_cwnd, tp.prior_cwnd)

    def pkts_acked(self, net: TcpNet, tp: TcpSock, pkts_acked: int, rtt_us: int) -> None:
        """After each ACK that acknowledged something; rtt_us -1: no sample."""

    def min_tso_segs(self, net: TcpNet, tp: TcpSock) -> int:
        """The fewest segments of a super-segment, where the pacing rate is low."""
        return net.ipv4.sysctl_tcp_min_tso_segs


@mypyc_attr(allow_interpreted_subclasses=True)
class TcpReno(TcpCongestionOps):
    """Reno (RFC 5681)."""

    name = "reno"


def tcp_is_cwnd_limited(tp: TcpSock) -> bool:
    """Did cwnd hold us back lately? In slow start, it did when more than half of it was used."""
    if tp.is_cwnd_limited:
        return True
    return tp.snd_cwnd < tp.snd_ssthresh and tp.snd_cwnd < 2 * tp.max_packets_out


def tcp_slow_start(tp: TcpSock, acked: int) -> int:
    """One segment more for each acknowledged one, up to ssthresh (RFC 5681, 3465); returns the
    acknowledged segments that are left for congestion avoidance."""
    cwnd = min(tp.snd_cwnd + acked, tp.snd_ssthresh)
    acked -= cwnd - tp.snd_cwnd
    tp.snd_cwnd = min(cwnd, tp.snd_cwnd_clamp)
    return acked


def tcp_cong_avoid_ai(tp: TcpSock, w: int, acked: int) -> None:
    """Additive increase: one segment more for each `w` acknowledged ones."""
    if tp.snd_cwnd_cnt >= w:
        tp.snd_cwnd_cnt = 0
        tp.snd_cwnd += 1
    tp.snd_cwnd_cnt += acked
    if tp.snd_cwnd_cnt >= w:
        delta = tp.snd_cwnd_cnt // w
        tp.snd_cwnd_cnt -= delta * w
        tp.snd_cwnd += delta
    if tp.snd_cwnd > tp.snd_cwnd_clamp:
        tp.snd_cwnd = tp.snd_cwnd_clamp


# ---- the registry ----------------------------------------------------------------------------


def tcp_register_congestion_control(net: TcpNet, ca: TcpCongestionOps) -> int:
    """Make a control known under its name. Returns an errno: EINVAL for a name that sysctl could
    not list, EEXIST."""
    name = ca.name
    if not 0 < len(name) <= 15 or not name.isascii() or not name.isprintable() or " " in name:
        return errno.EINVAL
    if name in net.cong:
        return errno.EEXIST
    net.cong[name] = ca
    _tell_sysctl(net)
    return 0


def tcp_unregister_congestion_control(net: TcpNet, name: str) -> int:
    """Forget a control. Returns an errno: ENOENT, EBUSY while a socket uses it.

    Differs from Linux: there a module in use cannot be unloaded in the first place.
    """
    if name not in net.cong:
        return errno.ENOENT
    if name == "reno" or any(tp.ca_name == name for tp in net.socks.values()):
        return errno.EBUSY
    del net.cong[name]
    _tell_sysctl(net)
    return 0


def _tell_sysctl(net: TcpNet) -> None:
    """Set the sysctl that lists the controls, and the checks of written names
    (`proc_tcp_congestion_control` and its like). A name that nobody registered is refused when it
    is set, not when it is used."""
    net.sysctl[AVAILABLE] = " ".join(net.cong)
    cong = net.cong

    def known(names: Iterable[str], what: str) -> None:
        for name in names:
            if name not in cong:
                raise SysctlError(f"{what}: no congestion control {name!r}; have: {' '.join(cong)}")

    def default(value: str) -> str:
        known([value], CONGESTION_CONTROL)
        return value

    def allowed(value: str) -> str:
        names = value.split()
        known(names, ALLOWED)
        return " ".join(names)

    def read_only(value: str) -> str:
        raise SysctlError(f"{AVAILABLE} can only be read")

    net.sysctl.checks.update({
        CONGESTION_CONTROL: default,
        ALLOWED: allowed,
        AVAILABLE: read_only,
    })  # fmt: skip


def tcp_allowed_congestion_control(net: TcpNet, name: str) -> bool:
    """May a process without CAP_NET_ADMIN use this control? The default is always allowed."""
    sysctl = net.sysctl
    return name == sysctl[CONGESTION_CONTROL] or name in sysctl[ALLOWED].split()


def tcp_ca_needs_ecn(net: TcpNet, tp: TcpSock) -> bool:
    """Does the socket's control want ECN?"""
    return net.cong[tp.ca_name].needs_ecn


def tcp_assign_congestion_control(net: TcpNet, tp: TcpSock) -> None:
    """The default control for a new socket."""
    name = net.sysctl[CONGESTION_CONTROL]
    tp.ca_name = name if name in net.cong else "reno"
    tp.ca_priv = []


def tcp_init_congestion_control(net: TcpNet, tp: TcpSock) -> None:
    """The connection is established: the control begins."""
    if tp.prior_ssthresh:
        tp.prior_ssthresh = 0
    tp.ca_priv = []
    net.cong[tp.ca_name].init(net, tp)


def tcp_set_congestion_control(
    net: TcpNet, tp: TcpSock, name: str, cap_net_admin: bool = True
) -> int:
    """TCP_CONGESTION. Returns an errno: ENOENT where there is none of that name, EPERM where it
    is not for everybody (`net.ipv4.tcp_allowed_congestion_control`)."""
    if name not in net.cong:
        return errno.ENOENT
    if not cap_net_admin and not tcp_allowed_congestion_control(net, name):
        return errno.EPERM
    tp.ca_setsockopt = True
    if name != tp.ca_name:
        tp.ca_name = name
        tp.ca_priv = []
        if tp.state not in (TCP_CLOSE, TCP_LISTEN):
            tcp_init_congestion_control(net, tp)
    return 0


# ---- what controls and recovery share --------------------------------------------------------


def tcp_set_ca_state(net: TcpNet, tp: TcpSock, state: int) -> None:
    """Change ca_state; the control hears of it first."""
    net.cong[tp.ca_name].set_state(net, tp, state)
    tp.ca_state = state


def tcp_ca_event(net: TcpNet, tp: TcpSock, event: int) -> None:
    """Tell the control."""
    net.cong[tp.ca_name].cwnd_event(net, tp, event)


def tcp_current_ssthresh(tp: TcpSock) -> int:
    """ssthresh for a restart: not below 3/4 of cwnd, unless a reduction is on."""
    if tp.ca_state >= 2:  # CWR, Recovery, Loss
        return tp.snd_ssthresh
    return max(tp.snd_ssthresh, (tp.snd_cwnd >> 1) + (tp.snd_cwnd >> 2))


def tcp_init_cwnd(tp: TcpSock) -> int:
    """RFC 6928."""
    return 10


def tcp_cwnd_restart(net: TcpNet, tp: TcpSock, idle_us: int) -> None:
    """Slow start after idle (RFC 2861, RFC 5681 4.1): halve cwnd for each RTO without sending."""
    restart = tcp_init_cwnd(tp)
    cwnd = tp.snd_cwnd
    tcp_ca_event(net, tp, CA_EVENT_CWND_RESTART)
    tp.snd_ssthresh = tcp_current_ssthresh(tp)
    restart = min(restart, cwnd)
    while (idle_us := idle_us - tp.icsk_rto) > 0 and cwnd > restart:
        cwnd >>= 1
    tp.snd_cwnd = max(cwnd, restart)
    tp.snd_cwnd_stamp = net.now
    tp.snd_cwnd_used = 0
