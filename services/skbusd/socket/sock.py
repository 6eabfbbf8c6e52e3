# SPDX-License-Identifier: MIT
"""struct sock: the network layer's representation of a socket (`include/net/sock.h`,
`net/core/sock.c`), its queues, its wait queue and its memory accounting.

    Sock -> InetSock -> InetConnectionSock -> TcpSock
                     -> UdpSock -> RawSock

The chain is C's: each struct begins with the one before it. The transport's own part of a
connection (sequence numbers, timers) lives in the transport's process, under the same number;
here lies what an application can see, and the bytes (docs/architecture.md, "Who owns what").

A call that must wait is *parked*: it stands in the sock's wait queue with a function that is
tried again at each wake-up, until it can answer. So nothing blocks, and a waiting call costs a
few hundred bytes.
"""

import errno
from collections import deque
from collections.abc import Callable, Mapping, MutableSequence
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from skbus.core.abi import Accept
from skbus.core.compiled import mypyc_attr
from skbus.core.flow_dissector import NO_PORT, Flow, sock_flow
from skbus.core.net import Net
from skbus.core.pool import Allocator, Pool, StalePlaceError
from skbus.core.share import Share
from skbus.core.skbuff import Frag, Place, SkBuff
from skbus.core.syscall import SysCallError
from skbus.core.sysctl import Sysctl
from skbus.core.timer import Timer
from skbus.inet.mcast import McList
from skbusd.socket import uapi
from skbusd.socket.page_frag import (
    PageFrag,
    SendItem,
    SplitPlace,
    purge_write_queue,
    split_put,
)

if TYPE_CHECKING:
    from skbusd.socket.files import Client, SockFs
    from skbusd.socket.modprobe import ModProbe
    from skbusd.socket.proto import Proto
    from skbusd.socket.protosw import InetProtosw
    from skbusd.socket.socket import NetProtoFamily, Socket
    from skbusd.socket.tcp_shards import Bound

SNDBUF_START: Final = 87040
"""A stream's send buffer before autotuning: `tcp_sndbuf_expand` for an initial window of ten."""

LEND_MIN: Final = 4096
"""Payload above this is lent to the application in the pool; below, copying it is cheaper."""

_PRESSURE_INTERVAL: Final = 5_000_000

_NO_FLAGS: Final[Mapping[int, int]] = MappingProxyType({})
_NO_OPTIONS: Final[Mapping[tuple[int, int], bytes]] = MappingProxyType({})

