# SPDX-License-Identifier: MIT
"""struct tcp_sock: what TCP knows of one connection (`include/linux/tcp.h`, `net/sock.h`).

A TcpSock holds nothing but ints, bytes, strings, tuples and lists of plain segments, so that it
can be written down (`tcp_sock_dump`) and read again (`tcp_sock_load`) by a tcp process born
later. What is derived (timers, the order of transmission, queues' indices) is rebuilt.

Payload is not here: a TcpSeg names bytes that the socket layer owns until they are acknowledged.
RFC 9293 3.3.1 (the variables of a connection).
"""

from collections import OrderedDict
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from skbus.skbuff import Frag, SkBuff
from skbus.timer import Timer
from skbusd.tcp.const import (
    FIN,
    SYN,
    TCP_CLOSE,
    TCP_INFINITE_SSTHRESH,
    TCP_INIT_CWND,
    TCP_MSS_DEFAULT,
    TCP_NEW_SYN_RECV,
    TCP_TIME_WAIT,
)

if TYPE_CHECKING:
    from skbusd.tcp.tcp_fastopen import TcpFastopenRequest


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
        "tx_in_flight",
    )

    def __init__(self, seq: int, end_seq: int, flags: int, frags: tuple[Frag, ...]) -> None:
        self.seq = seq
        self.end_seq = end_seq
        self.flags = flags
        self.frags = frags
        self.sacked = 0
        self.pcount = 0
        """Segments on the wire that this stands for (`tcp_skb_pcount`); 0: not yet known."""
        self.mss = 0
        self.eor = False
        self.mstamp = 0
        # The state of delivery when it was sent, for rate samples (tcp_rate.c)
        self.delivered = 0
        self.delivered_mstamp = 0
        self.first_tx_mstamp = 0
        self.app_limited = False
        self.tx_in_flight = 0

    def dlen(self) -> int:
        """Bytes of payload."""
        n = (self.end_seq - self.seq) & 0xFFFFFFFF
        if self.flags & (SYN | FIN):
            n -= (self.flags & 1) + (self.flags >> 1 & 1)
        return n

    def __repr__(self) -> str:
        return f"<TcpSeg {self.seq}:{self.end_seq} flags={self.flags:#x} sacked={self.sacked:#x}>"


class OfoSkb:
    """A segment that came before its turn (`out_of_order_queue`); skb.data is at the payload."""

    __slots__ = ("end_seq", "fin", "seq", "skb")

    def __init__(self, seq: int, end_seq: int, fin: bool, skb: SkBuff) -> None:
        self.seq = seq
        self.end_seq = end_seq
        self.fin = fin
        self.skb = skb


