# SPDX-License-Identifier: MIT
"""The table of states: complete, true to RFC 9293 figure 5, kept by `tcp_set_state`, and drawn."""

from pathlib import Path

import pytest
from tests.services.tcp.states_page import PAGE, ROUTES, page

from skbusd.tcp import const as c
from skbusd.tcp.inet_connection_sock import tcp_set_state
from skbusd.tcp.tcp_states import STATE_CHANGES, TRANSITIONS
from skbustest.tcphost import ACK, FIN, RST, SYN, Conn, TcpHost

FIGURE_5 = {
    ("CLOSE", "LISTEN"),
    ("CLOSE", "SYN_SENT"),
    ("LISTEN", "NEW_SYN_RECV"),
    ("NEW_SYN_RECV", "SYN_RECV"),
    ("LISTEN", "CLOSE"),
    ("SYN_SENT", "SYN_RECV"),
    ("SYN_SENT", "ESTABLISHED"),
    ("SYN_SENT", "CLOSE"),
    ("SYN_RECV", "ESTABLISHED"),
    ("SYN_RECV", "FIN_WAIT1"),
    ("ESTABLISHED", "FIN_WAIT1"),
    ("ESTABLISHED", "CLOSE_WAIT"),
    ("FIN_WAIT1", "FIN_WAIT2"),
    ("FIN_WAIT1", "CLOSING"),
    ("FIN_WAIT2", "TIME_WAIT"),
    ("CLOSING", "TIME_WAIT"),
    ("CLOSE_WAIT", "LAST_ACK"),
    ("LAST_ACK", "CLOSE"),
    ("TIME_WAIT", "CLOSE"),
}
"""RFC 9293's arrows, read off the figure, with Linux's names; its SYN-RECEIVED is two states."""


class Recorder:
    """Stands in for STATE_CHANGES, and remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, int]] = set()

    def __contains__(self, change: object) -> bool:
        assert change in STATE_CHANGES, change
        assert isinstance(change, tuple)
        self.seen.add(change)
        return True


def names(change: tuple[int, int]) -> tuple[str, str]:
    return c.STATE_NAMES[change[0]], c.STATE_NAMES[change[1]]


def test_the_table_has_every_arrow_of_figure_5() -> None:
    ours = {names((t.old, t.new)) for t in TRANSITIONS}
    assert ours >= FIGURE_5


def test_what_is_not_in_figure_5_says_why_it_is_there() -> None:
    for t in TRANSITIONS:
        if names((t.old, t.new)) not in FIGURE_5 and t.new != c.TCP_CLOSE:
            assert t.source.startswith(("RFC 7413", "RFC 4987", "RFC 9293 3.6.1")), t


def test_every_state_has_a_way_in_and_a_way_out() -> None:
    states = set(c.STATE_NAMES)
    assert {t.old for t in TRANSITIONS} == states
    assert {t.new for t in TRANSITIONS} == states


def test_the_functions_that_the_table_names_exist() -> None:
    sources = "".join(path.read_text() for path in Path(c.__file__).parent.glob("*.py"))
    for function in {t.by for t in TRANSITIONS}:
        assert f"def {function}(" in sources


@pytest.mark.parametrize("state", [c.TCP_LISTEN, c.TCP_SYN_SENT, c.TCP_LAST_ACK, c.TCP_CLOSING])
def test_an_impossible_change_is_an_error_in_the_simulation(host: TcpHost, state: int) -> None:
    conn = Conn(host)
    with pytest.raises(AssertionError, match=f"ESTABLISHED to {c.STATE_NAMES[state]}"):
        tcp_set_state(host.net, conn.tp, state)


# ---- each row happens ------------------------------------------------------------------------


def listen_and_close(host: TcpHost) -> None:
    host.listen()
    host.close(2)


def refused(host: TcpHost) -> None:
    host.socket(2)
    host.connect(2, 80)
    syn = host.one().th
    host.arrive(RST | ACK, 0, syn.seq + 1, sport=80, dport=syn.source)


def connected(host: TcpHost) -> None:
    Conn(host, active=True)


def crossed_syns(host: TcpHost) -> tuple[int, int]:
    """Simultaneous open up to SYN_RECV; returns our port and what acknowledges our SYN."""
    host.socket(2)
    host.connect(2, 80)
    syn = host.one().th
    host.arrive(SYN, 500, sport=80, dport=syn.source)
    host.sent()
    return syn.source, syn.seq + 1


def simultaneous_open(host: TcpHost) -> None:
    port, ack = crossed_syns(host)
    host.arrive(SYN | ACK, 500, ack, sport=80, dport=port)


def closed_before_it_is_open(host: TcpHost) -> None:
    crossed_syns(host)
    host.close(2)


def reset_before_it_is_open(host: TcpHost) -> None:
    port, _ = crossed_syns(host)
    host.arrive(RST, 501, sport=80, dport=port)


def accepted(host: TcpHost) -> None:
    Conn(host)


def shutdown_then_fin(host: TcpHost) -> None:
    conn = Conn(host)
    host.shutdown(conn.sk)
    conn.rcv(ACK, 0, 1)
    conn.rcv(FIN | ACK, 0, 1)


def fins_cross(host: TcpHost) -> None:
    conn = Conn(host)
    host.shutdown(conn.sk)
    conn.rcv(FIN | ACK, 0, 0)
    conn.rcv(ACK, 1, 1)


def passive_close(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(FIN | ACK)
    host.close(conn.sk)
    conn.rcv(ACK, 1, 1)


def reset_when_open(host: TcpHost) -> None:
    Conn(host).rcv(RST)


def reset_after_our_fin(host: TcpHost) -> None:
    conn = Conn(host)
    host.shutdown(conn.sk)
    conn.rcv(RST)


def reset_after_their_fin(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(FIN | ACK)
    conn.rcv(RST, 1)


STORIES = (
    listen_and_close,
    refused,
    connected,
    simultaneous_open,
    closed_before_it_is_open,
    reset_before_it_is_open,
    accepted,
    shutdown_then_fin,
    fins_cross,
    passive_close,
    reset_when_open,
    reset_after_our_fin,
    reset_after_their_fin,
)


def test_every_change_in_the_table_happens() -> None:
    recorder = Recorder()
    for story in STORIES:
        host = TcpHost()
        host.net.state_changes = recorder
        story(host)
        host.check()
    assert {names(c) for c in recorder.seen} == {names(c) for c in STATE_CHANGES}


# ---- the page --------------------------------------------------------------------------------


def test_the_page_is_drawn_from_the_table_as_it_is() -> None:
    assert PAGE.read_text() == page(), "run python tests/services/tcp/states_page.py"


def test_every_arrow_of_figure_5_that_does_not_abort_is_drawn() -> None:
    drawn = {(r.old, r.new if r.new in c.STATE_NAMES else c.TCP_CLOSE) for r in ROUTES}
    figure = {(t.old, t.new) for t in TRANSITIONS if names((t.old, t.new)) in FIGURE_5}
    only_listed = {("LISTEN", "CLOSE"), ("SYN_SENT", "CLOSE")}
    assert {names(change) for change in figure - drawn} == only_listed
    assert drawn <= figure
