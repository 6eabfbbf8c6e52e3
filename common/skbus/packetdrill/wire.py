# SPDX-License-Identifier: MIT
"""Packets as bytes: built from a script's, taken apart for comparison, and shown as a script
would write them."""

import struct
from dataclasses import dataclass
from typing import Final

from skbus.inet.headers import ipv4
from skbus.packetdrill.packet_parser import (
    ICMP_TYPES,
    TCPOPT_ACCECN0,
    TCPOPT_ACCECN1,
    TCPOPT_EOL,
    TCPOPT_EXP,
    TCPOPT_FASTOPEN,
    TCPOPT_MD5SIG,
    TCPOPT_MSS,
    TCPOPT_NOP,
    TCPOPT_SACK,
    TCPOPT_SACK_PERM,
    TCPOPT_TIMESTAMP,
    TCPOPT_WINDOW,
)
from skbus.packetdrill.script import IcmpPacket, Packet, TcpOption, TcpPacket, UdpPacket

IPPROTO_ICMP: Final = 1
IPPROTO_TCP: Final = 6
IPPROTO_UDP: Final = 17
_IP: Final = struct.Struct(">BBHHHBBH4s4s")
_TCP: Final = struct.Struct(">HHIIBBHHH")
_FLAG_BITS: Final = {"F": 1, "S": 2, "R": 4, "P": 8, ".": 16, "U": 32, "E": 64, "W": 128}
FLAG_AE: Final = 1
"""Accurate ECN's AE, the lowest bit beside the data offset (RFC 9768)."""
_ICMP_NAMES: Final = {v: k for k, v in ICMP_TYPES.items()}
_ICMP_ERRORS: Final = frozenset({3, 4, 5, 11, 12})
"""RFC 1122 3.2.2: those that quote a packet"""
_ECN_NAMES: Final = ("noecn", "ect1", "ect0", "ce")

Endpoint = tuple[bytes, int]
"""(address of 4 bytes, port)"""


@dataclass(slots=True)
class Quoted:
    """The beginning of a packet that an ICMP error quotes. length: of its payload, as its headers
    have it."""

    protocol: int
    length: int
    seq: int = 0
    flags: int = 0


@dataclass(slots=True)
class Seen:
    """An IPv4 packet taken apart. TCP fields are 0 where it is none."""

    protocol: int
    source: Endpoint
    dest: Endpoint
    tos: int
    ttl: int
    ihl: int
    payload: bytes
    flags: int = 0
    ae: int = 0
    seq: int = 0
    ack: int = 0
    window: int = 0
    urgent: int = 0
    options: tuple[TcpOption, ...] = ()
    icmp_type: int = 0
    icmp_code: int = 0
    icmp_id: int = 0
    icmp_mtu: int = 0
    quoted: Quoted | None = None
    ip_csum_ok: bool = True
    csum_ok: bool = True


# ---- building --------------------------------------------------------------------------


def csum(data: bytes) -> int:
    """The Internet checksum of RFC 1071."""
    if len(data) & 1:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def build_ip(
    source: bytes, dest: bytes, protocol: int, payload: bytes, tos: int = 0, ttl: int = 255
) -> bytes:
    """An IPv4 packet without options."""
    head = _IP.pack(0x45, tos, 20 + len(payload), 0, 0, ttl, protocol, 0, source, dest)
    return head[:10] + csum(head).to_bytes(2, "big") + head[12:] + payload


def dont_fragment(packet: bytes) -> bytes:
    """A packet of `build_ip` with DF, as senders that discover the path's MTU set it. GRO joins
    packets with an identification that does not count only where they have DF (RFC 6864 4.1)."""
    head = packet[:6] + b"\x40" + packet[7:10] + b"\0\0" + packet[12:20]
    return head[:10] + csum(head).to_bytes(2, "big") + head[12:] + packet[20:]


def _pseudo(source: bytes, dest: bytes, protocol: int, length: int) -> bytes:
    return source + dest + struct.pack(">BBH", 0, protocol, length)


def build_options(options: tuple[TcpOption, ...]) -> bytes:
    """TCP options in the order given; nothing is padded."""
    out = b""
    for option in options:
        if option.kind in (TCPOPT_NOP, TCPOPT_EOL):
            out += bytes([option.kind])
            continue
        body = option.body + b"".join(n.to_bytes(4, "big") for n in option.numbers)
        out += bytes([option.kind, 2 + len(body)]) + body
    return out


