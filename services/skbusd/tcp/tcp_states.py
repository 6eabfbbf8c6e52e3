# SPDX-License-Identifier: MIT
"""The states of a connection (`include/net/tcp_states.h`) and the transitions between them: RFC
9293 3.3.2, figure 5, and Linux's additions.

The table is the one source. `tcp_set_state` checks each change against it in the simulation,
`docs/tcp-states.md` is drawn from it, and a test checks that each row happens.

A state here is what `ss` shows. Three kinds of objects have one: a request sock (NEW_SYN_RECV), a
TcpSock, and a timewait sock (TIME_WAIT, and FIN_WAIT2 of an orphan). `by` says which function
makes the change; where that is not `tcp_set_state`, one object takes the place of another.
"""

from typing import Final, NamedTuple

from skbusd.tcp.const import (
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_CLOSING,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT1,
    TCP_FIN_WAIT2,
    TCP_LAST_ACK,
    TCP_LISTEN,
    TCP_NEW_SYN_RECV,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
    TCP_TIME_WAIT,
)

SET: Final = "tcp_set_state"
RFC: Final = "RFC 9293 figure 5"


class Transition(NamedTuple):
    """From `old` to `new`, because of `cause`.

    sends: the segment that leaves. source: "RFC 9293 figure 5", or Linux's reason. by: the function
    that makes the change.
    """

    old: int
    cause: str
    new: int
    sends: str = ""
    source: str = RFC
    by: str = SET


ABORT: Final = "RST, time-out, abort"

TRANSITIONS: Final = (
    Transition(TCP_CLOSE, "listen(2)", TCP_LISTEN),
    Transition(TCP_CLOSE, "connect(2)", TCP_SYN_SENT, "SYN"),
    Transition(TCP_LISTEN, "SYN", TCP_NEW_SYN_RECV, "SYN,ACK", by="tcp_v4_conn_request"),
    Transition(
        TCP_LISTEN, "SYN with a cookie", TCP_SYN_RECV, "SYN,ACK",
        "RFC 7413 (Fast Open)", "tcp_fastopen_create_child",
    ),
    Transition(
        TCP_LISTEN, "ACK of a SYN cookie", TCP_SYN_RECV, "", "RFC 4987", "tcp_create_openreq_child"
    ),
    Transition(TCP_LISTEN, "close(2), shutdown(2)", TCP_CLOSE),
    Transition(
        TCP_NEW_SYN_RECV, "ACK of SYN", TCP_SYN_RECV, "",
        "Linux: a child takes the place of the request sock", "tcp_create_openreq_child",
    ),
    Transition(TCP_NEW_SYN_RECV, ABORT, TCP_CLOSE, "", RFC, "inet_csk_reqsk_queue_drop"),
    Transition(TCP_SYN_SENT, "SYN,ACK", TCP_ESTABLISHED, "ACK"),
    Transition(TCP_SYN_SENT, "SYN", TCP_SYN_RECV, "SYN,ACK"),
    Transition(TCP_SYN_SENT, "close(2), " + ABORT, TCP_CLOSE),
    Transition(TCP_SYN_RECV, "ACK of SYN", TCP_ESTABLISHED),
    Transition(TCP_SYN_RECV, "close(2)", TCP_FIN_WAIT1, "FIN"),
    Transition(TCP_SYN_RECV, ABORT, TCP_CLOSE),
    Transition(TCP_ESTABLISHED, "close(2), shutdown(2)", TCP_FIN_WAIT1, "FIN"),
    Transition(TCP_ESTABLISHED, "FIN", TCP_CLOSE_WAIT, "ACK"),
    Transition(TCP_ESTABLISHED, ABORT, TCP_CLOSE),
    Transition(TCP_FIN_WAIT1, "ACK of FIN", TCP_FIN_WAIT2),
    Transition(TCP_FIN_WAIT1, "FIN", TCP_CLOSING, "ACK"),
    Transition(TCP_FIN_WAIT1, ABORT, TCP_CLOSE),
    Transition(TCP_FIN_WAIT2, "FIN", TCP_TIME_WAIT, "ACK", by="tcp_time_wait"),
    Transition(TCP_FIN_WAIT2, ABORT, TCP_CLOSE),
    Transition(TCP_CLOSING, "ACK of FIN", TCP_TIME_WAIT, by="tcp_time_wait"),
    Transition(TCP_CLOSING, ABORT, TCP_CLOSE),
    Transition(TCP_CLOSE_WAIT, "close(2), shutdown(2)", TCP_LAST_ACK, "FIN"),
    Transition(TCP_CLOSE_WAIT, ABORT, TCP_CLOSE),
    Transition(TCP_LAST_ACK, "ACK of FIN", TCP_CLOSE),
    Transition(TCP_LAST_ACK, ABORT, TCP_CLOSE),
    Transition(TCP_TIME_WAIT, "2 MSL, RST", TCP_CLOSE, by="inet_twsk_deschedule_put"),
    Transition(
        TCP_TIME_WAIT, "SYN beyond the old numbers", TCP_NEW_SYN_RECV, "SYN,ACK", "RFC 9293 3.6.1",
        "tcp_v4_timewait_rcv",
    ),
)  # fmt: skip
"""The changes of state that there are.

Two arrows of figure 5 are not here. LISTEN to SYN_SENT: the socket interface has no SEND on a
listener. FIN_WAIT1 to TIME_WAIT, by a FIN with the ACK of ours: two changes in one segment.
"""

STATE_CHANGES: Final = frozenset((t.old, t.new) for t in TRANSITIONS if t.by == SET)
"""The changes that `tcp_set_state` may make."""
