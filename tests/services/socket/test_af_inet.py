# SPDX-License-Identifier: MIT
"""Creating, naming, connecting, listening, closing: the core's answers and its calls to tcp."""

import errno
from typing import TYPE_CHECKING

import pytest

from skbus.core import uapi
from skbus.core.abi import Close, Connect, Connected, GetPort, InitSock, ListenStart, Shutdown
from skbus.core.interfaces import Tcp, TransportProto
from skbus.core.syscall import RecvmsgArgs, SendmsgArgs, SysCallError
from skbusd.socket.af_inet import INET_FAMILY_OPS, INETSW_ARRAY
from skbusd.socket.protosw import inet_register_protosw
from skbusd.socket.socket import NetProtoFamily, sock_register, sock_unregister

if TYPE_CHECKING:
    from tests.services.socket.conftest import Stack

INET = 2
PEER = (INET, 80, b"\x0a\x4d\0\x01")


@pytest.mark.parametrize(
    ("family", "type", "protocol", "err"),
    [
        (2, 1, 0, 0),
        (2, 1, 6, 0),
        (2, 2, 0, 0),
        (2, 2, 17, 0),
        (2, 1 | uapi.SOCK_NONBLOCK | uapi.SOCK_CLOEXEC, 0, 0),
        (2, 1, 17, errno.EPROTONOSUPPORT),
        (2, 2, 6, errno.EPROTONOSUPPORT),
        (2, 1, 1, errno.EPROTONOSUPPORT),
        (2, 1, -1, errno.EINVAL),
        (2, 1, 263, errno.EINVAL),
        (2, 4, 0, errno.ESOCKTNOSUPPORT),
        (2, 5, 0, errno.ESOCKTNOSUPPORT),
        (2, 11, 0, errno.EINVAL),
        (2, 0x40001, 0, errno.EINVAL),
        (10, 1, 0, errno.EAFNOSUPPORT),
        (1, 1, 0, errno.EAFNOSUPPORT),
        (46, 1, 0, errno.EAFNOSUPPORT),
        (-1, 1, 0, errno.EAFNOSUPPORT),
    ],
)
def test_socket_errno(stack: "Stack", family: int, type: int, protocol: int, err: int) -> None:
    got, result, _ = stack.call("socket", family, type, protocol)
    assert got == err
    assert stack.net.limits.nr_files == (0 if err else 1)
    assert err or result == 0


def test_socket_tells_its_transport(stack: "Stack") -> None:
    stack.begin("socket", INET, uapi.SOCK_STREAM, 0)
    stack.begin("socket", INET, uapi.SOCK_DGRAM, 0)
    ((entry, item),) = stack.outbox("tcp")
    assert entry is TransportProto.init
    assert item == InitSock(item.sk, INET, uapi.IPPROTO_TCP, uapi.SOCK_STREAM)
    assert item.sk % 2 == 0
    ((entry, item2),) = stack.outbox("udp")
    assert entry is TransportProto.init
    assert item2.sk != item.sk


def test_lowest_free_descriptor(stack: "Stack") -> None:
    assert [stack.socket()[0] for _ in range(4)] == [0, 1, 2, 3]
    stack.call("close", 2)
    stack.call("close", 0)
    assert [stack.socket()[0] for _ in range(3)] == [0, 2, 4]


def test_emfile(stack: "Stack") -> None:
    client = stack.net.clients[stack.client]
    sock = object()
    limit = stack.net.sysctl["fs.nr_open"]
    client.fdt.update(dict.fromkeys(range(limit), sock))  # type: ignore[arg-type]
    assert stack.call("socket", INET, uapi.SOCK_STREAM, 0)[0] == errno.EMFILE
    assert not stack.net.socks


def test_families_register_once(stack: "Stack") -> None:
    with pytest.raises(SysCallError) as e:
        sock_register(stack.net, INET_FAMILY_OPS)
    assert e.value.errno == errno.EEXIST
    with pytest.raises(SysCallError) as e:
        sock_register(stack.net, NetProtoFamily(uapi.NPROTO, INET_FAMILY_OPS.create))
    assert e.value.errno == errno.ENOBUFS
    sock_unregister(stack.net, INET)
    assert stack.call("socket", INET, 1, 0)[0] == errno.EAFNOSUPPORT


def test_permanent_protocols_are_not_overridden(stack: "Stack") -> None:
    with pytest.raises(SysCallError) as e:
        inet_register_protosw(stack.net, INETSW_ARRAY[0])
    assert e.value.errno == errno.EPERM