def build_tcp(
    packet: TcpPacket,
    source: Endpoint,
    dest: Endpoint,
    seq: int,
    ack: int,
    options: tuple[TcpOption, ...],
    payload: bytes,
) -> bytes:
    """A segment: what the script says, with addresses and numbers of the wire."""
    flags, ae = flag_bits(packet)
    opts = build_options(options)
    head = _TCP.pack(
        source[1],
        dest[1],
        seq & 0xFFFFFFFF,
        ack & 0xFFFFFFFF,
        (20 + len(opts)) << 2 | ae,
        flags,
        packet.window or 0,
        0,
        packet.urgent,
    )
    segment = head + opts + payload
    check = csum(_pseudo(source[0], dest[0], IPPROTO_TCP, len(segment)) + segment)
    segment = segment[:16] + check.to_bytes(2, "big") + segment[18:]
    return _ip(packet, source, dest, IPPROTO_TCP, segment)


def flag_bits(packet: TcpPacket) -> tuple[int, int]:
    """(the eight flags, AE)"""
    flags = sum(_FLAG_BITS[c] for c in packet.flags if c in _FLAG_BITS)
    ae = FLAG_AE if "A" in packet.flags else 0
    if packet.ace is not None:
        flags |= (packet.ace & 1) << 6 | (packet.ace & 2) << 6
        ae = packet.ace >> 2
    return flags, ae


def echo_request(payload: bytes) -> bytes:
    """An ICMP echo request, its identifier and number 0."""
    check = csum(b"\x08" + bytes(7) + payload)
    return b"\x08\x00" + check.to_bytes(2, "big") + bytes(4) + payload


def udp_header(source: int, dest: int, length: int) -> bytes:
    """A UDP header without a checksum."""
    return struct.pack(">HHHH", source, dest, length, 0)


def build_udp(packet: UdpPacket, source: Endpoint, dest: Endpoint, payload: bytes) -> bytes:
    """A datagram."""
    head = struct.pack(">HHHH", source[1], dest[1], 8 + len(payload), 0)
    check = csum(_pseudo(source[0], dest[0], IPPROTO_UDP, 8 + len(payload)) + head + payload)
    head = head[:6] + (check or 0xFFFF).to_bytes(2, "big")
    return _ip(packet, source, dest, IPPROTO_UDP, head + payload)


def build_icmp(packet: IcmpPacket, source: Endpoint, dest: Endpoint, echoed: bytes) -> bytes:
    """An ICMP message: from the remote host, about the packet whose beginning is `echoed`."""
    rest = bytes(4)
    if packet.mtu is not None:
        rest = struct.pack(">HH", 0, packet.mtu)
    elif packet.echo_id is not None:
        rest = struct.pack(">HH", packet.echo_id, 0)
    body = bytes([packet.type, packet.code, 0, 0]) + rest + echoed
    body = body[:2] + csum(body).to_bytes(2, "big") + body[4:]
    return _ip(packet, source, dest, IPPROTO_ICMP, body)


def build_echoed(source: Endpoint, dest: Endpoint, protocol: int, seq: int, length: int) -> bytes:
    """The beginning of a packet that went from `source` to `dest`: IP header and 8 bytes."""
    if protocol == IPPROTO_TCP:
        inner = struct.pack(">HHI", source[1], dest[1], seq & 0xFFFFFFFF)
        total = 40 + length
    else:
        inner = struct.pack(">HHHH", source[1], dest[1], 8 + length, 0)
        total = 28 + length
    head = _IP.pack(0x45, 0, total, 0, 0x4000, 64, protocol, 0, source[0], dest[0])
    return head[:10] + csum(head).to_bytes(2, "big") + head[12:] + inner


def _ip(packet: Packet, source: Endpoint, dest: Endpoint, protocol: int, payload: bytes) -> bytes:
    tos = packet.ip.tos if packet.ip.tos is not None else packet.ip.ecn or 0
    ttl = packet.ip.ttl if packet.ip.ttl is not None else 255
    return build_ip(source[0], dest[0], protocol, payload, tos, ttl)


# ---- taking apart ----------------------------------------------------------------------


