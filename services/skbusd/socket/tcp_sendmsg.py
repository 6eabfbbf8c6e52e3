# SPDX-License-Identifier: MIT
"""Sending on a stream, the application's side (`tcp_sendmsg` of `net/ipv4/tcp.c`): from the bytes
of a call to chunks for tcp.

    inet_sendmsg -> tcp_sendmsg -> tcp's tcp_sendmsg, chunk by chunk, as the send buffer has room

The bytes stay here until they are acknowledged (tcp_sock.py, `sk_stream_write_space`). stream.py
has the limit on queued bytes. RFC 9293 3.9.1.2.
"""

import errno
from typing import Final

from skbus.core.abi import TcpSendmsgCb
from skbus.core.interfaces import Tcp
from skbus.core.skbuff import GSO_MAX_SIZE, Frag
from skbus.core.syscall import SysCallError
from skbusd.socket import uapi
from skbusd.socket.call import SendCall, sk_wait_event, sys_return
from skbusd.socket.netns import SocketNet
from skbusd.socket.page_frag import page_frag_write, place_take, sk_wmem_queue
from skbusd.socket.sock import TcpSock, sock_error
from skbusd.socket.stream import (
    sk_stream_ask,
    sk_stream_exact,
    sk_stream_is_writeable,
    sk_stream_room,
    sk_stream_wait_report,
)
from skbusd.socket.tcp_fastopen import tcp_sendmsg_fastopen

MAX_CHUNK: Final = 65536
"""Bytes of inline payload that one skb takes, and by which a send buffer may be exceeded."""
MAX_SKB: Final = GSO_MAX_SIZE
"""An skb with this many bytes in places takes no more: tcp puts as many into a super-segment."""

TCP_SENDING: Final = frozenset({uapi.TCP_ESTABLISHED, uapi.TCP_CLOSE_WAIT})
"""States in which a stream takes bytes."""
_OPENING: Final = frozenset({uapi.TCP_SYN_SENT, uapi.TCP_SYN_RECV})


def tcp_sendmsg(net: SocketNet, call: SendCall, sk: TcpSock) -> None:
    """`tcp_sendmsg`, the application's side: bytes that fit into the send buffer go to tcp.

    Answers when all have gone; or, if it must not wait, with the part that has. Differs from Linux:
    the buffer, if it is a big one, may be exceeded by 64 KB.
    """
    exact = sk_stream_exact(sk)
    if call.flags & uapi.MSG_FASTOPEN or sk.defer_connect:
        call.flags &= ~uapi.MSG_FASTOPEN
        tcp_sendmsg_fastopen(net, call, sk, tcp_sendmsg)
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
        if sk.sk_shutdown & uapi.SEND_SHUTDOWN or sk.sk_state not in TCP_SENDING:
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
        if exact:
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


def _report_again(net: SocketNet, call: SendCall, sk: TcpSock) -> None:
    """tcp may have reported on its queue: try the call again."""
    if sk.report is not None or sk.sk_err or sk.sk_shutdown or sk.sk_state not in TCP_SENDING:
        tcp_sendmsg(net, call, sk)


def _sendmsg_again(net: SocketNet, call: SendCall, sk: TcpSock) -> None:
    if sk_stream_is_writeable(sk) or sk.sk_err or sk.sk_shutdown or sk.sk_state not in TCP_SENDING:
        tcp_sendmsg(net, call, sk)


def _send_chunk(net: SocketNet, call: SendCall, sk: TcpSock, room: int, exact: bool) -> None:
    """Send tcp one skb: places as they are, or inline bytes copied into our region. exact: no more
    than `room` of them, and tcp shall report on its queue then."""
    chunks = call.chunks
    chunk = chunks[0]
    frags: tuple[Frag, ...] = ()
    piece = b""
    if not exact:
        room = max(sk.sk_sndbuf - sk.sk_wmem_queued, 1)
    if type(chunk) is tuple:
        frags, size = _places(net, call, sk, room, exact)
        if not size:
            return
    else:
        assert isinstance(chunk, bytes)
        del chunks[0]
        room = min(room, MAX_CHUNK)
        if len(chunk) > room:
            chunks.appendleft(chunk[room:])
            chunk = chunk[:room]
        piece = chunk
        size = len(chunk)
    call.progress += size
    flags = call.flags & (uapi.MSG_MORE | uapi.MSG_OOB | uapi.MSG_EOR)
    if chunks:
        # More of this call follows at once, if there is room for it.
        flags &= ~(uapi.MSG_OOB | uapi.MSG_EOR)
        if exact or sk.sk_wmem_queued < sk.sk_sndbuf:
            flags |= uapi.MSG_MORE
    if piece:
        tcp_send_bytes(net, sk, piece, flags, exact)
    else:
        _send_frags(net, sk, frags, size, flags, exact)


def tcp_send_bytes(net: SocketNet, sk: TcpSock, data: bytes, flags: int, exact: bool) -> None:
    """Send tcp bytes, copied into our region. exact: tcp shall report on its queue then."""
    frag, owner = page_frag_write(net, sk, data)
    sk_wmem_queue(net, sk, len(data), owner)
    _send_frags(net, sk, (frag,), len(data), flags, exact)


def _send_frags(
    net: SocketNet, sk: TcpSock, frags: tuple[Frag, ...], size: int, flags: int, exact: bool
) -> None:
    if exact:
        sk.notsent += size
        sk.report = None
        sk.asked = True
    cb = TcpSendmsgCb(sk.number, flags, exact)
    skb = net.alloc_skb(b"", frags, data_len=size, cb=cb, lent=True)
    skb.priority = sk.sk_priority
    skb.mark = sk.sk_mark
    if net.tracing:
        net.trace("tcp_sendmsg", skb, sk=sk.number, len=size)
    net.call_skb(sk.sk_prot.process, Tcp.tcp_sendmsg, skb, cb)


def _places(
    net: SocketNet, call: SendCall, sk: TcpSock, room: int, exact: bool
) -> tuple[tuple[Frag, ...], int]:
    """The call's next places, as far as there is room, and their bytes; exact: only one place."""
    chunks = call.chunks
    frags: list[Frag] = []
    size = 0
    while chunks and size < MAX_SKB and (not size or (room > 0 and not exact)):
        chunk = chunks[0]
        if type(chunk) is not tuple:
            break
        if not chunk[4]:
            net.pool.free(chunk)
            del chunks[0]
            continue
        place, owner = place_take(net, call, room if exact else max(room, MAX_CHUNK))
        sk_wmem_queue(net, sk, place[4], owner)
        frags.append(place)
        size += place[4]
        room -= place[4]
    return tuple(frags), size
