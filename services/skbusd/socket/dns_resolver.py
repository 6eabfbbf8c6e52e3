# SPDX-License-Identifier: MIT
"""From names to addresses for code inside the socket process (`net/dns_resolver/dns_query.c`).

Linux asks a program in user space; here the thread asks a name server itself, through a socket of
its own. RFC 1035 4 (messages), RFC 1123 6.1.3.3 (ask again), RFC 5452 9 (an answer must match the
question, its id, and the address asked).
"""

import errno
import struct
from collections.abc import Mapping
from typing import Final

from skbusd.socket import uapi
from skbusd.socket.kernel import (
    MsgHdr,
    kernel_connect,
    kernel_recvmsg,
    kernel_release,
    kernel_sendmsg,
)
from skbusd.socket.netns import SocketNet
from skbusd.socket.socket import sock_create

DNS_PORT: Final = 53
TYPE_A: Final = 1
TYPE_CNAME: Final = 5
CLASS_IN: Final = 1
TRIES: Final = 3
TIMEOUT: Final = 2_000_000_000
_HEADER: Final = struct.Struct("!HHHHHH")
_RESPONSE: Final = 0x8000
_RECURSION: Final = 0x0100
_RCODE: Final = 0x000F
_NXDOMAIN: Final = 3
_MAX_POINTERS: Final = 32


def in4_pton(text: str) -> bytes | None:
    """`in4_pton`: "10.0.0.1" as 4 bytes; None where it is no address."""
    parts = text.split(".")
    if len(parts) != 4 or not all(p.isascii() and p.isdigit() and len(p) <= 3 for p in parts):
        return None
    numbers = [int(p) for p in parts]
    return bytes(numbers) if max(numbers) <= 255 else None


def parse_hosts(text: str) -> dict[str, bytes]:
    """The names of /etc/hosts, as name -> address; the first line that has a name counts."""
    found: dict[str, bytes] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        addr = in4_pton(words[0]) if words else None
        if addr is not None:
            for name in words[1:]:
                found.setdefault(name.lower(), addr)
    return found


async def dns_query(
    net: SocketNet,
    name: str,
    *,
    server: bytes | None = None,
    port: int = DNS_PORT,
    hosts: Mapping[str, bytes] | None = None,
) -> bytes:
    """`dns_query`: the IPv4 address of a name, which may be an address itself: from `hosts`, or
    from the name server. OSError: ENOENT (no such name), ETIMEDOUT, EBADMSG, EDESTADDRREQ (no
    server)."""
    addr = in4_pton(name) or (hosts or {}).get(name.lower())
    if addr is not None:
        return addr
    if server is None:
        raise OSError(errno.EDESTADDRREQ, f"{name} is not in hosts, and there is no name server")
    sock = sock_create(net, uapi.AF_INET, uapi.SOCK_DGRAM, uapi.IPPROTO_UDP)
    try:
        if sock.sk is not None:
            sock.sk.sk_rcvtimeo = TIMEOUT
        await kernel_connect(net, sock, (uapi.AF_INET, port, server))
        for _ in range(TRIES):
            id = net.get_random_u32() & 0xFFFF
            query = make_query(id, name)
            await kernel_sendmsg(net, sock, MsgHdr(), [query], len(query))
            buffer = bytearray(1500)
            try:
                while True:
                    n = await kernel_recvmsg(net, sock, MsgHdr(), [buffer], len(buffer), 0)
                    answer = bytes(buffer[:n])
                    if answer[:2] == query[:2] and answer[12 : len(query)] == query[12:]:
                        return parse_answer(answer)
            except BlockingIOError:
                continue  # SO_RCVTIMEO is over: ask again
    finally:
        kernel_release(net, sock)
    raise OSError(errno.ETIMEDOUT, f"the name server does not answer for {name}")


def make_query(id: int, name: str) -> bytes:
    """A question for the address of a name. OSError (EINVAL) where it cannot be a name."""
    labels = name.rstrip(".").encode("idna" if not name.isascii() else "ascii").split(b".")
    if not all(0 < len(label) <= 63 for label in labels) or sum(map(len, labels)) > 240:
        raise OSError(errno.EINVAL, f"{name!r} is no host name")
    out = _HEADER.pack(id, _RECURSION, 1, 0, 0, 0)
    for label in labels:
        out += bytes((len(label),)) + label
    return out + b"\0" + struct.pack("!HH", TYPE_A, CLASS_IN)


def parse_answer(data: bytes) -> bytes:
    """The address in an answer; aliases are followed in it. OSError: ENOENT, EBADMSG, EAGAIN."""
    try:
        _, flags, questions, answers, _, _ = _HEADER.unpack_from(data)
        if not flags & _RESPONSE:
            raise OSError(errno.EBADMSG, "not an answer")
        if flags & _RCODE:
            known = flags & _RCODE == _NXDOMAIN
            raise OSError(errno.ENOENT if known else errno.EREMOTEIO, f"rcode {flags & _RCODE}")
        at = _HEADER.size
        want = b""
        for _ in range(questions):
            want, at = _name(data, at)
            at += 4
        for _ in range(answers):
            owner, at = _name(data, at)
            kind, klass, _, size = struct.unpack_from("!HHIH", data, at)
            at += 10
            if klass == CLASS_IN and owner == want:
                if kind == TYPE_A and size == 4 and at + 4 <= len(data):
                    return data[at : at + 4]
                if kind == TYPE_CNAME:
                    want, _ = _name(data, at)
            at += size
    except (struct.error, IndexError, ValueError) as e:
        raise OSError(errno.EBADMSG, f"a broken answer: {e}") from e
    raise OSError(errno.ENOENT, "the name has no address")


def _name(data: bytes, at: int) -> tuple[bytes, int]:
    """(a name in lower case, where it ends). ValueError, IndexError where it is broken."""
    labels = []
    end = -1
    for _ in range(128 + _MAX_POINTERS):
        size = data[at]
        if size >= 0xC0:
            if end < 0:
                end = at + 2
            at = (size & 0x3F) << 8 | data[at + 1]
        elif size:
            label = data[at + 1 : at + 1 + size]
            if size > 63 or len(label) < size:
                raise ValueError("a label that is too long")
            labels.append(label)
            at += 1 + size
        else:
            return b".".join(labels).lower(), at + 1 if end < 0 else end
    raise ValueError("a name without an end")
