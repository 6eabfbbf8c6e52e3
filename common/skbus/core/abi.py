# SPDX-License-Identifier: MIT
"""The schema of the messages between processes: one table, one ABI number.

A message is one or two ZeroMQ frames: `meta` and, where there is inline payload, `data`. `meta`
begins with a head, all numbers little-endian:

    mark 0x94, ABI, flags, bytes of the head   four bytes
    epoch                                      eight bytes, with its sign
    bytes of the sender's name                 one byte
    sender, entry                              UTF-8, to the end of the head

The entry is named after the function of the callee that takes it. With flags 0 one item follows,
to the end. With flags 1 a run of items follows, each behind its size in four bytes. The last of the
run has bit 31 of its size set. Another run may follow behind it, with a head of its own. So items
are in the order in which they were sent. An empty message is a head without an entry, flags 1.

An item is one of the NamedTuples below, in the layout of `skbus.core.layout`, or an skb: its struct
(`skbus.bus.codec.SKB_STRUCT`), its head, a place of five numbers for each frag, and its `cb` in the
layout of its NamedTuple. Inline payload lies in `data`, in the order of the skbs; payload in the
pool is only named, by its place.

`skbus.core.interfaces` has the entries, their callers and callees, and which of the NamedTuples
below belongs to each. An entry with payload is an skb entry: its NamedTuple is the skb's `cb`.
Addresses are bytes of length 4 (or 16). Ports, lengths and times are ints. `sk` is a socket's
number: the socket layer gives those below 2^32, tcp those from 2^32 on (an accepted `child`).
`req` is the asker's number for a request, 0 where no answer is wanted.
"""

from typing import Annotated, Final, NamedTuple

ABI: Final = 4

Addr = Annotated[bytes, 16]
"""An address. Bytes with a bound lie in an item's fixed part, with their length in front."""
IpOptions = Annotated[bytes, 40]
"""The options of an IPv4 header."""


# ---- every process ----------------------------------------------------------------------


class Hello(NamedTuple):
    """A process is up; sent to its neighbours at start, and as the answer to theirs."""

    process: str
    epoch: int
    answer: bool


class Barrier(NamedTuple):
    """`leg` 0 goes down, 1 up, 2 down, 3 up (`skbus.bus.barrier`); joined at every process."""

    token: int
    leg: int


# ---- nic -> ip ---------------------------------------------------------------------------


class RegisterNetdevice(NamedTuple):
    """A device is there, or has changed. `process` is where `dev_queue_xmit` goes."""

    process: str
    dev: str
    ifindex: int
    dev_addr: bytes
    mtu: int
    features: int
    gso_max_size: int
    up: bool


class BacklogMark(NamedTuple):
    """`backlog_mark`: a mark that the nic `process` sends up behind packets of `protocol`. ip sends
    it on to the process that has the protocol. It returns by `backlog_mark_ret`
    (`nic/synlimit.py`)."""

    process: str
    protocol: int
    mark: int
    """How many packets went up in front of the mark."""


# ---- ip -> nic ---------------------------------------------------------------------------


class PacketType(NamedTuple):
    """`struct packet_type`: frames of Ethernet type `type` go to `process`, by the entry `func`."""

    type: int
    process: str
    func: str


# ---- ip -> transports --------------------------------------------------------------------


class InetProtocolRet(NamedTuple):
    """What became of an InetAddProtocol that ip refuses. err: an errno."""

    protocol: int
    err: int


class RcvCb(NamedTuple):
    """cb of an skb that ip hands to a transport: `data` is at the transport header,
    `network_header` at the IP header. Padding is trimmed, fragments are reassembled."""

    saddr: Addr
    daddr: Addr
    tos: int
    ttl: int
    mtu: int
    """MTU of the route back to saddr, bytes."""


class ErrHandler(NamedTuple):
    """`tcp_v4_err` and `udp_err`: an ICMP error about a packet that we sent.

    `payload` is what ICMP quoted from the transport header on (8 bytes or more)."""

    type: int
    code: int
    info: int
    """Next-hop MTU for ICMP_FRAG_NEEDED, gateway for ICMP_REDIRECT, else 0."""
    offender: Addr
    saddr: Addr
    """Source of the quoted packet: our address."""
    daddr: Addr
    payload: bytes
    ifindex: int = 0
    """The device by which the ICMP error came."""


class RouteRet(NamedTuple):
    """The answer to IpRouteOutputKey. err is an errno, 0 for success."""

    req: int
    err: int
    saddr: Addr
    daddr: Addr
    oif: int
    mtu: int
    rt_type: int
    genid: int


class RtCacheFlush(NamedTuple):
    """Routes or addresses changed: routes cached under an older genid are stale."""

    genid: int


