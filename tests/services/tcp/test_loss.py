# SPDX-License-Identifier: MIT
"""Loss: the retransmission timer, fast retransmit, SACK and RACK, NewReno, the loss probe, undo
(RFC 6298, 5681, 6582, 6675, 8985, 5682, 3522, 6937)."""

import errno

import pytest

from skbus.core import uapi
from skbus.core.abi import SkErrorReport
from skbusd.tcp.const import (
    TCP_CA_CWR,
    TCP_CA_DISORDER,
    TCP_CA_LOSS,
    TCP_CA_OPEN,
    TCP_CA_RECOVERY,
    TCP_CLOSE,
    TCP_USER_TIMEOUT,
)
from skbustest.tcphost import ACK, Conn, TcpHost

MSS = 1460


def times(host: TcpHost, seconds: float, step: float = 0.005) -> list[float]:
    """When something was sent, in seconds from now."""
    start = host.net.now
    out = []
    for _ in range(round(seconds / step)):
        host.run_for(step)
        out += [round((host.net.now - start) / 1e9, 2) for _ in host.sent()]
    return out


def round_trip(conn: Conn, rtt: float = 0.1, size: int = 1000) -> int:
    """One segment and its ACK, so that there is an RTT; returns the bytes sent so far."""
    conn.send(size)
    conn.sent()
    conn.host.run_for(rtt)
    conn.rcv(ACK, 0, size)
    return size


def test_rto_is_srtt_and_four_deviations_at_least_200_ms(host: TcpHost) -> None:
    conn = Conn(host, sack=False)
    round_trip(conn, 0.1)
    tp = conn.tp
    assert tp.srtt_us >> 3 <= 100_000
    assert tp.icsk_rto == (tp.srtt_us >> 3) + max(tp.rttvar_us, 200_000)


def test_the_timer_backs_off_and_gives_up(host: TcpHost) -> None:
    conn = Conn(host, sack=False)
    host.net.sysctl.set("net.ipv4.tcp_retries2", 5)
    conn.send(100)
    conn.sent()
    assert times(host, 10)[:5] == pytest.approx([0.3, 0.9, 2.1, 4.5, 9.3], abs=0.1)
    assert conn.tp.ca_state == TCP_CA_LOSS
    assert conn.tp.snd_cwnd == 1
    host.run_for(100)
    assert SkErrorReport(conn.sk, errno.ETIMEDOUT, True) in host.events()
    assert conn.tp.state == TCP_CLOSE
    assert host.net.mib["TcpExtTCPAbortOnTimeout"] == 1


def test_user_timeout(host: TcpHost) -> None:
    conn = Conn(host, sack=False)
    host.setsockopt(conn.sk, uapi.SOL_TCP, TCP_USER_TIMEOUT, 1500)
    conn.send(100)
    host.run_for(1)
    assert conn.tp.state != TCP_CLOSE
    host.run_for(5)
    assert conn.tp.state == TCP_CLOSE


def test_a_soft_error_is_told_when_the_connection_times_out(host: TcpHost) -> None:
    conn = Conn(host, sack=False)
    host.net.sysctl.set("net.ipv4.tcp_retries2", 2)
    conn.send(100)
    host.icmp(3, 1, conn.iss + 1)
    assert conn.tp.state != TCP_CLOSE
    host.run_for(30)
    assert SkErrorReport(conn.sk, errno.EHOSTUNREACH, True) in host.events()


def test_karn_no_sample_from_what_was_sent_twice(host: TcpHost) -> None:
    conn = Conn(host, sack=False)
    at = round_trip(conn, 0.1)
    srtt = conn.tp.srtt_us
    conn.send(100)
    host.run_for(0.5)
    assert conn.mib("TcpRetransSegs") >= 1
    rto = conn.tp.icsk_rto
    conn.rcv(ACK, 0, at + 100)
    assert conn.tp.srtt_us == srtt
    assert conn.tp.icsk_rto == rto


def test_timestamps_give_a_sample_even_then(host: TcpHost) -> None:
    conn = Conn(host, sack=False, ts=True)
    at = round_trip(conn, 0.1)
    conn.send(100)
    host.run_for(0.4)
    conn.sent()
    assert conn.tp.icsk_backoff >= 1
    conn.rcv(ACK, 0, at + 100)
    assert conn.tp.icsk_backoff == 0


