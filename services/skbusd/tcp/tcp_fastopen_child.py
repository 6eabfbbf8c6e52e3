# SPDX-License-Identifier: MIT
"""A SYN with data for a listener (`net/ipv4/tcp_fastopen.c`, RFC 7413 4.2): its cookie's check, and
the child that takes the data before the handshake ends.

Called by tcp_ipv4 for every SYN that is not answered with a SYN cookie. Calls tcp_minisocks (the
child), tcp_data (its data).
"""

from typing import Final

from skbus.core.seq import MASK
from skbus.core.skbuff import SkBuff
from skbus.inet.headers.tcp import TcpHdr, TcpOptions
from skbusd.tcp.const import (
    ICSK_TIME_RETRANS,
    PSH,
)
from skbusd.tcp.inet_connection_sock import inet_csk_reset_xmit_timer
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.request_sock import TcpRequestSock
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_data import tcp_queue_rcv
from skbusd.tcp.tcp_fastopen import (
    TFO_SERVER_COOKIE_NOT_REQD,
    TFO_SERVER_ENABLE,
    tcp_fastopen_cookie_gen,
    tcp_fastopen_get_keys,
    tcp_fastopen_no_cookie,
    tcp_fastopen_queue_check,
)
from skbusd.tcp.tcp_input import tcp_init_transfer
from skbusd.tcp.tcp_minisocks import tcp_create_openreq_child

TCP_TIMEOUT_INIT_US: Final = 1_000_000


def tcp_try_fastopen(
    net: TcpNet,
    listener: TcpSock,
    req: TcpRequestSock,
    th: TcpHdr,
    opt: TcpOptions,
    syn_data: bool,
) -> tuple[bool, bytes | None]:
    """(may the connection begin at once?, the cookie for the SYN-ACK or None)."""
    foc = opt.fastopen
    if foc == b"":
        net.mib["TcpExtTCPFastOpenCookieReqd"] += 1
    if (
        not net.sysctl["net.ipv4.tcp_fastopen"] & TFO_SERVER_ENABLE
        or not (syn_data or foc is not None)
        or not tcp_fastopen_queue_check(net, listener)
    ):
        return False, None
    if tcp_fastopen_no_cookie(net, listener, TFO_SERVER_COOKIE_NOT_REQD):
        net.mib["TcpExtTCPFastOpenPassive"] += 1
        return True, None
    if foc is None:
        return False, None
    valid = [
        tcp_fastopen_cookie_gen(net, key, req.daddr, req.saddr)
        for key in tcp_fastopen_get_keys(net, listener)
    ]
    if net.tracing:
        net.trace("tcp_try_fastopen", sk=listener.number, valid=foc in valid)
    if foc in valid:
        net.mib["TcpExtTCPFastOpenPassive"] += 1
        if foc == valid[0]:
            return True, None
        net.mib["TcpExtTCPFastOpenPassiveAltKey"] += 1
        return True, valid[0]
    if foc:
        net.mib["TcpExtTCPFastOpenPassiveFail"] += 1
    return False, valid[0]


def tcp_fastopen_create_child(
    net: TcpNet, listener: TcpSock, req: TcpRequestSock, th: TcpHdr, skb: SkBuff
) -> TcpSock:
    """The child, in SYN_RECV, in the accept queue, with the SYN's data; takes the skb.

    The caller sends the SYN-ACK; the child's write timer repeats it.
    """
    child = tcp_create_openreq_child(net, listener, req, th, fastopen=True)
    listener.fastopenq_qlen += 1
    child.fastopen_rsk = req
    child.snd_wnd = child.max_window = th.window  # RFC 7323 2.2: a SYN's window is not scaled
    child.segs_in = 1
    inet_csk_reset_xmit_timer(net, child, ICSK_TIME_RETRANS, TCP_TIMEOUT_INIT_US)
    tcp_init_transfer(net, child)
    length = skb.len - th.doff
    if length:
        skb.data += th.doff
        child.data_segs_in = 1
        child.syn_data_acked = True
        tcp_queue_rcv(net, child, skb, length, th.flags & PSH)
    else:
        net.consume_skb(skb)
    req.rcv_nxt = child.rcv_wup = child.rcv_nxt
    child.snd_wl1 = th.seq & MASK
    return child
