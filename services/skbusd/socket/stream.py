# SPDX-License-Identifier: MIT
"""The limit on a stream's queued bytes (`net/core/stream.c`, and `tcp_stream_memory_free`).

As a rule the socket layer looks at the send buffer alone, and hands tcp chunks of up to 64 KB. That
is too coarse where the buffer is smaller than such a chunk, or TCP_NOTSENT_LOWAT limits the bytes
that wait unsent. There the socket layer must know tcp's write queue: the room in its last segment,
the size of segments (`tcp_xmit_size_goal`), and the unsent bytes. tcp tells these in SkWriteSpace,
after each chunk that asks for it, and the next chunk waits for that.

Called by tcp_sock.py and tcp_sendmsg.py. A report counts only if tcp had received all chunks by
then.
"""

from collections.abc import Callable
from typing import Final

from skbus.core.abi import SkWriteSpace, TcpSendmsgCb
from skbus.core.interfaces import Tcp
from skbus.core.skbuff import SkBuff
from skbusd.socket import uapi
from skbusd.socket.call import SendCall, park, sk_wake
from skbusd.socket.netns import SocketNet
from skbusd.socket.sock import TcpSock

SNDBUF_START: Final = 87040
"""A stream's send buffer before autotuning: `tcp_sndbuf_expand` for an initial window of ten."""
EXACT_SNDBUF: Final = 65536
"""Send buffers below this are kept to the segment."""
COALESCE_BELOW: Final = 512
COALESCE_FROM: Final = 2
"""A skb with less payload than the first, behind more than the second, joins the one before it."""
_COALESCE_MAX: Final = 4096
NOTSENT_UNLIMITED: Final = 2**32 - 1
"""`net.ipv4.tcp_notsent_lowat`: no limit."""
_WMEM_DEFAULT: Final = 16384


def sk_stream_sndbuf(net: SocketNet, start: int) -> int:
    """A new stream's send buffer: `net.ipv4.tcp_wmem`, where somebody has set it; else the size
    that tcp will soon find right."""
    wmem = net.sysctl["net.ipv4.tcp_wmem"]
    return int(wmem[1]) if wmem[1] != _WMEM_DEFAULT else min(start, max(wmem[2], wmem[1]))


def sk_stream_exact(sk: TcpSock) -> bool:
    """Must we know what tcp's write queue looks like?"""
    return sk.notsent_lowat < NOTSENT_UNLIMITED or sk.sk_sndbuf < EXACT_SNDBUF


def sk_stream_is_writeable(sk: TcpSock) -> bool:
    """`sk_stream_is_writeable`: a third of the send buffer is free, and less than half of
    TCP_NOTSENT_LOWAT is unsent. So crumbs of room do not wake a sender up."""
    queued = sk.sk_wmem_queued
    return sk.sk_sndbuf - queued >= queued >> 1 and (
        sk.notsent_lowat >= NOTSENT_UNLIMITED or sk.notsent << 1 < sk.notsent_lowat
    )


def sk_stream_memory_free(sk: TcpSock) -> bool:
    """`sk_stream_memory_free`: may another segment begin?"""
    return sk.sk_wmem_queued < sk.sk_sndbuf and sk.notsent < sk.notsent_lowat


def sk_stream_room(sk: TcpSock) -> int:
    """Bytes that the next chunk may have; 0: the call waits for memory; -1: tcp must tell first."""
    if sk.report is None:
        return -1
    room, goal = sk.report
    return room if room > 0 else goal if sk_stream_memory_free(sk) else 0


def sk_stream_ask(net: SocketNet, sk: TcpSock, flags: int) -> None:
    """Send an empty tcp_sendmsg: tcp reports on its queue. Without MSG_MORE it also pushes queued
    bytes (`tcp_push`, as before waiting for memory)."""
    sk.asked = True
    skb = net.alloc_skb(lent=True)
    cb = TcpSendmsgCb(sk.number, flags, True)
    net.call_skb(sk.sk_prot.process, Tcp.tcp_sendmsg, skb, cb)


def sk_stream_wait_report(
    net: SocketNet,
    call: SendCall,
    sk: TcpSock,
    retry: Callable[[SocketNet, SendCall, TcpSock], None],
) -> None:
    """Park the call until tcp has reported, even one that must not wait: this is no waiting for
    memory."""
    if not sk.asked:
        sk_stream_ask(net, sk, uapi.MSG_MORE)
    park(net, call, sk, retry)


def sk_stream_report(sk: TcpSock, item: SkWriteSpace) -> None:
    """Take tcp's report; acknowledged bytes have been taken off already."""
    if item.queued == sk.sk_wmem_queued:
        sk.report = (item.room, item.size_goal)
        sk.notsent = item.notsent
        sk.asked = False


def tcp_try_coalesce(net: SocketNet, sk: TcpSock) -> bool:
    """`tcp_try_coalesce`: the last skb of a receive queue joins the one before it, where both are
    small. A peer that sends single bytes to a slow reader must not cost an skb for each."""
    queue = sk.sk_receive_queue
    skb, to = queue[-1], queue[-2]
    if to.len + skb.len > _COALESCE_MAX or not _plain(skb) or not _plain(to):
        return False
    queue.pop()
    data = b"".join(skb.frags)  # type: ignore[arg-type]
    to.head = b"".join((to.head[to.data :], *to.frags, skb.head[skb.data :], data))  # type: ignore[arg-type]
    to.data = 0
    to.frags = ()
    to.data_len = 0
    net.mib["TcpExtTCPRcvCoalesce"] += 1
    net.consume_skb(skb)
    return True


def tcp_unrecv(net: SocketNet, sk: TcpSock, data: bytes) -> None:
    """Put bytes that were read back at the queue's head, in an skb of their own. tcp hears of them
    once, when they are read for good."""
    sk.sk_receive_queue.insert(0, net.alloc_skb(data, ()))
    sk.sk_rmem_alloc += len(data)
    sk.rcv_told -= len(data)
    if sk.urg_data:
        sk.urg_off += len(data)
    if net.tracing:
        net.trace("tcp_unrecv", sk=sk.number, size=len(data))
    sk_wake(net, sk)


def _plain(skb: SkBuff) -> bool:
    """Are its bytes here, and not in the pool?"""
    return all(type(frag) is bytes for frag in skb.frags)