Cmsg = tuple[int, int, bytes]
"""A control message: (level, type, data)."""
Retry = Callable[["SocketNet", "Call"], None]
Answer = Callable[["SocketNet", int, Any], None]
"""What happens when a transport has answered: (net, errno, value)."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Call:
    """One system call in progress, or a caller inside the socket process.

    timeout: ns, -1 for ever, 0 not at all. complete: told the outcome, once. The fields from
    `size` on are the call's own notes between two tries.
    """

    __slots__ = (
        "addr", "chunks", "client", "complete", "control", "controllen", "done", "flags",
        "identity", "name", "on_timeout", "progress", "req", "retry", "size", "sock", "split",
        "timeout", "timer", "vlen", "waits",
    )  # fmt: skip

    def __init__(
        self,
        complete: "Callable[[SocketNet, Call, int, object, bytes], None]",
        *,
        client: "Client | None" = None,
        identity: bytes = b"",
        req: int = 0,
        name: str = "",
        timeout: int = -1,
    ) -> None:
        self.complete = complete
        self.client = client
        self.identity = identity
        self.req = req
        self.name = name
        self.timeout = timeout
        self.done = False
        self.retry: Retry | None = None
        self.on_timeout = errno.EAGAIN
        self.timer: Timer[SocketNet] | None = None
        self.waits: list[Sock] = []
        self.sock: Socket | None = None
        self.size = 0
        self.flags = 0
        self.progress = 0
        self.chunks: deque[Frag] = deque()
        self.split: SplitPlace | None = None
        """The slot of which the first chunk is the rest; its parts before are queued."""
        self.addr: tuple[int, int, bytes] | None = None
        self.control: tuple[Cmsg, ...] = ()
        self.controllen = 0
        """Bytes of control messages that the application has room for."""
        self.vlen = 0
        """Datagrams that a recvmmsg takes; 0: the call is recvmsg."""


class Sock:
    """`struct sock`. number: under which the transport knows it."""

    __slots__ = (
        "number", "rcv_tell", "rcv_told", "sk_bound_dev", "sk_bound_dev_if", "sk_err", "sk_err_mem",
        "sk_err_soft", "sk_error_queue", "sk_family", "sk_flags", "sk_frag", "sk_lingertime",
        "sk_mark", "sk_max_pacing_rate", "sk_priority", "sk_prot", "sk_protocol",
        "sk_rcvbuf", "sk_rcvbuf_lock", "sk_rcvlowat", "sk_rcvtimeo", "sk_receive_queue",
        "sk_reuse", "sk_reuseport",
        "sk_rmem_alloc", "sk_shutdown", "sk_sndbuf", "sk_sndbuf_lock", "sk_sndtimeo", "sk_socket",
        "sk_state", "sk_type", "sk_wmem_queued", "sk_wq", "sk_write_queue",
    )  # fmt: skip

    def __init__(self, number: int, family: int, type: int, protocol: int, prot: "Proto") -> None:
        self.number = number
        self.sk_family = family
        self.sk_type = type
        self.sk_protocol = protocol
        self.sk_prot = prot
        self.sk_socket: Socket | None = None
        self.sk_state = uapi.TCP_CLOSE
        self.sk_err = 0
        self.sk_err_soft = 0
        self.sk_shutdown = 0
        self.sk_receive_queue: MutableSequence[SkBuff] = []
        self.sk_rmem_alloc = 0
        self.sk_error_queue: list[SkBuff] | None = None
        self.sk_err_mem = 0
        """Bytes in sk_error_queue."""
        self.sk_write_queue: list[SendItem] = []
        self.sk_wmem_queued = 0
        self.sk_rcvbuf = 0
        self.sk_sndbuf = 0
        self.sk_sndbuf_lock = False
        self.sk_rcvbuf_lock = False
        self.sk_rcvlowat = 1
        self.sk_rcvtimeo = 0
        self.sk_sndtimeo = 0
        self.sk_lingertime = -1
        self.sk_reuse = 0
        self.sk_reuseport = 0
        self.sk_bound_dev_if = 0
        self.sk_bound_dev = b""
        """SO_BINDTODEVICE: its name, for getsockopt"""
        self.sk_priority = 0
        self.sk_mark = 0
        self.sk_max_pacing_rate = 2**64 - 1
        self.sk_flags: Mapping[int, int] = _NO_FLAGS
        """SO_... of SOL_SOCKET that are just remembered (SOCK_KEEPOPEN, SOCK_BROADCAST, ...)"""
        self.sk_wq: list[Call] = []
        self.sk_frag: PageFrag | None = None
        self.rcv_told = 0
        self.rcv_tell = False
        """tcp is to hear at once that the receive queue has been emptied."""
        """Bytes that were taken from the receive queue and of which the transport knows nothing."""


class InetSock(Sock):
    """`struct inet_sock`: a sock with internet addresses."""

    __slots__ = (
        "cmsg_flags", "inet_daddr", "inet_dport", "inet_num", "inet_rcv_saddr", "inet_saddr",
        "inet_sport", "tos", "uc_ttl",
    )  # fmt: skip

    def __init__(self, number: int, family: int, type: int, protocol: int, prot: "Proto") -> None:
        super().__init__(number, family, type, protocol, prot)
        self.inet_saddr = uapi.INADDR_ANY
        self.inet_rcv_saddr = uapi.INADDR_ANY
        self.inet_daddr = uapi.INADDR_ANY
        self.inet_sport = 0
        self.inet_num = 0
        self.inet_dport = 0
        self.tos = 0
        self.uc_ttl = -1
        self.cmsg_flags = 0
        """What control messages recvmsg shall bring (`ip_sockglue`)."""

    def set_cmsg(self, bit: int, on: bool) -> None:
        """Turn one of cmsg_flags on or off."""
        self.cmsg_flags = self.cmsg_flags | bit if on else self.cmsg_flags & ~bit


class InetConnectionSock(InetSock):
    """`struct inet_connection_sock`: a sock that connects, or listens."""

    __slots__ = ("icsk_accept_queue", "sk_max_ack_backlog")

    def __init__(self, number: int, family: int, type: int, protocol: int, prot: "Proto") -> None:
        super().__init__(number, family, type, protocol, prot)
        self.icsk_accept_queue: deque[InetConnectionSock] | None = None
        self.sk_max_ack_backlog = 0


class TcpSock(InetConnectionSock):
    """`struct tcp_sock`, the part that applications see."""

    __slots__ = (
        "asked", "defer_connect", "nonagle", "notsent", "notsent_lowat", "options", "parent",
        "recvmsg_inq", "report", "sock_done", "told_waiting", "urg_data", "urg_off",
    )  # fmt: skip

    def __init__(self, number: int, family: int, type: int, protocol: int, prot: "Proto") -> None:
        super().__init__(number, family, type, protocol, prot)
        self.nonagle = 0
        self.defer_connect = False
        """connect(2) has returned, and the SYN waits for data (TCP_FASTOPEN_CONNECT)."""
        self.sock_done = False
        """SOCK_DONE: the peer's FIN has been seen."""
        self.urg_data = 0
        """The urgent byte, and what has become of it (tcp_urg.py); 0: there is none."""
        self.urg_off = 0
        self.recvmsg_inq = False
        """TCP_INQ: each recvmsg says how much is left."""
        self.notsent_lowat = 0xFFFFFFFF
        """TCP_NOTSENT_LOWAT, or what the sysctl was when the socket was made."""
        self.notsent = 0
        self.report: tuple[int, int] | None = None
        """What tcp told of its write queue, as long as it is true (stream.py)."""
        self.asked = False
        self.told_waiting = False
        """tcp knows that a reader waits."""
        self.parent: TcpSock | None = None
        """The listener in whose accept queue it waits."""
        self.options: Mapping[tuple[int, int], bytes] = _NO_OPTIONS
        """What setsockopt gave the transport, to be told to one that starts anew. A child shares
        its listener's, as sk_flags: `sk_set_flag` and `sk_set_option` make new ones."""


