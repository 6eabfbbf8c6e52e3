# SPDX-License-Identifier: MIT
"""Ends of the tests of raw, ping, UDP-Lite and multicast sockets (see `end.py`).

Bytes are told as hexadecimal text.
"""

import errno
import select
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from tests.interop.end import Module, end, tell, wait

from skbus.core.uapi import (
    ICMP_FILTER,
    IP_HDRINCL,
    IPPROTO_UDPLITE,
    SOL_RAW,
    UDPLITE_RECV_CSCOV,
    UDPLITE_SEND_CSCOV,
)
from skbus.inet import mcast

LONG = 45.0
"""Seconds in which what is to come comes, on a loaded machine too."""


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) & 1:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def icmp(type_: int, ident: int, sequence: int, data: bytes) -> bytes:
    check = checksum(struct.pack("!BBHHH", type_, 0, 0, ident, sequence) + data)
    return struct.pack("!BBHHH", type_, 0, check, ident, sequence) + data


def ip_fields(packet: bytes) -> dict[str, Any]:
    vihl, tos, length, ident, frag, ttl, protocol, _, saddr, daddr = struct.unpack_from(
        "!BBHHHBBH4s4s", packet
    )
    ihl = (vihl & 15) * 4
    return {
        "ihl": ihl,
        "tos": tos,
        "len": length == len(packet),
        "id": bool(ident),
        "df": bool(frag & 0x4000),
        "ttl": ttl,
        "protocol": protocol,
        "check": checksum(packet[:ihl]),
        "saddr": socket.inet_ntoa(saddr),
        "daddr": socket.inet_ntoa(daddr),
        "options": packet[20:ihl].hex(),
        "payload": packet[ihl:].hex(),
    }


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result, or the name of the errno."""
    try:
        found = function(*arguments)
    except OSError as e:
        return "timed out" if isinstance(e, TimeoutError) else errno.errorcode[e.errno or 0]
    return found.hex() if isinstance(found, bytes) else found


# ---- raw -------------------------------------------------------------------------------------


@end
def raw_ping(net: Module, host: str) -> Any:
    """An echo by a raw ICMP socket whose filter lets replies alone through."""
    with net.socket(net.AF_INET, net.SOCK_RAW, net.IPPROTO_ICMP) as sock:
        name = sock.getsockname()
        sock.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", ~1 & 0xFFFFFFFF))
        kept = sock.getsockopt(SOL_RAW, ICMP_FILTER, 4).hex()
        sock.settimeout(LONG)
        sock.sendto(icmp(8, 0x1234, 5, b"raw and bare"), (host, 0))
        packet, sender = sock.recvfrom(2000)
    fields = ip_fields(packet)
    del fields["id"]
    return {"name": name, "filter": kept, "sender": sender, **fields}


@end
def raw_receive(net: Module, protocol: int, count: int, host: str = "") -> Any:
    """`count` packets of a protocol, from anybody or from one host."""
    with net.socket(net.AF_INET, net.SOCK_RAW, protocol) as sock:
        if host:
            sock.connect((host, 0))
        sock.settimeout(LONG)
        tell(ready=True)
        return [ip_fields(sock.recv(70000)) for _ in range(count)]


@end
def raw_send(net: Module, protocol: int, host: str, payloads: list[str]) -> Any:
    """Packets with the kernel's IP header."""
    with net.socket(net.AF_INET, net.SOCK_RAW, protocol) as sock:
        sock.setsockopt(net.IPPROTO_IP, net.IP_TTL, 17)
        sock.setsockopt(net.IPPROTO_IP, net.IP_TOS, 0x48)
        return [sock.sendto(bytes.fromhex(payload), (host, 0)) for payload in payloads]


@end
def raw_send_hdrincl(net: Module, host: str) -> Any:
    """Packets with our own IP header, in which something is left out."""
    with net.socket(net.AF_INET, net.SOCK_RAW, net.IPPROTO_RAW) as sock:
        daddr = socket.inet_aton(host)
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 8, 0, 0, 0, 33, 253, 9, bytes(4), daddr)
        routed = struct.pack(
            "!BBHHHBBH4s4s", 0x46, 0, 1, 77, 0, 5, 253, 0, b"\x0a\x4d\x00\x63", daddr
        )
        return {
            "hdrincl": sock.getsockopt(net.IPPROTO_IP, IP_HDRINCL),
            "sent": sock.sendto(header + b"own header", (host, 0)),
            "spoofed": sock.sendto(routed + b"\x94\x04\0\0" + b"spoofed", (host, 0)),
            "short": attempt(sock.sendto, header[:19], (host, 0)),
            "long": attempt(sock.sendto, header + bytes(1481), (host, 0)),
            "ihl": attempt(sock.sendto, b"\x4f" + header[1:], (host, 0)),
        }


