# SPDX-License-Identifier: MIT
"""System calls in progress, and how they wait.

A call that must wait is *parked*: it stands in the sock's wait queue with a function that is
tried again at each wake-up, until it can answer. So nothing blocks, and a waiting call costs a
few hundred bytes.
"""

import errno
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

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
    from skbusd.socket.sock import Sock
    from skbusd.socket.socket import Socket

Retry = Callable[[SocketNet, "Call"], None]


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
        self.addr: SockAddr | None = None
        self.control: tuple[Cmsg, ...] = ()
        self.controllen = 0
        """Bytes of control messages that the application has room for."""
        self.vlen = 0
        """Datagrams that a recvmmsg takes; 0: the call is recvmsg."""


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
        net.polls.dirty[call.sock] = None
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


def sk_wait_event(net: SocketNet, call: Call, sk: "Sock", retry: Retry) -> None:
    """Park the call: `retry` is tried at each wake-up of sk. EAGAIN where it must not wait."""
    if call.timeout == 0:
        raise SysCallError(call.on_timeout)
    call.retry = retry
    if sk not in call.waits:
        call.waits.append(sk)
        sk.sk_wq.append(call)
        hold(net, call)


def sk_wake(net: SocketNet, sk: "Sock") -> None:
    """`wake_up_interruptible(sk_sleep(sk))`: every waiting call tries again."""
    if sk.sk_wq:
        for call in tuple(sk.sk_wq):
            if call.retry is not None and not call.done:
                attempt(net, call, call.retry)
    socket = sk.sk_socket
    if socket is not None and socket.polled:
        net.polls.dirty[socket] = None


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
