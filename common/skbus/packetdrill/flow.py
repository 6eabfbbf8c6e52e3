# SPDX-License-Identifier: MIT
"""A socket of a script: which packets are its, and what the script's numbers are on the wire.

A script numbers a connection's bytes from its SYN (0), as tcpdump does; numbers in a SYN are
meant as they stand. The stack under test chooses its own initial number, its port when it
connects, and its timestamps. The flow learns them from the first packets, and translates from
then on. Payload is a known pattern by place in the stream, so that a byte in the wrong place
shows.
"""

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from skbus.packetdrill import wire
from skbus.packetdrill.packet_parser import TCPOPT_SACK, TCPOPT_TIMESTAMP
from skbus.packetdrill.script import IcmpPacket, TcpOption, TcpPacket, UdpPacket
from skbus.packetdrill.wire import IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, Endpoint, Seen

_MASK: Final = 0xFFFFFFFF
_PATTERN: Final = bytes((i * 7 + (i >> 8)) & 0xFF for i in range(1 << 16)) * 2
SYN: Final = 2
ACK: Final = 16


def pattern(offset: int, length: int) -> bytes:
    """The bytes that stand at `offset` of any stream."""
    at = offset & 0xFFFF
    out = _PATTERN[at : at + length]
    while len(out) < length:
        out += _PATTERN[(at + len(out)) & 0xFFFF :][: length - len(out)]
    return out


def pieces(packet: TcpPacket, mss: int) -> list[TcpPacket]:
    """A segment as it arrives in pieces of `mss` bytes (0: whole), as TSO cuts one. The last piece
    has PSH and FIN, the first one has CWR."""
    if not mss or packet.length <= mss:
        return [packet]
    out = []
    for at in range(0, packet.length, mss):
        length = min(mss, packet.length - at)
        drop = ("W" if at else "") + ("PF" if at + length < packet.length else "")
        flags = "".join(c for c in packet.flags if c not in drop)
        out.append(replace(packet, seq=packet.seq + at, length=length, flags=flags))
    return out


class FlowState(Enum):
    """How far a socket has come, as the script has it."""

    NEW = "new"
    LISTENING = "listening"
    SYN_RECEIVED = "SYN received"
    SYNACK_SENT = "SYN-ACK sent"
    SYNACK_ACKED = "SYN-ACK acknowledged"
    CONNECTING = "connecting"
    SYN_SENT = "SYN sent"
    CONNECTED = "connected"


class FlowError(Exception):
    """A packet of the script that cannot be put on the wire; the text says why."""


