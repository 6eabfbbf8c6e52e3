# SPDX-License-Identifier: MIT
"""Questions that this process asks a transport, and their answers (`sk_ret` of
`skbus.core.abi`).
"""

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skbus.core.abi import SkRet
from skbus.core.entry import AnyEntry, Entry, EntryError, R, Request, T, reply_of
from skbusd.socket.netns import SocketNet

if TYPE_CHECKING:
    from skbusd.socket.sock import Sock

Answer = Callable[[SocketNet, int, Any], None]
"""Called when a transport has answered: (net, errno, value)."""


class TransportRequest:
    """A question that a transport has not answered yet."""

    __slots__ = ("answer", "entry", "process")

    def __init__(self, process: str, entry: AnyEntry, answer: Answer) -> None:
        self.process = process
        self.entry = entry
        self.answer = answer


def new_request(net: SocketNet, process: str, entry: AnyEntry, then: Answer) -> int:
    """The number of a new question to a transport; `then` hears the answer."""
    requests = net.requests
    req = requests.last = requests.last + 1
    requests.waiting[req] = TransportRequest(process, entry, then)
    return req


def transport_ask(
    net: SocketNet,
    sk: "Sock",
    entry: Request[T, R],
    make: Callable[[int, int], T],
    then: Answer,
) -> None:
    """`Proto.ask`: ask sk's transport. make: the item, by the sock's number there and that of the
    question. `then` hears the errno and the answer, an R, if there is one."""
    process = sk.sk_prot.process
    net.call(process, entry, make(sk.number, new_request(net, process, entry, then)))


def transport_tell(net: SocketNet, sk: "Sock", entry: Entry[T], item: T) -> None:
    """`Proto.tell`: send sk's transport a message that needs no answer."""
    net.call(sk.sk_prot.process, entry, item)


def sk_ret(net: SocketNet, item: SkRet) -> None:
    """The answer to a question of ours."""
    request = net.requests.waiting.pop(item.req, None)
    if request is None:
        return
    try:
        request.answer(net, item.err, reply_of(request.entry, item.err, item.val))
    except EntryError as e:
        net.warning("sk_ret", process=request.process, error=str(e))
        request.answer(net, item.err or errno.EPROTO, None)


def requests_lost(net: SocketNet, process: str) -> None:
    """A transport has forgotten our questions, or is gone: answer them with ENETDOWN."""
    for req, request in tuple(net.requests.waiting.items()):
        if request.process == process and net.requests.waiting.pop(req, None) is not None:
            request.answer(net, errno.ENETDOWN, None)
