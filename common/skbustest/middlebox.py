# SPDX-License-Identifier: MIT
"""Boxes in the middle of a simulated link that treat ECN as real boxes have been seen to do.

    link = world.link(a, b)
    link.tamper(a, Middlebox(strip=ACCECN_OPTIONS))      # from a's frames
    link.tamper(b, Middlebox(ecn={ECT_0: NOT_ECT}))

RFC 9768 3.2.2.3, 3.2.2.4 and 3.2.3.2 say what ends do about each. Checksums are made right again.
"""

from collections.abc import Callable, Mapping
from typing import Final

from skbus.core.checksum import csum_partial, csum_tcpudp_magic
from skbus.inet.headers.tcp import (
    MAX_TCP_OPTION_SPACE,
    TCPHDR_ACK,
    TCPHDR_AE,
    TCPHDR_CWR,
    TCPHDR_ECE,
    TCPHDR_SYN,
    TCPOPT_ACCECN0,
    TCPOPT_ACCECN1,
    TCPOPT_EOL,
    TCPOPT_NOP,
    TcpHdr,
    parse,
)

NOT_ECT, ECT_1, ECT_0, CE = range(4)
ACE: Final = TCPHDR_AE | TCPHDR_CWR | TCPHDR_ECE
ACCECN_OPTIONS: Final = (TCPOPT_ACCECN0, TCPOPT_ACCECN1)
_ETH: Final = 14
_IPPROTO_TCP: Final = 6


def is_syn(th: TcpHdr) -> bool:
    """A SYN, without ACK."""
    return th.flags & (TCPHDR_SYN | TCPHDR_ACK) == TCPHDR_SYN


def is_synack(th: TcpHdr) -> bool:
    """A SYN-ACK."""
    return th.flags & (TCPHDR_SYN | TCPHDR_ACK) == TCPHDR_SYN | TCPHDR_ACK


def options_of(frame: bytes, at: int, size: int) -> list[tuple[int, int, int]]:
    """(kind, offset, length) of each option between `at` and `at + size`, but for NOP and EOL."""
    found = []
    end = at + min(size, MAX_TCP_OPTION_SPACE)
    while at < end and frame[at] != TCPOPT_EOL:
        if frame[at] == TCPOPT_NOP:
            at += 1
            continue
        length = frame[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            break
        found.append((frame[at], at, length))
        at += length
    return found


class Middlebox:
    """Changes the TCP segments of one direction, in the order below; other frames pass.

    drop: which segments are lost, by their header and the kinds of their options.
    ecn: old value of IP's ECN field -> new one. flags: the header's new AE, CWR and ECE, from the
    old ones. strip: kinds of options that become NOPs. zero: kinds of options to clear, but for
    kind and length. when: the segments for which all but `drop` holds; None: all.
    """

    def __init__(
        self,
        *,
        drop: Callable[[TcpHdr, set[int]], bool] | None = None,
        ecn: Mapping[int, int] | None = None,
        flags: Callable[[int], int] | None = None,
        strip: tuple[int, ...] = (),
        zero: tuple[int, ...] = (),
        when: Callable[[TcpHdr], bool] | None = None,
    ) -> None:
        self.drop = drop
        self.ecn = dict(ecn or {})
        self.flags = flags
        self.strip = strip
        self.zero = zero
        self.when = when
        self.dropped = 0
        self.changed = 0

    def __call__(self, frame: bytes) -> bytes | None:
        """The frame that goes on; None: none does."""
        tcp = _ETH + (frame[_ETH] & 15) * 4 if len(frame) > _ETH else 0
        if frame[12:14] != b"\x08\x00" or frame[_ETH + 9] != _IPPROTO_TCP:
            return frame
        th = parse(frame, tcp)
        options = options_of(frame, tcp + 20, th.doff - 20)
        if self.drop is not None and self.drop(th, {kind for kind, _, _ in options}):
            self.dropped += 1
            return None
        if self.when is not None and not self.when(th):
            return frame
        out = bytearray(frame)
        tos = frame[_ETH + 1]
        out[_ETH + 1] = tos & ~3 | self.ecn.get(tos & 3, tos & 3)
        if self.flags is not None:
            ace = self.flags(th.flags & ACE) & ACE
            word = int.from_bytes(out[tcp + 12 : tcp + 14], "big") & ~ACE | ace
            out[tcp + 12 : tcp + 14] = word.to_bytes(2, "big")
        for kind, at, length in options:
            if kind in self.strip:
                out[at : at + length] = bytes([TCPOPT_NOP]) * length
            elif kind in self.zero:
                out[at + 2 : at + length] = bytes(length - 2)
        if out == frame:
            return frame
        self.changed += 1
        return _with_checksums(out, tcp)


def _with_checksums(frame: bytearray, tcp: int) -> bytes:
    """A TCP segment in an Ethernet frame, with its checksums made anew."""
    total = int.from_bytes(frame[_ETH + 2 : _ETH + 4], "big")
    end = _ETH + total
    frame[_ETH + 10 : _ETH + 12] = b"\0\0"
    check = ~csum_partial(bytes(frame[_ETH:tcp])) & 0xFFFF
    frame[_ETH + 10 : _ETH + 12] = check.to_bytes(2, "big")
    frame[tcp + 16 : tcp + 18] = b"\0\0"
    saddr, daddr = bytes(frame[_ETH + 12 : _ETH + 16]), bytes(frame[_ETH + 16 : _ETH + 20])
    check = csum_tcpudp_magic(
        saddr, daddr, end - tcp, _IPPROTO_TCP, csum_partial(bytes(frame[tcp:end]))
    )
    frame[tcp + 16 : tcp + 18] = check.to_bytes(2, "big")
    return bytes(frame)
