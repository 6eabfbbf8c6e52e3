# SPDX-License-Identifier: MIT
"""TCP Fast Open (`net/ipv4/tcp_fastopen.c`, RFC 7413): data in the SYN, to a server that knows us
by a cookie. Here are the cookies, the limits of a listener and the client's decisions.

    client   tcp.tcp_sendmsg_fastopen -> tcp_handshake.tcp_send_syn_data: data in a SYN
             tcp_input.tcp_rcv_fastopen_synack (what the SYN-ACK says)
    server   tcp_ipv4.tcp_v4_conn_request -> tcp_fastopen_child: a child in SYN_RECV, whose request
             sock (`fastopen_rsk`) lives until the handshake is complete

The cookie is Linux's: SipHash-2-4 of both addresses under `net.ipv4.tcp_fastopen_key`.
"""

from dataclasses import dataclass
from typing import Final

from skbus.core.skbuff import Frag
from skbusd.tcp.const import TCP_LISTEN
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_metrics import tcp_fastopen_cache_get

# net.ipv4.tcp_fastopen
TFO_CLIENT_ENABLE: Final = 1
TFO_SERVER_ENABLE: Final = 2
TFO_CLIENT_NO_COOKIE: Final = 4
TFO_SERVER_COOKIE_NOT_REQD: Final = 0x200
TFO_SERVER_WO_SOCKOPT1: Final = 0x400

# tcpi_fastopen_client_fail
TFO_COOKIE_UNAVAILABLE: Final = 1
TFO_DATA_NOT_ACKED: Final = 2
TFO_SYN_RETRANSMITTED: Final = 3

KEY_LENGTH: Final = 16
RST_HOLD: Final = 60 * 1_000_000_000
"""The time for which a reset Fast Open connection counts against the listener's limit, so that
spoofed SYNs do not pay (RFC 7413 5.1)."""


@dataclass(slots=True)
class TcpFastopenRequest:
    """`struct tcp_fastopen_request`: the data and cookie of a SYN that is about to be sent."""

    frags: tuple[Frag, ...] = ()
    size: int = 0
    total: int = 0
    """Bytes of the whole call."""
    req: int = 0
    """The socket layer's request, to be answered once the SYN has gone; 0: nobody sends data."""
    wait: bool = False
    cookie: bytes | None = b""
    """None: the option is left out; b'': it asks for a cookie."""
    exp: bool = False
    copied: int = 0


# ---- keys and cookies ------------------------------------------------------------------------


def parse_key(text: str) -> bytes | None:
    """`net.ipv4.tcp_fastopen_key`, four words of 32 bits in hex with dashes, as 16 bytes."""
    words = text.strip().split("-")
    try:
        if len(words) != 4 or not all(0 < len(word) <= 8 for word in words):
            return None
        return b"".join([int(word, 16).to_bytes(4, "little") for word in words])
    except ValueError:
        return None


def tcp_fastopen_get_keys(net: TcpNet, listener: TcpSock) -> list[bytes]:
    """The keys that count for a listener: its own (TCP_FASTOPEN_KEY), else the sysctl's, else a
    random one. The first key makes cookies; those of each key are accepted (RFC 7413 4.1.2,
    rotation)."""
    own = listener.fastopen_key
    if own:
        return [own[i : i + KEY_LENGTH] for i in range(0, len(own), KEY_LENGTH)]
    keys = []
    for text in str(net.sysctl["net.ipv4.tcp_fastopen_key"]).split(","):
        key = parse_key(text)
        if key is not None:
            keys.append(key)
    return keys or [net.fastopen_secret]


def tcp_fastopen_cookie_gen(net: TcpNet, key: bytes, client: bytes, server: bytes) -> bytes:
    """The cookie of a client's address (RFC 7413 4.1.2)."""
    return net.siphash(client + server, key).to_bytes(8, "little")


def tcp_fastopen_no_cookie(net: TcpNet, tp: TcpSock, flag: int) -> bool:
    """Does this end do without cookies?"""
    return bool(net.sysctl["net.ipv4.tcp_fastopen"] & flag or tp.fastopen_no_cookie)


# ---- the listener ----------------------------------------------------------------------------


def fastopen_queue_tune(net: TcpNet, tp: TcpSock, backlog: int) -> None:
    """TCP_FASTOPEN: how many connections may wait for the end of their handshake."""
    tp.fastopenq_max_qlen = min(backlog, int(net.sysctl["net.core.somaxconn"]))


def tcp_fastopen_listen(net: TcpNet, tp: TcpSock, backlog: int) -> None:
    """listen(2): the sysctl may enable Fast Open for every listener (`inet_listen`)."""
    bits = net.sysctl["net.ipv4.tcp_fastopen"]
    if bits & TFO_SERVER_WO_SOCKOPT1 and bits & TFO_SERVER_ENABLE and not tp.fastopenq_max_qlen:
        fastopen_queue_tune(net, tp, backlog)