@end
def raw_copies(net: Module, host: str, other: str, own: str) -> Any:
    """Three sockets of a protocol hear what they match: all, one peer's, what comes to us."""
    kinds = {"all": None, "peer": ("connect", host), "other": ("connect", other),
             "bound": ("bind", own)}  # fmt: skip
    socks = {}
    for name, how in kinds.items():
        sock = socks[name] = net.socket(net.AF_INET, net.SOCK_RAW, 253)
        if how:
            getattr(sock, how[0])((how[1], 0))
        sock.settimeout(0.7 if name == "other" else LONG)
    tell(ready=True)
    found = {name: attempt(sock.recv, 100) for name, sock in socks.items()}
    for sock in socks.values():
        sock.close()
    return {k: v if len(v) < 20 else v[40:] for k, v in found.items()}


@end
def raw_refused(net: Module, host: str) -> Any:
    """Nobody takes protocol 254: the ICMP error is told to a connected socket alone."""
    with (
        net.socket(net.AF_INET, net.SOCK_RAW, 254) as sock,
        net.socket(net.AF_INET, net.SOCK_RAW, 254) as free,
    ):
        sock.connect((host, 0))
        sock.settimeout(LONG)
        free.settimeout(0.5)
        sock.send(b"anybody?")
        return {"connected": attempt(sock.recv, 100), "free": attempt(free.recv, 100)}


# ---- ping ------------------------------------------------------------------------------------


@end
def ping(net: Module, host: str) -> Any:
    """What a ping socket does, and what it does not."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM, net.IPPROTO_ICMP) as sock:
        sock.settimeout(LONG)
        before = sock.getsockname()
        sent = sock.sendto(icmp(8, 999, 7, b"without root"), (host, 0))
        reply, sender = sock.recvfrom(2000)
        type_, code, _, ident, sequence = struct.unpack_from("!BBHHH", reply)
        with net.socket(net.AF_INET, net.SOCK_DGRAM, net.IPPROTO_ICMP) as second:
            number = sock.getsockname()[1]
            second.setsockopt(net.SOL_SOCKET, net.SO_REUSEADDR, 0)  # it is on from the start
            taken = attempt(second.bind, ("0.0.0.0", number))
            nowhere = attempt(second.bind, ("10.99.99.99", 0))
            second.bind(("0.0.0.0", 4242))
            second.settimeout(LONG)
            second.connect((host, 9))
            second.send(icmp(8, 1, 1, bytes(3000)))
            large = second.recv(4000)
            return {
                "before": before,
                "sent": sent,
                "reply": [type_, code, ident == number, sequence, reply[8:].decode()],
                "sound": checksum(reply),
                "sender": sender,
                "taken": taken,
                "nowhere": nowhere,
                "name": second.getsockname()[1],
                "peer": second.getpeername(),
                "large": [len(large), struct.unpack_from("!H", large, 4)[0]],
                "other type": attempt(second.send, icmp(0, 1, 1, b"")),
                "short": attempt(second.send, b"\x08\0\0\0"),
                "hdrincl": attempt(second.setsockopt, 0, IP_HDRINCL, 1),
                "no peer": attempt(sock.send, icmp(8, 1, 1, b"")),
            }


# ---- UDP-Lite --------------------------------------------------------------------------------


@end
def lite_serve(net: Module, port: int, cscov: int, count: int) -> Any:
    """`count` datagrams; with cscov, those whose checksum covers as much."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM, IPPROTO_UDPLITE) as sock:
        if cscov >= 0:
            sock.setsockopt(IPPROTO_UDPLITE, UDPLITE_RECV_CSCOV, cscov)
        sock.bind(("0.0.0.0", port))
        sock.settimeout(LONG)
        tell(ready=True)
        found = []
        for _ in range(count):
            data, sender = sock.recvfrom(70000)
            sock.sendto(data[:10], sender)
            found.append([len(data), data[:20].hex()])
        return {"found": found, "cscov": sock.getsockopt(IPPROTO_UDPLITE, UDPLITE_RECV_CSCOV)}


