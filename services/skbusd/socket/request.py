# SPDX-License-Identifier: MIT
"""Questions that this process asks a transport, and their answers (`sk_ret` of
`skbus.core.abi`).
"""

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skbus.core.abi import SkRet
from skbusd.socket.netns import SocketNet

if TYPE_CHECKING:
    from skbusd.socket.sock import Sock

Answer = Callable[[SocketNet, int, Any], None]
"""What happens when a transport has answered: (net, errno, value)."""


class TransportRequest:
    """A question that a transport has not answered yet."""

    __slots__ = ("answer", "process")

    def __init__(self, process: str, answer: Answer) -> None:
        self.process = process
        self.answer = answer


def new_request(net: SocketNet, process: str, then: Answer) -> int:
    """The number of a new question to a transport; `then` is told the answer."""
    requests = net.requests
    req = requests.last = requests.last + 1
    requests.waiting[req] = TransportRequest(process, then)
    return req


def transport_call(
    net: SocketNet,
    sk: "Sock",
    entry: str,
    make: Callable[[int], tuple[object, ...]],
    then: Answer,
) -> None:
    """Ask sk's transport; `then` is told the answer."""
    process = sk.sk_prot.process
    net.call(process, entry, make(new_request(net, process, then)))


def sk_ret(net: SocketNet, item: SkRet) -> None:
    """The answer to a question of ours."""
    request = net.requests.waiting.pop(item.req, None)
    if request is not None:
        request.answer(net, item.err, item.val)


def requests_lost(net: SocketNet, process: str) -> None:
    """A transport has forgotten our questions, or is gone: ENETDOWN is the answer."""
    for req, request in tuple(net.requests.waiting.items()):
        if request.process == process and net.requests.waiting.pop(req, None) is not None:
            request.answer(net, errno.ENETDOWN, None)
