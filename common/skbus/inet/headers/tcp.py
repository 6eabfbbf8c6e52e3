# SPDX-License-Identifier: MIT
"""TCP header and options (`include/uapi/linux/tcp.h`, the option code of `tcp_input.c` and
`tcp_output.c`); used by tcp, and by nic for GRO and GSO.

RFC 9293 3.1 and 3.2; RFC 7323 (timestamps, window scale), 2018 (SACK), 7413 (Fast Open), 2385
(MD5), 5925 (AO), 9768 (AE, which was the NS bit).
"""

import struct
from typing import Final, NamedTuple

from skbus.core.compiled import field_names
from skbus.inet.headers import Buffer, HeaderError

TCP_HLEN: Final = 20
"""Without options."""
MAX_TCP_OPTION_SPACE: Final = 40
CSUM_OFFSET: Final = 16
"""Where the checksum lies in the header: `skb.csum_offset`."""

TCPHDR_FIN: Final = 0x01
TCPHDR_SYN: Final = 0x02
TCPHDR_RST: Final = 0x04
TCPHDR_PSH: Final = 0x08
TCPHDR_ACK: Final = 0x10
TCPHDR_URG: Final = 0x20
TCPHDR_ECE: Final = 0x40
TCPHDR_CWR: Final = 0x80
TCPHDR_AE: Final = 0x100

TCPOPT_EOL: Final = 0
TCPOPT_NOP: Final = 1
TCPOPT_MSS: Final = 2
TCPOPT_WINDOW: Final = 3
TCPOPT_SACK_PERM: Final = 4
TCPOPT_SACK: Final = 5
TCPOPT_TIMESTAMP: Final = 8
TCPOPT_MD5SIG: Final = 19
TCPOPT_AO: Final = 29
TCPOPT_FASTOPEN: Final = 34
TCPOPT_ACCECN0: Final = 172
TCPOPT_ACCECN1: Final = 174
TCPOPT_EXP: Final = 254
TCPOPT_FASTOPEN_MAGIC: Final = 0xF989

TCPOLEN_TSTAMP_ALIGNED: Final = 12
TCPOLEN_SACK_BASE_ALIGNED: Final = 4
TCPOLEN_SACK_PERBLOCK: Final = 8
TCPOLEN_ACCECN_BASE: Final = 2
TCPOLEN_ACCECN_PERFIELD: Final = 3
TCP_ACCECN_NUMFIELDS: Final = 3
TCP_MAX_WSCALE: Final = 14
TCP_FASTOPEN_COOKIE_MIN: Final = 4
TCP_FASTOPEN_COOKIE_MAX: Final = 16

_TCP: Final = struct.Struct("!HHIIHHHH")
_U16: Final = struct.Struct("!H")
_TS: Final = struct.Struct("!II")
_ALIGNED_TS: Final = struct.Struct("!III")
_new: Final = tuple.__new__
"""Makes a NamedTuple in half the time, without the `__new__` that Python writes for it."""
ALIGNED_TS_WORD: Final = 0x0101080A
"""NOP NOP TIMESTAMP 10: the four bytes in front of tsval and tsecr."""


class TcpHdr(NamedTuple):
    """`struct tcphdr`; doff in bytes, flags TCPHDR_FIN to TCPHDR_AE. The options lie behind the
    first 20 bytes: `parse_options(buf[offset + 20 : offset + doff], ...)`."""

    source: int
    dest: int
    seq: int
    ack_seq: int
    doff: int
    flags: int
    window: int
    check: int
    urg_ptr: int


def parse(buf: Buffer, offset: int = 0) -> TcpHdr:
    """The TCP header at `offset`; HeaderError unless it is all there, options included."""
    have = len(buf) - offset
    if offset < 0 or have < TCP_HLEN:
        raise HeaderError(f"TCP header needs {TCP_HLEN} bytes, there are {have}", "PKT_TOO_SMALL")
    source, dest, seq, ack_seq, word, window, check, urg_ptr = _TCP.unpack_from(buf, offset)
    doff = (word >> 12) << 2
    if doff < TCP_HLEN:
        raise HeaderError(f"TCP header length {doff} is below {TCP_HLEN}", "PKT_TOO_SMALL")
    if have < doff:
        raise HeaderError(f"TCP header needs {doff} bytes, there are {have}", "PKT_TOO_SMALL")
    fields = (source, dest, seq, ack_seq, doff, word & 0x1FF, window, check, urg_ptr)
    return _new(TcpHdr, fields)


