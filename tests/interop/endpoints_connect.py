# SPDX-License-Identifier: MIT
"""Ends of the tests of names, ports, connecting and closing (see `end.py`).

Errors are told by name, and by "ok" where there was none.
"""

import errno
import select
import struct
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tests.interop.end import Module, end, error_name, listening, tell, wait

from skbus.core.uapi import TCP_USER_TIMEOUT


def outcome(function: Callable[..., Any], *arguments: Any) -> str:
    """How a call ends."""
    try:
        function(*arguments)
    except TimeoutError as e:
        return errno.errorcode.get(e.errno or 0, "timed out")
    except OSError as e:
        return error_name(e)
    return "ok"


def stream(net: Module) -> Any:
    return net.socket(net.AF_INET, net.SOCK_STREAM)


def pending(net: Module, sock: Any) -> str:
    """SO_ERROR, by name."""
    err = sock.getsockopt(net.SOL_SOCKET, net.SO_ERROR)
    return errno.errorcode[err] if err else "ok"


def writable(sock: Any) -> bool:
    """Wait for the end of a connect, as select(2) tells it."""
    return sock in select.select([], [sock], [], 50)[1]


# ---- the states of connect(2) ------------------------------------------------------------------


@end
def connect_states(net: Module, host: str, port: int, nobody: str) -> Any:
    """SS_UNCONNECTED, SS_CONNECTING, SS_CONNECTED, by what connect(2) says in each."""
    told: dict[str, Any] = {}
    with stream(net) as sock:
        sock.setblocking(False)
        told["never connected"] = outcome(sock.getpeername)
        told["to nobody"] = [outcome(sock.connect, (nobody, port)) for _ in range(3)]
        told["while connecting"] = [
            outcome(sock.getpeername), outcome(sock.send, b"x"), outcome(sock.recv, 1),
            outcome(sock.listen),
        ]  # fmt: skip
    with stream(net) as sock:
        sock.setblocking(False)
        told["to somebody"] = [outcome(sock.connect, (host, port))]
        told["writable"] = writable(sock)
        told["error"] = pending(net, sock)
        told["again"] = [outcome(sock.connect, (host, port)) for _ in range(3)]
        told["peer"] = list(sock.getpeername()) == [host, port]
    with stream(net) as sock:
        sock.connect((host, port))
        told["blocking, again"] = outcome(sock.connect, (host, port))
        told["connected"] = [outcome(sock.listen), outcome(sock.bind, ("0.0.0.0", 0))]
    with stream(net) as sock:
        sock.bind(("0.0.0.0", 0))
        sock.listen()
        told["a listener"] = outcome(sock.connect, (host, port))
    return told


@end
def connect_refused(net: Module, host: str, port: int) -> Any:
    """A refusal, heard without waiting for it, by SO_ERROR and by connect(2)."""
    told = {}
    for way in ("SO_ERROR", "connect", "send", "recv"):
        with stream(net) as sock:
            sock.setblocking(False)
            said = [outcome(sock.connect, (host, port)), str(writable(sock))]
            if way == "SO_ERROR":
                said += [pending(net, sock), pending(net, sock)]
            elif way == "connect":
                said += [outcome(sock.connect, (host, port)), outcome(sock.connect, (host, port))]
            elif way == "send":
                said += [outcome(sock.send, b"x"), outcome(sock.send, b"x")]
            else:
                said += [outcome(sock.recv, 1), outcome(sock.recv, 1)]
            told[way] = said
    return told


@end
def connect_unreachable(net: Module, port: int, silent: str) -> Any:
    """Places that cannot be reached at all, and one that never answers."""
    told: dict[str, Any] = {}
    for host in ("224.0.0.1", "255.255.255.255", "240.0.0.1"):
        with stream(net) as sock:
            told[host] = outcome(sock.connect, (host, port))
    with stream(net) as sock:
        sock.setsockopt(net.IPPROTO_TCP, TCP_USER_TIMEOUT, 500)
        told["silent"] = outcome(sock.connect, (silent, port))
        told["afterwards"] = pending(net, sock)
    with stream(net) as sock:
        sock.setsockopt(net.SOL_SOCKET, net.SO_SNDTIMEO, struct.pack("ll", 0, 200_000))
        told["SO_SNDTIMEO"] = [outcome(sock.connect, (silent, port)) for _ in range(2)]
    return told


# ---- ports -------------------------------------------------------------------------------------


