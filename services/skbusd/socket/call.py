# SPDX-License-Identifier: MIT
"""System calls in progress, and how they wait.

A call that must wait is *parked*: it stands in the sock's wait queue with a function. Each wake-up
tries that again, until it can answer. So nothing blocks, and a waiting call costs a few hundred
bytes.
"""

import errno
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from skbus.core.compiled import mypyc_attr
from skbus.core.pool import StalePlaceError
from skbus.core.skbuff import Frag
from skbus.core.syscall import SysCallError
from skbus.core.timer import Timer
from skbusd.socket.msghdr import Cmsg, SockAddr
from skbusd.socket.netns import SocketNet
from skbusd.socket.page_frag import SplitPlace, split_put

if TYPE_CHECKING:
    from skbusd.socket.files import Client
    from skbusd.socket.sock import InetSock, Sock
    from skbusd.socket.socket import Socket

Retry = Callable[[SocketNet, "Call", "Sock"], None]
"""The function to try at each wake-up of the sock that a call waits on."""
AnyCall = TypeVar("AnyCall", bound="Call")
AnySock = TypeVar("AnySock", bound="Sock")


@mypyc_attr(allow_interpreted_subclasses=True)
class Call:
    """One system call in progress, or a caller inside the socket process.

    timeout: ns, -1 for ever, 0 not at all. complete: told the outcome, once. A subclass has the
    memory that a kind of call needs between two tries.
    """

    __slots__ = (
        "client", "complete", "credit", "done", "identity", "name", "on_timeout", "req", "retry",
        "sock", "timeout", "timer", "waits",
    )  # fmt: skip

    def __init__(
        self,
        complete: "Callable[[SocketNet, Call, int, object, bytes], None]",
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
        self.credit = False
        """The caller wants to know how much it may post (tcp_post.py)."""

    def interrupted(self, net: SocketNet, err: int) -> None:
        """A signal, or the end of the call's time, ends the wait."""
        sys_return(net, self, err)


class SendCall(Call):
    """sendmsg(2): the bytes that are not taken yet, and the number of those that are."""

    __slots__ = ("addr", "chunks", "control", "flags", "progress", "size", "split")

    def __init__(
        self,
        complete: "Callable[[SocketNet, Call, int, object, bytes], None]",
        client: "Client | None" = None,
        identity: bytes = b"",
        req: int = 0,
        name: str = "sendmsg",
        timeout: int = -1,
    ) -> None:
        super().__init__(complete, client, identity, req, name, timeout)
        self.size = 0
        """Bytes of the call; `chunks` has the rest of them."""
        self.flags = 0
        self.addr: SockAddr | None = None
        self.control: tuple[Cmsg, ...] = ()
        self.chunks: deque[Frag] = deque()
        self.split: SplitPlace | None = None
        """The slot of which the first chunk is the rest; earlier parts of it are queued."""
        self.progress = 0

    def interrupted(self, net: SocketNet, err: int) -> None:
        """The bytes that went so far count, as in the kernel."""
        if self.progress:
            sys_return(net, self, 0, self.progress)
        else:
            sys_return(net, self, err)


class PostCall(SendCall):
    """A datagram that was posted (post.py), as a call: nobody waits for its end."""

    __slots__ = ()


class RecvCall(Call):
    """recvmsg(2), with the room that the application has."""

    __slots__ = ("controllen", "flags", "size")

    def __init__(
        self,
        complete: "Callable[[SocketNet, Call, int, object, bytes], None]",
        client: "Client | None" = None,
        identity: bytes = b"",
        req: int = 0,
        name: str = "recvmsg",
        timeout: int = -1,
    ) -> None:
        super().__init__(complete, client, identity, req, name, timeout)
        self.size = 0
        self.flags = 0
        self.controllen = 0
        """Bytes of control messages."""


class RecvmmsgCall(RecvCall):
    """recvmmsg(2)."""

    __slots__ = ("vlen",)

    def __init__(
        self,
        complete: "Callable[[SocketNet, Call, int, object, bytes], None]",
        client: "Client | None" = None,
        identity: bytes = b"",
        req: int = 0,
        name: str = "recvmmsg",
        timeout: int = -1,
    ) -> None:
        super().__init__(complete, client, identity, req, name, timeout)
        self.vlen = 0
        """Datagrams that it takes at most."""


class AcceptCall(Call):
    """accept4(2), with the use to be made of the connection that it waits for."""

    __slots__ = ("accepted", "flags")

    def __init__(
        self,
        complete: "Callable[[SocketNet, Call, int, object, bytes], None]",
        client: "Client | None" = None,
        identity: bytes = b"",
        req: int = 0,
        name: str = "accept4",
        timeout: int = -1,
    ) -> None:
        super().__init__(complete, client, identity, req, name, timeout)
        self.flags = 0
        self.accepted: Callable[[SocketNet, AcceptCall, InetSock], None] = not_accepted


def not_accepted(net: SocketNet, call: AcceptCall, sk: "InetSock") -> None:
    """The use of a connection before it is set: none."""
    raise SysCallError(errno.EOPNOTSUPP)


class PollCall(Call):
    """poll(2): descriptors, and the events asked for."""

    __slots__ = ("fds",)

    def __init__(
        self,
        complete: "Callable[[SocketNet, Call, int, object, bytes], None]",
        client: "Client | None" = None,
        identity: bytes = b"",
        req: int = 0,
        name: str = "poll",
        timeout: int = -1,
    ) -> None:
        super().__init__(complete, client, identity, req, name, timeout)
        self.fds: tuple[tuple[int, int], ...] = ()

    def interrupted(self, net: SocketNet, err: int) -> None:
        """No event is no error."""
        sys_return(net, self, 0 if err == errno.EAGAIN else err, [])


CALL_TYPES: Final[dict[str, type[Call]]] = {
    "accept4": AcceptCall,
    "sendmsg": SendCall,
    "recvmsg": RecvCall,
    "recvmmsg": RecvmmsgCall,
    "poll": PollCall,
}
"""The system calls that remember more than an ordinary call."""


# ---- answering and waiting ----------------------------------------------------------------


def sys_return(
    net: SocketNet, call: Call, err: int, result: object = None, data: bytes = b""
) -> None:
    """End a call with its answer; only the first time counts."""
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
    if isinstance(call, SendCall) and call.chunks:
        drop_chunks(net, call)
    if call.sock is not None and call.sock.polled:
        net.polls.dirty[call.sock] = None
    if call.client is not None:
        call.client.calls.pop((call.identity, call.req), None)
    call.complete(net, call, err, result, data)


def attempt(net: SocketNet, call: AnyCall, function: Callable[[SocketNet, AnyCall], None]) -> None:
    """Run a call's function; its error is the call's answer."""
    try:
        function(net, call)
    except SysCallError as e:
        sys_return(net, call, e.errno, e.text)
    except StalePlaceError as e:
        sys_return(net, call, errno.EFAULT, str(e))


def hold(net: SocketNet, call: Call) -> None:
    """Let a call wait: it can be cancelled, and its time can run out."""
    if call.client is not None:
        call.client.calls[call.identity, call.req] = call
    if call.timeout > 0 and call.timer is None:
        call.timer = Timer(call_timeout, call)
        net.mod_timer(call.timer, net.now + call.timeout)


def sk_wait_event(
    net: SocketNet, call: AnyCall, sk: AnySock, retry: Callable[[SocketNet, AnyCall, AnySock], None]
) -> None:
    """Park the call: `retry` is tried at each wake-up of sk. EAGAIN where it must not wait."""
    if call.timeout == 0:
        raise SysCallError(call.on_timeout)
    park(net, call, sk, retry)


def park(
    net: SocketNet, call: AnyCall, sk: AnySock, retry: Callable[[SocketNet, AnyCall, AnySock], None]
) -> None:
    """Enter the call into sk's wait queue, for a short wait even if it is non-blocking."""
    call.retry = retry  # type: ignore[assignment]  # retry takes this very call
    if sk not in call.waits:
        call.waits.append(sk)
        sk.sk_wq.append(call)
        hold(net, call)


def sk_wake(net: SocketNet, sk: "Sock") -> None:
    """`wake_up_interruptible(sk_sleep(sk))`: every waiting call tries again."""
    if sk.sk_wq:
        for call in tuple(sk.sk_wq):
            if call.retry is not None and not call.done:
                try_again(net, call, sk, call.retry)
    socket = sk.sk_socket
    if socket is not None and socket.polled:
        net.polls.dirty[socket] = None


def try_again(
    net: SocketNet,
    call: AnyCall,
    sk: AnySock,
    retry: Callable[[SocketNet, AnyCall, AnySock], None],
) -> None:
    """Try a call again after a wake-up of sk; an error is the call's answer."""
    try:
        retry(net, call, sk)
    except SysCallError as e:
        sys_return(net, call, e.errno, e.text)
    except StalePlaceError as e:
        sys_return(net, call, errno.EFAULT, str(e))


def call_timeout(net: SocketNet, call: Call) -> None:
    """The time that the application gave has run out."""
    call.interrupted(net, call.on_timeout)


def drop_chunks(net: SocketNet, call: SendCall) -> None:
    """Give back the slots of payload that a call brought and nobody took."""
    if call.split is not None:
        split, call.split = call.split, None
        split_put(net, split)
        del call.chunks[0]
    for chunk in call.chunks:
        if type(chunk) is tuple:
            net.pool.free(chunk)
    call.chunks.clear()