@dataclass(slots=True, eq=False)
class TcpSock:
    """One socket. Field names are Linux's; `icsk_` is inet_connection_sock, `rx_` and `ack_` its
    and tcp_sock's inner structures."""

    # ---- struct sock, inet_sock
    sk: int
    state: int = TCP_CLOSE
    saddr: bytes = b""
    sport: int = 0
    daddr: bytes = b""
    dport: int = 0
    key: bytes = b""
    """Where the socket stands in ehash; b'' when it does not."""
    bound_addr: bytes = b""
    """What bind(2) asked for: the connection's saddr goes back to it."""
    bound_port: int = 0
    """Port of the bind bucket that this socket is in; 0: none."""
    bind_kind: int = 0
    """How the bind bucket counts it (`InetBindBucket`)."""
    userlocks: int = 0
    """SOCK_SNDBUF_LOCK 1, SOCK_RCVBUF_LOCK 2, SOCK_BINDADDR_LOCK 4, SOCK_BINDPORT_LOCK 8"""
    reuse: int = 0
    ifindex: int = 0
    shutdown: int = 0
    dead: bool = False
    """SOCK_DEAD: the application has closed it; an orphan."""
    done_sent: bool = False
    err_soft: int = 0
    tos: int = 0
    ttl: int = 0
    pmtudisc: int = 1
    inet_opt: bytes = b""
    """IP_OPTIONS, of a length that 4 divides."""
    recverr: bool = False
    freebind: bool = False
    transparent: bool = False
    min_ttl: int = 0
    ip_kept: tuple[tuple[str, int], ...] = ()
    """Options of level IP that are only remembered."""
    mark: int = 0
    priority: int = 0
    oif: int = 0
    rcvbuf: int = 0
    sndbuf: int = 0
    rcvlowat: int = 1
    keepopen: bool = False
    linger: int = -1
    parent: int = 0
    """The listener in whose accept queue this child waits; 0 once it is accepted."""
    route_req: int = 0
    """The pending IpRouteOutputKey of tcp_v4_connect."""
    connect_req: int = 0

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
    """Until when children that were reset count as if they waited."""
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
    """A call waits for the connection with more bytes: they will carry the ACK."""

    # ---- sending
    snd_una: int = 0
    snd_nxt: int = 0
    snd_wnd: int = 0
    snd_wl1: int = 0
    snd_sml: int = 0
    snd_up: int = 0
    urg_mode: bool = False
    write_seq: int = 0
    pushed_seq: int = 0
    max_window: int = 0
    snd_wscale: int = 0
    write_queue: list[TcpSeg] = field(default_factory=list)
    rtx_queue: list[TcpSeg] = field(default_factory=list)
    nonagle: int = 0
    mss_cache: int = TCP_MSS_DEFAULT
    mss_clamp: int = TCP_MSS_DEFAULT
    user_mss: int = 0
    advmss: int = 0
    pmtu: int = 0
    gso_max_size: int = 0
    tcp_header_len: int = 20
    # Path MTU probing (icsk_mtup, tcp_sock.mtu_probe; RFC 4821): sizes are MTUs
    mtup_enabled: bool = False
    mtup_search_high: int = 0xFFFF
    mtup_search_low: int = 0
    mtup_probe_size: int = 0
    """Of the probe that is out; 0: none."""
    mtup_probe_stamp: int = 0
    mtu_probe_seq_start: int = 0
    mtu_probe_seq_end: int = 0
    wspace: int = 0
    """Acknowledged bytes that SkWriteSpace has not told yet."""
    notsent_lowat: int = 0
    report: bool = False
    """The socket layer wants to know what the write queue looks like (`tcp_write_report`)."""
    bytes_sent: int = 0
    bytes_acked: int = 0
    bytes_retrans: int = 0
    data_segs_out: int = 0
    segs_out: int = 0
    lsndtime: int = 0
    tcp_mstamp: int = 0
    tcp_wstamp: int = 0

    # ---- retransmission and loss
    packets_out: int = 0
    retrans_out: int = 0
    lost_out: int = 0
    sacked_out: int = 0
    lost: int = 0
    total_retrans: int = 0
    total_rto: int = 0
    total_rto_recoveries: int = 0
    total_rto_time: int = 0
    """ms, of recoveries that are over; the one that is not began at rto_stamp."""
    rto_stamp: int = 0
    retrans_stamp: int = 0
    retransmit_high: int = 0
    """Segments from here on may be lost and not yet sent again (retransmit_skb_hint)."""
    undo_marker: int = 0
    undo_retrans: int = -1
    high_seq: int = 0
    frto: int = 0
    frto_snd_nxt: int = 0
    is_sack_reneg: bool = False
    reordering: int = 3
    reord_seen: int = 0
    dsack_dups: int = 0
    recv_sack_cache: tuple[tuple[int, int], ...] = ()
    highest_sack: int = 0
    tlp_high_seq: int = 0
    tlp_retrans: int = 0
    tlp_orig_data_sent: bool = False
    rack_mstamp: int = 0
    rack_end_seq: int = 0
    rack_rtt_us: int = 0
    rack_advanced: bool = False
    rack_reo_wnd_steps: int = 1
    rack_reo_wnd_persist: int = 0
    rack_dsack_seen: bool = False
    rack_last_delivered: int = 0
    prr_delivered: int = 0
    prr_out: int = 0
    prior_cwnd: int = 0
    prior_ssthresh: int = 0

    # ---- round-trip time (RFC 6298), us; srtt is times 8, mdev times 4
    srtt_us: int = 0
    mdev_us: int = 0
    mdev_max_us: int = 0
    rttvar_us: int = 0
    rtt_seq: int = 0
    rtt_min: tuple[tuple[int, int], ...] = ()
    """Windowed minimum (`struct minmax`): up to three (time in ms, rtt in us)."""
    icsk_rto: int = 0
    icsk_backoff: int = 0
    icsk_retransmits: int = 0
    icsk_probes_out: int = 0
    icsk_probes_tstamp: int = 0
    icsk_syn_retries: int = 0
    icsk_user_timeout: int = 0
    icsk_pending: int = 0
    icsk_timeout: int = 0

    # ---- congestion control
    ca_name: str = "cubic"
    ca_setsockopt: bool = False
    ca_state: int = 0
    ca_priv: list[int] = field(default_factory=list)
    snd_cwnd: int = TCP_INIT_CWND
    snd_cwnd_cnt: int = 0
    snd_cwnd_clamp: int = 0x7FFFFFFF
    snd_cwnd_used: int = 0
    snd_cwnd_stamp: int = 0
    snd_ssthresh: int = TCP_INFINITE_SSTHRESH
    is_cwnd_limited: bool = False
    max_packets_out: int = 0
    cwnd_usage_seq: int = 0

    # ---- what the connection waited for (tcp_chrono_start), us
    chrono_type: int = 0
    """TCP_CHRONO_UNSPEC 0, BUSY 1, RWND_LIMITED 2"""
    chrono_start: int = 0
    chrono_busy: int = 0
    chrono_rwnd: int = 0

    # ---- rate samples (tcp_rate.c)
    delivered: int = 0
    delivered_mstamp: int = 0
    first_tx_mstamp: int = 0
    app_limited: int = 0
    rate_delivered: int = 0
    rate_interval_us: int = 0
    rate_app_limited: bool = False
    pacing_rate: int = 0
    """B/s; it sizes super-segments, and holds back where pacing_status says so."""
    max_pacing_rate: int = 2**64 - 1
    pacing_status: int = 0
    """SK_PACING_NONE 0, NEEDED 1"""
    pacing_wstamp: int = 0
    """ns: before it nothing more may go (`tcp_wstamp_ns`)."""
    tsq_bytes: int = 0
    """Bytes that may still be on their way to the wire, as of tsq_stamp (tcp_small_queue_check)."""
    tsq_stamp: int = 0
    delivered_ce: int = 0

    ecn_flags: int = 0
    """TCP_ECN_MODE_RFC3168 1, QUEUE_CWR 2, DEMAND_CWR 4, SEEN 8, MODE_ACCECN 16"""
    accecn: "TcpAccEcn | None" = None
    """Both ends agreed on Accurate ECN."""

    # ---- receiving
    rcv_nxt: int = 0
    rcv_wup: int = 0
    rcv_wnd: int = 0
    rcv_up: int = 0
    urg_notyet: bool = False
    """TCP_URG_NOTYET: the byte at rcv_up has not come."""
    copied_seq: int = 0
    rmem_alloc: int = 0
    """Bytes handed up that the application has not taken yet."""
    rcv_wscale: int = 0
    window_clamp: int = 0
    rcv_ssthresh: int = 0
    pred_flags: bool = False
    """Header prediction is on (`tcp_fast_path_on`)."""
    pred_ack: int = 0x10
    """The header flags that it expects: ACK, and with Accurate ECN the counter."""
    ofo: list[OfoSkb] = field(default_factory=list)
    ofo_bytes: int = 0
    rmem_charged: int = 0
    """Bytes, in whole pages, that it may hold to be read (tcp_memory.py)."""
    wmem_charged: int = 0
    """The same for what it sends."""
    selective_acks: tuple[tuple[int, int], ...] = ()
    duplicate_sack: tuple[int, int] | None = None
    fin_received: bool = False
    bytes_received: int = 0
    segs_in: int = 0
    data_segs_in: int = 0
    rcv_ooopack: int = 0
    rcvq_space_seq: int = 0
    rcvq_space_time: int = 0
    rcvq_space_space: int = 0
    rcv_rtt_us: int = 0
    rcv_rtt_seq: int = 0
    rcv_rtt_time: int = 0
    rcv_rtt_last_tsecr: int = 0
    rcv_tstamp: int = 0

    # ---- options (struct tcp_options_received)
    tstamp_ok: bool = False
    sack_ok: bool = False
    wscale_ok: bool = False
    rx_saw_tstamp: bool = False
    rcv_tsval: int = 0
    rcv_tsecr: int = 0
    ts_recent: int = 0
    ts_recent_stamp: int = 0
    tsoffset: int = 0

    # ---- icsk_ack
    ack_pending: int = 0
    ack_quick: int = 0
    ack_pingpong: int = 0
    ack_ato: int = 0
    ack_timeout: int = 0
    ack_lrcvtime: int = 0
    ack_rcv_mss: int = TCP_MSS_DEFAULT
    ack_last_seg_size: int = 0
    last_oow_ack_time: int = 0
    compressed_ack: int = 0
    """ACKs with news of holes that were not sent (`net.ipv4.tcp_comp_sack_nr`)."""
    compressed_ack_rcv_nxt: int = 0
    dup_ack_counter: int = 0

    # ---- keepalive, orphans
    keepalive_time: int = 0
    keepalive_intvl: int = 0
    keepalive_probes: int = 0
    linger2: int = 0
    sk_timer_expires: int = -1

    # ---- derived: not written down
    sk_lock: int = 0
    """SK_OWNED 1, SK_READER 2 (sk_lock.py)"""
    slice_time: int = -1
    slice_bytes: int = 0
    """What sends of several chunks took in the batch of that time."""
    fastopen_rsk: "TcpRequestSock | None" = None
    """The request sock of a child that Fast Open made before the handshake was complete."""
    fastopen_req: "TcpFastopenRequest | None" = None
    """What the SYN shall carry, until it has gone."""
    tsorted: OrderedDict[TcpSeg, None] = field(default_factory=OrderedDict)
    """Sent segments, by time of last transmission, without what is SACKed or marked lost."""
    write_timer: Timer[Any] | None = None
    delack_timer: Timer[Any] | None = None
    sk_timer: Timer[Any] | None = None
    pacing_timer: Timer[Any] | None = None
    compressed_ack_timer: Timer[Any] | None = None
    pseudo: int = 0
    """Sum of the pseudo-header without the length."""
    xmit_cb: tuple[object, ...] = ()