def test_bind(stack: "Stack") -> None:
    fd, sk = stack.socket()
    stack.call("setsockopt", fd, uapi.SOL_SOCKET, uapi.SO_REUSEADDR, b"\1\0\0\0")
    req = stack.begin("bind", fd, (INET, 8080, bytes(4)))
    (item,) = [i for e, i in stack.outbox() if e is TransportProto.bind]
    assert item == GetPort(sk, item.req, bytes(4), 8080, 1, 0)
    stack.ret(sk, item.req, 0, (bytes(4), 8080))
    assert stack.replies()[req] == (0, None, b"")
    assert stack.call("getsockname", fd)[1] == (INET, 8080, bytes(4))
    assert stack.call("bind", fd, (INET, 8081, bytes(4)))[0] == errno.EINVAL


def test_bind_errors(stack: "Stack") -> None:
    fd, sk = stack.socket()
    assert stack.call("bind", fd, (10, 80, bytes(16)))[0] == errno.EAFNOSUPPORT
    assert stack.call("bind", fd, (INET, 80, bytes(16)))[0] == errno.EINVAL
    assert stack.call("bind", fd, None)[0] == errno.EINVAL
    assert stack.call("bind", 77, (INET, 80, bytes(4)))[0] == errno.EBADF
    req = stack.begin("bind", fd, (INET, 80, bytes(4)))
    (item,) = [i for e, i in stack.outbox() if e is TransportProto.bind]
    stack.ret(sk, item.req, errno.EADDRINUSE)
    assert stack.replies()[req][0] == errno.EADDRINUSE
    assert stack.call("getsockname", fd)[1] == (INET, 0, bytes(4))


def test_blocking_connect(stack: "Stack") -> None:
    fd, sk = stack.socket()
    assert stack.call("getpeername", fd)[0] == errno.ENOTCONN
    req = stack.begin("connect", fd, PEER, -1)
    (item,) = [i for e, i in stack.outbox() if e is TransportProto.connect]
    assert item == Connect(sk, item.req, PEER[2], 80)
    assert stack.begin("connect", fd, PEER, 0)
    stack.ret(sk, item.req, 0, Connected(b"\x0a\x4d\0\x02", 40002))
    assert [err for err, _, _ in stack.replies().values()] == [errno.EALREADY]
    assert stack.call("getpeername", fd)[0] == errno.ENOTCONN
    stack.state(sk, uapi.TCP_ESTABLISHED)
    assert stack.replies()[req][0] == 0
    assert stack.call("connect", fd, PEER, -1)[0] == errno.EISCONN
    assert stack.call("getpeername", fd)[1] == PEER


def test_nonblocking_connect(stack: "Stack") -> None:
    fd, sk = stack.socket()
    assert stack.call("connect", fd, PEER, 0)[0] == errno.EINPROGRESS
    assert stack.call("connect", fd, PEER, 0)[0] == errno.EALREADY
    assert stack.call("poll", ((fd, uapi.POLLOUT),), 0)[1] == ()
    stack.state(sk, uapi.TCP_ESTABLISHED)
    assert stack.call("poll", ((fd, uapi.POLLOUT),), 0)[1] == ((fd, uapi.POLLOUT),)
    assert stack.call("connect", fd, PEER, 0)[0] == 0
    assert stack.call("connect", fd, PEER, 0)[0] == errno.EISCONN


def test_refused_connect(stack: "Stack") -> None:
    fd, sk = stack.socket()
    req = stack.begin("connect", fd, PEER, -1)
    stack.answer_all()
    stack.error(sk, errno.ECONNREFUSED)
    assert stack.replies()[req][0] == errno.ECONNREFUSED
    # The error was told, and the socket may try again.
    assert stack.call("getsockopt", fd, uapi.SOL_SOCKET, uapi.SO_ERROR, 4)[2:] == (b"",)
    req = stack.begin("connect", fd, PEER, -1)
    stack.answer_all()
    stack.state(sk, uapi.TCP_ESTABLISHED)
    assert stack.replies()[req][0] == 0


def test_refused_nonblocking_connect_shows_so_error(stack: "Stack") -> None:
    fd, sk = stack.socket()
    stack.call("connect", fd, PEER, 0)
    stack.error(sk, errno.ECONNREFUSED)
    ((_, mask),) = stack.call("poll", ((fd, 0xFFFF),), 0)[1]
    assert mask & (uapi.POLLERR | uapi.POLLOUT | uapi.POLLHUP | uapi.POLLIN) == mask & 0x1D == 0x1D
    got = stack.call("getsockopt", fd, uapi.SOL_SOCKET, uapi.SO_ERROR, 4)
    assert got[1] == errno.ECONNREFUSED.to_bytes(4, "little")
    assert stack.call("connect", fd, PEER, 0)[0] == errno.ECONNABORTED