def parse(data: bytes) -> Seen | None:
    """An IPv4 packet of TCP, UDP or ICMP; None for any other, and for what is cut short."""
    if len(data) < 20 or data[0] >> 4 != 4:
        return None
    ihl = (data[0] & 15) * 4
    total = int.from_bytes(data[2:4], "big")
    if ihl < 20 or total > len(data) or total < ihl + 8:
        return None
    protocol = data[9]
    body = data[ihl:total]
    seen = Seen(
        protocol,
        (data[12:16], int.from_bytes(body[:2], "big")),
        (data[16:20], int.from_bytes(body[2:4], "big")),
        data[1],
        data[8],
        ihl,
        body[8:],
        ip_csum_ok=ipv4.ip_fast_csum_ok(data, 0, ihl),
    )
    if protocol == IPPROTO_TCP and len(body) >= 20:
        return _parse_tcp(seen, body)
    if protocol == IPPROTO_ICMP:
        seen.icmp_type, seen.icmp_code = body[0], body[1]
        seen.icmp_id = int.from_bytes(body[4:6], "big")
        seen.icmp_mtu = int.from_bytes(body[6:8], "big")
        if seen.icmp_type in _ICMP_ERRORS:
            seen.quoted = _quoted(body[8:])
        seen.csum_ok = csum(body) == 0
        seen.source, seen.dest = (data[12:16], 0), (data[16:20], 0)
        return seen
    return seen if protocol == IPPROTO_UDP else None


def _quoted(data: bytes) -> Quoted | None:
    """What an error quotes; None where it is too little to say (RFC 792: header and 8 bytes)."""
    ihl = (data[0] & 15) * 4 if data else 0
    if ihl < 20 or len(data) < ihl + 8:
        return None
    total, protocol, body = int.from_bytes(data[2:4], "big"), data[9], data[ihl:]
    if protocol != IPPROTO_TCP:
        return Quoted(protocol, total - ihl - 8)
    offset = body[12] >> 4 << 2 if len(body) > 12 else 20
    flags = body[13] if len(body) > 13 else 0
    return Quoted(protocol, total - ihl - offset, int.from_bytes(body[4:8], "big"), flags)


def _parse_tcp(seen: Seen, body: bytes) -> Seen | None:
    _, _, seen.seq, seen.ack, offset, seen.flags, seen.window, _, seen.urgent = _TCP.unpack_from(
        body
    )
    seen.ae = offset & 1
    size = offset >> 4 << 2
    if size < 20 or size > len(body):
        return None
    seen.options = parse_options(body[20:size])
    pseudo = _pseudo(seen.source[0], seen.dest[0], IPPROTO_TCP, len(body))
    seen.csum_ok = csum(pseudo + body) == 0
    seen.payload = body[size:]
    return seen