class TcpAccEcn:
    """The Accurate ECN of a connection (RFC 9768)."""

    __slots__ = (
        "checked",
        "fail",
        "pkts_acked_ewma",
        "prev_ecnfield",
        "received_bytes",
        "received_ce",
        "received_ce_pending",
        "syn_ect_rcv",
        "syn_ect_snt",
    )

    def __init__(self, syn_ect_snt: int, syn_ect_rcv: int) -> None:
        self.syn_ect_snt = syn_ect_snt
        """The ECN field of our SYN or SYN-ACK as it was sent,"""
        self.syn_ect_rcv = self.prev_ecnfield = syn_ect_rcv
        """and of the peer's as it came; prev_ecnfield: of the last segment."""
        self.received_ce = 0
        """Marks that came,"""
        self.received_ce_pending = 0
        """and those of them that the peer has not been told of."""
        self.received_bytes = [0, 0, 0]
        """Bytes that came with ECT(1), ECT(0) and CE."""
        self.fail = False
        """Somebody mangles the bits: nothing that is sent is ECN-capable."""
        self.checked = False
        """The peer's first counter has been seen."""
        self.pkts_acked_ewma = 0
        """How many segments an ACK acknowledges, smoothed; of 64."""


class TcpRequestSock:
    """A connection in SYN_RECV that has no socket yet (`struct tcp_request_sock`)."""

    __slots__ = (
        "accecn_ok",
        "acked",
        "daddr",
        "dport",
        "ecn_ok",
        "key",
        "last_oow_ack_time",
        "listener",
        "mss",
        "mtu",
        "num_retrans",
        "num_timeout",
        "rcv_isn",
        "rcv_nxt",
        "rcv_wnd",
        "rcv_wscale",
        "sack_ok",
        "saddr",
        "snd_wscale",
        "snt_isn",
        "snt_synack",
        "sport",
        "syn_ect_rcv",
        "timer",
        "tos",
        "ts_off",
        "ts_recent",
        "tstamp_ok",
        "wscale_ok",
    )
    state: Final = TCP_NEW_SYN_RECV

    def __init__(self, listener: int, key: bytes) -> None:
        self.listener = listener
        self.key = key
        self.saddr = b""
        self.daddr = b""
        self.sport = 0
        self.dport = 0
        self.rcv_isn = 0
        self.rcv_nxt = 0
        self.snt_isn = 0
        self.snt_synack = 0
        """When the first SYN-ACK was sent, us."""
        self.mss = 0
        self.mtu = 0
        self.rcv_wnd = 0
        self.rcv_wscale = 0
        self.snd_wscale = 0
        self.tstamp_ok = False
        self.sack_ok = False
        self.wscale_ok = False
        self.ecn_ok = False
        self.accecn_ok = False
        self.syn_ect_rcv = 0
        """The ECN field that the SYN came with."""
        self.ts_recent = 0
        self.ts_off = 0
        self.tos = 0
        self.num_retrans = 0
        self.num_timeout = 0
        self.acked = False
        """The handshake's ACK came while the accept queue was full, or DEFER_ACCEPT waits."""
        self.last_oow_ack_time = 0
        self.timer: Timer[Any] | None = None


