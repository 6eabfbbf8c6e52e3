# SPDX-License-Identifier: MIT
"""What the stack sent, held against what the script expects."""

from collections.abc import Iterator
from typing import Final

from skbus.packetdrill.packet_parser import TCPOPT_TIMESTAMP
from skbus.packetdrill.script import (
    IcmpPacket,
    Packet,
    Ports,
    TcpOption,
    TcpPacket,
    UdpPacket,
)
from skbus.packetdrill.wire import (
    IPPROTO_ICMP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    Seen,
    flag_bits,
    icmp_name,
    show_flags,
    show_option,
    show_options,
)

PSH_FIN_CWR: Final = 8 | 1 | 128
_ECE_CWR: Final = 64 | 128
_PROTOCOLS: Final = {IPPROTO_ICMP: "ICMP", IPPROTO_TCP: "TCP", IPPROTO_UDP: "UDP"}


def differences(wanted: Packet, seen: Seen, ts_tolerance: int | None) -> Iterator[str]:
    """Each way in which a packet is not what the script says.

    ts_tolerance: by how many ticks a timestamp may be off; None: timestamps do not count.
    """
    if not seen.ip_csum_ok:
        yield "the IP header's checksum is wrong"
    if not seen.csum_ok:
        yield f"the {_PROTOCOLS[seen.protocol]} checksum is wrong"
    yield from _ip_differences(wanted, seen)
    if isinstance(wanted, TcpPacket):
        if seen.protocol != IPPROTO_TCP:
            yield f"expected TCP, seen {_PROTOCOLS[seen.protocol]}"
            return
        yield from _tcp_differences(wanted, seen)
        yield from option_differences(wanted.options, seen.options, ts_tolerance)
    elif isinstance(wanted, UdpPacket):
        yield from _port_differences(wanted.ports, seen)
        yield from _number("UDP payload length", wanted.length, len(seen.payload))
    elif isinstance(wanted, IcmpPacket):
        yield from _icmp_differences(wanted, seen)


def _icmp_differences(wanted: IcmpPacket, seen: Seen) -> Iterator[str]:
    if wanted.type != seen.icmp_type:
        yield f"ICMP type: expected {icmp_name(wanted.type)}, seen {icmp_name(seen.icmp_type)}"
    yield from _number("ICMP code", wanted.code, seen.icmp_code)
    if wanted.mtu is not None:
        yield from _number("ICMP MTU", wanted.mtu, seen.icmp_mtu)
    if wanted.echo_id is not None:
        yield from _number("ICMP echo id", wanted.echo_id, seen.icmp_id)
    echoed = wanted.echoed
    if echoed.protocol == "raw":
        yield from _number("ICMP length", echoed.length, 8 + len(seen.payload))
    elif echoed.protocol:
        protocol = IPPROTO_UDP if echoed.protocol == "udp" else IPPROTO_TCP
        quoted = seen.quoted
        if quoted is None or quoted.protocol != protocol:
            name = _PROTOCOLS.get(quoted.protocol, "another protocol") if quoted else "nothing"
            yield f"ICMP quotes: expected {_PROTOCOLS[protocol]}, seen {name}"
            return
        yield from _number("quoted payload length", echoed.length, quoted.length)
        if protocol == IPPROTO_TCP:
            yield from _number("quoted sequence number", echoed.seq, quoted.seq)


def _port_differences(wanted: Ports | None, seen: Seen) -> Iterator[str]:
    if wanted is not None:
        yield from _number("source port", wanted.source or seen.source[1], seen.source[1])
        yield from _number("destination port", wanted.dest or seen.dest[1], seen.dest[1])


def _number(name: str, wanted: int, seen: int) -> Iterator[str]:
    if wanted != seen:
        yield f"{name}: expected {wanted}, seen {seen}"


def _ip_differences(wanted: Packet, seen: Seen) -> Iterator[str]:
    ip = wanted.ip
    if ip.ecn is not None:
        yield from _number("ECN field", ip.ecn, seen.tos & 3)
    if ip.ect01 and seen.tos & 3 not in (1, 2):
        yield f"ECN field: expected ect0 or ect1, seen {seen.tos & 3}"
    if ip.tos is not None:
        yield from _number("TOS", ip.tos, seen.tos)
    if ip.ttl is not None:
        yield from _number("TTL", ip.ttl, seen.ttl)
    yield from _number("IP header length", 20, seen.ihl)


def _tcp_differences(wanted: TcpPacket, seen: Seen) -> Iterator[str]:
    yield from _port_differences(wanted.ports, seen)
    flags, ae = flag_bits(wanted)
    if (flags, ae) != (seen.flags, seen.ae):
        yield f"flags: expected {show_flags(flags, ae)}, seen {show_flags(seen.flags, seen.ae)}"
    yield from _number("sequence number", wanted.seq, seen.seq)
    yield from _number("payload length", wanted.length, len(seen.payload))
    # the field counts also where the ACK flag does not say that it means something
    yield from _number("acknowledgment", wanted.ack, seen.ack)
    if wanted.window is not None:
        yield from _number("window", wanted.window, seen.window)
    yield from _number("urgent pointer", wanted.urgent, seen.urgent)


def option_differences(
    wanted: tuple[TcpOption, ...] | None, seen: tuple[TcpOption, ...], ts_tolerance: int | None
) -> Iterator[str]:
    """The same of TCP options; their order counts."""
    if wanted is None:
        return
    if [o.kind for o in wanted] != [o.kind for o in seen]:
        yield f"TCP options: expected{show_options(wanted) or ' none'}, seen" + (
            show_options(seen) or " none"
        )
        return
    for want, have in zip(wanted, seen, strict=True):
        if want.kind == TCPOPT_TIMESTAMP:
            if ts_tolerance is None or len(have.numbers) != 2:
                continue
            if abs(want.numbers[0] - have.numbers[0]) <= ts_tolerance:
                continue
        if want != have:
            yield f"TCP option: expected {show_option(want)}, seen {show_option(have)}"


def continues(first: Seen, last: Seen, seen: Seen) -> bool:
    """May `seen` be the next segment of the burst that began with `first`, as a super-segment of
    the script is cut for the wire? All but the last are of one size, and nothing else differs."""
    mask = ~PSH_FIN_CWR
    return (
        seen.protocol == IPPROTO_TCP
        and seen.seq == (last.seq + len(last.payload)) & 0xFFFFFFFF
        and seen.flags & mask == last.flags & mask
        and seen.ack == last.ack
        and seen.window == last.window
        and len(seen.payload) <= len(first.payload)
        and len(last.payload) == len(first.payload)
    )