def sk_set_flag(sk: Sock, optname: int, value: int) -> None:
    """Remember an option of SOL_SOCKET."""
    sk.sk_flags = {**sk.sk_flags, optname: value}


class PendingFrames:
    """A datagram in the making (`struct inet_cork` and what waits with it): its bytes, where it
    will go, and how."""

    __slots__ = ("addr", "chunks", "cookie", "port", "size")

    def __init__(self, addr: bytes, port: int, cookie: Any) -> None:
        self.addr = addr
        self.port = port
        self.cookie = cookie
        self.chunks: deque[Frag] = deque()
        self.size = 0


class UdpSock(InetSock):
    """`struct udp_sock`, the part that applications see."""

    __slots__ = (
        "ahead", "closing", "corkflag", "mc_list", "options", "pending", "posted", "sk_drops",
        "unread",
    )  # fmt: skip

    def __init__(self, number: int, family: int, type: int, protocol: int, prot: "Proto") -> None:
        super().__init__(number, family, type, protocol, prot)
        self.sk_receive_queue = deque()  # of many small ones, where a list's front is far away
        self.sk_drops = 0
        self.corkflag = False
        """UDP_CORK"""
        self.pending: PendingFrames | None = None
        """What of a corked datagram has come so far."""
        self.options: Mapping[tuple[int, int], bytes] = _NO_OPTIONS
        self.mc_list: McList = ()
        """The groups that it is in, as its transport said."""
        self.ahead: list[SkBuff] = []
        """What the last recvmmsg took, for `unread`."""
        self.unread = 0
        """Datagrams at the queue's head that were put back: the transport was told of them."""
        self.posted = 0
        """What of sk_wmem_queued are posted datagrams."""
        self.closing: Callable[[], None] | None = None
        """What close does when they have gone."""


