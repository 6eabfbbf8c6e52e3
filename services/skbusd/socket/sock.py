# SPDX-License-Identifier: MIT
"""struct sock: the network layer's representation of a socket (`include/net/sock.h`,
`net/core/sock.c`), its queues, its wait queue and its memory accounting.

    Sock -> InetSock -> InetConnectionSock -> TcpSock
                     -> UdpSock -> RawSock

The chain is C's: each struct begins with the one before it. The transport's own part of a
connection (sequence numbers, timers) lives in the transport's process, under the same number. Here
are the bytes, and the part that an application can see (docs/architecture.md, "Who owns what").
"""

import errno
from collections import deque
from collections.abc import Callable, Mapping, MutableSequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from skbus.core.skbuff import Frag, SkBuff
from skbus.core.syscall import SysCallError
from skbus.inet.mcast import McList
from skbusd.socket import uapi
from skbusd.socket.netns import SocketNet
from skbusd.socket.page_frag import PageFrag, SendItem, purge_write_queue

if TYPE_CHECKING:
    from skbusd.socket.call import Call
    from skbusd.socket.proto import Proto
    from skbusd.socket.socket import Socket

_NO_FLAGS: Final[Mapping[int, int]] = MappingProxyType({})
_NO_OPTIONS: Final[Mapping[tuple[int, int], bytes]] = MappingProxyType({})


class Sock:
    """`struct sock`. number: the transport's name for it."""

    __slots__ = (
        "number", "rcv_tell", "rcv_told", "sk_bound_dev", "sk_bound_dev_if", "sk_err", "sk_err_mem",
        "sk_err_soft", "sk_error_queue", "sk_family", "sk_flags", "sk_frag", "sk_lingertime",
        "sk_mark", "sk_max_ack_backlog", "sk_max_pacing_rate", "sk_priority", "sk_prot",
        "sk_protocol",
        "sk_rcvbuf", "sk_rcvbuf_lock", "sk_rcvlowat", "sk_rcvtimeo", "sk_receive_queue",
        "sk_reuse", "sk_reuseport",
        "sk_rmem_alloc", "sk_shutdown", "sk_sndbuf", "sk_sndbuf_lock", "sk_sndtimeo", "sk_socket",
        "sk_state", "sk_type", "sk_wmem_queued", "sk_wq", "sk_write_queue",
    )  # fmt: skip

    def __init__(
        self, number: int, family: int, type: int, protocol: int, prot: "Proto[Any]"
    ) -> None:
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
        self.sk_max_ack_backlog = 0
        self.sk_priority = 0
        self.sk_mark = 0
        self.sk_max_pacing_rate = 2**64 - 1
        self.sk_flags: Mapping[int, int] = _NO_FLAGS
        """SO_... of SOL_SOCKET that are just remembered (SOCK_KEEPOPEN, SOCK_BROADCAST, ...)"""
        self.sk_wq: list[Call] = []
        self.sk_frag: PageFrag | None = None
        self.rcv_told = 0
        """Bytes taken from the receive queue of which the transport does not know yet."""
        self.rcv_tell = False
        """tcp is to hear at once that the receive queue has been emptied."""


class InetSock(Sock):
    """`struct inet_sock`: a sock with internet addresses."""

    __slots__ = (
        "cmsg_flags", "inet_daddr", "inet_dport", "inet_num", "inet_rcv_saddr", "inet_saddr",
        "inet_sport", "mc_list", "options", "tos", "uc_ttl",
    )  # fmt: skip

    def __init__(
        self, number: int, family: int, type: int, protocol: int, prot: "Proto[Any]"
    ) -> None:
        super().__init__(number, family, type, protocol, prot)
        self.inet_saddr = uapi.INADDR_ANY
        self.inet_rcv_saddr = uapi.INADDR_ANY
        self.inet_daddr = uapi.INADDR_ANY
        self.inet_sport = 0
        self.inet_num = 0
        self.inet_dport = 0
        self.tos = 0
        self.uc_ttl = -1
        self.options: Mapping[tuple[int, int], bytes] = _NO_OPTIONS
        """Options that setsockopt gave the transport, to tell a restarted one. A child shares its
        listener's, as with sk_flags; `sk_set_flag` and `sk_set_option` make new ones."""
        self.mc_list: McList = ()
        """The groups that it is in, by its transport's word."""
        self.cmsg_flags = 0
        """The control messages that recvmsg shall bring (`ip_sockglue`)."""

    def set_cmsg(self, bit: int, on: bool) -> None:
        """Turn one of cmsg_flags on or off."""
        self.cmsg_flags = self.cmsg_flags | bit if on else self.cmsg_flags & ~bit


class InetConnectionSock(InetSock):
    """`struct inet_connection_sock`: a sock that connects, or listens."""

    __slots__ = ("icsk_accept_queue",)

    def __init__(
        self, number: int, family: int, type: int, protocol: int, prot: "Proto[Any]"
    ) -> None:
        super().__init__(number, family, type, protocol, prot)
        self.icsk_accept_queue: deque[TcpSock] | None = None