class DstMtu(NamedTuple):
    """`dst_mtu`: from now on packets to daddr may have no more than `mtu` bytes. A path MTU was
    learned, or was forgotten."""

    daddr: Addr
    mtu: int


class McRet(NamedTuple):
    """The answer to McSetsockopt. mc_list: the groups that the socket is in from now on, as
    `skbus.inet.mcast` has them."""

    sk: int
    req: int
    err: int
    mc_list: object


class InetdevEvent(NamedTuple):
    """An address of ours, with its device; sent to every transport when it registers, and on
    change. `up` False: it is gone."""

    ifindex: int
    dev: str
    addr: Addr
    prefixlen: int
    broadcast: Addr
    mtu: int
    features: int
    gso_max_size: int
    up: bool


# ---- transports -> ip --------------------------------------------------------------------


class McSetsockopt(NamedTuple):
    """`ip_mc_setsockopt`: an option that changes the groups of a socket of `process`
    (IP_ADD_MEMBERSHIP, MCAST_JOIN_GROUP, ...). McRet answers."""

    process: str
    sk: int
    req: int
    optname: int
    value: bytes


class McDropSocket(NamedTuple):
    """`ip_mc_drop_socket`: a socket of `process` is closed, and leaves all its groups."""

    process: str
    sk: int


class InetAddProtocol(NamedTuple):
    """Deliver IP protocol `protocol` to `process`, by the entries `handler` and `err_handler`."""

    protocol: int
    process: str
    handler: str
    err_handler: str


class InetDelProtocol(NamedTuple):
    protocol: int
    process: str


class ProtoUnregister(NamedTuple):
    """`proto_unregister`: the transport `process` is gone for good; told to the socket layer."""

    process: str


class IpRouteOutputKey(NamedTuple):
    """Which route, source address and MTU lead to daddr? saddr b'' is for ip to choose."""

    req: int
    process: str
    daddr: Addr
    saddr: Addr
    oif: int
    tos: int


class XmitCb(NamedTuple):
    """cb of an skb that a transport hands to `ip_queue_xmit` or `ip_send_skb`.

    `data` is at the transport header. csum_start and csum_offset are set for CHECKSUM_PARTIAL,
    with the transport's checksum field seeded by the folded pseudo-header sum."""

    saddr: Addr
    daddr: Addr
    protocol: int
    tos: int
    ttl: int
    """0: `ip_default_ttl`; -1: a TTL of 0, for a multicast that stays on this host"""
    df: bool
    oif: int
    """0: by route"""
    options: IpOptions
    mc_loop: bool = True
    """IP_MULTICAST_LOOP: a multicast comes back to us where we are in its group"""
    unconnected: bool = False
    """With df: no connection counts its identifications, so it is 0 (RFC 6864 4.1)"""
    pmtudisc: int = 1
    """IP_MTU_DISCOVER of the socket. IP_PMTUDISC_WANT: df only while the path's MTU is not locked
    (`ip_dont_fragment`); from IP_PMTUDISC_PROBE on, the device's MTU counts, not the path's
    (`ip_sk_use_pmtu`)"""


class Redirect(NamedTuple):
    """`ipv4_redirect`: an ICMP redirect quotes a packet to `daddr`, which a transport has
    recognised as its own. `old_gw` sent the redirect by device `ifindex`, and names `new_gw`."""

    daddr: Addr
    new_gw: Addr
    old_gw: Addr
    ifindex: int


class UpdatePmtu(NamedTuple):
    """`ipv4_update_pmtu`: a "fragmentation needed" quotes a packet to `daddr`, which a transport
    has recognised as its own. No more than `mtu` bytes pass there."""

    daddr: Addr
    mtu: int


class IcmpSendCb(NamedTuple):
    """cb of an skb, as `RcvCb` describes it, for which ip shall send an ICMP error."""

    type: int
    code: int
    info: int


# ---- socket -> tcp, udp ------------------------------------------------------------------


class InitSock(NamedTuple):
    """`tcp_v4_init_sock`, `udp_init_sock`, `raw_sk_init`, `ping_init_sock`: socket number sk
    begins. type: SOCK_STREAM, SOCK_DGRAM, ...; an ICMP socket with SOCK_RAW is a raw one."""

    sk: int
    family: int
    protocol: int
    type: int


GET_PORT_AUTO: Final = 4