def build(
    source: int,
    dest: int,
    seq: int,
    ack_seq: int,
    flags: int,
    window: int,
    options: bytes = b"",
    urg_ptr: int = 0,
    check: int = 0,
) -> bytes:
    """A TCP header; options must be a multiple of 4 bytes, as `build_options` gives them."""
    word = ((TCP_HLEN + len(options)) << 10) | flags
    return _TCP.pack(source, dest, seq, ack_seq, word, window, check, urg_ptr) + options


class TcpOptions:
    """A segment's options (`struct tcp_options_received`). None or False: not there."""

    __slots__ = (
        "accecn",
        "ao",
        "fastopen",
        "fastopen_exp",
        "md5",
        "mss",
        "sack_ok",
        "sacks",
        "saw_tstamp",
        "tsecr",
        "tsval",
        "wscale",
    )

    def __init__(
        self,
        *,
        mss: int = 0,
        wscale: int | None = None,
        sack_ok: bool = False,
        saw_tstamp: bool = False,
        tsval: int = 0,
        tsecr: int = 0,
        sacks: tuple[tuple[int, int], ...] = (),
        fastopen: bytes | None = None,
        fastopen_exp: bool = False,
        md5: bool = False,
        ao: bool = False,
        accecn: tuple[int, ...] | None = None,
    ) -> None:
        self.mss = mss
        """0: none was given."""
        self.wscale = wscale
        self.sack_ok = sack_ok
        self.saw_tstamp = saw_tstamp
        self.tsval = tsval
        self.tsecr = tsecr
        self.sacks = sacks
        """(start, end) of each block, end exclusive, in the order of the wire."""
        self.fastopen = fastopen
        """b"" asks for a cookie."""
        self.fastopen_exp = fastopen_exp
        """The cookie came, or goes, in the experimental option (RFC 6994)."""
        self.md5 = md5
        self.ao = ao
        self.accecn = accecn
        """TCPOPT_ACCECN0 or 1, and up to three counters of 24 bits in the order of the wire."""

    def _values(self) -> tuple[object, ...]:
        return tuple([getattr(self, name) for name in _OPTION_FIELDS])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TcpOptions) and self._values() == other._values()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = [f"{n}={v!r}" for n, v in zip(_OPTION_FIELDS, self._values(), strict=True) if v]
        return f"TcpOptions({', '.join(shown)})"


_OPTION_FIELDS: Final = field_names(TcpOptions)


def parse_options(raw: Buffer, syn: bool) -> TcpOptions:
    """`tcp_parse_options`: never fails. Stops at END and at an impossible length. Ignores options
    of a wrong size, and a SYN's options in other segments (RFC 9293 MUST-7)."""
    opt = TcpOptions()
    at = 0
    end = len(raw)
    while at < end:
        kind = raw[at]
        if kind == TCPOPT_NOP:
            at += 1
            continue
        if kind == TCPOPT_EOL or at + 1 >= end:
            break
        size = raw[at + 1]
        if size < 2 or at + size > end:
            break
        if kind == TCPOPT_TIMESTAMP:
            if size == 10:
                opt.saw_tstamp = True
                opt.tsval, opt.tsecr = _TS.unpack_from(raw, at + 2)
        elif kind == TCPOPT_SACK:
            if size >= 10 and not (size - 2) % 8:
                opt.sacks = tuple(
                    [_TS.unpack_from(raw, i) for i in range(at + 2, at + size, 8)],
                )
        elif kind == TCPOPT_MD5SIG:
            opt.md5 = opt.md5 or size == 18
        elif kind == TCPOPT_AO:
            opt.ao = opt.ao or size >= 4
        elif kind in (TCPOPT_ACCECN0, TCPOPT_ACCECN1):
            opt.accecn = _parse_accecn(kind, bytes(raw[at + 2 : at + size]))
        elif syn:
            _parse_syn_option(opt, kind, bytes(raw[at + 2 : at + size]))
        at += size
    return opt


def _parse_syn_option(opt: TcpOptions, kind: int, body: bytes) -> None:
    """The options that only count in a SYN."""
    if kind == TCPOPT_MSS:
        if len(body) == 2:
            opt.mss = body[0] << 8 | body[1]
    elif kind == TCPOPT_WINDOW:
        if len(body) == 1:
            opt.wscale = min(body[0], TCP_MAX_WSCALE)  # RFC 7323 2.3
    elif kind == TCPOPT_SACK_PERM:
        opt.sack_ok = opt.sack_ok or not body
    elif kind == TCPOPT_FASTOPEN:
        _parse_fastopen(opt, body, exp=False)
    elif kind == TCPOPT_EXP and body[:2] == b"\xf9\x89":
        _parse_fastopen(opt, body[2:], exp=True)