def test_three_sacks_start_recovery(host: TcpHost) -> None:
    conn = Conn(host)
    at = round_trip(conn)
    conn.send(10 * MSS)
    conn.sent()
    host.run_for(0.1)
    for i in (1, 2):
        conn.rcv(ACK, 0, at, sacks=((at + MSS, at + (i + 1) * MSS),))
        assert conn.tp.ca_state == TCP_CA_DISORDER
        assert conn.sent() == []
    conn.rcv(ACK, 0, at, sacks=((at + MSS, at + 4 * MSS),))
    assert conn.tp.ca_state == TCP_CA_RECOVERY
    assert conn.sent() == [("A", at, MSS, 0)]
    assert conn.mib("TcpExtTCPSackRecovery") == 1
    assert conn.mib("TcpExtTCPFastRetrans") == 1
    assert conn.tp.snd_ssthresh == 7 * conn.tp.prior_cwnd // 10
    host.run_for(0.1)
    conn.rcv(ACK, 0, at + 10 * MSS)
    assert conn.tp.ca_state == TCP_CA_OPEN
    assert conn.tp.snd_cwnd - conn.tp.snd_ssthresh in (0, 1)


def test_three_duplicate_acks_start_newreno(host: TcpHost) -> None:
    conn = Conn(host, sack=False)
    at = round_trip(conn)
    conn.send(8 * MSS)
    conn.sent()
    host.run_for(0.1)
    for _ in range(2):
        conn.rcv(ACK, 0, at)
    assert conn.sent() == []
    conn.rcv(ACK, 0, at)
    assert conn.sent() == [("A", at, MSS, 0)]
    assert conn.tp.ca_state == TCP_CA_RECOVERY
    assert conn.mib("TcpExtTCPRenoRecovery") == 1
    # a partial ACK: the next one is missing too (RFC 6582 3.2 step 3)
    conn.rcv(ACK, 0, at + 2 * MSS)
    assert conn.sent() == [("A", at + 2 * MSS, MSS, 0)]
    conn.rcv(ACK, 0, at + 8 * MSS)
    assert conn.tp.ca_state in (TCP_CA_OPEN, TCP_CA_RECOVERY)
    conn.send(MSS)
    conn.sent()
    conn.rcv(ACK, 0, at + 9 * MSS)
    assert conn.tp.ca_state == TCP_CA_OPEN


def test_limited_transmit(host: TcpHost) -> None:
    """RFC 3042: the first two duplicates let new data out."""
    conn = Conn(host)
    at = round_trip(conn)
    conn.send(20 * MSS)
    first = sum(n for _, _, n, _ in conn.sent())
    host.run_for(0.1)
    conn.rcv(ACK, 0, at, sacks=((at + MSS, at + 2 * MSS),))
    assert conn.sent() == [("A", at + first, MSS, 0)]


def test_rack_waits_a_quarter_of_the_rtt_for_reordering(host: TcpHost) -> None:
    conn = Conn(host)
    at = round_trip(conn)
    conn.send(2 * MSS)
    conn.sent()
    host.run_for(0.1)
    conn.rcv(ACK, 0, at, sacks=((at + MSS, at + 2 * MSS),))
    assert conn.sent() == []
    assert conn.tp.ca_state == TCP_CA_DISORDER
    assert times(host, 0.1, 0.001)[0] == pytest.approx(0.02, abs=0.02)
    assert conn.tp.ca_state == TCP_CA_RECOVERY


def test_a_lost_retransmission_is_sent_again(host: TcpHost) -> None:
    conn = Conn(host)
    at = round_trip(conn)
    conn.send(10 * MSS)
    conn.sent()
    host.run_for(0.1)
    conn.rcv(ACK, 0, at, sacks=((at + MSS, at + 5 * MSS),))
    assert ("A", at, MSS, 0) in conn.sent()
    conn.send(5 * MSS)
    conn.rcv(ACK, 0, at, sacks=((at + MSS, at + 9 * MSS),))
    conn.sent()
    high = (conn.tp.snd_nxt - conn.iss - 1) & 0xFFFFFFFF
    host.run_for(0.12)
    conn.rcv(ACK, 0, at, sacks=((at + MSS, high),))
    assert ("A", at, MSS, 0) in conn.sent()
    assert conn.mib("TcpExtTCPLostRetransmit") == 1