@dataclass(slots=True, eq=False)
class Flow:
    """One socket. `local` and `remote`: (address, port) on the wire; port 0: not known yet."""

    protocol: int
    local: Endpoint
    remote: Endpoint
    state: FlowState = FlowState.NEW
    fd: int = -1
    """the stack's descriptor; -1: not accepted yet"""
    script_fd: int = -1
    raw: bool = False
    """a raw socket: what it sends has a header of ours"""
    local_isn: int = 0
    script_local_isn: int = 0
    remote_isn: int = 0
    ts_map: dict[int, int] = field(default_factory=dict)
    """our timestamps: the script's -> the wire's"""
    first_ts: tuple[int, int] | None = None
    """(script, wire) of our first timestamp"""
    sent: int = 0
    """bytes that the application has sent"""
    received: int = 0
    """bytes that the application has received, or thrown away (MSG_TRUNC)"""
    bound: Endpoint | None = None
    """where bind() has put it"""

    def outgoing(self, size: int) -> bytes:
        """What the application sends next. Where the header is the application's, that is an echo
        request (ping and raw ICMP sockets), or a datagram between the script's ports."""
        if self.protocol == IPPROTO_ICMP:
            return wire.echo_request(pattern(0, max(size - 8, 0)))[:size]
        if self.raw and self.protocol == IPPROTO_UDP and size >= 8:
            return wire.udp_header(self.local[1], self.remote[1], size) + pattern(0, size - 8)
        return pattern(self.sent if self.protocol == IPPROTO_TCP else 0, size)

    # ---- numbers -----------------------------------------------------------------------

    def local_offset(self, syn: bool) -> int:
        """What to add to a number of our stack's bytes to get from script to wire."""
        return self.local_isn - self.script_local_isn if syn else self.local_isn

    def remote_offset(self, syn: bool) -> int:
        """The same for the remote host's bytes."""
        return 0 if syn else self.remote_isn

    # ---- inbound -----------------------------------------------------------------------

    def segment_in(self, packet: TcpPacket, ts_scaled: bool) -> bytes:
        """The script's inbound segment as bytes. FlowError where its timestamp is unknown."""
        syn = "S" in packet.flags
        source, dest = self.remote, self.local
        if packet.ports is not None:
            source = (source[0], packet.ports.source or source[1])
            dest = (dest[0], packet.ports.dest or dest[1])
        ack = packet.ack + self.local_offset(syn) if "." in packet.flags else packet.ack
        options = tuple(
            self._option_in(o, "." in packet.flags, syn, ts_scaled) for o in packet.options or ()
        )
        seq = packet.seq + self.remote_offset(syn)
        start = seq - self.remote_isn + syn - 1
        payload = pattern(start, packet.length)
        return wire.build_tcp(packet, source, dest, seq, ack, options, payload)

    def _option_in(self, option: TcpOption, ack: bool, syn: bool, ts_scaled: bool) -> TcpOption:
        if option.kind == TCPOPT_SACK:
            offset = self.local_offset(syn)
            return option._replace(numbers=tuple(n + offset & _MASK for n in option.numbers))
        if option.kind == TCPOPT_TIMESTAMP and ack:
            val, ecr = option.numbers
            on_wire = self.ts_map.get(ecr)
            if on_wire is None and ts_scaled and self.first_ts is not None:
                on_wire = ecr - self.first_ts[0] + self.first_ts[1] & _MASK
            if on_wire is None:
                raise FlowError(f"ecr {ecr}: no outbound segment before had this timestamp")
            return option._replace(numbers=(val, on_wire))
        return option

    def icmp_in(self, packet: IcmpPacket) -> bytes:
        """The script's inbound ICMP message, about our stack's packet that it quotes."""
        echoed = packet.echoed
        if echoed.protocol == "raw" or self.protocol == IPPROTO_ICMP:
            quoted = bytes(max(0, echoed.length - 8)) if echoed.protocol == "raw" else b""
        else:
            named = {"udp": IPPROTO_UDP, "tcp": IPPROTO_TCP}
            protocol = named.get(echoed.protocol, self.protocol)
            seq = echoed.seq + self.local_isn
            quoted = wire.build_echoed(self.local, self.remote, protocol, seq, echoed.length)
        return wire.build_icmp(packet, self.remote, self.local, quoted)

    def datagram_in(self, packet: UdpPacket) -> bytes:
        """The script's inbound datagram."""
        source, dest = self.remote, self.local
        if packet.ports is not None:
            source = (source[0], packet.ports.source or source[1])
            dest = (dest[0], packet.ports.dest or dest[1])
        return wire.build_udp(packet, source, dest, pattern(0, packet.length))

    # ---- outbound ----------------------------------------------------------------------

    def owns(self, seen: Seen, icmp: bool) -> bool:
        """Has this socket sent that packet? icmp: the script expects an ICMP message."""
        if seen.protocol == IPPROTO_ICMP:
            return icmp and seen.dest[0] == self.remote[0]
        if seen.protocol != self.protocol or icmp:
            return False
        mine = seen.source == self.local and seen.dest == self.remote
        if self.protocol == IPPROTO_UDP:
            starts = self.state is FlowState.CONNECTING
        else:
            starts = self.state is FlowState.SYN_SENT and seen.flags & (SYN | ACK) == SYN
        if not starts or seen.dest != self.remote:
            return mine
        self.local = seen.source
        self.local_isn = seen.seq
        return True

    def to_script(self, seen: Seen, packet: TcpPacket | None) -> Seen:
        """An outbound packet with the script's numbers. packet: what the script expects, from
        whose timestamp ours are learned."""
        if seen.protocol != IPPROTO_TCP:
            quoted = seen.quoted
            if quoted is not None and quoted.protocol == IPPROTO_TCP:
                offset = self.remote_offset(bool(quoted.flags & SYN))
                quoted.seq = quoted.seq - offset & _MASK
            return seen
        syn = bool(seen.flags & SYN)
        seen.seq = seen.seq - self.local_offset(syn) & _MASK
        if seen.flags & ACK:
            seen.ack = seen.ack - self.remote_offset(syn) & _MASK
        seen.options = tuple(self._option_out(o, syn, packet) for o in seen.options)
        return seen

    def _option_out(self, option: TcpOption, syn: bool, packet: TcpPacket | None) -> TcpOption:
        if option.kind == TCPOPT_SACK:
            offset = self.remote_offset(syn)
            return option._replace(numbers=tuple(n - offset & _MASK for n in option.numbers))
        if option.kind == TCPOPT_TIMESTAMP and len(option.numbers) == 2:
            val, ecr = option.numbers
            for wanted in (packet.options or ()) if packet is not None else ():
                if wanted.kind == TCPOPT_TIMESTAMP:
                    self.ts_map[wanted.numbers[0]] = val
                    self.first_ts = self.first_ts or (wanted.numbers[0], val)
            if self.first_ts is not None:
                val = val - self.first_ts[1] + self.first_ts[0] & _MASK
            return option._replace(numbers=(val, ecr))
        return option

    def disconnected(self) -> None:
        """connect(AF_UNSPEC): what it still sends goes out from where it was."""
        self.state = FlowState.NEW

    def connecting(self, remote: Endpoint) -> None:
        """connect(): a connection of its own, of which nothing is known yet."""
        self.state = FlowState.CONNECTING
        self.remote = remote
        self.remote_isn = 0
        self.sent = self.received = 0
        self.ts_map = {}
        self.first_ts = None

    def payload_error(self, seen: Seen) -> str | None:
        """What is wrong with the bytes of an outbound packet of `to_script`."""
        offset = 0
        if self.protocol == IPPROTO_TCP:
            syn = bool(seen.flags & SYN)
            offset = seen.seq - (self.script_local_isn if syn else 0) + syn - 1
        if seen.protocol == IPPROTO_ICMP or offset < 0:
            return None
        wanted = pattern(offset, len(seen.payload))
        if seen.payload == wanted:
            return None
        at = next(i for i, (a, b) in enumerate(zip(seen.payload, wanted, strict=True)) if a != b)
        return f"payload byte {at} is {seen.payload[at]:#x}, not {wanted[at]:#x}"
