# SPDX-License-Identifier: MIT
"""struct tcp_sock: the state of one connection (`include/linux/tcp.h`, `net/sock.h`).

A TcpSock is plain data: ints, bytes, strings, tuples and lists of plain segments. All else is
derived from these: timers, the order of transmission, the queues' indices.

Payload is not here: a TcpSeg names bytes that the socket layer owns until they are acknowledged.
RFC 9293 3.3.1 (the variables of a connection).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from skbus.core.abi import XmitCb
from skbus.core.compiled import field_names
from skbus.core.skbuff import Frag, SkBuff
from skbus.core.timer import Timer
from skbusd.tcp.const import (
    FIN,
    SYN,
    TCP_CLOSE,
    TCP_INFINITE_SSTHRESH,
    TCP_INIT_CWND,
    TCP_MSS_DEFAULT,
)

if TYPE_CHECKING:
    from skbusd.tcp.request_sock import TcpRequestSock
    from skbusd.tcp.tcp_fastopen import TcpFastopenRequest

NO_XMIT_CB: Final = XmitCb(b"", b"", 6, 0, 0, False, 0, b"")
"""For a sock that has no peer yet."""


class TcpSeg:
    """A run of sequence space in the write or the retransmit queue (`struct tcp_skb_cb`).

    `frags` are the payload's places; SYN and FIN take a number each. Times are in us.
    """

    __slots__ = (
        "app_limited",
        "delivered",
        "delivered_mstamp",
        "end_seq",
        "eor",
        "first_tx_mstamp",
        "flags",
        "frags",
        "mss",
        "mstamp",
        "pcount",
        "sacked",
        "seq",
        "tsorted_next",
        "tsorted_on",
        "tsorted_prev",
        "tx_in_flight",
    )

    def __init__(self, seq: int, end_seq: int, flags: int, frags: tuple[Frag, ...]) -> None:
        self.seq = seq
        self.end_seq = end_seq
        self.flags = flags
        self.frags = frags
        self.sacked = 0
        self.pcount = 0
        """Number of segments on the wire (`tcp_skb_pcount`); 0: not yet known."""
        self.mss = 0
        self.eor = False
        self.mstamp = 0
        # The state of delivery when it was sent, for rate samples (tcp_rate.c)
        self.delivered = 0
        self.delivered_mstamp = 0
        self.first_tx_mstamp = 0
        self.app_limited = False
        self.tx_in_flight = 0
        # Its place in the order of transmission (`tcp_tsorted_anchor`)
        self.tsorted_on = False
        self.tsorted_prev: TcpSeg | None = None
        self.tsorted_next: TcpSeg | None = None

    def dlen(self) -> int:
        """Bytes of payload."""
        n = (self.end_seq - self.seq) & 0xFFFFFFFF
        if self.flags & (SYN | FIN):
            n -= (self.flags & 1) + (self.flags >> 1 & 1)
        return n

    def __repr__(self) -> str:
        return f"<TcpSeg {self.seq}:{self.end_seq} flags={self.flags:#x} sacked={self.sacked:#x}>"


class Tsorted:
    """Segments by the time of their last transmission (`tsorted_sent_queue`), without those that
    are SACKed, or lost and not sent again. The list is linked through the segments, so the cost to
    insert or remove one does not grow with its length."""

    __slots__ = ("first", "last")

    def __init__(self) -> None:
        self.first: TcpSeg | None = None
        self.last: TcpSeg | None = None

    def append(self, seg: TcpSeg) -> None:
        """Add a segment that was sent just now; it must not be in the list."""
        last = self.last
        seg.tsorted_on = True
        seg.tsorted_prev = last
        if last is None:
            self.first = seg
        else:
            last.tsorted_next = seg
        self.last = seg

    def insert_after(self, seg: TcpSeg, new: TcpSeg) -> None:
        """Add `new`, which was cut off `seg`; `seg` is in the list."""
        after = seg.tsorted_next
        new.tsorted_on = True
        new.tsorted_prev = seg
        new.tsorted_next = after
        seg.tsorted_next = new
        if after is None:
            self.last = new
        else:
            after.tsorted_prev = new

    def prepend(self, seg: TcpSeg) -> None:
        """Add the oldest segment; it must not be in the list."""
        first = self.first
        seg.tsorted_on = True
        seg.tsorted_next = first
        if first is None:
            self.last = seg
        else:
            first.tsorted_prev = seg
        self.first = seg

    def remove(self, seg: TcpSeg) -> None:
        """Take it out, if it is there."""
        if not seg.tsorted_on:
            return
        before, after = seg.tsorted_prev, seg.tsorted_next
        seg.tsorted_on = False
        seg.tsorted_prev = seg.tsorted_next = None
        if before is None:
            self.first = after
        else:
            before.tsorted_next = after
        if after is None:
            self.last = before
        else:
            after.tsorted_prev = before

    def clear(self) -> None:
        """Take all out; they do not refer to each other any more."""
        for seg in self:
            seg.tsorted_on = False
            seg.tsorted_prev = seg.tsorted_next = None
        self.first = self.last = None

    def __iter__(self) -> Iterator[TcpSeg]:
        """From the oldest on; the yielded segment may be removed."""
        seg = self.first
        while seg is not None:
            after = seg.tsorted_next
            yield seg
            seg = after


class OfoSkb:
    """A segment that came before its turn (`out_of_order_queue`); skb.data is at the payload."""

    __slots__ = ("end_seq", "fin", "seq", "skb")

    def __init__(self, seq: int, end_seq: int, fin: bool, skb: SkBuff) -> None:
        self.seq = seq
        self.end_seq = end_seq
        self.fin = fin
        self.skb = skb


class TcpSockRare:
    """Fields that most sockets leave unset: options, a listener's part, recovery.

    The defaults stand in the class. A socket gets a field of its own when that is first set, so an
    idle connection does not pay for it.
    """

    __slots__ = ("__dict__",)

    userlocks: int = 0
    """SOCK_SNDBUF_LOCK 1, SOCK_RCVBUF_LOCK 2, SOCK_BINDADDR_LOCK 4, SOCK_BINDPORT_LOCK 8"""
    ifindex: int = 0
    err_soft: int = 0
    ttl: int = 0
    pmtudisc: int = 1
    inet_opt: bytes = b""
    """IP_OPTIONS, of a length that 4 divides."""
    recverr: bool = False
    freebind: bool = False
    transparent: bool = False
    ip_kept: tuple[tuple[str, int], ...] = ()
    """Options of level IP that are only remembered."""
    oif: int = 0
    rcvlowat: int = 1
    scaling_ratio: int = 0
    """256ths of the receive buffer that are payload; 0: `net.ipv4.tcp_adv_win_scale` says."""
    keepopen: bool = False
    linger: int = -1

    # ---- listener
    max_ack_backlog: int = 0
    qlen: int = 0
    """Request socks (the SYN queue)."""
    qlen_young: int = 0
    accept_queue: dict[int, None] | None = None
    """Children that wait for accept(2)."""
    defer_accept: int = 0

    # ---- Fast Open (RFC 7413)
    fastopenq_max_qlen: int = 0
    """TCP_FASTOPEN: children that may wait for the end of their handshake."""
    fastopenq_qlen: int = 0
    fastopenq_rst: tuple[int, ...] = ()
    """The times until which reset children count as if they waited."""
    fastopen_key: bytes = b""
    fastopen_connect: bool = False
    fastopen_no_cookie: bool = False
    fastopen_client_fail: int = 0
    defer_connect: bool = False
    """connect(2) has returned, and the SYN waits for data."""
    syn_fastopen: bool = False
    syn_fastopen_exp: bool = False
    syn_fastopen_ch: bool = False
    syn_data: bool = False
    syn_data_acked: bool = False
    write_pending: bool = False
    """A call with more bytes waits for the connection: they will carry the ACK."""

    # ---- sending
    user_mss: int = 0

    # Path MTU probing (icsk_mtup, tcp_sock.mtu_probe; RFC 4821): sizes are MTUs
    mtup_probe_stamp: int = 0
    mtu_probe_seq_start: int = 0
    mtu_probe_seq_end: int = 0
    notsent_lowat: int = 0
    bytes_retrans: int = 0

    # ---- retransmission and loss
    total_retrans: int = 0
    total_rto: int = 0
    total_rto_recoveries: int = 0
    total_rto_time: int = 0
    """ms that past recoveries took; one that still lasts began at rto_stamp."""
    rto_stamp: int = 0
    undo_marker: int = 0
    undo_retrans: int = -1
    frto: int = 0
    reord_seen: int = 0
    dsack_dups: int = 0
    highest_sack: int = 0
    rack_reo_wnd_persist: int = 0
    rack_last_delivered: int = 0
    prr_delivered: int = 0
    prr_out: int = 0
    prior_cwnd: int = 0
    prior_ssthresh: int = 0

    # ---- round-trip time (RFC 6298), us; srtt is times 8, mdev times 4
    icsk_probes_tstamp: int = 0
    icsk_syn_retries: int = 0
    icsk_user_timeout: int = 0

    # ---- congestion control
    ca_setsockopt: bool = False
    snd_cwnd_cnt: int = 0
    snd_cwnd_clamp: int = 0x7FFFFFFF

    # ---- rate samples (tcp_rate.c)
    max_pacing_rate: int = 2**64 - 1
    pacing_wstamp: int = 0
    """Before this time, ns, nothing more may go (`tcp_wstamp_ns`)."""
    tsq_stamp: int = 0
    delivered_ce: int = 0

    # ---- receiving
    fin_received: bool = False
    rcv_ooopack: int = 0

    # ---- icsk_ack
    last_oow_ack_time: int = 0
    compressed_ack_rcv_nxt: int = 0
    dup_ack_counter: int = 0

    # ---- keepalive, orphans
    keepalive_time: int = 0
    keepalive_intvl: int = 0
    keepalive_probes: int = 0
    linger2: int = 0

    # ---- derived
    fastopen_req: "TcpFastopenRequest | None" = None
    """The SYN's data and cookie, until the SYN has gone."""
    sk_timer: Timer[Any] | None = None
    pacing_timer: Timer[Any] | None = None
    compressed_ack_timer: Timer[Any] | None = None