def test_the_loss_probe_goes_after_two_srtt(host: TcpHost) -> None:
    conn = Conn(host)
    at = round_trip(conn)
    conn.send(3 * MSS)
    conn.sent()
    start = host.net.now
    sent: list[tuple[str, int, int, int]] = []
    while not sent:
        host.run_for(0.001)
        sent = conn.sent()
    srtt = conn.tp.srtt_us / 8e6
    assert (host.net.now - start) / 1e9 == pytest.approx(2 * srtt + 0.002, abs=0.005)
    assert sent == [("PA", at + 2 * MSS, MSS, 0)]
    assert conn.mib("TcpExtTCPLossProbes") == 1
    # the probe shows that the tail was lost
    host.run_for(0.1)
    conn.rcv(ACK, 0, at, sacks=((at + 2 * MSS, at + 3 * MSS),))
    host.run_for(0.1)
    assert conn.tp.ca_state == TCP_CA_RECOVERY
    assert conn.sent() == [("A", at, MSS, 0)]


def test_a_probe_that_repaired_a_loss_costs_cwnd(host: TcpHost) -> None:
    conn = Conn(host)
    at = round_trip(conn)
    conn.send(2 * MSS)
    conn.sent()
    before = conn.tp.snd_cwnd
    conn.rcv(ACK, 0, at + MSS)
    host.run_for(0.42)
    assert conn.mib("TcpExtTCPLossProbes") == 1
    conn.send(10)
    conn.sent()
    conn.rcv(ACK, 0, at + 2 * MSS + 10)
    assert conn.mib("TcpExtTCPLossProbeRecovery") == 1
    assert conn.tp.snd_cwnd < before


def test_a_probe_that_was_needless_costs_nothing(host: TcpHost) -> None:
    conn = Conn(host)
    at = round_trip(conn)
    conn.send(2 * MSS)
    conn.sent()
    before = conn.tp.snd_cwnd
    host.run_for(0.25)
    assert conn.mib("TcpExtTCPLossProbes") == 1
    conn.rcv(ACK, 0, at + 2 * MSS)
    conn.rcv(ACK, 0, at + 2 * MSS, sacks=((at + MSS, at + 2 * MSS),))
    assert conn.mib("TcpExtTCPDSACKRecv") == 1
    assert conn.tp.tlp_high_seq == 0
    assert conn.tp.ca_state in (TCP_CA_OPEN, TCP_CA_CWR)
    assert conn.tp.snd_cwnd >= before


def test_eifel_undoes_a_spurious_timeout(host: TcpHost) -> None:
    conn = Conn(host, ts=True, sack=False)
    at = round_trip(conn)
    conn.send(4 * 1448)
    conn.sent()
    cwnd = conn.tp.snd_cwnd
    original = conn.tsecr
    host.run_for(0.45)
    assert conn.tp.ca_state == TCP_CA_LOSS
    conn.rcv(ACK, 0, at + 2 * 1448, tsecr=original)
    assert conn.mib("TcpExtTCPLossUndo") == 1
    assert conn.tp.snd_cwnd >= cwnd
    assert conn.tp.lost_out == 0


def test_frto_finds_a_spurious_timeout_by_sack(host: TcpHost) -> None:
    conn = Conn(host)
    host.net.sysctl.set("net.ipv4.tcp_early_retrans", 0)
    at = round_trip(conn)
    conn.send(4 * MSS)
    conn.sent()
    host.run_for(0.4)
    assert conn.tp.ca_state == TCP_CA_LOSS
    conn.sent()
    conn.rcv(ACK, 0, at, sacks=((at + MSS, at + 2 * MSS),))
    assert conn.mib("TcpExtTCPSpuriousRTOs") == 1
    assert conn.tp.ca_state != TCP_CA_LOSS


@pytest.mark.parametrize("reordered", [False, True])
def test_dsack_undoes_a_recovery(host: TcpHost, reordered: bool) -> None:
    conn = Conn(host)
    at = round_trip(conn)
    if reordered:
        conn.send(2 * MSS)
        conn.sent()
        host.run_for(0.1)
        conn.rcv(ACK, 0, at, sacks=((at + MSS, at + 2 * MSS),))
        at += 2 * MSS
        conn.rcv(ACK, 0, at)
        assert conn.mib("TcpExtTCPSACKReorder") == 1
    conn.send(10 * MSS)
    conn.sent()
    host.run_for(0.1)
    cwnd = conn.tp.snd_cwnd
    conn.rcv(ACK, 0, at, sacks=((at + MSS, at + 4 * MSS),))
    host.run_for(0.06)  # where there is reordering, RACK waits
    assert conn.tp.ca_state == TCP_CA_RECOVERY
    # it was only late
    conn.rcv(ACK, 0, at + 10 * MSS)
    conn.rcv(ACK, 0, at + 10 * MSS, sacks=((at, at + MSS),))
    assert conn.mib("TcpExtTCPDSACKRecv") == 1
    # RACK waits for longer where there is reordering (RFC 8985 6.2, step 4)
    assert (conn.tp.rack_dsack_seen or conn.tp.rack_reo_wnd_steps > 1) == reordered
    assert conn.tp.snd_cwnd <= cwnd + 1