class GetPort(NamedTuple):
    """`inet_csk_get_port`, `udp_v4_get_port` (bind). reuse: bit 0 SO_REUSEADDR, 1 SO_REUSEPORT.
    addr of zeros is the wildcard; port 0 asks for an automatic one. SkRet.val: [addr, port]

    Where tcp has several shards, bit 2 of reuse (GET_PORT_AUTO) says that another shard found the
    port, for port 0. Port -1 gives back a port that another shard refused. A port below -1 asks
    for the next free one behind -port."""

    sk: int
    req: int
    addr: Addr
    port: int
    reuse: int
    ifindex: int


class ListenStart(NamedTuple):
    """`inet_csk_listen_start`. SkRet.val: [addr, port]. Again on a listener: a new backlog."""

    sk: int
    req: int
    backlog: int


class Connect(NamedTuple):
    """`tcp_v4_connect`, `ip4_datagram_connect`. SkRet answers once route and ports are settled
    (val: [laddr, lport]). For TCP, SkStateChange or SkErrorReport then tells the outcome. A third
    item in val, True: TCP_FASTOPEN_CONNECT, the SYN waits for `tcp_sendmsg_fastopen`. err EREMCHG:
    the port is bound, and the connection from it belongs to the shard of tcp that val names."""

    sk: int
    req: int
    addr: Addr
    port: int


class Disconnect(NamedTuple):
    """`tcp_disconnect`, `udp_disconnect` (connect to AF_UNSPEC)."""

    sk: int
    req: int


class Recvmsg(NamedTuple):
    """The application took `copied` bytes from sk's receive queue (`tcp_cleanup_rbuf`). waiting:
    the application waits for more (TCP: segments for it may go through the prequeue)."""

    sk: int
    copied: int
    waiting: bool = False
    datagrams: int = 1
    """UDP: how many datagrams these bytes are."""


class Accept(NamedTuple):
    """The application accepted `child` from listener `sk` (`inet_csk_accept`)."""

    sk: int
    child: int


class Shutdown(NamedTuple):
    """how: 1 RCV_SHUTDOWN, 2 SEND_SHUTDOWN, 3 both (`tcp_shutdown`)."""

    sk: int
    how: int


class Close(NamedTuple):
    """`tcp_close`, `udp_lib_close`. unread: bytes that the application left unread (TCP answers
    with RST). linger: SO_LINGER's seconds, -1 if off; 0 aborts."""

    sk: int
    unread: int
    linger: int


class Setsockopt(NamedTuple):
    """value is what setsockopt(2) was given. SkRet.val: None. The socket layer also passes on the
    options of SOL_SOCKET that a transport must know (SO_RCVBUF, SO_SNDBUF, SO_KEEPALIVE, ...).
    cap_net_admin: the caller has the privilege that some values take (TCP_CONGESTION)."""

    sk: int
    req: int
    level: int
    optname: int
    value: bytes
    cap_net_admin: bool = True


class Getsockopt(NamedTuple):
    """SkRet.val: the option's bytes."""

    sk: int
    req: int
    level: int
    optname: int
    optlen: int


class TcpSendmsgCb(NamedTuple):
    """cb of `tcp_sendmsg`: the payload is the skb's frags, and head is empty. The skb is lent: the
    bytes stay with the socket layer until SkWriteSpace. flags: MSG_MORE, MSG_OOB, MSG_EOR.
    report: SkWriteSpace shall tell the state of the write queue, now and when more is sent."""

    sk: int
    flags: int
    report: bool = False


class TcpSendmsgFastopenCb(NamedTuple):
    """cb of `tcp_sendmsg_fastopen`: connect to addr, with as much of the payload in the SYN as may
    be (RFC 7413). addr b'': the connect was deferred (TCP_FASTOPEN_CONNECT), and is to begin. The
    skb is lent like that of `tcp_sendmsg`. size: bytes of the whole call. wait: the call waits
    for the connection, to send the rest. SkRet.val: [laddr, lport, bytes that the SYN took]"""

    sk: int
    req: int
    addr: Addr
    port: int
    size: int
    wait: bool


class UdpSendmsgCb(NamedTuple):
    """cb of `udp_sendmsg`, `raw_sendmsg`, `ping_v4_sendmsg`: the payload is the skb's head and
    frags, which go with it.
    addr b'' means the connected peer. The answer to req is an errno (EMSGSIZE, ENETUNREACH, ...).
    req 0: nobody waits, an error is the sock's pending one, and SkWriteSpace tells when the
    datagram has gone. The fields from tos on come from control messages (`struct ipcm_cookie`).

    To udp, with SKB_GSO_BATCH: many datagrams of one size, the last may be shorter. req is 0."""

    sk: int
    req: int
    addr: Addr
    port: int
    flags: int
    tos: int
    """-1: the socket's own"""
    ttl: int
    """0: the socket's own"""
    saddr: Addr = b""
    """IP_PKTINFO: b'' for the socket's own"""
    oif: int = 0
    options: IpOptions = b""
    """IP_RETOPTS: b'' for the socket's own"""
    gso_size: int = -1
    """UDP_SEGMENT: -1 for the socket's own"""


