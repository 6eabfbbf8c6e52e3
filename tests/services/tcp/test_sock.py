# SPDX-License-Identifier: MIT
"""What a control block holds: plain data, and nothing of its own that is rare or that others
have."""

import pytest

from skbus.core import uapi
from skbusd.tcp.sock import OfoSkb, TcpSeg
from skbustest.tcphost import ACK, Conn, TcpHost

PLAIN = (int, bool, float, str, bytes, type(None))


def is_plain(value: object) -> bool:
    """Numbers, bytes, strings, and tuples, lists, dicts and segments of such."""
    if isinstance(value, tuple | list):
        return all(is_plain(v) for v in value)
    if isinstance(value, dict):
        return all(is_plain(k) and is_plain(v) for k, v in value.items())
    if isinstance(value, OfoSkb):
        return all(map(is_plain, (value.seq, value.end_seq, value.fin, value.skb.frags)))
    if isinstance(value, TcpSeg):
        return is_plain((value.seq, value.end_seq, value.flags, value.sacked, value.frags))
    return isinstance(value, PLAIN)


DERIVED = {"tsorted", "write_timer", "delack_timer", "sk_timer", "xmit_cb"}
"""From plain data: the order of transmission, timers from their deadlines, a header's template."""


@pytest.mark.interpreted
def test_a_busy_socket_is_plain_data(host: TcpHost) -> None:
    conn = Conn(host, ts=True)
    conn.send(40000)
    conn.sent()
    conn.rcv(ACK, 0, 1448, sacks=((4 * 1448, 6 * 1448),))
    conn.rcv(ACK, 5000, 1448, b"later")
    host.setsockopt(conn.sk, uapi.SOL_SOCKET, uapi.SO_KEEPALIVE, 1)
    tp = conn.tp
    assert tp.rtx_queue
    assert tp.write_queue
    assert tp.ofo[0].skb.frags == (b"later",)
    names = {*type(tp).__slots__, *tp.__dict__} - DERIVED
    assert [name for name in sorted(names) if not is_plain(getattr(tp, name))] == []


@pytest.mark.interpreted
def test_an_idle_connection_has_nothing_of_its_own_that_is_rare(host: TcpHost) -> None:
    host.listen()
    conns = [Conn(host, rport=5000 + i, ts=True) for i in range(2)]
    for conn in conns:
        conn.rcv(ACK, 0, 0, b"ask")
        conn.send(3000)
        conn.sent()
        conn.rcv(ACK, 3, 3000)
        assert conn.tp.__dict__ == {}
    one, other = (conn.tp for conn in conns)
    assert one is not other
    for name in ("saddr", "daddr", "xmit_cb", "mss_cache", "mss_clamp", "window_clamp", "pmtu"):
        assert getattr(one, name) is getattr(other, name), name


@pytest.mark.interpreted
def test_what_is_rare_outlives_the_connection(host: TcpHost) -> None:
    conn = Conn(host)
    host.setsockopt(conn.sk, uapi.SOL_TCP, uapi.TCP_KEEPIDLE, 77)
    assert conn.tp.__dict__ == {"keepalive_time": 77}
    conn.tp.reset()
    assert conn.tp.keepalive_time == 77