def test_unreachable_connect(stack: "Stack") -> None:
    fd, _ = stack.socket()
    req = stack.begin("connect", fd, PEER, -1)
    stack.answer_all(errno.ENETUNREACH)
    assert stack.replies()[req][0] == errno.ENETUNREACH
    assert stack.net.clients[stack.client].fdt[fd].state == uapi.SS_UNCONNECTED


def test_connect_times_out(stack: "Stack") -> None:
    fd, _ = stack.socket()
    req = stack.begin("connect", fd, PEER, 1_000_000)
    stack.answer_all()
    assert not stack.replies()
    stack.advance(2_000_000)
    assert stack.replies()[req][0] == errno.EINPROGRESS


def test_listen_and_accept(stack: "Stack") -> None:
    fd, sk = stack.socket()
    assert stack.call("accept4", fd, 0, 0)[0] == errno.EINVAL
    req = stack.begin("listen", fd, -1)
    (item,) = [i for e, i in stack.outbox() if e is TransportProto.listen]
    assert item == ListenStart(sk, item.req, 4096)
    stack.ret(sk, item.req, 0, (bytes(4), 40001))
    assert stack.replies()[req][0] == 0
    assert stack.call("getsockopt", fd, uapi.SOL_SOCKET, uapi.SO_ACCEPTCONN, 4)[1] == b"\1\0\0\0"
    assert stack.call("accept4", fd, 0, 0)[0] == errno.EAGAIN
    assert stack.call("connect", fd, PEER, 0)[0] == errno.EISCONN
    req = stack.begin("accept4", fd, 0, -1)
    child = 1 << 33 | 1
    stack.child(sk, child)
    err, (new, addr), _ = stack.replies()[req]
    assert (err, addr) == (0, (INET, 5555, PEER[2]))
    stack.data(child, b"hello")
    assert stack.recv(new, 100)[2] == b"hello"
    assert stack.recv(fd, 100)[0] == errno.ENOTCONN
    stack.outbox()
    stack.begin("sendmsg", *SendmsgArgs(new), data=b"answer")
    # tcp hears of it with what comes next
    assert [entry for entry, _ in stack.outbox()][:2] == [TransportProto.accept, Tcp.tcp_sendmsg]


def accepting(stack: "Stack", backlog: int, count: int) -> list[object]:
    """A listener with `count` children that are accepted; what tcp hears of that at once."""
    fd, sk = stack.socket()
    req = stack.begin("listen", fd, backlog)
    (item,) = [i for e, i in stack.outbox() if e is TransportProto.listen]
    stack.ret(sk, item.req, 0, (bytes(4), 40001))
    assert stack.replies()[req][0] == 0
    for i in range(count):
        stack.child(sk, (i << 1) + 0x200000001)
        stack.begin("accept4", fd, 0, -1)
    return [i.child for e, i in stack.outbox() if e is TransportProto.accept]


def test_tcp_hears_of_an_accept_when_nothing_else_follows(stack: "Stack") -> None:
    assert accepting(stack, 128, 3) == []
    stack.advance(100_000_000)
    assert [i.child & 0xF for e, i in stack.outbox() if e is TransportProto.accept] == [1, 3, 5]
    stack.advance(100_000_000)
    assert stack.outbox() == []


@pytest.mark.parametrize(("backlog", "count"), [(5, 1), (128, 8)])
def test_tcp_hears_of_an_accept_at_once_where_it_matters(
    stack: "Stack", backlog: int, count: int
) -> None:
    assert len(accepting(stack, backlog, count)) == count


def test_child_inherits_options(stack: "Stack") -> None:
    fd, sk = stack.socket()
    stack.call("setsockopt", fd, uapi.SOL_SOCKET, uapi.SO_RCVBUF, (5000).to_bytes(4, "little"))
    stack.call("setsockopt", fd, uapi.SOL_SOCKET, uapi.SO_KEEPALIVE, b"\1\0\0\0")
    stack.call("listen", fd, 5)
    stack.child(sk, 1 << 33 | 1)
    (new, _) = stack.call("accept4", fd, 0, -1)[1]
    assert stack.call("getsockopt", new, uapi.SOL_SOCKET, uapi.SO_RCVBUF, 4)[1] == (10000).to_bytes(
        4, "little"
    )
    assert stack.call("getsockopt", new, uapi.SOL_SOCKET, uapi.SO_KEEPALIVE, 4)[1] == b"\1\0\0\0"