class RawSock(UdpSock):
    """`struct raw_sock`, the part that applications see; a ping socket's too. In Linux both are
    an inet_sock directly; what they have here beyond that is what UDP's have."""

    __slots__ = ()


def sk_set_option(sk: "TcpSock | UdpSock", level: int, optname: int, optval: bytes) -> None:
    """Remember what the transport was told."""
    if sk.options.get((level, optname)) != optval:
        sk.options = {**sk.options, (level, optname): optval}


class TransportRequest:
    """A request that a transport has not answered yet."""

    __slots__ = ("answer", "process", "sk")

    def __init__(self, process: str, sk: Sock, answer: Answer) -> None:
        self.process = process
        self.sk = sk
        self.answer = answer


class SocketNet(Net):
    """The socket layer's `struct net`."""

    net_families: "list[NetProtoFamily | None]"
    inetsw: "list[list[InetProtosw]]"
    proto_list: "dict[str, Proto]"

    def __init__(
        self,
        name: str = "socket",
        *,
        rand: Random,
        pool: Pool,
        alloc: Allocator | None = None,
        sysctl: Sysctl | None = None,
        epoch: int = 1,
        tcp_shards: int = 1,
    ) -> None:
        super().__init__(name, rand=rand, pool=pool, alloc=alloc, sysctl=sysctl, epoch=epoch)
        self.tcp_shards = tcp_shards
        self.tcp_prots: tuple[Proto, ...] = ()
        """TCP by shard, where there are several (tcp_shards.py)."""
        self.tcp_next_shard = 0
        self.tcp_replicas: dict[InetSock, Bound] = {}
        """Sockets that all shards know."""
        self.tcp_backlogs: dict[InetSock, int] = {}
        """Listeners with a long accept queue: how long, when the shards were told."""
        self.net_families = [None] * uapi.NPROTO
        self.inetsw = [[] for _ in range(uapi.SOCK_MAX)]
        self.proto_list = {}
        self.modprobe: ModProbe | None = None
        """How the shell loads a plug-in; None: there are none."""
        self.packet_warned = False
        self.socks: dict[int, InetSock] = {}
        self.max_socks = 0
        """Socks there may be (`sk_init`)."""
        self.sockets_max = 0
        """struct sockets there may be (`init_inodecache`); fs.file-max bounds them too."""
        self.sockets_in_use = 0
        self.sock_mnt: SockFs | None = None
        self.clients: dict[bytes, Client] = {}
        self.requests: dict[int, TransportRequest] = {}
        self.replies: list[tuple[bytes, bytes, bytes]] = []
        """(identity, meta, data) for the shell to send."""
        self.poll_dirty: dict[Socket, None] = {}
        """Sockets with a descriptor to poll whose state may have changed."""
        self.poll_closed: list[Socket] = []
        self.regions_gone: list[int] = []
        """Pool regions of dead clients, for the shell to remove."""
        self.region_refs: dict[int, int] = {}
        self.region_pressure: dict[tuple[int, int], tuple[int, bool]] = {}
        """region -> (until when it holds, are its slots getting short)"""
        self.reader_pending: dict[Sock, None] = {}
        """Socks with a reader that waits: the transport hears it with what it is told next."""
        self.accept_pending: list[tuple[str, Accept]] = []  # (process, ...)
        """Children that were accepted, and of which tcp shall hear with the next message."""
        self.accept_timer: Timer[SocketNet] | None = None
        self.share = Share()
        self.rcv_pending: dict[Sock, None] = {}
        """Socks whose transport is to hear at the batch's end how much was taken."""
        self.recvmmsg_pending: dict[Call, None] = {}
        """Calls of recvmmsg that wait for the batch's end, to take all that it brings."""
        self.post_stalled: dict[Client, None] = {}
        """Clients whose posts wait for room."""
        self.post_resumed: list[bytes] = []
        """Those of them whose pipe the shell may read again."""
        self.sweep_timer: Timer[SocketNet] | None = None
        self.nr_files = 0
        self.next_req = 0
        self.sk_step = 2 * tcp_shards
        self.next_sk = self.sk_step
        self.peers: set[str] = set()
        self.calls = 0
        self.tk_real_offset = 0
        """ns between the stack's clock and the time of day, for SO_TIMESTAMP."""
        self.current: Client | None = None
        """`current`: the process whose call is being worked on."""
        self.kthreads: Any = None
        """The threads of code inside this process (`kthread.KThreads`), once there are any."""
        self.next_kernel_req = 0
        self.modules: dict[str, Any] = {}
        """What is loaded (`module.Module`)."""

    def sk_flow(self, sk: int) -> Flow | None:
        """As `Net.sk_flow`."""
        inet = self.socks.get(sk)
        if inet is None:
            return None
        saddr = inet.inet_rcv_saddr if not any(inet.inet_saddr) else inet.inet_saddr
        if inet.sk_type == uapi.SOCK_RAW or inet.sk_protocol == uapi.IPPROTO_ICMP:
            # their inet_sport is the protocol, or the identifier
            named = any(saddr) or any(inet.inet_daddr)
            return Flow(saddr, NO_PORT, inet.inet_daddr, NO_PORT) if named else None
        return sock_flow(saddr, inet.inet_sport, inet.inet_daddr, inet.inet_dport)

    def capable(self, name: str) -> bool:
        """`ns_capable`: has the process whose call this is a capability (a field of `Cred`)? Code
        inside this process has all."""
        return self.current is None or bool(getattr(self.current.cred, name))

    def capable_net(self) -> bool:
        """CAP_NET_RAW or CAP_NET_ADMIN"""
        return self.capable("net_raw") or self.capable("net_admin")


