# SPDX-License-Identifier: MIT
"""IPv4 header and options (`include/uapi/linux/ip.h`, `net/ipv4/ip_options.c`).

Used by ip, and by nic to find a frame's transport header. RFC 791 section 3; RFC 2474 and 3168
for `tos`; RFC 6864 for `id`.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from skbus.core.checksum import ip_fast_csum
from skbus.inet.headers import Buffer, HeaderError

IP_HLEN: Final = 20
"""Without options."""
MAX_IPOPTLEN: Final = 40
IPVERSION: Final = 4

IP_CE: Final = 0x8000
IP_DF: Final = 0x4000
IP_MF: Final = 0x2000
IP_OFFSET: Final = 0x1FFF
"""Mask of the fragment offset, which counts 8 bytes."""

# Where the fields of `struct iphdr` lie.
IPH_FRAG_OFF: Final = 6
IPH_TTL: Final = 8
IPH_PROTOCOL: Final = 9
IPH_CHECK: Final = 10
IPH_SADDR: Final = 12
IPH_DADDR: Final = 16

IPPROTO_ICMP: Final = 1
IPPROTO_IGMP: Final = 2
IPPROTO_TCP: Final = 6
IPPROTO_UDP: Final = 17
IPPROTO_UDPLITE: Final = 136
IPPROTO_RAW: Final = 255

INET_ECN_NOT_ECT: Final = 0
INET_ECN_ECT_1: Final = 1
INET_ECN_ECT_0: Final = 2
INET_ECN_CE: Final = 3
INET_ECN_MASK: Final = 3

IPOPT_COPY: Final = 0x80
IPOPT_END: Final = 0
IPOPT_NOOP: Final = 1
IPOPT_RR: Final = 7
IPOPT_TIMESTAMP: Final = 68
IPOPT_SEC: Final = 130
IPOPT_LSRR: Final = 131
IPOPT_CIPSO: Final = 134
IPOPT_SSRR: Final = 137
IPOPT_RA: Final = 148

IPOPT_TS_TSONLY: Final = 0
IPOPT_TS_TSANDADDR: Final = 1
IPOPT_TS_PRESPEC: Final = 3
IPOPT_TS_KINDS: Final = (IPOPT_TS_TSONLY, IPOPT_TS_TSANDADDR, IPOPT_TS_PRESPEC)

_IP: Final = struct.Struct("!BBHHHBBH4s4s")
_new: Final = tuple.__new__
"""Makes a NamedTuple in half the time, without the `__new__` that Python writes for it."""


class IpHdr(NamedTuple):
    """`struct iphdr`; ihl in bytes, frag_off raw (IP_DF, IP_MF, IP_OFFSET)."""

    ihl: int
    tos: int
    tot_len: int
    id: int
    frag_off: int
    ttl: int
    protocol: int
    check: int
    saddr: bytes
    daddr: bytes
    options: bytes


def parse(buf: Buffer, offset: int = 0, size: int = 0) -> IpHdr:
    """The IPv4 header at `offset`.

    Checks version, ihl, that the header is all there, and that tot_len covers it. The caller checks
    the packet's length against tot_len, and the checksum (`ip_fast_csum_ok`).

    size: a super-packet's length (`iph_totlen`), where tot_len is 0 (BIG TCP).
    """
    have = len(buf) - offset
    if offset < 0 or have < IP_HLEN:
        raise HeaderError(f"IPv4 header needs {IP_HLEN} bytes, there are {have}", "PKT_TOO_SMALL")
    vihl, tos, tot_len, id_, frag_off, ttl, protocol, check, saddr, daddr = _IP.unpack_from(
        buf, offset
    )
    if vihl == 0x45:
        ihl, options = IP_HLEN, b""
    else:
        ihl = (vihl & 0xF) << 2
        if vihl >> 4 != IPVERSION:
            raise HeaderError(f"IP version {vihl >> 4} is not 4", "IP_INHDR")
        if ihl < IP_HLEN:
            raise HeaderError(f"IPv4 header length {ihl} is below {IP_HLEN}", "IP_INHDR")
        if have < ihl:
            raise HeaderError(f"IPv4 header needs {ihl} bytes, there are {have}", "PKT_TOO_SMALL")
        options = bytes(buf[offset + IP_HLEN : offset + ihl])
    if not tot_len:
        tot_len = size
    if tot_len < ihl:
        raise HeaderError(f"IPv4 total length {tot_len} is below the header's {ihl}", "IP_INHDR")
    fields = (ihl, tos, tot_len, id_, frag_off, ttl, protocol, check, saddr, daddr, options)
    return _new(IpHdr, fields)


def build(
    saddr: bytes,
    daddr: bytes,
    protocol: int,
    tot_len: int,
    *,
    id: int = 0,
    frag_off: int = 0,
    ttl: int = 64,
    tos: int = 0,
    options: bytes = b"",
) -> bytes:
    """An IPv4 header with its checksum. options are padded to a multiple of 4 with IPOPT_END;
    tot_len counts header, options and payload."""
    if not options:
        # The sum of the constant words and the arguments: no second pass over the bytes.
        total = (
            (0x4500 | tos)
            + tot_len
            + id
            + frag_off
            + (ttl << 8 | protocol)
            + int.from_bytes(saddr + daddr, "big")
        )
        check = 0xFFFF - (total % 0xFFFF or 0xFFFF)
        return _IP.pack(0x45, tos, tot_len, id, frag_off, ttl, protocol, check, saddr, daddr)
    if len(options) & 3:
        options += bytes(-len(options) & 3)
    if len(options) > MAX_IPOPTLEN:
        raise ValueError(f"{len(options)} bytes of IP options, at most {MAX_IPOPTLEN}")
    vihl = 0x45 + (len(options) >> 2)
    bare = _IP.pack(vihl, tos, tot_len, id, frag_off, ttl, protocol, 0, saddr, daddr)
    check = ip_fast_csum(bare + options)
    return _IP.pack(vihl, tos, tot_len, id, frag_off, ttl, protocol, check, saddr, daddr) + options


def ip_fast_csum_ok(buf: Buffer, offset: int, ihl: int) -> bool:
    """Is the checksum of the header at `offset`, of `ihl` bytes, right?"""
    return not int.from_bytes(buf[offset : offset + ihl], "big") % 0xFFFF


def is_fragment(hdr: IpHdr) -> bool:
    """`ip_is_fragment`"""
    return bool(hdr.frag_off & (IP_MF | IP_OFFSET))


# ---- addresses ---------------------------------------------------------------------------


def ipv4_is_multicast(addr: Buffer) -> bool:
    """`ipv4_is_multicast`: one of class D, 224.0.0.0/4 (RFC 5771)."""
    return addr[0] & 0xF0 == 0xE0


def is_loopback(addr: bytes) -> bool:
    """`ipv4_is_loopback`: 127.0.0.0/8"""
    return addr[0] == 127


def is_zeronet(addr: bytes) -> bool:
    """`ipv4_is_zeronet`: 0.0.0.0/8"""
    return addr[0] == 0


def is_lbcast(addr: bytes) -> bool:
    """`ipv4_is_lbcast`: 255.255.255.255"""
    return addr == b"\xff\xff\xff\xff"


# ---- options -----------------------------------------------------------------------------


class IpOption(NamedTuple):
    """One option. offset: of its type byte in the options; data: all its bytes."""

    type: int
    offset: int
    data: bytes

    @property
    def pointer(self) -> int:
        """RR, source routes, timestamp: where the next entry goes, 1 is the type byte."""
        return self.data[2]


class IpOptions(NamedTuple):
    """`struct ip_options`: the options that Linux acts on."""

    rr: IpOption | None
    ts: IpOption | None
    srr: IpOption | None
    """Loose or strict source route."""
    router_alert: bool

    @property
    def is_strictroute(self) -> bool:
        """The source route is strict."""
        return self.srr is not None and self.srr.type == IPOPT_SSRR


NO_OPTIONS: Final = IpOptions(None, None, None, False)


def _walk(options: bytes) -> Iterator[tuple[int, int, int]]:
    """(type, offset, length) of each option but NOOP, up to END."""
    at = 0
    end = len(options)
    while at < end:
        type_ = options[at]
        if type_ == IPOPT_END:
            break
        if type_ == IPOPT_NOOP:
            at += 1
            continue
        if at + 1 >= end or options[at + 1] < 2 or at + options[at + 1] > end:
            raise HeaderError(f"IP option {type_} has no good length", "IP_INHDR", IP_HLEN + at)
        yield type_, at, options[at + 1]
        at += options[at + 1]


def _check_slots(opt: IpOption, first: int, entry: int) -> None:
    """Is the pointer of a route or timestamp sane, and is there room for whole entries?"""
    length = len(opt.data)
    at = IP_HLEN + opt.offset
    if length < first - 1:
        raise HeaderError(f"IP option {opt.type} of {length} bytes is short", "IP_INHDR", at + 1)
    pointer = opt.data[2]
    if pointer < first or (pointer <= length and pointer + entry - 1 > length):
        raise HeaderError(f"IP option {opt.type} has pointer {pointer}", "IP_INHDR", at + 2)


def parse_options(options: bytes, *, received: bool = False) -> IpOptions:
    """`ip_options_compile`: check the options and find those that are acted on. received: the
    options came with a packet, where an unknown kind of timestamps passes.

    The HeaderError's pointer is for an ICMP parameter problem.
    """
    if not options:
        return NO_OPTIONS
    rr: IpOption | None = None
    ts: IpOption | None = None
    srr: IpOption | None = None
    router_alert = False
    for type_, at, length in _walk(options):
        opt = IpOption(type_, at, options[at : at + length])
        twice = False
        if type_ in (IPOPT_LSRR, IPOPT_SSRR):
            twice, srr = srr is not None, opt
            _check_slots(opt, 4, 4)
        elif type_ == IPOPT_RR:
            twice, rr = rr is not None, opt
            _check_slots(opt, 4, 4)
        elif type_ == IPOPT_TIMESTAMP:
            twice, ts = ts is not None, opt
            _check_timestamp(opt, received)
        elif type_ == IPOPT_RA:
            if length < 4:
                raise HeaderError("router alert is short", "IP_INHDR", IP_HLEN + at + 1)
            router_alert = router_alert or options[at + 2 : at + 4] == b"\0\0"
        if twice:
            raise HeaderError(f"IP option {type_} is there twice", "IP_INHDR", IP_HLEN + at)
    return IpOptions(rr, ts, srr, router_alert)


def _check_timestamp(opt: IpOption, received: bool) -> None:
    at = IP_HLEN + opt.offset
    if len(opt.data) < 4:
        raise HeaderError("IP timestamp option is short", "IP_INHDR", at + 1)
    flag = opt.data[3] & 0xF
    known = flag in IPOPT_TS_KINDS
    if not known and not received:
        raise HeaderError(f"IP timestamp option has flag {flag}", "IP_INHDR", at + 3)
    _check_slots(opt, 5, 8 if known and flag != IPOPT_TS_TSONLY else 4)
    full = opt.data[2] > len(opt.data) and flag != IPOPT_TS_PRESPEC
    if full and opt.data[3] >> 4 == 15:
        raise HeaderError("IP timestamp option's overflow is full", "IP_INHDR", at + 3)


def fragment_options(options: bytes) -> bytes:
    """`ip_options_fragment`: the options of every fragment but the first: those without the
    copy bit become no-ops (RFC 791 3.1). Same length. HeaderError as `parse_options`."""
    out = bytearray(options)
    for type_, at, length in _walk(options):
        if not type_ & IPOPT_COPY:
            out[at : at + length] = bytes([IPOPT_NOOP]) * length
    return bytes(out)
