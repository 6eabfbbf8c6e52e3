# SPDX-License-Identifier: MIT
"""DCTCP (RFC 8257): alpha, the reduction, and the echo of each change of the mark."""

import pytest

from skbus.core.abi import XmitCb
from skbus.inet.headers.tcp import TcpOptions
from skbus.inet.impair import Impairment
from skbusd.tcp import const as c
from skbusd.tcp import tcp_dctcp as dctcp
from skbustest.tcphost import ACK, PSH, SYN, Conn, TcpHost

MSS = 1460
ECE, CWR = 0x40, 0x80


def dctcp_conn(host: TcpHost, agreed: int = ECE) -> Conn:
    """An active connection with DCTCP; agreed: flags of the SYN-ACK besides SYN and ACK."""
    host.net.sysctl.set("net.ipv4.tcp_congestion_control", "dctcp")
    host.net.sysctl.set("net.ipv4.tcp_ecn", 0)
    host.socket(2)
    ret = host.connect(2, 5000)
    assert isinstance(ret.val, tuple)
    conn = Conn.__new__(Conn)
    conn.host, conn.ts, conn.tsval, conn.tsecr, conn.win = host, False, 1000, 0, 65535
    conn.rport, conn.port, conn.sk = 5000, int(ret.val[1]), 2
    conn.syn = host.one()
    conn.irs, conn.iss = 0xFFFFFFF0, conn.syn.th.seq
    host.run_for(0.1)
    opt = TcpOptions(mss=MSS, wscale=7, sack_ok=True)
    host.arrive(
        SYN | ACK | agreed, conn.irs, conn.iss + 1, sport=5000, dport=conn.port, opt=opt, win=65535
    )
    host.one()
    host.events()
    return conn


def tos(host: TcpHost) -> list[int]:
    return [seg.cb.tos & 3 for seg in host.sent()]


def data(conn: Conn, seq: int, mark: int, size: int = MSS) -> None:
    """A segment of the peer with an ECN field."""
    conn.rcv(ACK | PSH, seq, 0, bytes(size), tos=mark)


def test_it_asks_for_ecn_whatever_the_sysctl_says_and_marks_all_it_sends(host: TcpHost) -> None:
    conn = dctcp_conn(host)
    assert conn.syn.th.flags & (ECE | CWR) == ECE | CWR
    assert isinstance(conn.syn.cb, XmitCb)
    assert conn.syn.cb.tos & 3 == 2
    assert conn.tp.ca_priv[dctcp.ALPHA] == dctcp.ALPHA_ON_INIT
    conn.send(2 * MSS)
    assert tos(host) == [2]
    host.run_for(0.5)
    assert set(tos(host)) == {2}, "retransmissions and probes are marked too"


def test_without_ecn_it_is_reno(host: TcpHost) -> None:
    conn = dctcp_conn(host, agreed=0)
    assert conn.tp.ca_priv == []
    conn.send(2 * MSS)
    assert tos(host) == [0]
    conn.tp.snd_cwnd = 20
    assert host.net.cong["dctcp"].ssthresh(host.net, conn.tp) == 10


def test_alpha_follows_the_share_of_marks_and_cwnd_follows_alpha(host: TcpHost) -> None:
    conn = dctcp_conn(host)
    tp = conn.tp
    at = 0
    for _ in range(40):  # no marks: alpha decays by 1/16 a window
        conn.send(10 * MSS)
        at += sum(n for _, _, n, _ in conn.sent())
        host.run_for(0.1)
        conn.rcv(ACK, 0, at)
    assert tp.ca_priv[dctcp.ALPHA] < 100
    before = tp.snd_cwnd
    tp.ca_priv[dctcp.ALPHA] = 256
    conn.send(10 * MSS)
    at += sum(n for _, _, n, _ in conn.sent())
    host.run_for(0.1)
    conn.rcv(ACK | ECE, 0, at)
    assert tp.ca_state == c.TCP_CA_CWR
    assert tp.snd_ssthresh == pytest.approx(before * (1 - 256 / 2048), abs=2)
    assert tp.delivered_ce == 10
    assert host.net.mib["TcpExtTCPDeliveredCE"] == 10


def test_each_change_of_the_mark_is_acknowledged_at_once_with_the_right_echo(
    host: TcpHost,
) -> None:
    conn = dctcp_conn(host)
    tp = conn.tp
    for i in range(20):  # out of quick-ACK mode
        data(conn, i * MSS, 2)
        host.run_for(0.05)
    host.run_for(0.2)
    host.sent()
    tp.ack_quick = 0
    at = 20 * MSS
    data(conn, at, 2)
    assert host.sent() == [], "delayed"
    data(conn, at + MSS, 3)
    first, second = host.sent()[:2]
    assert (first.th.flags & ECE, (first.th.ack_seq - conn.irs - 1) & 0xFFFFFFFF) == (0, at + MSS)
    assert second.th.flags & ECE
    assert (second.th.ack_seq - conn.irs - 1) & 0xFFFFFFFF == at + 2 * MSS
    data(conn, at + 2 * MSS, 3)
    host.run_for(0.05)
    assert all(seg.th.flags & ECE for seg in host.sent())
    data(conn, at + 3 * MSS, 2)
    assert not host.sent()[-1].th.flags & ECE


def test_a_loss_halves(host: TcpHost) -> None:
    conn = dctcp_conn(host)
    conn.tp.ca_priv[dctcp.ALPHA] = 0
    conn.send(10 * MSS)
    conn.sent()
    host.run_for(0.1)
    conn.rcv(ACK, 0, 0, sacks=((MSS, 5 * MSS),))
    assert conn.tp.ca_state == c.TCP_CA_RECOVERY
    assert conn.tp.snd_ssthresh == 5


def test_a_link_marks_what_waits_behind_too_much() -> None:
    link = Impairment(rate=1_000_000, mark=2, limit=10)
    ip = bytes.fromhex("4502002800010000400600000a0000010a000002")
    total = sum(int.from_bytes(ip[i : i + 2], "big") for i in range(0, 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + (~total & 0xFFFF).to_bytes(2, "big") + ip[12:]
    frame = bytes(12) + b"\x08\x00" + ip + bytes(20)
    plain = frame[:15] + b"\0" + frame[16:]
    marks = [link.admit(0, frame)[0][1][15] & 3 for _ in range(5)]
    assert marks == [2, 2, 2, 3, 3]
    marked = link.admit(0, frame)[0][1][14:34]
    total = sum(int.from_bytes(marked[i : i + 2], "big") for i in range(0, 20, 2))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF, "its checksum is right"
    assert link.admit(0, plain)[0][1] is plain
    assert link.status()["marked"] == 3