class TcpSock(TcpSockRare):
    """One socket. Field names are Linux's; `icsk_` is inet_connection_sock, `rx_` and `ack_` its
    and tcp_sock's inner structures.
    """

    __slots__ = (
        "accecn", "ack_ato", "ack_last_seg_size", "ack_lrcvtime", "ack_pending", "ack_pingpong",
        "ack_quick", "ack_rcv_mss", "ack_timeout", "advmss", "app_limited", "bind_kind",
        "bound_addr", "bound_port", "bytes_acked", "bytes_received", "bytes_sent", "ca_name",
        "ca_priv", "ca_state", "chrono_busy", "chrono_rwnd", "chrono_start", "chrono_type",
        "compressed_ack", "connect_req", "copied_seq", "cwnd_usage_seq", "daddr", "data_segs_in",
        "data_segs_out", "dead", "delack_timer", "delivered", "delivered_mstamp", "done_sent",
        "dport", "duplicate_sack", "ecn_flags", "fastopen_rsk", "first_tx_mstamp", "gso_max_size",
        "high_seq", "icsk_backoff", "icsk_pending", "icsk_probes_out", "icsk_retransmits",
        "icsk_rto", "icsk_timeout", "is_cwnd_limited", "is_sack_reneg", "key", "lost", "lost_out",
        "lost_queue", "lsndtime", "mark", "max_packets_out", "max_window", "mdev_max_us", "mdev_us",
        "min_ttl", "mss_cache", "mss_clamp", "mtup_enabled", "mtup_probe_size", "mtup_search_high",
        "mtup_search_low", "nonagle", "number", "ofo", "ofo_bytes", "pacing_rate", "pacing_status",
        "packets_out", "parent", "pmtu", "pred_ack", "pred_flags", "priority", "pseudo",
        "pushed_seq", "rack_advanced", "rack_dsack_seen", "rack_end_seq", "rack_mstamp",
        "rack_reo_wnd_steps", "rack_rtt_us", "rate_app_limited", "rate_delivered",
        "rate_interval_us", "rcv_nxt", "rcv_rtt_last_tsecr", "rcv_rtt_seq", "rcv_rtt_time",
        "rcv_rtt_us", "rcv_ssthresh", "rcv_tsecr", "rcv_tstamp", "rcv_tsval", "rcv_up", "rcv_wnd",
        "rcv_wscale", "rcv_wup", "rcvbuf", "rcvq_space_seq", "rcvq_space_space", "rcvq_space_time",
        "reordering", "report", "retrans_out", "retrans_stamp", "reuse", "rmem_alloc",
        "rmem_charged", "route_req", "rtt_min", "rtt_seq", "rttvar_us", "rtx_queue",
        "rx_saw_tstamp", "sack_ok", "sacked_out", "sacked_ranges", "saddr", "segs_in", "segs_out",
        "selective_acks", "shutdown", "sk_lock", "slice_bytes", "slice_time", "snd_cwnd",
        "snd_cwnd_stamp", "snd_cwnd_used", "snd_nxt", "snd_sml", "snd_ssthresh", "snd_una",
        "snd_up", "snd_wl1", "snd_wnd", "snd_wscale", "sndbuf", "sport", "srtt_us", "state",
        "tcp_header_len", "tcp_mstamp", "tcp_wstamp", "tlp_high_seq", "tlp_retrans", "tos",
        "ts_recent", "ts_recent_stamp", "tsoffset", "tsorted", "tsq_bytes", "tstamp_ok", "urg_mode",
        "urg_notyet", "window_clamp", "wmem_charged", "write_queue", "write_seq", "write_timer",
        "wscale_ok", "wspace", "xmit_cb",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        """The socket layer's number for it, `sk` in messages; odd: a child, which tcp made."""
        self.saddr = b""
        self.sport = 0
        self.bound_addr = b""
        """The address from bind(2), to which the connection's saddr goes back."""
        self.bound_port = 0
        """Port of the bind bucket that this socket is in; 0: none."""
        self.bind_kind = 0
        """Its kind in the bind bucket (`InetBindBucket`)."""
        self.reuse = 0
        self.dead = False
        """SOCK_DEAD: the application has closed it; an orphan."""
        self.tos = 0
        self.min_ttl = 0
        self.mark = 0
        self.priority = 0
        self.rcvbuf = 0
        self.sndbuf = 0
        self.parent = 0
        """The listener in whose accept queue this child waits; 0 once it is accepted."""
        self.nonagle = 0
        self.ca_name = "cubic"
        self.pacing_status = 0
        """SK_PACING_NONE 0, NEEDED 1"""
        self.window_clamp = 0
        self.write_timer: Timer[Any] | None = None
        self.delack_timer: Timer[Any] | None = None
        self.reset()

    def reset(self) -> None:
        """Set all that every attempt to connect begins with (`tcp_reinit`)."""
        # In one piece: a list of fields.
        self.state = TCP_CLOSE
        self.daddr = b""
        self.dport = 0
        self.key = b""
        """The socket's key in ehash; b'' when it is not there."""
        self.shutdown = 0
        self.done_sent = False
        self.route_req = 0
        """The pending IpRouteOutputKey of tcp_v4_connect."""
        self.connect_req = 0

        # ---- sending
        self.snd_una = 0
        self.snd_nxt = 0
        self.snd_wnd = 0
        self.snd_wl1 = 0
        self.snd_sml = 0
        self.snd_up = 0
        self.urg_mode = False
        self.write_seq = 0
        self.pushed_seq = 0
        self.max_window = 0
        self.snd_wscale = 0
        self.write_queue: list[TcpSeg] = []
        self.rtx_queue: list[TcpSeg] = []
        self.mss_cache = TCP_MSS_DEFAULT
        self.mss_clamp = TCP_MSS_DEFAULT
        self.advmss = 0
        self.pmtu = 0
        self.gso_max_size = 0
        self.tcp_header_len = 20

        # Path MTU probing (icsk_mtup, tcp_sock.mtu_probe; RFC 4821): sizes are MTUs
        self.mtup_enabled = False
        self.mtup_search_high = 0xFFFF
        self.mtup_search_low = 0
        self.mtup_probe_size = 0
        """Size of the probe that is out; 0: none."""
        self.wspace = 0
        """Acknowledged bytes of which SkWriteSpace has not told yet."""
        self.report = False
        """The socket layer wants reports on the write queue (`tcp_write_report`)."""
        self.bytes_sent = 0
        self.bytes_acked = 0
        self.data_segs_out = 0
        self.segs_out = 0
        self.lsndtime = 0
        self.tcp_mstamp = 0
        self.tcp_wstamp = 0

        # ---- retransmission and loss
        self.packets_out = 0
        self.retrans_out = 0
        self.lost_out = 0
        self.sacked_out = 0
        self.lost = 0
        self.retrans_stamp = 0
        self.high_seq = 0
        self.is_sack_reneg = False
        self.reordering = 3
        self.tlp_high_seq = 0
        self.tlp_retrans = 0
        self.rack_mstamp = 0
        self.rack_end_seq = 0
        self.rack_rtt_us = 0
        self.rack_advanced = False
        self.rack_reo_wnd_steps = 1
        self.rack_dsack_seen = False

        # ---- round-trip time (RFC 6298), us; srtt is times 8, mdev times 4
        self.srtt_us = 0
        self.mdev_us = 0
        self.mdev_max_us = 0
        self.rttvar_us = 0
        self.rtt_seq = 0
        self.rtt_min: tuple[tuple[int, int], ...] = ()
        """Windowed minimum (`struct minmax`): up to three (time in ms, rtt in us)."""
        self.icsk_rto = 0
        self.icsk_backoff = 0
        self.icsk_retransmits = 0
        self.icsk_probes_out = 0
        self.icsk_pending = 0
        self.icsk_timeout = 0

        # ---- congestion control
        self.ca_state = 0
        self.ca_priv: list[int] = []
        self.snd_cwnd = TCP_INIT_CWND
        self.snd_cwnd_used = 0
        self.snd_cwnd_stamp = 0
        self.snd_ssthresh = TCP_INFINITE_SSTHRESH
        self.is_cwnd_limited = False
        self.max_packets_out = 0
        self.cwnd_usage_seq = 0

        # ---- what the connection waited for (tcp_chrono_start), us
        self.chrono_type = 0
        """TCP_CHRONO_UNSPEC 0, BUSY 1, RWND_LIMITED 2"""
        self.chrono_start = 0
        self.chrono_busy = 0
        self.chrono_rwnd = 0

        # ---- rate samples (tcp_rate.c)
        self.delivered = 0
        self.delivered_mstamp = 0
        self.first_tx_mstamp = 0
        self.app_limited = 0
        self.rate_delivered = 0
        self.rate_interval_us = 0
        self.rate_app_limited = False
        self.pacing_rate = 0
        """B/s; it sizes super-segments, and holds back where pacing_status says so."""
        self.tsq_bytes = 0
        """Bytes that may still be on their way to the wire, as of tsq_stamp
        (tcp_small_queue_check)."""
        self.ecn_flags = 0
        """TCP_ECN_MODE_RFC3168 1, QUEUE_CWR 2, DEMAND_CWR 4, SEEN 8, MODE_ACCECN 16"""
        self.accecn: TcpAccEcn | None = None
        """Both ends agreed on Accurate ECN."""

        # ---- receiving
        self.rcv_nxt = 0
        self.rcv_wup = 0
        self.rcv_wnd = 0
        self.rcv_up = 0
        self.urg_notyet = False
        """TCP_URG_NOTYET: the byte at rcv_up has not come."""
        self.copied_seq = 0
        self.rmem_alloc = 0
        """Bytes handed up that the application has not taken yet."""
        self.rcv_wscale = 0
        self.rcv_ssthresh = 0
        self.pred_flags = False
        """Header prediction is on (`tcp_fast_path_on`)."""
        self.pred_ack = 0x10
        """The flags that header prediction expects: ACK, and with Accurate ECN the counter."""
        self.ofo: list[OfoSkb] = []
        self.ofo_bytes = 0
        self.rmem_charged = 0
        """Bytes, in whole pages, that may wait here to be read (tcp_memory.py)."""
        self.wmem_charged = 0
        """The same for bytes to be sent."""
        self.selective_acks: tuple[tuple[int, int], ...] = ()
        self.duplicate_sack: tuple[int, int] | None = None
        self.bytes_received = 0
        self.segs_in = 0
        self.data_segs_in = 0
        self.rcvq_space_seq = 0
        self.rcvq_space_time = 0
        self.rcvq_space_space = 0
        self.rcv_rtt_us = 0
        self.rcv_rtt_seq = 0
        self.rcv_rtt_time = 0
        self.rcv_rtt_last_tsecr = 0
        self.rcv_tstamp = 0

        # ---- options (struct tcp_options_received)
        self.tstamp_ok = False
        self.sack_ok = False
        self.wscale_ok = False
        self.rx_saw_tstamp = False
        self.rcv_tsval = 0
        self.rcv_tsecr = 0
        self.ts_recent = 0
        self.ts_recent_stamp = 0
        self.tsoffset = 0

        # ---- icsk_ack
        self.ack_pending = 0
        self.ack_quick = 0
        self.ack_pingpong = 0
        self.ack_ato = 0
        self.ack_timeout = 0
        self.ack_lrcvtime = 0
        self.ack_rcv_mss = TCP_MSS_DEFAULT
        self.ack_last_seg_size = 0
        self.compressed_ack = 0
        """ACKs with news of holes that were not sent (`net.ipv4.tcp_comp_sack_nr`)."""

        # ---- derived
        self.sk_lock = 0
        """SK_OWNED 1, SK_READER 2 (sk_lock.py)"""
        self.slice_time = -1
        self.slice_bytes = 0
        """Bytes that sends of several chunks took in the batch of slice_time."""
        self.fastopen_rsk: TcpRequestSock | None = None
        """The request sock of a child that Fast Open made before the handshake was complete."""
        self.tsorted = Tsorted()
        self.lost_queue: list[TcpSeg] = []
        """Lost segments that were not sent again yet, by sequence number; some may be dealt with
        already (tcp_lost.py)."""
        self.sacked_ranges: list[tuple[int, int]] = []
        """The ranges that the peer has SACKed, in whole segments: (start, end) in order, none
        touches another."""
        self.pseudo = 0
        """Sum of the pseudo-header without the length."""
        self.xmit_cb: XmitCb = NO_XMIT_CB


RARE_FIELDS: Final = field_names(TcpSockRare)


class TcpAccEcn:
    """A connection's state of Accurate ECN (RFC 9768)."""

    __slots__ = (
        "cep_pending",
        "changed",
        "checked",
        "deaf",
        "delivered_bytes",
        "dup_data",
        "dup_seq",
        "est_ecnfield",
        "fail_mode",
        "opt_demand",
        "opt_seen",
        "opt_tstamp",
        "pkts_acked_ewma",
        "prev_ecnfield",
        "received_bytes",
        "received_ce",
        "received_ce_pending",
        "rx_option",
        "syn_ect_rcv",
        "syn_ect_snt",
    )

    def __init__(self, syn_ect_snt: int, syn_ect_rcv: int) -> None:
        self.syn_ect_snt = syn_ect_snt
        """The ECN field of our SYN or SYN-ACK, as sent."""
        self.syn_ect_rcv = self.prev_ecnfield = syn_ect_rcv
        """The ECN field of the peer's, as it came; prev_ecnfield: of the last segment."""
        self.received_ce = 0
        """Marks that came."""
        self.received_ce_pending = 0
        """Marks of which the peer has not been told yet."""
        self.received_bytes = [0, 0, 0]
        """Bytes that came with ECT(1), ECT(0) and CE."""
        self.fail_mode = 0
        """TCP_ACCECN_ACE_FAIL_SEND 1, ACE_FAIL_RECV 2: we send nothing ECN-capable; OPT_FAIL_SEND
        4, OPT_FAIL_RECV 8: the option is not sent, or not read."""
        self.deaf = False
        """Somebody mangles the counter, so we do not believe it."""
        self.checked = False
        """The peer's first counter has been seen."""
        self.pkts_acked_ewma = 0
        """Segments that an ACK acknowledges, smoothed, in 64ths."""

        # The option (RFC 9768 3.2.3)
        self.delivered_bytes = [0, 0, 0]
        """Bytes that the peer says it has received with ECT(1), ECT(0) and CE."""
        self.est_ecnfield = 0
        """The ECN field with which the next bytes will probably arrive; 0: not known."""
        self.opt_seen = 0
        """TCP_ACCECN_OPT_NOT_SEEN 0, EMPTY_SEEN 1, COUNTER_SEEN 2, FAIL_SEEN 3"""
        self.rx_option: tuple[int, ...] | None = None
        """The option of the segment in hand."""
        self.cep_pending = 0
        """Marks by the header's counter since the last counter of marked bytes."""
        self.changed = 0
        """Our counters that have changed since the last option, bits by ECN field - 1."""
        self.opt_demand = 2
        """Further segments that must carry the option; at first the handshake's last and the first
        data."""
        self.opt_tstamp = 0
        """When the last option went, us."""
        self.dup_data = 0
        """Times that the segment at dup_seq came again after our ACK of it."""
        self.dup_seq = -1