def parse_options(data: bytes) -> tuple[TcpOption, ...]:
    """All TCP options, also NOP and EOL; what is malformed ends them."""
    out = []
    at = 0
    while at < len(data):
        kind = data[at]
        if kind in (TCPOPT_NOP, TCPOPT_EOL):
            out.append(TcpOption(kind))
            at += 1
            continue
        size = data[at + 1] if at + 1 < len(data) else 0
        if size < 2 or at + size > len(data):
            break
        body = data[at + 2 : at + size]
        if kind == TCPOPT_SACK or (kind == TCPOPT_TIMESTAMP and size == 10):
            numbers = struct.unpack(f">{len(body) // 4}I", body[: len(body) // 4 * 4])
            out.append(TcpOption(kind, b"", numbers))
        else:
            out.append(TcpOption(kind, body))
        at += size
    return tuple(out)


# ---- showing ---------------------------------------------------------------------------


def show_flags(flags: int, ae: int = 0) -> str:
    """As a script writes them; `-` for none."""
    text = "".join(c for c in "FSRPUEW" if flags & _FLAG_BITS[c]) + "A" * ae
    return text + "." * bool(flags & 16) or "-"


def show_options(options: tuple[TcpOption, ...] | None) -> str:
    """`<mss 1460,nop,wscale 7>`, or nothing."""
    if options is None:
        return " <...>"
    return " <" + ",".join(map(show_option, options)) + ">" if options else ""


def show_option(option: TcpOption) -> str:
    """One option as a script writes it."""
    kind, body, numbers = option
    if kind == TCPOPT_MSS and len(body) == 2:
        return f"mss {int.from_bytes(body, 'big')}"
    if kind == TCPOPT_WINDOW and body:
        return f"wscale {body[0]}"
    if kind == TCPOPT_SACK:
        pairs = zip(numbers[::2], numbers[1::2], strict=False)
        return "sack " + " ".join(f"{a}:{b}" for a, b in pairs)
    if kind == TCPOPT_TIMESTAMP and len(numbers) == 2:
        return f"TS val {numbers[0]} ecr {numbers[1]}"
    if kind == TCPOPT_EXP and body[:2] == b"\xf9\x89":
        return f"FOEXP {body[2:].hex()}".rstrip()
    if kind in (TCPOPT_ACCECN0, TCPOPT_ACCECN1):
        names = ("e0b", "ceb", "e1b") if kind == TCPOPT_ACCECN0 else ("e1b", "ceb", "e0b")
        counts = (int.from_bytes(body[i : i + 3], "big") for i in range(0, len(body), 3))
        return "ECN " + " ".join(f"{n} {c}" for n, c in zip(names, counts, strict=False))
    names_of = {
        TCPOPT_NOP: "nop",
        TCPOPT_EOL: "eol",
        TCPOPT_SACK_PERM: "sackOK",
        TCPOPT_MD5SIG: "md5",
        TCPOPT_FASTOPEN: "FO",
    }
    return f"{names_of.get(kind, f'kind {kind}')} {body.hex()}".rstrip()


def show_script(packet: Packet) -> str:
    """A script's packet."""
    arrow = "<" if packet.inbound else ">"
    marks = []
    if packet.ip.ecn is not None:
        marks.append(_ECN_NAMES[packet.ip.ecn])
    if packet.ip.ect01:
        marks.append("ect01")
    if packet.ip.tos is not None:
        marks.append(f"tos {packet.ip.tos:#x}")
    if packet.ip.ttl is not None:
        marks.append(f"ttl {packet.ip.ttl}")
    if marks:
        arrow += f" [{', '.join(marks)}]"
    if isinstance(packet, UdpPacket):
        return f"{arrow} udp ({packet.length})"
    if isinstance(packet, IcmpPacket):
        name = _ICMP_NAMES.get(packet.type, f"type_{packet.type}")
        return f"{arrow} icmp {name} code_{packet.code}"
    flags = packet.flags or "-"
    if packet.ace is not None:
        flags = flags.replace(".", "") + f".{packet.ace}"
    return f"{arrow} {flags} " + _show_numbers(
        packet.seq,
        packet.length,
        packet.ack if "." in packet.flags or packet.ack else None,
        packet.window,
        packet.urgent,
        packet.options,
    )


def show_seen(seen: Seen, *, inbound: bool = False, window: bool = True, ecn: bool = False) -> str:
    """A packet from the wire, its numbers those of the script. window: show the window."""
    arrow = "<" if inbound else ">"
    if ecn:
        arrow += f" [{_ECN_NAMES[seen.tos & 3]}]"
    if seen.protocol == IPPROTO_UDP:
        return f"{arrow} udp ({len(seen.payload)})"
    if seen.protocol == IPPROTO_ICMP:
        return f"{arrow} icmp {icmp_name(seen.icmp_type)} code_{seen.icmp_code}"
    return f"{arrow} {show_flags(seen.flags, seen.ae)} " + _show_numbers(
        seen.seq,
        len(seen.payload),
        seen.ack if seen.flags & 16 or seen.ack else None,
        seen.window if window else None,
        seen.urgent,
        seen.options,
    )


def icmp_name(kind: int) -> str:
    """The name of an ICMP type."""
    return _ICMP_NAMES.get(kind, f"type_{kind}")


def _show_numbers(
    seq: int,
    length: int,
    ack: int | None,
    window: int | None,
    urgent: int,
    options: tuple[TcpOption, ...] | None,
) -> str:
    text = f"{seq}:{seq + length}({length})"
    if ack is not None:
        text += f" ack {ack}"
    if window is not None:
        text += f" win {window}"
    if urgent:
        text += f" urg {urgent}"
    return text + show_options(options)


__all__ = ["Endpoint", "Seen", "build_icmp", "build_tcp", "build_udp", "parse"]