def test_data_before_accept_is_kept(stack: "Stack") -> None:
    fd, sk = stack.socket()
    stack.call("listen", fd, 5)
    child = 1 << 33 | 1
    stack.child(sk, child)
    stack.data(child, b"early")
    stack.error(child, errno.ECONNRESET)
    (new, _) = stack.call("accept4", fd, 0, -1)[1]
    assert stack.recv(new, 10)[2] == b"early"
    assert stack.recv(new, 10)[0] == errno.ECONNRESET
    assert stack.recv(new, 10)[:2] == (0, ((), None, 0, ()))


def test_closing_a_listener_forgets_who_waits(stack: "Stack") -> None:
    fd, sk = stack.socket()
    stack.call("listen", fd, 5)
    child = 1 << 33 | 1
    stack.child(sk, child)
    stack.data(child, b"x" * 5000, in_pool=True)
    stack.call("close", fd)
    assert not stack.net.socks
    assert stack.nic.in_use() == 0
    stack.data(child, b"late")
    assert stack.net.drops == {"SKB_DROP_REASON_TCP_CLOSE": 1}
    stack.check_conserved()


def test_shutdown(stack: "Stack") -> None:
    fd, sk = stack.socket()
    assert stack.call("shutdown", fd, 2)[0] == errno.ENOTCONN
    assert stack.call("shutdown", fd, 3)[0] == errno.EINVAL
    fd, sk = stack.connected()
    req = stack.begin("shutdown", fd, 1)
    assert (TransportProto.shutdown, Shutdown(sk, uapi.SEND_SHUTDOWN)) in stack.outbox()
    assert stack.replies()[req][0] == 0
    assert stack.call("sendmsg", *SendmsgArgs(fd), data=b"x")[0] == errno.EPIPE
    stack.data(sk, b"more")
    assert stack.recv(fd, 10)[2] == b"more"


def test_close_tells_unread_and_linger(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.data(sk, b"abc")
    stack.call("setsockopt", fd, uapi.SOL_SOCKET, uapi.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    stack.begin("close", fd)
    assert (TransportProto.close, Close(sk, 3, 0)) in stack.outbox()
    assert not stack.net.socks
    stack.check_conserved()


def test_close_ends_calls_that_wait(stack: "Stack") -> None:
    fd, _ = stack.connected()
    req = stack.begin("recvmsg", *RecvmsgArgs(fd, 10))
    stack.call("close", fd)
    assert not stack.net.clients[stack.client].calls
    assert req


def test_lingering_close_waits_for_the_ack(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.call("setsockopt", fd, uapi.SOL_SOCKET, uapi.SO_LINGER, b"\1\0\0\0\5\0\0\0")
    stack.call("sendmsg", *SendmsgArgs(fd), data=b"last words")
    req = stack.begin("close", fd)
    assert not stack.replies()
    stack.acked(sk, 10)
    assert stack.replies()[req][0] == 0
    assert not stack.net.socks
    assert stack.own.in_use() == 0


def test_lingering_close_gives_up(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.call("setsockopt", fd, uapi.SOL_SOCKET, uapi.SO_LINGER, b"\1\0\0\0\5\0\0\0")
    stack.call("sendmsg", *SendmsgArgs(fd), data=b"last words")
    req = stack.begin("close", fd)
    stack.advance(6_000_000_000)
    assert stack.replies()[req][0] == 0
    assert stack.own.in_use() == 1
    stack.acked(sk, 10)
    assert stack.own.in_use() == 0


def test_dup_shares_the_socket(stack: "Stack") -> None:
    fd, sk = stack.connected()
    other = stack.call("dup", fd)[1]
    stack.call("close", fd)
    assert stack.call("close", fd)[0] == errno.EBADF
    stack.data(sk, b"still here")
    assert stack.recv(other, 100)[2] == b"still here"
    stack.call("close", other)
    assert not stack.net.socks


def test_connect_to_unspec_disconnects(stack: "Stack") -> None:
    fd, _ = stack.connected()
    req = stack.begin("connect", fd, (0, 0, b""), -1)
    assert [e for e, _ in stack.answer_all()] == [TransportProto.disconnect]
    assert stack.replies()[req][0] == 0
    assert stack.call("getpeername", fd)[0] == errno.ENOTCONN