def test_more_dsacks_than_were_sent_twice_are_not_ours(host: TcpHost) -> None:
    """The network duplicates; nobody else has to be blamed, all of the connection's life long."""
    conn = Conn(host)
    at = round_trip(conn)
    conn.send(10 * MSS)
    conn.sent()
    host.run_for(0.1)
    conn.rcv(ACK, 0, at, sacks=((at + MSS, at + 4 * MSS),))
    conn.rcv(ACK, 0, at + 10 * MSS)
    assert conn.tp.total_retrans == 1
    for _ in range(3):
        conn.rcv(ACK, 0, at + 10 * MSS, sacks=((at, at + MSS),))
    assert conn.mib("TcpExtTCPDSACKRecvSegs") == 1
    assert conn.mib("TcpExtTCPDSACKIgnoredDubious") == 2
    beyond = conn.tp.max_window + 1  # nobody has ever received as much at once
    conn.rcv(ACK, 0, at + 10 * MSS, sacks=((at - beyond, at),))
    assert conn.mib("TcpExtTCPDSACKIgnoredDubious") == 3


def test_reneging_is_survived(host: TcpHost) -> None:
    conn = Conn(host)
    at = round_trip(conn)
    conn.send(5 * MSS)
    conn.sent()
    host.run_for(0.1)
    conn.rcv(ACK, 0, at, sacks=((at + 2 * MSS, at + 5 * MSS),))
    conn.rcv(ACK, 0, at + 2 * MSS)
    conn.sent()
    host.run_for(1)
    assert conn.mib("TcpExtTCPSACKReneging") == 1
    assert conn.tp.sacked_out == 0
    assert any(seq == at + 2 * MSS for _, seq, _, _ in conn.sent())


@pytest.mark.parametrize("sacks", [((5, 3),), ((10**9, 10**9 + 5),), ((0, 10**6),), ((7, 7),)])
def test_sack_blocks_that_cannot_be_are_ignored(
    host: TcpHost, sacks: tuple[tuple[int, int], ...]
) -> None:
    conn = Conn(host)
    at = round_trip(conn)
    conn.send(5 * MSS)
    conn.sent()
    conn.rcv(ACK, 0, at, sacks=tuple((at + a, at + b) for a, b in sacks))
    assert conn.tp.sacked_out == 0


def test_prr_sends_in_proportion(host: TcpHost) -> None:
    conn = Conn(host)
    sent_to = 0
    for _ in range(3):
        conn.send(100_000)
        for _, _, n, _ in conn.sent():
            sent_to += n
        host.run_for(0.05)
        conn.rcv(ACK, 0, sent_to)
        for _, _, n, _ in conn.sent():
            sent_to += n
    una = (conn.tp.snd_una - conn.iss - 1) & 0xFFFFFFFF
    out = conn.tp.packets_out
    assert out > 20
    host.run_for(0.05)
    new = retransmitted = 0
    ssthresh = 0
    for i in range(1, out):
        conn.rcv(ACK, 0, una, sacks=((una + MSS, una + (i + 1) * MSS),))
        for _, seq, n, _ in conn.sent():
            if seq == una:
                retransmitted += 1
            else:
                new += n // MSS
        ssthresh = conn.tp.snd_ssthresh
    assert retransmitted == 1
    in_flight = conn.tp.packets_out - conn.tp.sacked_out - conn.tp.lost_out + conn.tp.retrans_out
    assert abs(in_flight - ssthresh) <= 2
    assert new > 0


def test_a_segment_that_is_acknowledged_in_part_is_sent_again_from_there(host: TcpHost) -> None:
    conn = Conn(host, sack=False)
    conn.send(1000)
    conn.sent()
    conn.rcv(ACK, 0, 300)
    assert conn.tp.packets_out == 1
    host.run_for(0.5)
    assert conn.sent() == [("PA", 300, 700, 0)]
    conn.rcv(ACK, 0, 1000)
    assert not conn.tp.rtx_queue
