# SPDX-License-Identifier: MIT
"""Ends of the tests of control messages, error queues and urgent data; see `end.py`."""

import select
import socket
import struct
import time
from typing import Any

from tests.interop.end import Module, end, listening, tell

from skbus.core.uapi import (
    IP_OPTIONS,
    IP_PKTINFO,
    IP_RECVERR,
    IP_RECVOPTS,
    IP_RECVTOS,
    IP_RECVTTL,
    IP_TOS,
    IP_TTL,
)

SECONDS = 60


@end
def receive(net: Module, port: int) -> Any:
    """One datagram, its control messages by number, and whether its time is right."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.bind(("0.0.0.0", port))
        for option in (IP_RECVOPTS, IP_PKTINFO, IP_RECVTTL, IP_RECVTOS):
            sock.setsockopt(net.SOL_IP, option, 1)
        tell(ready=True)
        data, cmsgs, flags, _ = sock.recvmsg(100, 1000)
        found = {str(kind): value.hex() for _, kind, value in cmsgs}
        found[str(IP_PKTINFO)] = found[str(IP_PKTINFO)][8:]  # without the device's index
        return [data.decode(), found, flags]


@end
def send(net: Module, host: str, port: int) -> Any:
    """A datagram with a TTL, a TOS and a recorded route."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.setsockopt(net.SOL_IP, IP_OPTIONS, bytes((7, 7, 4, 0, 0, 0, 0, 0)))
        control = [(net.SOL_IP, IP_TTL, struct.pack("=i", 33)),
                   (net.SOL_IP, IP_TOS, struct.pack("=i", 0x28))]  # fmt: skip
        return sock.sendmsg([b"with ", b"all"], control, 0, (host, port))


@end
def errors(net: Module, host: str, port: int) -> Any:
    """What the error queue says of a datagram to a port that nobody has."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.setsockopt(net.SOL_IP, IP_RECVERR, 1)
        sock.sendto(b"anybody?", (host, port))
        poll = select.poll()
        poll.register(sock, select.POLLIN)  # an error is told whatever is asked for
        poll.poll(SECONDS * 1000)
        data, ((level, kind, value),), flags, to = sock.recvmsg(100, 200, socket.MSG_ERRQUEUE)
        number, origin, type_, code = struct.unpack_from("=IBBB", value)
        offender = socket.inet_ntoa(value[20:24])
        pending = sock.getsockopt(net.SOL_SOCKET, net.SO_ERROR)
        return [data.decode(), level, kind, flags, list(to), number, origin, type_, code, offender,
                pending]  # fmt: skip


@end
def urgent_serve(net: Module, port: int) -> Any:
    """What a reader gets of "one", an urgent "!" and "two", and the urgent byte by itself."""
    with listening(net, port) as listener:
        sock, _ = listener.accept()
    with sock:
        sock.settimeout(SECONDS)
        first = sock.recv(3, socket.MSG_WAITALL)
        urgent = b""
        until = time.monotonic() + SECONDS
        while not urgent and time.monotonic() < until:
            try:
                urgent = sock.recv(1, socket.MSG_OOB)
            except OSError:
                time.sleep(0.01)  # it has not come
        rest = sock.recv(3, socket.MSG_WAITALL)
        return [first.decode(), urgent.decode(), rest.decode()]


@end
def urgent_send(net: Module, host: str, port: int) -> Any:
    """The other end of `urgent_serve`."""
    with net.create_connection((host, port)) as sock:
        sock.settimeout(SECONDS)
        sent = [sock.send(b"one"), sock.send(b"!", socket.MSG_OOB), sock.send(b"two")]
        sock.shutdown(net.SHUT_WR)
        sock.recv(1)
        return sent