@end
def lite_send(net: Module, host: str, port: int, sends: list[list[Any]], silent: list[int]) -> Any:
    """Datagrams with a coverage each (-1: not set); those that are heard of again. silent: which
    of them nobody is going to answer."""
    heard = []
    for n, (cscov, size, text) in enumerate(sends):
        with net.socket(net.AF_INET, net.SOCK_DGRAM, IPPROTO_UDPLITE) as sock:
            if cscov >= 0:
                sock.setsockopt(IPPROTO_UDPLITE, UDPLITE_SEND_CSCOV, cscov)
            sock.connect((host, port))
            sock.settimeout(0.5 if n in silent else LONG)
            sock.send(text.encode().ljust(size, b"."))
            heard.append(attempt(sock.recv, 100))
    return heard


@end
def lite_forge(net: Module, saddr: str, daddr: str, port: int) -> Any:
    """Datagrams by hand: damaged behind the coverage, and such as nobody may take."""
    pseudo = socket.inet_aton(saddr) + socket.inet_aton(daddr)
    with net.socket(net.AF_INET, net.SOCK_RAW, IPPROTO_UDPLITE) as sock:
        for cscov, text, damage in (
            (12, b"cov1DAMAGE", False),
            (8, b"xxxxxxxxxx", True),
            (7, b"too little", False),
            (100, b"too much..", False),
            (0, b"all of it.", False),
        ):
            length = 8 + len(text)
            header = struct.pack("!HHHH", 4000, port, cscov, 0)
            covered = (header + text)[: cscov or length]
            check = checksum(pseudo + struct.pack("!HH", 136, length) + covered)
            wire = struct.pack("!HHHH", 4000, port, cscov, check ^ (0x5555 if damage else 0)) + text
            sock.sendto(wire, (daddr, 0))
        sock.sendto(struct.pack("!HHHH", 4000, port, 0, 0) + b"without sum", (daddr, 0))
    return True


# ---- multicast -------------------------------------------------------------------------------


def _mreq(group: str, own: str, source: str = "") -> bytes:
    return b"".join(socket.inet_aton(a) for a in (group, own, source) if a)


@end
def multicast_receive(
    net: Module, own: str, port: int, steps: list[list[str]], bind: str = "0.0.0.0", all: int = 1
) -> Any:
    """Options one after the other, then what comes until a datagram says "end"."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.setsockopt(net.SOL_SOCKET, net.SO_REUSEADDR, 1)
        sock.bind((bind, port))
        sock.setsockopt(net.IPPROTO_IP, mcast.IP_MULTICAST_ALL, all)
        results = []
        for option, group, *source in steps:
            value = _mreq(group, own, *source)
            results.append(attempt(sock.setsockopt, net.IPPROTO_IP, int(option), value))
        sock.settimeout(LONG)
        tell(ready=results)
        heard = []
        while (data := sock.recvfrom(1000)[0]) != b"end":
            heard.append(data.decode())
        return heard


@end
def multicast_send(
    net: Module, own: str, port: int, sends: list[list[str]], end: str, loop: int = -1, ttl: int = 1
) -> Any:
    """Datagrams to groups, the last one to `end`; what comes back where we are members."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.setsockopt(net.IPPROTO_IP, net.IP_MULTICAST_IF, socket.inet_aton(own))
        sock.setsockopt(net.IPPROTO_IP, net.IP_MULTICAST_TTL, ttl)
        if loop >= 0:
            sock.setsockopt(net.IPPROTO_IP, net.IP_MULTICAST_LOOP, loop)
        for group, text in sends:
            sock.sendto(text.encode(), (group, port))
        sock.sendto(b"end", (end, port))
        return {
            "if": sock.getsockopt(net.IPPROTO_IP, net.IP_MULTICAST_IF, 4).hex(),
            "ttl": sock.getsockopt(net.IPPROTO_IP, net.IP_MULTICAST_TTL),
            "loop": sock.getsockopt(net.IPPROTO_IP, net.IP_MULTICAST_LOOP),
        }


