# SPDX-License-Identifier: MIT
"""Sending on a stream, the application's side (`tcp_sendmsg` of `net/ipv4/tcp.c`): from the bytes
of a call to chunks for tcp.

    inet_sendmsg -> tcp_sendmsg -> tcp's tcp_sendmsg, chunk by chunk, as the send buffer has room

The bytes stay here until they are acknowledged (tcp_sock.py, `sk_stream_write_space`). How much
may be queued: stream.py. RFC 9293 3.9.1.2.
"""

import errno
from typing import Final

from skbus.abi import TcpSendmsgCb
from skbus.skbuff import Frag, Place
from skbus.syscall import SysCallError
from skbusd.socket import uapi
from skbusd.socket.page_frag import (
    PageFrag,
    page_frag_write,
    sk_wmem_queue,
)
from skbusd.socket.sock import (
    Call,
    InetSock,
    SocketNet,
    TcpSock,
    sk_wait_event,
    sock_error,
    sys_return,
)
from skbusd.socket.stream import (
    sk_stream_ask,
    sk_stream_exact,
    sk_stream_is_writeable,
    sk_stream_room,
    sk_stream_wait_report,
)
from skbusd.socket.tcp_fastopen import tcp_sendmsg_fastopen

MAX_CHUNK: Final = 65536
"""Bytes in a slot of the biggest class."""
MAX_CHUNKS: Final = 8
"""Slots that one skb names to tcp: as many bytes as tcp puts into one super-segment."""

_SENDING: Final = frozenset({uapi.TCP_ESTABLISHED, uapi.TCP_CLOSE_WAIT})
_OPENING: Final = frozenset({uapi.TCP_SYN_SENT, uapi.TCP_SYN_RECV})


def tcp_sendmsg(net: SocketNet, call: Call, sk: InetSock) -> None:
    """`tcp_sendmsg`, the application's side: what fits into the send buffer goes to tcp.

    Answers when all of it has gone; or, if it must not wait, with the part that has.
    Differs from Linux: the buffer, if it is a big one, may be exceeded by one slot of 64 KB.
    """
    exact = sk_stream_exact(sk)
    if isinstance(sk, TcpSock) and (call.flags & uapi.MSG_FASTOPEN or sk.defer_connect):
        call.flags &= ~uapi.MSG_FASTOPEN
        tcp_sendmsg_fastopen(net, call, sk, lambda net, call: tcp_sendmsg(net, call, sk))
        return
    if call.flags & uapi.MSG_OOB and len(call.chunks) > 1:
        raise SysCallError(errno.EOPNOTSUPP)
    chunks = call.chunks
    while True:
        if sk.sk_err:
            if call.progress:
                sys_return(net, call, 0, call.progress)
                return
            raise SysCallError(sock_error(sk))
        if sk.sk_shutdown & uapi.SEND_SHUTDOWN or sk.sk_state not in _SENDING:
            if sk.sk_state in _OPENING and not sk.sk_shutdown & uapi.SEND_SHUTDOWN:
                sk_wait_event(net, call, sk, _sendmsg_again)
                return
            if call.progress:
                sys_return(net, call, 0, call.progress)
                return
            raise SysCallError(errno.EPIPE)
        if not chunks:
            sys_return(net, call, 0, call.progress)
            return
        room = MAX_CHUNK
        if exact and isinstance(sk, TcpSock):
            room = sk_stream_room(sk)
            if room < 0:
                sk_stream_wait_report(net, call, sk, _report_again)
                return
            if not room and call.progress:
                sk_stream_ask(net, sk, 0)
        elif sk.sk_wmem_queued >= sk.sk_sndbuf:
            room = 0
        if not room:
            if call.timeout == 0 and call.progress:
                sys_return(net, call, 0, call.progress)
                return
            sk_wait_event(net, call, sk, _sendmsg_again)
            return
        _send_chunk(net, call, sk, room, exact)


def _report_again(net: SocketNet, call: Call) -> None:
    """tcp may have told what its queue looks like."""
    sk = call.waits[0]
    if isinstance(sk, TcpSock) and (
        sk.report is not None or sk.sk_err or sk.sk_shutdown or sk.sk_state not in _SENDING
    ):
        tcp_sendmsg(net, call, sk)


def _sendmsg_again(net: SocketNet, call: Call) -> None:
    sk = call.waits[0]
    if isinstance(sk, TcpSock) and (
        sk_stream_is_writeable(sk) or sk.sk_err or sk.sk_shutdown or sk.sk_state not in _SENDING
    ):
        tcp_sendmsg(net, call, sk)


def _send_chunk(net: SocketNet, call: Call, sk: InetSock, room: int, exact: bool) -> None:
    """One skb for tcp: places as they are, or inline bytes copied into our region; exact: no more
    than `room` of them, and tcp shall tell what its queue looks like then."""
    chunks = call.chunks
    chunk = chunks.popleft()
    if exact and type(chunk) is tuple and chunk[4] > room:
        chunk = _place_bytes(net, chunk)
    owner: PageFrag | tuple[int, int, int, int, int] | None
    frag: Frag
    if type(chunk) is tuple:
        frag = owner = chunk
        size = chunk[4]
        if not size:
            net.pool.free(chunk)
            return
    else:
        assert isinstance(chunk, bytes)
        if not exact:
            room = min(room, max(sk.sk_sndbuf - sk.sk_wmem_queued, 1))
        if len(chunk) > room:
            chunks.appendleft(chunk[room:])
            chunk = chunk[:room]
        size = len(chunk)
        frag, owner = page_frag_write(net, sk, chunk)
    sk_wmem_queue(net, sk, size, owner)
    frags: tuple[Frag, ...] = (frag,)
    if chunks and not exact:
        frags = _more_places(net, call, sk, frag)
        size = sum([len(f) if type(f) is bytes else f[4] for f in frags])
    call.progress += size
    flags = call.flags & (uapi.MSG_MORE | uapi.MSG_OOB | uapi.MSG_EOR)
    if chunks:
        # More of this call follows at once, if there is room for it.
        flags &= ~(uapi.MSG_OOB | uapi.MSG_EOR)
        if exact or sk.sk_wmem_queued < sk.sk_sndbuf:
            flags |= uapi.MSG_MORE
    if exact and isinstance(sk, TcpSock):
        sk.notsent += size
        sk.report = None
        sk.asked = True
    cb = TcpSendmsgCb(sk.number, flags, exact)
    skb = net.alloc_skb(b"", frags, data_len=size, cb=cb, lent=True)
    skb.priority = sk.sk_priority
    skb.mark = sk.sk_mark
    if net.tracing:
        net.trace("tcp_sendmsg", skb, sk=sk.number, len=size)
    net.call_skb(sk.sk_prot.process, "tcp_sendmsg", skb)


def _more_places(net: SocketNet, call: Call, sk: InetSock, first: Frag) -> tuple[Frag, ...]:
    """The places that go with the first chunk, as far as the send buffer has room."""
    chunks = call.chunks
    frags = [first]
    while chunks and len(frags) < MAX_CHUNKS and sk.sk_wmem_queued < sk.sk_sndbuf:
        place = chunks[0]
        if type(place) is not tuple or not place[4]:
            break
        del chunks[0]
        sk_wmem_queue(net, sk, place[4], place)
        frags.append(place)
    return tuple(frags)


def _place_bytes(net: SocketNet, place: Place) -> bytes:
    """The bytes of a place, whose slot goes back."""
    try:
        return bytes(net.pool.view(place))
    finally:
        net.pool.free(place)