class LocalAddr(NamedTuple):
    """The answer to a GetPort or a ListenStart: the address and the port that the socket has."""

    addr: Addr
    port: int


class Connected(NamedTuple):
    """The answer to a Connect or a `tcp_sendmsg_fastopen`: our own address and port.

    deferred: TCP_FASTOPEN_CONNECT, the SYN waits for `tcp_sendmsg_fastopen`. shard: with err
    EREMCHG, the shard of tcp to which the connection belongs; else -1."""

    addr: Addr
    port: int
    deferred: bool = False
    shard: int = -1
    copied: int = 0
    """Bytes that the SYN took."""


# ---- tcp, udp -> socket ------------------------------------------------------------------


class SkRet(NamedTuple):
    """The answer to a request. err is an errno, 0 for success; val depends on the request."""

    sk: int
    req: int
    err: int
    val: object


class SkStateChange(NamedTuple):
    """`sk.sk_state_change`: TCP state (Linux's numbers: TCP_ESTABLISHED 1, ...) and addresses."""

    sk: int
    state: int
    saddr: Addr
    sport: int
    daddr: Addr
    dport: int


class ReqskQueueAdd(NamedTuple):
    """`inet_csk_reqsk_queue_add`: an established `child` waits in listener sk's accept queue."""

    sk: int
    child: int
    saddr: Addr
    sport: int
    daddr: Addr
    dport: int


class SkWriteSpace(NamedTuple):
    """`sk.sk_write_space`: `acked` more bytes of the send queue are done with (TCP: acknowledged,
    UDP: sent or refused, with what the queue counts for each datagram). sndbuf: what the transport
    now thinks a good send buffer, 0 for no opinion. Negative: memory is short, and the send buffer
    shall be -sndbuf at most.

    The other fields tell the write queue as it is now, where a `tcp_sendmsg` asked for that."""

    sk: int
    acked: int
    sndbuf: int
    queued: int = -1
    """Bytes that are not acknowledged; -1: this and the fields below tell nothing."""
    notsent: int = 0
    """Bytes of `queued` that were not sent yet."""
    room: int = 0
    """Bytes that the last segment still takes."""
    size_goal: int = 0
    """Bytes that a segment may have (`tcp_xmit_size_goal`)."""


class SkErrorReport(NamedTuple):
    """`sk.sk_error_report`: errno for SO_ERROR. hard: the connection is over."""

    sk: int
    err: int
    hard: bool


class TcpRcvqAsk(NamedTuple):
    """Tell now (Recvmsg) how much of sk's receive queue was read since the last Recvmsg."""

    sk: int


class TcpFin(NamedTuple):
    """`tcp_fin`: the peer sent FIN, after all data that was handed up."""

    sk: int


class TcpDone(NamedTuple):
    """`tcp_done`: the connection is over and sk's number may be forgotten once it is closed."""

    sk: int


DATA_PSH: Final = 1
"""Flag of DataReadyCb: PSH was set."""
DATA_URG: Final = 2
"""The payload has the urgent byte, at flags >> DATA_URG_SHIFT."""
DATA_URG_SHIFT: Final = 8
DATA_TELL_READ: Final = 4
"""An ACK waits until the payload is read: once the receive queue is empty, tcp is told at once
(Recvmsg)."""


class DataReadyCb(NamedTuple):
    """cb of `sk_data_ready`: payload for sk, in order (TCP), or one datagram (UDP: from saddr,
    sport to daddr, dport). `data` is at the payload: for raw sockets the IP header, for ping
    sockets the ICMP header. Control messages are made from the IP header, at `network_header`.
    flags: DATA_PSH, DATA_URG, DATA_TELL_READ."""

    sk: int
    saddr: Addr
    sport: int
    daddr: Addr
    dport: int
    ifindex: int
    flags: int
    seq: int
    """TCP: number of the first byte. Datagrams: how many had been dropped (SO_RXQ_OVFL)."""
    spec_dst: Addr = b""
    """Our address for a reply, where daddr is none of ours (multicast, broadcast)."""


class SockErrCb(NamedTuple):
    """cb of `sock_queue_err_skb` (`struct sock_exterr_skb`): an error for sk's error queue. `data`
    is what ICMP quoted of the packet to addr, port. offender b'': this host itself."""

    sk: int
    ee_errno: int
    ee_origin: int
    ee_type: int
    ee_code: int
    ee_info: int
    offender: Addr
    addr: Addr
    port: int
    ifindex: int