@end
def multicast_to_self(net: Module, own: str, port: int, group: str) -> Any:
    """One's own datagrams come back, unless IP_MULTICAST_LOOP is off."""
    with (
        net.socket(net.AF_INET, net.SOCK_DGRAM) as ear,
        net.socket(net.AF_INET, net.SOCK_DGRAM) as mouth,
    ):
        ear.bind((group, port))
        ear.setsockopt(net.IPPROTO_IP, net.IP_ADD_MEMBERSHIP, _mreq(group, own))
        mouth.setsockopt(net.IPPROTO_IP, net.IP_MULTICAST_IF, socket.inet_aton(own))
        found = {"default": mouth.getsockopt(net.IPPROTO_IP, net.IP_MULTICAST_LOOP)}
        for name, loop, ttl in (("on", 1, 1), ("ttl 0", 1, 0), ("off", 0, 1)):
            mouth.setsockopt(net.IPPROTO_IP, net.IP_MULTICAST_LOOP, loop)
            mouth.setsockopt(net.IPPROTO_IP, net.IP_MULTICAST_TTL, ttl)
            ear.settimeout(LONG if loop else 0.5)
            mouth.sendto(name.encode(), (group, port))
            found[name] = attempt(ear.recv, 100)
        return found


@end
def options(net: Module, own: str) -> Any:
    """Every multicast option, right and wrong; the outcome of each."""
    group, second = "239.9.9.9", "239.9.9.10"
    storage = struct.pack("=HH4s120x", 2, 0, socket.inet_aton(group))
    source = struct.pack("=HH4s120x", 2, 0, socket.inet_aton("10.1.1.1"))
    index = struct.pack("=I4x", 0)
    outcomes = []
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:

        def put(option: int, value: Any) -> None:
            outcomes.append([option, attempt(sock.setsockopt, net.IPPROTO_IP, option, value)])

        sock.setsockopt(net.IPPROTO_IP, net.IP_MULTICAST_IF, socket.inet_aton(own))
        put(mcast.IP_ADD_MEMBERSHIP, _mreq(group, own))
        put(mcast.IP_ADD_MEMBERSHIP, _mreq(group, own))  # EADDRINUSE
        put(mcast.IP_ADD_MEMBERSHIP, _mreq("10.1.1.1", own))  # no multicast address
        put(mcast.IP_ADD_MEMBERSHIP, _mreq(group, "10.99.99.99"))  # no such device
        put(mcast.IP_ADD_MEMBERSHIP, b"short")
        put(mcast.IP_BLOCK_SOURCE, _mreq(group, own, "10.1.1.1"))
        put(mcast.IP_BLOCK_SOURCE, _mreq(group, own, "10.1.1.1"))  # again
        put(mcast.IP_UNBLOCK_SOURCE, _mreq(group, own, "10.1.1.2"))  # not blocked
        put(mcast.IP_ADD_SOURCE_MEMBERSHIP, _mreq(group, own, "10.1.1.1"))  # the other mode
        put(mcast.IP_UNBLOCK_SOURCE, _mreq(group, own, "10.1.1.1"))
        put(
            mcast.IP_ADD_SOURCE_MEMBERSHIP, _mreq(group, own, "10.1.1.3")
        )  # an empty filter may change its mode
        put(mcast.IP_DROP_SOURCE_MEMBERSHIP, _mreq(group, own, "10.1.1.3"))  # the last one: leaves
        put(mcast.IP_DROP_MEMBERSHIP, _mreq(group, own))  # has left
        put(mcast.IP_ADD_SOURCE_MEMBERSHIP, _mreq(second, own, "10.1.1.1"))
        put(mcast.IP_ADD_SOURCE_MEMBERSHIP, _mreq(second, own, "10.1.1.2"))
        put(mcast.IP_DROP_SOURCE_MEMBERSHIP, _mreq(second, own, "10.1.1.9"))
        put(mcast.IP_DROP_MEMBERSHIP, _mreq(second, own))
        put(mcast.IP_DROP_MEMBERSHIP, _mreq(second, own))
        put(mcast.IP_MSFILTER, _mreq(group, own) + struct.pack("=II", 1, 0))
        put(mcast.IP_ADD_MEMBERSHIP, _mreq(group, own))
        put(mcast.IP_MSFILTER, _mreq(group, own) + struct.pack("=II4s", 1, 1, b"\x0a\1\1\1"))
        put(mcast.IP_MSFILTER, _mreq(group, own) + struct.pack("=II", 1, 11) + bytes(44))
        put(mcast.IP_MSFILTER, _mreq(group, own) + struct.pack("=II", 7, 0))
        put(mcast.IP_MSFILTER, _mreq(group, own) + struct.pack("=II", 1, 2) + bytes(4))
        put(mcast.IP_DROP_MEMBERSHIP, _mreq(group, own))
        put(
            mcast.MCAST_BLOCK_SOURCE, struct.pack("=I4x", 9999) + storage + source
        )  # no such device
        put(mcast.MCAST_JOIN_GROUP, index[:4])
        for ttl in (-2, -1, 0, 255, 256):
            put(mcast.IP_MULTICAST_TTL, ttl)
        for value in (0, 1, 2):
            put(mcast.IP_MULTICAST_ALL, value)
        put(mcast.IP_MULTICAST_IF, socket.inet_aton("10.99.99.99"))
        put(mcast.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), 9999))
        put(mcast.IP_MULTICAST_IF, b"abc")
        put(mcast.IP_MULTICAST_IF, bytes(4))
        for i in range(20):
            sock.setsockopt(net.IPPROTO_IP, net.IP_ADD_MEMBERSHIP, _mreq(f"239.8.8.{i}", own))
        put(mcast.IP_ADD_MEMBERSHIP, _mreq(group, own))  # one too many
    return outcomes


