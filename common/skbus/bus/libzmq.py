# SPDX-License-Identifier: MIT
"""What libzmq's sockets need beyond pyzmq's calls; the control socket is one of them."""

from typing import Any, Final

import zmq
from zmq.backend import Socket as _Backend

_get: Final[Any] = _Backend.get
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)


def readable(sock: zmq.Socket[bytes]) -> bool:
    """Is there a message? Asking also makes libzmq do the work that its descriptor tells of. This
    calls the backend: pyzmq's own way makes enums of numbers, in every pass of every layer."""
    return bool(_get(sock, _EVENTS) & _POLLIN)
