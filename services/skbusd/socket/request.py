# SPDX-License-Identifier: MIT
"""Questions that this process asks a transport, and their answers (`sk_ret` of
`skbus.core.abi`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skbusd.socket.netns import SocketNet

if TYPE_CHECKING:
    from skbusd.socket.sock import Sock

Answer = Callable[[SocketNet, int, Any], None]
"""What happens when a transport has answered: (net, errno, value)."""


class TransportRequest:
    """A request that a transport has not answered yet."""

    __slots__ = ("answer", "process", "sk")

    def __init__(self, process: str, sk: "Sock", answer: Answer) -> None:
        self.process = process
        self.sk = sk
        self.answer = answer


def transport_call(
    net: SocketNet,
    sk: "Sock",
    entry: str,
    make: "Callable[[int], tuple[object, ...]]",
    then: Answer,
) -> None:
    """Ask sk's transport; `then` is told the answer."""
    net.next_req += 1
    req = net.next_req
    process = sk.sk_prot.process
    net.requests[req] = TransportRequest(process, sk, then)
    net.call(process, entry, make(req))
