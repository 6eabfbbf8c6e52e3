# SPDX-License-Identifier: MIT
"""The socket layer's part of `skbus proc`: the owner of each socket, /proc/net/protocols
(`net/core/sock.c`), and its part of /proc/net/sockstat. They are plain values for
`skbus.inet.proc`."""

from typing import Any

from skbus.inet.proc import TRANSPORTS, Owner, ProtoLine
from skbusd.socket.netns import SocketNet
from skbusd.socket.proto import Proto
from skbusd.socket.tcp_shards import sk_ino

_PAGE = 4096
_METHODS = (
    "close", "connect", "disconnect", "accept", "ioctl", "init", "destroy", "shutdown",
    "setsockopt", "getsockopt", "sendmsg", "recvmsg", "bind", "backlog_rcv", "hash", "unhash",
    "get_port", "enter_memory_pressure",
)  # fmt: skip
"""The functions of `struct proto` in the file, in its order."""


def proc_net(net: SocketNet, name: str) -> Any:
    """The socket layer's part of one file; None where it has none."""
    if name in TRANSPORTS:
        return owners(net)
    if name == "protocols":
        return protocols(net)
    if name == "sockstat":
        return {
            "used": sum(len(client.fdt) for client in net.clients.values()),
            "tcp_replicas": (net.shards.count - 1) * len(net.shards.replicas),
        }
    return None


def owners(net: SocketNet) -> dict[int, Owner]:
    """socket's number -> user, inode and unsent bytes. Orphans belong to nobody."""
    found = {}
    for number, sk in net.socks.items():
        sock = sk.sk_socket
        client = sock.client if sock is not None else None
        uid = client.cred.uid if client is not None else 0
        number = sk_ino(net, number)
        found[number] = Owner(uid, number if sock is not None else 0, sk.sk_wmem_queued)
    return found


def _protos(net: SocketNet) -> list[Proto[Any]]:
    """Every protocol that a type of socket leads to, the latest first, as in Linux's list."""
    found: dict[str, Proto[Any]] = {}
    for entries in net.inetsw:
        for entry in entries:
            found[entry.prot.name] = entry.prot
    return list(reversed(found.values()))


def memory(net: SocketNet, prot: Proto[Any]) -> int:
    """Pages that the queues of a protocol's sockets fill; -1 where Linux does not count them.

    This is for plug-ins, which have no account of their own; tcp and udp report theirs.
    """
    if prot.name in ("RAW", "PING"):
        return -1
    queued = sum(
        sk.sk_rmem_alloc + sk.sk_wmem_queued
        for sk in net.socks.values()
        if sk.sk_prot.name == prot.name
    )
    return -(-queued // _PAGE)


def protocols(net: SocketNet) -> list[ProtoLine]:
    """The lines of /proc/net/protocols."""
    lines = []
    for prot in _protos(net):
        methods = "".join("y" if _has(prot, name) else "n" for name in _METHODS)
        lines.append(
            ProtoLine(
                prot.name,
                prot.obj.__basicsize__ if isinstance(prot.obj, type) else 0,
                sum(sk.sk_prot.name == prot.name for sk in net.socks.values()),
                memory(net, prot),
                methods,
            )
        )
    return lines


def _has(prot: Proto[Any], name: str) -> bool:
    """Does this protocol have the function, here or in its process?"""
    if name == "accept":
        return prot.name == "TCP"
    if name in ("ioctl", "hash", "unhash", "backlog_rcv"):
        return True  # inet_ioctl, and functions of the transport's process
    if name in ("destroy", "enter_memory_pressure"):
        return False
    return getattr(prot, name, None) is not None