class TcpTimewaitSock:
    """What is left of a connection in TIME_WAIT or, orphaned, in FIN_WAIT2
    (`struct tcp_timewait_sock`). RFC 9293 3.6.1, RFC 1337."""

    __slots__ = (
        "bind_kind",
        "bound_addr",
        "daddr",
        "dport",
        "key",
        "last_oow_ack_time",
        "rcv_nxt",
        "rcv_wnd",
        "rcv_wscale",
        "saddr",
        "snd_nxt",
        "sport",
        "substate",
        "timer",
        "tos",
        "ts_offset",
        "ts_recent",
        "ts_recent_stamp",
    )
    state: Final = TCP_TIME_WAIT

    def __init__(self, tp: TcpSock, substate: int) -> None:
        self.key = tp.key
        self.saddr = tp.saddr
        self.daddr = tp.daddr
        self.sport = tp.sport
        self.dport = tp.dport
        self.bound_addr = tp.bound_addr
        self.bind_kind = tp.bind_kind
        self.substate = substate
        self.rcv_nxt = tp.rcv_nxt
        self.snd_nxt = tp.snd_nxt
        self.rcv_wnd = tp.rcv_wnd
        self.rcv_wscale = tp.rcv_wscale
        self.ts_recent = tp.ts_recent
        self.ts_recent_stamp = tp.ts_recent_stamp
        self.ts_offset = tp.tsoffset
        self.tos = tp.tos
        self.last_oow_ack_time = 0
        self.timer: Timer[Any] | None = None


