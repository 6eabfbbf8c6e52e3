# SPDX-License-Identifier: MIT
"""Fast Open as the socket layer sees it (`tcp_sendmsg_fastopen` of `net/ipv4/tcp.c`, and its part
of `__inet_stream_connect`; RFC 7413): sendmsg connects, with data in the SYN.

Called by tcp_sock.tcp_sendmsg, for MSG_FASTOPEN and for the first data after a connect(2) that
TCP_FASTOPEN_CONNECT has deferred. Calls tcp, which knows the room in the SYN.
"""

import errno
from collections.abc import Callable
from typing import Any, Final

from skbus.core.abi import TcpSendmsgFastopenCb
from skbus.core.interfaces import Tcp
from skbus.core.skbuff import Frag, frag_len, frag_slice
from skbus.core.syscall import SysCallError
from skbusd.socket import uapi
from skbusd.socket.call import (
    SendCall,
    attempt,
    hold,
    sk_wait_event,
    sk_wake,
    sys_return,
)
from skbusd.socket.netns import SocketNet
from skbusd.socket.page_frag import (
    PageFrag,
    page_frag_put,
    page_frag_write,
    purge_write_queue,
    sk_wmem_queue,
)
from skbusd.socket.proto import proto_disconnect
from skbusd.socket.request import new_request
from skbusd.socket.sock import TcpSock, purge_receive_queue, sock_error

TFO_CLIENT_ENABLE: Final = 1
SYN_DATA_MAX: Final = 65536
"""No SYN can carry more, whatever the MTU."""


Then = Callable[[SocketNet, SendCall, TcpSock], None]


def tcp_sendmsg_fastopen(net: SocketNet, call: SendCall, sk: TcpSock, then: Then) -> None:
    """Connect and send; `then` sends the rest, once there is a connection. A call that must not
    wait answers with the bytes that the SYN took, or EINPROGRESS."""
    sock = sk.sk_socket
    if sock is None:
        raise SysCallError(errno.EBADF)
    addr = call.addr
    enabled = net.sysctl["net.ipv4.tcp_fastopen"] & TFO_CLIENT_ENABLE
    if not enabled or (addr is not None and addr[0] == uapi.AF_UNSPEC):
        raise SysCallError(errno.EOPNOTSUPP)
    if sock.state == uapi.SS_CONNECTED:
        raise SysCallError(errno.EISCONN)
    deferred = sk.defer_connect
    if sock.state == uapi.SS_CONNECTING and not deferred:
        call.on_timeout = errno.EALREADY
        _wait_for_connect(net, call, sk, then)
        return
    if not deferred:
        if sk.sk_state != uapi.TCP_CLOSE:
            raise SysCallError(errno.EISCONN)
        if addr is None or len(addr[2]) != 4:
            raise SysCallError(errno.EINVAL)
        if addr[0] != uapi.AF_INET:
            raise SysCallError(errno.EAFNOSUPPORT)
        _, sk.inet_dport, sk.inet_daddr = addr
        sk.sock_done = False
        sk.sk_shutdown = 0
        sk.sk_state = uapi.TCP_SYN_SENT
        sock.state = uapi.SS_CONNECTING
    sk.defer_connect = False
    call.on_timeout = errno.EINPROGRESS
    hold(net, call)
    _begin(net, call, sk, b"" if deferred else sk.inet_daddr, then)


def _begin(
    net: SocketNet, call: SendCall, sk: TcpSock, addr: bytes, then: Then, tries: int = 0
) -> None:
    """Ask tcp for the SYN, with the first bytes."""
    data = _first_bytes(net, call)
    frags: tuple[Frag, ...] = ()
    owner: PageFrag | None = None
    if data:
        frag, owner = page_frag_write(net, sk, data)
        frags = (frag,)

    def begun(net: SocketNet, err: int, value: Any) -> None:
        copied = 0
        if not err:
            sk.inet_saddr, sk.inet_sport, copied = value.addr, value.port, value.copied
            sk.inet_rcv_saddr, sk.inet_num = sk.inet_saddr, sk.inet_sport
        if copied and net.socks.get(sk.number) is sk:
            sk_wmem_queue(net, sk, copied, owner)
        elif owner is not None:
            page_frag_put(net, owner)
        if err and not call.done and sk.sk_prot.moved(net, sk, err, value, tries):
            _begin(net, call, sk, addr, then, tries + 1)
            return
        if err:
            sk.sk_state = uapi.TCP_CLOSE
            sk.inet_dport = 0
            if sk.sk_socket is not None:
                sk.sk_socket.state = uapi.SS_UNCONNECTED
            sys_return(net, call, err)
            sk_wake(net, sk)
        elif not call.done:
            _skip(net, call, copied)
            call.progress += copied
            attempt(net, call, lambda net, call: _wait_for_connect(net, call, sk, then))

    req = new_request(net, sk.sk_prot.process, Tcp.tcp_sendmsg_fastopen, begun)
    cb = TcpSendmsgFastopenCb(sk.number, req, addr, sk.inet_dport, call.size, call.timeout != 0)
    skb = net.alloc_skb(b"", frags, data_len=len(data), cb=cb, lent=True)
    if net.tracing:
        net.trace("tcp_sendmsg_fastopen", skb, sk=sk.number, len=len(data))
    net.call_skb(sk.sk_prot.process, Tcp.tcp_sendmsg_fastopen, skb, cb)


def _wait_for_connect(net: SocketNet, call: SendCall, sk: TcpSock, then: Then) -> None:
    """`inet_wait_for_connect`, and the rest of the call."""
    sock = sk.sk_socket
    if sk.sk_state in (uapi.TCP_SYN_SENT, uapi.TCP_SYN_RECV):
        if call.timeout == 0 and call.progress:
            sys_return(net, call, 0, call.progress)
        else:
            sk_wait_event(
                net, call, sk, lambda net, call, sk: _wait_for_connect(net, call, sk, then)
            )
        return
    if sk.sk_state == uapi.TCP_CLOSE or sock is None:
        err = sock_error(sk) or errno.ECONNABORTED
        if sock is not None:
            sock.state = uapi.SS_UNCONNECTED
            sk.sk_shutdown = 0
            sk.inet_dport = 0
            sk.inet_daddr = uapi.INADDR_ANY
            purge_receive_queue(net, sk)
            purge_write_queue(net, sk)
            proto_disconnect(net, sk, None)
        raise SysCallError(err)
    sock.state = uapi.SS_CONNECTED
    call.on_timeout = errno.EAGAIN
    then(net, call, sk)


def _first_bytes(net: SocketNet, call: SendCall) -> bytes:
    """A copy of the call's first bytes, as many as a SYN might take. The call keeps its own, in
    case the SYN does not take them."""
    out: list[bytes | memoryview] = []
    room = SYN_DATA_MAX
    for chunk in call.chunks:
        view = chunk if isinstance(chunk, bytes) else net.pool.view_frag(chunk)
        out.append(view[:room])
        room -= len(out[-1])
        if room <= 0:
            break
    return b"".join(out)


def _skip(net: SocketNet, call: SendCall, count: int) -> None:
    """Take the first `count` bytes off the call's chunks."""
    chunks = call.chunks
    while count > 0:
        chunk = chunks.popleft()
        size = frag_len(chunk)
        if size > count:
            chunks.appendleft(frag_slice(chunk, count, size - count))
        elif not isinstance(chunk, bytes):
            net.pool.free(chunk)
        count -= size