@end
def automatic_ports(net: Module, host: str, port: int, kinds: list[str], count: int) -> Any:
    """The ports that `count` sockets at once of each kind are given."""
    return {kind: _automatic_ports(net, host, port, kind, count) for kind in kinds}


def _automatic_ports(net: Module, host: str, port: int, kind: str, count: int) -> list[Any]:
    found: list[Any] = []
    with ExitStack() as stack:
        for _ in range(count):
            datagram = kind.startswith("datagram")
            sock = net.socket(net.AF_INET, net.SOCK_DGRAM if datagram else net.SOCK_STREAM)
            stack.enter_context(sock)
            if kind.endswith("bind"):
                said = outcome(sock.bind, ("0.0.0.0", 0))
            else:
                said = outcome(sock.connect, (host, port))
            found.append(sock.getsockname()[1] if said == "ok" else said)
    return found


@end
def ports_of_two_peers(net: Module, host: str, ports: list[int], count: int) -> Any:
    """As many connections to each of two servers: a port may serve one of each."""
    found: list[list[Any]] = [[], []]
    with ExitStack() as stack:
        for _ in range(count):
            for i, port in enumerate(ports):
                sock = stack.enter_context(stream(net))
                said = outcome(sock.connect, (host, port))
                found[i].append(sock.getsockname()[1] if said == "ok" else said)
    return found


@end
def binds(net: Module, own: str, host: str, server: int, port: int) -> Any:
    """Who may share a port with whom: a table of pairs, for both transports."""
    told: dict[str, Any] = {}
    flags = {"": (), "A": (net.SO_REUSEADDR,), "P": (net.SO_REUSEPORT,)}
    for kind in (net.SOCK_STREAM, net.SOCK_DGRAM):
        for here in (own, "0.0.0.0", "127.0.0.1"):
            for one in flags:
                for two in flags:
                    with (
                        net.socket(net.AF_INET, kind) as first,
                        net.socket(net.AF_INET, kind) as second,
                    ):
                        for sock, chosen in ((first, flags[one]), (second, flags[two])):
                            for option in chosen:
                                sock.setsockopt(net.SOL_SOCKET, option, 1)
                        first.bind((own, port))
                        said = [outcome(second.bind, (here, port))]
                        if kind == net.SOCK_STREAM:
                            said.append(outcome(first.listen))
                            said.append(outcome(second.listen) if said[0] == "ok" else "-")
                    where = "own" if here == own else here
                    name = "stream" if kind == net.SOCK_STREAM else "datagram"
                    told[f"{name} {where} {one or '-'} {two or '-'}"] = said
    with stream(net) as sock:
        told["not ours"] = outcome(sock.bind, ("192.0.2.77", port))
        told["bound"] = [outcome(sock.bind, (own, port)), outcome(sock.bind, (own, port + 1))]
    with stream(net) as first, stream(net) as second:
        told["connected from"] = []
        for sock in (first, second):
            sock.setsockopt(net.SOL_SOCKET, net.SO_REUSEADDR, 1)
            sock.bind((own, port))
            told["connected from"].append(outcome(sock.connect, (host, server)))
    return told