# ---- answering and waiting ----------------------------------------------------------------


def sys_return(
    net: SocketNet, call: Call, err: int, result: object = None, data: bytes = b""
) -> None:
    """The call is over; only the first time counts."""
    if call.done:
        return
    call.done = True
    call.retry = None
    for sk in call.waits:
        if call in sk.sk_wq:
            sk.sk_wq.remove(call)
    call.waits.clear()
    if call.timer is not None:
        net.del_timer(call.timer)
        call.timer = None
    if call.chunks:
        drop_chunks(net, call)
    if call.sock is not None and call.sock.polled:
        net.poll_dirty[call.sock] = None
    if call.client is not None:
        call.client.calls.pop((call.identity, call.req), None)
    call.complete(net, call, err, result, data)


def attempt(net: SocketNet, call: Call, function: Retry) -> None:
    """Run a call's function; its error is the call's answer."""
    try:
        function(net, call)
    except SysCallError as e:
        sys_return(net, call, e.errno, e.text)
    except StalePlaceError as e:
        sys_return(net, call, errno.EFAULT, str(e))


def hold(net: SocketNet, call: Call) -> None:
    """The call waits for something; it can be cancelled, and its time can run out."""
    if call.client is not None:
        call.client.calls[call.identity, call.req] = call
    if call.timeout > 0 and call.timer is None:
        call.timer = Timer(call_timeout, call)
        net.mod_timer(call.timer, net.now + call.timeout)


def sk_wait_event(net: SocketNet, call: Call, sk: Sock, retry: Retry) -> None:
    """Park the call: `retry` is tried at each wake-up of sk. EAGAIN where it must not wait."""
    if call.timeout == 0:
        raise SysCallError(call.on_timeout)
    call.retry = retry
    if sk not in call.waits:
        call.waits.append(sk)
        sk.sk_wq.append(call)
        hold(net, call)


def sk_wake(net: SocketNet, sk: Sock) -> None:
    """`wake_up_interruptible(sk_sleep(sk))`: every waiting call tries again."""
    if sk.sk_wq:
        for call in tuple(sk.sk_wq):
            if call.retry is not None and not call.done:
                attempt(net, call, call.retry)
    socket = sk.sk_socket
    if socket is not None and socket.polled:
        net.poll_dirty[socket] = None


def call_timeout(net: SocketNet, call: Call) -> None:
    """The time that the application gave is over."""
    interrupt(net, call, call.on_timeout)