class TcpSock(InetConnectionSock):
    """`struct tcp_sock`, the part that applications see."""

    __slots__ = (
        "asked", "defer_connect", "nonagle", "notsent", "notsent_lowat", "parent", "posted",
        "recvmsg_inq", "report", "sock_done", "told_waiting", "urg_data", "urg_off",
    )  # fmt: skip

    def __init__(
        self, number: int, family: int, type: int, protocol: int, prot: "Proto[Any]"
    ) -> None:
        super().__init__(number, family, type, protocol, prot)
        self.nonagle = 0
        self.defer_connect = False
        """connect(2) has returned, and the SYN waits for data (TCP_FASTOPEN_CONNECT)."""
        self.sock_done = False
        """SOCK_DONE: the peer's FIN has been seen."""
        self.urg_data = 0
        """The urgent byte and its state (tcp_urg.py); 0: there is none."""
        self.urg_off = 0
        self.recvmsg_inq = False
        """TCP_INQ: each recvmsg says how much is left."""
        self.notsent_lowat = 0xFFFFFFFF
        """TCP_NOTSENT_LOWAT, or the sysctl's value when the socket was made."""
        self.notsent = 0
        self.report: tuple[int, int] | None = None
        """tcp's report on its write queue, while it is true (stream.py)."""
        self.asked = False
        self.told_waiting = False
        """tcp knows that a reader waits."""
        self.posted = 0
        """What was posted since credit was last given (tcp_post.py)."""
        self.parent: TcpSock | None = None
        """The listener in whose accept queue it waits."""


def sk_set_flag(sk: Sock, optname: int, value: int) -> None:
    """Remember an option of SOL_SOCKET."""
    sk.sk_flags = {**sk.sk_flags, optname: value}


class PendingFrames:
    """A datagram in the making (`struct inet_cork` and its queue): bytes, destination, options."""

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
        "ahead", "closing", "corkflag", "pending", "posted", "sk_drops",
        "unread",
    )  # fmt: skip

    def __init__(
        self, number: int, family: int, type: int, protocol: int, prot: "Proto[Any]"
    ) -> None:
        super().__init__(number, family, type, protocol, prot)
        self.sk_receive_queue = deque()  # of many small ones, where a list's front is far away
        self.sk_drops = 0
        self.corkflag = False
        """UDP_CORK"""
        self.pending: PendingFrames | None = None
        """The part of a corked datagram that has come so far."""
        self.ahead: list[SkBuff] = []
        """Datagrams that the last recvmmsg took, for `unread`."""
        self.unread = 0
        """Datagrams at the queue's head that were put back: the transport was told of them."""
        self.posted = 0
        """The part of sk_wmem_queued that is posted datagrams."""
        self.closing: Callable[[], None] | None = None
        """The rest of close, for when they have gone."""


class RawSock(UdpSock):
    """`struct raw_sock`, the part that applications see; also a ping socket's. In Linux both are an
    inet_sock directly; here they also have UDP's fields."""

    __slots__ = ()


def sk_set_option(sk: InetSock, level: int, optname: int, optval: bytes) -> None:
    """Remember an option that the transport was told."""
    if sk.options.get((level, optname)) != optval:
        sk.options = {**sk.options, (level, optname): optval}


# ---- life of a sock -----------------------------------------------------------------------


def sk_alloc(net: SocketNet, family: int, type: int, protocol: int, prot: "Proto[Any]") -> InetSock:
    """`sk_alloc`: a new sock with an unused number. ENOBUFS where there is no room."""
    if len(net.socks) >= net.limits.socks:
        raise SysCallError(errno.ENOBUFS)
    number = net.numbers.next
    step = net.numbers.step
    last = 0x100000000 - 2 * step
    while number in net.socks or (step > 2 and _block_taken(net, number)):
        number = number + step if number <= last else step
    net.numbers.next = number + step if number <= last else step
    sk: InetSock = prot.obj(number, family, type, protocol, prot)
    net.socks[number] = sk
    if net.tracing:
        net.trace("sk_alloc", sk=number, obj=prot.obj.__name__)
    return sk


def sk_by_number(net: SocketNet, number: int) -> InetSock | None:
    """The sock that a transport knows under this number, which may be a shard's own."""
    sk = net.socks.get(number)
    step = net.numbers.step
    if sk is None and step > 2:
        base = number - number % step
        for at in range(base, base + step, 2):
            sk = net.socks.get(at)
            if sk is not None:
                break
    return sk


def _block_taken(net: SocketNet, number: int) -> bool:
    """A sock has one number for each shard of its transport."""
    return any(n in net.socks for n in range(number, number + net.numbers.step, 2))


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
    """`sock_error`: take the pending error."""
    err, sk.sk_err = sk.sk_err, 0
    return err


def sk_free(net: SocketNet, sk: Sock) -> None:
    """Nobody knows the sock any more: give back all that it held."""
    net.socks.pop(sk.number, None)
    net.reads.taken.pop(sk, None)
    net.reads.waiting.pop(sk, None)
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
