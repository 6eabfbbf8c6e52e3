# SPDX-License-Identifier: MIT
"""What libzmq's sockets need beyond pyzmq's calls; the control socket is one of them."""

from typing import Any, Final

import zmq
from zmq.backend import Socket as _Backend

_get: Final[Any] = _Backend.get
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)


def readable(sock: zmq.Socket[bytes]) -> bool:
    """Is there a message? Asking also makes ready what its descriptor would have told. By the
    backend, as pyzmq's own way turns numbers into enums, in every pass of every layer."""
    return bool(_get(sock, _EVENTS) & _POLLIN)
