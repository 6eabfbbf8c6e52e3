# SPDX-License-Identifier: MIT
"""System calls in progress, and how they wait.

A call that must wait is *parked*: it stands in the sock's wait queue with a function that is
tried again at each wake-up, until it can answer. So nothing blocks, and a waiting call costs a
few hundred bytes.
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
"""What is tried at each wake-up of the sock that a call waits on."""
AnyCall = TypeVar("AnyCall", bound="Call")
AnySock = TypeVar("AnySock", bound="Sock")


@mypyc_attr(allow_interpreted_subclasses=True)
class Call:
    """One system call in progress, or a caller inside the socket process.

    timeout: ns, -1 for ever, 0 not at all. complete: told the outcome, once. What a kind of call
    must remember between two tries is in a subclass.
    """

    __slots__ = (
        "client", "complete", "done", "identity", "name", "on_timeout", "req", "retry", "sock",
        "timeout", "timer", "waits",
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

    def interrupted(self, net: SocketNet, err: int) -> None:
        """A signal, or the end of its time, ends the wait."""
        sys_return(net, self, err)


class SendCall(Call):
    """sendmsg(2): the bytes that nobody has taken yet, and how many somebody has."""

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
        """Bytes of the call; `chunks` has those that are left."""
        self.flags = 0
        self.addr: SockAddr | None = None
        self.control: tuple[Cmsg, ...] = ()
        self.chunks: deque[Frag] = deque()
        self.split: SplitPlace | None = None
        """The slot of which the first chunk is the rest; its parts before are queued."""
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
    """recvmsg(2): how much the application has room for."""

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
    """accept4(2): what is done with the connection that it waits for."""

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
    """Until it is known what is to be done with it."""
    raise SysCallError(errno.EOPNOTSUPP)


class PollCall(Call):
    """poll(2): descriptors and the events that are asked for."""

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
"""The system calls that have more to remember than any call."""


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
    """The call waits for something; it can be cancelled, and its time can run out."""
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
    """The call stands in sk's wait queue, even where it must not wait for what may take long."""
    call.retry = retry  # type: ignore[assignment]  # it is this call that retry is tried with
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
    """What a wake-up of sk does for a call; its error is the call's answer."""
    try:
        retry(net, call, sk)
    except SysCallError as e:
        sys_return(net, call, e.errno, e.text)
    except StalePlaceError as e:
        sys_return(net, call, errno.EFAULT, str(e))


def call_timeout(net: SocketNet, call: Call) -> None:
    """The time that the application gave is over."""
    call.interrupted(net, call.on_timeout)


def drop_chunks(net: SocketNet, call: SendCall) -> None:
    """Payload that a call brought and that nobody took: its slots go back."""
    if call.split is not None:
        split, call.split = call.split, None
        split_put(net, split)
        del call.chunks[0]
    for chunk in call.chunks:
        if type(chunk) is tuple:
            net.pool.free(chunk)
    call.chunks.clear()