# ---- IGMP ------------------------------------------------------------------------------------


def _records(message: bytes) -> list[Any]:
    out = []
    at = 8
    for _ in range(struct.unpack_from("!H", message, 6)[0]):
        kind, _, count, group = struct.unpack_from("!BBH4s", message, at)
        at += 8
        sources = [socket.inet_ntoa(message[i : i + 4]) for i in range(at, at + 4 * count, 4)]
        at += 4 * count
        out.append([kind, socket.inet_ntoa(group), sources])
    return sorted(out)


@end
def igmp_router(net: Module, own: str, group: str, queries: list[list[str]]) -> Any:
    """What hosts report of a group after a router has asked: [message in hex, destination].

    The n-th report is told at once as "report n", and a leave as "left"; it ends when the test
    says go on.
    """
    with net.socket(net.AF_INET, net.SOCK_RAW, net.IPPROTO_IGMP) as sock:
        for joined in ("224.0.0.22", "224.0.0.2", group):
            sock.setsockopt(net.IPPROTO_IP, net.IP_ADD_MEMBERSHIP, _mreq(joined, own))
        sock.setsockopt(net.IPPROTO_IP, net.IP_MULTICAST_IF, socket.inet_aton(own))
        sock.setsockopt(net.IPPROTO_IP, net.IP_MULTICAST_LOOP, 0)
        tell(ready=True)
        for message, daddr in queries:
            bare = bytes.fromhex(message)
            check = struct.pack("!H", checksum(bare))
            sock.sendto(bare[:2] + check + bare[4:], (daddr, 0))
        found: list[Any] = []
        while sock in select.select([sock, sys.stdin], [], [])[0]:
            packet, (sender, _) = sock.recvfrom(2000)
            fields = ip_fields(packet)
            message = packet[fields["ihl"] :]
            records = _records(message) if message[0] == 0x22 else socket.inet_ntoa(message[4:8])
            if sender != own and group in str(records):
                entry = {k: fields[k] for k in ("tos", "ttl", "df", "options", "check", "daddr")}
                found.append({**entry, "type": message[0], "sound": checksum(message),
                              "says": records})  # fmt: skip
                tell(**{"left" if message[0] == 0x17 else f"report {len(found)}": records})
        return found


@end
def member(net: Module, own: str, steps: list[list[Any]]) -> Any:
    """Take the steps [option, group, source...] as the test says go; a socket in groups."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        tell(ready=True)
        for option, group, *source in steps:
            wait()
            sock.setsockopt(net.IPPROTO_IP, option, _mreq(group, own, *source))
            tell(**{f"step {option} {group} {''.join(source)}": True})
        wait()
    return True