def interrupt(net: SocketNet, call: Call, err: int) -> None:
    """End a waiting call: what it did so far counts, as in the kernel."""
    if call.progress:
        sys_return(net, call, 0, call.progress)
    elif call.name == "poll":
        sys_return(net, call, 0 if err == errno.EAGAIN else err, [])
    else:
        sys_return(net, call, err)


def drop_chunks(net: SocketNet, call: Call) -> None:
    """Payload that a call brought and that nobody took: its slots go back."""
    if call.split is not None:
        split, call.split = call.split, None
        split_put(net, split)
        del call.chunks[0]
    for chunk in call.chunks:
        if type(chunk) is tuple:
            net.pool.free(chunk)
    call.chunks.clear()


def transport_call(
    net: SocketNet, sk: Sock, entry: str, make: "Callable[[int], tuple[object, ...]]", then: Answer
) -> None:
    """Ask sk's transport; `then` is told the answer."""
    net.next_req += 1
    req = net.next_req
    process = sk.sk_prot.process
    net.requests[req] = TransportRequest(process, sk, then)
    net.call(process, entry, make(req))


# ---- life of a sock -----------------------------------------------------------------------


def sk_alloc(net: SocketNet, family: int, type: int, protocol: int, prot: "Proto") -> InetSock:
    """`sk_alloc`: a new sock with a number that nobody has. ENOBUFS where there is no room."""
    if len(net.socks) >= net.max_socks:
        raise SysCallError(errno.ENOBUFS)
    number = net.next_sk
    step = net.sk_step
    last = 0x100000000 - 2 * step
    while number in net.socks or (step > 2 and _block_taken(net, number)):
        number = number + step if number <= last else step
    net.next_sk = number + step if number <= last else step
    sk = prot.obj(number, family, type, protocol, prot)
    net.socks[number] = sk
    if net.tracing:
        net.trace("sk_alloc", sk=number, obj=prot.obj.__name__)
    return sk


def _block_taken(net: SocketNet, number: int) -> bool:
    """A sock has one number for each shard of its transport."""
    return any(n in net.socks for n in range(number, number + net.sk_step, 2))


def sock_init_data(net: SocketNet, sock: "Socket | None", sk: Sock) -> None:
    """`sock_init_data`: buffers by sysctl, and the link to struct socket."""
    sk.sk_rcvbuf = net.sysctl["net.core.rmem_default"]
    sk.sk_sndbuf = net.sysctl["net.core.wmem_default"]
    sk.sk_socket = sock
    if sock is not None:
        sock.sk = sk
    if net.tracing:
        net.trace("sock_init_data", sk=sk.number, rcvbuf=sk.sk_rcvbuf, sndbuf=sk.sk_sndbuf)


def sock_error(sk: Sock) -> int:
    """`sock_error`: the pending error, which is thereby taken."""
    err, sk.sk_err = sk.sk_err, 0
    return err


def sk_free(net: SocketNet, sk: Sock) -> None:
    """Nobody knows the sock any more: what it held goes back."""
    net.socks.pop(sk.number, None)
    net.rcv_pending.pop(sk, None)
    net.reader_pending.pop(sk, None)
    purge_receive_queue(net, sk)
    purge_write_queue(net, sk)
    for skb in sk.sk_error_queue or ():
        net.consume_skb(skb)
    sk.sk_error_queue = None


def purge_receive_queue(net: SocketNet, sk: Sock) -> None:
    """`__skb_queue_purge(&sk->sk_receive_queue)`"""
    queue = sk.sk_receive_queue
    if queue:
        for skb in queue:
            net.consume_skb(skb)
        queue.clear()
    sk.sk_rmem_alloc = 0


# ---- room in the pool ---------------------------------------------------------------------


def skb_relieve(net: SocketNet, skb: SkBuff) -> None:
    """Before an skb waits for a reader: the pool's slots are everybody's, and a reader who is slow
    must not keep them from the others.

    What would be copied anyway is copied now; the rest when half of the slots are in use.
    """
    if skb.data_len > LEND_MIN and not _region_pressure(net, skb):
        return
    frags: list[Frag] = []
    for frag in skb.frags:
        if type(frag) is bytes:
            frags.append(frag)
        else:
            frags.append(bytes(net.pool.view(frag)))  # type: ignore[arg-type]
    if not skb.lent:
        net.pool.free_frags(skb.frags)
    skb.frags = tuple(frags)