def tcp_fastopen_queue_check(net: TcpNet, listener: TcpSock) -> bool:
    """May one more connection begin with data (RFC 7413 5.1)?"""
    if not listener.fastopenq_max_qlen:
        return False
    if listener.fastopenq_qlen >= listener.fastopenq_max_qlen:
        rst = listener.fastopenq_rst
        if not rst or rst[0] > net.now:
            net.mib["TcpExtTCPFastOpenListenOverflow"] += 1
            return False
        listener.fastopenq_rst = rst[1:]
        listener.fastopenq_qlen -= 1
    return True


def reqsk_fastopen_remove(net: TcpNet, child: TcpSock, reset: bool) -> None:
    """The handshake is complete, or the child is gone (`net/core/request_sock.c`)."""
    req = child.fastopen_rsk
    if req is None:
        return
    child.fastopen_rsk = None
    listener = net.socks.get(req.listener)
    if listener is None or listener.state != TCP_LISTEN:
        return
    listener.fastopenq_qlen -= 1
    if reset and not child.parent:
        listener.fastopenq_rst = (*listener.fastopenq_rst, net.now + RST_HOLD)
        listener.fastopenq_qlen += 1


# ---- the client ------------------------------------------------------------------------------


def tcp_fastopen_active_disable(net: TcpNet) -> None:
    """A middlebox swallows Fast Open: none from us for a while, longer each time (RFC 7413 7.1)."""
    if net.sysctl["net.ipv4.tcp_fastopen_blackhole_timeout_sec"]:
        net.tfo_active_disable_stamp = net.now
        net.tfo_active_disable_times += 1
        net.mib["TcpExtTCPFastOpenBlackhole"] += 1


def tcp_fastopen_active_should_disable(net: TcpNet, tp: TcpSock) -> bool:
    """Is Fast Open disabled at present, because of a middlebox?"""
    seconds = int(net.sysctl["net.ipv4.tcp_fastopen_blackhole_timeout_sec"])
    times = net.tfo_active_disable_times
    if not seconds or not times:
        return False
    timeout = (seconds << min(times - 1, 6)) * 1_000_000_000
    if net.now < net.tfo_active_disable_stamp + timeout:
        return True
    tp.syn_fastopen_ch = True
    return False


def tcp_fastopen_active_disable_ofo_check(net: TcpNet, tp: TcpSock) -> None:
    """A connection that began with Fast Open ends: did nothing but a FIN out of order come? If data
    came, there is no black hole."""
    if not tp.syn_fastopen:
        return
    if not tp.data_segs_in:
        if len(tp.ofo) == 1 and tp.ofo[0].fin:
            tcp_fastopen_active_disable(net)
    elif tp.syn_fastopen_ch and net.tfo_active_disable_times and tp.daddr[0] != 127:
        net.tfo_active_disable_times = 0


def tcp_fastopen_active_detect_blackhole(net: TcpNet, tp: TcpSock, expired: bool) -> None:
    """A Fast Open connection retransmits: the third time in vain is suspicious."""
    timeouts = tp.icsk_retransmits
    if (tp.syn_fastopen or tp.syn_data or tp.syn_data_acked) and (
        timeouts == 2 or (timeouts < 2 and expired)
    ):
        tcp_fastopen_active_disable(net)
        net.mib["TcpExtTCPFastOpenActiveFail"] += 1


def tcp_fastopen_cookie_check(net: TcpNet, tp: TcpSock, fo: TcpFastopenRequest) -> bool:
    """May the SYN carry data? Puts the cookie into `fo`, and the host's remembered MSS into
    tp.mss_clamp (RFC 7413 4.1.3)."""
    mss, cookie, fo.exp = tcp_fastopen_cache_get(net, tp.saddr, tp.daddr)
    if mss:
        tp.mss_clamp = mss
    fo.cookie = cookie
    if tcp_fastopen_active_should_disable(net, tp):
        fo.cookie = None
        return False
    if tcp_fastopen_no_cookie(net, tp, TFO_CLIENT_NO_COOKIE):
        fo.cookie = None
        return True
    if cookie:
        return True
    tp.fastopen_client_fail = TFO_COOKIE_UNAVAILABLE
    return False


def tcp_fastopen_defer_connect(net: TcpNet, tp: TcpSock) -> bool:
    """TCP_FASTOPEN_CONNECT: with a cookie, connect(2) waits for the first data; without one, the
    SYN asks for it."""
    if not tp.fastopen_connect or tp.fastopen_req is not None:
        return False
    fo = TcpFastopenRequest()
    clamp = tp.mss_clamp
    can = tcp_fastopen_cookie_check(net, tp, fo)
    tp.mss_clamp = clamp
    if can:
        tp.defer_connect = True
        return True
    tp.fastopen_req = fo
    return False