def _parse_accecn(kind: int, body: bytes) -> tuple[int, ...]:
    """RFC 9768 3.2.3: the whole fields, three at most; the rest is padding."""
    return (
        kind,
        *[int.from_bytes(body[i : i + 3], "big") for i in range(0, min(len(body), 9) - 2, 3)],
    )


def _parse_fastopen(opt: TcpOptions, cookie: bytes, *, exp: bool) -> None:
    """RFC 7413 4.1.1: empty to ask, else an even number of 4 to 16 bytes."""
    n = len(cookie)
    if n & 1 or (n and not TCP_FASTOPEN_COOKIE_MIN <= n <= TCP_FASTOPEN_COOKIE_MAX):
        return
    opt.fastopen = cookie
    opt.fastopen_exp = exp


def build_options(opt: TcpOptions) -> bytes:
    """The options as Linux lays them out (`tcp_options_write`), a multiple of 4 bytes.

    In a SYN: MSS; SACK-permitted and timestamps in one aligned 12 bytes; NOP and window scale;
    Accurate ECN; Fast Open. On a connection: NOP NOP timestamps; NOP NOP SACK; Accurate ECN.
    ValueError above 40 bytes.
    """
    parts: list[bytes] = []
    if opt.mss:
        parts.append(b"\x02\x04" + _U16.pack(opt.mss))
    if opt.saw_tstamp:
        parts.append(b"\x04\x02\x08\x0a" if opt.sack_ok else b"\x01\x01\x08\x0a")
        parts.append(_TS.pack(opt.tsval, opt.tsecr))
    elif opt.sack_ok:
        parts.append(b"\x01\x01\x04\x02")
    if opt.wscale is not None:
        parts.append(b"\x01\x03\x03" + bytes([opt.wscale]))
    if opt.sacks:
        parts.append(bytes([TCPOPT_NOP, TCPOPT_NOP, TCPOPT_SACK, 2 + 8 * len(opt.sacks)]))
        parts += [_TS.pack(start, end) for start, end in opt.sacks]
    if opt.accecn is not None:
        parts.append(build_accecn(opt.accecn[0], opt.accecn[1:]))
    if opt.fastopen is not None:
        parts.append(_build_fastopen(opt.fastopen, opt.fastopen_exp))
    out = b"".join(parts)
    if len(out) > MAX_TCP_OPTION_SPACE:
        raise ValueError(f"{len(out)} bytes of TCP options, at most {MAX_TCP_OPTION_SPACE}")
    return out


def build_accecn(kind: int, counters: tuple[int, ...]) -> bytes:
    """An Accurate ECN option (RFC 9768 3.2.3) with up to three counters, padded to 4 bytes."""
    size = TCPOLEN_ACCECN_BASE + TCPOLEN_ACCECN_PERFIELD * len(counters)
    out = bytes([kind, size]) + b"".join([(n & 0xFFFFFF).to_bytes(3, "big") for n in counters])
    return out + bytes([TCPOPT_NOP]) * (-size & 3)


def _build_fastopen(cookie: bytes, exp: bool) -> bytes:
    if exp:
        out = bytes([TCPOPT_EXP, 4 + len(cookie)]) + _U16.pack(TCPOPT_FASTOPEN_MAGIC) + cookie
    else:
        out = bytes([TCPOPT_FASTOPEN, 2 + len(cookie)]) + cookie
    return out + bytes([TCPOPT_NOP]) * (-len(out) & 3)


def parse_aligned_timestamp(buf: Buffer, offset: int) -> tuple[int, int] | None:
    """`tcp_parse_aligned_timestamp`: (tsval, tsecr) where the options at `offset` begin with NOP
    NOP TIMESTAMP, as in every data segment of Linux; else None."""
    if len(buf) < offset + TCPOLEN_TSTAMP_ALIGNED:
        return None
    word, tsval, tsecr = _ALIGNED_TS.unpack_from(buf, offset)
    return (tsval, tsecr) if word == ALIGNED_TS_WORD else None


def build_aligned_timestamp(tsval: int, tsecr: int) -> bytes:
    """NOP NOP TIMESTAMP: the options of an established connection's ordinary segment."""
    return _ALIGNED_TS.pack(ALIGNED_TS_WORD, tsval, tsecr)


def build_aligned_sack(blocks: tuple[tuple[int, int], ...]) -> bytes:
    """NOP NOP SACK: blocks of [start, end), up to four, three next to a timestamp (RFC 2018 3)."""
    pairs = b"".join([struct.pack("!II", *block) for block in blocks])
    return bytes((1, 1, TCPOPT_SACK, 2 + len(pairs))) + pairs