@end
def time_wait(net: Module, host: str, server: int, port: int) -> Any:
    """A port in TIME_WAIT: taken, but for SO_REUSEADDR."""
    with stream(net) as sock:
        sock.setsockopt(net.SOL_SOCKET, net.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", port))
        sock.connect((host, server))
        sock.shutdown(net.SHUT_WR)
        sock.recv(1)
    told = []
    for reuse in (0, 1):
        with stream(net) as sock:
            sock.setsockopt(net.SOL_SOCKET, net.SO_REUSEADDR, reuse)
            told.append(outcome(sock.bind, ("0.0.0.0", port)))
            if reuse:
                told.append(outcome(sock.listen))
    return told


@end
def accept_all(net: Module, ports: list[int]) -> Any:
    """Accept on all of them, and keep what was accepted; close what the peer closes."""
    with ExitStack() as stack:
        watched = []
        for port in ports:
            listener = stack.enter_context(net.create_server(("0.0.0.0", port), backlog=128))
            listener.setblocking(False)
            watched.append(listener)
        tell(ready=True)
        listeners = set(watched)
        count = 0
        while True:
            ready, _, _ = select.select([*watched, sys.stdin], [], [])
            if sys.stdin in ready:
                return {"accepted": count}
            for sock in ready:
                if sock in listeners:
                    watched.append(stack.enter_context(sock.accept()[0]))
                    count += 1
                elif not sock.recv(4096):
                    watched.remove(sock)
                    sock.close()


# ---- SO_REUSEPORT ------------------------------------------------------------------------------


@end
def reuseport_group(net: Module, port: int, kind: str, size: int, count: int) -> Any:
    """A group of sockets at one port: who gets how many of `count` flows; a flow's second
    datagram goes where its first went."""
    datagram = kind == "datagram"
    got = [0] * size
    home: dict[Any, int] = {}
    strays = 0
    with ExitStack() as stack:
        group = []
        for _ in range(size):
            sock = net.socket(net.AF_INET, net.SOCK_DGRAM if datagram else net.SOCK_STREAM)
            stack.enter_context(sock)
            sock.setsockopt(net.SOL_SOCKET, net.SO_REUSEPORT, 1)
            sock.bind(("0.0.0.0", port))
            if not datagram:
                sock.listen(128)
            sock.setblocking(False)
            group.append(sock)
        tell(ready=True)
        while sum(got) < count:
            ready, _, _ = select.select(group, [], [], 50)
            if not ready:
                break
            for sock in ready:
                at = group.index(sock)
                got[at] += 1
                if datagram:
                    peer = sock.recvfrom(100)[1]
                    strays += home.setdefault(peer, at) != at
                else:
                    sock.accept()[0].close()
    return {"sum": sum(got), "all": all(got), "strays": strays}


@end
def many_flows(net: Module, host: str, port: int, kind: str, count: int) -> Any:
    """`count` flows, each of a socket of its own; of datagrams two each."""
    with ExitStack() as stack:
        socks = []
        for _ in range(count):
            datagram = kind == "datagram"
            sock = net.socket(net.AF_INET, net.SOCK_DGRAM if datagram else net.SOCK_STREAM)
            stack.enter_context(sock)
            sock.connect((host, port))
            socks.append(sock)
        if kind == "datagram":
            for sock in socks * 2:
                sock.send(b"x")
    return True


# ---- closing -----------------------------------------------------------------------------------


@end
def linger(net: Module, host: str, port: int, seconds: int) -> Any:
    """Fill the way to a peer that does not read, and close, lingering; how much was sent."""
    sock = stream(net)
    sock.setsockopt(net.SOL_SOCKET, net.SO_LINGER, struct.pack("ii", 1, seconds))
    sock.setsockopt(net.SOL_SOCKET, net.SO_SNDBUF, 200_000)
    sock.connect((host, port))
    sock.setblocking(False)
    sent = 0
    while True:
        try:
            sent += sock.send(bytes(50_000))
        except BlockingIOError:
            if not select.select([], [sock], [], 1.0)[1]:
                break
    sock.setblocking(True)
    tell(closing=True)
    sock.close()
    tell(closed=True)
    wait()
    return sent


@end
def read_late(net: Module, port: int) -> Any:
    """Accept, wait for the test, and read to the end; how much, and how it ended."""
    with listening(net, port) as listener:
        sock, _ = listener.accept()
        with sock:
            wait()
            size = 0
            try:
                while data := sock.recv(65536):
                    size += len(data)
                end = "end"
            except OSError as e:
                end = error_name(e)
    return {"size": size, "end": end}


@end
def closes(net: Module, host: str, port: int, ways: list[str]) -> Any:
    """Connect, say something, wait until the peer has answered; close, in each of these ways."""
    for how in ways:
        sock = stream(net)
        sock.connect((host, port))
        sock.send(b"hello")
        sock.recv(1, net.MSG_PEEK)
        if "unread" not in how:
            sock.recv(100)
        if how == "linger 0":
            sock.setsockopt(net.SOL_SOCKET, net.SO_LINGER, struct.pack("ii", 1, 0))
        elif how.startswith("shutdown"):
            sock.shutdown(net.SHUT_WR)
        sock.close()
    return True


@end
def be_closed(net: Module, port: int, count: int) -> Any:
    """The other end of that: how reading ends, each time."""
    ends = []
    with listening(net, port) as listener:
        for _ in range(count):
            sock, _ = listener.accept()
            with sock:
                sock.recv(100)
                sock.send(b"answer")
                said: list[str] = []
                while not said or said[-1] == "ok":
                    try:
                        said.append("ok" if sock.recv(100) else "end")
                    except OSError as e:
                        said.append(error_name(e))
            ends.append([s for s in said if s != "ok"])
    return ends