_DERIVED: Final = frozenset(
    {
        "tsorted",
        "write_timer",
        "delack_timer",
        "sk_timer",
        "pacing_timer",
        "compressed_ack_timer",
        "pseudo",
        "xmit_cb",
        "fastopen_rsk",
        "fastopen_req",
        "sk_lock",
        "slice_time",
        "slice_bytes",
    }
)
_FIELDS: Final = tuple(f.name for f in fields(TcpSock) if f.name not in _DERIVED)
_SEG_FIELDS: Final = tuple(TcpSeg.__slots__)
_OFO_SKB: Final = ("id", "head", "data", "frags", "lent", "skb_iif", "gso_size", "gso_segs")

DUMP_VERSION: Final = 1


class BadDumpError(ValueError):
    """A dump that is not one of this version; the text says why."""


def tcp_sock_dump(tp: TcpSock) -> tuple[object, ...]:
    """Write a socket down: nested tuples of ints, bytes, strings and None, for msgpack."""
    order = {id(seg): i for i, seg in enumerate(tp.tsorted)}
    out: list[object] = [DUMP_VERSION]
    for name in _FIELDS:
        value = getattr(tp, name)
        if name == "write_queue" or name == "rtx_queue":
            value = tuple(
                (*(getattr(seg, f) for f in _SEG_FIELDS), order.get(id(seg), -1)) for seg in value
            )
        elif name == "ofo":
            value = tuple(
                (o.seq, o.end_seq, o.fin, *(getattr(o.skb, f) for f in _OFO_SKB)) for o in value
            )
        elif (name == "accept_queue" and value is not None) or name == "ca_priv":
            value = tuple(value)
        out.append(value)
    timers = (tp.write_timer, tp.delack_timer, tp.sk_timer)
    out += [timer.expires if timer is not None else -1 for timer in timers]
    return tuple(out)