def _region_pressure(net: SocketNet, skb: SkBuff) -> bool:
    """Are more than half of the slots of the size that this skb lies in, in use? Looked up every
    5 ms."""
    frag = skb.frags[0]
    if type(frag) is bytes:
        return False
    number: int = frag[0]
    region = net.pool.region(number)
    size: int = region.sizes[frag[1]]
    known = net.region_pressure.get((number, size))
    if known is not None and net.now < known[0]:
        return known[1]
    answer = region.in_use_of(size) > 0.5
    net.region_pressure[number, size] = (net.now + _PRESSURE_INTERVAL, answer)
    return answer


# ---- bytes that were received -------------------------------------------------------------


class Parts:
    """The payload of a reply under construction: see `skbus.core.syscall` on `recvmsg`."""

    __slots__ = ("inline", "places", "size", "spec")

    def __init__(self) -> None:
        self.inline: list[bytes | memoryview] = []
        self.spec: list[int | Place] = []
        self.places: list[Place] = []
        self.size = 0

    def add_bytes(self, data: bytes | memoryview) -> None:
        """Bytes that travel in the reply."""
        size = len(data)
        if not size:
            return
        self.inline.append(data)
        self.size += size
        if self.spec and type(self.spec[-1]) is int:
            self.spec[-1] += size
        else:
            self.spec.append(size)

    def add_place(self, place: Place) -> None:
        """A slot that becomes the application's."""
        self.spec.append(place)
        self.places.append(place)
        self.size += place[4]

    def data(self) -> bytes:
        """The reply's data frame."""
        return b"".join(self.inline)


def skb_copy_datagram(net: SocketNet, skb: SkBuff, parts: Parts, offset: int, length: int) -> None:
    """`skb_copy_datagram_iter`: bytes of an skb, into the reply, by copying."""
    head = skb.head
    start = skb.data + offset
    if start < len(head):
        piece = head[start : start + length]
        parts.add_bytes(piece)
        length -= len(piece)
        offset = 0
    else:
        offset = start - len(head)
    for frag in skb.frags:
        if length <= 0:
            return
        view = frag if type(frag) is bytes else net.pool.view(frag)  # type: ignore[arg-type]
        if offset >= len(view):
            offset -= len(view)
            continue
        piece = bytes(view[offset : offset + length])
        parts.add_bytes(piece)
        length -= len(piece)
        offset = 0


def skb_hand_over(net: SocketNet, skb: SkBuff, parts: Parts) -> None:
    """A whole skb goes to the application: big places are lent, the rest is copied. Ends it."""
    if skb.data_len <= LEND_MIN or skb.lent:
        skb_copy_datagram(net, skb, parts, 0, skb.len)
        net.consume_skb(skb)
        return
    if skb.data < len(skb.head):
        parts.add_bytes(skb.head[skb.data :])
    for frag in skb.frags:
        if type(frag) is bytes:
            parts.add_bytes(frag)
        elif frag[4] > LEND_MIN:
            parts.add_place(frag)  # type: ignore[arg-type]
        else:
            parts.add_bytes(bytes(net.pool.view(frag)))  # type: ignore[arg-type]
            net.pool.free(frag)  # type: ignore[arg-type]
    net.skb_consumed += 1


def skb_hand_over_frags(skb: SkBuff, parts: Parts, room: int) -> int:
    """The first places of an skb that are big and fit whole go to the application; the rest
    stays, for the next call. Returns how many bytes went."""
    if skb.lent or skb.data < len(skb.head):
        return 0
    frags = skb.frags
    taken = n = 0
    for frag in frags:
        if type(frag) is bytes or not LEND_MIN < frag[4] <= room - taken:
            break
        parts.add_place(frag)  # type: ignore[arg-type]
        taken += frag[4]
        n += 1
    skb.frags = frags[n:]
    skb.data_len -= taken
    return taken