def _tuples(value: Any) -> Any:
    """msgpack gives lists back: make them tuples, which is what the fields hold."""
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value


def tcp_sock_load(dump: tuple[object, ...]) -> tuple[TcpSock, tuple[int, int, int]]:
    """The socket of a dump, and the deadlines of its write, delayed-ACK and keepalive timers.

    `TcpNet.adopt` arms them. BadDumpError where the dump is not ours.
    """
    if len(dump) != len(_FIELDS) + 4 or dump[0] != DUMP_VERSION:
        raise BadDumpError(
            f"a dump of {len(dump)} fields, version {dump[0] if dump else None}; "
            f"wanted {len(_FIELDS) + 4} fields, version {DUMP_VERSION}"
        )
    tp = TcpSock(0)
    ordered: list[tuple[int, TcpSeg]] = []
    for name, raw in zip(_FIELDS, dump[1:], strict=False):
        value: Any = _tuples(raw)
        if name == "write_queue" or name == "rtx_queue":
            segs = []
            for item in value:
                seg = TcpSeg(0, 0, 0, ())
                for f, v in zip(_SEG_FIELDS, item, strict=False):
                    setattr(seg, f, v)
                segs.append(seg)
                if item[-1] >= 0:
                    ordered.append((item[-1], seg))
            value = segs
        elif name == "ofo":
            queue = []
            for seq, end_seq, fin, *skb_fields in value:
                skb = SkBuff(skb_fields[1], skb_fields[3])
                for f, v in zip(_OFO_SKB, skb_fields, strict=True):
                    setattr(skb, f, v)
                queue.append(OfoSkb(seq, end_seq, fin, skb))
            value = queue
        elif name == "accept_queue" and value is not None:
            value = dict.fromkeys(value)
        elif name == "ca_priv":
            value = list(value)
        setattr(tp, name, value)
    for _, seg in sorted(ordered, key=lambda pair: pair[0]):
        tp.tsorted[seg] = None
    write, delack, sk_timer = (int(v) for v in dump[-3:] if isinstance(v, int))
    return tp, (write, delack, sk_timer)
